"""Fisher ratios against slow loops and another library's F test, their null, and a planted head among many."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2
from sklearn.feature_selection import f_classif

from interp_core.errors import InterpError
from interp_core.maths.fisher import class_plane, fisher_interval, fisher_ratio, fisher_test
from interp_core.maths.resampling import grouped_jackknife


def heads(seed=0, n=60, points=5, dims=4, classes=3, effect=0.0):
    """[n, points, dims] noise; the classes' means differ at point 2."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation([f"c{i % classes}" for i in range(n)])
    x = rng.normal(size=(n, points, dims)) * rng.uniform(0.5, 2, size=(points, dims))
    x[:, 2] += effect * rng.normal(size=(classes, dims))[[int(label[1]) for label in labels]]
    return x, labels


def slow_ratio(x, labels):
    """One point, [n, d]: dimension by dimension, class by class, clip by clip."""
    total = 0.0
    for column in x.T:
        between = within = 0.0
        for name in sorted(set(labels)):
            values = [value for value, label in zip(column, labels, strict=True) if label == name]
            mean = sum(values) / len(values)
            between += len(values) * (mean - sum(column) / len(column)) ** 2
            within += sum((value - mean) ** 2 for value in values)
        total += between / (within + 1e-8)
    return total / x.shape[1]


def test_ratio_agrees_with_the_slow_loop_and_the_normalised_one_with_the_mean_f_statistic():
    x, labels = heads(n=37, effect=0.8)  # classes of unequal size
    found = fisher_ratio(x, labels)
    np.testing.assert_allclose(found.ratio, [slow_ratio(x[:, p], labels) for p in range(5)], rtol=1e-12)
    statistic, _ = f_classif(x.reshape(37, -1), labels)
    np.testing.assert_allclose(found.normalised, statistic.reshape(5, 4).mean(axis=1), rtol=1e-8)
    assert found.scale == (37 - 3) / 2 and sum(found.counts.values()) == 37
    np.testing.assert_allclose(found.normalised, found.ratio * found.scale)


def test_ratio_ignores_shift_scale_clip_order_and_names_but_not_a_rotation():
    x, labels = heads(effect=0.8)
    expected = fisher_ratio(x, labels).ratio
    moved = fisher_ratio(x * np.array([1.0, -3, 0.5, 100]) + 1000, labels)
    np.testing.assert_allclose(moved.ratio, expected, rtol=1e-6)  # the 1e-8 beside S_W is all that stays
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_allclose(fisher_ratio(x[order], labels[order]).ratio, expected, rtol=1e-12)
    renamed = np.array([{"c0": "z", "c1": "a", "c2": "k"}[label] for label in labels])
    np.testing.assert_allclose(fisher_ratio(x, renamed).ratio, expected, rtol=1e-12)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))
    assert abs(fisher_ratio(x @ rotation, labels).ratio[2] - expected[2]) > 1e-2 * expected[2]  # control: diagonal only


def test_points_of_different_width_and_tensors_give_what_each_gives_alone():
    x, labels = heads(effect=0.8)
    mixed = [x[:, 0], np.concatenate([x[:, 1], x[:, 2]], axis=1), x[:, 3, :1]]
    found = fisher_ratio(mixed, labels)
    np.testing.assert_allclose(found.ratio, [fisher_ratio([part], labels).ratio[0] for part in mixed], rtol=1e-12)
    assert found.dims.tolist() == [4, 8, 1]
    as_tensor = fisher_ratio(torch.tensor(x, dtype=torch.float32), labels).ratio
    np.testing.assert_allclose(as_tensor, fisher_ratio(x, labels).ratio, rtol=1e-4)


def test_two_point_masses_have_the_closed_form_and_dimensions_without_spread_are_counted():
    labels = ["a"] * 4 + ["b"] * 4
    column = np.array([1.0, 3, 1, 3, 7, 9, 7, 9])  # means 2 and 8, S_B = 8 * 9, S_W = 8
    flat = np.full(8, 5.0)
    split = np.array([0.0] * 4 + [1e-3] * 4)  # S_B = 2e-6 with no spread inside: the constant decides
    tight = 1e-2 * column  # S_W = 8e-4, not small
    found = fisher_ratio([column[:, None], np.stack([column, flat, tight], axis=1), split[:, None]], labels)
    assert found.ratio[0] == pytest.approx(9) and found.ratio[1] == pytest.approx(6, rel=1e-4)
    assert found.ratio[2] == pytest.approx(2e-6 / 1e-8)
    assert found.small_dims.tolist() == [0, 1, 1]


def test_ratio_of_noise_shrinks_with_clips_and_grows_with_classes_while_the_normalised_one_stays_at_one():
    rng = np.random.default_rng(5)
    raw = {}
    for n, classes in [(60, 3), (240, 3), (240, 12)]:
        labels = [f"c{i % classes:02d}" for i in range(n)]
        found = fisher_ratio(rng.normal(size=(n, 400, 6)), labels)
        expected = (n - classes) / (n - classes - 2)  # the mean of an F distribution
        error = found.normalised.std() / 20
        assert abs(found.normalised.mean() - expected) < 4 * error and abs(expected - 1) < 0.04
        raw[n, classes] = found.ratio.mean()
    assert raw[240, 3] < 0.3 * raw[60, 3] and raw[240, 12] > 4 * raw[240, 3]


def test_a_planted_head_is_the_single_significant_one():
    x, labels = heads(seed=3, n=90, points=40, effect=0.7)
    found = fisher_test(x, labels)
    assert np.flatnonzero(found.adjusted_p < 0.05).tolist() == [2]
    assert found.adjusted_p[2] == 0.001
    assert found.method == "studentised permutation max-T, one-sided, 999 draws, labels shuffled over 90 clips"
    np.testing.assert_array_equal(fisher_test(x, labels).adjusted_p, found.adjusted_p)
    assert not np.array_equal(fisher_test(x, labels, seed=1).adjusted_p, found.adjusted_p)


@pytest.mark.slow
def test_shuffled_labels_alarm_in_at_most_21_of_200_seeds():
    """40 heads that share directions and have tails; a planted head in the same data, so nothing is blind."""
    rng = np.random.default_rng(0)
    x, labels = heads(points=40, effect=3.0)
    x = x + 0.8 * rng.standard_t(4, size=(60, 1, 4))
    assert fisher_test(x, labels).adjusted_p[2] == 0.001
    alarms = sum(
        fisher_test(x, np.random.default_rng(seed).permutation(labels), seed=seed).adjusted_p.min() <= 0.05
        for seed in range(200)
    )
    assert 2 <= alarms <= 21  # 10 expected; 21 is the 99.9 % point of a binomial
    assert binom.ppf(0.999, 200, 0.05) == 21


def recordings(seed, takes=6, sources=24):
    """Takes from one recording share its label and, far more than any label, its sound."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"r{i:02d}" for i in range(sources)], takes)
    labels = np.repeat(rng.permutation([f"c{i % 3}" for i in range(sources)]), takes)
    return (
        np.repeat(rng.normal(size=(sources, 8, 3)), takes, axis=0) + rng.normal(size=(len(groups), 8, 3)),
        labels,
        groups,
    )


def test_takes_of_one_recording_alarm_when_shuffled_apart_and_not_when_kept_together():
    apart = together = 0
    for seed in range(60):
        x, labels, groups = recordings(seed)
        apart += fisher_test(x, labels, draws=199, seed=seed).adjusted_p.min() <= 0.05
        together += fisher_test(x, labels, groups, draws=199, seed=seed).adjusted_p.min() <= 0.05
    assert together <= binom.ppf(0.999, 60, 0.05)
    assert apart > 50  # control
    assert "over 24 groups of one label" in fisher_test(x, labels, groups, draws=99).method


def test_labels_that_differ_within_a_speaker_are_found_through_loud_speakers():
    rng = np.random.default_rng(1)
    labels, groups = np.tile(["cough", "laugh"], 20), np.repeat([f"s{i:02d}" for i in range(20)], 2)
    x = rng.normal(size=(40, 3, 4)) * 0.3 + 2 * np.repeat(rng.normal(size=(20, 3, 4)), 2, axis=0)
    x[:, 1] += 0.4 * (labels == "laugh")[:, None]
    assert fisher_test(x, labels, groups).adjusted_p[1] <= 0.01
    assert fisher_test(x, labels).adjusted_p[1] > 0.05  # control: across speakers the difference drowns


def test_too_few_arrangements_are_said_instead_of_a_p():
    x, _ = heads(n=8)
    found = fisher_test(x, ["a", "b"] * 4, list("ppqqrrss"))
    assert found.adjusted_p is None and found.n_clusters == 4
    assert found.method == "not testable: fewer than 20 ways to shuffle (labels shuffled within 4 groups)"


@pytest.mark.parametrize("work_bytes", [1 << 26, 2000, 1])
def test_interval_is_the_jackknife_over_maps_made_without_the_group(work_bytes, monkeypatch):
    monkeypatch.setattr("interp_core.maths.fisher.WORK_BYTES", work_bytes)
    x, labels = heads(effect=0.8)
    rng = np.random.default_rng(2)
    codes = rng.permutation(np.r_[np.arange(14), rng.integers(0, 14, 46)])  # unequal groups that mix the classes
    found = fisher_interval(x, labels, [f"g{code:02d}" for code in codes])
    deleted = [np.log(fisher_ratio(x[codes != code], labels[codes != code]).ratio) for code in range(14)]
    whole = fisher_ratio(x, labels)
    expected = grouped_jackknife(np.log(whole.ratio), deleted, np.bincount(codes).tolist())
    np.testing.assert_allclose(found.low, np.exp(expected.low) * whole.scale, rtol=1e-8)
    np.testing.assert_allclose(found.high, np.exp(expected.high) * whole.scale, rtol=1e-8)
    assert found.method == "delete-a-group jackknife, 14 groups, log scale"
    assert (found.low < whole.normalised).all() and (whole.normalised < found.high).all()
    np.testing.assert_allclose(  # the same labels under the test's own route to the ratio
        fisher_test(x, labels, draws=30).statistic.argmax(), whole.normalised.argmax()
    )


def test_interval_of_noise_holds_one_and_that_of_a_real_difference_does_not():
    x, labels = heads(seed=7, n=120, points=300, dims=8, effect=1.0)
    found = fisher_interval(x, labels)
    noise = np.arange(300) != 2
    assert np.mean((found.low[noise] <= 1) & (found.high[noise] >= 1)) >= 0.93
    assert found.low[2] > 2


def test_interval_over_recordings_is_wider_than_over_single_takes():
    covered, covered_single = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels, groups = np.repeat([f"c{i % 3}" for i in range(24)], 6), np.repeat(np.arange(24), 6)
        truth = 6 * 4 / 5 + 1 / 5  # between-recording variance counts six times over, in shares 4/5 and 1/5 of all
        x = 2 * np.repeat(rng.normal(size=(24, 10, 6)), 6, axis=0) + rng.normal(size=(144, 10, 6))
        for groups_given, kept in ((groups, covered), (None, covered_single)):
            found = fisher_interval(x, labels, groups_given)
            kept.append(np.mean((found.low <= truth) & (truth <= found.high)))
    assert np.mean(covered) > 0.9
    assert np.mean(covered_single) < 0.8  # control


def test_no_interval_where_a_class_comes_from_one_group_or_groups_are_few():
    x, labels = heads()
    groups = np.where(labels == "c1", "one", [f"g{i % 20}" for i in range(60)])
    found = fisher_interval(x, labels, groups)
    assert np.isnan(found.low).all() and found.method == "no interval: class 'c1' comes from one group"
    few = fisher_interval(x, labels, [f"g{i % 9}" for i in range(60)])
    assert np.isnan(few.high).all() and few.method.startswith("no interval: 9 groups, 10 needed")
    x[:, 1] = 4.0  # a dead head has the ratio 0, which has no logarithm; the others keep theirs
    dead = fisher_interval(x, labels)
    assert np.isnan(dead.low[1]) and np.isfinite(dead.low[[0, 2, 3, 4]]).all()
    assert fisher_ratio(x, labels).ratio[1] == 0


def test_class_plane_keeps_the_distances_between_three_means_and_repeats_its_signs():
    x, labels = heads(effect=1.5)
    found = class_plane(x[:, 2], labels)
    means = np.stack([x[labels == name, 2].mean(axis=0) for name in found.names])
    for a in range(3):
        for b in range(3):
            flat = np.linalg.norm(found.means[a] - found.means[b])
            assert flat == pytest.approx(np.linalg.norm(means[a] - means[b]))
    assert found.shown == pytest.approx(1) and found.names == ("c0", "c1", "c2")
    np.testing.assert_allclose(
        [found.clips[labels == name].mean(axis=0) for name in found.names], found.means, atol=1e-12
    )
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(class_plane(x[order, 2], labels[order]).means, found.means, atol=1e-9)
    np.testing.assert_allclose(class_plane(x[:, 2] + 50, labels).means, found.means, atol=1e-9)
    assert np.linalg.norm(found.means[:, 0]) > np.linalg.norm(found.means[:, 1])


def test_class_plane_of_two_classes_shows_the_spread_within_on_its_second_direction():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 50)
    x = rng.normal(size=(100, 3)) * [1, 5, 0.5] + np.outer(labels == "b", [4.0, 0, 0])
    found = class_plane(x, labels)
    assert found.means[:, 1] == pytest.approx([0, 0], abs=1e-9)
    assert abs(found.means[1, 0] - found.means[0, 0]) == pytest.approx(
        np.linalg.norm(x[50:].mean(0) - x[:50].mean(0)), rel=1e-9
    )
    assert found.clips[:, 1].std() > 4
    many = rng.normal(size=(5, 6))[np.arange(60) % 5] * 3 + rng.normal(size=(60, 6))
    assert 0.4 < class_plane(many, [f"c{i % 5}" for i in range(60)]).shown < 0.999
    narrow = class_plane(x[:, :1], labels)
    assert narrow.clips.shape == (100, 2) and (narrow.clips[:, 1] == 0).all()


def test_what_cannot_be_compared_is_refused():
    x, labels = heads()
    with pytest.raises(InterpError, match="all 60 clips are 'c0'"):
        fisher_ratio(x, ["c0"] * 60)
    with pytest.raises(InterpError, match="3 clips in 3 classes"):
        fisher_ratio(x[:3], ["a", "b", "c"])
    with pytest.raises(InterpError, match=r"\[59 clips, width\]"):
        fisher_ratio(x, labels[:59])
    with pytest.raises(InterpError, match=r"\[clips, points, width\]"):
        fisher_ratio(x[:, 0], labels)
    with pytest.raises(InterpError, match="groups"):
        fisher_interval(x, labels, ["g"] * 5)
    x[4, 3, 1] = np.nan
    with pytest.raises(InterpError, match="1 of 5 points hold a NaN or an infinity, the first is point 3"):
        fisher_test(x, labels)


def test_the_f_statistic_behind_the_ratio_has_the_distribution_it_should():
    """A single dimension of noise: C - 1 and N - C degrees of freedom, here large enough for chi-square."""
    labels = [f"c{i % 4}" for i in range(2000)]
    found = fisher_ratio(np.random.default_rng(6).normal(size=(2000, 3000, 1)).astype(np.float32), labels)
    over = np.mean(found.normalised * 3 > chi2.ppf(0.95, 3))
    assert abs(over - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 3000)


def test_a_head_with_one_live_dimension_of_sixteen_is_first_over_live_dimensions_and_last_over_all():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 20)
    points = rng.normal(size=(60, 4, 16)) + 0.4 * rng.normal(size=(3, 1, 16))[np.repeat(range(3), 20)]
    points[:, 2] = 3.7  # constant, but for one dimension that tells the classes apart
    points[:, 2, 5] += 1.2 * np.repeat(range(3), 20) + rng.normal(size=60)
    points[:, 3] = -1.1
    found = fisher_ratio(points, labels.tolist())
    assert found.live_dims.tolist() == [16, 16, 1, 0]
    alone = fisher_ratio(points[:, 2:3, 5:6], labels.tolist())
    assert found.live[2] == pytest.approx(alone.normalised[0]) == pytest.approx(16 * found.normalised[2])
    assert found.live[:2] == pytest.approx(found.normalised[:2]) and np.isnan(found.live[3])
    assert found.live[2] > found.live[:2].max() and found.normalised[2] < found.normalised[:2].min()
