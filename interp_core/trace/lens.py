"""What the layers of a clean run say, each read as if it were the last one.

Two lenses. Where positions live in the space of words (audio LLMs), the final norm and the unembedding turn the state
of any position at any layer into words. Where a decoder hears an encoder (Whisper), the decoder writes from what a
layer of the encoder leaves. Neither was trained for that: both are biased, the more the further from the last layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.subject import Subject
from interp_core.models.writing import greedy
from interp_core.trace.clean import CleanRun
from interp_core.trace.finite import attempt, check_finite
from interp_core.trace.generate import Written

AT_ONCE = 128
"""Positions whose logits over the whole vocabulary are held at a time."""


@dataclass(frozen=True, eq=False)
class WordLens:
    """Words at positions, by layer: the first row is what enters block 0, the last the model's own.

    Attributes:
        wanted: [n_layers + 1, pos, n_ids] float32 log-probability of each wanted token among all words.
        top: [n_layers + 1, pos] the likeliest token. top_log_prob: [n_layers + 1, pos] of it.
    """

    wanted: Tensor
    top: Tensor
    top_log_prob: Tensor


def word_lens(subject: Subject, run: CleanRun, positions: Tensor, ids: Sequence[int]) -> WordLens:
    """Read the words that every layer's states stand nearest to.

    Args:
        subject: a model whose `word_lens_refusal` is None. run: of it.
        positions: [pos] of the sequence. ids: tokens whose probability is wanted.
    Raises:
        InterpError: a model without words at its positions.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; its bias: Belrose et al. 2023, arXiv:2303.08112.
    """
    if (refusal := subject.word_lens_refusal()) is not None:
        raise InterpError(f"{subject.name} {refusal}, so there is no lens on them.")
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode(), subject.lock:
        for state in run.resid:
            parts = []
            for some in positions.to(state.device).split(AT_ONCE):
                log_probs = subject.words_at(state[some][None])[0].float().log_softmax(-1)  # [pos, d_vocab]
                best = log_probs.max(-1)
                parts.append((log_probs[:, list(ids)].cpu(), best.indices.cpu(), best.values.cpu()))
            found.append(tuple(torch.cat(each) for each in zip(*parts, strict=True)))  # type: ignore[arg-type]
    wanted, top, best_of = (torch.stack(each) for each in zip(*found, strict=True))
    return WordLens(wanted, top, best_of)


def early_exits(subject: Subject, run: CleanRun, n_tokens: int) -> list[Written]:
    """Let the decoder write from what each layer of the encoder leaves, behind the encoder's final norm.

    Args:
        subject: a model whose `early_exit_refusal` is None. run: of it. n_tokens: the most a text; 1 or more.
    Returns:
        n_layers + 1 texts: from what enters block 0, and from every layer; the last is the model's own.
    Raises:
        InterpError: a model without a decoder behind its layers, numbers that are not finite.
    Source: Langedijk et al. 2023, "DecoderLens", arXiv:2310.03686.
    """
    if (refusal := subject.early_exit_refusal()) is not None:
        raise InterpError(f"{subject.name} {refusal}.")
    rows, clip = len(run.resid), run.prompted.clip_id
    names = [f"clip {clip!r} read at layer {row - 1}" for row in range(rows)]
    with torch.inference_mode(), subject.lock:
        writer = subject.writer_from(torch.stack(run.resid), [run.prompted] * rows)
        texts = attempt(
            subject, [clip], lambda: greedy(writer, n_tokens, lambda logits: check_finite(subject, logits, names))
        )
    return [Written(subject.text_of(text.tokens), text.tokens, text.ended) for text in texts]
