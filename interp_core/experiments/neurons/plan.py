"""What an ablation will do, before it starts."""

from dataclasses import dataclass

from interp_core.data.clips import Clip
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.splits import Splits
from interp_core.models.labels import LabelTokens
from interp_core.sites import Site

DRAWS_BEHIND_HEAD, DRAWS_IN_BLOCKS = 100, 10


@dataclass(frozen=True)
class AblationPlan:
    """What an ablation will do: `clips` are those of the splits, whose rows count among them."""

    clips: tuple[Clip, ...]
    splits: Splits
    reader: ClipReader
    site: Site
    labels: LabelTokens


def draws_of(request: AblateRequest, behind_head: bool) -> int:
    """Random draws of a sort; by default more where no block has to run for them."""
    if request.draws is not None:
        return request.draws
    return DRAWS_BEHIND_HEAD if behind_head else DRAWS_IN_BLOCKS
