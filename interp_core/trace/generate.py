"""The answer in words: the greedy continuation of clips as they are, and of clips under an edit.

An edit is applied while the prompt is run (the *prefill*); what is written behind it reads the keys and values that the
edited prompt left. With `during="all"` an edit that has a meaning there is applied at every written position too. Rows
of one length are one batch whatever their edits are, so that a sweep over layers takes the steps of one text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from interp_core.choices import During
from interp_core.errors import InterpError
from interp_core.models.prompted import Prompted
from interp_core.models.subject import Subject
from interp_core.models.writing import Text, Writer, greedy
from interp_core.sites import Site
from interp_core.trace.finite import attempt, check_finite
from interp_core.trace.hooks import Edit, edited
from interp_core.trace.patch import RowEdit

MOST_ROWS = 64
"""Of one batch; it is halved as often as the memory asks for."""


@dataclass(frozen=True, eq=False)
class Row:
    """One clip under one prompt, and what is changed in it; nothing for the clip as it is."""

    prompted: Prompted
    edits: tuple[RowEdit, ...] = ()


@dataclass(frozen=True)
class Written:
    """What a row became.

    Attributes:
        text: without tokens that are no words.
        tokens: ids, without the one that ends a text.
        ended: whether the model came to that one, or was stopped before it.
    """

    text: str
    tokens: tuple[int, ...]
    ended: bool


def generate(subject: Subject, rows: Sequence[Row], n_tokens: int, *, during: During = "prefill") -> list[Written]:
    """Let the model write behind each row, the likeliest token each time, as the library's greedy decoding does.

    Args:
        subject: a model that writes.
        rows: in any order; a row comes out as it would alone.
        n_tokens: the most a row; 1 or more.
        during: "prefill" edits the prompt alone, "all" also every position that is written (in Whisper's encoder, where
            nothing is written, the two are the same).
    Returns:
        One text a row, in order.
    Raises:
        InterpError: a model that writes nothing, a site that it has not or a hook that did not fire, "all" for an edit
            that has no meaning at written positions, numbers that are not finite, too little memory for one row.
    """
    subject.check_writes()
    subject.check_ready()
    if n_tokens < 1:
        raise InterpError(f"n_tokens={n_tokens} leaves no word to write; give 1 or more.")
    for edit in (edit for row in rows for edit in row.edits):
        subject.locate(edit.site)
        if during == "all" and not edit.goes_on:
            raise InterpError(
                f"the edit at {edit.site} ends with the prompt, as no donor has the words that the model goes on to "
                "write; choose during prefill."
            )
    order = sorted(range(len(rows)), key=lambda i: _length(subject, rows[i]))
    found: dict[int, Written] = {}
    with torch.inference_mode():
        for _, alike in groupby(order, key=lambda i: _length(subject, rows[i])):
            members = list(alike)
            for at in range(0, len(members), MOST_ROWS):
                some = members[at : at + MOST_ROWS]
                texts = _batch(subject, [rows[i] for i in some], n_tokens, during)
                found |= {
                    i: Written(subject.text_of(text.tokens), text.tokens, text.ended)
                    for i, text in zip(some, texts, strict=True)
                }
    return [found[i] for i in range(len(rows))]


def _length(subject: Subject, row: Row) -> tuple[Any, ...]:
    """Rows share a batch only where none has to be padded, so that no rule about repetition sees padding."""
    prompted = row.prompted
    asked = (prompted.inputs[name].shape[1] for name in ("input_ids", "decoder_input_ids") if name in prompted.inputs)
    return (prompted.n_pos, *asked, subject.batch_key(prompted))


def _batch(subject: Subject, rows: Sequence[Row], n_tokens: int, during: During) -> list[Text]:
    try:
        return _together(subject, rows, n_tokens, during)
    except torch.OutOfMemoryError as error:
        if len(rows) == 1:
            raise InterpError(
                f"the text of clip {rows[0].prompted.clip_id!r} ({rows[0].prompted.n_pos} positions) does not fit into "
                "the device's memory; use half precision or a shorter clip."
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(rows) // 2
    return [text for some in (rows[:half], rows[half:]) for text in _batch(subject, some, n_tokens, during)]


def _together(subject: Subject, rows: Sequence[Row], n_tokens: int, during: During) -> list[Text]:
    at: dict[Site, list[tuple[int, RowEdit]]] = {}
    for i, row in enumerate(rows):
        for edit in row.edits:
            at.setdefault(edit.site, []).append((i, edit))
    with subject.lock:
        writer = _Counted(subject.writer([row.prompted for row in rows]))
        hooks = {site: _editing(some, writer, during) for site, some in at.items()}
        names = [_named(row) for row in rows]
        with edited(subject, hooks, times=lambda: writer.passes):
            return attempt(
                subject,
                [row.prompted.clip_id for row in rows],
                lambda: greedy(writer, n_tokens, lambda logits: check_finite(subject, logits, names)),
            )


class _Counted:
    """A writer that knows whether it is behind the prompt, and how often it ran the blocks."""

    def __init__(self, inner: Writer) -> None:
        self._inner = inner
        self.each_step, self.most, self.hf = inner.each_step, inner.most, inner.hf
        self.behind_prompt = False
        self.passes = 1

    @property
    def asked(self) -> dict[str, Any]:
        return self._inner.asked  # in Whisper, where the encoder is run

    def first(self) -> Tensor:
        return self._inner.first()

    def step(self, tokens: Tensor) -> Tensor:
        self.behind_prompt = True
        self.passes += self.each_step
        return self._inner.step(tokens)


def _editing(some: Sequence[tuple[int, RowEdit]], writer: _Counted, during: During) -> Edit:
    """The edit of one site in a batch [rows, pos, width]: each row by its own edits, in their order."""

    def edit(value: Tensor) -> Tensor:
        if writer.behind_prompt and during == "prefill":
            return value
        value = value.clone()
        for i, one in some:
            if not writer.behind_prompt:
                value[i] = one.prompt(value[i])
            else:
                value[i] = one.written(value[i])
        return value

    return edit


def _named(row: Row) -> str:
    edits = ", ".join(str(edit.site) for edit in row.edits)
    return f"clip {row.prompted.clip_id!r}" + (f" with {edits} edited" if edits else "")
