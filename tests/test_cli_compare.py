"""`compare` on the command line: what it writes and prints, its exit codes, and one sentence for what is wrong."""

import json
import shlex

import pytest

from interp_core.__main__ import main
from interp_core.cli import BAD_INPUT, DONE
from interp_core.experiments.compare.experiment import COMPARE
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.experiment import open_result
from tests.spoof_pairs import save_pair, write_spoof_corpus

QUICK = ["--device", "cpu", "--patch", "each", "--stages", "mixed,logits", "--transplants", "none", "--no-reverse"]
QUICK += ["--domain-column", "none"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return *save_pair(folder, "frozen"), write_spoof_corpus(
        folder / "clips", speakers=4, utterances=1, codecs=("NONE",)
    )


@pytest.fixture
def command(pair, tmp_path):
    base, donor, manifest = map(str, pair)
    start = ["compare", "--model", base, "--donor", donor, "--manifest", manifest]
    return [*start, "--out", str(tmp_path / "run"), *QUICK]


def test_it_says_what_is_null_and_what_it_costs_before_it_starts_and_prints_the_folder_alone(command, tmp_path, capsys):
    assert main(command) == DONE
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'run'}\n"
    lines = said.err.splitlines()
    null = next(i for i, line in enumerate(lines) if "must change nothing" in line)
    cost = next(i for i, line in enumerate(lines) if "forward passes" in line)
    assert null < cost
    assert any(line.split()[:1] == ["mixed"] and "eer" in line for line in lines)
    made = open_result(COMPARE, tmp_path / "run")
    layers = [f"layer {i}" for i in range(4)]
    assert list(made.summary["model"]) == ["base", "donor", *layers, "mixed", "logits", "layer weights"]


def test_a_config_repeats_the_run_and_the_pages_command_asks_for_the_same(command, tmp_path):
    assert main(command) == DONE
    config = tmp_path / "run" / "compare_config.json"
    again = tmp_path / "again"
    assert main(["compare", "--config", str(config), "--out", str(again)]) == DONE
    for name in ("cka.csv", "patched_scores.csv", "summary.csv"):
        assert (again / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    request = CompareRequest.from_config(json.loads(config.read_text()))
    third = tmp_path / "third"
    typed = shlex.split(request.command_line(str(third)))[3:]
    assert main(typed) == DONE
    assert (third / "summary.csv").read_bytes() == (again / "summary.csv").read_bytes()


@pytest.mark.parametrize(
    "more, said",
    [
        (["--patch", "0,9"], "layer 9 is outside"),
        (["--stages", "middle"], "no stage 'middle'"),
        (["--transplants", "magic"], "--transplants 'magic' is none of mean, ridge, procrustes"),
        (["--label-column", "planet"], "no clip has a column 'planet'"),
        (["--bonafide-index", "3"], "bona fide index 3"),
        (["--pilot", "1"], "a pilot of 1 clips"),
    ],
)
def test_bad_input_is_code_2_and_one_sentence_and_nothing_is_written(command, tmp_path, capsys, more, said):
    assert main([*command, *more]) == BAD_INPUT
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and said in error[0]
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_counterpart_needs_a_donor(pair, tmp_path, capsys):
    base, _, manifest = map(str, pair)
    assert main(["compare", "--model", base, "--manifest", manifest, "--out", str(tmp_path / "run")]) == BAD_INPUT
    assert "--donor MODEL" in capsys.readouterr().err
