"""Greedy text of a model that writes: its own passes over a batch, under the library's rules of which token is next.

What a checkpoint's generation config asks for in greedy decoding (tokens that are suppressed, at the beginning or
throughout, forced ones, penalties for repetition, the tokens that end a text) is prepared and applied by the library's
`generate()`; only its loop is ours, so that it starts from stems that are kept, with edits on, and asks for no logits
but the last position's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationMixin

from interp_core.errors import InterpError


class Writer(Protocol):
    """A batch of rows on its way through a model that writes; all rows have one number of positions."""

    each_step: bool
    """Whether the subject's blocks run for every token that is written, and not only over the prompt."""
    most: int
    """Tokens that there is room for behind the prompt."""

    @property
    def asked(self) -> dict[str, Any]:
        """What the library's `generate()` is given; a prompt of ids is what its rules about repetition look at."""

    @property
    def hf(self) -> Any:
        """The library's model whose generation config decides."""

    def first(self) -> Tensor:
        """Run the prompt: float32 logits [rows, d_vocab] of the first token."""

    def step(self, tokens: Tensor) -> Tensor:
        """Run one more token [rows] behind all that went before: logits of the next."""


@dataclass(frozen=True)
class Text:
    """What one row became: its tokens without the one that ends a text, and whether it came to that one."""

    tokens: tuple[int, ...]
    ended: bool


def greedy(writer: Writer, n_tokens: int, seen: Callable[[Tensor], None] = lambda _: None) -> list[Text]:
    """Let a batch write up to `n_tokens` tokens a row, the likeliest each time; a row stops at its own end.

    Args:
        writer: the batch.
        n_tokens: 1 or more; fewer are written where the model has room for fewer.
        seen: is given the logits of every step before a token is chosen, and may raise.
    """

    def loop(_model: Any, ids: Tensor, logits_processor: Any, stopping_criteria: Any, **_: Any) -> list[Tensor]:
        logits = writer.first()
        start = ids.shape[1]
        going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        lengths = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        while True:
            seen(logits)
            tokens = logits_processor(ids, logits.to(ids.device, torch.float32, copy=True)).argmax(-1)
            lengths += going
            # What a row that is at its end is given no longer matters to the others.
            ids = torch.cat([ids, tokens[:, None]], -1)
            going &= ~stopping_criteria(ids, None)
            if not going.any():
                return [row[start : start + int(length)] for row, length in zip(ids, lengths, strict=True)]
            logits = writer.step(tokens)

    hf = writer.hf
    if writer.most < 1:
        raise InterpError(
            "the prompt fills all positions that the model has, so there is no room for a word; shorten it."
        )
    written = GenerationMixin.generate(
        hf,
        **writer.asked,
        custom_generate=loop,
        max_new_tokens=min(n_tokens, writer.most),
        max_length=None,  # a checkpoint may have one, which would only be warned about
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        cache_implementation=None,  # the loop has its own
    )
    ends = ends_of(hf)
    found = []
    for row in written:
        tokens = row.tolist()
        ended = bool(tokens) and tokens[-1] in ends
        found.append(Text(tuple(tokens[:-1] if ended else tokens), ended))
    return found


def ends_of(hf: Any) -> frozenset[int]:
    """The tokens that end a text of a model."""
    told = hf.generation_config.eos_token_id
    return frozenset() if told is None else frozenset([told] if isinstance(told, int) else told)
