"""Ridge probes of numbers against scikit-learn's own pieces, and what chance and memory give them."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp_core.errors import InterpError
from interp_core.maths.resampling import grouped_jackknife, over_folds
from interp_core.maths.ridge import control_r2, ridge_probe, ridge_test, shuffled_values


def related(seed=0, groups=15, takes=4, width=6, effect=1.0):
    """Groups whose clips sound alike, and a number that goes with one direction of the features."""
    rng = np.random.default_rng(seed)
    members = np.repeat(np.arange(groups), takes)
    x = 1.5 * rng.normal(size=(groups, width))[members] + rng.normal(size=(len(members), width))
    return x, effect * x[:, 0] + rng.normal(size=len(members)), members


@pytest.mark.parametrize("width", [6, 200])  # the second has more dimensions than clips
def test_r2_and_predictions_are_those_of_a_scaled_ridge_in_grouped_folds(width):
    x, y, groups = related(width=width)
    kept = np.random.default_rng(3).random(len(x)) < 0.7  # groups of unequal size
    x, y, groups = x[kept] * np.geomspace(1e-3, 1e3, width) + 5, y[kept], groups[kept]
    found = ridge_probe(x, y, groups, ridge=0.3)
    expected = np.empty_like(y)
    splitter = GroupKFold(5, shuffle=True, random_state=42)
    for learn, score in splitter.split(x, groups=groups):  # the penalty hangs on the size of the fold
        one = make_pipeline(StandardScaler(), Ridge(alpha=0.3 * max(len(learn), width)))
        expected[score] = one.fit(x[learn], y[learn]).predict(x[score])
    np.testing.assert_allclose(found.predicted, expected, atol=1e-8)
    assert found.r2 == pytest.approx(r2_score(y, expected), abs=1e-9) and found.n_groups == 15
    sizes = {len(learn) for learn, _ in splitter.split(x, groups=groups)}
    if max(sizes) < width:  # there one penalty serves all folds, and the library's own loop gives the same
        one = make_pipeline(StandardScaler(), Ridge(alpha=0.3 * width))
        np.testing.assert_allclose(found.predicted, cross_val_predict(one, x, y, groups=groups, cv=splitter), atol=1e-8)
    assert ridge_probe(x, y, groups, ridge=3.0).r2 != pytest.approx(found.r2, abs=1e-3)  # control: the penalty matters


def test_a_value_that_is_there_is_read_with_an_interval_and_one_that_is_not_is_not():
    x, y, groups = related(effect=2.0)
    found = ridge_probe(x, y, groups)
    assert found.r2 > 0.6 and found.interval.low[0] < found.r2 < found.interval.high[0]
    assert found.interval.method.startswith("delete-a-group jackknife, 15 groups")
    drawn = np.random.default_rng(1).normal(size=(8, len(x)))
    assert np.mean([ridge_probe(x, nothing, groups).r2 for nothing in drawn]) < 0.02
    told = ridge_test([x, np.random.default_rng(2).normal(size=x.shape)], y, groups, draws=199)
    assert told.adjusted_p[0] == pytest.approx(0.005) and told.adjusted_p[1] > 0.05 and told.n_clusters == 15


def test_where_a_value_belongs_to_a_group_the_interval_holds_and_a_symmetric_one_is_too_narrow():
    seeds = 200
    weights = np.random.default_rng(11).normal(size=8)
    groups, found = np.repeat(np.arange(12), 3), []
    for seed in range(seeds):
        rng = np.random.default_rng([12, seed])
        x = rng.normal(size=(12, 8))[groups] + rng.normal(size=(36, 8))
        y = rng.normal(size=12)[groups] + 1.5 * x @ weights
        one = ridge_probe(x, y, groups, seed=seed)
        without = [r2_score(y[groups != g], one.predicted[groups != g]) for g in range(12)]
        plain = over_folds(grouped_jackknife([one.r2], np.reshape(without, (12, 1)), [3] * 12), 5)
        found.append((one.r2, one.interval.low[0], one.interval.high[0], plain.low[0], plain.high[0]))
    r2, low, high, plain_low, plain_high = np.transpose(found)
    truth = r2.mean()
    missed = ((low > truth) | (high < truth)).sum()
    assert missed <= binom.ppf(0.999, seeds, 0.05)
    assert ((plain_low > truth) | (plain_high < truth)).sum() > 1.3 * missed, "control"
    assert missed >= 4 and (high < 1).all() and ((low < r2) & (r2 < high)).all()


def test_values_without_meaning_are_called_significant_no_oftener_than_said():
    hits = 0
    for seed in range(60):
        x, _, groups = related(seed, groups=12, takes=3)
        rng = np.random.default_rng(1000 + seed)
        y = rng.normal(size=12)[groups] + 0.5 * rng.normal(size=len(groups))  # related, as real values are
        layers = [x, x[:, ::-1] ** 2, rng.normal(size=x.shape)]
        hits += bool((ridge_test(layers, y, groups, draws=99, seed=seed).adjusted_p < 0.05).any())
    assert binom.sf(hits - 1, 60, 0.05) > 0.01, hits


def test_the_control_task_is_learned_by_heart_where_features_tell_groups_apart_and_only_there():
    x, y, groups = related(takes=6)
    known = np.eye(15)[groups] + 0.01 * np.random.default_rng(0).normal(size=(len(groups), 15))
    remembered, said = control_r2(known, y, groups)
    assert remembered > 0.8 and said.startswith("one random value a group, 3 draws")
    assert control_r2(np.random.default_rng(5).normal(size=x.shape), y, groups)[0] < 0.1
    alone, why = control_r2(x, y, np.arange(len(x)))
    assert np.isnan(alone) and "group of its own" in why


def test_shuffled_values_keep_groups_together():
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3])
    values = np.arange(9.0)
    drawn, scheme = shuffled_values(values, groups, draws=200, seed=0)
    assert "over 4 groups of one size, and within them" in scheme
    assert {tuple(sorted(row[:3])) for row in drawn} == {(0, 1, 2), (3, 4, 5)}
    assert {tuple(sorted(row[6:8])) for row in drawn} == {(6, 7)} and set(drawn[:, 8]) == {8}
    assert len({tuple(row[:3]) for row in drawn}) == 12
    alone, _ = shuffled_values(values, np.arange(9), draws=50, seed=0)
    assert len({row[0] for row in alone}) == 9 and (np.sort(alone) == values).all()


def test_what_cannot_be_probed_says_why():
    x, y, groups = related()
    assert ridge_probe(x, np.ones(len(x)), groups).reason == "all 60 clips have one value"
    assert "come from 2 groups, 3 needed" in ridge_probe(x, y, groups > 7).reason
    assert ridge_test([x], np.ones(len(x)), groups).adjusted_p is None
    with pytest.raises(InterpError, match="2 of 60 clips hold a NaN or an infinity in their value, the first at row 3"):
        ridge_probe(x, np.where(np.isin(np.arange(60), (3, 9)), np.nan, y), groups)
    with pytest.raises(InterpError, match=r"must be \[clips, width\]"):
        ridge_probe(x, y[1:], groups)
