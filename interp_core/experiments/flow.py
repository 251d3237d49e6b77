"""Where the answer forms: the logit lens along the clean runs, and attention knockout as the necessity test."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.maths.stats import wilson
from interp_core.models.labels import LabelTokens
from interp_core.trace.clean import logit_lens
from interp_core.trace.knockout import Readers, knockout, windows
from interp_core.trace.store import CleanStore


def lens_table(
    store: CleanStore,
    pairs: Sequence[Pair],
    prompt: str,
    labels: LabelTokens,
    on_clip: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Read the residual stream at the readout after every layer of the clean runs.

    Returns:
        One row a kind, run (base = recipient, donor) and layer (-1 = embeddings): n, target_logprob_mean (log-softmax
        over the labels, nats), target_rate (target first among the labels), agree_rate (same label as the model's
        own answer).
    """
    by_clip: dict[str, np.ndarray] = {}
    for clip in _clips(pairs):
        label_logits, _ = labels.read(logit_lens(store.subject, store.run(clip, prompt)))
        by_clip[clip.clip_id] = label_logits.cpu().numpy()
        on_clip()
    rows = []
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        chosen = [pair for pair in pairs if pair.kind == kind and pair.target in labels.labels]
        target = np.array([labels.labels.index(pair.target) for pair in chosen])
        for run, side in (("base", "recipient"), ("donor", "donor")):
            stack = np.stack([by_clip[getattr(pair, side).clip_id] for pair in chosen])
            logprob = log_softmax(stack, axis=-1)[np.arange(len(chosen)), :, target]
            best = stack.argmax(-1)
            for point in range(stack.shape[1]):
                rows.append(
                    {
                        "kind": kind,
                        "run": run,
                        "layer": point - 1,
                        "n": len(chosen),
                        "target_logprob_mean": float(logprob[:, point].mean()),
                        "target_rate": float((best[:, point] == target).mean()),
                        "agree_rate": float((best[:, point] == best[:, -1]).mean()),
                    }
                )
    return pd.DataFrame(rows)


def knockout_table(
    store: CleanStore,
    pairs: Sequence[Pair],
    prompt: str,
    labels: LabelTokens,
    width: int = 3,
    on_clip: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Cut the reading of the audio in every window of `width` layers, over the clips that the pairs use.

    Returns:
        One row a kind, readers (last, text) and window: layer_from, layer_to (inclusive), n clips, changed_rate with
        its Wilson interval, delta_logprob_base_mean (log-softmax of the base answer over the labels, after - before).
    """
    spans = windows(store.subject.n_layers, width)
    found: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    sources: tuple[Readers, ...] = ("last", "text")
    for clip in _clips(pairs):
        run = store.run(clip, prompt)
        base = labels.read(run.logits[None])[0][0].cpu().numpy()
        answer = base.argmax()
        for readers in sources:
            cut = knockout(store.subject, run, labels, spans, readers)[0].numpy()
            lost = log_softmax(cut, axis=-1)[:, answer] - log_softmax(base)[answer]
            found[readers, clip.clip_id] = (cut.argmax(-1) != answer, lost)
        on_clip()
    rows: list[dict[str, Any]] = []
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        clips = _clips([pair for pair in pairs if pair.kind == kind])
        for readers in sources:
            changed, lost = (np.stack([found[readers, c.clip_id][part] for c in clips]) for part in (0, 1))
            for i, (first, stop) in enumerate(spans):
                low, high = wilson(int(changed[:, i].sum()), len(clips))
                rows.append(
                    {
                        "kind": kind,
                        "readers": readers,
                        "layer_from": first,
                        "layer_to": stop - 1,
                        "n": len(clips),
                        "changed_rate": float(changed[:, i].mean()),
                        "changed_rate_low": low,
                        "changed_rate_high": high,
                        "delta_logprob_base_mean": float(lost[:, i].mean()),
                    }
                )
    return pd.DataFrame(rows)


def _clips(pairs: Sequence[Pair]) -> list[Clip]:
    by_id = {clip.clip_id: clip for pair in pairs for clip in (pair.recipient, pair.donor)}
    return [by_id[clip_id] for clip_id in sorted(by_id)]
