"""Attention knockout: forbid some positions to read the audio in a window of layers, and see what is lost."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.trace.clean import CleanRun
from interp_core.trace.finite import check_finite
from interp_core.trace.rows import CachedPrefixRows, Rows

Readers = Literal["last", "text"]


def windows(n_layers: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return (first, stop) of every run of `width` layers, one starting at each layer that has room for it."""
    width = min(width, n_layers)
    return tuple((first, first + width) for first in range(n_layers - width + 1))


def knockout(
    subject: Subject,
    run: CleanRun,
    labels: LabelTokens,
    spans: Sequence[tuple[int, int]],
    readers: Readers = "last",
) -> tuple[Tensor, Tensor]:
    """Cut the attention from `readers` to the audio in each window of layers, one window at a time.

    Only positions behind the audio can change, so only they are recomputed; a window's row joins at its first layer.

    Args:
        subject: a causal decoder.
        run: the clip's clean run.
        labels: whose logits are read.
        spans: (first, stop) layers of each window, ascending.
        readers: "last" (the readout position alone) or "text" (every position behind the audio).
    Returns:
        Label logits [n_windows, n_labels] float32 and log label mass [n_windows], CPU.
    Raises:
        InterpError: a model whose keys cannot be held fixed, or windows that it has not or that are out of order.
    Source: Geva et al. 2023, arXiv:2304.14767, section 4.
    """
    refusal = subject.shortcut_refusal()
    if refusal is not None or run.keys is None:
        raise InterpError(
            f"attention knockout needs a causal decoder whose keys are cached; {subject.name}: {refusal}."
        )
    if list(spans) != sorted(spans) or not all(0 <= a < b <= subject.n_layers for a, b in spans):
        raise InterpError(
            f"windows {list(spans)} must be (first, stop) pairs in ascending order within {subject.n_layers} layers."
        )
    first, stop = run.prompted.audio
    start = run.prompted.n_pos - 1 if readers == "last" else stop
    with torch.inference_mode(), subject.lock:
        runner = CachedPrefixRows(subject, [run], [run], [start], len(spans))
        blind = runner.mask.clone()
        blind[..., first:stop] = torch.finfo(blind.dtype).min
        rows: Rows | None = None
        joined: list[tuple[int, int]] = []
        for layer in range(subject.n_layers):
            for span in spans:
                if span[0] == layer:
                    new = runner.start(layer, runner.clean(layer))
                    rows = new if rows is None else rows.joined(new)
                    joined.append(span)
            if rows is not None:
                masks = [blind if a <= layer < b else runner.mask for a, b in joined]
                rows = runner.run(layer, rows, torch.cat(masks))
        assert rows is not None, "there is at least one window"
        answers = runner.logits(rows)
        clip = run.prompted.clip_id
        check_finite(
            subject, answers, [f"clip {clip!r} cut from its audio in layers {a} to {b - 1}" for a, b in joined]
        )
        logits, mass = labels.read(answers)
    return logits.cpu(), mass.cpu()
