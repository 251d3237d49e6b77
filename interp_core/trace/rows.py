"""How a growing batch of rows travels through the blocks: in any model, and with fewer positions in a causal decoder.

Rows are stacked [rows * n, pos, d_model] for n recipients, row-major: all recipients of the first patched layer, then
all of the next. `BlockRows` runs every position under the keyword arguments that the clean run gave each block.
`CachedPrefixRows` runs the positions from a first one on, before which an edit changes nothing (`first_computed`), and
reads the keys and values before it from a clean run. What rows carry with them is in `Rows`; the two hold nothing that
depends on which rows went before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.prompted import Prompted
from interp_core.models.subject import Subject
from interp_core.sites import Kind, Site
from interp_core.trace.arguments import beside_states, in_one_batch, repeated
from interp_core.trace.clean import CleanRun
from interp_core.trace.finite import finite_run
from interp_core.trace.frozen_keys import FrozenKeys, MadeKeys, UntilKeys
from interp_core.trace.hooks import captured

Passed = Mapping[str, tuple[Tensor, ...]]
"""Keys and values that blocks leave for later ones, rows first, by what the library calls them."""

# On a CPU a block's activations of this many positions stay in its cache; those of more wait for memory.
POSITIONS_AT_ONCE = 1024


def positions_at_once(subject: Subject) -> int | None:
    """How many positions a block is given in one call, rows together; None for all there are.

    Torch's one function for attention turns a batch of several rows around, which makes as many small products of its
    projections as there are positions: each row by itself costs less.
    """
    if subject.device.type != "cpu":
        return None
    return POSITIONS_AT_ONCE if subject.arch.attn_proj_called else 1


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows between two blocks.

    Attributes:
        hidden: [rows * n, pos, d_model] what the block before left; of rows at layer 0, what enters the first block.
        mixed: of a readout that mixes layers, [rows * n, pos, width] float32: the weighted sum over all that a row
            has passed, without `hidden` itself. Else None.
        passed: of blocks that read keys and values of earlier ones, those, by what the library calls them.
    """

    hidden: Tensor
    mixed: Tensor | None = None
    passed: Passed = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.hidden)

    def joined(self, others: "Rows") -> "Rows":
        """These rows, then others that are between the same two blocks."""
        hidden = torch.cat([self.hidden, others.hidden.to(self.hidden.device)])
        passed = _each(lambda own, new: torch.cat([own, new.to(own.device)]), self.passed, others.passed)
        if self.mixed is None or others.mixed is None:
            return Rows(hidden, None, passed)
        return Rows(hidden, torch.cat([self.mixed, others.mixed.to(self.mixed.device)]), passed)


class RowRunner(Protocol):
    n: int
    """Recipients."""
    reads_last: bool
    """Whether of what the last block leaves only the last position is read."""

    def clean(self, layer: int) -> Tensor:
        """[n, pos, d_model] unedited: what block `layer - 1` leaves; layer 0 is what enters the first block."""

    def start(self, layer: int, hidden: Tensor) -> Rows:
        """Rows that were unedited until, between block `layer - 1` and block `layer`, they became `hidden`.

        Args:
            hidden: [rows * n, pos, d_model].
        """

    def run(self, layer: int, rows: Rows, *, together: bool = False) -> Rows:
        """Run block `layer`; `together` in one call of it, for an edit inside that counts the rows."""

    def finish(self, rows: Rows) -> Rows:
        """Run the last block, as far as the readout needs it."""

    def logits(self, rows: Rows) -> Tensor:
        """Read float32 logits [rows * n, n_classes] behind the last block."""

    def place(self, i: int, positions: Tensor) -> Tensor:
        """Turn recipient i's own positions into indices along the rows' positions."""


class BlockRows:
    """Every position, under the arguments that the library itself passed to each block in the clean run.

    Args:
        subject: the model.
        batch: the recipients; of one length where the model cannot pad.
        runs: their clean runs, if there are: what these kept of the blocks' arguments saves a pass, where it stands for
            the whole batch.
    """

    reads_last = False

    def __init__(self, subject: Subject, batch: Sequence[Prompted], runs: Sequence[CleanRun] = ()) -> None:
        self.n = len(batch)
        self.subject = subject
        self._batch = list(batch)
        longest = max(prompted.n_pos for prompted in batch)
        self._pads = [longest - prompted.n_pos for prompted in batch]
        self._shares = subject.layer_shares()
        self._summed: tuple[int, Tensor] | None = None
        kept = [run.calls for run in runs if run.calls is not None]
        self._runs = list(runs) if len(kept) == self.n and max(self._pads) == 0 else []
        if self._runs and (calls := in_one_batch(subject, kept)) is not None:
            self._calls = calls
            return
        self._runs = []
        behind = sorted({subject.n_layers - 1} | subject.merges_after)
        left = [Site("resid_post", layer) for layer in behind]
        with captured(subject, left, calls=list(subject.blocks)) as store:
            finite_run(subject, [p.clip_id for p in self._batch], lambda: subject.run_blocks(self._batch))
        given = [store.calls[block] for block in subject.blocks]
        self._calls = [beside_states(*call) for call in given]
        self._states = [subject.rows_of(args[0] if args else kwargs["hidden_states"]) for args, kwargs in given]
        self._left = {layer: store[site] for layer, site in zip(behind, left, strict=True)}

    def clean(self, layer: int) -> Tensor:
        if self._runs:
            kind: Kind = "resid_post" if layer else "resid_pre"
            return torch.stack([run.at(kind, max(0, layer - 1)) for run in self._runs])
        return self._left[layer - 1] if layer - 1 in self._left else self._states[layer]

    def start(self, layer: int, hidden: Tensor) -> Rows:
        repeats = len(hidden) // self.n
        mixed = None if self._shares is None else self._passed(layer).repeat(repeats, 1, 1)
        # All that the clean run's blocks left: what blocks from `layer` on leave is replaced before anything reads it.
        name = self.subject.passed_on
        left = self._calls[0][1][name] if name else {}
        return Rows(hidden, mixed, _each(lambda value: value.repeat(repeats, *[1] * (value.ndim - 1)), left))

    def run(self, layer: int, rows: Rows, *, together: bool = False) -> Rows:
        piece = len(rows) if together else _rows_at_once(self.subject, self.n, rows.hidden)
        left, passed = [], []
        for first in range(0, len(rows), piece):
            at = slice(first, first + piece)
            some, more = self._block(layer, rows.hidden[at], _each(lambda value, at=at: value[at], rows.passed))
            left.append(some)
            passed.append(more)
        if len(left) == 1:
            return Rows(left[0], self._with(layer, rows), passed[0])
        return Rows(torch.cat(left), self._with(layer, rows), _each(lambda *some: torch.cat(some), *passed))

    def _block(self, layer: int, hidden: Tensor, passed: Passed) -> tuple[Tensor, Passed]:
        """What a block leaves, and what later ones read of it and of those before it."""
        args, kwargs = self._calls[layer]
        repeats, flat = len(hidden) // self.n, self.subject.batch_first
        rest = {
            k: v if k in self.subject.shared else repeated(v, self.n, repeats, k in flat) for k, v in kwargs.items()
        }
        if name := self.subject.passed_on:
            passed = rest[name] = type(kwargs[name])(passed)  # as the library's own, which no placing of blocks copies
        hidden = self.subject.between(layer, hidden)
        out = self.subject.blocks[layer](hidden, *(repeated(a, self.n, repeats) for a in args), **rest)
        return self.subject.rows_of(_hidden(out)), passed

    def finish(self, rows: Rows) -> Rows:
        return self.run(len(self._calls) - 1, rows)

    def read(self, rows: Rows) -> Tensor:
        """[rows * n, pos, width] what the readout reads of rows behind the last block: that, or the mixed layers."""
        mixed = self._with(len(self._calls), rows)
        return rows.hidden if mixed is None else mixed.to(rows.hidden.dtype)

    def logits(self, rows: Rows) -> Tensor:
        return self.subject.readout(self.read(rows), self._batch)

    def place(self, i: int, positions: Tensor) -> Tensor:
        return positions + self._pads[i]

    def _with(self, point: int, rows: Rows) -> Tensor | None:
        """The weighted sum of rows before block `point` (behind the last for n_layers), `hidden` included."""
        return None if rows.mixed is None else rows.mixed + self._weighed(point, rows.hidden)

    def _weighed(self, point: int, hidden: Tensor) -> Tensor:
        assert self._shares is not None, "rows have a mixture where the readout mixes layers"
        return (self._shares[point] * self.subject.mixed_state(point, hidden)).float()

    def _passed(self, layer: int) -> Tensor:
        """[n, pos, d_model] the weighted sum over the clean run before `layer`; kept, as the next asked for is later.

        Summed in float32, as the library's one sum over all layers is inside, and rounded once, at the end.
        """
        point, total = self._summed or (0, 0 * self._weighed(0, self.clean(0)))
        if point > layer:
            point, total = 0, 0 * self._weighed(0, self.clean(0))
        for earlier in range(point, layer):
            total = total + self._weighed(earlier, self.clean(earlier))
        self._summed = layer, total
        return total


class CachedPrefixRows:
    """The positions from `starts[i]` on, behind the keys and values of `prefixes[i]` (causal decoders only).

    Args:
        subject: a model whose `shortcut_refusal` is None.
        runs: the recipients.
        prefixes: whose keys and values stand before the start; the recipient itself, or the donor where its whole
            trajectory up to the start is patched in.
        starts: the first position of each recipient that is recomputed.
        most_rows: how many rows a recipient may come to have.
    """

    reads_last = True

    def __init__(
        self,
        subject: Subject,
        runs: Sequence[CleanRun],
        prefixes: Sequence[CleanRun],
        starts: Sequence[int],
        most_rows: int,
    ) -> None:
        self.n = len(runs)
        self._subject, self._runs, self._starts = subject, runs, starts
        self.tails = [run.prompted.n_pos - start for run, start in zip(runs, starts, strict=True)]
        self.width, before = max(self.tails), max(starts)
        like = runs[0].resid[0]
        device = like.device
        self._keys = _left_aligned([p.keys for p in prefixes], starts, before)
        self._values = _left_aligned([p.values for p in prefixes], starts, before)
        query = torch.arange(self.width, device=device)
        first = self.width - torch.tensor(self.tails, device=device)[:, None]
        start = torch.tensor(starts, device=device)[:, None]
        self.position_ids = (start + query[None] - first).clamp(min=0)
        seen_before = torch.arange(before, device=device)[None] < start
        seen_after = (query[None, None] <= query[None, :, None]) & (query[None] >= first)[:, None]
        # Padding sees itself: a row that sees nothing can come out as NaN, which a mask does not keep from spreading.
        seen_after |= query[None, None] == query[None, :, None]
        keep = torch.cat([seen_before[:, None].expand(-1, self.width, -1), seen_after], -1)
        self.mask = additive(keep, like.dtype)
        # Whole sequences of one length need no mask: without one the fused kernel leaves out what lies ahead.
        self._unmasked = before == 0 and len(set(self.tails)) == 1 and _masks_itself(subject)
        angles = subject.rotary_angles(like, self.position_ids)
        self._shared = _Shared(self.n, most_rows, self.mask, self.position_ids, angles)
        heads, d_head = self._keys.shape[2], self._keys.shape[4]
        # Reused by every block: fresh memory of this size at each would cost more than the copy into it.
        self._scratch = self._keys.new_empty(2, most_rows * self.n, heads, before + self.width, d_head)

    def clean(self, layer: int) -> Tensor:
        first = self._runs[0].resid[0]
        out = first.new_zeros(self.n, self.width, first.shape[-1])
        for i, (run, tail) in enumerate(zip(self._runs, self.tails, strict=True)):
            out[i, self.width - tail :] = run.resid[layer][run.prompted.n_pos - tail :]
        return out

    def start(self, layer: int, hidden: Tensor) -> Rows:
        return Rows(hidden)

    def run(self, layer: int, rows: Rows, mask: Tensor | None = None, *, together: bool = False) -> Rows:
        piece = len(rows) if together else _rows_at_once(self._subject, self.n, rows.hidden)
        parts = rows.hidden.split(piece)
        masks = [None] * len(parts) if mask is None else mask.split(piece)
        frozen = self._frozen(layer)
        left = [self._block(layer, part, frozen, seen) for part, seen in zip(parts, masks, strict=True)]
        return Rows(left[0] if len(left) == 1 else torch.cat(left))

    def finish(self, rows: Rows) -> Rows:
        last = self._subject.n_layers - 1
        try:  # all positions are needed for their keys and values, but behind those only the one that is read
            self._block(last, rows.hidden, UntilKeys(self._frozen(last)))
        except MadeKeys as made:
            return Rows(self._block(last, rows.hidden[:, -1:], made))
        raise InterpError(f"the last block of {self._subject.name} hands no keys to the cache that it was given.")

    def logits(self, rows: Rows) -> Tensor:
        return self._subject.readout(rows.hidden, [run.prompted for run in self._runs])

    def _frozen(self, layer: int) -> FrozenKeys:
        return FrozenKeys(self._keys[layer], self._values[layer], self._scratch)

    def _block(self, layer: int, rows: Tensor, cache: Any, mask: Tensor | None = None) -> Tensor:
        """Run block `layer` on the last positions of each row, as many as `rows` holds."""
        own_mask, position_ids, (cos, sin) = self._shared.first(len(rows))
        at = slice(-rows.shape[1], None)
        seen = None if self._unmasked and mask is None else (own_mask if mask is None else mask)[:, :, at]
        return _hidden(
            self._subject.blocks[layer](
                rows,
                attention_mask=seen,
                position_ids=position_ids[:, at],
                position_embeddings=(cos[:, at], sin[:, at]),
                past_key_values=cache,
                use_cache=True,
            )
        )

    def place(self, i: int, positions: Tensor) -> Tensor:
        return positions - self._starts[i] + (self.width - self.tails[i])


class _Shared:
    """Mask, position ids and rotary angles of all rows; one recipient's are broadcast, several are laid out once."""

    def __init__(
        self, n: int, most_rows: int, mask: Tensor, position_ids: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> None:
        self._broadcast = n == 1
        repeats = 1 if self._broadcast else most_rows
        self._mask = mask.repeat(repeats, 1, 1, 1)
        self._ids = position_ids.repeat(repeats, 1)
        self._cos, self._sin = (angle.repeat(repeats, 1, 1) for angle in rotary)

    def first(self, rows: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        if self._broadcast:
            return self._mask, self._ids, (self._cos, self._sin)
        return self._mask[:rows], self._ids[:rows], (self._cos[:rows], self._sin[:rows])


def first_computed(subject: Subject, n_pos: int, first: int) -> int:
    """The first position that rows compute whose first edit is at `first`: that one, or 0.

    From 0 on no mask is needed, and the fused kernel computes half the attention; where that saves more than the
    positions before `first` cost in the linear layers, they are computed with the rest.
    """
    linear = sum(weight.numel() for weight in subject.blocks[0].parameters())
    saved = (n_pos - first) * n_pos * subject.n_heads * subject.d_head_at(0)
    return 0 if _masks_itself(subject) and first * linear <= saved else first


def _masks_itself(subject: Subject) -> bool:
    """Whether a block that is given no mask lets no position see a later one."""
    return getattr(subject.sizes, "_attn_implementation", None) == "sdpa"


def _rows_at_once(subject: Subject, n: int, hidden: Tensor) -> int:
    """How many of the rows [rows * n, pos, d_model] a block is given in one call, a multiple of `n`."""
    most = positions_at_once(subject)
    together = len(hidden) if most is None else most // (n * hidden.shape[1])
    return n * max(1, together)


def additive(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a boolean mask [n, query, key] into the additive form [n, 1, query, key] that eager and sdpa both take."""
    mask = torch.zeros(keep.shape, dtype=dtype, device=keep.device)
    return mask.masked_fill_(~keep, torch.finfo(dtype).min)[:, None]


def _left_aligned(states: Sequence[Tensor | None], starts: Sequence[int], before: int) -> Tensor:
    """Stack [n_layers, heads, pos, d_head] of several clips into [n_layers, n, heads, before, d_head]."""
    first = next(s for s in states if s is not None)
    out = first.new_zeros(first.shape[0], len(states), first.shape[1], before, first.shape[3])
    for i, (state, start) in enumerate(zip(states, starts, strict=True)):
        assert state is not None, "prefixes are runs that kept their keys"
        out[:, i, :, :start] = state[:, :, :start]
    return out


def _each(make: Callable[..., Tensor], *passed: Passed) -> Passed:
    """Make one of what stands at the same place in every one of several."""
    return {
        name: tuple(make(*values) for values in zip(*(one[name] for one in passed), strict=True)) for name in passed[0]
    }


def _hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
