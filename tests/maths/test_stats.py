"""Clustered intervals and the sign-flip test, against closed forms, slow loops and their own promises."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, norm, ttest_1samp

from interp_core.errors import InterpError
from interp_core.maths.stats import (
    count_clusters,
    crossed_max_test,
    guessing_p,
    pigeonhole_interval,
    pigeonhole_weights,
    rate_intervals,
    ratio_intervals,
    sign_flip_max_test,
    wilson,
)


def names(codes):
    return [f"t{code:02d}" for code in codes]


def test_wilson_agrees_with_its_closed_form_and_is_wide_at_zero_and_one():
    z = 1.959963984540054
    for successes, n in [(0, 12), (3, 17), (17, 17)]:
        rate = successes / n
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        low, high = wilson(successes, n)
        assert low == pytest.approx(centre - half, abs=1e-12)
        assert high == pytest.approx(centre + half, abs=1e-12)
    assert wilson(0, 12)[1] > 0.2 and wilson(12, 12)[0] < 0.8
    assert all(math.isnan(limit) for limit in wilson(0, 0))


def test_clusters_are_counted_once_over_both_sides_and_only_where_a_pair_is_supported():
    recipients, donors = ["a", "a", "b"], ["b", "a", "c"]
    assert count_clusters(recipients, donors).tolist() == [3]
    support = [[True, False, False], [True, True, False], [False, False, False]]
    assert count_clusters(recipients, donors, support).tolist() == [2, 1, 0]
    many = [f"r{i}" for i in range(12)]
    assert count_clusters(many, [f"d{i % 6}" for i in range(12)]).tolist() == [18]
    assert count_clusters(many, [f"d{i % 5}" for i in range(12)]).tolist() == [5], "five donors allow no interval"


def test_pair_weights_multiply_over_two_clusters_and_stay_single_inside_one():
    recipients, donors = ["a", "a", "b", "c", "c"], ["a", "b", "a", "c", "b"]
    weights = pigeonhole_weights(recipients, donors, draws=500, seed=3)
    assert weights.shape == (500, 5)
    a, c = weights[:, 0], weights[:, 3]  # pairs inside one cluster show how often it was drawn
    b = 3 - a - c  # three clusters are drawn each time
    np.testing.assert_array_equal(weights[:, 1], a * b)
    np.testing.assert_array_equal(weights[:, 2], a * b)
    np.testing.assert_array_equal(weights[:, 4], c * b)
    assert a.max() == 3 and (a == 0).any()
    assert not np.array_equal(weights[:, 0], a * a)  # control: squaring inside a cluster is another bootstrap


def test_weights_repeat_with_their_seed_and_do_not_hang_on_the_order_of_the_pairs():
    recipients, donors = names([0, 1, 2, 3, 1]), names([1, 2, 3, 0, 1])
    weights = pigeonhole_weights(recipients, donors, draws=50, seed=1)
    np.testing.assert_array_equal(weights, pigeonhole_weights(recipients, donors, draws=50, seed=1))
    assert not np.array_equal(weights, pigeonhole_weights(recipients, donors, draws=50, seed=2))
    turned = pigeonhole_weights(recipients[::-1], donors[::-1], draws=50, seed=1)
    np.testing.assert_array_equal(turned[:, ::-1], weights)


def slow_limits(top, bottom, weights):
    """Percentiles of the ratio of sums, one draw and one pair at a time."""
    ratios = []
    for draw in weights:
        numerator = denominator = 0.0
        for pair, weight in enumerate(draw):
            numerator += weight * top[pair]
            denominator += weight * bottom[pair]
        if denominator != 0:
            ratios.append(numerator / denominator)
    return np.percentile(ratios, 2.5), np.percentile(ratios, 97.5), len(ratios)


def test_interval_of_a_ratio_agrees_with_the_slow_loop_at_every_layer_and_drops_empty_draws():
    rng = np.random.default_rng(0)
    recipients, donors = names(range(10)), names([*range(1, 10), 0])
    counts = np.zeros((10, 3))
    counts[:, 0], counts[:5, 1], counts[:2, 2] = 1, 1, 1  # a layer on two pairs is empty in most draws
    values = rng.normal(size=(10, 3)) * counts
    weights = pigeonhole_weights(recipients, donors, draws=400, seed=5)
    found = pigeonhole_interval(values, weights, n_clusters=10, denominators=counts)
    for layer in range(3):
        low, high, used = slow_limits(values[:, layer], counts[:, layer], weights)
        assert (found.low[layer], found.high[layer]) == pytest.approx((low, high), abs=1e-12)
    assert used < 400  # the draws that hold neither of the last layer's two pairs
    assert found.method == "pigeonhole bootstrap, 400 draws"


def test_mean_needs_no_denominator_and_scales_and_shifts_with_its_values():
    values = np.random.default_rng(1).normal(size=20)
    weights = pigeonhole_weights(names(range(20)), names(range(20)), draws=300)
    plain = pigeonhole_interval(values, weights, n_clusters=20)
    assert plain.low.shape == (1,) and plain.low[0] < values.mean() < plain.high[0]
    moved = pigeonhole_interval(3 * values + 7, weights, n_clusters=20)
    np.testing.assert_allclose(moved.low, 3 * plain.low + 7)
    np.testing.assert_allclose(moved.high, 3 * plain.high + 7)


def test_fewer_than_ten_clusters_give_no_interval_and_the_reason():
    values, weights = np.ones((12, 2)), pigeonhole_weights(names(range(12)), names(range(12)), draws=20)
    none = pigeonhole_interval(values, weights, n_clusters=9)
    assert np.isnan(none.low).all() and np.isnan(none.high).all()
    assert none.method == "no interval: 9 clusters, 10 needed"
    mixed = pigeonhole_interval(values, weights, n_clusters=[9, 10])
    assert np.isnan(mixed.low[0]) and mixed.low[1] == 1


def test_clustered_interval_covers_its_mean_where_one_over_single_pairs_does_not():
    """24 texts of 6 pairs each that agree with their text: 95 % intervals hold the true mean about as often as said."""
    rng = np.random.default_rng(11)
    clusters = names(np.repeat(range(24), 6))
    singles = names(range(144))
    weights = pigeonhole_weights(clusters, clusters, draws=400)
    naive_weights = pigeonhole_weights(singles, singles, draws=400)
    values = np.repeat(rng.normal(size=(24, 300)), 6, axis=0) + 0.3 * rng.normal(size=(144, 300))  # 300 data sets
    clustered = pigeonhole_interval(values, weights, n_clusters=24)
    naive = pigeonhole_interval(values, naive_weights, n_clusters=144)
    covered = np.mean((clustered.low <= 0) & (clustered.high >= 0))
    covered_naive = np.mean((naive.low <= 0) & (naive.high >= 0))
    assert 0.88 <= covered <= 0.98
    assert covered_naive < 0.7  # control: single pairs as units claim too much


@pytest.mark.parametrize("shared", [False, True])
def test_interval_over_recipients_and_donors_covers_where_recipients_alone_do_not(shared):
    """Values that depend on the donor's cluster as much as on the recipient's (20 clusters, each with each)."""
    rng = np.random.default_rng(4)
    recipients, donors = np.divmod(np.arange(400), 20)
    effects = rng.normal(size=(20, 200))  # 200 data sets
    donor_effects = effects if shared else rng.normal(size=(20, 200))
    values = effects[recipients] + donor_effects[donors]
    # with one population of clusters a draw takes a cluster as recipient and as donor alike
    donor_names = names(donors) if shared else [f"d{code}" for code in donors]
    weights = pigeonhole_weights(names(recipients), donor_names, draws=400)
    both = pigeonhole_interval(values, weights, n_clusters=20)
    one_sided = pigeonhole_interval(
        values, pigeonhole_weights(names(recipients), names(recipients), draws=400), n_clusters=20
    )
    covered = np.mean((both.low <= 0) & (both.high >= 0))
    covered_one = np.mean((one_sided.low <= 0) & (one_sided.high >= 0))
    assert covered >= 0.87
    assert covered_one < covered - 0.05  # control


def test_values_that_do_not_fit_or_are_not_numbers_are_refused():
    weights = pigeonhole_weights(names(range(4)), names(range(4)), draws=5)
    with pytest.raises(InterpError, match="n_pairs"):
        pigeonhole_interval(np.ones((5, 2)), weights, n_clusters=10)
    with pytest.raises(InterpError, match="NaN"):
        pigeonhole_interval([1.0, np.nan, 1.0, 1.0], weights, n_clusters=10)
    with pytest.raises(InterpError, match="one of each a pair"):
        pigeonhole_weights(["a"], [])
    with pytest.raises(InterpError, match="rows"):
        sign_flip_max_test(np.ones((3, 1)), ["a", "b"])
    with pytest.raises(InterpError, match="NaN"):
        sign_flip_max_test([[np.nan]], ["a"])


def slow_max_test(values, clusters):
    """All sign patterns, a t about the sample mean (not about 0), one cluster at a time."""
    units = sorted(set(clusters))

    def t(signs):
        found = []
        for layer in range(values.shape[1]):
            sums = [
                sign * sum(v for v, c in zip(values[:, layer], clusters, strict=True) if c == unit)
                for sign, unit in zip(signs, units, strict=True)
            ]
            mean = sum(sums) / len(sums)
            spread = math.sqrt(sum((s - mean) ** 2 for s in sums) / (len(sums) - 1) / len(sums))
            found.append(abs(mean) / spread)
        return found

    observed = t([1] * len(units))
    patterns = [max(t(signs)) for signs in itertools.product([1, -1], repeat=len(units))]
    return [sum(largest >= value * (1 - 1e-9) for largest in patterns) / len(patterns) for value in observed]


def test_exact_test_agrees_with_a_slow_loop_that_studentises_about_the_sample_mean():
    rng = np.random.default_rng(8)
    clusters = names(np.repeat(range(7), 3))
    values = rng.normal(size=(21, 3)) + np.array([0.0, 0.4, 0.9])
    found = sign_flip_max_test(values, clusters)
    assert found.adjusted_p == pytest.approx(slow_max_test(values, clusters), abs=1e-12)
    assert "all 128 flips of 7 clusters" in found.method
    drawn = sign_flip_max_test(values, clusters, draws=127)  # one fewer than there are: drawn, with the +1 of itself
    assert drawn.adjusted_p * 128 == pytest.approx(np.round(drawn.adjusted_p * 128))
    assert drawn.adjusted_p == pytest.approx(found.adjusted_p, abs=0.2)


def test_an_effect_without_any_spread_gets_the_smallest_p_and_a_layer_of_zeros_gets_one():
    values = np.zeros((16, 3))
    values[:, 0], values[:, 2] = 1, -1
    found = sign_flip_max_test(values, names(np.repeat(range(8), 2)))
    assert found.adjusted_p.tolist() == [2 / 256, 1, 2 / 256]  # two-sided: all kept, all flipped
    assert found.statistic == pytest.approx([math.sqrt(8), 0, -math.sqrt(8)])


def test_six_clusters_are_testable_and_five_are_not():
    values = np.ones((6, 1))
    assert sign_flip_max_test(values, names(range(6))).adjusted_p.tolist() == [2 / 64]
    five = sign_flip_max_test(values, names([0, 1, 2, 3, 4, 4]))
    assert five.adjusted_p is None and five.method == "not testable: 5 clusters, 6 needed"


def test_p_ignores_scale_sign_and_pair_order_and_grows_with_more_layers():
    rng = np.random.default_rng(5)
    clusters = names(np.repeat(range(20), 2))
    values = rng.normal(size=(40, 4)) + np.array([0.5, 0, 0, 0])
    p = sign_flip_max_test(values, clusters, draws=2000).adjusted_p
    scaled = sign_flip_max_test(-values * np.array([1, 10, 0.1, 3]), clusters, draws=2000).adjusted_p
    np.testing.assert_array_equal(p, scaled)
    order = rng.permutation(40)
    shuffled = sign_flip_max_test(values[order], [clusters[i] for i in order], draws=2000).adjusted_p
    np.testing.assert_allclose(p, shuffled)
    alone = sign_flip_max_test(values[:, :1], clusters, draws=2000).adjusted_p
    assert alone[0] < p[0]


@pytest.mark.parametrize(("n_clusters", "ease"), [(12, 0.5), (30, 2.5)])
def test_rates_and_changes_over_few_clusters_and_near_one_are_covered_where_a_bootstrap_misses(n_clusters, ease):
    rng, missed = np.random.default_rng(8), np.zeros(3)
    truth = norm.cdf(ease / math.sqrt(2))
    for seed in range(200):
        of = rng.permutation(3 * n_clusters) % n_clusters
        hits = (rng.normal(size=n_clusters)[of][:, None] + rng.normal(size=(len(of), 2)) + ease > 0).astype(float)
        own, change = rate_intervals(hits, names(of))
        weights = pigeonhole_weights(names(of), names(of), draws=300, seed=seed)
        drawn = pigeonhole_interval(hits, weights, n_clusters=n_clusters)
        missed += [
            np.mean((own.low > truth) | (own.high < truth)),
            change.low[1] > 0 or change.high[1] < 0,
            np.mean((drawn.low > truth) | (drawn.high < truth)),
        ]
    assert max(missed[:2]) <= binom.ppf(0.999, 200, 0.05)
    assert missed[2] > 1.5 * missed[0]  # control


def test_rate_intervals_of_clips_apart_are_wilsons_and_the_t_interval_of_the_difference():
    rng = np.random.default_rng(9)
    hits = (rng.random((400, 2)) < [0.7, 0.5]).astype(float)
    own, change = rate_intervals(hits, names(range(400)))
    low, high = wilson(int(hits[:, 0].sum()), 400)
    assert (own.low[0], own.high[0]) == pytest.approx((low, high), abs=1e-3)
    expected = ttest_1samp(hits[:, 1] - hits[:, 0], 0).confidence_interval(0.95)
    assert (change.low[1], change.high[1]) == pytest.approx((expected.low, expected.high))
    assert change.low[0] == change.high[0] == 0
    copies = rate_intervals(np.repeat(hits, 5, axis=0), names(np.repeat(range(400), 5)))
    np.testing.assert_allclose(copies[1].low, change.low)  # a clip heard five times is no more than one
    np.testing.assert_allclose(copies[0].low, own.low)
    weighted = rate_intervals(hits[:200], names(range(200)), np.where(np.arange(200) < 100, 1, 2))
    doubled = rate_intervals(np.vstack([hits[:200], hits[100:200]]), names([*range(200), *range(100, 200)]))
    np.testing.assert_allclose(weighted[1].high, doubled[1].high)


def test_a_change_of_a_rate_ends_where_a_change_can():
    hits = np.column_stack([np.ones(30), np.arange(30) < 2, np.zeros(30)])
    rates, change = rate_intervals(np.column_stack([hits, hits[:, ::-1]]), names(np.arange(30) % 15))
    assert change.low[1] == -1.0 < change.high[1] < -0.7
    _, upward = rate_intervals(hits[:, ::-1], names(np.arange(30) % 15))
    assert upward.high[1] < 0.3 and (upward.low[2], upward.high[2]) == pytest.approx((1, 1))
    assert np.all(np.stack([change.low, change.high]) <= 1) and np.all(np.stack([change.low, change.high]) >= -1)


def test_a_rate_of_none_and_of_all_counts_clusters_and_few_clusters_have_no_interval():
    found, _ = rate_intervals(np.tile([0.0, 1.0], (30, 1)), names(np.arange(30) % 12))
    high = 2.201**2 / (12 + 2.201**2)  # Wilson's upper limit of 0 of 12 with Student's t of 11 degrees of freedom
    assert (found.low[0], found.high[0], found.low[1], found.high[1]) == pytest.approx((0, high, 1 - high, 1), abs=1e-3)
    few, change = rate_intervals(np.tile([0.0, 1.0], (30, 1)), names(np.arange(30) % 9))
    assert np.isnan(few.low).all() and few.method == change.method == "no interval: 9 clusters, 10 needed"


def planted(rng, effect):
    """12 texts of 4 pairs, 8 layers that share a text's noise; flips of -1, 0, 1 as the sweep makes them."""
    noise = np.repeat(rng.normal(size=(12, 1, 8)) + rng.normal(size=(12, 1, 1)), 4, axis=1).reshape(48, 8)
    latent = noise + rng.normal(size=(48, 8))
    latent[:, 3] += effect
    return np.sign(latent) * (np.abs(latent) > 0.7)


def test_family_wise_error_is_five_percent_under_the_null_and_a_planted_layer_is_found():
    rng = np.random.default_rng(2)
    clusters, singles = names(np.repeat(range(12), 4)), names(range(48))
    false_alarms = wrong_unit = 0
    for seed in range(300):
        values = planted(rng, 0)
        false_alarms += sign_flip_max_test(values, clusters, draws=500, seed=seed).adjusted_p.min() < 0.05
        wrong_unit += sign_flip_max_test(values, singles, draws=500, seed=seed).adjusted_p.min() < 0.05
    assert binom.ppf(0.001, 300, 0.05) <= false_alarms <= binom.ppf(0.999, 300, 0.05)
    assert wrong_unit > binom.ppf(0.999, 300, 0.05)  # control: flipping single pairs alarms too often
    found = [sign_flip_max_test(planted(rng, 3), clusters, draws=500).adjusted_p for _ in range(20)]
    assert np.mean([p[3] < 0.05 for p in found]) > 0.9
    assert np.mean([p[[0, 1, 2, 4, 5, 6, 7]].min() < 0.05 for p in found]) < 0.3


def crossed(rng, n_recipients, n_donors, n_controls):
    """60 pairs without any effect: who donates decides a flip as much as who receives, here and in the control."""
    sides = [rng.permutation(60) % n for n in (n_recipients, n_donors, n_controls)]
    recipient, donor, control = (
        (rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, 8)))[of]
        for n, of in zip((n_recipients, n_donors, n_controls), sides, strict=True)
    )
    noise = rng.normal(size=(2, 60, 8))
    flips = (recipient + donor + noise[0] > 0.7).astype(float) - (recipient + control + noise[1] > 0.7)
    return flips, dict(zip(("recipient", "donor", "random donor"), map(names, sides), strict=True))


@pytest.mark.parametrize("donors", [(8, 30), (30, 8)])
def test_shared_donors_raise_no_false_alarm_in_the_crossed_test_and_do_over_recipients_alone(donors):
    rng = np.random.default_rng(3)
    alarms = over_recipients = 0
    for seed in range(150):
        values, sides = crossed(rng, 30, *donors)
        alarms += crossed_max_test(values, sides, draws=300, seed=seed).adjusted_p.min() <= 0.05
        over_recipients += sign_flip_max_test(values, sides["recipient"], draws=300, seed=seed).adjusted_p.min() <= 0.05
    assert alarms <= binom.ppf(0.999, 150, 0.05)
    assert over_recipients > binom.ppf(0.999, 150, 0.05)  # control: one side alone alarms too often


def test_the_crossed_p_is_the_larger_one_at_every_layer_and_an_effect_in_all_pairs_stays_found():
    rng = np.random.default_rng(6)
    values, sides = crossed(rng, 20, 12, 15)
    values[:, 2] += 1
    apart = [sign_flip_max_test(values, clusters, draws=500) for clusters in sides.values()]
    found = crossed_max_test(values, sides, draws=500)
    assert found.adjusted_p.tolist() == np.max([test.adjusted_p for test in apart], axis=0).tolist()
    assert len({int(np.argmax([test.adjusted_p[layer] for test in apart])) for layer in range(8)}) > 1
    for layer in range(8):
        worst = max(apart, key=lambda test, layer=layer: test.adjusted_p[layer])
        assert found.statistic[layer] == worst.statistic[layer]
    assert found.adjusted_p[2] < 0.05 and found.n_clusters == 12
    assert found.method == (
        "studentised sign-flip max-t over layers, two-sided, the larger p of 20 recipient, 12 donor and "
        "15 random donor clusters"
    )


@pytest.mark.parametrize("few", [0, 1, 2])
def test_five_clusters_on_any_side_are_not_testable(few):
    counts = [9, 9, 9]
    counts[few] = 5
    values, sides = crossed(np.random.default_rng(0), *counts)
    found = crossed_max_test(values, sides)
    assert found.adjusted_p is None and found.n_clusters == 5
    said = f"{counts[0]} recipient, {counts[1]} donor and {counts[2]} random donor clusters"
    assert found.method == f"not testable: {said}, 6 needed of each"


@pytest.mark.parametrize("right, n", [(0, 1), (5, 10), (9, 10), (10, 10), (0, 0), (3, 40)])
def test_guessing_p_is_the_share_of_all_answer_sheets_that_are_as_good(right, n):
    as_good = sum(math.comb(n, k) for k in range(right, n + 1))
    assert guessing_p(right, n) == pytest.approx(as_good / 2**n, rel=1e-12)


@pytest.mark.parametrize("right, n", [(2, 1), (-1, 3), (0, -1)])
def test_guessing_p_refuses_counts_that_cannot_be(right, n):
    with pytest.raises(InterpError, match=f"{right} right of {n}"):
        guessing_p(right, n)


def test_ratios_of_sums_agree_with_rates_where_every_row_counts_and_with_the_rows_that_do_elsewhere():
    rng = np.random.default_rng(3)
    hits, units = (rng.random((60, 2)) < 0.4).astype(float), [f"u{i % 15}" for i in range(60)]
    found, expected = ratio_intervals(hits, units, rates=True), rate_intervals(hits, units)[0]
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], atol=1e-12)
    kept = np.arange(60) % 15 < 12
    part = ratio_intervals(hits * kept[:, None], units, np.repeat(kept[:, None], 2, axis=1))
    alone = ratio_intervals(hits[kept], [unit for unit, keep in zip(units, kept, strict=True) if keep])
    np.testing.assert_allclose([part.low, part.high], [alone.low, alone.high], atol=1e-12)
    few = ratio_intervals(hits, [f"u{i % 9}" for i in range(60)])
    assert np.isnan(few.low).all() and few.method == "no interval: 9 clusters, 10 needed"


def test_an_interval_of_a_ratio_over_a_dozen_units_holds_where_a_bootstrap_is_too_narrow():
    rng, missed = np.random.default_rng(4), np.zeros(2)
    units = [f"u{i % 12:02d}" for i in range(36)]
    for _ in range(300):
        values = rng.normal(size=12)[np.arange(36) % 12] + rng.normal(size=36)
        weights = pigeonhole_weights(units, units, draws=200, seed=int(rng.integers(1 << 30)))
        two = ratio_intervals(values[:, None], units), pigeonhole_interval(values, weights, n_clusters=12)
        missed += [not one.low[0] <= 0 <= one.high[0] for one in two]
    assert missed[0] <= 27 < missed[1]  # of a rate of .05: more than 27 of 300 has a chance of .002
