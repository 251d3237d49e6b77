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
from interp_core.sinks import MEMORY
from tests.experiments.neurons.test_neurons_experiment import QUICK, pictures


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """(run folder with three epochs, corpus): epoch 2's head always answers tumour, epoch 10's is the first upside
    down."""
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


@pytest.mark.parametrize(
    "choice, place, warned", [("best-id", "in domain", False), ("peak-ood", "out of domain", True)]
)
def test_how_a_checkpoint_was_chosen_stands_in_its_run(training, tmp_path, choice, place, warned):
    result = run(NEURONS, Engine(), asked(training, choice), out=tmp_path / "run")
    said = read_config(tmp_path / "run")["choice"]
    assert said["by"] == choice and [*said["accuracies"]] == ["1", "2", "10"]
    best = re.search(r"epoch_(\d+)", result.config["model"]["id"])[1]
    at = 1 if warned else 0
    assert said["accuracies"][best][at] == max(found[at] for found in said["accuracies"].values())
    line = basis.line(result.config)
    assert f"epoch {best}, chosen of 1, 2, 10" in line
    equal = [e for e, a in said["accuracies"].items() if a[at] == said["accuracies"][best][at] and e != best]
    assert ("as high at epoch" in line) == bool(equal) and all(e in line.split("as high at")[-1] for e in equal)
    assert place in line and ("too high" in line) == warned
    named = run(NEURONS, Engine(), asked(training, best), out=tmp_path / "named")
    assert "choice" not in named.config and "chosen" not in basis.line(named.config)


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
