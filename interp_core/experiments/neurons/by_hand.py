"""One clip without the neurons that a run ranked first, answered in words."""

import hashlib

import torch
from torch import Tensor

from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.clips import collect, columns_of
from interp_core.experiments.downstream import fillings
from interp_core.experiments.neurons.experiment import NEURONS, AblationPlan
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.sweep import AblationResult
from interp_core.sites import STAGES
from interp_core.trace.generate import Row, Written, generate
from interp_core.trace.row_edits import NeuronsReplaced


def best_neurons(result: AblationResult, ranked: str, k: int) -> tuple[int, ...]:
    """The K neurons that a run ranked first for the domain or for the task."""
    order = result.scores.sort_values(f"{ranked}_rank")["neuron"]
    return tuple(int(neuron) for neuron in order.iloc[:k])


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
    row = ablated_row(ready.plan, ready.request, clip, neurons)
    own, without = generate(ready.store.subject, [Row(row.prompted), row], n_tokens, during=during)
    return own, without


def check_site(plan: AblationPlan) -> None:
    """Refuse a site at which an edit changes no word."""
    if plan.site.kind in STAGES:
        raise InterpError(
            f"site {plan.site.kind} stands behind the blocks, where no words are written; choose resid_post:LAYER, "
            "mlp_act:LAYER or another site inside the blocks."
        )


def ablated_row(plan: AblationPlan, request: AblateRequest, clip: Clip, neurons: tuple[int, ...]) -> Row:
    """One clip with neurons ablated, ready to be written behind."""
    check_site(plan)
    reader = plan.reader
    ready = reader.ready(clip)
    stem = reader.stem(ready)
    inside, columns = reader.inside(ready, plan.site, stem.n_pos), columns_of(reader.subject, plan.site)
    fill = _fill(plan, request, clip, neurons)
    return Row(stem, (NeuronsReplaced(plan.site, neurons, fill, inside, columns),))


def _fill(plan: AblationPlan, request: AblateRequest, clip: Clip, neurons: tuple[int, ...]) -> Tensor | None:
    """[len(neurons)] what takes their place in a clip, as in the run; None where their sign is turned."""
    if request.kind == "flip":
        return None
    if request.kind == "zero":
        return torch.zeros(len(neurons))
    return _replacement(plan, request, clip)[list(neurons)]


def _replacement(plan: AblationPlan, request: AblateRequest, clip: Clip) -> Tensor:
    """[width] the mean over the training clips, or the training clip that was drawn for a clip; see `fillings`."""
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
