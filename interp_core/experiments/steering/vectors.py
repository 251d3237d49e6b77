"""The directions that are added: mean state of a label's clips minus mean state of the other labels' clips.

Fitted at what every layer leaves, over each clip's own mean. Their file holds all that a later run has to know of them,
as one entry of metadata, so that the same vectors are the same bytes.
Source: difference of means as a steering direction: Rimsky et al. 2024, arXiv:2312.06681; Marks & Tegmark 2023,
arXiv:2310.06824.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from interp_core.errors import InterpError, few
from interp_core.maths.permutation import shuffled_labels
from interp_core.models.subject import Subject

FILE = "steering_vectors.safetensors"
ENTRY, FORMAT = "patchbay", "steering vectors 1"
States = Mapping[int, NDArray[np.floating]]
"""[n_clips, width] by layer: each clip's mean state."""


@dataclass(frozen=True, eq=False)
class SteeringVectors:
    """The vectors of some labels behind some layers.

    Attributes:
        labels, layers: in their order.
        means: by layer, [n_labels, width] float32: mean state of each label's clips.
        vectors: the same shape: that minus the mean state of all other labels' clips.
        about: model (id, type, weights_sha256, n_layers), site, positions, prompt, task, units, n and units of each
            label's clips, the clips that they were fitted on (digests) and that were left for steering.
    """

    labels: tuple[str, ...]
    layers: tuple[int, ...]
    means: Mapping[int, Tensor]
    vectors: Mapping[int, Tensor]
    about: Mapping[str, Any] = field(repr=False)

    def of(self, label: str, layer: int) -> Tensor:
        """[width] float32. Errors: InterpError for a label or a layer that has none."""
        return self.vectors[self._layer(layer)][self._label(label)]

    def mean(self, label: str, layer: int) -> Tensor:
        """[width] float32, the mean state of a label's clips; errors as of `of`."""
        return self.means[self._layer(layer)][self._label(label)]

    def _label(self, label: str) -> int:
        if label not in self.labels:
            raise InterpError(f"there is no vector of {label!r} (there are {', '.join(self.labels)}).")
        return self.labels.index(label)

    def _layer(self, layer: int) -> int:
        if layer not in self.layers:
            raise InterpError(
                f"there is no vector behind layer {layer} (there are {', '.join(map(str, self.layers))})."
            )
        return layer

    def to_bytes(self) -> bytes:
        """The file: tensors `vector.L3.angry` and `mean.L3.angry`, [width] float32, and what is known of them."""
        tensors = {
            f"{what}.L{layer}.{label}": rows[layer][number].contiguous()
            for what, rows in (("vector", self.vectors), ("mean", self.means))
            for layer in self.layers
            for number, label in enumerate(self.labels)
        }
        said = {"format": FORMAT, "labels": self.labels, "layers": self.layers, "about": self.about}
        return save(tensors, {ENTRY: json.dumps(said, sort_keys=True, ensure_ascii=False)})


def load_vectors(path: Path) -> SteeringVectors:
    """Read the file that `SteeringVectors.to_bytes` made.

    Raises:
        InterpError: no such file, a file of another kind, or one that is damaged.
    """
    try:
        with safe_open(str(path), "pt") as file:
            said = json.loads((file.metadata() or {}).get(ENTRY, "null"))
            if not isinstance(said, dict) or said.get("format") != FORMAT:
                raise InterpError(
                    f"{path} holds no steering vectors; give the {FILE} of a steering run, or leave --vector out."
                )
            labels, layers = tuple(map(str, said["labels"])), tuple(map(int, said["layers"]))

            def rows(what: str) -> dict[int, Tensor]:
                return {
                    layer: torch.stack([file.get_tensor(f"{what}.L{layer}.{label}").float() for label in labels])
                    for layer in layers
                }

            return SteeringVectors(labels, layers, rows("mean"), rows("vector"), dict(said["about"]))
    except FileNotFoundError as error:
        raise InterpError(f"the vectors {path} do not exist; give the {FILE} of a steering run.") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InterpError(f"the vectors {path} cannot be read ({str(error)[:120]}); restore the file.") from error


def misfit(vectors: SteeringVectors, subject: Subject, layers: Sequence[int], widths: Mapping[int, int]) -> str:
    """Why vectors cannot be added to a model, as a sentence; "" where they can.

    Args:
        layers: behind which they are to be added. widths: of the model's states, by layer.
    """
    model = vectors.about.get("model", {})
    theirs = f"the vectors are of {model.get('id', 'another model')} ({model.get('n_layers', '?')} layers"
    if missing := [layer for layer in layers if layer not in vectors.layers]:
        has = ", ".join(map(str, vectors.layers))
        return f"{theirs}) and stand behind layers {has}, not behind {few(list(map(str, missing)))}; choose among these"
    other = [layer for layer in layers if vectors.vectors[layer].shape[1] != widths[layer]]
    if other:
        wide = vectors.vectors[other[0]].shape[1]
        return (
            f"{theirs}, {wide} numbers wide at layer {other[0]}), and {subject.name} has {subject.n_layers} layers, "
            f"{widths[other[0]]} wide there; give vectors that were fitted to a model of this shape"
        )
    return ""


def foreign(vectors: SteeringVectors, subject: Subject) -> str:
    """A note where vectors are those of other weights than the model's; "" where they are its own."""
    model = vectors.about.get("model", {})
    if model.get("weights_sha256") == subject.weights_hash:
        return ""
    return (
        f"the vectors were fitted to another model of this width ({model.get('id', '?')}, "
        f"{model.get('n_layers', '?')} layers): that they mean the same here is not known"
    )


def fit_vectors(
    states: States, named: Sequence[str], labels: Sequence[str], about: Mapping[str, Any]
) -> SteeringVectors:
    """Vectors from the states of labelled clips.

    Args:
        states: each clip's own.
        named: [n_clips] the label of each.
        labels: whose vectors are made; every one has clips, and every clip is of some label.
        about: what is known of them.
    Raises:
        InterpError: a label without a clip, or one that every clip has.
    """
    codes = np.asarray(named)
    for label in labels:
        count = int((codes == label).sum())
        if not 0 < count < len(codes):
            raise InterpError(f"{count} of {len(codes)} clips are {label!r}; a difference needs some that are not.")
    own = np.stack([codes == label for label in labels])
    means = {layer: _means(rows, own) for layer, rows in states.items()}
    rest = {layer: _means(rows, ~own) for layer, rows in states.items()}
    vectors = {layer: means[layer] - rest[layer] for layer in states}
    return SteeringVectors(tuple(labels), tuple(states), means, vectors, about)


def _means(states: NDArray[np.floating], chosen: NDArray[np.bool_]) -> Tensor:
    """[n_labels, width] float32: means over the chosen clips [n_labels, n_clips], summed in float64."""
    weights = chosen / chosen.sum(axis=1, keepdims=True)
    return torch.from_numpy((weights @ states.astype(np.float64)).astype(np.float32))


def shuffled_vectors(
    states: States, named: Sequence[str], labels: Sequence[str], units: Sequence[str], *, draws: int, seed: int
) -> dict[int, Tensor]:
    """What the same fit gives where labels have nothing to do with clips: by layer, [draws, n_labels, width].

    Labels are exchanged within each unit that holds several of them; see `shuffled_labels`.
    """
    names = sorted(set(named))
    codes = np.array([names.index(one) for one in named])
    drawn = shuffled_labels(codes, units, draws=draws, seed=seed).codes
    own = np.stack([drawn == names.index(label) for label in labels], axis=1)  # [draws, n_labels, n_clips]
    return {
        layer: torch.stack([_means(rows, mask) - _means(rows, ~mask) for mask in own]) for layer, rows in states.items()
    }


def random_direction(width: int, *names: Any) -> Tensor:
    """[width] float32 of length 1; the same names, the same direction, on every device."""
    seed = int.from_bytes(hashlib.sha256("|".join(map(str, names)).encode()).digest()[:7], "big")
    drawn = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def of_length(direction: Tensor, like: Tensor) -> Tensor:
    """A direction [.., width] as long as a vector [width]; one of no length stays so."""
    norm = direction.norm(dim=-1, keepdim=True)
    return torch.where(norm > 0, direction / norm.clamp(min=1e-30) * like.norm(), direction)
