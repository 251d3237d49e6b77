"""Encoders whose blocks take and leave images: places as positions, of other widths in later blocks."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from interp_core.models.block_model import Place
from interp_core.models.encoders.subject import Encoder
from interp_core.models.prompted import Prompted, Stem
from interp_core.sites import STAGES, Site


@dataclass(eq=False)
class ImageBlocks(Encoder):
    """Blocks of [batch, width, height, breadth], read as rows [batch, pos, width]; no position stands for a time."""

    one_shape: ClassVar[bool] = True
    whole_only: ClassVar[bool] = True
    timed: ClassVar[bool] = False

    def seconds_per_position(self) -> float:
        return 0.0

    def rows_of(self, value: Tensor) -> Tensor:
        return value.flatten(2).transpose(1, 2)

    def locate(self, site: Site) -> Place:
        place = super().locate(site)
        return place if site.kind in STAGES else place._replace(image=True)

    def prompted(self, stem: Stem) -> Prompted:
        image, *rest = stem.args
        return super().prompted(replace(stem, args=(self.rows_of(image), *rest)))

    def lens_refusal(self) -> str | None:
        return "its layers differ in width"

    @property
    def n_heads(self) -> int:
        return 0

    def d_head_at(self, layer: int) -> int:
        return 0
