"""A run as a person asks for it, and as its config file says it."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

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
class Asked:
    """What every experiment asks for: which model, which clips, where it runs.

    `manifest=None` means the bundled clips of a bundled model.
    """

    model: str
    manifest: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_clips: int | None = None
    skip_bad: bool = False
    pilot: int | None = None
    part: str = ""
    """Which list of blocks, of a model that has several; empty for its first."""
    probe: str = ""
    """The label column that a probe is fitted to, as the readout of a model without a classifier; empty for none."""

    command: ClassVar[str]
    """The command of the experiment on the command line."""

    @property
    def seed(self) -> int:
        raise NotImplementedError

    @property
    def title(self) -> str:
        """What a person sees while it runs."""
        return f"{self.command} {Path(self.model).name}"

    @property
    def key(self) -> str:
        """Names the run: two sessions that ask for the same share one job."""
        asked = {name: value for name, value in asdict(self).items() if value != ""}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def run(self, engine: Any, *, out: Path | None, resume: bool = False, progress: Any = None) -> Any:
        """Run the experiment on an engine, and keep it in a folder if one is given."""
        raise NotImplementedError


@dataclass(frozen=True)
class PatchRequest(Asked):
    """A patching run as a person asks for it: which pairs, under which settings.

    `labels` and `prompts` of `settings` are those of the model unless given, which `Engine.resolve` fills in;
    `demo_prompts=False` says that the prompts are given, also where they are the default ones.
    """

    kinds: str = "prosody,semantic"
    max_pairs: int | Mapping[str, int] = DEFAULT_MAX_PAIRS
    demo_prompts: bool = True
    settings: PatchSettings = field(default_factory=PatchSettings)

    command: ClassVar[str] = "patch"

    @property
    def seed(self) -> int:
        return self.settings.seed


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


def base_config(asked: Asked, subject: Subject, manifest: Manifest, limits: ClipLimits) -> dict[str, Any]:
    """Return what every run folder's config says: command, model, device, clips, versions."""
    demo = demos().get(asked.model)
    bundled = demo is not None and asked.manifest in (None, str(demo.manifest))
    return {
        "command": asked.command,
        "model": {
            "id": asked.model,
            "type": subject.config.model_type,
            "weights_sha256": subject.weights_hash,
            "n_layers": subject.n_layers,
            "n_heads": subject.n_heads,
            "d_model": subject.d_model,
            "seconds_per_position": subject.seconds_per_position(),
            **({"probe": subject.probe.report} if isinstance(subject, Encoder) and subject.probe else {}),
        },
        "device": str(subject.device),
        "dtype": str(subject.dtype).removeprefix("torch."),
        "manifest": {
            "path": None if bundled else asked.manifest,  # the same on every machine
            "sha256": manifest.digest,
            "clips": len(manifest.clips),
        },
        "clip_seconds": {"min": limits.min_seconds, "max": limits.max_seconds},
        "skipped_rows": [asdict(row) for row in manifest.skipped],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def run_config(ready: Prepared) -> dict[str, Any]:
    """Return everything that a patching run's config says."""
    request, subject = ready.request, ready.subject
    return {
        **base_config(request, subject, ready.manifest, ready.store.limits),
        "donors_answer_by_construction": ready.plan.by_construction,
        "request": {name: getattr(request, name) for name in CHOICES}
        | {name: getattr(request, name) for name in ("part", "probe") if getattr(request, name)},
        "settings": settings_dict(request.settings),
        "shortcut_refusal": subject.shortcut_refusal(),
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
