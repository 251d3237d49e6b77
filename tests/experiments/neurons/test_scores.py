"""What neurons are ranked by, against plain loops."""

import warnings

import numpy as np
import pytest

from interp_core.experiments.neurons.scores import univariate_scores

LABELS = np.array(list("aabbbccccc"))


def one_way_f(values, labels):
    """The textbook's F of one neuron, in sums over clips."""
    groups = [[v for v, label in zip(values, labels, strict=True) if label == name] for name in sorted(set(labels))]
    mean = sum(values) / len(values)
    between = sum(len(group) * (sum(group) / len(group) - mean) ** 2 for group in groups) / (len(groups) - 1)
    within = sum((v - sum(group) / len(group)) ** 2 for group in groups for v in group) / (len(values) - len(groups))
    return between / within


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_score_is_the_one_way_f_of_each_neuron_wherever_its_mean_lies(offset):
    features = np.random.default_rng(0).normal(size=(10, 8)) + (np.arange(10)[:, None] > 4) + offset
    expected = np.array([one_way_f(column.tolist(), LABELS) for column in features.T])
    assert univariate_scores(features, LABELS) == pytest.approx(expected, rel=1e-13 if not offset else 1e-8)


def test_a_neuron_that_does_not_vary_within_a_class_scores_0_and_nothing_warns():
    features = np.random.default_rng(0).normal(size=(10, 4))
    features[:, 1] = 0.1  # not at all
    features[:, 2] = np.where(LABELS == "a", 0.1, 0.3)  # between the classes alone
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = univariate_scores(features, LABELS)
        assert univariate_scores(features[:, 1:3], LABELS).tolist() == [0, 0]
    assert scores[1] == scores[2] == 0 and (scores[[0, 3]] > 0).all()


def test_as_many_classes_as_clips_leave_nothing_within_and_score_0():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert univariate_scores(np.eye(3), np.array(list("abc"))).tolist() == [0, 0, 0]
