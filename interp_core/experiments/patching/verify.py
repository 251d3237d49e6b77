"""All checks of a model at once, on a sample of its layers and sites, and a record of them that others can read.

The checks before a run are those of that run's site. Here every site is held to the model's own forward with one hook,
which is what "checked on real weights" in the list of models means.
"""

import platform
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from interp_core.content import CLIPS, DIGITS
from interp_core.engine import Engine
from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments.checks import compared, run_checks
from interp_core.experiments.cost import timed
from interp_core.experiments.patching.check_requests import VerifyRequest
from interp_core.experiments.patching.chunks import patches_of
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.plan import Plan
from interp_core.jobs import Progress, silent
from interp_core.sites import STAGES, Kind
from interp_core.trace.clean import clean_runs
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep

PAIRS = 2
"""Of clips; each costs a forward pass of the model a site and layer."""
TIE = 0.05
"""Two answers whose logits are nearer than this are a tie in half precision, in logits."""


def verify(engine: Engine, request: VerifyRequest, progress: Progress = silent) -> dict[str, Any]:
    """Check a model as a whole.

    Args:
        request: the model, the clips and their pairs.
    Returns:
        JSON-ready: what was checked (id, hashes, versions, device, dtype, clips), where the audio stands in each
        prompt, every check with its largest difference and what is allowed, ties, seconds and peak memory, `passed`.
    Raises:
        InterpError: the model or the clips cannot be used at all.
    """
    started = time.monotonic()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    asked = request.as_run(pilot=request.pilot or PAIRS, controls=(), flow=())
    ready = PATCHING.prepare(engine, asked, progress)
    plan, store = ready.plan, ready.store
    subject, config = store.subject, ready.config
    layers = sampled(subject.n_layers)
    kinds = [kind for kind in subject.kinds if kind not in STAGES]
    pairs = plan.pairs.pairs[:PAIRS]
    first = replace(plan.chunks[0], pairs=pairs)
    whole = replace(plan, spec=SiteSpec("resid_post", layers=layers))
    found: list[dict[str, Any]] = []
    try:
        kept = run_checks(store, pairs, plan.labels[0], asked_of(plan), patches_of(whole, store, first)[0], whole.spec)
        reports = {"self_patch": kept.self_patch, "audio_span": kept.audio_span}
    except CheckFailed as error:
        reports = error.report
    found += [{"site": "resid_post", **check} for check in reports["self_patch"]["checks"]]
    for number, kind in enumerate(kinds):
        progress(number, len(kinds), f"checking {kind}")
        found += _site(plan, store, first, kind, layers) if kind != "resid_post" else []
    runs = [store.run(clip, asked_of(plan)) for clip in ready.used]
    one = runs[0].prompted
    every = replace(plan, spec=SiteSpec("resid_post", layers=tuple(range(subject.n_layers))))
    (patch, *_) = patches_of(every, store, first)[0]
    on_gpu = subject.device.type == "cuda"
    device = torch.cuda.get_device_name(subject.device) if on_gpu else platform.processor() or platform.machine()
    return {
        "verified": datetime.now(UTC).date().isoformat(),
        "passed": all(check["passed"] for check in found),
        "model": {**config["model"], "id": _called(config["model"]["id"])},
        "dtype": config["dtype"],
        "manifest": {
            "sha256": ready.manifest.digest,
            "clips": len(ready.used),
            CLIPS: {clip.clip_id: clip.digest[-DIGITS:] for clip in ready.used},
        },
        "versions": config["versions"],
        "device": f"{config['device']}: {device}",
        "layers": list(layers),
        "sites": kinds,
        "spans": reports["audio_span"]["clips"],
        "checks": [{name: value for name, value in check.items() if name != "by_layer"} for check in found],
        "ties": _ties(plan, runs),
        "seconds": {
            "clean_pass": timed(lambda: clean_runs(subject, [one])),
            "sweep_of_a_pair": timed(lambda: sweep(subject, [patch], plan.labels[0], every.spec)),
            "all": time.monotonic() - started,
        },
        "peak_bytes": torch.cuda.max_memory_allocated(subject.device) if on_gpu else resident_peak(),
        "peak_of": "allocated on the GPU" if on_gpu else "resident, the whole process",
    }


def resident_peak() -> int | None:
    """The most memory that this process has had resident since it began, in bytes; None where no system says it."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _called(model: str) -> str:
    """A model without the folders that it lies in here."""
    return Path(model).name if Path(model).exists() else model


def asked_of(plan: Plan) -> str:
    """The question that is checked: the first."""
    return plan.settings.prompts[0]


def sampled(n_layers: int) -> tuple[int, ...]:
    """The layers that are checked: first, middle, last."""
    return tuple(sorted({0, n_layers // 2, n_layers - 1}))


def _site(plan: Plan, store: CleanStore, chunk: Any, kind: Kind, layers: tuple[int, ...]) -> list[dict[str, Any]]:
    """Self-patch and fast = reference at a site; a sentence where the site cannot be edited."""
    subject, labels = store.subject, plan.labels[0]
    here = replace(plan, spec=SiteSpec(kind, layers=layers))
    try:
        patches = patches_of(here, store, chunk)[0]
        fast, slow = (sweep(subject, patches, labels, here.spec, method=method) for method in ("fast", "reference"))
        same = patches[0].recipient
        every = torch.arange(same.prompted.n_pos)
        itself = sweep(subject, [Patch(same, same, every, every.double())], labels, here.spec)
    except InterpError as error:
        return [{"site": kind, "check": "can be patched", "passed": False, "said": str(error)}]
    wanted = labels.read(same.logits[None])[0].cpu().expand_as(itself.label_logits[0])
    routes = ", ".join(sorted(set(fast.methods)))
    agree = compared(f"fast ({routes}) = reference", fast.label_logits, slow.label_logits, subject)
    unmoved = compared("self-patch", itself.label_logits[0], wanted, subject)
    return [{"site": kind, **agree}, {"site": kind, **unmoved, "method": itself.methods[0]}]


def _ties(plan: Plan, runs: Any) -> dict[str, Any]:
    """How many clean answers rest on a difference that half precision does not resolve."""
    best = [plan.labels[0].read(run.logits[None])[0][0].float().topk(2).values for run in runs]
    return {"clips": len(best), "within": TIE, "count": sum(float(top[0] - top[1]) < TIE for top in best)}
