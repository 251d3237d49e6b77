"""The places of a model whose pooled vectors a heads run keeps: every head, every block, every stage.

    head          a head's attention output before the output projection
    block         the residual stream between attention and MLP
    stage         what a stage leaves, after the merge of positions behind it; of a model without stages every layer's
                  output
    stage_before  the same before that merge
    block_mean    the mean over a block's heads, and
    stage_mean    the mean of those over a stage's blocks: the one set whose widths are equal everywhere

Blocks are counted through all stages (`layer`); the geometry comes from the config and the table, never from a name.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from interp_core.errors import InterpError
from interp_core.models.subject import Subject
from interp_core.sites import Kind, Site

Granularity = Literal["head", "block", "stage", "stage_before", "block_mean", "stage_mean"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)


@dataclass(frozen=True)
class Point:
    """One place: `stage`, `block` in it, `layer` through all stages and `head` count from 0; -1 where there is none."""

    granularity: Granularity
    stage: int
    block: int = -1
    layer: int = -1
    head: int = -1

    @property
    def name(self) -> str:
        """As on screen: `S2 B4 H7`, or `L4 H7` of a model without stages, whose stage is -1."""
        parts = [("S", self.stage), ("B" if self.stage >= 0 else "L", self.block), ("H", self.head)]
        if self.block < 0 and self.stage < 0:
            parts.append(("L", self.layer))
        return " ".join(f"{letter}{number}" for letter, number in parts if number >= 0)


@dataclass(frozen=True)
class Geometry:
    """Stages of blocks and the heads of each block.

    Attributes:
        stages: the layers of each stage; one stage of all layers where no positions are merged.
        heads: [n_layers] heads of each block.
    """

    stages: tuple[range, ...]
    heads: tuple[int, ...]

    @property
    def staged(self) -> bool:
        return len(self.stages) > 1

    @property
    def n_layers(self) -> int:
        return len(self.heads)

    def points(self, granularity: Granularity) -> tuple[Point, ...]:
        """All points of a granularity, in the order of the forward pass."""
        place = [(stage, layer) for stage, layers in enumerate(self.stages) for layer in layers]
        found = []
        if granularity in ("head", "block", "block_mean"):
            for stage, layer in place:
                block = layer - self.stages[stage].start
                where = (stage if self.staged else -1, block, layer)
                heads = range(self.heads[layer]) if granularity == "head" else (-1,)
                found += [Point(granularity, *where, head) for head in heads]
        elif self.staged:
            found = [Point(granularity, stage, layer=layers[-1]) for stage, layers in enumerate(self.stages)]
        elif granularity == "stage":
            found = [Point(granularity, -1, layer=layer) for layer in range(self.n_layers)]
        elif granularity == "stage_mean":
            found = [Point(granularity, -1, layer=self.n_layers - 1)]
        return tuple(found)

    def head_of(self, layer: int, head: int) -> Point:
        """The point of one head."""
        return next(p for p in self.points("head") if (p.layer, p.head) == (layer, head))

    def site_of(self, point: Point) -> Site:
        """Where the point's vector is read; means are read where the heads are."""
        if point.granularity == "block":
            return Site("resid_mid", point.layer)
        if point.granularity == "stage_before":
            return Site("resid_post", point.layer)
        if point.granularity == "stage":
            merged = self.staged and point.layer + 1 < self.n_layers
            return Site("resid_pre", point.layer + 1) if merged else Site("resid_post", point.layer)
        return Site("head_out", point.layer)

    def sites(self) -> tuple[Site, ...]:
        """Every place that one forward pass has to show, each once."""
        points = [point for name in ("head", "block", "stage", "stage_before") for point in self.points(name)]
        return tuple(dict.fromkeys(self.site_of(point) for point in points))


def has_heads(kinds: Collection[Kind]) -> bool:
    """Whether blocks with these sites have attention heads."""
    return "head_out" in kinds and "resid_mid" in kinds


def geometry_of(subject: Subject) -> Geometry:
    """Return the geometry of a model.

    Raises:
        InterpError: a model without attention heads.
    """
    if not has_heads(subject.kinds):
        raise InterpError(f"{subject.name} has no attention heads (its sites: {', '.join(subject.kinds)}).")
    ends = sorted(subject.merges_after | {subject.n_layers - 1})
    starts = [0, *(end + 1 for end in ends[:-1])]
    stages = tuple(range(start, end + 1) for start, end in zip(starts, ends, strict=True))
    return Geometry(stages, tuple(subject.heads_at(layer) for layer in range(subject.n_layers)))
