"""The domain erased: nothing linear is left of it where it was planted, and random subspaces leave it where it is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from interp_core.experiments.neurons import files
from interp_core.experiments.neurons.erase import Erasers, erasure_sentence
from interp_core.experiments.neurons.experiment import NEURONS
from interp_core.experiments.neurons.sweep import run_sweep
from interp_core.runs import RunWriter
from tests.experiments.neurons.test_sweep import QUICK, value
from tests.experiments.planted import impact_of, planted, rest_of

ERASING = replace(QUICK, erase=True, draws=12, refits=1, ks=(0, 8))


@pytest.fixture(scope="module")
def erased():
    table, head = planted()
    settings = {"erase": True, "score": "coef", "kind": "mean", "seed": 0}
    config = {"model": {"id": "planted"}, "settings": settings, "finished": True}
    return run_sweep(table, rest_of(table, head), impact_of(table, head), ERASING, config=config)


def test_nothing_linear_is_left_of_an_erased_domain_and_the_task_stays(erased):
    table = erased.erasure.set_index("set")
    base = erased.report["base"]
    assert table["rank"].to_dict() == {"domain": 3, "task": 1, "random": 3}
    assert base["domain_refit"] > 0.6 and table.domain_refit["domain"] < 0.3  # of four domains
    assert table.domain_probe["domain"] < 0.3 and table.domain_probe_high["domain"] < 0.35
    assert table.head_id_change_high["task"] < -0.1 < table.head_id_change_low["domain"]
    assert abs(table.head_id_change["random"]) < 0.05 and table.domain_refit["random"] > base["domain_refit"] - 0.1
    assert abs(table.task_refit_change["domain"]) < 0.05 and table.task_refit["task"] < 0.6
    said = erasure_sentence(erased.erasure, erased.report)
    assert "rank 3" in said and "refitted domain probe" in said and "12 random subspaces" in said


def test_the_numbers_are_those_of_features_erased_by_a_plain_formula(erased):
    table, head = planted()
    one = Erasers.fit(table, ERASING).maps[0]
    x = table.features.double().numpy()
    matrix = np.eye(x.shape[1]) - one.left.numpy() @ one.right.numpy()
    centre = x[table.train].mean(0)
    new = centre + (x - centre) @ matrix.T
    answers = head(torch.from_numpy(new).float()).argmax(-1).numpy()
    for split in ("ood", "id"):
        rows = getattr(table, split)
        right = np.asarray(table.labels)[answers[rows]] == table.task[rows]
        row = erased.erasure.set_index("set").loc["domain"]
        assert row[f"head_{split}"] == pytest.approx(right.mean(), abs=2 / len(rows))  # ties of rounding
        assert row[f"head_{split}_change"] == pytest.approx(
            row[f"head_{split}"] - erased.report["base"][f"head_{split}"]
        )
    z = np.eye(4)[[int(name[1]) for name in table.domain[table.train]]]
    assert np.abs((new[table.train] - new[table.train].mean(0)).T @ (z - z.mean(0))).max() / len(z) < 1e-9


def test_clips_that_are_measured_on_have_no_hand_in_what_is_erased():
    table, _ = planted()
    own = Erasers.fit(table, ERASING).maps[0]
    for rows, same in ((np.concatenate([table.id, table.ood]), True), (table.train, False)):
        features = table.features.clone()
        features[rows] = features[rows].flip(0) * 3
        other = Erasers.fit(replace(table, features=features), ERASING).maps[0]
        assert torch.equal(own.left, other.left) == same


def test_the_sweep_of_neurons_is_the_same_with_it_and_without(erased):
    table, head = planted()
    without = run_sweep(
        table, rest_of(table, head), impact_of(table, head), replace(ERASING, erase=False), config={}
    )  # fmt: skip
    assert without.erasure.empty and "erasure" not in without.tables() and "erasure" not in without.report
    assert without.curve.equals(erased.curve) and without.report["verdict"] == erased.report["verdict"]
    assert value(erased, "domain", 8, "head_ood") > without.report["base"]["head_ood"]
    assert replace(QUICK, erase=False).key == QUICK.key != replace(QUICK, erase=True).key


def test_the_folder_holds_what_was_erased_and_reads_back(erased, tmp_path):
    config = dict(erased.config, command="ablate")
    with RunWriter.create(tmp_path / "run", config, NEURONS.request.config_file) as writer:
        files.write(writer, replace(erased, report={**erased.report, "site": "pooled"}))
    again = files.read(tmp_path / "run", config)
    pd.testing.assert_frame_equal(again.erasure, erased.erasure)
    assert (tmp_path / "run" / "neuron_ablation.png").stat().st_size > 10_000
