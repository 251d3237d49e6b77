"""After erasure nothing linear is left, at the least cost; class means span the subspace in which they differ."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from interp_core.errors import InterpError
from interp_core.maths.subspaces import Eraser, fit_leace, mean_differences, random_basis, random_eraser


def planted(n=240, width=7, classes=3, seed=0):
    """Clips whose classes differ in mean, with correlated dimensions; float64, and the class of each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    x = rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + rng.normal(size=(classes, width))[labels] * 2
    return torch.from_numpy(x + 3), labels


def cross_covariance(x, labels):
    """[width, classes] by plain loops over the definition."""
    z = np.eye(labels.max() + 1)[labels]
    return sum(np.outer(a, b) for a, b in zip(x - x.mean(0), z - z.mean(0), strict=True)) / len(x)


def accuracy(x, labels):
    return LogisticRegression(C=1e6, max_iter=5000).fit(x, labels).score(x, labels)


@pytest.mark.parametrize("shrink", [False, True])
def test_after_erasure_nothing_linear_is_left_and_erasing_again_changes_nothing(shrink):
    x, labels = planted()
    eraser = fit_leace(x, labels, shrink=shrink)
    erased = eraser(x)
    assert eraser.rank == 2
    assert np.abs(cross_covariance(erased.numpy(), labels)).max() < 1e-10
    assert np.abs(cross_covariance(x.numpy(), labels)).max() > 0.1  # control: it was there
    most = np.bincount(labels).max() / len(labels)
    assert accuracy(x, labels) > most + 0.2 and accuracy(erased, labels) == pytest.approx(most, abs=1e-9)
    torch.testing.assert_close(eraser(erased), erased, atol=1e-10, rtol=0)
    torch.testing.assert_close(erased.mean(0), x.mean(0), atol=1e-10, rtol=0)
    other = random_eraser(x.mean(0), eraser.rank, "control")  # control: as many dimensions, and the concept stays
    assert accuracy(other(x), labels) > most + 0.1
    torch.testing.assert_close(other(other(x)), other(x), atol=1e-10, rtol=0)


def test_of_all_maps_that_erase_it_moves_the_clips_least():
    x, labels = planted(n=80, width=3, classes=2)
    centred, z = (x - x.mean(0)).numpy(), np.eye(2)[labels]
    shared = cross_covariance(x.numpy(), labels)[:, :1]  # the second column is its negative

    def moved(flat):
        return ((centred @ (flat.reshape(3, 3) - np.eye(3)).T) ** 2).sum(1).mean()

    bound = {"type": "eq", "fun": lambda flat: (flat.reshape(3, 3) @ shared).ravel()}
    least = minimize(moved, np.zeros(9), constraints=[bound], method="SLSQP", options={"ftol": 1e-14, "maxiter": 500})
    assert least.success and z.shape == (80, 2)
    own = fit_leace(x, labels)
    matrix = np.eye(3) - (own.left @ own.right).numpy()
    np.testing.assert_allclose(matrix, least.x.reshape(3, 3), atol=1e-5)
    assert moved(matrix.ravel()) == pytest.approx(least.fun, rel=1e-8)
    assert float(((own(x) - x) ** 2).sum(1).mean()) == pytest.approx(least.fun, rel=1e-8)
    # Control: the orthogonal projection off the same direction erases too, and costs more.
    straight = np.eye(3) - shared @ shared.T / (shared**2).sum()
    assert np.abs(straight @ shared).max() < 1e-12 and moved(straight.ravel()) > 1.05 * least.fun


@pytest.mark.parametrize("shrink", [False, True])
def test_more_dimensions_than_clips_are_erased_too(shrink):
    x, labels = planted(n=30, width=80, classes=3)
    eraser = fit_leace(x, labels, shrink=shrink)
    assert np.abs(cross_covariance(eraser(x).numpy(), labels)).max() < 1e-10
    assert (eraser.right @ eraser.left - torch.eye(2)).abs().max() < 1e-10
    narrow = eraser(x.float())
    assert narrow.dtype == torch.float32 and (narrow.double() - eraser(x)).abs().max() < 1e-4


def test_a_shrunk_covariance_erases_more_from_clips_that_were_not_fitted():
    x, labels = planted(n=400, width=150, classes=2, seed=3)
    left = [
        np.abs(cross_covariance(fit_leace(x[:200], labels[:200], shrink=shrink)(x[200:]).numpy(), labels[200:])).sum()
        for shrink in (False, True)
    ]
    untouched = np.abs(cross_covariance(x[200:].numpy(), labels[200:])).sum()
    assert left[1] < left[0] < untouched


def test_erasure_that_means_nothing_is_refused():
    x, labels = planted()
    for rows, said, words in (
        (x, np.zeros(len(x), int), "all 240 clips are '0'; a concept to erase needs two classes"),
        (x, labels[:-1], r"must be \[clips, width\] with one label a clip"),
        (torch.cat([x, x]), np.repeat([0, 1], len(x)), "the same mean: there is no concept"),
        (x * float("nan"), labels, "holds a NaN"),
    ):
        with pytest.raises(InterpError, match=words):
            fit_leace(rows, said)


def test_class_means_span_the_subspace_of_their_differences_largest_first():
    torch.manual_seed(0)
    directions, _ = torch.linalg.qr(torch.randn(6, 2).double())
    means = 5 + torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]]).double() @ directions.T
    basis = mean_differences(means, 3)
    assert torch.allclose(basis[:2] @ basis[:2].T, torch.eye(2).double())
    assert abs(float(basis[0] @ directions[:, 0])) == pytest.approx(1) and not basis[2].any()
    assert abs(float(basis[1] @ directions[:, 1])) == pytest.approx(1)
    assert mean_differences(means, 0).shape == (0, 6)
    with pytest.raises(InterpError, match="4 class means of width 6 differ in 3 directions at most, not in 4"):
        mean_differences(means, 4)


def test_a_random_basis_hangs_on_its_names_and_fills_the_space_evenly():
    basis = random_basis(40, 3, 42, "a")
    assert torch.allclose(basis @ basis.T, torch.eye(3).double()) and torch.equal(basis, random_basis(40, 3, 42, "a"))
    assert (basis - random_basis(40, 3, 42, "b")).abs().max() > 0.05
    share = torch.stack([random_basis(40, 3, i)[:, 0].square().sum() for i in range(400)]).mean()
    assert float(share) == pytest.approx(3 / 40, rel=0.15)
    with pytest.raises(InterpError, match="width 2 has no subspace of rank 3"):
        random_basis(2, 3, "x")
    assert isinstance(random_eraser(torch.zeros(2), 2, "x"), Eraser)
