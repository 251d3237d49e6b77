"""One clip without the neurons that a run ranked first, answered in words."""

import hashlib

import torch
from torch import Tensor

from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.clips import collect
from interp_core.experiments.downstream import fillings
from interp_core.experiments.neurons.experiment import NEURONS, AblationPlan
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.words import ablated_rows
from interp_core.trace.generate import Row, Written, generate


def answer_without(
    engine: Engine,
    request: AblateRequest,
    clip: Clip,
    neurons: tuple[int, ...],
    *,
    n_tokens: int,
    during: During = "prefill",
) -> tuple[Written, Written]:
    """What a clip is answered in words: as it is, and with neurons of the run's site ablated; see `generate`.

    They are replaced as in the run, at the positions that hold the recording; with `during="all"` at every position
    that is written, too.

    Args:
        request: of the run.
    Raises:
        InterpError: as `generate`; a site behind the blocks, or a clip for which the run drew no other clip.
    """
    ready = NEURONS.prepare(engine, request)
    ready.store.subject.check_writes()
    plan = ready.plan
    (row,) = ablated_rows(plan.reader, plan.site, clip, [neurons], _replacement(plan, ready.request, clip))
    own, without = generate(ready.store.subject, [Row(row.prompted), row], n_tokens, during=during)
    return own, without


def _replacement(plan: AblationPlan, request: AblateRequest, clip: Clip) -> Tensor | None:
    """[width] what takes a neuron's place in a clip, as in the run; None where its sign is turned. See `fillings`."""
    if request.kind == "flip":
        return None
    if request.kind == "zero":
        return torch.zeros_like(_features(plan, [clip])[0])
    train = [plan.clips[i] for i in plan.splits.train]
    if request.kind == "mean":
        names = hashlib.sha256("|".join(one.digest for one in train).encode()).hexdigest()
        key = ("train mean", plan.reader.subject.key, str(plan.site), plan.reader.prompt, names)
        return plan.reader.store.kept(key, lambda: _features(plan, train).mean(0))
    places = {one.clip_id: i for i, one in enumerate(plan.clips)}
    if clip.clip_id not in places:
        raise InterpError(f"clip {clip.clip_id!r} is not one of the run's, so no training clip was drawn for it.")
    rows = torch.arange(len(plan.clips), dtype=torch.float32)[:, None]
    drawn = fillings("resample", rows, plan.splits.train, request.seed)
    assert drawn is not None
    return _features(plan, [plan.clips[int(drawn[places[clip.clip_id], 0])]])[0]


def _features(plan: AblationPlan, clips: list[Clip]) -> Tensor:
    return collect(plan.reader, clips, plan.site, plan.labels).features
