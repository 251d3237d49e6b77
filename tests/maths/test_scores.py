"""EER and minDCF against slow loops, closed forms for normal scores, and another library's curve."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from sklearn.metrics import roc_curve

from interp_core.errors import InterpError
from interp_core.maths.resampling import draws_within_classes, speakers_in_classes
from interp_core.maths.scores import (
    PUBLISHED_THESIS_COSTS,
    Costs,
    bootstrap_over_speakers,
    by_attack,
    by_codec,
    detection,
    error_curve,
    logit_difference,
)


def sample(seed=0, n=(30, 50), shift=1.5, decimals=None):
    rng = np.random.default_rng(seed)
    is_bonafide = rng.permutation(np.r_[np.ones(n[0], bool), np.zeros(n[1], bool)])
    scores = rng.normal(size=sum(n)) + shift * is_bonafide
    return (scores if decimals is None else scores.round(decimals)), is_bonafide


def walked(order, is_bonafide, *, accept_all):
    """FRR and FAR as a list of (frr, far), rejecting the clips of the order one after the other."""
    n_bonafide, n_spoof = sum(is_bonafide), sum(~is_bonafide)
    rejected = caught = 0
    points = [(0.0, 1.0)] if accept_all else []
    for clip in order:
        rejected, caught = rejected + bool(is_bonafide[clip]), caught + (not is_bonafide[clip])
        points.append((rejected / n_bonafide, (n_spoof - caught) / n_spoof))
    return points


def eer_of(points):
    gaps = [abs(frr - far) for frr, far in points]
    frr, far = points[gaps.index(min(gaps))]
    return (frr + far) / 2, gaps.index(min(gaps))


def min_dcf_of(points, p_spoof, c_miss, c_fa):
    costs = [c_miss * (1 - p_spoof) * frr + c_fa * p_spoof * far for frr, far in points]
    return min(costs) / min(c_miss * (1 - p_spoof), c_fa * p_spoof)


@pytest.mark.parametrize("decimals", [None, 1, 0])  # 0 leaves a handful of scores, tied all over
def test_eer_and_min_dcf_are_those_of_the_thesis_and_of_the_challenge_and_of_unique_scores(decimals):
    for seed in range(20):
        scores, is_bonafide = sample(seed, decimals=decimals)
        found = detection(scores, is_bonafide)
        thesis = walked(np.argsort(scores), is_bonafide, accept_all=False)
        eer, at = eer_of(thesis)
        assert (found.eer_thesis, found.threshold_thesis) == (eer, np.sort(scores)[at])
        assert found.min_dcf_thesis == pytest.approx(min_dcf_of(thesis, 0.05, 1, 10), abs=1e-14)
        stacked = np.r_[scores[is_bonafide], scores[~is_bonafide]]
        order = np.argsort(stacked, kind="stable")
        challenge = walked(order, np.arange(len(scores)) < 30, accept_all=True)
        eer, at = eer_of(challenge)
        assert (found.eer_challenge, found.threshold_challenge) == (
            eer,
            np.r_[-np.inf, np.sort(scores)][at],
        )
        assert found.min_dcf_challenge == pytest.approx(min_dcf_of(challenge, 0.05, 1, 10), abs=1e-14)
        unique = [(0.0, 1.0)] + [
            (np.mean(scores[is_bonafide] <= score), np.mean(scores[~is_bonafide] > score))
            for score in sorted(set(scores))
        ]
        eer, at = eer_of(unique)
        assert (found.eer, found.threshold) == (pytest.approx(eer), np.r_[-np.inf, np.unique(scores)][at])
        assert found.min_dcf == pytest.approx(min_dcf_of(unique, 0.05, 1, 10), abs=1e-14)
        if decimals is None:
            assert (found.eer, found.threshold, found.tied) == (found.eer_challenge, found.threshold_challenge, 0)


def test_ties_make_the_three_differ_and_unique_scores_do_not_hang_on_the_order_of_the_file():
    is_bonafide = np.array([True] * 10 + [False] * 10)
    same = detection(np.ones(20), is_bonafide)
    assert (same.eer, same.eer_challenge, same.tied) == (0.5, 1.0, 1.0)
    assert (
        same.eer_thesis != detection(np.ones(20), ~is_bonafide).eer_thesis
    )  # whichever class stands first in the file
    scores, is_bonafide = sample(decimals=0)
    turned = detection(scores[::-1], is_bonafide[::-1])
    assert (turned.eer, turned.min_dcf) == (detection(scores, is_bonafide).eer, detection(scores, is_bonafide).min_dcf)
    assert "saturated" in turned.warning


def test_published_thesis_costs_weigh_false_accepts_nineteen_to_one():
    scores, is_bonafide = sample(3, n=(300, 500))
    points = walked(np.argsort(scores), is_bonafide, accept_all=False)
    found = detection(scores, is_bonafide, costs=PUBLISHED_THESIS_COSTS)
    assert found.min_dcf_thesis == pytest.approx(min_dcf_of(points, 0.95, 1, 1), abs=1e-12)
    assert found.min_dcf_thesis > 1.5 * detection(scores, is_bonafide).min_dcf_thesis  # control: another number by far
    useless = np.arange(10.0), np.array([True, False] * 5)  # a spoof on top: nothing beats rejecting everything
    assert detection(*useless, costs=Costs(p_spoof=0.95, c_miss=1, c_fa=1)).min_dcf == pytest.approx(1)


def test_only_the_thesis_cannot_accept_everything_so_its_min_dcf_passes_one():
    backwards = np.arange(10.0), np.arange(10) < 5  # every bona fide clip below every spoof
    found = detection(*backwards)
    assert (found.min_dcf, found.min_dcf_challenge) == (1, 1)
    assert found.min_dcf_thesis == pytest.approx((0.95 * 0.2 + 0.5) / 0.5)  # the first clip is rejected already


def test_normal_scores_have_the_closed_form_eer_and_a_straight_det_line():
    n, distance = 4001, 2.0
    grid = norm.ppf((np.arange(n) + 0.5) / n)
    scores, is_bonafide = np.r_[grid + distance, grid], np.r_[np.ones(n, bool), np.zeros(n, bool)]
    found = detection(scores, is_bonafide)
    assert found.eer == pytest.approx(norm.cdf(-distance / 2), abs=2 / n)
    assert found.threshold == pytest.approx(distance / 2, abs=1e-2)
    cuts = np.linspace(-3, 6, 20001)  # minDCF by a search along the two normal tails
    best = (0.95 * norm.cdf(cuts - distance) + 0.5 * norm.sf(cuts)).min() / 0.5
    assert found.min_dcf == pytest.approx(best, abs=1e-3)
    x, y = error_curve(scores, is_bonafide).det()
    middle = (np.abs(x) < 2) & (np.abs(y) < 2)
    np.testing.assert_allclose((x + y)[middle], -distance, atol=0.02)
    assert np.isfinite(x).all() and np.isfinite(y).all()


@pytest.mark.parametrize("decimals", [None, 1])
def test_roc_is_that_of_scikit_learn(decimals):
    scores, is_bonafide = sample(1, decimals=decimals)
    curve = error_curve(scores, is_bonafide)
    false_accepts, true_accepts, _ = roc_curve(is_bonafide, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.far[::-1], false_accepts, atol=1e-12)
    np.testing.assert_allclose(1 - curve.frr[::-1], true_accepts, atol=1e-12)
    assert curve.thresholds[0] == -np.inf and (np.diff(curve.thresholds) > 0).all()


def test_eer_ignores_monotone_maps_and_turns_over_with_the_classes():
    scores, is_bonafide = sample(2)
    found = detection(scores, is_bonafide)
    for mapped in (np.exp(scores), 7 * scores - 100, np.tanh(scores)):
        assert detection(mapped, is_bonafide).eer == found.eer
    swapped = detection(scores, ~is_bonafide)
    assert swapped.eer == pytest.approx(1 - found.eer, abs=0.05) and swapped.eer > 0.5
    assert "bona fide index" in swapped.warning and found.warning == ""
    assert detection(-scores, ~is_bonafide).eer == pytest.approx(found.eer, abs=0.04)
    perfect = detection(np.arange(8.0), np.arange(8) > 3)
    assert (perfect.eer, perfect.eer_thesis, perfect.eer_challenge, perfect.min_dcf) == (0, 0, 0, 0)
    assert perfect.threshold == 3


def test_a_class_without_a_clip_is_undefined_and_says_so():
    scores = np.arange(5.0)
    nothing = detection(scores, np.zeros(5, bool))
    assert nothing.reason == "undefined: no bona fide clip" and (nothing.n_bonafide, nothing.n_spoof) == (0, 5)
    assert all(math.isnan(v) for v in (nothing.eer, nothing.eer_thesis, nothing.eer_challenge, nothing.min_dcf_thesis))
    assert nothing.warning == ""
    assert detection(scores, np.ones(5, bool)).reason == "undefined: no spoofed clip"
    with pytest.raises(InterpError, match="no spoofed clip"):
        error_curve(scores, np.ones(5, bool))


def test_scores_that_cannot_be_ranked_are_refused():
    with pytest.raises(InterpError, match="2 of 4 scores are NaN or infinite, the first at row 1"):
        detection([1.0, np.nan, 2.0, -np.inf], [True, False, True, False])
    with pytest.raises(InterpError, match="True or False"):
        detection([1.0, 2.0], [0, 1])  # which of them is bona fide differs between the thesis and the challenge
    with pytest.raises(InterpError, match="one .n. each"):
        detection([1.0, 2.0], [True])


def test_a_codec_brings_its_own_bona_fide_and_an_attack_meets_all_of_them():
    scores, is_bonafide = sample(4, n=(40, 80))
    codecs = np.array(["C01", "-"])[np.arange(120) % 2]
    attacks = np.where(is_bonafide, "bonafide", np.array(["A17", "A18", "A19"])[np.arange(120) % 3])
    table = by_codec(scores, is_bonafide, codecs)
    assert list(table) == ["-", "C01"]
    own = codecs == "C01"
    assert table["C01"] == detection(scores[own], is_bonafide[own])
    table = by_attack(scores, is_bonafide, attacks)
    assert list(table) == ["A17", "A18", "A19"]
    chosen = is_bonafide | (attacks == "A18")
    assert table["A18"] == detection(scores[chosen], is_bonafide[chosen])
    assert table["A18"].n_bonafide == 40 and table["A18"].reason == ""
    spoof = ~is_bonafide
    assert by_attack(scores[spoof], is_bonafide[spoof], attacks[spoof])["A17"].reason == "undefined: no bona fide clip"
    lonely = by_codec(scores, is_bonafide, np.where(is_bonafide, "-", "C02"))
    assert lonely["C02"].reason == "undefined: no bona fide clip" and math.isnan(lonely["-"].eer)
    with pytest.raises(InterpError, match="3 attacks for 120 scores"):
        by_attack(scores, is_bonafide, ["A17"] * 3)


def test_logit_difference_is_the_log_odds_and_does_not_saturate():
    logits = torch.tensor([[50.0, -50.0], [52.0, -50.0], [0.5, 1.5]])
    np.testing.assert_allclose(logit_difference(logits, bonafide_index=0), [100, 102, -1])
    np.testing.assert_allclose(logit_difference(logits, bonafide_index=1), [-100, -102, 1])
    assert len(set(torch.softmax(logits, 1)[:2, 0].tolist())) == 1  # control: the probabilities are equal
    three = np.random.default_rng(0).normal(size=(5, 3))
    p = np.exp(three) / np.exp(three).sum(1, keepdims=True)
    np.testing.assert_allclose(logit_difference(three, bonafide_index=2), np.log(p[:, 2] / (1 - p[:, 2])))
    with pytest.raises(InterpError, match="index 2"):
        logit_difference(logits, bonafide_index=2)


def corpus(rng, n_models, clips=6, speakers=15, effect=1.0):
    """15 speakers of bona fide speech and the same 15 of spoofs; scores move with the speaker and the model."""
    is_bonafide = np.repeat([True, False], speakers * clips)
    names = np.tile(np.repeat([f"s{i}" for i in range(speakers)], clips), 2)
    cells = np.repeat(np.arange(2 * speakers), clips)
    noise = rng.normal(size=(n_models, len(names)))
    return is_bonafide, names, 2 * is_bonafide + effect * rng.normal(size=(n_models, 2 * speakers))[:, cells] + noise


def test_drawn_measures_are_those_of_clips_written_out_as_often_as_they_were_drawn():
    is_bonafide, names, scores = corpus(np.random.default_rng(0), 2)
    scores = scores.round(1)  # with ties
    for measure in ("eer", "min_dcf"):
        found = bootstrap_over_speakers(scores, is_bonafide, names, measure=measure, draws=40, seed=9)
        codes, counts = speakers_in_classes(is_bonafide, names)
        drawn = []
        for times in draws_within_classes(counts, draws=40, seed=9):
            rows = np.repeat(np.arange(len(names)), times[codes].astype(int))
            drawn.append([getattr(detection(model[rows], is_bonafide[rows]), measure) for model in scores])
        drawn = np.array(drawn)
        np.testing.assert_allclose(found.value, [getattr(detection(m, is_bonafide), measure) for m in scores])
        np.testing.assert_allclose(found.interval.low, np.percentile(drawn, 2.5, axis=0))
        np.testing.assert_allclose(found.interval.high, np.percentile(drawn, 97.5, axis=0))
        paired = np.percentile(drawn[:, 1] - drawn[:, 0], [2.5, 97.5])
        assert (found.difference_interval.low[1], found.difference_interval.high[1]) == pytest.approx(tuple(paired))
        assert found.difference_interval.low[0] == found.difference_interval.high[0] == 0
    said = "bootstrap over 15 bona fide and 15 spoof speakers (15 in both), 40 draws"
    assert found.difference_interval.method == f"paired {said}"
    assert found.interval.method == f"{said}; of a smallest cost it misses about 1 in 10"
    assert found.difference[1] == pytest.approx(found.value[1] - found.value[0]) and found.speakers == (15, 15)


def test_interval_over_speakers_covers_where_one_over_clips_does_not():
    is_bonafide, names, scores = corpus(np.random.default_rng(1), 150, effect=2.0)  # 150 data sets
    truth = norm.cdf(-1 / math.sqrt(5))  # both classes are normal with variance 4 + 1 and 2 apart
    found = bootstrap_over_speakers(scores, is_bonafide, names, draws=400)
    clips = bootstrap_over_speakers(scores, is_bonafide, [str(i) for i in range(len(names))], draws=400)
    covered = np.mean((found.interval.low <= truth) & (truth <= found.interval.high))
    covered_clips = np.mean((clips.interval.low <= truth) & (truth <= clips.interval.high))
    assert covered >= 0.87
    assert covered_clips < 0.75  # control


def test_a_speaker_heard_in_both_classes_is_drawn_with_both_and_the_interval_covers():
    rng, clips = np.random.default_rng(4), 4
    is_bonafide, speakers = np.repeat([True, False], 20 * clips), np.tile(np.repeat(np.arange(20), clips), 2)
    # who sounds more genuine also has the spoofs that are the easier to tell: 150 data sets
    of = rng.normal(size=(150, 20))[:, speakers] * np.where(is_bonafide, 1, -1)
    scores = 2 * is_bonafide + of + rng.normal(size=of.shape)
    names = [f"s{speaker}" for speaker in speakers]
    apart = [f"{name} {which}" for name, which in zip(names, is_bonafide, strict=True)]
    truth, missed = norm.cdf(-1 / math.sqrt(2)), []
    for of_clip in (names, apart):
        limits = bootstrap_over_speakers(scores, is_bonafide, of_clip, draws=400).interval
        missed.append(np.mean((limits.low > truth) | (limits.high < truth)))
    assert missed[0] <= binom.ppf(0.999, 150, 0.07) / 150
    assert missed[1] > 0.13  # control: as if they were other speakers


def test_a_draw_without_a_class_is_passed_over():
    names = [f"s{i}" for i in range(10)] + [f"t{i}" for i in range(400)] + ["s0"]
    is_bonafide = np.r_[np.ones(10, bool), np.zeros(401, bool)]
    scores = np.random.default_rng(5).normal(size=(1, 411)) + is_bonafide
    one = bootstrap_over_speakers(scores, is_bonafide, names, draws=2000, seed=5).interval
    assert np.isfinite(one.low).all() and np.isfinite(one.high).all()
    codes, counts = speakers_in_classes(is_bonafide, names)
    times = draws_within_classes(counts, draws=2000, seed=5)[:, codes]
    assert (times[:, is_bonafide].sum(axis=1) == 0).any()  # control: there is such a draw


def test_a_difference_between_alike_models_is_sharper_than_either_and_a_null_patch_is_exactly_zero():
    rng = np.random.default_rng(2)
    is_bonafide, names, scores = corpus(rng, 1)
    models = np.stack([scores[0], scores[0], scores[0] + 0.05 * rng.normal(size=scores.shape[1])])
    found = bootstrap_over_speakers(models, is_bonafide, names, draws=300)
    assert found.difference[1] == found.difference_interval.low[1] == found.difference_interval.high[1] == 0
    width = found.interval.high - found.interval.low
    assert 0 < (found.difference_interval.high - found.difference_interval.low)[2] < 0.5 * width[2]


def test_few_speakers_of_one_class_give_no_interval_and_the_reason():
    is_bonafide, names, scores = corpus(np.random.default_rng(3), 2)
    names = np.where(is_bonafide, names, "tts")
    found = bootstrap_over_speakers(scores, is_bonafide, names)
    assert np.isfinite(found.value).all() and np.isnan(found.interval.low).all()
    assert found.difference_interval.method == "no interval: 15 bona fide and 1 spoof speakers, 10 needed of each"
    with pytest.raises(InterpError, match="n_models"):
        bootstrap_over_speakers(scores[0], is_bonafide, names)
    with pytest.raises(InterpError, match="unknown measure"):
        bootstrap_over_speakers(scores, is_bonafide, names, measure="auc")
    with pytest.raises(InterpError, match="no spoofed clip"):
        bootstrap_over_speakers(scores, np.ones(len(names), bool), names)
