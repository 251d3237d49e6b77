"""What a sign-flip run will take."""

from collections.abc import Sequence

import torch

from interp_core.data.clips import Clip
from interp_core.data.sampling import halves
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.cost import WAY_BACK, Cost, ready_seconds, timed
from interp_core.experiments.signflip.attribute import Attributed, attributed_on
from interp_core.experiments.signflip.layers import LayerStates, gradients
from interp_core.experiments.signflip.measure import measure_clip
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.models.labels import LabelTokens


def estimate(reader: ClipReader, clips: Sequence[Clip], labels: LabelTokens, request: SignflipRequest) -> Cost:
    """Count the clips of both halves and their copies; time both kinds of work on one clip, one edited layer."""
    n, target = reader.subject.n_layers, labels.labels.index(request.target)
    first, second = halves(clips, request.units, request.seed)
    used, _ = attributed_on(first, labels, target, request)
    layers = tuple(range(n)) if request.layers is None else request.layers
    copies, behind = 1 + request.draws, sum(n - 1 - layer for layer in layers) / n
    # Attributing: a pass there and back, and one for what stands at every layer. Measuring: one, then the copies.
    passes = len(used) * (2 + WAY_BACK) + len(second) * (1 + copies * behind)
    one, middle = reader.ready(second[-1]), layers[len(layers) // 2]
    width = reader.subject.d_model
    nothing = torch.zeros(n, width)
    found = Attributed(nothing, nothing, nothing, nothing[:, None], 1, False)
    sets = [tuple(range(min(width, request.topk or 8)))] * copies

    def measured(some: Sequence[int]) -> None:
        with torch.inference_mode(), reader.subject.lock:
            flow = LayerStates(reader, one, labels, request.batch_size)
            measure_clip(
                flow, second[-1], dict.fromkeys(some, sets), found, dict.fromkeys(some, 0), request, labels, target
            )

    def attributed() -> None:
        gradients(reader, one, labels, target)
        with torch.inference_mode(), reader.subject.lock:
            LayerStates(reader, one, labels)

    unedited, edited = timed(lambda: measured(())), timed(lambda: measured((middle,)))
    # What a copy takes goes with the layers at which it is measured: its own, those behind, and the output.
    places = sum(n - layer + 1 for layer in layers) / (n - middle + 1)
    seconds = len(second) * (unedited + max(0.0, edited - unedited) * places) + len(used) * timed(attributed)
    seconds += (len(used) + len(second)) * ready_seconds(reader.ready, clips)
    return Cost(passes, seconds, f"{len(used)} clips to attribute on, {len(second)} to measure")
