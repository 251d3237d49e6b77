"""Stratified samples: the same number of clips a class, the same clips whatever the order of the rows.

Each clip has a rank that depends on the seed and on its clip_id alone. A sample takes the lowest ranks of every class,
so that a larger sample holds the smaller one, and further classes or clips move no clip but those they displace.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from interp_core.data.clips import Clip
from interp_core.errors import InterpError


@dataclass(frozen=True)
class StratifiedSample:
    """Clips drawn from classes.

    Attributes:
        clips: the drawn rows, one of each class in turn, so that the first N are spread over the classes too.
        counts: one row a class, in the order of the classes, with the columns `available` and `drawn`.
        asked: clips a class that were asked for.
        unlabelled: rows without a value in the column; never drawn.
    """

    clips: pd.DataFrame
    counts: pd.DataFrame
    asked: int
    unlabelled: int

    @property
    def short(self) -> dict[str, int]:
        """The classes with fewer clips than asked for, and how many they have; 0 = the class is missing."""
        few = self.counts["available"][self.counts["available"] < self.asked]
        return {str(name): int(count) for name, count in few.items()}


def stratified(
    frame: pd.DataFrame,
    column: str,
    per_class: int | None,
    seed: int = 42,
    *,
    classes: Sequence[str] | None = None,
    allow_short: bool = False,
) -> StratifiedSample:
    """Draw the same number of clips from every class.

    Args:
        frame: has a unique `clip_id` and the column of the classes; "" and NaN mean no class.
        column: what the classes are told by.
        per_class: clips a class; None for as many as the smallest class has.
        seed: another seed, another draw.
        classes: the classes wanted, in the order wanted; by default all that occur, sorted.
        allow_short: take all clips of a class that has fewer (even none) and say so in `short`, instead of raising.
    Raises:
        InterpError: classes that are missing or have too few clips, all of them named; no such column, no clip_id,
            one clip_id twice, per_class below 1, no class at all.
    """
    _check(frame, column, per_class)
    labels = frame[column].where(frame[column].notna(), "").astype(str)
    named = labels != ""
    wanted = list(dict.fromkeys(classes)) if classes is not None else sorted(set(labels[named]))
    if not wanted:
        raise InterpError(f"no clip has a value in {column!r}, so there is no class to draw from.")
    available = labels[named].value_counts().reindex(wanted, fill_value=0)
    asked = int(available.min()) if per_class is None else per_class
    few = available[available < max(asked, 1)]
    if len(few) and (not allow_short or asked < 1):
        said = ", ".join(f"{name} has {count}" for name, count in few.items())
        fewest = int(available.min())
        remedy = f"ask for {fewest} or fewer, or leave them out" if fewest else "leave out those that have none"
        raise InterpError(f"{max(asked, 1)} clips of every {column} were asked for, but {said}; {remedy}.")

    chosen = frame.loc[labels.isin(wanted)]
    keys = pd.DataFrame({"label": labels[labels.isin(wanted)], "rank": [_rank(seed, one) for one in chosen["clip_id"]]})
    keys["class"] = keys["label"].map({name: at for at, name in enumerate(wanted)})
    keys["place"] = keys.groupby("class")["rank"].rank(method="first").astype(int)
    keys["at"] = range(len(keys))
    drawn = keys[keys["place"] <= asked].sort_values(["place", "class"])
    counts = pd.DataFrame({"available": available, "drawn": available.clip(upper=asked)})
    counts.index.name = column
    return StratifiedSample(chosen.iloc[drawn["at"]].reset_index(drop=True), counts, asked, int((~named).sum()))


def _check(frame: pd.DataFrame, column: str, per_class: int | None) -> None:
    absent = [name for name in dict.fromkeys(("clip_id", column)) if name not in frame.columns]
    if absent:
        raise InterpError(
            f"the clips have no column {' and no column '.join(map(repr, absent))}; "
            f"they have {', '.join(frame.columns)}."
        )
    if per_class is not None and per_class < 1:
        raise InterpError(
            f"per_class={per_class} draws nothing; give 1 or more, or None for the smallest class's size."
        )
    twice = frame["clip_id"][frame["clip_id"].duplicated()]
    if len(twice):
        raise InterpError(f"the clip_id {twice.iloc[0]!r} is there more than once; make it unique.")


def _rank(seed: int, clip_id: str) -> str:
    """A number in hex that is as good as random, the same on every machine."""
    return hashlib.blake2b(f"{seed}\0{clip_id}".encode(), digest_size=16).hexdigest()


def halves(
    clips: Sequence[Clip], units: str, seed: int, uses: tuple[str, str] = ("attribute on", "measure on")
) -> tuple[list[Clip], list[Clip]]:
    """Clips of one half of the units and of the other, in their order; a clip without a unit is one of its own.

    Args:
        units: the column whose values are never divided.
        uses: what each half is for, for the message.
    Raises:
        InterpError: fewer than two units.
    """
    names = sorted({clip.label(units) or clip.clip_id for clip in clips})
    if len(names) < 2:
        raise InterpError(f"all clips are of one {units}; two are needed, one to {uses[0]} and one to {uses[1]}.")
    names.sort(key=lambda name: hashlib.sha256(f"{seed}|{name}".encode()).hexdigest())
    first = set(names[::2])
    parts: tuple[list[Clip], list[Clip]] = ([], [])
    for clip in clips:
        parts[(clip.label(units) or clip.clip_id) not in first].append(clip)
    return parts
