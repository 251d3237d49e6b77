"""Is the top window needed? The window and layer of a pair's map at which B moves A most, masked in A and in B.

A patch from B shows what a window can bring, not that A's own answer needs it there, nor that B's does. So at the same
layer the positions that were replaced are masked in A, and those whose states were put there in B: by the recording's
own mean state (`mean`) and by the states of silence of its length through the same stem (`silence`). How far the answer
moves is compared with random windows of the same length elsewhere in the span that is patched: those that share no
position with the top window, since one that does masks a part of what is to be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.errors import InterpError
from interp_core.experiments.patching.chunks import Step, patches_of, read_labels, records_by_chunk, rounded
from interp_core.experiments.patching.controls import seed_of
from interp_core.experiments.patching.plan import Chunk, Plan
from interp_core.experiments.patching.positions import in_bands, source_frames
from interp_core.experiments.patching.time_map import TIME, pair_map, run_time_chunk
from interp_core.experiments.patching.windows import Span, Window, windows_of
from interp_core.maths.arrays import Floats
from interp_core.maths.stats import (
    FEWEST_FOR_INTERVAL,
    count_clusters,
    pigeonhole_interval,
    pigeonhole_weights,
    wilson,
)
from interp_core.sinks import Sink, recorded
from interp_core.trace.clean import CleanRun
from interp_core.trace.patch import Patch
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep

MASKS = ("mean", "silence")
SIDES = ("recipient", "donor")
RANDOM_WINDOWS = 20
COLUMNS = [
    *["side", "mask", "pairs", "n", "share_more", "low", "high", "top_moved_mean", "random_moved_mean", "rank_mean"],
    *["random_windows", "n_clusters", "interval_method", "kind"],
]


def records_file(kind: str) -> str:
    """The file of a run folder that holds the masks of a kind of pair."""
    return f"time_necessity_records_{kind}.jsonl"


def run_time_maps(
    plan: Plan, store: CleanStore, sink: Sink, step: Step
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of the time map and of the masks of its top windows, those of a shard's chunks in a shard."""
    chunks = [chunk for chunk in plan.map_chunks if chunk.map == TIME]
    masked = [chunk for chunk in chunks if chunk.condition == "matched"]
    for kind in dict.fromkeys(chunk.kind for chunk in masked):
        counts = {
            chunk.number: len(sides_of(plan)) * len(MASKS) * len(chunk.pairs) for chunk in masked if chunk.kind == kind
        }
        sink.expect(records_file(kind), counts)
    windows: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    for chunk, found in records_by_chunk(
        plan, chunks, sink, step, file=lambda chunk: chunk.records_file,
        compute=partial(run_time_chunk, plan, store), said=lambda chunk: f"time map, {chunk.condition} {chunk.kind}",
    ):  # fmt: skip
        windows += found
        if chunk in masked:
            mask = partial(run_masks, plan, store, chunk, found)
            kept = recorded(sink, records_file(chunk.kind), chunk.number, mask)
            masks += [with_side(record) for record in kept]
    return windows, masks


def with_side(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of when windows were masked in the recipient alone, with its side; others as they are."""
    return {"side": SIDES[0], **record}


def sides_of(plan: Plan) -> tuple[str, ...]:
    """Where windows are masked: in both recordings, or in the recipient alone where a mean over clips is the donor."""
    return SIDES if plan.means is None else SIDES[:1]


def run_masks(plan: Plan, store: CleanStore, chunk: Chunk, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mask the top window of every pair of a chunk, and random ones, in A and in B.

    Args:
        found: the chunk's records of `run_time_chunk`.
    Returns:
        One record a pair, side and mask: the top cell (layer, window, seconds in the recording of that side) with its
        effect under the patch, moved (`moved` of the top window), random_moved of the random windows, rank among both
        (1: the top window moves the answer most), and the label logits of all.
    """
    labels, prompt = plan.labels[chunk.prompt], plan.settings.prompts[chunk.prompt]
    records = []
    for pair, patch in zip(chunk.pairs, patches_of(plan, store, chunk)[0], strict=True):
        own = [record for record in found if record["pair_id"] == pair.pair_id]
        windows = windows_of(plan.settings, patch)
        effects = pair_map(own, labels.labels)
        row, column = np.unravel_index(int(effects.argmax()), effects.shape)
        layer = int(own[row]["layer"])
        spec = replace(plan.spec, layers=(layer,))
        for side in sides_of(plan):
            heard = masked_side(side, pair, patch, windows[column])
            # The recipient's are drawn by the name that they had before donors were masked, too.
            drawn = ("random windows", pair.pair_id) if side == "recipient" else ("random windows", side, pair.pair_id)
            tried = [heard.top, *_elsewhere(heard.span, heard.top, seed_of(plan.settings.seed, *drawn))]
            base, _ = read_labels(labels, heard.run.logits)
            for mask in MASKS:
                by = heard.run if mask == "mean" else store.silence(heard.clip, prompt, (plan.spec.kind,))
                masked = [_masked(heard.run, by, window, mask) for window in tried]
                swept = sweep(store.subject, masked, labels, spec, method=plan.settings.method)
                after = swept.label_logits[:, 0].numpy()
                how_far = moved(np.asarray(base), after)
                records.append(
                    {
                        "kind": chunk.kind,
                        "pair_id": pair.pair_id,
                        "recipient": pair.recipient.clip_id,
                        "donor": pair.donor.clip_id,
                        "target": pair.target,
                        "base_prediction": own[0]["base_prediction"],
                        "donor_prediction": own[0]["donor_prediction"],
                        "side": side,
                        "mask": mask,
                        "layer": layer,
                        "window": int(column),
                        "start_s": round(heard.top.seconds[0], 4),
                        "stop_s": round(heard.top.seconds[1], 4),
                        "patched_effect": round(float(effects[row, column]), 5),
                        "moved": round(float(how_far[0]), 5),
                        "random_moved": rounded(how_far[1:]),
                        "random_start_s": [round(window.seconds[0], 4) for window in tried[1:]],
                        "rank": int((how_far[1:] >= how_far[0]).sum()) + 1,
                        "base_logits": base,
                        "masked_logits": [rounded(logits) for logits in after],
                    }
                )
    return records


class MaskedSide(NamedTuple):
    """One recording of a pair: its clean run, the span that a patch replaces or reads, and the top window in it."""

    clip: Clip
    run: CleanRun
    span: Span
    top: Window


def masked_side(side: str, pair: Pair, patch: Patch, window: Window) -> MaskedSide:
    """A window of a patch in the recipient's recording, or in the donor's where its states came from there."""
    if side == "recipient":
        return MaskedSide(pair.recipient, patch.recipient, Span(patch.recipient.prompted, patch), window)
    assert patch.donor is not None, "a map has a donor"
    b = patch.donor.prompted
    frames, of_window = (source_frames(b, source) for source in (patch.source, window.source))
    span = Span(b, in_bands(b, b, torch.arange(*frames), torch.arange(*frames).double(), 1.0))
    return MaskedSide(pair.donor, patch.donor, span, span.window(of_window[0] - frames[0], of_window[1] - frames[0]))


def moved(base: Floats, masked: Floats) -> Floats:
    """How far the answer moves: root mean square change of the label logits, nats, a shift common to all taken out.

    Logits, because the log-probability of an answer that the model is sure of hardly moves before all is lost.

    Args:
        base: [n_labels] logits of the labels. masked: [..., n_labels].
    Returns:
        [...], 0 or more.
    """
    change = masked - base
    return np.sqrt(((change - change.mean(axis=-1, keepdims=True)) ** 2).mean(axis=-1))


def _elsewhere(span: Span, top: Window, seed: int) -> list[Window]:
    """Random windows of the span as long as its top one that share no position with it; all there are, if fewer."""
    length = top.stop - top.first
    starts = [start for start in range(span.frames - length + 1) if abs(start - top.first) >= length]
    drawn = np.random.default_rng(seed).permutation(starts)[:RANDOM_WINDOWS]
    return [span.window(int(start), int(start) + length) for start in sorted(drawn)]


def _masked(a: CleanRun, donor: CleanRun, window: Window, mask: str) -> Patch:
    """A run with a window of its own masked, at full strength."""
    positions = window.positions
    if mask == "mean":
        return Patch(a, a, positions, a.prompted.recording.positions().double(), averaged=True)
    if donor.prompted.n_pos != a.prompted.n_pos or donor.prompted.audio != a.prompted.audio:
        raise InterpError(
            f"silence as long as clip {a.prompted.clip_id!r} takes other positions than the clip "
            f"({donor.prompted.audio} and {a.prompted.audio}), so it cannot mask a window of it."
        )
    return Patch(a, donor, positions, positions.double())


def summarise_masks(
    records: Sequence[Mapping[str, Any]], clusters: Mapping[str, str], *, draws: int = 2000, seed: int = 42,
    cluster_column: str = "text_id",
) -> pd.DataFrame:  # fmt: skip
    """How often the top window moves the answer more than random ones do on average.

    Args:
        records: of `run_masks`. clusters, draws, seed, cluster_column: as in `metrics.summarise`.
    Returns:
        COLUMNS, one row a kind, side, mask and set of pairs (reachable, all): share_more with its 95 % limits
        (pigeonhole; Wilson with n = clusters at exactly 0 or 1; NaN under 10 clusters), the mean of `moved` of top
        windows and of random ones, the mean rank of the top window among itself and the random ones, and how many of
        these there were on average. Pairs whose span has no room for another window are left out: `n` counts those that
        are in.
    """
    rows = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        of_kind = [record for record in records if record["kind"] == kind]
        sides = dict.fromkeys(record["side"] for record in of_kind)
        for side, mask in product(sides, MASKS):
            every = [r for r in of_kind if (r["side"], r["mask"]) == (side, mask) and r["random_moved"]]
            reachable = [r for r in every if r["base_prediction"] != r["target"] == r["donor_prediction"]]
            for pairs, some in (("reachable", reachable), ("all", every)):
                about = {"kind": kind, "side": side, "mask": mask, "pairs": pairs, "n": len(some)}
                rows.append(about | (_shares(some, clusters, draws, seed, cluster_column) if some else {}))
    return pd.DataFrame(rows, columns=COLUMNS)


def _shares(
    records: Sequence[Mapping[str, Any]], clusters: Mapping[str, str], draws: int, seed: int, column: str
) -> dict[str, Any]:
    random = np.array([np.mean(record["random_moved"]) for record in records])
    top = np.array([record["moved"] for record in records])
    more = (top > random).astype(float)
    sides = tuple([clusters[record[side]] for record in records] for side in ("recipient", "donor"))
    n = int(count_clusters(*sides)[0])
    found = pigeonhole_interval(more, pigeonhole_weights(*sides, draws=draws, seed=seed), n_clusters=n)
    low, high, said = float(found.low[0]), float(found.high[0]), found.method
    if n >= FEWEST_FOR_INTERVAL:
        said = f"pigeonhole bootstrap over {column}, {draws} draws"
        if more.mean() in (0.0, 1.0):
            low, high = wilson(int(n * more.mean()), n)
            said = f"Wilson with n = clusters of {column}"
    return {
        "share_more": float(more.mean()),
        "low": low,
        "high": high,
        "top_moved_mean": float(top.mean()),
        "random_moved_mean": float(random.mean()),
        "rank_mean": float(np.mean([record["rank"] for record in records])),
        "random_windows": float(np.mean([len(record["random_moved"]) for record in records])),
        "n_clusters": n,
        "interval_method": said,
    }
