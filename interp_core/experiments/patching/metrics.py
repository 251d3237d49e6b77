"""From patching records to the numbers of a curve: flip rates, logit changes, intervals and significance a layer.

Words (all of them about one pair at one layer; the label words compete only with each other):

- *flips to target*: the base prediction is not the target and the patched one is. A pair that answered the target from
  the start has not flipped, so it counts as no flip in the rate over all pairs and is left out of the eligible rate.
- *eligible*: the base prediction is not the target. *Reachable*: eligible and the donor run itself answers the target.
- *flips from base*: the patched prediction is another one than the base prediction, whichever.
- *logit difference*: target minus base prediction, in nats. Where the two are one label it is 0 whatever the patch
  does, so its mean runs over eligible pairs.

A control repeats the pairs of the matched run with another donor, noise or other positions. It is compared over the
same pairs: where a matched record of the same pair is present, its donor run B says which pairs are reachable and how
far there is to go (`recovered`). `donor_hits_target_rate` alone is about the donor that the control really used.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.maths.stats import (
    FEWEST_FOR_INTERVAL,
    MaxTest,
    count_clusters,
    crossed_max_test,
    pigeonhole_interval,
    pigeonhole_weights,
    wilson,
)

GROUP = ["kind", "prompt", "alpha", "condition"]
RATES = ["flip_to_target_rate", "flip_to_target_rate_eligible", "flip_to_target_rate_reachable", "flip_from_base_rate"]
WITH_INTERVAL = [*RATES, "delta_logit_target_mean", "delta_logprob_target_mean", "delta_logit_diff_mean", "recovered"]
METRIC_COLUMNS = [
    *[*GROUP, "layer", "n", *RATES[:3], "eligible_count", "reachable_count", "donor_hits_target_rate", RATES[3]],
    *["delta_logit_target_mean", "delta_logprob_target_mean", "delta_logit_diff_mean", "recovered", "label_mass_mean"],
    *[f"{name}_{end}" for name in WITH_INTERVAL for end in ("low", "high")],
    *["interval_method", "n_clusters", "p_adjusted"],
]
RECORD_COLUMNS = [
    *[*GROUP, "pair_id", "layer", "recipient", "donor", "target"],
    *["base_prediction", "donor_prediction", "patched_prediction", "base_logits", "donor_logits", "patched_logits"],
    "patched_label_mass",
]
SAME_PAIR = ["kind", "prompt", "pair_id", "recipient", "target"]


def summarise(
    records: pd.DataFrame,
    labels: Sequence[str],
    clusters: Mapping[str, str],
    *,
    draws: int = 2000,
    seed: int = 42,
    cluster_column: str = "text_id",
) -> pd.DataFrame:
    """Metrics of every (kind, prompt, alpha, condition, layer) in the records, one row each, layers ascending.

    Give all conditions at once: controls need the matched records of their pairs, and so does `p_adjusted`.

    Args:
        records: one row a (kind, prompt, alpha, condition, pair, layer), at least RECORD_COLUMNS. Logits are lists of
            len(labels) floats in the order of `labels`; donor, donor_prediction and donor_logits may be None (noise).
        labels: the label words that compete.
        clusters: clip_id -> unit that was sampled (see `cluster_map`).
        draws, seed: of the pigeonhole bootstrap; every group uses the same seed, so no group's interval hangs on which
            others are present.
        cluster_column: what the clusters are, for the method's name.
    Returns:
        METRIC_COLUMNS. Rates in [0, 1], logits in nats; NaN where a number is undefined (no eligible pair, no donor,
        fewer than 10 clusters for an interval, fewer than 6 on a side or no random donor for p), never 0.
        `interval_method` names the interval and the test, or why there is none. A rate of exactly 0 or 1 has a Wilson
        interval with n = the clusters its pairs touch. `p_adjusted` stands in the rows of condition "matched":
        two-sided sign-flip max-t over layers of (flips to target matched - random) over the pairs that are in both,
        the largest of three p: over clusters of recipients, of donors and of random donors.
    Raises:
        InterpError: a missing column, a word outside `labels`, logits of another length or not finite, a clip without
            a cluster, one pair twice in a group and layer.
    """
    missing = [column for column in RECORD_COLUMNS if column not in records]
    if missing and len(records):
        raise InterpError(f"the patching records lack {', '.join(missing)}; expected columns: {RECORD_COLUMNS}.")
    if not len(records):
        return pd.DataFrame(columns=METRIC_COLUMNS)
    rows = _measure(records.reset_index(drop=True), labels, clusters)
    twice = rows.duplicated([*GROUP, "pair_id", "layer"])
    if twice.any():
        first = rows[twice].iloc[0]
        raise InterpError(
            f"pair {first.pair_id!r} stands more than once at layer {first.layer} of condition {first.condition!r} "
            f"({int(twice.sum())} such rows); give each (kind, prompt, alpha, condition, pair, layer) once."
        )
    tests = _significance(rows)
    tables = []
    for key, group in rows.groupby(GROUP, sort=False):
        table = _summarise_group(group, draws, seed, cluster_column)
        for column in GROUP:
            table[column] = group[column].iloc[0]
        table["p_adjusted"] = np.nan
        if table["condition"].iloc[0] == "matched":
            layers, test = tests.get(key[:3], (None, None))
            note = test.method if test else "no random donor to test against"
            if layers is not None and test and test.adjusted_p is not None:
                table["p_adjusted"] = table["layer"].map(dict(zip(layers, test.adjusted_p, strict=True)))
            table["interval_method"] += f"; p: {note}"
        tables.append(table[METRIC_COLUMNS])
    return pd.concat(tables, ignore_index=True)


def base_accuracy(
    records: pd.DataFrame,
    clips: Sequence[Clip],
    labels: Sequence[str],
    columns: Sequence[str] = ("prosody_label", "semantic_label"),
) -> pd.DataFrame:
    """How often the clean runs answer each label column, over the distinct clips of the records.

    Args:
        records: as for `summarise`; clean runs are the base of every recipient and the donor runs of real clips.
        labels: the words that compete; a clip whose label is not one of them is left out of that column.
    Returns:
        One row a (prompt, column): prompt, column, n (clips), accuracy, majority (share of the commonest label among
        them: what a constant answer gets). Columns without any such clip have n 0 and NaN.
    """
    known = {clip.clip_id: clip for clip in clips}
    answers = pd.concat(
        [
            records[["prompt", "recipient", "base_prediction"]].set_axis(["prompt", "clip", "answer"], axis=1),
            records[["prompt", "donor", "donor_prediction"]].set_axis(["prompt", "clip", "answer"], axis=1),
        ]
    ).dropna()
    answers = answers[answers["clip"].isin(known)].drop_duplicates(["prompt", "clip"])
    table = []
    for prompt, answered in answers.groupby("prompt"):
        for column in columns:
            truth = answered["clip"].map(lambda clip_id, column=column: known[clip_id].label(column))
            asked = truth.isin(list(labels))
            right = (answered["answer"] == truth)[asked]
            majority = truth[asked].value_counts(normalize=True).max() if asked.any() else np.nan
            table.append((prompt, column, int(asked.sum()), right.mean() if asked.any() else np.nan, majority))
    return pd.DataFrame(table, columns=["prompt", "column", "n", "accuracy", "majority"])


def _measure(records: pd.DataFrame, labels: Sequence[str], clusters: Mapping[str, str]) -> pd.DataFrame:
    """One row a record: who flipped, who could have, by how much, and the clusters of both clips."""
    target, base = _indices(records, "target", labels), _indices(records, "base_prediction", labels)
    patched, donor = _indices(records, "patched_prediction", labels), _indices(records, "donor_prediction", labels)
    base_logits, patched_logits = _logits(records, "base_logits", labels), _logits(records, "patched_logits", labels)
    donor_logits = _logits(records, "donor_logits", labels)
    each = np.arange(len(records))
    goal = _matched_rows(records)  # the row whose donor run says what is reachable

    def difference(logits: NDArray) -> NDArray:
        return logits[each, target] - logits[each, base]

    recipient_cluster, donor_cluster = _clusters_of(records, clusters)
    eligible = base != target
    return records[[*GROUP, "pair_id", "layer"]].assign(
        recipient_cluster=recipient_cluster,
        donor_cluster=donor_cluster,
        flip_to_target=eligible & (patched == target),
        flip_from_base=patched != base,
        eligible=eligible,
        reachable=eligible & (donor[goal] == target),
        donor_hits=np.where(donor < 0, np.nan, donor == target),
        logit=(patched_logits - base_logits)[each, target],
        logprob=(log_softmax(patched_logits, axis=1) - log_softmax(base_logits, axis=1))[each, target],
        diff=difference(patched_logits) - difference(base_logits),
        gap=difference(donor_logits[goal]) - difference(base_logits),
        mass=records["patched_label_mass"].astype(float),
    )


def _summarise_group(group: pd.DataFrame, draws: int, seed: int, cluster_column: str) -> pd.DataFrame:
    """The metrics and intervals of one condition, one row a layer; without the group's own columns and p."""
    pairs = group.drop_duplicates("pair_id")
    layers = np.sort(group["layer"].unique())
    at = pd.Index(pairs["pair_id"]).get_indexer(pd.Index(group["pair_id"])), np.searchsorted(layers, group["layer"])

    def grid(column: str, where: NDArray | None = None) -> NDArray:
        """[n_pairs, n_layers] of a column, 0 where the pair lacks the layer or does not count."""
        filled = np.zeros((len(pairs), len(layers)))
        filled[at] = group[column].to_numpy(float)
        return filled if where is None else np.where(where, filled, 0.0)

    present = np.zeros((len(pairs), len(layers)), bool)
    present[at] = True
    eligible, reachable = grid("eligible") > 0, grid("reachable") > 0
    gap_known = reachable & np.isfinite(grid("gap"))
    over_pairs = {  # name: the column that is averaged, and over which pairs
        "flip_to_target_rate": ("flip_to_target", present),
        "flip_to_target_rate_eligible": ("flip_to_target", eligible),
        "flip_to_target_rate_reachable": ("flip_to_target", reachable),
        "flip_from_base_rate": ("flip_from_base", present),
        "delta_logit_target_mean": ("logit", present),
        "delta_logprob_target_mean": ("logprob", present),
        "delta_logit_diff_mean": ("diff", eligible),
        "recovered": ("diff", gap_known),
    }
    sides = pairs["recipient_cluster"].tolist(), pairs["donor_cluster"].tolist()
    weights = pigeonhole_weights(*sides, draws=draws, seed=seed)
    n_clusters = count_clusters(*sides, present)
    table: dict[str, NDArray] = {"layer": layers, "n": present.sum(axis=0), "n_clusters": n_clusters}
    table["eligible_count"], table["reachable_count"] = eligible.sum(axis=0), reachable.sum(axis=0)
    hits, mass = grid("donor_hits"), grid("mass")
    table["donor_hits_target_rate"] = _ratio(np.where(np.isfinite(hits), hits, 0), present & np.isfinite(hits))
    table["label_mass_mean"] = _ratio(np.where(np.isfinite(mass), mass, 0), present & np.isfinite(mass))
    notes: list[dict[str, list[str]]] = [{"wilson": [], "few": []} for _ in layers]
    for name, (column, support) in over_pairs.items():
        top = grid(column, support)
        bottom = grid("gap", support) if name == "recovered" else support.astype(float)
        units = count_clusters(*sides, support)
        found = pigeonhole_interval(top, weights, n_clusters=units, denominators=bottom)
        value, low, high = _ratio(top, bottom), found.low, found.high
        for i in np.flatnonzero(np.isfinite(value)):
            if units[i] < FEWEST_FOR_INTERVAL:
                notes[i]["few"].append(f"{name} ({units[i]})")
            elif name in RATES and value[i] in (0.0, 1.0):
                low[i], high[i] = wilson(int(units[i] * value[i]), int(units[i]))
                notes[i]["wilson"].append(name)
        table[name], table[f"{name}_low"], table[f"{name}_high"] = value, low, high
    methods = [_method(note, int(n), draws, cluster_column) for note, n in zip(notes, n_clusters, strict=True)]
    return pd.DataFrame(table).assign(interval_method=methods)


def _method(note: dict[str, list[str]], n_clusters: int, draws: int, column: str) -> str:
    """Which interval a row has, which of its rates have Wilson's, and which have none for want of clusters."""
    if n_clusters < FEWEST_FOR_INTERVAL:
        return f"no interval: {n_clusters} {column} clusters, {FEWEST_FOR_INTERVAL} needed"
    parts = [f"pigeonhole bootstrap over {column}, {draws} draws"]
    if note["wilson"]:
        parts.append(f"Wilson with n = clusters: {', '.join(note['wilson'])}")
    if note["few"]:
        parts.append(f"no interval under {FEWEST_FOR_INTERVAL} clusters: {', '.join(note['few'])}")
    return "; ".join(parts)


def _significance(rows: pd.DataFrame) -> dict[tuple, tuple[list[int], MaxTest]]:
    """(kind, prompt, alpha) -> its layers and the test of matched against random, over pairs with both at all layers.

    Only layers that both conditions have are tested.
    """
    found = {}
    both = rows[rows["condition"].isin(["matched", "random"])]
    for key, group in both.groupby(GROUP[:3], sort=False):
        flips = group.assign(flip=group["flip_to_target"].astype(float)).pivot_table(
            index="pair_id", columns=["condition", "layer"], values="flip", sort=False
        )
        if len(flips.columns.unique("condition")) < 2:
            continue
        matched, random = flips["matched"], flips["random"]
        layers = sorted(set(matched.columns) & set(random.columns))
        difference = (matched[layers] - random[layers]).dropna()
        pairs = group.drop_duplicates(["condition", "pair_id"]).set_index(["condition", "pair_id"])
        ours, control = (pairs.loc[condition].loc[difference.index] for condition in ("matched", "random"))
        sides = {
            "recipient": ours["recipient_cluster"].tolist(),
            "donor": ours["donor_cluster"].tolist(),
            "random donor": control["donor_cluster"].tolist(),
        }
        found[key] = layers, crossed_max_test(difference.to_numpy(float), sides)
    return found


def _matched_rows(records: pd.DataFrame) -> NDArray:
    """For each row the position of a matched row of the same pair and prompt, or its own where there is none."""
    keys = pd.MultiIndex.from_frame(records[SAME_PAIR])
    at = np.flatnonzero(records["condition"] == "matched")
    first = pd.Series(at, index=keys[at])
    found = first[~first.index.duplicated()].reindex(keys).to_numpy(float)
    return np.where(np.isnan(found), np.arange(len(records)), found).astype(int)


def _ratio(top: NDArray, bottom: NDArray) -> NDArray:
    """Sum over sum for each layer, NaN where the lower sum is 0."""
    totals = bottom.sum(axis=0).astype(float)
    return np.divide(top.sum(axis=0), totals, out=np.full(len(totals), np.nan), where=totals != 0)


def _indices(records: pd.DataFrame, column: str, labels: Sequence[str]) -> NDArray:
    """Each row's label as its number in `labels`; -1 for a donor run that does not exist."""
    found = pd.Index(labels).get_indexer(pd.Index(records[column]))
    wrong = (found < 0) & (records[column].notna().to_numpy() | (column != "donor_prediction"))
    if wrong.any():
        words = sorted({repr(word) for word in records[column][wrong]})
        raise InterpError(f"{column} holds {', '.join(words)}, not among the labels {', '.join(labels)}.")
    return found


def _logits(records: pd.DataFrame, column: str, labels: Sequence[str]) -> NDArray:
    """[n_rows, n_labels] in float64; NaN for a donor run that does not exist."""
    empty = [np.nan] * len(labels)
    optional = column == "donor_logits"
    lists = [empty if optional and not isinstance(row, list | tuple | np.ndarray) else row for row in records[column]]
    wrong = [
        i for i, row in enumerate(lists) if not isinstance(row, list | tuple | np.ndarray) or len(row) != len(empty)
    ]
    if not wrong:
        logits = np.asarray(lists, np.float64)
        wrong = [] if optional else np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist()
    if wrong:
        pair, layer = records["pair_id"].iloc[wrong[0]], records["layer"].iloc[wrong[0]]
        raise InterpError(
            f"{column} of pair {pair!r} at layer {layer} is {lists[wrong[0]]!r}; expected {len(labels)} finite "
            f"numbers, one for each of {', '.join(labels)} ({len(wrong)} such rows)."
        )
    return logits


def _clusters_of(records: pd.DataFrame, clusters: Mapping[str, str]) -> tuple[pd.Series, pd.Series]:
    """Recipient's and donor's cluster of each row; where there is no donor clip, the recipient's counts for both."""
    donors = records["donor"].where(records["donor"].notna(), records["recipient"])
    unknown = sorted(set(records["recipient"]).union(donors) - set(clusters))
    if unknown:
        raise InterpError(
            f"no cluster for the clips {', '.join(map(str, unknown))}; give every clip of the records one."
        )
    return records["recipient"].map(clusters), donors.map(clusters)
