"""Which experiment a kind of model can be asked: as the experiments themselves refuse, and with commands that parse."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from transformers import CONFIG_MAPPING, AutoModelForAudioClassification

from interp_core.cli import parser, request_of
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.experiment import run
from interp_core.experiments.fitting import example, lacks, suited
from interp_core.experiments.steering.experiment import STEERING
from interp_core.experiments.steering.request import SteerRequest
from interp_core.models.arch import ENCODERS
from interp_core.models.families import families
from tests.experiments.neurons.test_neurons_experiment import pictures

BY_NAME = {family.name: family for family in families()}
ALL = tuple(EXPERIMENTS)
READ = ("normal=LABEL_0", "tumor=LABEL_1")
HEADLESS = ("patch", "compare", "ablate", "probes", "steer")
NO_TIME = ("patch", "compare", "heads", "ablate", "probes", "steer")


@pytest.mark.parametrize("name", BY_NAME)
def test_every_kind_runs_what_its_positions_and_heads_allow(name):
    expected = {"clap": NO_TIME, "whisper (decoder)": NO_TIME, "resnet": ("ablate", "steer"), "AASIST": HEADLESS}.get(
        name, ALL
    )
    if name.endswith("(decoder)"):
        expected = NO_TIME
    assert suited(BY_NAME[name]) == expected
    assert all(lack is None or lack.startswith(("has no", "sees")) for lack in lacks(BY_NAME[name]).values())


@pytest.mark.parametrize("name", BY_NAME)
def test_the_example_of_every_kind_and_experiment_is_a_command_that_parses_and_passes_its_check(name):
    for command in suited(BY_NAME[name]):
        line = example(BY_NAME[name], command)
        args = parser().parse_args(shlex.split(line)[3:])
        request_of(args).check()
        assert args.command == command and ("--part=decoder" in line) == ("(decoder)" in name)
        probed = name.startswith("parakeet") and command not in (
            "heads",
            "probes",
        )  # no class of the library answers for it
        assert ("--probe=label" in line) == probed


def test_a_kind_has_a_classifier_where_the_library_ships_one():
    mapping = AutoModelForAudioClassification._model_mapping
    heads = {kind for kind in ENCODERS if CONFIG_MAPPING[kind] in mapping.keys()}
    assert {kind for kind, row in ENCODERS.items() if row.classifier} - {"clap"} == heads


def test_what_a_kind_lacks_is_what_its_runs_are_refused_with(tmp_path):
    model, folder = pictures(tmp_path)
    subject = Engine().open(str(model), device="cpu")
    for command, lack in lacks(BY_NAME["resnet"]).items():
        settings = {"model": str(model), "manifest": str(folder), "corpus": "camelyon17", "device": "cpu"}
        settings |= {"donor": str(model)} if command == "compare" else {}
        settings |= {"kinds": "same=center,differ=label", "site": "resid_post"} if command == "patch" else {}
        settings |= {"labels": tuple(subject.answers), "map_labels": READ} if command not in ("heads", "probes") else {}
        experiment, request = experiment_of(command), EXPERIMENTS[command].request(**settings)
        if lack is None:
            experiment.prepare(Engine(), request)
            continue
        with pytest.raises(InterpError, match="has no attention heads|frames in time that stay|hears no recording"):
            experiment.prepare(Engine(), request)


def test_pictures_are_steered_behind_every_layer_though_the_layers_differ_in_width(tmp_path):
    model, folder = pictures(tmp_path)
    asked = SteerRequest(
        str(model), str(folder), corpus="camelyon17", device="cpu", task="label", targets=("LABEL_1",), pilot=6,
        labels=("LABEL_0", "LABEL_1"), map_labels=READ, alphas=(4.0,), draws=2,
    )  # fmt: skip
    fast, plain = (run(STEERING, Engine(), replace(asked, method=method)).records for method in ("fast", "reference"))
    assert len(fast) == len(plain) > 10 and set(fast["layer"].dropna()) == set(range(6))
    a, b = ([value for logits in rows["logits"] for copy in logits for value in copy] for rows in (fast, plain))
    assert np.ptp(a) > 1e-2
    np.testing.assert_allclose(a, b, atol=2e-4)  # records have four places
