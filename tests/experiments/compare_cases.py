"""Comparisons of tiny models, run once and shared by the tests."""

from pathlib import Path

from interp_core.cache import ByteCache
from interp_core.data.manifest import read_manifest
from interp_core.experiments.compare.plan import ComparePlan, plan_comparison
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.run import Comparison, run_comparison
from interp_core.models.load import open_model
from interp_core.sinks import MEMORY
from interp_core.trace.store import CleanStore

QUICK = CompareRequest("m", patch=("auto:2", "each"), maps=(), domain="none", batch_size=5)


def stores(base: Path, donor: Path) -> tuple[CleanStore, CleanStore]:
    cache = ByteCache(1 << 28)
    return CleanStore(open_model(str(base), device="cpu"), cache), CleanStore(
        open_model(str(donor), device="cpu"), cache
    )


def asked(base: Path, donor: Path, manifest: Path, settings: CompareRequest = QUICK) -> ComparePlan:
    return plan_comparison(*stores(base, donor), read_manifest(manifest).clips, settings)


def compared(question: ComparePlan) -> Comparison:
    return run_comparison(question, {}, sink=MEMORY)
