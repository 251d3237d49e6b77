"""One edit of one recipient at every layer: which positions, from where, how strongly."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.sites import OF_HEADS, Kind, Site
from interp_core.trace.clean import CleanRun


@dataclass(frozen=True, eq=False)
class Patch:
    """Replace some positions of the recipient at a site, at each layer in turn.

    Attributes:
        recipient: clean run of A.
        donor: clean run of B; None for norm-matched noise.
        positions: [m] recipient positions, ascending.
        source: [m] float64 donor positions that go there; fractions are interpolated along time.
        alpha: patched = (1 - alpha) * A + alpha * B.
        noise_seed: with no donor, seeds the Gaussian directions.
        averaged: every position gets the mean over `source`, which may then be of any length, in the place of one
            source each.
        within: by layer, [rank, width] rows of length 1 at right angles (or of 0): only the part of B - A in the
            subspace that they span is exchanged, patched = A + alpha * P (B - A). None for all of it. The width is
            that of what is edited: of one head at the site of one head.
        mean: by layer, [width] what stands at every position in the place of the donor's own state (a mean over clips,
            say), as wide as what is edited; `source` is then not read. The donor stays the clip that an answer is
            compared with.
    """

    recipient: CleanRun
    donor: CleanRun | None
    positions: Tensor
    source: Tensor
    alpha: float = 1.0
    noise_seed: int | None = None
    averaged: bool = False
    within: Mapping[int, Tensor] | None = None
    mean: Mapping[int, Tensor] | None = None

    def __post_init__(self) -> None:
        fits = len(self.source) > 0 if self.averaged else len(self.positions) == len(self.source)
        if len(self.positions) == 0 or not fits:
            raise InterpError(
                f"{len(self.positions)} positions and {len(self.source)} sources; need "
                f"{'1 or more of both' if self.averaged else 'one each, 1 or more'}."
            )
        self._check_inside("positions", self.positions, self.recipient)
        if (self.positions.diff() <= 0).any():
            raise InterpError(f"positions {_shown(self.positions)} are not ascending; sort them, each only once.")
        if (self.donor is None) == (self.noise_seed is None):
            raise InterpError("a patch takes either a donor or a noise seed, and exactly one of them.")
        if not 0.0 <= self.alpha <= 1.0:
            raise InterpError(f"alpha={self.alpha} is outside [0, 1].")
        if self.mean is not None and (self.donor is None or self.averaged):
            raise InterpError("a patch with a mean has a donor to be compared with, and averages no source of it.")
        if self.donor is not None and self.mean is None:
            self._check_inside("sources", self.source, self.donor)

    @staticmethod
    def _check_inside(what: str, places: Tensor, run: CleanRun) -> None:
        n_pos = run.prompted.n_pos
        if places.min() < 0 or places.max() > n_pos - 1:
            raise InterpError(
                f"{what} {_shown(places)} leave those of clip {run.prompted.clip_id!r} (valid: 0 to {n_pos - 1})."
            )

    @property
    def replaced(self) -> int:
        return len(self.positions)

    def over(self, n_pos: int) -> "Patch":
        """The same patch where the recording's positions are merged into, or cut into, `n_pos`.

        Raises:
            InterpError: a patch of less than the whole recording, which cannot be followed through a merge.
        """
        every = torch.arange(self.recipient.prompted.n_pos)
        if not torch.equal(self.positions, every) or not torch.equal(self.source, every.double()):
            raise InterpError(
                "positions are merged inside this model, so only the whole recording can be patched; use positions all."
            )
        if n_pos == len(every):
            return self
        merged = torch.arange(n_pos)
        return replace(self, positions=merged, source=merged.double())

    def donor_value(self, state: Tensor) -> Tensor:
        """Gather the donor's activations [pos, width] at `source` -> [m, width]."""
        low = self.source.floor().long()
        share = (self.source - low).to(state.dtype)
        found = state[low]
        if share.any():
            high = (low + 1).clamp(max=len(state) - 1)
            share = share[:, None].to(state.device)
            found = (1 - share) * found + share * state[high]
        return found.float().mean(0).to(found.dtype).expand(self.replaced, -1) if self.averaged else found

    def mix(self, own: Tensor, donor_state: Tensor | None, layer: int, columns: slice = slice(None)) -> Tensor:
        """Return what replaces the recipient's activation `own` [m, width] at `positions`.

        Args:
            own: the recipient's activation there, as the pass computed it.
            donor_state: [pos, width] of the donor at this site; None for noise, and not read where there is a mean.
            layer: whose mean it is; seeds the noise together with `noise_seed`.
            columns: the part of the width that is edited (one head), the rest is kept.
        """
        if self.mean is not None:
            incoming = self.mean[layer].to(own).expand(len(own), -1)
        elif donor_state is None:
            incoming = self._noise(own[:, columns], layer)
        else:
            incoming = self.donor_value(donor_state)[:, columns].to(own.device)
        if self.within is not None:
            part = own[:, columns] + (self.alpha * self.exchanged(own[:, columns], incoming, layer)).to(own.dtype)
        else:
            part = incoming if self.alpha == 1.0 else (1 - self.alpha) * own[:, columns] + self.alpha * incoming
        out = own.clone()
        out[:, columns] = part
        return out

    def exchanged(self, own: Tensor, incoming: Tensor, layer: int) -> Tensor:
        """The part of `incoming` - `own` [m, width] in the subspace of a layer, float32 or wider."""
        assert self.within is not None, "only of a patch within a subspace"
        change = incoming.to(torch.promote_types(own.dtype, torch.float32)) - own
        basis = self.within[layer].to(change)
        return (change @ basis.T) @ basis

    def _noise(self, own: Tensor, layer: int) -> Tensor:
        # Drawn on the CPU in float32, so that every device and method sees the same directions.
        seed = int.from_bytes(hashlib.sha256(f"{self.noise_seed}|{layer}".encode()).digest()[:7], "big")
        directions = torch.randn(own.shape, generator=torch.Generator().manual_seed(seed)).to(own.device)
        # A stream that is one number wide may draw a 0, which has no direction.
        scale = own.float().norm(dim=-1, keepdim=True) / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return (directions * scale).to(own.dtype)


def _shown(places: Tensor) -> str:
    """Return the values, or the first and the last few where there are many."""
    shown = [f"{place:g}" for place in places.tolist()]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:3], "...", *shown[-3:]])


@dataclass(frozen=True, eq=False)
class SiteSpec:
    """Where a sweep edits: a kind of site, all heads or one, and the layers (-1 = what enters block 0).

    Attributes:
        d_head: how wide one head is, by layer where layers differ.
    """

    kind: Kind = "resid_post"
    head: int | None = None
    d_head: int | Mapping[int, int] = 0
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.head is not None and (self.kind not in OF_HEADS or min(map(self.width_at, self.layers or (0,))) < 1):
            # Without a width the head's columns would be empty: an edit that does nothing.
            raise InterpError(
                f"head={self.head} goes with kind {' or '.join(map(repr, OF_HEADS))} and a d_head of 1 or more, "
                f"not with {self.kind!r} and d_head={self.d_head}."
            )
        if list(self.layers) != sorted(set(self.layers)):
            raise InterpError(f"layers {self.layers} are not ascending; sort them, each only once.")

    def width_at(self, layer: int) -> int:
        """Of one head; 0 where nothing says it."""
        return self.d_head if isinstance(self.d_head, int) else self.d_head.get(layer, 0)

    def columns_at(self, layer: int) -> slice:
        """The part of a layer's activation that is edited: one head's, or all."""
        if self.head is None:
            return slice(None)
        return slice(self.head * self.width_at(layer), (self.head + 1) * self.width_at(layer))

    @property
    def inside(self) -> bool:
        """Whether the edit happens inside a block rather than between two."""
        return self.kind != "resid_post"


class RowEdit(Protocol):
    """One edit of one row of a batch at one site: a patch at a layer, ablated heads, whatever changes activations."""

    goes_on: ClassVar[bool]
    """Whether the edit has a meaning at positions whose token the model wrote itself."""

    @property
    def site(self) -> Site:
        """Where."""

    def prompt(self, own: Tensor) -> Tensor:
        """Return what takes the place of the prompt's activations `own` [pos, width], as the pass computed them."""

    def written(self, own: Tensor) -> Tensor:
        """The same of a position [1, width] that the model wrote itself; only of an edit that goes on."""


@dataclass(frozen=True, eq=False)
class PatchAt:
    """A patch at one layer of its sweep. It ends with the prompt: a word that the model writes has no donor."""

    patch: Patch
    spec: SiteSpec
    layer: int

    goes_on: ClassVar[bool] = False

    @property
    def site(self) -> Site:
        if self.layer == -1 and not self.spec.inside:
            return Site("resid_pre", 0)
        return Site(self.spec.kind, self.layer, self.spec.head)

    def prompt(self, own: Tensor) -> Tensor:
        own, donor = own.clone(), self.patch.donor
        at = self.patch.positions.to(own.device)
        state = None if donor is None else donor.at(self.spec.kind, self.layer)
        own[at] = self.patch.mix(own[at], state, self.layer, self.spec.columns_at(self.layer))
        return own

    def written(self, own: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class HeadAblated:
    """One head's output replaced, before the heads mix: by zero, or by its mean [d_head] over some clips."""

    layer: int
    head: int
    d_head: int
    mean: Tensor | None = None

    goes_on: ClassVar[bool] = True

    @property
    def site(self) -> Site:
        return Site("head_out", self.layer, self.head)

    def prompt(self, own: Tensor) -> Tensor:
        own = own.clone()
        columns = slice(self.head * self.d_head, (self.head + 1) * self.d_head)
        own[:, columns] = 0.0 if self.mean is None else self.mean.to(own)
        return own

    def written(self, own: Tensor) -> Tensor:
        return self.prompt(own)


def sweep_layers(kind: Kind, n_layers: int, layers: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the layers of a sweep: all that the kind has, or the chosen ones after a check.

    Only `resid_post` has a layer -1: the embeddings, which block 0 is given.
    """
    first = -1 if kind == "resid_post" else 0
    if layers is None:
        return tuple(range(first, n_layers))
    if not layers:
        raise InterpError(f"no layer chosen at {kind} (valid: {first} to {n_layers - 1}); name one, or leave them out.")
    wrong = [layer for layer in layers if not first <= layer < n_layers]
    if wrong:
        raise InterpError(f"layers {wrong} do not exist at {kind} (valid: {first} to {n_layers - 1}).")
    return tuple(sorted(set(layers)))
