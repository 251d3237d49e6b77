"""A logistic probe as the readout of a checkpoint that has no classifier, fitted on labelled clips."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.flips import choose_cluster_column, cluster_map
from interp_core.maths.probes import linear_probe
from interp_core.models.encoders import Encoder
from interp_core.models.probe import Probe
from interp_core.models.subject import Subject
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
    subject = encoder_of(store.subject)
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
            rows.append(subject.heard(subject.model_inputs(store.samples(clip), "")).float().cpu())
        on_clip()
    features = torch.cat(rows).double().numpy()
    cluster = choose_cluster_column(used)
    clusters = cluster_map(used, cluster)
    scored = linear_probe(features, labels, np.array([clusters[c.clip_id] for c in used]), draws=0, seed=seed)
    mean, spread = features.mean(0), np.maximum(features.std(0), 1e-8)
    with threadpool_limits(1, user_api="blas"):
        fitted = LogisticRegression(C=STRENGTH, max_iter=2000).fit((features - mean) / spread, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(classes) == 2:  # one row for two classes: the other's logit is 0
        weight, bias = np.vstack([0 * weight, weight]), np.concatenate([0 * bias, bias])
    weight = weight / spread
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
    return Probe(classes, torch.tensor(weight).float(), torch.tensor(bias - weight @ mean).float(), report)


def with_probe(subject: Subject, probe: Probe) -> Encoder:
    """Return the same model, weights and lock included, with a probe as its readout."""
    return replace(encoder_of(subject), probe=probe)


def encoder_of(subject: Subject) -> Encoder:
    """Return the subject as one that takes a probe; InterpError says why it does not."""
    if not isinstance(subject, Encoder) or subject.parts:
        raise InterpError(f"{subject.name} answers in words, so it takes no probe; leave --probe out.")
    return subject
