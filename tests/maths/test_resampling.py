"""The grouped jackknife and the draws within classes, against textbook formulas, loops and their own promises."""

import numpy as np
import pytest
from scipy.stats import t

from interp_core.errors import InterpError
from interp_core.maths.resampling import (
    draws_within_classes,
    grouped_jackknife,
    speakers_in_classes,
    units_in_classes,
)


def leave_out_means(values, codes):
    return [values[codes != code].mean(axis=0) for code in range(codes.max() + 1)]


def test_jackknife_of_a_mean_over_single_values_is_the_t_interval_of_that_mean():
    values = np.random.default_rng(0).normal(size=(25, 2, 3))
    found = grouped_jackknife(values.mean(0), leave_out_means(values, np.arange(25)), [1] * 25)
    reach = t.ppf(0.975, 24) * values.std(axis=0, ddof=1) / 5
    np.testing.assert_allclose(found.low, values.mean(0) - reach)
    np.testing.assert_allclose(found.high, values.mean(0) + reach)
    assert found.method == "delete-a-group jackknife, 25 groups"


def test_groups_of_one_size_give_the_textbook_formula_and_unequal_ones_do_not():
    rng = np.random.default_rng(1)
    deleted, estimate = rng.normal(size=12), 0.3

    def textbook(parts):
        error = np.sqrt(11 / 12 * ((parts - parts.mean()) ** 2).sum())
        return estimate + t.ppf(0.975, 11) * error

    assert grouped_jackknife(estimate, deleted, [7] * 12).high == pytest.approx(textbook(deleted))
    assert abs(grouped_jackknife(estimate, deleted, [7] * 11 + [40]).high - textbook(deleted)) > 1e-3


@pytest.mark.parametrize("sizes", [[4] * 20, [3] * 10 + [6] * 10])
def test_jackknife_over_groups_covers_where_one_over_single_values_does_not(sizes):
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(20), sizes)
    effects = rng.normal(size=(20, 400))[codes] + 0.3 * rng.normal(size=(len(codes), 400))  # 400 data sets, mean 0
    grouped = grouped_jackknife(effects.mean(0), leave_out_means(effects, codes), sizes)
    singles = np.arange(len(codes))
    single = grouped_jackknife(effects.mean(0), leave_out_means(effects, singles), [1] * len(codes))
    covered = np.mean((grouped.low <= 0) & (grouped.high >= 0))
    covered_single = np.mean((single.low <= 0) & (single.high >= 0))
    assert 0.88 <= covered <= 0.985
    assert covered_single < covered - 0.15  # control


def test_an_undefined_deleted_estimate_leaves_no_interval_there_and_few_groups_none_at_all():
    deleted = np.random.default_rng(3).normal(size=(10, 2))
    deleted[4, 1] = np.nan
    found = grouped_jackknife(np.zeros(2), deleted, [3] * 10)
    assert np.isfinite(found.low[0]) and np.isnan(found.low[1]) and np.isnan(found.high[1])
    few = grouped_jackknife(np.zeros(2), deleted[:9], [3] * 9)
    assert np.isnan(few.low).all() and few.method == "no interval: 9 groups, 10 needed"
    with pytest.raises(InterpError, match="sizes"):
        grouped_jackknife(np.zeros(2), deleted, [3] * 9)


def test_speakers_are_drawn_within_their_class_and_all_together_where_one_is_heard_in_both():
    classes, apart = ["spoof", "bonafide", "spoof", "bonafide"], ["s1", "s2", "s1", "s3"]
    codes, counts = speakers_in_classes(classes, apart)
    assert counts == [2, 1] and codes.tolist() == [2, 0, 2, 1]
    codes, counts = speakers_in_classes(classes, ["s1", "s1", "s2", "s3"])
    assert counts == [3] and codes.tolist() == [0, 0, 1, 2]


def test_a_speaker_of_two_classes_is_drawn_apart_in_each_and_every_class_keeps_its_count():
    classes = ["spoof", "bonafide", "spoof", "bonafide", "spoof", "spoof"]
    speakers = ["s1", "s1", "s2", "s3", "s1", "s4"]
    codes, counts = units_in_classes(classes, speakers)
    assert counts == [2, 3]  # bonafide: s1, s3; spoof: s1, s2, s4
    assert codes.tolist() == [2, 0, 3, 1, 2, 4]
    times = draws_within_classes(counts, draws=500, seed=1)
    assert (times[:, :2].sum(1) == 2).all() and (times[:, 2:].sum(1) == 3).all()
    assert abs(np.corrcoef(times[:, 0], times[:, 2])[0, 1]) < 0.15  # speaker s1 here and there
    np.testing.assert_array_equal(times, draws_within_classes(counts, draws=500, seed=1))
    with pytest.raises(InterpError, match="one .n. each"):
        units_in_classes(classes, speakers[:3])
