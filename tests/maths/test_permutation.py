"""Shuffles that keep related clips together, against counting; max-T against a slow loop and its own promise."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from interp_core.errors import InterpError
from interp_core.maths.permutation import max_t_test, shuffled_labels


def test_labels_move_within_mixed_groups_and_whole_groups_exchange_their_one_label():
    codes = np.array([0, 1, 2, 0, 0, 1, 1, 1, 2])
    groups = np.array(["m", "m", "m", "a", "a", "b", "b", "b", "c"])  # m mixed; a, b, c of one label each
    found = shuffled_labels(codes, groups, draws=3000, seed=1)
    assert found.scheme == "labels shuffled within 1 groups and over 3 groups of one label"
    assert (np.sort(found.codes[:, :3], axis=1) == [0, 1, 2]).all()
    wholes = found.codes[:, 3:]
    assert (wholes[:, 0] == wholes[:, 1]).all() and (wholes[:, 2:5] == wholes[:, 2:3]).all()
    assert (np.sort(wholes[:, [0, 2, 5]], axis=1) == [0, 1, 2]).all()
    seen = Counter(map(tuple, found.codes))  # 3! inside times 3! outside, all as likely
    assert len(seen) == 36 and chisquare(list(seen.values())).pvalue > 1e-3


def test_clips_without_groups_exchange_freely_and_a_seed_repeats():
    codes = np.array([0, 0, 1, 1, 2])
    found = shuffled_labels(codes, draws=3000, seed=4)
    assert len(Counter(map(tuple, found.codes))) == 30  # 5! / (2! 2!)
    assert found.scheme == "labels shuffled over 5 clips" and found.n_groups == 5
    np.testing.assert_array_equal(found.codes, shuffled_labels(codes, list("vwxyz"), draws=3000, seed=4).codes)
    assert not np.array_equal(found.codes, shuffled_labels(codes, draws=3000, seed=5).codes)


@pytest.mark.parametrize(
    "codes, groups, testable",
    [
        ([0, 0, 0, 1, 1, 1], None, True),  # 6! / (3! 3!) = 20
        ([0, 0, 0, 0, 1, 1], None, False),  # 15
        ([0, 1] * 5, list("aabbccddee"), True),  # 2 ** 5
        ([0, 1] * 4, list("aabbccdd"), False),
        ([0, 0, 1, 1, 0, 0, 1, 1], list("aabbccdd"), False),  # 4 groups: 6
        ([0, 1, 1, 2, 0, 1, 2], list("aaabbcd"), False),  # 3! / 2! inside a, with 2 in b, with 2 over c, d: 12
        ([0, 1, 2, 2, 0, 1, 2], list("aaabbcd"), True),  # 3! instead: 24
    ],
)
def test_fewer_than_twenty_arrangements_are_not_testable(codes, groups, testable):
    found = shuffled_labels(codes, groups, draws=2000)
    assert found.testable is testable
    assert (len(Counter(map(tuple, found.codes))) >= 20) is testable


def slow_max_t(observed, shuffled):
    """One arrangement and one number at a time."""
    rows = [list(observed), *map(list, shuffled)]
    columns = range(len(observed))
    centres = [sum(row[c] for row in rows) / len(rows) for c in columns]
    spreads = [math.sqrt(sum((row[c] - centres[c]) ** 2 for row in rows) / len(rows)) for c in columns]
    scaled = [[(row[c] - centres[c]) / spreads[c] for c in columns] for row in rows]
    return [sum(max(row) >= scaled[0][c] - 1e-9 for row in scaled) / len(rows) for c in columns]


def test_max_t_agrees_with_a_slow_loop_and_ignores_the_scale_of_every_number():
    rng = np.random.default_rng(0)
    shuffled, observed = rng.exponential(size=(199, 4)), np.array([0.5, 3.0, 6.0, 1.0])
    found = max_t_test(observed, shuffled, n_groups=7, scheme="as you like")
    assert found.adjusted_p == pytest.approx(slow_max_t(observed, shuffled), abs=1e-12)
    weights, shift = np.array([1e-6, 1, 50, 1e6]), np.array([0, 9, -3, 2])
    moved = max_t_test(observed * weights + shift, shuffled * weights + shift, n_groups=7, scheme="")
    np.testing.assert_array_equal(moved.adjusted_p, found.adjusted_p)
    assert (np.sort(found.adjusted_p)[::-1] == found.adjusted_p[np.argsort(observed)]).all()
    said = "studentised permutation max-T, one-sided, 199 draws, as you like"
    assert (found.method, found.n_clusters) == (said, 7)
    alone = max_t_test(observed[:1], shuffled[:, :1], n_groups=7, scheme="")
    assert alone.adjusted_p[0] <= found.adjusted_p[0]


def test_the_smallest_p_counts_the_observed_arrangement_and_a_still_number_gets_one():
    shuffled = np.zeros((99, 2))
    shuffled[:, 1] = 0.5
    found = max_t_test([5.0, np.nextafter(0.5, 1)], shuffled, n_groups=3, scheme="")  # above by rounding alone
    assert found.adjusted_p.tolist() == [0.01, 1.0]
    assert max_t_test([0.0], np.zeros((99, 1)), n_groups=3, scheme="").adjusted_p.tolist() == [1.0]


def test_family_wise_error_is_five_percent_with_nulls_of_different_shape():
    rng = np.random.default_rng(3)
    shapes = np.r_[np.full(10, 0.2), np.full(10, 20.0)]  # ten heavy tails, ten nearly normal
    alarms = plain = 0
    for _ in range(600):
        rows = rng.gamma(shapes, size=(100, 20))
        p = max_t_test(rows[0], rows[1:], n_groups=9, scheme="").adjusted_p
        alarms += p.min() <= 0.05
        plain += np.mean(rows[1:] >= rows[0], axis=0).min() < 0.05
    assert binom.ppf(0.001, 600, 0.05) <= alarms <= binom.ppf(0.999, 600, 0.05)
    assert plain > 300  # control: twenty numbers, each at its own 5 %


def test_what_does_not_fit_is_refused():
    with pytest.raises(InterpError, match="one .n. each"):
        shuffled_labels([0, 1, 1], ["a", "b"])
    with pytest.raises(InterpError, match="NaN"):
        max_t_test([np.nan], [[1.0]], n_groups=1, scheme="")
