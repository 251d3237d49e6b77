"""Which clips are trained on, validated on in domain, and tested on out of domain."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp_core.data.clips import Clip
from interp_core.data.columns import listed
from interp_core.errors import InterpError

TRAIN, ID, OOD = ("train",), ("id_val", "id", "val", "dev"), ("ood", "test", "eval")
"""Values of a `split` column that mean the three, the first that occurs."""
RELATED = ("utterance", "text_id", "group")
"""Columns that say which clips are versions of one another, and so belong on one side of a split."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of the clips that are in each split, and a sentence on how they were found."""

    train: NDArray[np.intp]
    id: NDArray[np.intp]
    ood: NDArray[np.intp]
    said: str


def split(clips: Sequence[Clip], domain: str, units: str, *, train: str, id: str, ood: str) -> Splits:
    """Assign clips to the three splits.

    Args:
        domain: the column that the out-of-domain clips differ in.
        units: the column whose values are never divided where a split is made here and no column names versions.
        train, id, ood: filters: values of `split`, or column=value, several by commas (values of one column are
            alternatives, columns must all hold). All empty: the usual values of a `split` column, or, where it has
            none, the last domain is out of domain and every third unit of the others is for validation.
    Raises:
        InterpError: a filter that no clip passes, an incomplete choice, a clip that passes two of them.
    """
    given = (train, id, ood)
    if any(given) and not all(given):
        raise InterpError("give all of train, id and ood, or none of them.")
    if not any(given):
        values = Counter(clip.label("split") for clip in clips)
        found = [next((value for value in usual if values[value]), "") for usual in (TRAIN, ID, OOD)]
        if not all(found):
            return _made(clips, domain, units)
        given = (found[0], found[1], found[2])
    named = dict(zip(("train", "id", "ood"), given, strict=True))
    rows = {name: _passing(clips, text, name) for name, text in named.items()}
    for a, b in (("train", "id"), ("train", "ood"), ("id", "ood")):
        both = sorted(set(rows[a].tolist()) & set(rows[b].tolist()))
        if both:
            raise InterpError(
                f"{len(both)} clips are both in {a} ({named[a]}) and in {b} ({named[b]}), for example "
                f"{clips[both[0]].clip_id!r}; narrow one of the filters."
            )
    return Splits(rows["train"], rows["id"], rows["ood"], ", ".join(f"{n}: {text}" for n, text in named.items()))


def _made(clips: Sequence[Clip], domain: str, units: str) -> Splits:
    domains = sorted({value for clip in clips if (value := clip.label(domain)) is not None})
    if len(domains) < 3:
        raise InterpError(
            f"the column {domain!r} has the values {listed(domains)}: three are needed to keep one out of domain and "
            "probe the others, or a split column; or name the splits (--train, --id, --ood)."
        )
    away = domains[-1]
    known = {name for clip in clips for name in clip.labels}
    group = next((name for name in RELATED if name in known), units)
    inside = [i for i, clip in enumerate(clips) if clip.label(domain) not in (None, away)]
    names = sorted({_unit(clips[i], group) for i in inside}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    held = set(names[::3])
    learnt, kept = ([i for i in inside if (_unit(clips[i], group) in held) is for_id] for for_id in (False, True))
    beyond = [i for i, clip in enumerate(clips) if clip.label(domain) == away]
    seen = {_unit(clips[i], group) for i in learnt}
    unseen = [i for i in beyond if _unit(clips[i], group) not in seen]
    said = (
        f"no split column: {domain} {away!r} is out of domain, every third {group} of the others is kept for "
        "validation (name your own with --train, --id and --ood)"
    )
    if unseen and len(unseen) < len(beyond):
        said += f"; out of domain only those of no {group} that neurons are ranked on"
    out = unseen or beyond
    return Splits(np.asarray(learnt, np.intp), np.asarray(kept, np.intp), np.asarray(out, np.intp), said)


def _unit(clip: Clip, units: str) -> str:
    return clip.label(units) or clip.clip_id


def _passing(clips: Sequence[Clip], text: str, name: str) -> NDArray[np.intp]:
    wanted: dict[str, set[str]] = {}
    for part in text.split(","):
        column, sign, value = part.partition("=")
        wanted.setdefault(column.strip() if sign else "split", set()).add((value if sign else column).strip())
    rows = [i for i, clip in enumerate(clips) if all(clip.label(column) in values for column, values in wanted.items())]
    if not rows:
        here = {column: sorted({str(clip.label(column)) for clip in clips}) for column in wanted}
        shown = "; ".join(f"{column} has {listed(values[:12])}" for column, values in here.items())
        raise InterpError(f"no clip passes {name} {text!r} ({shown}); correct the filter.")
    return np.asarray(rows, np.intp)
