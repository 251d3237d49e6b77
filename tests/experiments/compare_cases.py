"""Comparisons of tiny models, run once and shared by the tests."""

from pathlib import Path

from interp_core.cache import ByteCache
from interp_core.data.manifest import read_manifest
from interp_core.experiments.compare import Comparison, run_comparison
from interp_core.experiments.compare_ask import Question, ask
from interp_core.experiments.compare_settings import CompareSettings
from interp_core.models.load import open_model
from interp_core.trace.store import CleanStore

QUICK = CompareSettings(patch=("auto:2", "each"), maps=(), domain="none", batch_size=5, probe_draws=0)


def stores(base: Path, donor: Path) -> tuple[CleanStore, CleanStore]:
    cache = ByteCache(1 << 28)
    return CleanStore(open_model(str(base), device="cpu"), cache), CleanStore(
        open_model(str(donor), device="cpu"), cache
    )


def asked(base: Path, donor: Path, manifest: Path, settings: CompareSettings = QUICK) -> Question:
    return ask(*stores(base, donor), read_manifest(manifest).clips, settings)


def compared(question: Question) -> Comparison:
    return run_comparison(question, {})
