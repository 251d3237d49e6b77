"""Probes against scikit-learn's own pieces put together another way, and leaks that they must not fall for."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from interp_core.errors import InterpError
from interp_core.maths import probes
from interp_core.maths.probes import control_accuracy, family_test, linear_probe, permutation_p, probe_difference
from interp_core.maths.resampling import Interval, grouped_jackknife, over_folds


def versions(seed=0, utterances=24, codecs=4, width=6, effect=1.0):
    """Every utterance in every codec; its own sound is louder than the codec's."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"u{i:02d}" for i in range(utterances)], codecs)
    labels = np.tile([f"C{i:02d}" for i in range(codecs)], utterances)
    marks = np.random.default_rng(99).normal(size=(codecs, width))
    x = 1.5 * np.repeat(rng.normal(size=(utterances, width)), codecs, axis=0) + rng.normal(size=(len(groups), width))
    return x + effect * np.tile(marks, (utterances, 1)), labels, groups


def pipeline(strength):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=5000))


def ragged(x, labels, groups):
    """The same with a third of the clips gone and two classes made one: groups and classes of unequal size."""
    kept = np.random.default_rng(7).random(len(x)) < 0.67
    return x[kept], np.where(labels == "C02", "C03", labels)[kept], groups[kept]


@pytest.mark.parametrize("width", [6, 150])  # the second has more dimensions than clips
def test_predictions_are_those_of_a_scaled_logistic_regression_in_grouped_folds(width):
    x, labels, groups = ragged(*versions(width=width))
    x = x * np.geomspace(1e-3, 1e3, width) + 7
    x[:, 2] = 0.5  # a dimension that says nothing
    found = linear_probe(x, labels, groups, strengths=[0.01], draws=0)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=42)
    expected = cross_val_predict(pipeline(0.01), x, labels, groups=groups, cv=splitter)
    assert np.mean(np.array(found.predicted) == expected) > 0.98  # the two solvers stop at slightly different weights
    assert found.accuracy == pytest.approx(balanced_accuracy_score(labels, found.predicted), abs=1e-12)
    assert found.strengths == (0.01,) * 5 and found.chance == pytest.approx(1 / 3) and found.n_groups == 24
    as_tensor = linear_probe(torch.tensor(x), labels, groups, strengths=[0.01], draws=0)
    assert as_tensor.predicted == found.predicted


def test_c_is_the_smallest_of_the_best_on_groups_held_out_of_the_learning_part():
    x, labels, groups = versions(effect=0.6)
    strengths = [1.0, 1e-3, 1e-2]
    found = linear_probe(x, labels, groups, strengths=strengths, draws=0)
    outer = StratifiedGroupKFold(5, shuffle=True, random_state=42).split(x, labels, groups)
    for (learn, _), chosen in zip(outer, found.strengths, strict=True):
        scores = {}
        for strength in sorted(strengths):
            inner = StratifiedGroupKFold(3, shuffle=True, random_state=42)
            held_out = cross_val_predict(pipeline(strength), x[learn], labels[learn], groups=groups[learn], cv=inner)
            scores[strength] = balanced_accuracy_score(labels[learn], held_out)
        assert scores[chosen] >= max(scores.values()) - 0.02  # a prediction on the edge may fall either way
    assert len(set(found.strengths)) > 1


def test_a_strong_mark_is_read_and_noise_is_not():
    x, labels, groups = versions(effect=3.0)
    found = linear_probe(x, labels, groups)
    assert found.accuracy > 0.9 and found.p == 0.001 and found.reason == ""
    assert found.interval.low[0] > 0.8 and found.interval.method.endswith(
        "24 groups, of held-out predictions of 5 folds"
    )
    assert "999 draws, labels shuffled within 24 groups" in found.test
    x, labels, groups = versions(effect=0.0)
    nothing = linear_probe(x, labels, groups)
    assert abs(nothing.accuracy - 0.25) < 0.12 and nothing.p > 0.05
    assert nothing.interval.low[0] < 0.25 < nothing.interval.high[0]


def test_rare_classes_weigh_as_much_as_frequent_ones():
    rng = np.random.default_rng(0)
    labels = np.array(["a"] * 180 + ["b"] * 20)
    noise = linear_probe(rng.normal(size=(200, 3)), labels)
    assert abs(noise.accuracy - 0.5) < 0.12  # calling everything "a" would be right in nine cases of ten
    assert noise.counts == {"a": 180, "b": 20} and noise.n_groups == 200
    x = rng.normal(size=(200, 3)) + 1.2 * (labels == "b")[:, None]
    assert linear_probe(x, labels, draws=0).accuracy > 0.75


def test_versions_of_one_utterance_leak_where_groups_are_not_given():
    rng = np.random.default_rng(1)
    groups = np.repeat([f"u{i:02d}" for i in range(40)], 4)
    labels = np.repeat(rng.permutation(["a", "b"] * 20), 4)  # by utterance, and without any meaning
    x = np.repeat(rng.normal(size=(40, 60)), 4, axis=0) + 0.05 * rng.normal(size=(160, 60))
    assert linear_probe(x, labels, draws=0).accuracy > 0.95  # control: every utterance is learned by heart
    found = linear_probe(x, labels, groups)
    assert abs(found.accuracy - 0.5) < 0.2 and found.p > 0.05
    assert "over 40 groups of one label" in found.test
    held_out = {name: fold for fold, (_, score) in enumerate(probes._splits(*coded(labels, groups), 5, 42)[1])
                for name in groups[score]}  # fmt: skip
    assert len(held_out) == 40


def coded(labels, groups):
    names, codes = np.unique(labels, return_inverse=True)
    return codes, np.unique(groups, return_inverse=True)[1], names


def slow_folds(x, groups, seed):
    """Learning clips, scored clips, and the matrix from one's targets to the other's scores by normal equations."""
    _, members = np.unique(groups, return_inverse=True)
    for learn, score in GroupKFold(5, shuffle=True, random_state=seed).split(x, groups=members):
        scaler = StandardScaler().fit(x[learn])
        a, b = scaler.transform(x[learn]), scaler.transform(x[score])
        weight = probes.RIDGE * max(a.shape)
        yield learn, score, b @ np.linalg.solve(a.T @ a + weight * np.eye(a.shape[1]), a.T)


def slow_ridge(folds, labels):
    """Least squares on indicators over shares, clip by clip."""
    names = sorted(set(labels))
    right = {name: [] for name in names}
    for learn, score, matrix in folds:
        targets = [(labels[learn] == name) / np.mean(labels[learn] == name) - 1 for name in names]
        for clip, row in zip(score, matrix, strict=True):
            scores = [row @ target for target in targets]
            right[labels[clip]].append(names[scores.index(max(scores))] == labels[clip])
    return sum(sum(hits) / len(hits) for hits in right.values()) / len(names)


@pytest.mark.parametrize("width", [6, 150])
def test_permutation_counts_arrangements_at_least_as_accurate_by_a_slow_ridge_probe(width, monkeypatch):
    x, labels, groups = ragged(*versions(seed=4, utterances=16, width=width, effect=0.25))
    p, test = permutation_p(x, labels, groups, draws=60, seed=3)
    codes, members, names = coded(labels, groups)
    shuffled = probes.shuffled_labels(codes, members, draws=60, seed=3).codes
    folds_by_hand = list(slow_folds(x, groups, 3))
    observed = slow_ridge(folds_by_hand, labels)
    found = [slow_ridge(folds_by_hand, names[row]) for row in shuffled]
    assert p == pytest.approx((1 + np.sum(np.array(found) >= observed - 1e-12)) / 61)
    assert f"accuracy {observed:.3f} of a ridge probe against {np.mean(found):.3f} shuffled" in test
    monkeypatch.setattr(probes, "WORK_BYTES", 1)  # one labelling at a time
    assert permutation_p(x, labels, groups, draws=60, seed=3) == (p, test)
    moved = permutation_p(100 * x + 3, np.char.add("x", labels), groups, draws=60, seed=3)
    assert moved[0] == p


def test_p_is_uniform_without_an_effect_and_not_where_relatives_are_shuffled_apart():
    alarms = apart = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(16), 3)
        labels = np.repeat(rng.permutation(["a", "b"] * 8), 3)
        x = np.repeat(rng.normal(size=(16, 20)), 3, axis=0) + 0.1 * rng.normal(size=(48, 20))
        alarms += permutation_p(x, labels, groups, draws=99, seed=seed)[0] <= 0.05
        if seed < 20:
            apart += permutation_p(x, labels, draws=99, seed=seed)[0] <= 0.05
    assert alarms <= binom.ppf(0.999, 120, 0.05)
    assert apart == 20  # control


def test_probes_that_cannot_be_scored_are_refused_with_the_reason():
    x, labels, groups = versions()
    one = linear_probe(x, ["C01"] * len(x), groups)
    assert one.reason == "all 96 clips are 'C01'; a probe needs two classes"
    assert math.isnan(one.accuracy) and one.p is None and np.isnan(one.interval.low).all() and one.predicted == ()
    rare = np.where((labels == "C02") & (groups > "u01"), "C01", labels)
    found = linear_probe(x, rare, groups)
    assert found.reason == "class 'C02' comes from 2 groups, 3 needed" and math.isnan(found.accuracy)
    enough = linear_probe(x, np.where((labels == "C02") & (groups > "u02"), "C01", labels), groups, draws=0)
    assert enough.reason == "" and len(enough.strengths) == 3  # three groups make three folds
    p, why = permutation_p(x[:8], labels[:8], groups[:8])
    assert 0 < p <= 1
    assert permutation_p(x[:4], labels[:4], groups[:4]) == (None, "not testable: 4 classes in 1 groups")
    p, why = permutation_p(x[:5], ["a", "a", "a", "a", "b"], list("vwxyz"))
    assert p is None and "fewer than 20 ways" in why
    assert linear_probe(x, labels, groups, draws=0).test == "no test was asked for"


def test_interval_leaves_out_one_group_of_held_out_predictions_at_a_time():
    x, labels, groups = ragged(*versions(effect=1.0))
    found = linear_probe(x, labels, groups, draws=0)
    predicted, (_, sizes) = np.array(found.predicted), np.unique(groups, return_counts=True)
    deleted = [balanced_accuracy_score(labels[groups != u], predicted[groups != u]) for u in np.unique(groups)]
    expected = grouped_jackknife(np.array([found.accuracy]), np.array(deleted)[:, None], sizes)
    reach = math.sqrt(1 + found.n_folds / (found.n_folds - 1)) * (expected.high - expected.low) / 2
    wider = [found.accuracy - reach, found.accuracy + reach]
    np.testing.assert_allclose([found.interval.low, found.interval.high], wider, atol=1e-12)
    assert found.n_folds == 5 and found.interval.method.endswith("of held-out predictions of 5 folds")


def test_an_interval_ends_where_a_score_does():
    x, labels, groups = versions(effect=4.0)
    found = linear_probe(x, labels, groups, draws=0)
    assert found.accuracy > 0.97 and found.interval.low[0] < found.accuracy <= found.interval.high[0] <= 1.0
    worse = linear_probe(np.random.default_rng(0).normal(size=x.shape), labels, groups, draws=0)
    _, moved = probe_difference(worse, found, labels, groups)
    assert -1.0 <= moved.low[0] and moved.high[0] <= 1.0
    assert over_folds(Interval(np.array([0.9]), np.array([1.0]), "t"), 5, lowest=0.0, highest=1.0).high[0] == 1.0
    free = over_folds(Interval(np.array([-0.5]), np.array([0.0]), "t"), 5)
    assert free.low[0] < -0.5 and free.high[0] == pytest.approx(0.125)


def test_a_difference_is_zero_against_itself_and_sharp_for_paired_clips():
    x, labels, groups = versions(effect=1.5)
    base = linear_probe(x, labels, groups, draws=0)
    value, interval = probe_difference(base, base, labels, groups)
    assert value == 0 and interval.low[0] == interval.high[0] == 0
    blind = linear_probe(np.random.default_rng(0).normal(size=x.shape), labels, groups, draws=0)
    value, interval = probe_difference(base, blind, labels, groups)
    assert value == pytest.approx(blind.accuracy - base.accuracy) and interval.high[0] < 0
    refused = linear_probe(x, ["C01"] * len(x), groups)
    value, interval = probe_difference(base, refused, labels, groups)
    assert math.isnan(value) and "all 96 clips" in interval.method
    with pytest.raises(InterpError, match="not the same clips"):
        probe_difference(base, blind, labels[:-1], groups[:-1])


def test_inputs_that_do_not_fit_are_refused():
    x, labels, groups = versions()
    with pytest.raises(InterpError, match="a label and a group a clip"):
        linear_probe(x, labels[:-1], groups)
    with pytest.raises(InterpError, match="a label and a group a clip"):
        linear_probe(x, labels, groups[:-1])
    with pytest.raises(InterpError, match="positive values"):
        linear_probe(x, labels, groups, strengths=[])
    x[5, 2] = np.inf
    with pytest.raises(InterpError, match="1 of 96 clips hold a NaN or an infinity, the first at row 5"):
        linear_probe(x, labels, groups)


def test_one_layer_of_many_is_named_and_shuffled_labels_are_named_no_oftener_than_said():
    named, false = 0, 0
    for seed in range(20):
        x, labels, groups = versions(seed, utterances=12, codecs=3, effect=2.0)
        noise = [versions(seed + 100 * i, utterances=12, codecs=3, effect=0.0)[0] for i in range(1, 6)]
        layers = [*noise[:3], x, *noise[3:]]
        found = family_test(layers, labels, groups, draws=99, seed=seed)
        named += found.adjusted_p.argmin() == 3 and found.adjusted_p[3] < 0.05
        mixed = np.random.default_rng(seed).permuted(labels.reshape(12, 3), axis=1).ravel()
        false += bool((family_test(layers, mixed, groups, draws=99, seed=seed).adjusted_p < 0.05).any())
    assert named == 20 and binom.sf(false - 1, 20, 0.05) > 0.01, (named, false)
    alone = family_test([x], labels, groups, draws=99)
    assert alone.adjusted_p[0] == permutation_p(x, labels, groups, draws=99)[0]  # of one it is the plain test
    assert family_test([x], np.full(len(x), "a"), groups).adjusted_p is None


def test_the_control_task_is_learned_by_heart_where_groups_can_be_told_apart_and_only_there():
    x, labels, groups = versions(utterances=12, codecs=6)
    members = np.unique(groups, return_inverse=True)[1]
    known = np.eye(12)[members] + 0.01 * np.random.default_rng(0).normal(size=(len(x), 12))
    remembered, said = control_accuracy(known, labels, groups, strength=1.0)
    assert remembered > 0.9 and said.startswith("one random label a group, 3 draws")
    unknown, _ = control_accuracy(np.random.default_rng(0).normal(size=x.shape), labels, groups, strength=1.0)
    assert abs(unknown - 1 / 6) < 0.12
    for members, words in ((np.arange(len(x)), "group of its own"), (groups > "u05", "2 groups for 6 classes")):
        alone, why = control_accuracy(x, labels, members, strength=1.0)
        assert math.isnan(alone) and words in why
