"""The sweep finds planted neurons, says what they do, and says so of nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from interp_core.errors import InterpError
from interp_core.experiments.downstream import fillings
from interp_core.experiments.neurons.measures import Evidence, area, judge
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.scores import LinearProbe, ranked
from interp_core.experiments.neurons.sweep import run_sweep
from tests.experiments.planted import LABELS, SHORTCUT, TASK, WIDTH, impact_of, planted, rest_of

QUICK = AblateRequest("m", ks=(0, 4, 8, 16, WIDTH), draws=40, refits=0)


def sweep(table, head, settings=QUICK):
    return run_sweep(table, rest_of(table, head), impact_of(table, head), settings, config={})


@pytest.fixture(scope="module")
def with_shortcut():
    return sweep(*planted())


def value(found, name, k, column):
    rows = found.curve[(found.curve["set"] == name) & (found.curve["k"] == k)]
    assert len(rows) == 1
    return rows[column].iloc[0]


@pytest.mark.slow
def test_at_least_seven_of_eight_planted_neurons_of_either_sort_are_found_in_nineteen_of_twenty_seeds():
    hits = {"domain": 0, "task": 0}
    for seed in range(20):
        table, _ = planted(seed)
        x = table.features.double().numpy()[table.train]
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        for name, true in (("domain", SHORTCUT), ("task", TASK)):
            labels = getattr(table, name)[table.train]
            order = ranked(z, labels, LinearProbe(z, labels), "coef").order
            hits[name] += len(set(order[:8]) & set(true)) >= 7
    assert min(hits.values()) >= 19, hits


def test_without_the_shortcut_neurons_accuracy_out_of_domain_rises_without_the_task_neurons_it_falls(with_shortcut):
    base = value(with_shortcut, "domain", 0, "head_ood")
    domain, task = (value(with_shortcut, name, 8, "head_ood") for name in ("domain", "task"))
    random = value(with_shortcut, "random", 8, "head_ood")
    assert domain > base + 0.2 and task < base - 0.02
    assert task < random < domain
    assert value(with_shortcut, "domain", 8, "head_ood_change_low") > 0
    assert value(with_shortcut, "task", 8, "head_ood_change_high") < 0
    assert value(with_shortcut, "domain", 8, "domain_probe") < value(with_shortcut, "domain", 0, "domain_probe") - 0.15
    assert value(with_shortcut, "task", 8, "task_probe") < value(with_shortcut, "task", 0, "task_probe") - 0.03


def test_the_verdict_is_selective_where_a_shortcut_is_planted_and_its_numbers_stand_beside_it(with_shortcut):
    report = with_shortcut.report
    assert report["verdict"] == "selective", report["why"]
    evidence = report["evidence"]
    assert evidence["k"] == 8  # a sixteenth of the width
    assert evidence["domain_drop"] > evidence["random_drop"]
    assert evidence["ood_change"] == pytest.approx(value(with_shortcut, "domain", 8, "head_ood_change"))
    assert f"{evidence['domain_drop']:.3f}" in report["why"]


@pytest.mark.parametrize("seed", range(3))
def test_the_verdict_is_not_selective_where_no_shortcut_is_planted(seed):
    report = sweep(*planted(seed, shortcut=False)).report
    assert report["verdict"] == "not selective", report["why"]


def test_no_neuron_edited_is_the_unedited_model_exactly_and_all_of_them_are_the_model_of_constant_features():
    table, head = planted()
    for kind, constant in (("mean", table.features[table.train].mean(0)), ("zero", torch.zeros(WIDTH))):
        found = sweep(table, head, replace(QUICK, kind=kind, draws=1))
        answers = found.answers
        none = answers[answers["k"] == 0]
        assert (none["answer"] == none["base"]).all()
        everything = answers[answers["k"] == WIDTH]
        expected = LABELS.labels[int(head(constant).argmax())]
        assert set(everything["answer"]) == {expected}


@pytest.mark.parametrize("kind", ["mean", "zero", "flip", "resample"])
def test_editing_behind_the_site_is_editing_the_stored_features(kind):
    table, _ = planted()
    torch.manual_seed(1)
    head = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 2)).requires_grad_(False)
    rest, masks = rest_of(table, head), torch.rand(5, WIDTH) < 0.3
    fill = fillings(kind, table.features, table.train, seed=7)
    found = rest.answers(table.ood, masks, fill)
    donors = np.random.default_rng(7).choice(table.train, size=len(table.features))
    for row, mask in enumerate(masks):
        for column in range(0, len(table.ood), 50):
            i = table.ood[column]
            edited = table.features[i].clone()
            for neuron in mask.nonzero().flatten():
                edited[neuron] = {
                    "mean": table.features[table.train, neuron].mean(),
                    "zero": 0.0,
                    "flip": -table.features[i, neuron],
                    "resample": table.features[donors[i], neuron],
                }[kind]
            assert found[row, column] == int(head(edited).argmax())
    plain = rest.answers(table.ood, torch.zeros(1, WIDTH, dtype=torch.bool), fill)
    assert (found != plain).any()  # control: these edits do change answers


def test_a_frozen_probe_on_edited_features_is_the_probe_on_features_edited_by_hand():
    table, head = planted()
    settings = replace(QUICK, kind="mean", draws=1)
    found = sweep(table, head, settings)
    x = table.features.double().numpy()
    mean, sd = x[table.train].mean(axis=0), x[table.train].std(axis=0)
    z = (x - mean) / sd
    probe = LinearProbe(z[table.train], table.domain[table.train])
    order = found.scores.sort_values("domain_rank")["neuron"].to_numpy()
    edited = z[table.id].copy()
    edited[:, order[:16]] = 0  # the mean, standardised
    right = probe.right(edited, table.domain[table.id])
    classes = sorted(set(table.domain[table.id]))
    balanced = np.mean([right[table.domain[table.id] == c].mean() for c in classes])
    assert value(found, "domain", 16, "domain_probe") == pytest.approx(balanced, abs=1e-12)


def test_a_probe_that_is_fitted_again_learns_around_what_was_ablated():
    table, head = planted(per_split=200, units=20)
    found = sweep(table, head, replace(QUICK, ks=(0, 8), draws=3, refits=2))
    frozen_, again = (value(found, "domain", 8, f"domain_{name}") for name in ("probe", "refit"))
    assert again > frozen_ + 0.05  # the distractors still tell the domain
    assert value(found, "domain", 0, "domain_refit") == pytest.approx(value(found, "domain", 0, "domain_probe"))


def test_a_probe_of_one_domain_is_refused_with_the_reason_and_is_no_number_anywhere():
    table, head = planted(per_split=200, units=20)
    one = np.flatnonzero(table.domain == "d1")
    alone = replace(table, id=np.intersect1d(table.id, one))
    found = sweep(alone, head, replace(QUICK, refits=1, draws=5))
    assert "all hold 'd1'" in found.report["refused"]["domain_probe"]
    assert found.report["verdict"] == "undecided" and "cannot be measured" in found.report["why"]
    assert "domain_probe" not in found.report["base"]
    assert found.curve["domain_probe"].isna().all() and found.curve["head_ood"].notna().all()


def test_under_ten_units_there_is_no_interval_and_no_selective_verdict():
    table, head = planted(units=5)
    found = sweep(table, head, replace(QUICK, draws=20))
    ranked_rows = found.curve[found.curve["set"].isin(("domain", "task"))]
    assert ranked_rows["head_ood_low"].isna().all()
    assert "5 units, 10 needed" in found.report["intervals"]["head_ood"]
    assert found.report["verdict"] == "undecided" and "has no interval" in found.report["why"]


def test_labels_that_the_head_does_not_answer_are_refused_with_both_lists():
    table, head = planted(per_split=100)
    with pytest.raises(InterpError, match=r"none of the 100 ood clips .*no, yes.*tumor"):
        sweep(replace(table, task=np.where(np.arange(300) < 100, table.task, "tumor")), head)


def test_the_area_under_a_constant_change_is_that_change_and_under_a_ramp_in_log_dose_its_half():
    assert area([0, 1, 3, 7], [0.2] * 4) == pytest.approx(0.2)
    assert area([0, 1, 3, 7], [0.0, 1.0, 2.0, 3.0]) == pytest.approx(1.5)


def test_a_sweep_of_wide_features_costs_little_beside_making_them():
    # The bound of the experiment itself is measured in benchmarks/ablation.py; here only that draws run as one batch.
    table, head = planted(per_split=50, units=10)
    rest, calls = rest_of(table, head), []
    inner = rest.logits
    rest.logits = lambda rows: calls.append(len(rows)) or inner(rows)
    run_sweep(table, rest, impact_of(table, head), replace(QUICK, draws=100), config={})
    assert len(calls) == 2 and sum(calls) == 2 * 50 * (2 * 5 + 200 * 4)


def test_a_drop_beyond_a_few_random_sets_is_not_called_selective():
    found = Evidence(4, 0.3, 0.01, 0.1, 0.05, 0.2, 0.0, 0.0, draws=20)
    assert judge(found)[0] == "selective"
    word, why = judge(replace(found, draws=19))
    assert word == "undecided" and why == "19 random draws are too few to rank the drop among: --draws 20"
