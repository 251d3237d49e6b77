"""Every experiment over a model that gives NaN or overflows: exit 2 and one sentence with the clip, layer and dtype."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.not_finite import BAD, COMMANDS
from interp_core.__main__ import main
from interp_core.cli import BAD_INPUT
from tests.experiments.neuron_clips import write_clips
from tests.families.encoders import EMOTIONS, save_wavlm, save_whisper
from tests.tiny import save_qwen2_audio

SAVE: dict[str, Callable[[Path], Path]] = {
    "wavlm": lambda folder: save_wavlm(folder, n_layers=3, labels=EMOTIONS),
    "whisper": save_whisper,
    "qwen2_audio": save_qwen2_audio,
}
BLOCK = {
    "wavlm": f"wavlm.encoder.layers.{BAD}.feed_forward.",
    "whisper": f"model.encoder.layers.{BAD}.fc",
    "qwen2_audio": f"language_model.model.layers.{BAD}.mlp.",
}
TOO_LARGE = ("float16", "use bfloat16 or float32")
HARMS = {"nan": ("float32", "holds NaN"), "overflow": TOO_LARGE, "cut": TOO_LARGE}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("not-finite")
    write_clips(root / "corpus")
    return root


def model(place: Path, name: str, harm: str) -> Path:
    whole, broken = place / name, place / f"{name}-{harm}"
    if not whole.exists():
        SAVE[name](whole)
    if not broken.exists():
        shutil.copytree(whole, broken)
        weights = load_file(broken / "model.safetensors")
        chosen = [key for key in weights if BLOCK[name] in key and weights[key].ndim == 2]
        assert chosen
        for key in chosen[-1:] if harm == "nan" else chosen:
            if harm == "cut":  # all one way: the clamp of Whisper's blocks makes it finite again
                weights[key].fill_(3e4)
            elif harm == "overflow":
                weights[key] = torch.where(torch.arange(weights[key].numel()).view_as(weights[key]) % 3 > 0, 3e4, -3e4)
            else:
                weights[key][0, 0] = torch.nan
        save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    return broken


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "name", ["wavlm", *(pytest.param(name, marks=pytest.mark.slow) for name in SAVE if name != "wavlm")]
)
def test_a_model_that_gives_no_finite_numbers_ends_in_one_sentence(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture, name: str, command: str, harm: str
) -> None:
    dtype, words = HARMS[harm]
    broken = str(model(place, name, harm))
    given = [command, "--model", broken, "--manifest", str(place / "corpus" / "clips.csv")]
    given += [*COMMANDS[command], "--device", "cpu", "--dtype", dtype, "--out", str(tmp_path / "run")]
    if command == "compare":
        given += ["--donor", str(place / name)]
        given += [] if name == "wavlm" else ["--prompt", prompt_of(name)]
    if name != "wavlm" and command in ("patch", "ablate", "signflip", "steer", "compare"):
        given += ["--labels", ",".join(EMOTIONS)]
    assert main(given) == BAD_INPUT
    said = capsys.readouterr().err
    sentence = said.strip().splitlines()[-1]
    assert words in sentence and f"layer {BAD} on" in sentence and "clip 't" in sentence, said
    assert "Traceback" not in said and not (tmp_path / "run").exists()


def prompt_of(name: str) -> str:
    return "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>" if name == "whisper" else "Which emotion is it?"
