"""One clip by hand: which words its audio positions stand nearest to, layer by layer and over time; or, of a model that
transcribes, what it would have written had its encoder ended at each layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp_core.choices import EMOTIONS
from interp_core.data.clips import Clip
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.probes.request import EMB, ProbesRequest
from interp_core.models.bundled import demo_of
from interp_core.models.subject import Subject
from interp_core.trace.generate import Written
from interp_core.trace.lens import early_exits, word_lens

MOST_COLUMNS = 96
"""Columns of a map; a column of a longer clip is the mean over some positions that follow each other."""
TOKENS = 40


@dataclass(frozen=True, eq=False)
class Nearest:
    """Words by layer and time, of one clip.

    Attributes:
        labels: the answer words.
        layers: [n_layers + 1] from -1, what enters layer 0.
        edges: [columns + 1] seconds at which columns begin and end.
        answers: [n_layers + 1, columns, n_labels] probability among all words, of the token that starts each answer.
        words: [n_layers + 1][columns] the likeliest of all words, at the position of the column that is surest of its.
        sure: [n_layers + 1, columns] its probability there.
        n_pos: audio positions. own: what the model answers, and its probability among the answers.
    """

    labels: tuple[str, ...]
    layers: tuple[int, ...]
    edges: NDArray[np.float64]
    answers: NDArray[np.float64]
    words: tuple[tuple[str, ...], ...]
    sure: NDArray[np.float64]
    n_pos: int
    own: tuple[str, float]

    @property
    def shares(self) -> NDArray[np.float64]:
        """[n_layers + 1, columns, n_labels] probabilities of the answers among each other."""
        return self.answers / self.answers.sum(-1, keepdims=True)

    @property
    def nearest(self) -> NDArray[np.intp]:
        """[n_layers + 1, columns] the number of the answer that is nearest."""
        return self.answers.argmax(-1)


def lens_refusal(subject: Subject) -> str | None:
    """Say, behind the model's name, why neither lens applies to it, or None where one does."""
    return subject.word_lens_refusal() if subject.early_exit_refusal() is not None else None


def answer_words(subject: Subject, request: ProbesRequest) -> tuple[str, ...]:
    """The answers that are looked for: those of a bundled model, else the usual emotions."""
    demo = demo_of(request.model)
    return tuple(demo.labels) if demo is not None and demo.labels else EMOTIONS


def nearest_words(
    engine: Engine, request: ProbesRequest, clip: Clip, *, words: Sequence[str] = (), columns: int = MOST_COLUMNS
) -> Nearest:
    """Look at one clip through the word lens, under the question of a run.

    Args:
        request: of a run, as it was resolved. clip: any clip that the model takes.
        words: the answers; those of the model unless given. columns: of the map, at most.
    Raises:
        InterpError: a model without words at its positions, words that cannot be told apart, or a clip that the model
            cannot take.
    """
    store = engine.store(request)
    subject = store.subject
    if (refusal := subject.word_lens_refusal()) is not None:
        raise InterpError(f"{subject.name} {refusal}, so there is no lens on them.")
    tokens = subject.labels(tuple(words) or answer_words(subject, request), request.prompt, several_tokens="first")
    run = store.run(clip, request.prompt)
    prompted = run.prompted
    found = word_lens(subject, run, prompted.recording.positions(), tokens.ids)
    (start, stop), step = prompted.audio, prompted.seconds_per_position
    n_pos = stop - start
    cuts = np.unique(np.linspace(0, n_pos, min(columns, n_pos) + 1).round().astype(int))
    probability, sure = found.wanted.double().exp().numpy(), found.top_log_prob.double().exp().numpy()
    parts = [slice(low, high) for low, high in zip(cuts[:-1], cuts[1:], strict=True)]
    best = np.stack([sure[:, part].argmax(1) + part.start for part in parts], axis=1)  # [n_layers + 1, columns]
    top = found.top.numpy()
    rows = np.arange(len(top))[:, None]
    said = {int(token): subject.text_of([int(token)]) for token in np.unique(top[rows, best])}
    logits, _ = tokens.read(run.logits[None].float().cpu())
    own = logits[0].double().softmax(-1)
    return Nearest(
        labels=tokens.labels,
        layers=tuple(range(EMB, subject.n_layers)),
        edges=cuts * step,
        answers=np.stack([probability[:, part].mean(1) for part in parts], axis=1),
        words=tuple(tuple(said[int(token)] for token in row) for row in top[rows, best]),
        sure=sure[rows, best],
        n_pos=n_pos,
        own=(tokens.labels[int(own.argmax())], float(own.max())),
    )


def transcripts(engine: Engine, request: ProbesRequest, clip: Clip, *, n_tokens: int = TOKENS) -> list[Written]:
    """What the decoder writes from each layer of the encoder, from what enters layer 0 to the last, the model's own.

    Args:
        request: of a run, as it was resolved. clip: any clip that the model takes. n_tokens: the most a text.
    Raises:
        InterpError: a model without a decoder behind its layers, or a clip that the model cannot take.
    """
    store = engine.store(request)
    if (refusal := store.subject.early_exit_refusal()) is not None:
        raise InterpError(f"{store.subject.name} {refusal}.")
    return early_exits(store.subject, store.run(clip, request.prompt), n_tokens)
