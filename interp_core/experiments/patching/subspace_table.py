"""What patches within subspaces did, beside the whole state: rates and changes by layer, with intervals and one p."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from interp_core.experiments.patching.metrics import RECORD_COLUMNS, summarise
from interp_core.maths.draws import FEWEST_DRAWS, draw_rank_test, larger_of
from interp_core.maths.stats import MaxTest, crossed_max_test

MEASURES = ("flip_to_target_rate_reachable", "delta_logprob_target_mean")
ENDS = ("", "_low", "_high")
COLUMNS = [
    *["kind", "condition", "layer", "n", "reachable_count", *(f"{name}{end}" for name in MEASURES for end in ENDS)],
    *["share", "rank", "draws", "fitted_classes", "fitted_clips", "n_clusters", "p_adjusted", "interval_method"],
]
CONDITIONS = ("whole", "subspace", "random")


def summarise_subspace(
    records: Sequence[Mapping[str, Any]],
    matched: pd.DataFrame,
    labels: Sequence[str],
    clusters: Mapping[str, str],
    *,
    tolerance: float = 1e-4,
    draws: int = 2000,
    seed: int = 42,
    cluster_column: str = "text_id",
) -> pd.DataFrame:
    """The whole state, the subspace and random subspaces of each kind of pair, one row a condition and layer.

    Args:
        records: of `run_subspace_chunk`.
        matched: the run's records, of which those of the same pairs, question and strength are the whole state.
        labels, clusters, draws, seed, cluster_column: as in `metrics.summarise`.
        tolerance: a difference of two log-probabilities under this share of the largest logit is none.
    Returns:
        COLUMNS. Rates and changes as in `metrics.summarise`, with its intervals; of random subspaces their mean over
        draws, and in the place of limits the lowest and the highest draw. `share`: of the squared length of B - A
        what is exchanged, mean over pairs. `p_adjusted` (of the subspace), over layers, of the change of the target's
        log-probability: the larger p of its rank among the random subspaces, which are the same for every pair
        (`draw_rank_test`), and of its distance from their mean (`crossed_max_test`); NaN where one cannot be done.
        `fitted_classes` and `fitted_clips` are the fewest of a pair.
    """
    if not records:
        return pd.DataFrame(columns=COLUMNS)
    flat = pd.DataFrame(_flat(records, labels))
    keys = ["kind", "prompt", "alpha", "pair_id", "layer"]
    whole = matched[matched["condition"] == "matched"]
    whole = whole.merge(flat[keys].drop_duplicates(), on=keys)[RECORD_COLUMNS]
    metrics = summarise(
        pd.concat([whole, flat[RECORD_COLUMNS]], ignore_index=True), labels, clusters,
        draws=draws, seed=seed, cluster_column=cluster_column,
    )  # fmt: skip
    shares = flat.groupby(["kind", "condition", "layer"], sort=False)["share"].mean().sort_index()
    tables = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        of_kind = [record for record in records if record["kind"] == kind]
        rows = metrics[metrics["kind"] == kind]
        drawn = [f"draw {number}" for number in range(len(of_kind[0]["random_logits"]))]
        parts = [_part(rows, "matched", "whole", 1.0), _part(rows, "subspace", "subspace", shares[kind, "subspace"])]
        parts.append(_of_draws(rows, drawn, shares[kind]))
        table = pd.concat(parts, ignore_index=True)
        test = _test(of_kind, labels, clusters, tolerance)
        own = table["condition"] == "subspace"
        table["p_adjusted"] = np.nan
        if test.adjusted_p is not None:
            table.loc[own, "p_adjusted"] = test.adjusted_p
        table.loc[own, "interval_method"] += f"; p, against random subspaces: {test.method}"
        first = {"rank": of_kind[0]["rank"], "draws": len(drawn)}
        fewest = {name: min(record[name] for record in of_kind) for name in ("fitted_classes", "fitted_clips")}
        tables.append(table.assign(kind=kind, **first, **fewest)[COLUMNS])
    return pd.concat(tables, ignore_index=True)


def _flat(records: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row a condition: the subspace, and every draw."""
    rows = []
    for record in records:
        ways = [("subspace", record["patched_logits"], record["share"])]
        drawn = zip(record["random_logits"], record["random_share"], strict=True)
        ways += [(f"draw {number}", logits, share) for number, (logits, share) in enumerate(drawn)]
        for condition, logits, share in ways:
            answer = labels[int(np.argmax(logits))]
            said = {"patched_logits": logits, "patched_prediction": answer, "patched_label_mass": np.nan}
            rows.append({**record, **said, "condition": condition, "share": share})
    return rows


def _part(rows: pd.DataFrame, condition: str, name: str, share: Any) -> pd.DataFrame:
    found = rows[rows["condition"] == condition].sort_values("layer").reset_index(drop=True)
    values = share if isinstance(share, float) else share.reindex(found["layer"]).to_numpy()
    method = found["interval_method"].str.partition("; p: ")[0]  # the matched patch's own p is that of the run
    return found.assign(condition=name, share=values, interval_method=method)


def _of_draws(rows: pd.DataFrame, drawn: Sequence[str], shares: pd.Series) -> pd.DataFrame:
    """Mean, lowest and highest of the draws, layer by layer."""
    every = rows[rows["condition"].isin(drawn)]
    by_layer = every.groupby("layer", sort=True)
    table = by_layer[["n", "reachable_count", "n_clusters"]].first().reset_index()
    for name in MEASURES:
        found = by_layer[name].agg(["mean", "min", "max"]).reset_index(drop=True)
        table[name], table[f"{name}_low"], table[f"{name}_high"] = found["mean"], found["min"], found["max"]
    mean = shares[shares.index.get_level_values("condition").isin(drawn)].groupby(level="layer").mean()
    said = f"mean, lowest and highest of {len(drawn)} random subspaces"
    return table.assign(condition="random", share=mean.reindex(table["layer"]).to_numpy(), interval_method=said)


def _test(
    records: Sequence[Mapping[str, Any]], labels: Sequence[str], clusters: Mapping[str, str], tolerance: float
) -> MaxTest:
    layers = sorted({record["layer"] for record in records})
    pairs = list(dict.fromkeys(record["pair_id"] for record in records))
    n_draws, largest = len(records[0]["random_logits"]), 1.0
    said = np.zeros((1 + n_draws, len(pairs), len(layers)))  # the subspace, then the draws
    sides: dict[str, list[str]] = {"recipient": [""] * len(pairs), "donor": [""] * len(pairs)}
    for record in records:
        row, target = pairs.index(record["pair_id"]), list(labels).index(record["target"])
        logits = np.asarray([record["patched_logits"], *record["random_logits"]], np.float64)
        said[:, row, layers.index(record["layer"])] = log_softmax(logits, axis=1)[:, target]
        largest = max(largest, float(np.abs(logits).max()))
        for side in sides:
            sides[side][row] = clusters[record[side]]
    means = said.mean(axis=1)
    over_draws = draw_rank_test(means[0], means[1:], tolerance=tolerance * largest)
    if over_draws.adjusted_p is None:
        return replace(over_draws, method=f"{over_draws.method} (--subspace-draws {FEWEST_DRAWS})")
    difference = said[0] - said[1:].mean(axis=0)
    difference[np.abs(difference) <= tolerance * largest] = 0.0
    return larger_of(crossed_max_test(difference, sides), over_draws)
