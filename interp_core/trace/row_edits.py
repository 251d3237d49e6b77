"""Edits of one row of a batch that need no donor: neurons replaced, and a vector added. See `RowEdit`.

Both go on where the model writes, if asked: there every position that it wrote itself is edited.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from interp_core.sites import Site


@dataclass(frozen=True, eq=False)
class NeuronsReplaced:
    """Some neurons of a site, each replaced by one value or by its negative.

    Attributes:
        site: where.
        neurons: dimensions, counted among `columns`.
        fill: [len(neurons)] what takes their place; None turns their sign.
        inside: [pos] bool, the positions of the prompt at which they are replaced.
        columns: the dimensions of the hooked value that belong to the site: one head's, or all.
    """

    site: Site
    neurons: tuple[int, ...]
    fill: Tensor | None
    inside: Tensor
    columns: slice = field(default_factory=lambda: slice(None))

    goes_on: ClassVar[bool] = True

    def prompt(self, own: Tensor) -> Tensor:
        return self._at(own, self.inside)

    def written(self, own: Tensor) -> Tensor:
        return self._at(own, torch.ones(len(own), dtype=torch.bool))

    def _at(self, own: Tensor, inside: Tensor) -> Tensor:
        own = own.clone()
        rows = inside.nonzero().flatten().to(own.device)
        at = torch.arange(own.shape[-1], device=own.device)[self.columns][list(self.neurons)]
        here = rows[:, None], at[None]
        own[here] = -own[here] if self.fill is None else self.fill.to(own).expand(len(rows), -1)
        return own


@dataclass(frozen=True, eq=False)
class VectorAdded:
    """A vector added to what a layer leaves.

    Attributes:
        layer: from 0.
        vector: [width], its strength in it.
        inside: [pos] bool, the positions of the prompt to which it is added.
    """

    layer: int
    vector: Tensor
    inside: Tensor

    goes_on: ClassVar[bool] = True

    @property
    def site(self) -> Site:
        return Site("resid_post", self.layer)

    def prompt(self, own: Tensor) -> Tensor:
        own = own.clone()
        own[self.inside.to(own.device)] += self.vector.to(own)
        return own

    def written(self, own: Tensor) -> Tensor:
        return own + self.vector.to(own)
