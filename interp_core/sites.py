"""Names for places in a transformer, the same for every architecture."""

import difflib
from dataclasses import dataclass
from typing import Literal, get_args

from interp_core.errors import InterpError

Kind = Literal[
    "resid_pre",
    "resid_post",
    "attn_out",
    "mlp_out",
    "head_out",
    "mlp_act",
    "resid_mid",  # between attention and MLP, as the MLP's norm is given it: to read; an edit reaches the MLP alone
    "cross_out",
    "cross_head_out",
    "mixed",
    "pooled",
    "projection",
    "logits",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
STAGES: tuple[Kind, ...] = ("mixed", "pooled", "projection", "logits")
"""Sites behind the blocks, which have no layer: the mix of layers, the pooled features that a head reads, what a
further projection makes of them, the answer."""
OF_HEADS: tuple[Kind, ...] = ("head_out", "cross_head_out")
"""Sites whose width is the heads side by side, so that one head is a slice of it."""

ATTRIBUTED: tuple[Kind, ...] = ("head_out", "attn_out", "mlp_out", "mlp_act")
"""Sites at which gradients estimate what true patches do; see `trace/attribution.py`."""


def check_attributed(kind: str) -> Kind:
    """Refuse a site at which the estimate is no evidence, or that it is not made for: InterpError with the reason."""
    if kind in ("resid_pre", "resid_post"):
        raise InterpError(
            f"attribution at {kind} is refused: there the estimates of single positions followed true patches at "
            f"r = 0.17 to 0.31 only, on demo-emotion; choose {', '.join(ATTRIBUTED)}, or true patches (--site {kind})."
        )
    if check_kind(kind) not in ATTRIBUTED:
        raise InterpError(f"attribution is made for {', '.join(ATTRIBUTED)}, not for {kind}.")
    return check_kind(kind)


def check_kind(kind: str) -> Kind:
    """Return `kind` if it names a site; otherwise raise InterpError with the nearest name that does."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(KINDS)}."
        raise InterpError(f"unknown site kind {kind!r}; {hint}")
    return kind


@dataclass(frozen=True)
class Site:
    """One place: what is read or edited (`kind`), in which block (`layer`, from 0), at a site of heads in which head.

    A stage behind the blocks has no layer, so it stands as layer 0. `head=None` at a site of heads means all of them,
    concatenated as the output projection reads them.
    """

    kind: Kind
    layer: int = 0
    head: int | None = None

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.kind in STAGES and self.layer != 0:
            raise InterpError(f"{self.kind!r} stands behind all layers, so it has no layer {self.layer}; leave it out.")
        if self.head is not None and self.kind not in OF_HEADS:
            raise InterpError(
                f"head={self.head} goes with kind {' or '.join(map(repr, OF_HEADS))}, not with {self.kind!r}; "
                "leave head out."
            )

    def __str__(self) -> str:
        if self.kind in STAGES:
            return self.kind
        return f"{self.kind}.L{self.layer}" + ("" if self.head is None else f"H{self.head}")
