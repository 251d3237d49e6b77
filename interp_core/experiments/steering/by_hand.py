"""One clip steered by hand: any recording, no label needed, with random vectors of the same length beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.engine import Engine
from interp_core.experiments.answers import head_labels
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.steering.plan import random_vector
from interp_core.experiments.steering.request import SteerRequest
from interp_core.experiments.steering.steered import SteeredClip
from interp_core.experiments.steering.vectors import SteeringVectors
from interp_core.experiments.steering.words import steered_rows
from interp_core.trace.generate import Row, Written, generate

STEPS = 16
"""Strengths from nothing to the largest."""


@dataclass(frozen=True, eq=False)
class ByHand:
    """What one clip is answered when a label's vector is added behind a layer.

    Attributes:
        labels: the answers.
        alphas: [n] strengths, from 0. logits: [n, n_labels] of the label's vector.
        random_alphas: [m] of them. random: [draws, m, n_labels] of random vectors as long.
        mass: [n] probability on the answers.
    """

    labels: tuple[str, ...]
    alphas: tuple[float, ...]
    logits: NDArray[np.float64]
    random_alphas: tuple[float, ...]
    random: NDArray[np.float64]
    mass: NDArray[np.float64]

    @property
    def base(self) -> str:
        """The answer to the clip as it is."""
        return self.labels[int(self.logits[0].argmax())]

    def answer(self, alpha: float) -> str:
        """The answer at one of the strengths."""
        return self.labels[int(self.logits[self.alphas.index(alpha)].argmax())]

    def random_answers(self, alpha: float) -> tuple[str, ...]:
        """The answer under each random vector, at the one of their strengths that is nearest."""
        rows = self.random[:, self.random_alphas.index(self.nearest(alpha))]
        return tuple(self.labels[i] for i in rows.argmax(-1))

    def nearest(self, alpha: float) -> float:
        """The strength of random vectors that is nearest to a strength."""
        return min(self.random_alphas, key=lambda one: abs(one - alpha))


def doses(alphas: Sequence[float]) -> tuple[float, ...]:
    """The strengths to choose from by hand: even steps up to the largest of a run, and the run's own."""
    top = max(alphas)
    return tuple(sorted({0.0, *(top * i / STEPS for i in range(STEPS + 1)), *map(float, alphas)}))


def steer_by_hand(
    engine: Engine,
    request: SteerRequest,
    vectors: SteeringVectors,
    clip: Clip,
    *,
    label: str,
    layer: int,
    prompt: int = 0,
    draws: int = 20,
) -> ByHand:
    """Steer one clip, at every strength from 0 to the largest of a run.

    Args:
        request: of the run that the vectors are of, as it was resolved. prompt: the number of its question.
        clip: any clip that the model takes.
        draws: random vectors; those of the run.
    Raises:
        InterpError: no such label or layer, or a clip that the model cannot take.
    """
    store = engine.store(request)
    text = request.prompts[prompt]
    tokens = head_labels(store.subject, request.labels, text, set(), ())
    copies = SteeredClip(
        ClipReader(store, text), clip, tokens, request.positions, together=request.batch_size, method=request.method
    )
    vector = vectors.of(label, layer)
    alphas, at = doses(request.alphas), tuple(sorted({0.0, *map(float, request.alphas)}))
    drawn = [random_vector(vector, request.seed, layer, label, draw) for draw in range(draws)]
    shifts = [alpha * vector for alpha in alphas] + [alpha * one for one in drawn for alpha in at]
    logits, log_mass = copies.answers(layer, torch.stack(shifts))
    found = logits.double().numpy()
    random = found[len(alphas) :].reshape(draws, len(at), -1)
    mass = log_mass[: len(alphas)].double().exp().numpy()
    return ByHand(tokens.labels, alphas, found[: len(alphas)], at, random, mass)


def answer_steered(
    engine: Engine,
    request: SteerRequest,
    vectors: SteeringVectors,
    clip: Clip,
    *,
    label: str,
    layer: int,
    alpha: float,
    n_tokens: int,
    prompt: int = 0,
    during: During = "prefill",
) -> tuple[Written, Written]:
    """What a clip is answered in words: as it is, and with alpha times a label's vector added; see `generate`.

    Args:
        request: of the run that the vectors are of, as it was resolved. prompt: the number of its question.
    Raises:
        InterpError: as `generate` and `steer_by_hand`.
    """
    store = engine.store(request)
    store.subject.check_writes()
    reader, shift = ClipReader(store, request.prompts[prompt]), alpha * vectors.of(label, layer)
    (row,) = steered_rows(reader, clip, request.positions, [(layer, shift)])
    own, steered = generate(store.subject, [Row(row.prompted), row], n_tokens, during=during)
    return own, steered
