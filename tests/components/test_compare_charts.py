"""Figures of a comparison: what is hollow, where intervals stand, and that a click finds its point."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from components.compare import charts
from components.compare.words import table
from interp_core.looks import RUNS

POINTS = ["resid_post.L0", "resid_post.L1", "mixed"]


def cka_rows(**changed):
    rows = pd.DataFrame({
        "base_point": POINTS, "donor_point": POINTS, "unbiased": [1.0, 0.6, np.nan], "unbiased_low": [1.0, 0.5, np.nan],
        "unbiased_high": [1.0, 0.7, np.nan], "n": 40, "reason": ["", "", "x is <b>constant</b>"],
        "interval_method": "delete-a-group jackknife, 12 groups",
    })  # fmt: skip
    return rows.assign(**changed)


def summary_rows():
    return pd.DataFrame({
        "model": ["base", "donor", "layer 0", "mixed"], "mode": ["", "", "donor", "donor"],
        "sites": ["", "", "resid_post.L0", "mixed"], "null": ["", "", "identical", ""], "chosen": "", "notes": "",
        "reverse": False, "n": 40, "eer": [0.2, 0.1, 0.2, 0.12], "eer_low": [0.1, 0.05, 0.1, np.nan],
        "eer_high": [0.3, 0.15, 0.3, np.nan], "eer_difference": [np.nan, -0.1, 0.0, -0.08],
        "eer_difference_low": [np.nan, -0.2, 0.0, np.nan], "eer_difference_high": [np.nan, 0.0, 0.0, np.nan],
        "interval_method": "bootstrap", "score_change_mean": [0, 1.5, 0, 0.4], "recovered": [0, 1, 0, 0.3],
        "forwards_per_clip": [1, 1, 2, 2], "needs_donor": ["no", "", "yes", "yes"],
    })  # fmt: skip


def named(figure, start):
    return next(trace for trace in figure.data if (trace.name or "").startswith(start))


def test_the_diagonal_has_intervals_gaps_with_their_reason_and_a_ring_at_the_selected_point():
    figure = charts.diagonal(cka_rows(), "unbiased", selected="resid_post.L1")
    curve = named(figure, "unbiased CKA (n = 40 clips)")
    assert list(curve.y) == [1.0, 0.6, None]
    assert list(curve.error_y.array[:2]) == pytest.approx([0, 0.1])
    assert [point[0] for point in curve.customdata] == [0, 1, 2]
    assert "x is &lt;b&gt;constant" in curve.text[2] and "95 % interval 0.500 to 0.700" in curve.text[1]
    assert list(named(figure, "selected").x) == [1]
    none = charts.diagonal(cka_rows(unbiased_low=np.nan, unbiased_high=np.nan), "unbiased")
    assert not named(none, "unbiased").error_y.visible and "jackknife" in named(none, "unbiased").text[0]


def test_effects_that_are_null_by_construction_are_hollow_and_say_so():
    rows = summary_rows()[lambda t: t["mode"] == "donor"]
    figure = charts.effect(rows, POINTS, "score_change_mean", "moved", selected="mixed")
    curve = named(figure, "donor's activation")
    assert list(curve.x) == [0, 2] and list(curve.marker.symbol) == ["diamond-open", "diamond"]
    assert "null by construction" in curve.text[0] and "null by" not in curve.text[1]
    assert named(figure, "hollow") is not None


def test_every_model_has_its_own_line_with_base_and_donor_in_their_looks():
    figure = charts.measures(summary_rows(), "eer", selected="mixed")
    by_color = {trace.marker.color: list(trace.y) for trace in figure.data if trace.name != "selected"}
    assert by_color[RUNS["base"].colour] == ["base"] and by_color[RUNS["donor"].colour] == ["donor"]
    transplants = next(trace for trace in figure.data if list(trace.y) == ["layer 0", "mixed"])
    assert [point[0] for point in transplants.customdata] == [2, 3]
    assert "difference -8.00%" in transplants.text[1]


def test_the_det_curve_crosses_its_diagonal_at_the_eer():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(1, 1, 4000), rng.normal(-1, 1, 4000)])
    rows = pd.DataFrame({"model": "base", "score": scores, "label": ["bonafide"] * 4000 + ["spoof"] * 4000})
    figure = charts.det(rows, ["base", "absent"], "bonafide")
    curve = named(figure, "base")
    at = int(np.argmin(np.abs(np.array(curve.x) - np.array(curve.y))))
    assert norm.cdf(curve.x[at]) == pytest.approx(norm.cdf(-1), abs=0.01)  # the closed form for unit normals at +-1
    assert not [trace for trace in figure.data if trace.name == "absent"]


def test_the_result_table_puts_intervals_into_cells_and_leaves_none_out_where_there_is_none():
    shown = table(summary_rows()).set_index("model")
    assert shown.at["donor", "EER, %"] == "10.00 (5.0 to 15.0)"
    assert shown.at["donor", "Δ EER, points"] == "-10.00 (-20.0 to +0.0)"
    assert shown.at["mixed", "EER, %"] == "12.00" and shown.at["base", "Δ EER, points"] == ""
    assert shown.at["layer 0", "notes"].startswith("null: identical")
