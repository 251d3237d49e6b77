"""A logistic probe as the readout of a checkpoint that has no classifier, fitted on labelled clips."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from interp_core.data.clips import Clip
from interp_core.data.columns import choose_cluster_column, cluster_map
from interp_core.errors import InterpError
from interp_core.maths.linear import fit_logistic
from interp_core.maths.probes import linear_probe
from interp_core.models.probe import Probe
from interp_core.trace.clean import clip_inputs
from interp_core.trace.finite import finite_run
from interp_core.trace.store import CleanStore

STRENGTH = 0.1
"""C of the probe that is used, for features of spread 1; the accuracy that is reported chooses it by itself."""


def fit_probe(
    store: CleanStore,
    clips: Sequence[Clip],
    column: str,
    *,
    seed: int = 42,
    on_clip: Callable[[], None] = lambda: None,
) -> Probe:
    """Fit a multinomial logistic regression on the time mean of the last layer, one row a clip.

    Args:
        store: decodes clips for the model that is probed.
        clips: those with a value in `column` are used; where a `split` column has the value train, only those of it.
        column: what is to be told apart.
        seed: of the cross-validation that scores it.
        on_clip: called after each clip.
    Returns:
        The probe; its report has the balanced accuracy on held-out groups of related clips, or why there is none.
    Raises:
        InterpError: a model that cannot take a probe, no such column, or fewer than two classes in it.
    """
    subject = store.subject
    subject.check_takes_probe()
    used = [clip for clip in clips if clip.label(column) is not None]
    if any(clip.label("split") == "train" for clip in used):
        used = [clip for clip in used if clip.label("split") == "train"]
    labels = [str(clip.label(column)) for clip in used]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        columns = sorted({name for clip in clips for name in clip.labels})
        raise InterpError(
            f"a probe of {column!r} needs two classes or more among the clips, got {', '.join(classes) or 'none'} "
            f"(columns: {', '.join(columns)})."
        )
    rows = []
    for clip in used:
        with torch.inference_mode(), subject.lock:
            inputs = clip_inputs(subject, store.samples(clip), "", clip.clip_id)
            rows.append(finite_run(subject, [clip.clip_id], partial(subject.heard, inputs)).float().cpu())
        on_clip()
    features = torch.cat(rows).double().numpy()
    cluster = choose_cluster_column(used)
    clusters = cluster_map(used, cluster)
    scored = linear_probe(features, labels, np.array([clusters[c.clip_id] for c in used]), draws=0, seed=seed)
    mean, spread = features.mean(0), np.maximum(features.std(0), 1e-8)
    fitted = fit_logistic((features - mean) / spread, labels, strength=STRENGTH)
    weight = fitted.weight / spread
    report = {
        "column": column,
        "clips": len(used),
        "classes": scored.counts,
        "held_out_balanced_accuracy": None if scored.reason else round(scored.accuracy, 4),
        "chance": round(scored.chance, 4),
        "groups": cluster,
        "n_groups": scored.n_groups,
        "reason": scored.reason,
    }
    return Probe(classes, torch.tensor(weight).float(), torch.tensor(fitted.bias - weight @ mean).float(), report)
