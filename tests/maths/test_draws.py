"""The rank of one draw among random ones: its p, its size where there is no effect, its refusals."""

import numpy as np
import pytest

from interp_core.errors import InterpError
from interp_core.maths.draws import FEWEST_DRAWS, draw_rank_test, larger_of
from interp_core.maths.stats import MaxTest, sign_flip_max_test


def test_a_p_is_the_share_of_draws_whose_largest_distance_reaches_the_own_one():
    rng = np.random.default_rng(0)
    own, drawn = rng.normal(size=4), rng.normal(size=(30, 4))
    drawn[3, 2] = 5
    found = draw_rank_test(own, drawn)
    every = [own, *drawn]
    for cell in range(4):
        centre = [np.mean([row[c] for row in every]) for c in range(4)]
        reached = [max(row[c] - centre[c] for c in range(4)) >= own[cell] - centre[cell] for row in drawn]
        assert found.adjusted_p[cell] == (1 + sum(reached)) / 31
    assert draw_rank_test(own + 10, drawn).adjusted_p.tolist() == [1 / 31] * 4
    assert (draw_rank_test(own - 10, drawn).adjusted_p == 1).all(), "doing less is no effect here"
    assert (draw_rank_test(np.zeros(4), np.zeros((30, 4))).adjusted_p == 1).all(), "draws that are alike reach it"
    near = np.full(4, 1e-6), np.zeros((30, 4))
    assert draw_rank_test(*near).adjusted_p.max() < 0.05
    assert (draw_rank_test(*near, tolerance=1e-5).adjusted_p == 1).all()


def test_without_an_effect_one_draw_in_twenty_is_named_where_sign_flips_over_clips_name_most():
    rng = np.random.default_rng(1)
    ranked, flipped = [], []
    for _ in range(200):
        clips, cells = rng.normal(size=(60, 1, 1)), 6
        values = rng.normal(size=(60, 21, cells)) + 0.5 * rng.normal(size=(21, cells)) + clips
        ranked.append(draw_rank_test(values[:, 0].mean(0), values[:, 1:].mean(0)).adjusted_p.min())
        difference = values[:, 0] - values[:, 1:].mean(1)
        units = [str(i % 20) for i in range(60)]
        flipped.append(sign_flip_max_test(difference, units, draws=200).adjusted_p.min())
    assert np.mean(np.array(ranked) <= 0.05) < 0.1  # of a rate of .048: chance of more is .0005
    assert np.mean(np.array(flipped) <= 0.05) > 0.5, "control: the test over clips alone takes a draw for an effect"


def test_under_twenty_draws_there_is_no_p_and_the_larger_of_two_tests_says_which_is_missing():
    few = draw_rank_test(np.ones(2), np.zeros((5, 2)))
    assert few.adjusted_p is None and few.method == f"not testable: 5 random draws, {FEWEST_DRAWS} needed"
    ranked = draw_rank_test(np.ones(2), np.zeros((FEWEST_DRAWS, 2)))
    assert (ranked.adjusted_p < 0.05).all()
    clips = MaxTest(np.array([0.01, 0.2]), np.zeros(2), 8, "flips")
    both = larger_of(clips, ranked)
    assert both.adjusted_p.tolist() == [1 / 21, 0.2] and both.method.endswith("and flips")
    assert larger_of(clips, few).method == few.method and larger_of(clips, few).adjusted_p is None
    untested = larger_of(MaxTest(None, None, 3, "not testable: 3 clusters, 6 needed"), ranked)
    assert untested.adjusted_p is None and untested.method == "not testable: 3 clusters, 6 needed"


@pytest.mark.parametrize(
    "own, drawn, said",
    [(np.ones(2), np.ones((20, 3)), "must be"), (np.ones(2), np.full((20, 2), np.nan), "NaN or infinite")],
)
def test_shapes_and_numbers_that_do_not_fit_are_refused(own, drawn, said):
    with pytest.raises(InterpError, match=said):
        draw_rank_test(own, drawn)
