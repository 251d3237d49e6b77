"""A run as a person asks for it, and as its config file says it."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from interp_core.data.clips import ClipLimits
from interp_core.data.manifest import Manifest
from interp_core.data.pairs import DEFAULT_MAX_PAIRS, PairSet
from interp_core.errors import InterpError
from interp_core.experiments.plan import PatchSettings, Plan, settings_dict, settings_from
from interp_core.models.bundled import demos
from interp_core.models.encoders import Encoder
from interp_core.models.subject import Subject
from interp_core.trace.store import CleanStore

CHOICES = ("kinds", "max_pairs", "max_clips", "skip_bad", "pilot")
PACKAGES = ("torch", "transformers", "numpy", "pandas", "scipy", "librosa", "soundfile")


@dataclass(frozen=True)
class PatchRequest:
    """A patching run as a person asks for it: which model, which clips, which pairs, which settings.

    `manifest=None` means the bundled clips of a bundled model. `labels` and `prompts` of `settings` are those of the
    bundled model unless given, which `Engine.resolve` fills in; `demo_prompts=False` says that the prompts are given,
    also where they are the default ones.
    """

    model: str
    manifest: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    kinds: str = "prosody,semantic"
    max_pairs: int | Mapping[str, int] = DEFAULT_MAX_PAIRS
    max_clips: int | None = None
    skip_bad: bool = False
    pilot: int | None = None
    demo_prompts: bool = True
    part: str = ""
    """Which list of blocks, of a model that has several; empty for its first."""
    probe: str = ""
    """The label column that a probe is fitted to, as the readout of a model without a classifier; empty for none."""
    settings: PatchSettings = field(default_factory=PatchSettings)

    @property
    def key(self) -> str:
        """Names the run: two sessions that ask for the same share one job."""
        asked = {name: value for name, value in asdict(self).items() if value != ""}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Prepared:
    """A request with everything opened and checked, nothing computed yet."""

    request: PatchRequest
    manifest: Manifest
    pairs: PairSet
    plan: Plan
    store: CleanStore

    @property
    def subject(self) -> Subject:
        return self.store.subject


def run_config(ready: Prepared) -> dict[str, Any]:
    """Return everything that a run folder's config says."""
    request, subject = ready.request, ready.subject
    demo = demos().get(request.model)
    bundled = demo is not None and request.manifest == str(demo.manifest)
    return {
        "command": "patch",
        "model": {
            "id": request.model,
            "type": subject.config.model_type,
            "weights_sha256": subject.weights_hash,
            "n_layers": subject.n_layers,
            "n_heads": subject.n_heads,
            "d_model": subject.d_model,
            "seconds_per_position": subject.seconds_per_position(),
            **({"probe": subject.probe.report} if isinstance(subject, Encoder) and subject.probe else {}),
        },
        "donors_answer_by_construction": ready.plan.by_construction,
        "device": str(subject.device),
        "dtype": str(subject.dtype).removeprefix("torch."),
        "manifest": {
            "path": None if bundled else request.manifest,  # the same on every machine
            "sha256": ready.manifest.digest,
            "clips": len(ready.manifest.clips),
        },
        "request": {name: getattr(request, name) for name in CHOICES}
        | {name: getattr(request, name) for name in ("part", "probe") if getattr(request, name)},
        "clip_seconds": {"min": ready.store.limits.min_seconds, "max": ready.store.limits.max_seconds},
        "skipped_rows": [asdict(row) for row in ready.manifest.skipped],
        "settings": settings_dict(request.settings),
        "shortcut_refusal": subject.shortcut_refusal(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def request_from(config: Mapping[str, Any]) -> PatchRequest:
    """Return the request that a run's config came from."""
    if config.get("command") != "patch":
        raise InterpError(f"the config is one of {config.get('command')!r}; give that of a patching run.")
    try:
        return PatchRequest(
            model=config["model"]["id"],
            manifest=config["manifest"]["path"],
            device=config["device"],
            dtype=config["dtype"],
            **config["request"],
            demo_prompts=False,
            settings=settings_from(config["settings"]),
        )
    except (KeyError, TypeError) as error:
        raise InterpError(f"the config is not that of a patching run: {error} is missing or wrong.") from error


def limits_from(config: Mapping[str, Any]) -> ClipLimits:
    """Return the shortest and longest clip of the run that a config came from."""
    try:
        return ClipLimits(float(config["clip_seconds"]["min"]), float(config["clip_seconds"]["max"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InterpError(f"the config is not that of a patching run: {error} is missing or wrong.") from error
