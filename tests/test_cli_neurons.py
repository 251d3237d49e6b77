"""`ablate` and `signflip` on the command line: cost before, files after, exit codes, repeated from a config."""

import json

import pytest

from interp_core.__main__ import main
from interp_core.cli import BAD_INPUT, DONE
from tests.experiments.neuron_clips import write_clips, write_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    return write_model(folder / "model"), write_clips(folder / "clips")


def run(place, command, *more):
    model, manifest = place
    return main([command, "--model", str(model), "--manifest", str(manifest), "--device", "cpu", *map(str, more)])


def test_ablate_says_what_it_will_cost_and_what_it_found(place, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(place, "ablate", "--ks", "0,4", "--draws", "3", "--refits", "0", "--kind", "zero", "--out", out) == DONE
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "about 24 forward passes" in said.err and "task prosody_label, domain speaker" in said.err
    assert "at K = 1: " in said.err
    config = json.loads((out / "ablation_config.json").read_text())
    assert config["finished"] and config["settings"]["kind"] == "zero" and config["settings"]["ks"] == [0, 4]
    assert main(["ablate", "--config", str(out / "ablation_config.json"), "--out", str(tmp_path / "again")]) == DONE
    for name in ("neuron_scores.csv", "ablation_curve.csv"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert run(place, "ablate", "--out", out) == BAD_INPUT
    assert "already holds a run" in capsys.readouterr().err


def test_signflip_says_what_it_will_cost_and_what_is_zero_by_construction(place, tmp_path, capsys):
    out = tmp_path / "run"
    asked = ("--target", "happy", "--topk", "3", "--frames", "all", "--draws", "2", "--layers", "0,2")
    assert run(place, "signflip", *asked, "--units", "text_id", "--out", out) == DONE
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "forward passes" in said.err and "3 of 32 neurons of 'happy'" in said.err
    assert "0 by construction at the edited layer itself: centroid, centroid_no_dc, rms, zcr_refit" in said.err
    assert "layer 2: target probability" in said.err and "layer 1:" not in said.err
    assert main(["signflip", "--config", str(out / "signflip_config.json"), "--out", str(tmp_path / "again")]) == DONE
    for name in ("proxy_changes.csv", "attribution_top.csv"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    "command, more, said",
    [
        ("ablate", ("--domain", "hospital"), "no clip has a column 'hospital'"),
        ("ablate", ("--ks", "four"), "--ks 'four' is not a whole number (or a list of them)"),
        ("ablate", ("--at", "resid_pst:1"), "did you mean 'resid_post'"),
        ("signflip", ("--target", "nobody"), "target 'nobody' is none of"),
        ("signflip", ("--layers", "8"), "outside"),
        ("signflip", ("--corpus", "ravdes"), "did you mean 'ravdess'"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_two(place, tmp_path, capsys, command, more, said):
    assert run(place, command, *more, "--out", tmp_path / "run") == BAD_INPUT
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert not (tmp_path / "run" / "ablation_config.json").exists()


def test_a_model_must_be_named(tmp_path, capsys):
    for command in ("ablate", "signflip"):
        assert main([command, "--out", str(tmp_path)]) == BAD_INPUT
        assert "--model is missing" in capsys.readouterr().err
