"""What a run of probes reads where: clips, label columns with their units, quantities, points of the model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp_core.data.clips import Clip
from interp_core.data.columns import listed, units_of
from interp_core.errors import InterpError
from interp_core.experiments.probes.request import EMB, READ_AT, ProbedSite, ProbesRequest, ReadAt
from interp_core.maths.probes import FEWEST_GROUPS
from interp_core.models.subject import Subject
from interp_core.sites import Site

MOST_VALUES = 20
"""Of a label column that is read without being asked for."""
RELATED = ("text_id", "speaker", "group", "src_file", "recording", "utterance", "slide", "patient", "source")
TRAIN = "train"
ALONE = "none"


@dataclass(frozen=True)
class Point:
    """One place of the model: a site behind a layer (-1: what enters layer 0), and what of it is read."""

    kind: ProbedSite
    place: ReadAt
    layer: int

    @property
    def site(self) -> Site:
        return Site("resid_pre", 0) if self.layer == EMB else Site(self.kind, self.layer)

    @property
    def curve(self) -> str:
        """Names the points that differ in their layer alone."""
        return f"{self.kind}, {self.place}"


@dataclass(frozen=True, eq=False)
class Target:
    """What probes read: a label column, or a quantity whose values are measured while the clips are read.

    Attributes:
        name: of the column or the quantity. is_label: which of the two.
        rows: [n] places of its clips. labels: [n] of a column; empty of a quantity.
        units: [n] what related clips share. unit: the column that says so, or none.
        left_out: classes that come from too few units, and clips without a value, in words.
    """

    name: str
    is_label: bool
    rows: NDArray[np.intp]
    labels: tuple[str, ...]
    units: tuple[str, ...]
    unit: str
    left_out: str = ""

    def among(self, kept: NDArray[np.bool_]) -> "Target":
        """The same with some of its rows."""
        units = tuple(np.asarray(self.units)[kept])
        labels = tuple(np.asarray(self.labels)[kept]) if self.labels else ()
        return Target(self.name, self.is_label, self.rows[kept], labels, units, self.unit, self.left_out)


@dataclass(frozen=True, eq=False)
class ProbesPlan:
    """A run before it starts."""

    settings: ProbesRequest
    clips: tuple[Clip, ...]
    targets: tuple[Target, ...]
    points: tuple[Point, ...]
    left_out: Mapping[str, int]


def plan_probes(subject: Subject, clips: Sequence[Clip], settings: ProbesRequest) -> ProbesPlan:
    """Choose the clips, the targets and the points.

    Raises:
        InterpError: sites, layers, places, columns or units that are not there, or nothing that could be read.
    """
    points = points_of(subject, settings)
    kept = [clip for clip in clips if clip.label("split") != TRAIN]
    if not settings.held_out or not any(clip.label("split") is not None for clip in kept):
        kept = list(clips)
    if settings.pilot is not None:
        at = np.linspace(0, len(kept) - 1, min(len(kept), settings.pilot)).round().astype(int)
        kept = [kept[i] for i in at.tolist()]
    targets = targets_of(kept, settings)
    return ProbesPlan(settings, tuple(kept), targets, points, {"training clips": _trained(clips, settings)})


def _trained(clips: Sequence[Clip], settings: ProbesRequest) -> int:
    splits = Counter(clip.label("split") for clip in clips)
    others = any(name not in (TRAIN, None) for name in splits)
    return splits[TRAIN] if settings.held_out and others else 0


def points_of(subject: Subject, settings: ProbesRequest) -> tuple[Point, ...]:
    """Every point of a run, layer by layer within a site and place."""
    faults = [kind for kind in settings.sites if kind not in subject.kinds]
    if faults:
        raise InterpError(f"{subject.name} has no {', '.join(faults)} (its sites: {', '.join(subject.kinds)}).")
    has = tuple(place for place in READ_AT if place == "mean" or "last" in subject.spans)
    if "last" in settings.places and "last" not in has:
        raise InterpError(f"{subject.name} has no last position that reads all others (places: mean); leave last out.")
    usual = (EMB, *range(subject.n_layers))
    layers = usual if settings.layers is None else tuple(sorted(settings.layers))
    if wrong := [layer for layer in layers if layer not in usual]:
        raise InterpError(
            f"layers {wrong} are outside {subject.name}'s {subject.n_layers} layers (valid: -1 to "
            f"{subject.n_layers - 1}; -1 is what enters layer 0)."
        )
    found = [
        Point(kind, place, layer)
        for kind in settings.sites
        for place in settings.places or has
        for layer in layers
        if layer != EMB or kind == "resid_post"
    ]
    for point in found:
        subject.locate(point.site)
    return tuple(found)


def targets_of(clips: Sequence[Clip], settings: ProbesRequest) -> tuple[Target, ...]:
    """The label columns and the quantities of a run, in this order."""
    known = sorted({name for clip in clips for name in clip.labels})
    if absent := [name for name in settings.columns if name not in known]:
        raise InterpError(f"no clip has a column {', '.join(map(repr, absent))}; the columns are {listed(known)}.")
    if settings.units not in ("auto", ALONE) and settings.units not in known:
        raise InterpError(f"no clip has a column {settings.units!r} for the units; the columns are {listed(known)}.")
    found, faults = [], []
    for name in settings.columns or [name for name in known if name != "split" and _few_values(clips, name)]:
        target = _column(clips, name, settings.units)
        if isinstance(target, str):
            faults.append(target)
        else:
            found.append(target)
    if settings.columns and faults:
        raise InterpError(f"{'; '.join(faults)}.")
    options = [_units(clips, option) for option in _related(clips, settings.units)]
    unit, units = next((one for one in options if len(set(one[1])) >= FEWEST_GROUPS), options[-1])
    every = np.arange(len(clips))
    found += [Target(name, False, every, (), units, unit) for name in settings.quantities]
    if not found:
        raise InterpError(
            f"there is nothing to read: no label column can be probed ({'; '.join(faults) or 'there is none'}) and no "
            "quantity is asked for."
        )
    return tuple(found)


def _few_values(clips: Sequence[Clip], name: str) -> bool:
    return 2 <= len({clip.label(name) for clip in clips} - {None}) <= MOST_VALUES


def _column(clips: Sequence[Clip], name: str, asked: str) -> Target | str:
    """A label column as a target, with the first units of which two of its classes have enough; else why not."""
    said = ""
    for option in _related(clips, asked):
        if option == name:
            continue
        unit, units = _units(clips, option)
        held: dict[str, set[str]] = {}
        for i, clip in enumerate(clips):
            if (value := clip.label(name)) is not None:
                held.setdefault(value, set()).add(units[i])
        good = {value for value, of in held.items() if len(of) >= FEWEST_GROUPS}
        if len(good) > 1:
            rows = [i for i, clip in enumerate(clips) if clip.label(name) in good]
            few = sorted(held.keys() - good)
            without = sum(clip.label(name) is None for clip in clips)
            parts = [f"{', '.join(few)} (from under {FEWEST_GROUPS} {unit})"] * bool(few)
            parts += [f"{without} clips without a value"] * bool(without)
            labels = tuple(str(clips[i].label(name)) for i in rows)
            of = tuple(units[i] for i in rows)
            return Target(name, True, np.array(rows), labels, of, unit, "; ".join(parts))
        said = said or f"{name!r}: under two of its values come from {FEWEST_GROUPS} or more different {unit}"
    return said or f"{name!r} cannot be its own unit; give other units, or none"


def _related(clips: Sequence[Clip], asked: str) -> list[str]:
    """The columns that may say which clips are related, those to be tried first in front; `none` is the last resort."""
    if asked != "auto":
        return [asked]
    known = {column for clip in clips for column in clip.labels}
    return [*dict.fromkeys(one for one in (units_of(clips), *RELATED) if one in known), ALONE]


def _units(clips: Sequence[Clip], column: str) -> tuple[str, tuple[str, ...]]:
    """The column of units, and the unit of every clip; one without a value is a unit of its own."""
    names = [None if column == ALONE else clip.label(column) for clip in clips]
    units = tuple(f"clip {clip.clip_id}" if name is None else name for clip, name in zip(clips, names, strict=True))
    return (column if any(name is not None for name in names) else ALONE), units
