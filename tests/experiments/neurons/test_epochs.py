"""Checkpoints over epochs: found by name, chosen by what is asked, ablated each into its own folder."""

import json
import re
import shlex

import pytest
import torch

from interp_core.__main__ import main
from interp_core.cli import BAD_INPUT, DONE, INTERRUPTED
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments import basis
from interp_core.experiments.experiment import run
from interp_core.experiments.neurons import experiment
from interp_core.experiments.neurons.epochs import checkpoints, chosen
from interp_core.experiments.neurons.experiment import NEURONS
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.runs import read_config
from interp_core.sinks import MEMORY, prepared_in
from tests.experiments.neurons.test_neurons_experiment import QUICK, pictures


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """(run folder with three epochs, corpus): epoch 2's head always answers tumour, epoch 10's is the first upside
    down. Half of the patches of either domain are right with each."""
    root = tmp_path_factory.mktemp("training")
    model, corpus = pictures(root)
    state = torch.load(model, weights_only=True)
    (root / "run" / "checkpoints").mkdir(parents=True)
    for epoch, factor, bias in ((1, 1.0, 0.0), (2, 0.0, 5.0), (10, -1.0, 0.0)):
        changed = {**state, "fc.weight": factor * state["fc.weight"], "fc.bias": 0 * state["fc.bias"]}
        changed["fc.bias"][1] = bias
        torch.save(changed, root / "run" / "checkpoints" / f"epoch_{epoch}.pt")
    return root / "run", corpus, len(state["fc.bias"])


def asked(training, epoch):
    run, corpus, n = training
    labels = ("normal", "tumor", *(f"other {i}" for i in range(n - 2)))
    return AblateRequest(
        str(run), str(corpus), device="cpu", corpus="camelyon17", draws=2, labels=labels, epoch=epoch, **QUICK
    )


def test_checkpoints_are_found_by_their_numbers_in_order(training):
    assert list(checkpoints(str(training[0]))) == [1, 2, 10]
    with pytest.raises(InterpError, match="holds no checkpoint of an epoch"):
        checkpoints(str(training[1]))


def test_the_best_is_that_of_the_unedited_models_and_peeking_is_said(training):
    said, engine = [], Engine()
    accuracy = NEURONS.accuracy
    scores = {e: accuracy(engine, one) for e, one in chosen(engine, asked(training, "all"), accuracy).items()}
    assert scores[2] == (0.5, 0.5)  # half of the patches are tumour
    for choice, place in (("best-id", 0), ("peak-ood", 1)):
        (best,) = chosen(engine, asked(training, choice), accuracy, said.append)
        assert scores[best][place] == max(score[place] for score in scores.values())
    assert sum("too high" in line for line in said) == 1
    with pytest.raises(InterpError, match="epoch 3 is not among 1, 2, 10"):
        chosen(engine, asked(training, "3"), accuracy)
    with pytest.raises(InterpError, match="is no number and none of all"):
        chosen(engine, asked(training, "latest"), accuracy)


def test_a_choice_that_was_begun_on_is_not_made_again_by_a_run_that_goes_on(training, tmp_path, monkeypatch, capsys):
    request, counts = asked(training, "best-id"), []
    line = shlex.split(request.command_line(str(tmp_path / "out")))[3:]
    collect, sweep = experiment.collect, experiment.run_sweep

    def counted(*given, sink=MEMORY, **more):
        counts.append(sink is MEMORY)  # of a choice, which keeps no chunks
        return collect(*given, sink=sink, **more)

    def stopped(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "collect", counted)
    monkeypatch.setattr(experiment, "run_sweep", stopped)
    assert main(line) == INTERRUPTED
    said = capsys.readouterr().err
    assert sum(counts) == 3 and said.count("right in domain") == 3
    counts.clear()
    assert main([*line, "--resume"]) == INTERRUPTED
    assert sum(counts) == 0 and capsys.readouterr().err.count("right in domain") == 3
    (sealed,) = (tmp_path / "out").glob("epoch_*/chunk_prepared_*")
    sealed.unlink()
    config = sealed.with_name("ablation_config.json")
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "choice"}))
    assert main([*line, "--resume"]) == INTERRUPTED
    assert sum(counts) == 3, "what is lost is measured again"
    counts.clear()
    monkeypatch.setattr(experiment, "run_sweep", sweep)
    assert main([*line, "--resume"]) == DONE and sum(counts) == 0
    capsys.readouterr()
    assert main([*line, "--resume"]) == DONE and not counts[1:], "a finished run is read back"
    assert "What these numbers rest on" in capsys.readouterr().err
    (folder,) = (tmp_path / "out").glob("epoch_*")
    other = training[0] / "checkpoints" / ("epoch_1.pt" if folder.name != "epoch_00001" else "epoch_2.pt")
    before = other.read_bytes()
    other.write_bytes((training[0] / "checkpoints" / "epoch_10.pt").read_bytes())
    try:
        counts.clear()
        main([*line, "--resume"])
        assert sum(counts) == 1, "a checkpoint that holds something else now is measured again, and no other"
    finally:
        other.write_bytes(before)


SCORES = {1: (0.5, 0.9), 2: (0.8, 0.3), 10: (0.6, 0.9)}
"""By epoch, in domain and out of domain: each place has another best, and out of domain there are two."""


def scored(_engine, request):
    return SCORES[int(re.search(r"epoch_(\d+)", request.model)[1])]


@pytest.mark.parametrize(
    "choice, best, place",
    [
        ("best-id", 2, "accuracy in domain (80.0%)"),
        ("peak-ood", 1, "out of domain (90.0%, as high at epoch 10), on the"),
    ],
)
def test_how_a_checkpoint_was_chosen_stands_in_its_run(training, tmp_path, monkeypatch, choice, best, place):
    monkeypatch.setattr(NEURONS, "accuracy", scored)
    request = asked(training, choice)
    (epoch,) = chosen(Engine(), request, scored)
    assert epoch == best
    result = run(NEURONS, Engine(), request, out=tmp_path / "run")
    assert result.config["model"]["id"].endswith(f"epoch_{best}.pt")
    said = read_config(tmp_path / "run")["choice"]
    assert said["by"] == choice and said["accuracies"] == {str(e): list(found) for e, found in SCORES.items()}
    line = basis.line(result.config)
    assert f"epoch {best}, chosen of 1, 2, 10 by" in line and place in line
    assert ("too high" in line) == (choice == "peak-ood")
    named = run(NEURONS, Engine(), asked(training, str(best)), out=tmp_path / "named")
    assert "choice" not in named.config and "chosen" not in basis.line(named.config)


def test_a_run_that_was_chosen_keeps_its_choice_however_it_is_gone_on_with(training, tmp_path, monkeypatch):
    sweep = experiment.run_sweep

    def stopped(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(NEURONS, "accuracy", scored)
    monkeypatch.setattr(experiment, "run_sweep", stopped)
    line = shlex.split(asked(training, "peak-ood").command_line(str(tmp_path / "out")))[3:]
    assert main(line) == INTERRUPTED
    (folder,) = (tmp_path / "out").iterdir()
    begun = read_config(folder)
    again = ["ablate", "--config", str(folder / "ablation_config.json"), "--out", str(folder), "--resume"]
    assert main(again) == INTERRUPTED
    assert read_config(folder)["choice"] == begun["choice"] and "too high" in basis.line(read_config(folder))
    monkeypatch.setitem(SCORES, 2, (0.8, 0.95))  # another checkpoint would be chosen now
    monkeypatch.setattr(experiment, "run_sweep", sweep)
    assert main([*line, "--resume"]) == DONE
    now = read_config(tmp_path / "out" / "epoch_00002")["choice"]
    assert now["accuracies"]["2"] == [0.8, 0.95] and "as high" not in now["said"]
    assert main(again) == DONE and "too high" in basis.line(read_config(folder))


@pytest.mark.parametrize("damage", [5, {"x": 5}, {"x": ["a", "b"]}, {"x": [1, 2, 3]}, None])
def test_a_damaged_choice_is_measured_again(tmp_path, damage):
    (tmp_path / "run_config.json").write_text(json.dumps({"choice": {"prepared": damage}}))
    assert prepared_in(tmp_path) == {}
    (tmp_path / "run_config.json").write_text(json.dumps({"choice": {"prepared": {"x": [0.5, 1]}}}))
    assert prepared_in(tmp_path) == {"x": [0.5, 1.0]}, "control"


def test_every_epoch_gets_a_folder_of_its_own(training, tmp_path, capsys):
    run, corpus, n = training
    labels = ",".join(["normal", "tumor", *(f"other {i}" for i in range(n - 2))])
    command = ["ablate", "--model", str(run), "--manifest", str(corpus), "--corpus", "camelyon17", "--device", "cpu"]
    command += ["--ks", "0,4", "--draws", "2", "--refits", "0", "--labels", labels, "--out", str(tmp_path / "out")]
    assert main([*command, "--epoch", "all"]) == DONE
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert folders == ["epoch_00001", "epoch_00002", "epoch_00010"]
    saved = json.loads((tmp_path / "out" / "epoch_00010" / "neuron_ablation.json").read_text())
    assert saved["epoch"] == 10 and saved["run_id"] == "epoch_00010"
    assert main([*command, "--epoch", "last"]) == BAD_INPUT
