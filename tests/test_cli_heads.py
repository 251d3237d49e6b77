"""`heads` on the command line: files, exit codes, what is said."""

import json
from pathlib import Path

import pytest
import torch

from interp_core.__main__ import main
from tests.experiments.heads_cases import CLASSES, write_clips, write_manifest
from tests.families.encoders import save_clap_audio


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cli")
    save_clap_audio(folder / "m", depths=(1, 1, 1, 1), heads=(1, 2, 4, 8))
    write_manifest(folder / "c", write_clips(folder / "c", CLASSES * 5, seconds=(0.5,)), train=3)
    return folder


def run(place: Path, *more: str) -> int:
    return main(["heads", "--model", str(place / "m"), "--device", "cpu", *more])


def test_a_run_from_start_to_files_and_again_from_its_config(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    manifest = ["--manifest", str(place / "c" / "clips.csv")]
    settings = ["--per-class", "3", "--draws", "99", "--ablate", "zero", "--probe", "label", "--seed", "5"]
    assert run(place, *manifest, *settings, "--out", str(tmp_path / "run")) == 0
    said = capsys.readouterr()
    assert "left out: 3 training clips" in said.err and "9 clips (hiss 3, hum 3, tone 3): about" in said.err
    assert "of 15 beyond chance" in said.err and said.out.strip() == str(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "heads_config.json").read_text())
    assert config["settings"]["per_class"] == 3 and config["settings"]["seed"] == 5 and config["finished"]
    again = ["heads", "--config", str(tmp_path / "run" / "heads_config.json"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    for name in ("fisher.csv", "ablation.csv", "m_head_outputs.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--label", "species"], "no clip has a value in 'species'"),
        (["--per-class", "50"], "50 clips of every label were asked for"),
        (["--ablate", "zero"], "has no classifier"),
        (["--ablate", "burn", "--probe", "label"], "--ablate 'burn' is none of zero, mean, resample"),
        (["--draws", "3"], "--draws 3 is too small; give 19 or more"),
        (["--corpus", "nonsense"], "unknown corpus 'nonsense'"),
    ],
)
def test_bad_input_ends_in_2_and_one_sentence(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], words: str
) -> None:
    assert run(place, "--manifest", str(place / "c" / "clips.csv"), *more, "--out", str(tmp_path / "run")) == 2
    assert words in capsys.readouterr().err


def test_a_missing_model_or_manifest_is_said(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["heads", "--out", str(tmp_path / "run")]) == 2
    assert "--model is missing" in capsys.readouterr().err
    assert run(place, "--out", str(tmp_path / "run")) == 2
    assert "has no clips of its own" in capsys.readouterr().err
    assert run(place, "--corpus", "auto", "--out", str(tmp_path / "run")) == 2
    assert "needs its folder" in capsys.readouterr().err
