"""What can be chosen about a comparison of two models."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from interp_core.errors import InterpError
from interp_core.experiments.compare_arms import MAPS, parse_patch
from interp_core.experiments.compare_units import Columns
from interp_core.models.spoof import SpoofDetector
from interp_core.models.subject import Subject
from interp_core.sites import STAGES, Site

DEFAULT_PATCH = ("auto:3", "each")


@dataclass(frozen=True)
class CompareSettings:
    """How two models are compared.

    Attributes:
        patch: which layers get the donor's activations: `auto:K` (the K least alike by CKA), `each`, `cumulative`
            (layers 0 to l), a list like `0,5,11`, `none`; several side by side.
        stages: the sites behind the blocks that get them: `all`, `none`, or their names.
        weights: whether the donor's layer weights are transplanted too, where the readout mixes layers.
        maps: donor-free transplants, fitted on the half on which sites are chosen: mean, ridge, procrustes.
        map_at: the stages where they act; empty for all but the logits.
        reverse: whether the chosen transplants are also made the other way round.
        skip_null: leave out what must change nothing by the weights, instead of showing that it does.
        label, speaker, group, domain, attack: manifest columns; empty to find them, `none` to do without.
        bonafide_index: which logit stands for bona fide; None for what the model says.
        labels, prompt: of models that are asked in words.
        probe_draws: of each probe's permutation test. probe_clips: the most clips that a probe is fitted on.
        cka_bytes: the most memory that CKA takes.
        batch_size, seed, checks: as everywhere.
    """

    patch: tuple[str, ...] = DEFAULT_PATCH
    stages: tuple[str, ...] = ("all",)
    weights: bool = True
    maps: tuple[str, ...] = MAPS
    map_at: tuple[str, ...] = ()
    reverse: bool = True
    skip_null: bool = False
    label: str = ""
    speaker: str = ""
    group: str = ""
    domain: str = ""
    attack: str = ""
    bonafide_index: int | None = None
    labels: tuple[str, ...] = ()
    prompt: str = ""
    probe_draws: int = 199
    probe_clips: int = 2000
    cka_bytes: int = 1 << 30
    batch_size: int = 8
    seed: int = 42
    checks: bool = True

    def check(self) -> None:
        """Refuse what no model could do."""
        unknown = [name for name in self.maps if name not in MAPS]
        if unknown:
            raise InterpError(f"unknown transplant {unknown[0]!r} (known: {', '.join(MAPS)}).")
        if self.batch_size < 1 or self.probe_draws < 0 or self.probe_clips < 1:
            raise InterpError(
                f"batch_size={self.batch_size}, probe_draws={self.probe_draws} and probe_clips={self.probe_clips}: "
                "give 1 or more, of draws 0 or more."
            )

    @property
    def columns(self) -> Columns:
        return Columns(self.label, self.speaker, self.group, self.domain, self.attack)

    def checked_for(self, subject: Subject) -> "CompareSettings":
        """The settings with what the model decides filled in; InterpError for what it does not have."""
        self.check()
        parse_patch(self.patch, subject.n_layers, [0.0] * subject.n_layers)
        self.stage_sites(subject)
        self.map_sites(subject)
        if self.bonafide_index is None and isinstance(subject, SpoofDetector):
            return replace(self, bonafide_index=subject.bonafide_index)
        return self

    def stage_sites(self, subject: Subject) -> tuple[Site, ...]:
        """The stages that get the donor's activations, in the order of the forward pass."""
        if self.stages == ("none",):
            return ()
        return _stages(subject, tuple(subject.stages) if self.stages == ("all",) else self.stages)

    def map_sites(self, subject: Subject) -> tuple[Site, ...]:
        """The stages where maps act."""
        usual = tuple(kind for kind in subject.stages if kind != "logits")
        return _stages(subject, self.map_at or usual) if self.maps else ()


def _stages(subject: Subject, names: tuple[str, ...]) -> tuple[Site, ...]:
    unknown = [name for name in names if name not in subject.stages]
    if unknown:
        raise InterpError(
            f"{subject.name} has no stage {unknown[0]!r} (its stages: {', '.join(subject.stages) or 'none'})."
        )
    return tuple(Site(kind) for kind in STAGES if kind in names)


def settings_dict(settings: CompareSettings) -> dict[str, Any]:
    """The settings as a config file holds them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


def settings_from(saved: Mapping[str, Any]) -> CompareSettings:
    """Read settings back from a config file."""
    if unknown := sorted(set(saved) - {field.name for field in fields(CompareSettings)}):
        raise InterpError(f"the config holds unknown settings {', '.join(unknown)}; it is from another version.")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
    return CompareSettings(**values)
