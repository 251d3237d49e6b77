"""A logistic regression with a row a class, whatever the number of classes, fitted by one caller at a time."""

import threading

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from interp_core.errors import InterpError
from interp_core.maths.linear import fit_logistic, one_thread


def examples(n_classes, n=60, width=5):
    rng = np.random.default_rng(n_classes)
    codes = np.arange(n) % n_classes
    return rng.normal(size=(n, width)) + 2 * rng.normal(size=(n_classes, width))[codes], np.array(list("cab"))[codes]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_map_gives_the_library_s_log_probabilities_with_a_row_for_every_class(n_classes):
    features, labels = examples(n_classes)
    fitted = fit_logistic(features, labels.tolist(), strength=0.3)
    library = LogisticRegression(C=0.3, max_iter=20_000, tol=1e-8).fit(features, labels)
    assert fitted.classes == tuple(library.classes_) == tuple("abc" if n_classes == 3 else "ac")
    assert fitted.weight.shape == (n_classes, 5) and fitted.bias.shape == (n_classes,)
    logprob = log_softmax(features @ fitted.weight.T + fitted.bias, axis=1)
    assert np.abs(logprob - library.predict_log_proba(features)).max() < 1e-12
    stronger = fit_logistic(features, labels, strength=30.0)
    assert np.abs(stronger.weight - fitted.weight).max() > 0.1  # control: the strength matters


def test_a_fit_arrives_where_the_slope_of_its_loss_is_zero_and_the_library_s_own_stops_on_the_way():
    rng = np.random.default_rng(0)
    codes = np.arange(90) % 3
    features = rng.normal(size=(90, 5)) @ rng.normal(size=(5, 20)) + 0.1 * rng.normal(size=(90, 20))
    features += 0.5 * rng.normal(size=(3, 20))[codes]
    labels = np.array(list("abc"))[codes]

    def slope(weight, bias):
        """Of the mean loss: residuals of the probabilities times features, plus the penalty's share."""
        residual = softmax(features @ weight.T + bias, axis=1) - np.eye(3)[codes]
        return max(np.abs(residual.T @ features / 90 + weight / 90).max(), np.abs(residual.mean(axis=0)).max())

    fitted = fit_logistic(features, labels, strength=1.0)
    usual = LogisticRegression(C=1.0, max_iter=2000).fit(features, labels)
    assert slope(fitted.weight, fitted.bias) < 1e-6 < 2e-5 < slope(usual.coef_, usual.intercept_)


def test_one_class_and_labels_that_do_not_fit_are_refused():
    features, labels = examples(2)
    with pytest.raises(InterpError, match="60 rows with 60 labels of a; .* two classes or more"):
        fit_logistic(features, ["a"] * 60, strength=1.0)
    with pytest.raises(InterpError, match="60 rows with 59 labels"):
        fit_logistic(features, labels[1:], strength=1.0)


def test_two_callers_at_once_leave_the_number_of_threads_as_it_was():
    """The limit is the process's: the second to come would take the first's for what to restore."""
    before = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    first_in, second_done = threading.Event(), threading.Event()
    order = []

    def first():
        with one_thread():
            first_in.set()
            second_done.wait(0.2)
            order.append("first")

    def second():
        first_in.wait()
        with one_thread():
            order.append("second")
            second_done.set()

    threads = [threading.Thread(target=run) for run in (first, second)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert order == ["first", "second"]
    assert [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"] == before
