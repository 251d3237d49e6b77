"""What the clips of a comparison are: their class, the units that were sampled, and the halves of choice and report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp_core.data.clips import Clip
from interp_core.errors import InterpError

BONAFIDE = ("bonafide", "bona fide", "bona-fide", "bona_fide", "genuine", "real", "human")
LABELS, SPEAKERS, GROUPS = ("label", "key"), ("speaker",), ("utterance", "text_id", "src_file", "fold")
DOMAINS, ATTACKS = ("codec", "domain"), ("attack_label", "attack", "engine")
FEWEST_A_HALF = 2  # units of every class in a half


@dataclass(frozen=True)
class Columns:
    """Which manifest column says what; empty where no column does."""

    label: str
    speaker: str
    group: str
    domain: str
    attack: str


@dataclass(frozen=True, eq=False)
class Units:
    """The clips, described.

    Attributes:
        columns: where the rest comes from.
        labels: [n] the class of each clip, "" where it has none.
        positive: the class whose score is high (bona fide); "" where the labels are not two classes.
        speakers, groups: [n] the unit that was sampled; related clips (versions of one utterance) share a group.
        chosen_on: [n] whether a clip belongs to the half on which sites and modes are chosen.
        split: how the halves were made, or why there are none; then both are all clips.
    """

    columns: Columns
    labels: NDArray[np.str_]
    positive: str
    speakers: NDArray[np.str_]
    groups: NDArray[np.str_]
    chosen_on: NDArray[np.bool_]
    reported: NDArray[np.bool_]
    split: str

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        return self.labels == self.positive

    @property
    def scored(self) -> bool:
        """Whether error rates can be given: two classes, one of them bona fide (or the first of two)."""
        return bool(self.positive)


def find_columns(clips: Sequence[Clip], asked: Columns) -> Columns:
    """Fill in the columns that were not named; a column that was named has to be there.

    Raises:
        InterpError: a named column that no clip has.
    """
    there = {name for clip in clips for name in clip.labels}

    def one(name: str, usual: Sequence[str]) -> str:
        if name == "none":
            return ""
        if name and name not in there:
            raise InterpError(f"no clip has a column {name!r} (columns: {', '.join(sorted(there)) or 'none'}).")
        return name or next((column for column in usual if column in there), "")

    return Columns(
        label=one(asked.label, LABELS),
        speaker=one(asked.speaker, SPEAKERS),
        group=one(asked.group, GROUPS),
        domain=one(asked.domain, DOMAINS),
        attack=one(asked.attack, ATTACKS),
    )


def describe_clips(clips: Sequence[Clip], asked: Columns, answers: Sequence[str], *, seed: int = 42) -> Units:
    """Describe the clips and split their speakers into two halves.

    Args:
        asked: columns, as far as they are named.
        answers: the models' classes; the positive one is looked for among them where no label says bona fide.
        seed: of the split.
    """
    columns = find_columns(clips, asked)
    labels = values_of(clips, columns.label)
    groups = values_of(clips, columns.group, alone=True)
    speakers = values_of(clips, columns.speaker, alone=True) if columns.speaker else groups
    seen = sorted({str(label) for label in labels} - {""})
    positive = ""
    if len(seen) == 2 and "" not in labels:  # a clip of no class has no place among error rates
        named = [label for label in seen if label.lower() in BONAFIDE] + [a for a in answers[:1] if a in seen]
        positive = named[0] if named else ""
    chosen, split = _halves(labels, speakers, columns.speaker or columns.group, seed)
    reported = ~chosen if chosen.any() else np.ones(len(clips), bool)
    return Units(
        columns, labels, positive, speakers, groups,
        chosen if chosen.any() else np.ones(len(clips), bool), reported, split,
    )  # fmt: skip


def values_of(clips: Sequence[Clip], column: str, *, alone: bool = False) -> NDArray[np.str_]:
    """[n] a column's values; "" where a clip has none, or with `alone` a name of its own."""
    found = [clip.label(column) if column else None for clip in clips]
    return np.array([
        (f"clip {clip.clip_id}" if alone else "") if value is None else value
        for clip, value in zip(clips, found, strict=True)
    ])  # fmt: skip


def _halves(
    labels: NDArray[np.str_], speakers: NDArray[np.str_], column: str, seed: int
) -> tuple[NDArray[np.bool_], str]:
    """Which clips the choice is made on: half of the speakers of every class, so that both halves have all classes."""
    rng, of_choice, few = np.random.default_rng(seed), set(), []
    placed: set[str] = set()
    for label in sorted(set(labels)):
        names = [str(name) for name in np.unique(speakers[labels == label]) if name not in placed]
        placed |= set(names)
        order = [names[i] for i in rng.permutation(len(names))]
        of_choice |= set(order[: len(order) // 2])
    chosen = np.isin(speakers, sorted(of_choice))
    for label in sorted(set(labels)):
        for half in (chosen, ~chosen):
            few += [label] if len(set(speakers[half & (labels == label)])) < FEWEST_A_HALF else []
    what = column or "clip"
    if few:
        return np.zeros(len(labels), bool), (
            f"no halves: class {few[0] or 'of all clips'!r} has too few values of {what}, so sites are chosen and "
            "results reported on the same clips"
        )
    count = len(set(speakers[chosen])), len(set(speakers[~chosen]))
    return chosen, f"sites chosen on {count[0]} values of {what}, results reported on the other {count[1]}"
