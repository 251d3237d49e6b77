"""Metrics of a sweep against tables worked out by hand, and what must not change them."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp_core.data.clips import Clip
from interp_core.data.columns import choose_cluster_column, cluster_map
from interp_core.errors import InterpError
from interp_core.experiments.patching.metrics import METRIC_COLUMNS, RATES, WITH_INTERVAL, base_accuracy, summarise
from interp_core.maths.stats import sign_flip_max_test, wilson

LABELS = ("a", "b", "c")


def record(pair, layer, target, base, donor, patched, condition="matched", **other):
    """One record whose predictions are the largest of the given logits; donor None is a control without a donor."""

    def answer(logits):
        return None if logits is None else LABELS[int(np.argmax(logits))]

    row = dict(kind="prosody", prompt=0, alpha=1.0, condition=condition, site="resid_post", pair_id=f"p{pair}")
    row |= dict(layer=layer, recipient=f"r{pair}", donor=None if donor is None else f"d{pair}", target=target)
    row |= dict(base_prediction=answer(base), donor_prediction=answer(donor), patched_prediction=answer(patched))
    row |= dict(base_logits=base, donor_logits=donor, patched_logits=patched)
    row |= dict(base_label_mass=0.9, patched_label_mass=0.8, span_covered=1.0, method="reference")
    return row | other


# target, base, donor, patched: what happens
FOUR_PAIRS = [
    ("b", [2, 0, 0], [0, 3, 0], [1, 2, 0]),  # reachable, flips; logit of b +2; b - a: -2 -> 1 (+3), donor 3 (gap 5)
    ("c", [1, 0, 0], [0, 0, 1], [1, 0, 0.5]),  # reachable, stays; +.5; c - a: -1 -> -.5 (+.5), donor 1 (gap 2)
    ("a", [1, 0, 0], [5, 0, 0], [0, 1, 0]),  # a from the start: not eligible; leaves it for b; -1
    ("b", [0, 0, 1], [1, 0, 0], [0, 4, 1]),  # eligible, donor says a: not reachable; flips; +4; b - c: -1 -> 3 (+4)
]


def four_pairs(**other):
    return [record(i, 0, *pair, **other) for i, pair in enumerate(FOUR_PAIRS)]


def own_clusters(records):
    return {clip: str(clip) for clip in [*records["recipient"], *records["donor"].dropna()]}


def summary(rows, labels=LABELS, clusters=None, **settings):
    records = pd.DataFrame(rows)
    return summarise(records, labels, clusters or own_clusters(records), **{"draws": 200} | settings)


def test_metrics_of_four_pairs_are_the_ones_worked_out_by_hand():
    table = summary(four_pairs())
    assert list(table.columns) == METRIC_COLUMNS and len(table) == 1
    row = table.iloc[0]
    assert (row["kind"], row["prompt"], row["alpha"], row["condition"], row["layer"]) == (
        *("prosody", 0, 1.0, "matched", 0),
    )
    assert (row["n"], row["eligible_count"], row["reachable_count"], row["n_clusters"]) == (4, 3, 2, 8)
    assert row["flip_to_target_rate"] == 2 / 4
    assert row["flip_to_target_rate_eligible"] == 2 / 3
    assert row["flip_to_target_rate_reachable"] == 1 / 2
    assert row["donor_hits_target_rate"] == 3 / 4
    assert row["flip_from_base_rate"] == 3 / 4
    assert row["delta_logit_target_mean"] == pytest.approx((2 + 0.5 - 1 + 4) / 4)
    assert row["delta_logit_diff_mean"] == pytest.approx((3 + 0.5 + 4) / 3)
    assert row["recovered"] == pytest.approx((3 + 0.5) / (5 + 2))
    assert row["label_mass_mean"] == pytest.approx(0.8)

    def logprob(logits, label):
        return logits[LABELS.index(label)] - math.log(sum(math.exp(value) for value in logits))

    steps = [logprob(patched, target) - logprob(base, target) for target, base, _, patched in FOUR_PAIRS]
    assert row["delta_logprob_target_mean"] == pytest.approx(sum(steps) / 4)


def test_a_shift_common_to_all_labels_moves_the_logit_and_nothing_else():
    plain, shifted = four_pairs(), four_pairs()
    for row, by in zip(shifted, [1.0, -2.0, 3.0, 10.0], strict=True):
        row["patched_logits"] = [value + by for value in row["patched_logits"]]
    before, after = summary(plain).iloc[0], summary(shifted).iloc[0]
    assert after["delta_logit_target_mean"] == pytest.approx(before["delta_logit_target_mean"] + 3.0)
    for name in set(METRIC_COLUMNS) - {"delta_logit_target_mean"}:
        if isinstance(before[name], str) or name.startswith("delta_logit_target_mean"):
            continue
        assert after[name] == pytest.approx(before[name], nan_ok=True), name


def test_order_of_rows_and_of_labels_does_not_matter():
    rows = [record(i, layer, *pair) for layer in (2, -1, 0) for i, pair in enumerate(FOUR_PAIRS)]
    before = summary(rows)
    assert before["layer"].tolist() == [-1, 0, 2]
    pd.testing.assert_frame_equal(before, summary(rows[::-1]))
    turned = [dict(row) for row in rows]
    for row in turned:
        for name in ("base_logits", "donor_logits", "patched_logits"):
            row[name] = row[name][::-1]
    pd.testing.assert_frame_equal(before, summary(turned, labels=LABELS[::-1]))


def test_without_an_eligible_pair_its_numbers_are_undefined_and_not_zero():
    row = summary([record(i, 0, "a", [1, 0, 0], [1, 0, 0], [1, 0, 0]) for i in range(12)]).iloc[0]
    assert (row["n"], row["eligible_count"], row["reachable_count"]) == (12, 0, 0)
    for name in ("flip_to_target_rate_eligible", "flip_to_target_rate_reachable", "recovered", "delta_logit_diff_mean"):
        assert math.isnan(row[name]) and math.isnan(row[f"{name}_low"]) and math.isnan(row[f"{name}_high"])
    assert row["flip_to_target_rate"] == 0  # over all pairs it is defined: nobody flipped
    assert row["flip_to_target_rate_low"] == 0


def test_conditions_prompts_alphas_and_layers_are_apart_and_a_missing_pair_lowers_n_at_its_layer_only():
    rows = four_pairs() + four_pairs(alpha=0.5) + four_pairs(prompt=1) + four_pairs(condition="noise")
    rows += [row | {"layer": 1} for row in four_pairs()[:3]]
    table = summary(rows)
    keys = table[["prompt", "alpha", "condition", "layer", "n"]].values.tolist()
    assert keys == [
        [0, 1.0, "matched", 0, 4],
        [0, 1.0, "matched", 1, 3],
        [0, 0.5, "matched", 0, 4],
        [1, 1.0, "matched", 0, 4],
        [0, 1.0, "noise", 0, 4],
    ]
    assert table["flip_to_target_rate"][1] == 1 / 3


def test_a_control_is_measured_over_the_pairs_that_the_matched_donor_reaches():
    control = [dict(row, condition="random", donor=f"x{i}") for i, row in enumerate(four_pairs())]
    for row in control:  # a random donor never has the target's label: by itself nothing would be reachable
        row["donor_logits"], row["donor_prediction"] = ([9, 0, 0], "a") if row["target"] != "a" else ([0, 9, 0], "b")
    both = summary(four_pairs() + control).set_index("condition")
    matched, random = both.loc["matched"], both.loc["random"]
    for name in ("reachable_count", "flip_to_target_rate_reachable", "recovered"):
        assert random[name] == matched[name]  # the patched logits are the same here, so the numbers must be
    assert matched["donor_hits_target_rate"] == 3 / 4 and random["donor_hits_target_rate"] == 0
    alone = summary(control).iloc[0]
    assert alone["reachable_count"] == 0 and math.isnan(alone["recovered"])  # control: its own donor says otherwise


def test_noise_without_a_donor_clip_is_measured_and_has_no_donor_hits():
    noise = [record(i, 0, t, base, None, patched, "noise") for i, (t, base, _, patched) in enumerate(FOUR_PAIRS)]
    row = summary(four_pairs() + noise).set_index("condition").loc["noise"]
    assert math.isnan(row["donor_hits_target_rate"])
    assert row["reachable_count"] == 2 and row["recovered"] == pytest.approx(0.5) and row["n_clusters"] == 4
    alone = summary(noise).iloc[0]
    assert alone["eligible_count"] == 3 and alone["reachable_count"] == 0 and math.isnan(alone["recovered"])


def many_pairs(n, flips, condition="matched", layer=0, **other):
    """n reachable pairs a -> b in n clusters; pair i flips where flips(i)."""
    stay, go = [1, 0, 0], [0, 1, 0]
    return [record(i, layer, "b", stay, go, go if flips(i) else stay, condition, **other) for i in range(n)]


def one_cluster_a_pair(n):
    return {f"{side}{i}": f"text{i}" for i in range(n) for side in "rd"}


def test_rates_of_exactly_zero_and_one_get_wilson_with_n_clusters_and_others_the_bootstrap():
    rows = many_pairs(30, lambda i: False) + many_pairs(30, lambda i: True, layer=1)
    rows += many_pairs(30, lambda i: i % 5 == 0, layer=2)
    clusters = {clip: f"text{int(clip[1:]) % 15}" for row in rows for clip in (row["recipient"], row["donor"])}
    table = summary(rows, clusters=clusters, draws=2000).set_index("layer")
    assert table["n_clusters"].tolist() == [15, 15, 15]  # 30 pairs, 15 clusters
    for name in RATES:
        assert (table.loc[0, f"{name}_low"], table.loc[0, f"{name}_high"]) == wilson(0, 15)
        assert (table.loc[1, f"{name}_low"], table.loc[1, f"{name}_high"]) == wilson(15, 15)
        assert 0 <= table.loc[2, f"{name}_low"] < 0.2 < table.loc[2, f"{name}_high"] < 1
    assert "pigeonhole bootstrap over text_id, 2000 draws" in table.loc[2, "interval_method"]
    assert "Wilson" not in table.loc[2, "interval_method"]
    assert "Wilson with n = clusters: flip_to_target_rate, " in table.loc[0, "interval_method"]
    assert table.loc[1, "recovered_low"] == table.loc[1, "recovered_high"] == 1  # no rate: every pair recovers all


def test_intervals_repeat_hold_the_value_and_do_not_hang_on_other_groups():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        base, donor, patched = rng.normal(size=(3, 3)).tolist()
        donor[1] += 2  # most donors answer b
        rows.append(record(i, 0, "b", base, donor, patched))
    clusters = {clip: f"s{int(clip[1:]) % 20}" for row in rows for clip in (row["recipient"], row["donor"])}
    table = summary(rows, clusters=clusters, cluster_column="speaker")
    for name in WITH_INTERVAL:
        assert table[f"{name}_low"][0] <= table[name][0] <= table[f"{name}_high"][0]
        assert table[f"{name}_low"][0] < table[f"{name}_high"][0]
    assert "over speaker" in table["interval_method"][0]
    other = [row | {"kind": "semantic"} for row in rows[:20]]
    beside = summary(other + rows, clusters=clusters, cluster_column="speaker")
    pd.testing.assert_frame_equal(table, beside[1:].reset_index(drop=True))
    assert not table["recovered_low"].equals(summary(rows, clusters=clusters, seed=1)["recovered_low"])


def test_under_ten_clusters_no_interval_and_the_reason_for_the_row_or_for_the_rate():
    few = summary(many_pairs(9, lambda i: i < 4), clusters=one_cluster_a_pair(9)).iloc[0]
    assert all(math.isnan(few[f"{name}_low"]) for name in WITH_INTERVAL)
    assert few["interval_method"].startswith("no interval: 9 text_id clusters, 10 needed")
    rows = many_pairs(12, lambda i: i < 4)
    for row in rows[:5]:  # five pairs answer the target from the start: seven clusters are eligible
        row["base_prediction"], row["base_logits"] = "b", [0, 1, 0]
    some = summary(rows, clusters=one_cluster_a_pair(12)).iloc[0]
    assert math.isnan(some["flip_to_target_rate_eligible_low"]) and some["flip_to_target_rate_low"] >= 0
    assert "under 10 clusters: flip_to_target_rate_eligible (7)" in some["interval_method"]


def test_p_is_the_sign_flip_test_of_matched_minus_random_over_the_pairs_in_both():
    rng = np.random.default_rng(1)
    draws = {
        (c, layer): rng.random(24) < rate
        for c, layer, rate in [("m", 0, 0.8), ("m", 1, 0.3), ("r", 0, 0.1), ("r", 1, 0.3)]
    }
    rows = []
    for layer in (0, 1):
        rows += many_pairs(24, lambda i, layer=layer: draws["m", layer][i], layer=layer)
        rows += many_pairs(18, lambda i, layer=layer: draws["r", layer][i], "random", layer=layer)  # six pairs lack it
    for row in rows:
        row["donor"] = row["donor"].replace("d", "x") if row["condition"] == "random" else row["donor"]
    differences = np.stack([draws["m", k][:18].astype(float) - draws["r", k][:18] for k in (0, 1)], axis=1)
    of_side = {}
    for few in "rdx":  # the side with the fewest clusters has the largest p
        texts = {side: 7 if side == few else 12 for side in "rdx"}
        clusters = {f"{side}{i}": f"text{i % n}" for side, n in texts.items() for i in range(24)}
        table = summary(rows, clusters=clusters).set_index(["condition", "layer"])
        apart = [sign_flip_max_test(differences, [f"text{i % n}" for i in range(18)]).adjusted_p for n in (12, 7)]
        of_side[few] = table.loc["matched", "p_adjusted"].tolist()
        assert of_side[few] == np.maximum(*apart).tolist() != apart[0].tolist()
    assert of_side["r"] == of_side["d"] == of_side["x"]
    assert of_side["d"][0] < 0.05 < of_side["d"][1]
    assert table.loc["random", "p_adjusted"].isna().all()
    said = table.loc[("matched", 0), "interval_method"]
    assert "p: studentised sign-flip max-t over layers, two-sided, the larger p of 12 recipient, 12 donor and " in said
    assert said.endswith("7 random donor clusters")


def test_p_counts_no_flip_for_a_pair_that_answered_the_target_from_the_start():
    stays = [record(i, 0, "b", [0, 1, 0], [0, 1, 0], [0, 1, 0]) for i in range(8)]
    leaves = [record(i, 0, "b", [0, 1, 0], [0, 1, 0], [1, 0, 0], "random") for i in range(8)]
    table = summary(stays + leaves)
    assert table["p_adjusted"][0] == 1  # the matched donor moved nothing to the target, so there is no effect
    moved = summary(many_pairs(8, lambda i: True) + many_pairs(8, lambda i: False, "random"))
    assert moved["p_adjusted"][0] == 2 / 2**8  # control: here it did


def test_p_is_undefined_with_the_reason_under_six_clusters_or_without_a_random_donor():
    rows = many_pairs(12, lambda i: True) + many_pairs(12, lambda i: False, "random")
    clusters = {clip: f"text{int(clip[1:]) % 5}" for row in rows for clip in (row["recipient"], row["donor"])}
    five = summary(rows, clusters=clusters).iloc[0]
    assert (
        math.isnan(five["p_adjusted"])
        and "p: not testable: 5 recipient, 5 donor and 5 random" in (five["interval_method"])
    )
    alone = summary(many_pairs(12, lambda i: True)).iloc[0]
    assert math.isnan(alone["p_adjusted"]) and "no random donor" in alone["interval_method"]


def test_no_records_give_an_empty_table_with_all_columns():
    assert list(summarise(pd.DataFrame(), LABELS, {}).columns) == METRIC_COLUMNS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("donor_logits"), "lack donor_logits"),
        (lambda row: row.update(target="joy"), "target holds 'joy'"),
        (lambda row: row.update(patched_prediction=None), "patched_prediction holds None"),
        (lambda row: row.update(base_logits=[1, 2]), "base_logits of pair 'p0' at layer 0 .* expected 3"),
        (lambda row: row.update(patched_logits=[1, None, 0]), "patched_logits of pair 'p0'"),
        (lambda row: row.update(donor="stranger"), "no cluster for the clips stranger"),
    ],
)
def test_broken_records_are_refused_with_the_place(change, message):
    rows = four_pairs()[:1]
    change(rows[0])
    with pytest.raises(InterpError, match=message):
        summary(rows, clusters={"r0": "t", "d0": "t"})


def test_a_pair_that_stands_twice_is_refused():
    with pytest.raises(InterpError, match="'p0' stands more than once at layer 0"):
        summary(four_pairs() + four_pairs()[:1])


def clip(name, **labels):
    return Clip(clip_id=name, path=Path(f"{name}.wav"), labels=labels, digest=name)


def test_speakers_are_the_units_where_there_are_fewer_than_ten_texts():
    nine = [clip(f"c{i}", text_id=f"t{i % 9}", speaker=f"s{i}") for i in range(20)]
    ten = [clip(f"c{i}", text_id=f"t{i % 10}", speaker=f"s{i}") for i in range(20)]
    assert choose_cluster_column(nine) == "speaker"
    assert choose_cluster_column(ten) == "text_id"
    assert choose_cluster_column([clip("c", text_id="t")]) == "text_id"
    assert choose_cluster_column([clip("c")]) == "clip_id"
    assert cluster_map([*nine[:2], clip("x")], "text_id") == {"c0": "t0", "c1": "t1", "x": "clip x"}
    assert cluster_map([clip("x"), clip("y")], "clip_id") == {"x": "clip x", "y": "clip y"}


def test_base_accuracy_counts_every_clip_once_and_leaves_out_labels_that_do_not_compete():
    # r0 answers a, r1 a, r2 a, r3 c; d0 b, d1 c, d2 a, d3 a: each clip in several rows
    rows = [record(i, layer, *pair) for layer in (0, 1) for i, pair in enumerate(FOUR_PAIRS)]
    prosody = dict(r0="a", r1="b", r2="a", r3="c", d0="b", d1="a", d2="zzz", d3="a")
    clips = [clip(name, prosody_label=label) for name, label in prosody.items()]
    table = base_accuracy(pd.DataFrame(rows), clips, LABELS).set_index("column")
    assert table.loc["prosody_label", "n"] == 7  # d2's label is not among the labels
    assert table.loc["prosody_label", "accuracy"] == pytest.approx(5 / 7)  # r0 r2 r3 d0 d3
    assert table.loc["prosody_label", "majority"] == pytest.approx(4 / 7)  # r0 r2 d1 d3
    assert table.loc["semantic_label", "n"] == 0 and math.isnan(table.loc["semantic_label", "accuracy"])
