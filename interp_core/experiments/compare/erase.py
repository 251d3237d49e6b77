"""A concept erased in the base: the domain, or another column's classes, taken out of what a layer or a stage holds.

Fitted on the base's own activations of the choosing half, applied to every clip, and so held out in all numbers that
are reported. The donor has no part in it. Beside it stands a random subspace of the same rank.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.clips import ReadyBatch
from interp_core.experiments.compare.clean import CleanPass
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.transplants import ERASURES, Transplant
from interp_core.experiments.compare.units import Units, values_of
from interp_core.maths.subspaces import Eraser, fit_leace, random_eraser
from interp_core.models.subject import Subject
from interp_core.sites import Site, check_kind
from interp_core.trace.hooks import Edit


def erase_sites(request: CompareRequest, subject: Subject) -> tuple[Site, ...]:
    """Where a concept is erased, in the order that was asked for; InterpError for a site that the model has not."""
    stages, found = [kind for kind in subject.stages if kind != "logits"], []
    for word in request.erase:
        if word in stages:
            found.append(Site(check_kind(word)))
        elif word.isdigit() and int(word) < subject.n_layers:
            found.append(Site("resid_post", int(word)))
        else:
            raise InterpError(
                f"erase {word!r} is no layer (0 to {subject.n_layers - 1}) and no stage of {subject.name} "
                f"({', '.join(stages) or 'it has none'})."
            )
    return tuple(dict.fromkeys(found))


def concept_of(request: CompareRequest, units: Units) -> str:
    """The column whose classes are erased."""
    return request.erase_label or units.columns.domain


def check_erasable(request: CompareRequest, units: Units, clips: Sequence[Clip]) -> None:
    """Refuse a column that is not there, or that has one class among the clips that it is fitted on."""
    if not request.erase:
        return
    column = concept_of(request, units)
    if not column:
        raise InterpError("no column says the domain (codec, channel) to erase; name one with --erase-label.")
    known = {name for clip in clips for name in clip.labels}
    if column not in known:
        raise InterpError(f"no clip has a column {column!r} to erase (columns: {', '.join(sorted(known)) or 'none'}).")
    seen = sorted(set(values_of(clips, column)[units.chosen_on].tolist()) - {""})
    if len(seen) < 2:
        raise InterpError(
            f"the clips on which {column} would be learned hold {', '.join(seen) or 'none'} of it; a concept to erase "
            "needs two classes there."
        )


def erased_transplants(request: CompareRequest, subject: Subject, units: Units) -> list[Transplant]:
    """A changed model for each site, and the control of each."""
    column = concept_of(request, units)
    return [
        Transplant(mode, (site,), chosen=said)
        for site in erase_sites(request, subject)
        for mode, said in zip(
            ERASURES, (f"{column} erased, fitted on the choosing half", f"control of {column} erased"), strict=True
        )
    ]


def fitted_erasers(
    request: CompareRequest, subject: Subject, units: Units, clips: Sequence[Clip], clean: CleanPass
) -> tuple[dict[tuple[str, Site], Eraser], dict[str, Any]]:
    """The maps of both modes by site, and for the report the column, and by site the rank and the clips they rest on.

    Raises:
        InterpError: one class only among the clips that were kept, or classes with the same mean.
    """
    column = concept_of(request, units)
    values = values_of(clips, column)[clean.kept]
    at = np.flatnonzero(units.chosen_on[clean.kept] & (values != ""))
    maps: dict[tuple[str, Site], Eraser] = {}
    about: dict[str, Any] = {}
    for site in erase_sites(request, subject):
        fitted = fit_leace(clean.features["base"][str(site)][at], values[at], shrink=True)
        maps["erasure", site] = fitted
        maps["random erasure", site] = random_eraser(fitted.mean, fitted.rank, request.seed, "erasure", str(site))
        about[str(site)] = {"rank": fitted.rank, "clips": len(at), "classes": len(set(values[at].tolist()))}
    return maps, {"column": column, "sites": about}


def on_recordings(given: ReadyBatch, edits: Mapping[Site, Edit]) -> dict[Site, Edit]:
    """The edits at positions that hold a recording alone; [batch, pos, width]."""

    def held(site: Site, edit: Edit) -> Edit:
        def change(value: Tensor) -> Tensor:
            new = value.clone()
            for row, span in enumerate(given.spans(site, value.shape[1])):
                at = span.positions(value.shape[1]).to(value.device)
                new[row, at] = edit(value[row, at])
            return new

        return change

    return {site: held(site, edit) for site, edit in edits.items()}
