"""What a steering run does to each clip: which vectors are added behind which layer, under which question.

A clip's *cells* are its copies. Under the first question every label's vector is added at every strength, and beside it
the controls; under the further ones, which say what else the vector does, at the controls' strength alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.steering.request import SteerRequest
from interp_core.experiments.steering.vectors import SteeringVectors, of_length, random_direction
from interp_core.models.labels import LabelTokens


@dataclass(frozen=True, eq=False)
class Question:
    """One question of a run: the reader that asks it, and the answers to it."""

    reader: ClipReader
    labels: LabelTokens


@dataclass(frozen=True, eq=False)
class SteerPlan:
    """A run before it starts.

    Attributes:
        questions: the first is that under which vectors are fitted.
        told: by label, the first question behind words that say the label; empty where the model is not asked in words.
        fitted, steered: clips of the two halves; none is fitted on where the vectors come from a file.
        named: the label of each of `fitted`.
        targets, layers: whose vectors are added, behind which layers. partners: whose vector controls each layer.
        vectors: of the file that was given.
        columns: label columns that the model answers, the task first.
    """

    settings: SteerRequest
    questions: tuple[Question, ...]
    told: Mapping[str, Question]
    fitted: tuple[Clip, ...]
    named: tuple[str, ...]
    steered: tuple[Clip, ...]
    targets: tuple[str, ...]
    layers: tuple[int, ...]
    partners: Mapping[int, int]
    vectors: SteeringVectors | None
    columns: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fit_layers(self) -> tuple[int, ...]:
        """The layers whose states are read."""
        return tuple(sorted({*self.layers, *self.partners.values()}))

    def conditions(self, prompt: int) -> tuple[str, ...]:
        """What is added under a question, besides nothing."""
        if prompt:
            return ("vector",)
        asked = self.settings.controls
        shuffled = ("shuffled", "shuffled_long") if "shuffled" in asked and self.vectors is None else ()
        return ("vector", *(["random"] if "random" in asked else []), *shuffled, *(["layer"] if self.partners else []))

    @property
    def records_a_clip(self) -> int:
        """Lines of the record file: the clip as it is, and one a label, layer and condition."""
        cells = 0
        for prompt in range(len(self.questions)):
            for condition in self.conditions(prompt):
                layers = self.partners if condition == "layer" else self.layers
                cells += len(self.targets) * len(layers)
        return len(self.questions) + cells + len(self.told)

    @property
    def copies_a_layer(self) -> int:
        """Steered copies of a clip behind each layer."""
        dose = self.settings.draws if self.settings.every_draw else 1
        strengths = len(self.settings.alphas)
        each = {"vector": strengths, "random": strengths - 1 + dose, "shuffled": 1, "shuffled_long": 1, "layer": 1}
        copies = 0
        for prompt in range(len(self.questions)):
            copies += sum(each[condition] if prompt == 0 else 1 for condition in self.conditions(prompt))
        return copies * len(self.targets)


@dataclass(frozen=True, eq=False)
class Cell:
    """The copies of a clip in one line of its records: alpha and draw of each, and what is added, [copies, width]."""

    condition: str
    label: str
    alphas: tuple[float, ...]
    draws: tuple[int | None, ...]
    shifts: Tensor


class Shifts:
    """What is added, for every clip of a run.

    Args:
        plan: of the run. vectors: fitted, or of a file.
        shuffled: by layer, [draws, n_targets, width]: the same fit to shuffled labels.
    """

    def __init__(self, plan: SteerPlan, vectors: SteeringVectors, shuffled: Mapping[int, Tensor]) -> None:
        self._plan, self._vectors, self._shuffled = plan, vectors, shuffled
        self._random: dict[tuple[int, str, int], Tensor] = {}

    @cached_property
    def _settings(self) -> SteerRequest:
        return self._plan.settings

    def vector(self, layer: int, label: str) -> Tensor:
        """[width] the label's own."""
        return self._vectors.of(label, layer)

    def random(self, layer: int, label: str, draw: int) -> Tensor:
        """[width] a random vector as long as the label's."""
        key = (layer, label, draw)
        if key not in self._random:
            vector = self._vectors.of(label, layer)
            self._random[key] = random_vector(vector, self._settings.seed, *key)
        return self._random[key]

    def cells(self, prompt: int, layer: int, clip: int) -> Iterator[Cell]:
        """The copies of the clip of this number behind a layer."""
        alphas, control = self._settings.alphas, self._settings.at_controls
        turn = clip % self._settings.draws
        for number, label in enumerate(self._plan.targets):
            vector = self._vectors.of(label, layer)
            for condition in self._plan.conditions(prompt):
                if condition == "vector":
                    some = alphas if prompt == 0 else (control,)
                    yield _cell("vector", label, [(alpha, None, vector) for alpha in some])
                elif condition == "random":
                    drawn = [
                        (alpha, draw, self.random(layer, label, draw))
                        for alpha in alphas
                        for draw in self._draws(alpha, turn)
                    ]
                    yield _cell("random", label, drawn)
                elif condition in ("shuffled", "shuffled_long"):
                    other = self._shuffled[layer][turn, number]
                    if condition == "shuffled_long":
                        other = of_length(other, vector)
                    yield _cell(condition, label, [(control, turn, other)])
                elif layer in self._plan.partners:
                    other = of_length(self._vectors.of(label, self._plan.partners[layer]), vector)
                    yield _cell("layer", label, [(control, None, other)])

    def _draws(self, alpha: float, turn: int) -> Sequence[int]:
        every = self._settings.every_draw and alpha == self._settings.at_controls
        return range(self._settings.draws) if every else (turn,)


def random_vector(like: Tensor, seed: int, layer: int, label: str, draw: int) -> Tensor:
    """[width] in a random direction, as long as a vector [width]."""
    return random_direction(len(like), seed, "random", layer, label, draw) * like.norm()


def _cell(condition: str, label: str, copies: Sequence[tuple[float, int | None, Tensor]]) -> Cell:
    alphas, draws = tuple(alpha for alpha, _, _ in copies), tuple(draw for _, draw, _ in copies)
    return Cell(condition, label, alphas, draws, torch.stack([alpha * vector for alpha, _, vector in copies]))


def partners_of(
    layers: Sequence[int], usable: Sequence[int], widths: Mapping[int, int], n_layers: int
) -> dict[int, int]:
    """For each layer one far from it whose states are as wide: that half the model's depth away, or the nearest to it.

    Args:
        usable: layers that have vectors.
    Returns:
        Nothing for a layer without another one.
    """
    found = {}
    for layer in layers:
        wanted = (layer + n_layers // 2) % n_layers
        others = [one for one in usable if one != layer and widths[one] == widths[layer]]
        if others:
            found[layer] = min(others, key=lambda one: (abs(one - wanted), one))
    return found
