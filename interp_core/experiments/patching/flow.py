"""Where the answer forms: the logit lens along the clean runs, and attention knockout as the necessity test."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.maths.stats import rate_intervals
from interp_core.models.labels import LabelTokens
from interp_core.sinks import MEMORY, Arrays, Sink
from interp_core.trace.clean import logit_lens
from interp_core.trace.knockout import Readers, knockout, windows
from interp_core.trace.store import CleanStore


def lens_table(
    store: CleanStore,
    pairs: Sequence[Pair],
    prompt: str,
    labels: LabelTokens,
    on_clip: Callable[[], None] = lambda: None,
    *,
    sink: Sink = MEMORY,
    first: int = 0,
) -> pd.DataFrame:
    """Read the residual stream at the readout after every layer of the clean runs.

    Args:
        sink: keeps what each clip showed; the clips are its chunks from `first` on.
    Returns:
        One row a kind, run (base = recipient, donor) and layer (-1 = embeddings): n, target_logprob_mean (log-softmax
        over the labels, nats), target_rate (target first among the labels), agree_rate (same label as the model's
        own answer).
    """

    def of_clip(clip: Clip) -> Arrays:
        label_logits, _ = labels.read(logit_lens(store.subject, store.run(clip, prompt)))
        return {"logits": label_logits.cpu().numpy()}

    by_clip = _kept(pairs, sink, "lens", first, of_clip, on_clip)
    if len(by_clip) < len(_clips(pairs)):  # a shard's
        return pd.DataFrame()
    rows = []
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        chosen = [pair for pair in pairs if pair.kind == kind and pair.target in labels.labels]
        target = np.array([labels.labels.index(pair.target) for pair in chosen])
        for run, side in (("base", "recipient"), ("donor", "donor")):
            stack = np.stack([by_clip[getattr(pair, side).clip_id]["logits"] for pair in chosen])
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
    *,
    clusters: Mapping[str, str],
    sink: Sink = MEMORY,
    first: int = 0,
) -> pd.DataFrame:
    """Cut the reading of the audio in every window of `width` layers, over the clips that the pairs use.

    Args:
        clusters: clip_id -> unit that was sampled (see `cluster_map`); intervals go by these.
        sink: keeps what each clip showed; the clips are its chunks from `first` on.
    Returns:
        One row a kind, readers (last, text) and window: layer_from, layer_to (inclusive), n clips, changed_rate with
        its 95 % limits (`rate_intervals`), delta_logprob_base_mean (log-softmax of the base answer over the labels,
        after - before).
    """
    spans = windows(store.subject.n_layers, width)
    found: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    sources: tuple[Readers, ...] = ("last", "text")

    def of_clip(clip: Clip) -> Arrays:
        run = store.run(clip, prompt)
        made = {"base": labels.read(run.logits[None])[0][0].cpu().numpy()}
        return made | {r: knockout(store.subject, run, labels, spans, r)[0].numpy() for r in sources}

    by_clip = _kept(pairs, sink, "knockout", first, of_clip, on_clip)
    if len(by_clip) < len(_clips(pairs)):  # a shard's
        return pd.DataFrame()
    for clip_id, saved in by_clip.items():
        answer = saved["base"].argmax()
        for readers in sources:
            lost = log_softmax(saved[readers], axis=-1)[:, answer] - log_softmax(saved["base"])[answer]
            found[readers, clip_id] = (saved[readers].argmax(-1) != answer, lost)
    rows: list[dict[str, Any]] = []
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        clips = _clips([pair for pair in pairs if pair.kind == kind])
        for readers in sources:
            changed, lost = (np.stack([found[readers, c.clip_id][part] for c in clips]) for part in (0, 1))
            limits, _ = rate_intervals(changed, [clusters[clip.clip_id] for clip in clips])
            for i, (first, stop) in enumerate(spans):
                rows.append(
                    {
                        "kind": kind,
                        "readers": readers,
                        "layer_from": first,
                        "layer_to": stop - 1,
                        "n": len(clips),
                        "changed_rate": float(changed[:, i].mean()),
                        "changed_rate_low": limits.low[i],
                        "changed_rate_high": limits.high[i],
                        "delta_logprob_base_mean": float(lost[:, i].mean()),
                    }
                )
    return pd.DataFrame(rows)


def _kept(
    pairs: Sequence[Pair],
    sink: Sink,
    name: str,
    first: int,
    of_clip: Callable[[Clip], Arrays],
    on_clip: Callable[[], None],
) -> dict[str, Arrays]:
    """What every clip of the pairs showed; those that the sink has are not run again, those it skips left out."""
    found = {}
    for number, clip in enumerate(_clips(pairs), first):
        if sink.skips(number):
            continue
        saved = sink.arrays(name, number)
        found[clip.clip_id] = sink.keep_arrays(name, number, of_clip(clip)) if saved is None else saved
        on_clip()
    return found


def _clips(pairs: Sequence[Pair]) -> list[Clip]:
    by_id = {clip.clip_id: clip for pair in pairs for clip in (pair.recipient, pair.donor)}
    return [by_id[clip_id] for clip_id in sorted(by_id)]
