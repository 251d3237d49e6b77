"""Which neurons of each layer matter for a label: gradient times activation, over one half of the clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.signflip.layers import LayerStates, gradients
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.models.labels import LabelTokens
from interp_core.sinks import Arrays, Sink

CHUNKS = "attribution"


@dataclass(frozen=True, eq=False)
class Attributed:
    """Per layer: scores [n_layers, width], mean |activation|, mean activation, and frames drawn at random, one a clip
    ([n_layers, clips, width])."""

    scores: Tensor
    size: Tensor
    mean: Tensor
    pool: Tensor
    clips: int
    of_target: bool


def attributed_on(
    clips: Sequence[Clip], labels: LabelTokens, target: int, settings: SignflipRequest
) -> tuple[list[Clip], bool]:
    """The clips of the target class, or where there is none all, and whether they are of the class."""
    of_class = [clip for clip in clips if clip.label(settings.task) == labels.labels[target]]
    return of_class or list(clips), bool(of_class)


def attribute(
    reader: ClipReader,
    clips: Sequence[Clip],
    labels: LabelTokens,
    target: int,
    settings: SignflipRequest,
    sink: Sink,
    progress: Callable[[], None],
) -> Attributed:
    """Score the neurons of every layer by gradient times activation of the target's logit, on clips of the target
    class where there are any, else on all. A clip is a chunk."""
    (used, of_class), rng = attributed_on(clips, labels, target, settings), np.random.default_rng(settings.seed)
    sums: dict[str, Tensor] = {}
    pool: list[Tensor] = []
    for number, clip in enumerate(used):
        kept = sink.arrays(CHUNKS, number)
        if kept is None:
            kept = sink.keep_arrays(CHUNKS, number, _of_clip(reader, clip, labels, target, settings, rng))
        else:
            rng.integers(int(kept["frames"]))  # as the clip drew it, so that the next one draws the same
        parts = {name: torch.from_numpy(np.array(value)) for name, value in kept.items() if name != "frames"}
        pool.append(parts.pop("drawn"))
        sums = {name: sums[name] + part for name, part in parts.items()} if sums else parts
        progress()
    n = len(used)
    return Attributed(sums["scores"] / n, sums["size"] / n, sums["mean"] / n, torch.stack(pool, 1), n, of_class)


def _of_clip(
    reader: ClipReader,
    clip: Clip,
    labels: LabelTokens,
    target: int,
    settings: SignflipRequest,
    rng: np.random.Generator,
) -> Arrays:
    """Scores, mean |activation| and mean activation [n_layers, width], and one frame drawn at random."""
    ready = reader.ready(clip)
    products = gradients(reader, ready, labels, target)
    with torch.inference_mode():
        flow = LayerStates(reader, ready, labels)
        states = torch.stack([flow.frames(state).float().cpu() for state in flow.states])  # [layers, frames, width]
    # The gradient is taken at every position of the recording, also where bands are averaged for measuring.
    scores = torch.stack([(p.abs().sum(0) if settings.reduce == "sum_abs" else p.sum(0).abs()) for p in products])
    drawn = states[:, int(rng.integers(states.shape[1]))]
    parts = {"scores": scores.cpu(), "size": states.abs().mean(1), "mean": states.mean(1), "drawn": drawn}
    return {**{name: part.numpy() for name, part in parts.items()}, "frames": np.asarray(states.shape[1])}
