"""How a growing batch of rows travels through the blocks: two lanes, one for any model, one for causal decoders.

A lane holds n recipients. Rows are stacked [rows * n, pos, d_model], row-major: all recipients of the first patched
layer, then all of the next. `FullLane` carries every position under the keyword arguments that the clean run gave each
block. `SuffixLane` carries only the positions that an edit can change and reads the keys and values before
them from a clean run.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.audio_llm import AudioLLM
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.clean import CleanRun
from interp_core.trace.hooks import captured


class Lane(Protocol):
    n: int
    reads_last: bool
    """Whether of what the last block leaves only the last position is read."""

    def clean(self, layer: int) -> Tensor:
        """[n, pos, d_model] unedited: what block `layer - 1` leaves; layer 0 is what enters the first block."""

    def run(self, layer: int, rows: Tensor) -> Tensor:
        """Run block `layer` on what the block before it left, [rows * n, pos, d_model]."""

    def finish(self, rows: Tensor) -> Tensor:
        """Run the last block, as far as the readout needs it."""

    def logits(self, rows: Tensor) -> Tensor:
        """Read float32 logits [rows * n, n_classes] off what the last block left."""

    def place(self, i: int, positions: Tensor) -> Tensor:
        """Turn recipient i's own positions into indices along this lane's positions."""


class FullLane:
    """Every position, under the arguments that the library itself passed to each block in the clean run."""

    reads_last = False

    def __init__(self, subject: Subject, runs: Sequence[CleanRun]) -> None:
        self.n = len(runs)
        self.subject = subject
        self._batch = [run.prompted for run in runs]
        longest = max(run.prompted.n_pos for run in runs)
        self._pads = [longest - run.prompted.n_pos for run in runs]
        self._behind = sorted({subject.n_layers - 1} | subject.merges_after)
        left = [Site("resid_post", layer) for layer in self._behind]
        with captured(subject, left, calls=list(subject.blocks)) as store:
            subject.run_blocks(self._batch)
        self._calls = [store.calls[block] for block in subject.blocks]
        self._left = {layer: store[site] for layer, site in zip(self._behind, left, strict=True)}
        shares = subject.layer_shares()
        self._mixture = None if shares is None else _Mixture(self, shares)

    def clean(self, layer: int) -> Tensor:
        if layer - 1 in self._left:
            return self._left[layer - 1]
        args, kwargs = self._calls[layer]
        return self.subject.rows_of(args[0] if args else kwargs["hidden_states"])

    def run(self, layer: int, rows: Tensor) -> Tensor:
        if self._mixture is not None:
            self._mixture.note(layer, rows)
        args, kwargs = self._calls[layer]
        repeats, flat = len(rows) // self.n, self.subject.batch_first
        rest = {k: _repeated(v, self.n, repeats, k in flat) for k, v in kwargs.items() if k != "hidden_states"}
        rows = self.subject.between(layer, rows)
        out = self.subject.blocks[layer](rows, *(_repeated(a, self.n, repeats) for a in args[1:]), **rest)
        return self.subject.rows_of(_hidden(out))

    def finish(self, rows: Tensor) -> Tensor:
        return self.run(len(self._calls) - 1, rows)

    def logits(self, rows: Tensor) -> Tensor:
        if self._mixture is not None:
            self._mixture.note(len(self._calls), rows)
            rows = self._mixture.total
        return self.subject.readout(rows, self._batch)

    def place(self, i: int, positions: Tensor) -> Tensor:
        return positions + self._pads[i]


class _Mixture:
    """The weighted sum over layers that a readout reads, kept up for each row while rows join and travel on."""

    def __init__(self, lane: FullLane, shares: Tensor) -> None:
        self._lane, self._shares = lane, shares
        # Summed in float32, as the library's one sum over all layers is inside, and rounded once, at the end.
        self._clean: Tensor = 0 * lane.clean(0).float()
        """Of the unedited run, over all points before the one that was noted last: what a joining row brings along."""
        self._total: Tensor = self._clean[:0]

    @property
    def total(self) -> Tensor:
        return self._total.to(self._lane.clean(0).dtype)

    def note(self, point: int, rows: Tensor) -> None:
        """Add what stands before block `point` (after the last one for n_layers), rows that have joined included."""
        joined = (len(rows) - len(self._total)) // self._lane.n
        share, seen = self._shares[point], self._lane.subject.mixed_state
        self._total = torch.cat([self._total, self._clean.repeat(joined, 1, 1)]) + (share * seen(point, rows)).float()
        self._clean = self._clean + (share * seen(point, self._lane.clean(point))).float()


class SuffixLane:
    """The positions from `starts[i]` on, behind the keys and values of `prefixes[i]` (causal decoders only).

    Args:
        subject: an audio LLM whose `shortcut_refusal` is None.
        runs: the recipients.
        prefixes: whose keys and values stand before the start; the recipient itself, or the donor where its whole
            trajectory up to the start is patched in.
        starts: the first position of each recipient that is recomputed.
        most_rows: how many rows a recipient may come to have.
    """

    reads_last = True

    def __init__(
        self,
        subject: AudioLLM,
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
        rotary = subject.hf.get_submodule(subject.arch.rotary)
        self._shared = _Shared(self.n, most_rows, self.mask, self.position_ids, rotary(like, self.position_ids))
        heads, d_head = self._keys.shape[2], self._keys.shape[4]
        # Reused by every block: fresh memory of this size at each would cost more than the copy into it.
        self._scratch = self._keys.new_empty(2, most_rows * self.n, heads, before + self.width, d_head)

    def clean(self, layer: int) -> Tensor:
        first = self._runs[0].resid[0]
        out = first.new_zeros(self.n, self.width, first.shape[-1])
        for i, (run, tail) in enumerate(zip(self._runs, self.tails, strict=True)):
            out[i, self.width - tail :] = run.resid[layer][run.prompted.n_pos - tail :]
        return out

    def run(self, layer: int, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._block(layer, rows, self._frozen(layer), mask)

    def finish(self, rows: Tensor) -> Tensor:
        last = self._subject.n_layers - 1
        try:  # all positions are needed for their keys and values, but behind those only the one that is read
            self._block(last, rows, _UntilKeys(self._frozen(last)))
        except _Keys as made:
            return self._block(last, rows[:, -1:], made)
        raise InterpError(f"the last block of {self._subject.name} hands no keys to the cache that it was given.")

    def logits(self, rows: Tensor) -> Tensor:
        return self._subject.readout(rows, [run.prompted for run in self._runs])

    def _frozen(self, layer: int) -> "_FrozenKeys":
        return _FrozenKeys(self._keys[layer], self._values[layer], self._scratch)

    def _block(self, layer: int, rows: Tensor, cache: Any, mask: Tensor | None = None) -> Tensor:
        """Run block `layer` on the last positions of each row, as many as `rows` holds."""
        own_mask, position_ids, (cos, sin) = self._shared.first(len(rows))
        at = slice(-rows.shape[1], None)
        return _hidden(
            self._subject.blocks[layer](
                rows,
                attention_mask=(own_mask if mask is None else mask)[:, :, at],
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


class _FrozenKeys:
    """Stands where a block expects its cache: prefix [n, heads, before, d_head] and new keys, and stores nothing."""

    def __init__(self, keys: Tensor, values: Tensor, scratch: Tensor) -> None:
        self._prefixes, self._scratch = (keys, values), scratch

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self._behind(0, keys), self._behind(1, values)

    def _behind(self, which: int, new: Tensor) -> Tensor:
        prefix = self._prefixes[which].to(new.device)
        n, heads, before, width = prefix.shape
        out = self._scratch[which, : len(new)].to(new.device)
        out.view(-1, n, heads, before + new.shape[2], width)[..., :before, :] = prefix
        out[..., before:, :] = new
        return out


class _UntilKeys:
    """A cache that ends the block as soon as its keys and values are made, by raising them."""

    def __init__(self, frozen: _FrozenKeys) -> None:
        self._frozen = frozen

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise _Keys(*self._frozen.update(keys, values, layer_idx))


class _Keys(Exception):
    """Keys and values of all positions; as a cache it answers with them, whatever it is given."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._made = (keys, values)

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self._made


def additive(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a boolean mask [n, query, key] into the additive form [n, 1, query, key] that eager and sdpa both take."""
    mask = torch.zeros(keep.shape, dtype=dtype, device=keep.device)
    return mask.masked_fill_(~keep, torch.finfo(dtype).min)[:, None]


def _left_aligned(states: Sequence[Tensor | None], starts: Sequence[int], before: int) -> Tensor:
    """Stack [n_layers, heads, pos, d_head] of several clips into [n_layers, n, heads, before, d_head]."""
    first = next(s for s in states if s is not None)
    out = first.new_zeros(first.shape[0], len(states), first.shape[1], before, first.shape[3])
    for i, (state, start) in enumerate(zip(states, starts, strict=True)):
        assert state is not None, "the lane is only built from runs that kept their keys"
        out[:, i, :, :start] = state[:, :, :start]
    return out


def _repeated(value: Any, n: int, repeats: int, batch_first: bool = False) -> Any:
    """Repeat what has one entry a recipient, or several side by side; leave what all rows share."""
    if isinstance(value, Tensor):
        shared = value.ndim == 0 or (value.shape[0] != n and not batch_first)
        return value if shared else value.repeat(repeats, *[1] * (value.ndim - 1))
    if isinstance(value, tuple | list):
        return type(value)(_repeated(v, n, repeats, batch_first) for v in value)
    return value


def _hidden(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
