"""Which moment carries it: each window of the span patched alone at every layer, of one pair and over a pair set.

A window is a patch like any other, so that its rows travel with those of the others through the blocks (`sweep`); in a
causal decoder the recipient's own keys and values stand before it. Pairs differ in length, so over a pair set windows
are laid over each other by their fraction of the span.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.experiments.patching.chunks import patches_of, read_labels, rounded
from interp_core.experiments.patching.plan import Chunk, Plan, check_map, plan_of_pair
from interp_core.experiments.patching.request import Map, PatchRequest
from interp_core.experiments.patching.states import with_means
from interp_core.experiments.patching.windows import shares, windows_of
from interp_core.maths.arrays import Floats
from interp_core.maths.stats import (
    FEWEST_FOR_INTERVAL,
    count_clusters,
    crossed_max_test,
    pigeonhole_interval,
    pigeonhole_weights,
)
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep

COLUMNS = [
    *["layer", "window", "start_s", "stop_s", "n", "mean", "low", "high", "p_adjusted"],
    *["flip_to_target_rate_reachable", "reachable_count", "n_clusters", "interval_method", "kind"],
]
TIME: Map = "time"


def run_time_chunk(plan: Plan, store: CleanStore, chunk: Chunk) -> list[dict[str, Any]]:
    """Patch every window of a chunk's pairs alone, pair by pair.

    Returns:
        One record a pair and layer: windows, [n_windows] (start, stop) in seconds of A's recording, and
        patched_logits, [n_windows][n_labels].
    """
    patches, _, donors = patches_of(plan, store, chunk)
    labels, records = plan.labels[chunk.prompt], []
    for pair, patch, clip in zip(chunk.pairs, patches, donors, strict=True):
        assert patch.donor is not None and clip is not None, "a map has a donor"
        windows = windows_of(plan.settings, patch)
        each = [window.of(patch) for window in windows]
        found = sweep(store.subject, each, labels, plan.spec, method=plan.settings.method)
        (base, _), (donor, _) = (read_labels(labels, run.logits) for run in (patch.recipient, patch.donor))
        for at, layer in enumerate(plan.spec.layers):
            records.append(
                {
                    "kind": chunk.kind,
                    "prompt": chunk.prompt,
                    "alpha": chunk.alpha,
                    "condition": chunk.condition,
                    "pair_id": pair.pair_id,
                    "layer": layer,
                    "recipient": pair.recipient.clip_id,
                    "donor": clip.clip_id,
                    "target": pair.target,
                    "base_prediction": labels.labels[int(np.argmax(base))],
                    "donor_prediction": labels.labels[int(np.argmax(donor))],
                    "base_logits": base,
                    "donor_logits": donor,
                    "windows": [[round(edge, 4) for edge in window.seconds] for window in windows],
                    "patched_logits": [rounded(logits) for logits in found.label_logits[:, at].numpy()],
                    "methods": list(found.methods),
                }
            )
    return records


def map_of_pair(
    store: CleanStore,
    pair: Pair,
    settings: PatchRequest,
    *,
    prompt: int = 0,
    alpha: float = 1.0,
    clips: Sequence[Clip] = (),
) -> list[dict[str, Any]]:
    """The records of one pair by hand, one a layer, as of `run_time_chunk`; class means are taken of `clips`."""
    made = plan_of_pair(store.subject, pair, replace(settings, maps=(TIME,), alphas=(alpha,)), prompt, clips)
    check_map(store.subject, made.settings, TIME)
    made = with_means(made, store, prompts=(prompt,))
    return run_time_chunk(made, store, Chunk(0, pair.kind, prompt, alpha, "matched", (pair,), TIME))


def effects(record: Mapping[str, Any], labels: Sequence[str]) -> tuple[Floats, np.ndarray]:
    """What the windows of one record did.

    Returns:
        [n_windows] change of the target's log-probability among the labels, patched minus base, nats; and whether the
        answer flips to the target.
    """
    target, base = list(labels).index(record["target"]), np.asarray(record["base_logits"], np.float64)
    patched = np.asarray(record["patched_logits"], np.float64)  # [n_windows, n_labels]
    change = log_softmax(patched, axis=-1)[:, target] - log_softmax(base)[target]
    return change, (patched.argmax(-1) == target) & (base.argmax() != target)


def pair_map(records: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Floats:
    """[n_layers, n_windows] `effects` of one pair's records, in their order."""
    return np.stack([effects(record, labels)[0] for record in records])


def summarise_time(
    records: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    clusters: Mapping[str, str],
    *,
    tolerance: float = 1e-4,
    draws: int = 2000,
    seed: int = 42,
    cluster_column: str = "text_id",
) -> pd.DataFrame:
    """The mean map of every kind of pair.

    Args:
        records: of `run_time_chunk`, conditions matched and, for the test, random.
        labels: the label words that compete.
        clusters: clip_id -> unit that was sampled (see `cluster_map`).
        tolerance: a difference of two log-probabilities under this share of the largest logit is none; see
            `checks.TOLERANCE`.
        draws, seed, cluster_column: of the pigeonhole bootstrap, as in `metrics.summarise`.
    Returns:
        COLUMNS, one row a kind, layer and window of the grid, which has as many windows as the median pair. start_s and
        stop_s: where it is in A on average. mean, low, high: change of the target's log-probability, nats; a pair
        with other windows stands in a cell with those that lie in it, by their share. No interval under 10 clusters.
        `p_adjusted`: `crossed_max_test` over all cells of matched minus random, over pairs that have both; NaN
        where it cannot be done, and `interval_method` says why.
    """
    tables = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        of_kind = [record for record in records if record["kind"] == kind]
        matched = _Grid([r for r in of_kind if r["condition"] == "matched"], labels)
        random = [r for r in of_kind if r["condition"] == "random"]
        table = _summary(matched, clusters, draws, seed, cluster_column)
        p, note = _significance(matched, _Grid(random, labels, matched.cells), clusters, tolerance) if random else (
            None, "no random donor to test against",
        )  # fmt: skip
        table["p_adjusted"] = np.nan if p is None else p
        table["interval_method"] += f"; p: {note}"
        tables.append(table.assign(kind=kind)[COLUMNS])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


class _Grid:
    """Maps of pairs laid over each other.

    Attributes:
        pairs: pair_id -> its first record. layers; cells: windows of the grid.
        change, flips: [n_pairs, n_layers * cells]. edges: [n_pairs, cells + 1] seconds.
        largest: [n_pairs] of all logits, absolute.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], labels: Sequence[str], cells: int = 0) -> None:
        by_pair: dict[str, dict[int, Mapping[str, Any]]] = {}
        for record in records:
            by_pair.setdefault(record["pair_id"], {})[record["layer"]] = record
        self.layers = sorted({record["layer"] for record in records})
        self.pairs = {pair_id: next(iter(rows.values())) for pair_id, rows in by_pair.items()}
        self.cells = cells or round(float(np.median([len(r["windows"]) for r in self.pairs.values()])))
        change, flips, edges, largest = [], [], [], []
        for rows in by_pair.values():
            found = [effects(rows[layer], labels) for layer in self.layers]
            windows = np.asarray(rows[self.layers[0]]["windows"])  # [n_windows, 2]
            into = shares(self.cells, len(windows))
            change.append(np.concatenate([into @ each for each, _ in found]))
            flips.append(np.concatenate([into @ each for _, each in found]))
            own = np.append(windows[:, 0], windows[-1, 1])
            edges.append(np.interp(np.linspace(0, 1, self.cells + 1), np.linspace(0, 1, len(own)), own))
            largest.append(max(np.abs(np.asarray(rows[layer]["patched_logits"])).max() for layer in self.layers))
        self.change, self.flips = np.stack(change), np.stack(flips)
        self.edges, self.largest = np.stack(edges), np.asarray(largest)

    def clusters(self, side: str, clusters: Mapping[str, str]) -> list[str]:
        return [clusters[record[side]] for record in self.pairs.values()]


def _summary(grid: _Grid, clusters: Mapping[str, str], draws: int, seed: int, column: str) -> pd.DataFrame:
    sides = grid.clusters("recipient", clusters), grid.clusters("donor", clusters)
    weights = pigeonhole_weights(*sides, draws=draws, seed=seed)
    n_clusters = int(count_clusters(*sides)[0])
    found = pigeonhole_interval(grid.change, weights, n_clusters=n_clusters)
    reachable = np.array(
        [r["base_prediction"] != r["target"] == r["donor_prediction"] for r in grid.pairs.values()], bool
    )
    n, layers = len(grid.pairs), np.repeat(grid.layers, grid.cells)
    rate = grid.flips[reachable].mean(axis=0) if reachable.any() else np.full(len(layers), np.nan)
    said = found.method if n_clusters < FEWEST_FOR_INTERVAL else f"pigeonhole bootstrap over {column}, {draws} draws"
    others = sum(len(record["windows"]) != grid.cells for record in grid.pairs.values())
    if others:
        said += f"; {others} of {n} pairs have other windows than {grid.cells}, laid over these by share"
    return pd.DataFrame(
        {
            "layer": layers,
            "window": np.tile(np.arange(grid.cells), len(grid.layers)),
            "start_s": np.tile(grid.edges.mean(axis=0)[:-1], len(grid.layers)),
            "stop_s": np.tile(grid.edges.mean(axis=0)[1:], len(grid.layers)),
            "n": n,
            "mean": grid.change.mean(axis=0),
            "low": found.low,
            "high": found.high,
            "flip_to_target_rate_reachable": rate,
            "reachable_count": int(reachable.sum()),
            "n_clusters": n_clusters,
            "interval_method": said,
        }
    )


def _significance(
    matched: _Grid, random: _Grid, clusters: Mapping[str, str], tolerance: float
) -> tuple[Floats | None, str]:
    ids = [pair_id for pair_id in matched.pairs if pair_id in random.pairs]
    if not ids:
        return None, "no pair has a random donor"
    ours, control = (np.array([list(grid.pairs).index(pair_id) for pair_id in ids]) for grid in (matched, random))
    difference = matched.change[ours] - random.change[control]
    # What the routes may differ by is no effect, however alike it is from pair to pair.
    allowed = tolerance * np.maximum(1.0, np.maximum(matched.largest[ours], random.largest[control]))
    difference[np.abs(difference) <= allowed[:, None]] = 0
    of_pairs = [matched.pairs[pair_id] for pair_id in ids]
    sides = {
        "recipient": [clusters[record["recipient"]] for record in of_pairs],
        "donor": [clusters[record["donor"]] for record in of_pairs],
        "random donor": [clusters[random.pairs[pair_id]["donor"]] for pair_id in ids],
    }
    test = crossed_max_test(difference, sides)
    return test.adjusted_p, test.method.replace("over layers", "over layers and windows")
