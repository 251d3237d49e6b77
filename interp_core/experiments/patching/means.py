"""The mean state of a class as the donor: of a layer's states over the span, each clip's own mean, then over clips.

It stands at every position of A's span. For every pair the clips of A's and B's units are left out, so that no clip is
part of its own donor. B stays the pair's clip: what it answers says which pairs are reachable.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp_core.data.candidates import PairKind
from interp_core.data.clips import Clip
from interp_core.data.columns import choose_cluster_column, cluster_map
from interp_core.data.pairs import Pair
from interp_core.errors import InterpError, few
from interp_core.experiments.patching.request import PatchRequest

FEW = 5
"""Clips under which a mean is still much of its single clips."""
TEXT = ("question", "last")
"""Curves of positions of text."""


def own_units(pair: Pair, units: Mapping[str, str]) -> frozenset[str]:
    """The units of both clips, of an edited copy that of its original; a clip that is left out for another reason has
    none there."""
    ids = (clip.clip_id if clip.original is None else clip.original.clip_id for clip in (pair.recipient, pair.donor))
    return frozenset(units[clip_id] for clip_id in ids if clip_id in units)


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """What class means are made of.

    Attributes:
        clips: of which means are taken. label: that of all means; "" for each pair's own target.
        states: by question and layer, [n_clips, width] float32, each clip's mean over the positions that are replaced;
            empty before they are read.
    """

    clips: Sequence[Clip]
    label: str = ""
    states: Mapping[int, Mapping[int, Tensor]] = field(default_factory=dict)
    _made: dict[tuple[int, str, str, frozenset[str]], Mapping[int, Tensor]] = field(default_factory=dict, repr=False)

    @cached_property
    def column(self) -> str:
        """What the units are."""
        return choose_cluster_column(self.clips)

    @cached_property
    def units(self) -> Mapping[str, str]:
        """clip_id -> unit."""
        return cluster_map(self.clips, self.column)

    def rows(self, pair: Pair, label: str) -> list[int]:
        """The clips of a label in the pair's column that are of neither A's nor B's unit, by their places."""
        own = own_units(pair, self.units)
        return [
            row
            for row, clip in enumerate(self.clips)
            if clip.label(pair.column) == label and self.units[clip.clip_id] not in own
        ]

    def has(self, pair: Pair, donor: Clip) -> bool:
        """Whether there is a mean of the class that a clip is of, for a pair."""
        label = donor.label(pair.column)
        return label is not None and bool(self.rows(pair, label))

    def of(self, pair: Pair, label: str, prompt: int) -> Mapping[int, Tensor]:
        """By layer, [width] float32: the mean of a label for a pair. Before states are read, of no layer.

        Raises:
            InterpError: no clip that is left has the label, or the pair is toward another one than all means are of.
        """
        if label == pair.target:
            self.check([pair])
        if not self.states:
            return {}
        key = prompt, pair.column, label, own_units(pair, self.units)
        if key not in self._made:
            rows, states = torch.tensor(self.rows(pair, label)), self.states[prompt]
            self._made[key] = {layer: each[rows].double().mean(0).float() for layer, each in states.items()}
        return self._made[key]

    def check(self, pairs: Iterable[Pair]) -> None:
        """Refuse pairs that have no mean, naming all of them."""
        some = list(pairs)
        if nameless := [pair.pair_id for pair in some if not pair.column]:
            raise InterpError(
                f"no column says of which class the target is in {len(nameless)} pairs ({few(nameless, 5)}), so no "
                "mean can be its donor; leave --donor out, or pair clips by labels."
            )
        other = [f"{pair.pair_id} (toward {pair.target})" for pair in some if self.label not in ("", pair.target)]
        if other:
            raise InterpError(
                f"--donor mean:{self.label} is the donor of pairs toward {self.label}, and {few(other, 5)} are not; "
                "give --donor mean, which takes the mean of each pair's own target."
            )
        short = [f"{pair.pair_id} ({pair.target})" for pair in some if not self.rows(pair, pair.target)]
        if short:
            raise InterpError(
                f"a class mean is taken without the units of A and B (their {self.column}), and for {len(short)} of "
                f"{len(some)} pairs no clip of the target is left: {few(short, 5)}. Give more clips, or leave --donor "
                "out."
            )

    def counts(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """How many clips the means of some pairs are of: one dict a kind and label, in the order of the pairs.

        Returns:
            kind, column, label; clips with the label in all; least and most of them in the mean of a pair; pairs; and
            units, the column of what is left out for each pair.
        """
        every = {column: Counter(clip.label(column) for clip in self.clips) for column in {p.column for p in pairs}}
        sizes: dict[tuple[str, str, str], list[int]] = {}
        for pair in pairs:
            sizes.setdefault((pair.kind, pair.column, pair.target), []).append(len(self.rows(pair, pair.target)))
        return [
            {
                "kind": kind,
                "column": column,
                "label": label,
                "clips": every[column][label],
                "least": min(found),
                "most": max(found),
                "pairs": len(found),
                "units": self.column,
            }
            for (kind, column, label), found in sizes.items()
        ]


def counts_said(counts: Sequence[Mapping[str, Any]]) -> str:
    """`counts` as a sentence: how many clips there are, and how few a pair's mean has; "" where there are none."""
    if not counts:
        return ""
    parts = [f"{one['label']} ({one['kind']}) of {one['clips']} clips, {one['least']} or more a pair" for one in counts]
    said = f"class means as donors, without the units of A and B (their {counts[0]['units']}): {'; '.join(parts)}"
    thin = [one for one in counts if one["least"] < FEW]
    return said + (f". A mean of fewer than {FEW} clips is still much of these clips" if thin else "")


def donor_notes(counts: Sequence[Mapping[str, Any]], controls: Sequence[str], flow: Sequence[str]) -> list[str]:
    """What is to be known before a run whose donors are class means; nothing of one whose donors are clips."""
    if not counts:
        return []
    left_out = [name for name in ("prefix", *TEXT) if name in (*controls, *flow)]
    also = f"; {', '.join(left_out)} are left out, as a class mean has no place in text" if left_out else ""
    random = "; the random donor is the mean of another class" if "random" in controls else ""
    return [f"{counts_said(counts)}{random}{also}"]


def targets_of(found: PatchRequest, kinds: Sequence[PairKind], clips: Sequence[Clip]) -> tuple[str, ...]:
    """The labels that pairs may be toward: all answers, or that of the class mean which is their donor.

    Raises:
        InterpError: a label that is no answer, or that no clip has; kinds of pair that have no class mean.
    """
    label = found.class_mean
    if label is None:
        return found.labels
    if edits := [kind.edit for kind in kinds if kind.edit]:
        raise InterpError(
            f"the donor of edit:{edits[0]} is A's own edited copy, and no mean; leave --donor out, or this kind."
        )
    if label and label not in found.labels:
        raise InterpError(f"--donor mean:{label} is none of the answers {', '.join(found.labels)}.")
    for kind in kinds if label else ():
        if not any(clip.label(kind.target_column) == label for clip in clips):
            raise InterpError(
                f"--donor mean:{label}: no clip has this {kind.target_column}, so no {kind.name} pair is toward it; "
                "choose another label, or leave the kind out."
            )
    return (label,) if label else found.labels
