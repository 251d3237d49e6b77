"""Which sites of a model a comparison's settings mean."""

from dataclasses import replace

from interp_core.errors import InterpError
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.transplants import parse_patch
from interp_core.models.subject import Subject
from interp_core.sites import STAGES, Site


def checked_for(request: CompareRequest, subject: Subject) -> CompareRequest:
    """The request with what the model decides filled in; InterpError for what it does not have."""
    parse_patch(request.patch, subject.n_layers, [0.0] * subject.n_layers)
    stage_sites(request, subject)
    map_sites(request, subject)
    return replace(request, bonafide_index=subject.bonafide_index) if request.bonafide_index is None else request


def stage_sites(request: CompareRequest, subject: Subject) -> tuple[Site, ...]:
    """The stages that get the donor's activations, in the order of the forward pass."""
    return _stages(subject, tuple(subject.stages) if request.stages == ("all",) else request.stages)


def map_sites(request: CompareRequest, subject: Subject) -> tuple[Site, ...]:
    """The stages where maps act."""
    usual = tuple(kind for kind in subject.stages if kind != "logits")
    return _stages(subject, request.map_at or usual) if request.maps else ()


def _stages(subject: Subject, names: tuple[str, ...]) -> tuple[Site, ...]:
    unknown = [name for name in names if name not in subject.stages]
    if unknown:
        raise InterpError(
            f"{subject.name} has no stage {unknown[0]!r} (its stages: {', '.join(subject.stages) or 'none'})."
        )
    return tuple(Site(kind) for kind in STAGES if kind in names)
