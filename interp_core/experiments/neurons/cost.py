"""What an ablation will take: a pass of every clip, the edited copies of those that are measured, and the refits."""

import numpy as np

from interp_core.experiments.clips import pooled
from interp_core.experiments.cost import WAY_BACK, Cost, in_words, like_states, pass_seconds, ready_seconds, timed
from interp_core.experiments.downstream import GRADIENT_FEW, ROWS, columns_of, modules_behind
from interp_core.experiments.neurons.plan import AblationPlan, draws_of
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.scores import LinearProbe
from interp_core.experiments.neurons.sweep import doses
from interp_core.experiments.neurons.words import SETS, clips_in_words
from interp_core.sites import STAGES


def estimate(plan: AblationPlan, request: AblateRequest) -> Cost:
    """Count passes by the route that the site takes; time one of a batch, a probe of the site's width, and a token."""
    reader, site, splits, n = plan.reader, plan.site, plan.splits, len(plan.clips)
    subject, one = reader.subject, reader.ready(plan.clips[0])
    waiting = n * ready_seconds(reader.ready, plan.clips)
    [(_, found)] = pooled(reader.batch(plan.clips, (0,)), [site])
    width = found[site][..., columns_of(subject, site)].shape[1]
    ks = doses(request, width)
    behind_head = modules_behind(subject, site) is not None
    draws = draws_of(request, behind_head)
    sets = 2 * len(ks) + 2 * draws * sum(k > 0 for k in ks)
    erasers = (2 + draws) * request.erase
    measured = sum(plan.clips[i].label(request.task) in plan.labels.labels for i in (*splits.id, *splits.ood))
    waiting += (sets if request.refits else 0) and _refitting(plan, request, width, len(ks))
    passes = float(n)
    if not behind_head:
        blocks = site.kind not in STAGES
        later = (subject.n_layers - site.layer) / subject.n_layers if blocks else 1.0
        # What stands before the site's block comes from a pass of its own, for neurons and for erasers.
        passes += measured * ((sets + erasers) * later + blocks * (1 + request.erase))
        passes += min(GRADIENT_FEW, len(splits.train)) * (1 + len(plan.labels.labels) * WAY_BACK * later)
    spoken, also = clips_in_words(splits, request), f"{sets + erasers} sets"
    if spoken:
        texts, tokens, said = in_words(subject, reader.stem(one), len(spoken), len(SETS), request.words)
        passes, waiting, also = passes + texts, waiting + tokens, f"{also}, {said}"
    each = pass_seconds(reader, plan.clips[0], 1 if behind_head else min(ROWS, sets))
    return Cost(passes, passes * each + waiting, f"{n} clips", also)


def _refitting(plan: AblationPlan, request: AblateRequest, width: int, n_doses: int) -> float:
    """Seconds of the probes that are fitted again, as one takes on noise: for both columns, of the two ranked sets and
    of so many draws of either sort, at every dose; of erasers likewise."""
    x = like_states(len(plan.splits.train), width, request.seed)
    erased = (2 + request.refits) * request.erase
    again = 2 * n_doses + 2 * request.refits * (n_doses - 1) + erased
    seconds = 0.0
    for column in (request.domain, request.task):
        labels = np.asarray([plan.clips[i].label(column) or "" for i in plan.splits.train])
        if len(set(labels[labels != ""].tolist())) > 1:
            seconds += again * timed(lambda labels=labels: LinearProbe(x[labels != ""], labels[labels != ""]))  # type: ignore[misc]
    return seconds
