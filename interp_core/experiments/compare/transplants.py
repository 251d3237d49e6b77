"""What is transplanted from the donor into the base, where, and what each transplant needs at inference.

A *transplant* is one changed model: the donor's activations of the same clip at some sites, the donor's layer weights,
or a map fitted on other clips that moves the base's own activations toward the donor's without running the donor.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.experiments.compare.parts import mix_refusal
from interp_core.experiments.compare.request import MAPS
from interp_core.models.subject import Subject
from interp_core.models.weights import same_bits
from interp_core.sites import Site

Mode = Literal["donor", "weights", "mean", "ridge", "procrustes", "erasure", "random erasure"]
ERASURES: tuple[Mode, Mode] = ("erasure", "random erasure")
"""Modes that change the base without the donor: a concept taken out, and a random subspace of the same rank."""
RIDGE = 0.1  # penalty, in shares of the mean variance of a direction
UNSEEN = 1e-6  # weight of "leave it as it is", which decides only in directions that no fitting clip shows
SAYS = {
    "donor": "donor's activations of the same clip",
    "weights": "donor's layer weights, everything else the base's own",
    "mean": "mean difference added",
    "ridge": "ridge map of the difference",
    "procrustes": "rotation fitted by Procrustes",
    "erasure": "LEACE, fitted on the base's own activations",
    "random erasure": "a random subspace of the same rank erased",
}


@dataclass(frozen=True)
class Transplant:
    """One changed model.

    Attributes:
        mode: what is transplanted.
        sites: where; empty for the layer weights.
        reverse: whether the donor is the recipient and the base what it is given from.
        chosen: how its sites were chosen.
        null: why it must change nothing; empty where it may.
    """

    mode: Mode
    sites: tuple[Site, ...]
    reverse: bool = False
    chosen: str = ""
    null: str = ""

    @property
    def name(self) -> str:
        layers = sorted(site.layer for site in self.sites if site.kind == "resid_post")
        if self.mode == "weights":
            where = "layer weights"
        elif len(layers) > 2 and layers == list(range(layers[-1] + 1)):
            where = f"layers 0 to {layers[-1]}"
        elif layers:
            where = f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
        else:
            where = ", ".join(site.kind for site in self.sites)
        how = "" if self.mode in ("donor", "weights") else f" by {self.mode}"
        return f"{'reverse: ' if self.reverse else ''}{where}{how}"

    @property
    def needs_donor(self) -> bool:
        """Whether the other model has to run for every clip."""
        return self.mode == "donor"

    @property
    def forwards(self) -> int:
        """Forward passes a clip at inference."""
        return 2 if self.needs_donor else 1


def parse_patch(words: Sequence[str], n_layers: int, divergence: Sequence[float]) -> list[tuple[str, tuple[int, ...]]]:
    """Turn `auto:3`, `each`, `cumulative` or `0,5,11` into sets of layers, each with how it was chosen.

    Args:
        words: what was asked for.
        divergence: [n_layers] how little alike the models are at each layer; NaN where it is not known.
    Raises:
        InterpError: a word that is none of these, or a layer outside the model.
    """
    found: list[tuple[str, tuple[int, ...]]] = []
    for word in words:
        name, _, count = word.partition(":")
        if word == "none":
            continue
        if word == "each":
            found += [("each layer alone", (layer,)) for layer in range(n_layers)]
        elif word == "cumulative":
            found += [("cumulative from layer 0", tuple(range(layer + 1))) for layer in range(n_layers)]
        elif name == "auto" and count.isdigit() and int(count) > 0:
            known = [layer for layer in range(n_layers) if divergence[layer] == divergence[layer]]
            most = sorted(known, key=lambda layer: (-round(divergence[layer], 9), layer))[: int(count)]
            if most:
                found.append((f"{len(most)} most divergent by CKA", tuple(sorted(most))))
        else:
            try:
                layers = tuple(sorted({int(part) for part in word.split(",")}))
            except ValueError as error:
                raise InterpError(
                    f"patch {word!r} is none of auto:3, each, cumulative, none, or a list of layers like 0,5,11."
                ) from error
            outside = [layer for layer in layers if not 0 <= layer < n_layers]
            if outside:
                raise InterpError(f"layer {outside[0]} is outside the model's {n_layers} layers (0 to {n_layers - 1}).")
            found.append(("by hand", layers))
    return found


def build_transplants(
    base: Subject,
    donor: Subject,
    layers: Sequence[tuple[str, tuple[int, ...]]],
    stages: Sequence[Site],
    *,
    maps: Sequence[str],
    map_sites: Sequence[Site],
    weights: bool,
    reverse: bool,
    null: Collection[Site],
) -> list[Transplant]:
    """All transplants of a comparison, each once; what must change nothing says why."""
    transplants = [
        Transplant("donor", tuple(Site("resid_post", layer) for layer in some), chosen=how) for how, some in layers
    ]
    transplants += [Transplant("donor", (site,), chosen="stage") for site in stages]
    if weights and not mix_refusal(base, donor):
        transplants.append(Transplant("weights", (), chosen="stage"))
    transplants += [Transplant(mode, (site,), chosen="fitted without the donor") for site in map_sites for mode in maps]  # type: ignore[arg-type]
    if reverse:
        sweeps = ("each", "cumulative")  # of many transplants, and their reverse says little more
        there = [a for a in transplants if a.mode in ("donor", "weights") and not a.chosen.startswith(sweeps)]
        transplants += [replace(transplant, reverse=True) for transplant in there]
    once: dict[tuple[object, ...], Transplant] = {}
    for transplant in transplants:
        key = (transplant.mode, transplant.sites, transplant.reverse)
        if key in once:
            transplant = replace(once[key], chosen=f"{once[key].chosen}; {transplant.chosen}")
        once[key] = replace(transplant, null=_null(transplant, base, donor, null))
    return list(once.values())


def _null(transplant: Transplant, base: Subject, donor: Subject, null: Collection[Site]) -> str:
    if transplant.mode == "weights":
        mine, theirs = base.mix_weights, donor.mix_weights
        alike = mine is not None and theirs is not None and same_bits(mine, theirs)
        return "both models weigh their layers alike" if alike else ""
    if transplant.sites and all(site in null for site in transplant.sites):
        return "everything up to there is identical in both models, so the donor's activations are the base's own"
    return ""


class FittedMap:
    """Sums over activations of both models, and the maps that follow from them; float64, one site.

    Every map adds something to the base's activation x: the mean difference; that plus a ridge regression of the
    difference on x (so that a strong penalty leaves the mean difference); or it turns x about the mean.
    """

    def __init__(self, width: int) -> None:
        self.n = 0
        self._x, self._y = torch.zeros(2, width, dtype=torch.float64)
        self._xx, self._xy = torch.zeros(2, width, width, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take activations [..., width] of the same clips and positions in both models."""
        x, y = (part.reshape(-1, part.shape[-1]).double().cpu() for part in (x, y))
        if not self.n:  # sums about the first batch's mean: offsets far larger than the spread would eat its digits
            self._at_x, self._at_y = x.mean(0), y.mean(0)
        x, y = x - self._at_x, y - self._at_y
        self.n += len(x)
        self._x = self._x + x.sum(0)
        self._y = self._y + y.sum(0)
        self._xx = self._xx + x.T @ x
        self._xy = self._xy + x.T @ y

    def state(self) -> dict[str, NDArray[Any]]:
        """The sums as arrays, from which `of` goes on to the same digits; there are some, once clips have come."""
        parts = {"at_x": self._at_x, "at_y": self._at_y, "x": self._x, "y": self._y, "xx": self._xx, "xy": self._xy}
        return {"n": np.asarray(self.n), **{name: part.numpy() for name, part in parts.items()}}

    @classmethod
    def of(cls, state: Mapping[str, NDArray[Any]]) -> "FittedMap":
        """The sums that `state` took apart."""
        parts = {name: torch.from_numpy(value) for name, value in state.items() if name != "n"}
        made = cls(len(parts["x"]))
        made.n = int(state["n"])
        made._at_x, made._at_y, made._x, made._y = (parts[name] for name in ("at_x", "at_y", "x", "y"))
        made._xx, made._xy = parts["xx"], parts["xy"]
        return made

    def made(self, mode: str) -> Callable[[Tensor], Tensor]:
        """The map of a mode: [..., width] to the same, in the activation's own dtype."""
        if not self.n:
            raise InterpError("no clip came to fit a map on.")
        mean_x, mean_y = self._x / self.n, self._y / self.n
        centre_x, centre_y = mean_x + self._at_x, mean_y + self._at_y
        eye = torch.eye(len(mean_x), dtype=torch.float64)
        xx = self._xx / self.n - torch.outer(mean_x, mean_x)
        xy = self._xy / self.n - torch.outer(mean_x, mean_y)
        size = float(xx.diagonal().mean())
        if mode == "mean":
            turn = eye
        elif mode == "ridge":
            turn = eye + torch.linalg.solve(xx + max(RIDGE * size, 1e-300) * eye, xy - xx)
        elif mode == "procrustes":
            left, _, right = torch.linalg.svd(xy + max(UNSEEN * size, 1e-300) * eye)
            turn = left @ right
        else:
            raise InterpError(f"unknown map {mode!r} (known: {', '.join(MAPS)}).")

        def apply(value: Tensor) -> Tensor:
            at, by, to = (part.to(value.device) for part in (centre_x, turn, centre_y))
            return ((value.double() - at) @ by + to).to(value.dtype)

        return apply


def edits_of(
    transplant: Transplant,
    given_from: Mapping[Site, Tensor],
    maps: Mapping[tuple[str, Site], Callable[[Tensor], Tensor]],
) -> dict[Site, Callable[[Tensor], Tensor]]:
    """What to do at each site of a transplant's forward pass."""
    if transplant.mode == "weights":
        return {}
    if transplant.mode == "donor":
        return {site: _replaced(given_from[site]) for site in transplant.sites}
    return {site: maps[transplant.mode, site] for site in transplant.sites}


def _replaced(new: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda value: new.to(value.device, value.dtype)


@contextmanager
def with_mix_of(subject: Subject, other: Subject, on: bool) -> Iterator[None]:
    """Inside, a model mixes its layers by the other's weights; it is locked meanwhile, and gets its own back."""
    mine, theirs = subject.mix_weights, other.mix_weights
    if not on or mine is None or theirs is None:
        yield
        return
    with subject.lock:
        own = mine.data
        mine.data = theirs.data.to(own.device, own.dtype, copy=True)
        try:
            yield
        finally:
            mine.data = own
