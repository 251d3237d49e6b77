"""What stands in the place of a file that decides a model's numbers, or is not there, is named before it is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from interp_core.models.load import open_model
from tests.families.adapters import write_adapter
from tests.families.audio_llms import FAMILIES
from tests.families.encoders import save_clap, save_wavlm
from tests.models.conftest import refused
from tests.models.test_countermeasure import checkpoint
from tests.models.test_countermeasure import saved as save_countermeasure
from tests.tiny_kimi import TOKENIZER, save_kimi
from tests.tiny_kimi import WHISPER as KIMIS_WHISPER
from tests.tiny_opens2s import save_opens2s
from tests.tiny_ultravox import AUDIO, TEXT, save_ultravox

LLAMA, WHISPER = Path(TEXT).name, Path(AUDIO).name
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 16344\n"


def as_bin(folder: Path) -> Path:
    """The same weights as the library wrote them before safetensors."""
    hf = open_model(str(save_wavlm(folder)), device="cpu").hf
    torch.save(hf.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert open_model(str(folder), device="cpu").n_layers
    return folder


MODELS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "wavlm": (save_wavlm, ("config.json", "model.safetensors", "preprocessor_config.json")),
    "as bin": (as_bin, ("pytorch_model.bin",)),
    "clap": (save_clap, ("tokenizer.json",)),
    "qwen2_audio": (FAMILIES["qwen2_audio"], ("tokenizer.json", "processor_config.json", "chat_template.jinja")),
    "voxtral": (FAMILIES["voxtral"], ("tekken.json",)),
    "OpenS2S": (save_opens2s, ("model.safetensors.index.json", "audio/preprocessor_config.json")),
    "Ultravox": (
        save_ultravox,
        ("model.safetensors", f"{LLAMA}/model.safetensors", f"{WHISPER}/preprocessor_config.json"),
    ),
    "Kimi-Audio": (
        save_kimi,
        ("model-1-of-2.safetensors", "tiktoken.model", f"{KIMIS_WHISPER}/model.safetensors")
        + tuple(f"{TOKENIZER}/{name}" for name in ("model.safetensors", "preprocessor_config.json")),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_pointer_in_the_place_of_a_file_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    save, files = MODELS[name]
    folder = save(tmp_path / "model")
    for file in (folder / one for one in files):
        whole = file.read_bytes()
        file.write_bytes(POINTER)
        message = refused(folder)
        assert f"{file.name} is a Git LFS pointer; fetch the large files (git lfs pull)." in message
        file.write_bytes(whole)
    assert open_model(str(folder), device="cpu").n_layers


def test_pointers_in_the_place_of_weight_files_and_adapters_are_called_what_they_are(
    folder: Path, tmp_path: Path
) -> None:
    file = save_countermeasure(tmp_path, checkpoint())
    file.write_bytes(POINTER)
    loose = tmp_path / "AASIST.pth"
    loose.write_bytes(POINTER)
    for one in (file, loose):
        assert "is a Git LFS pointer; fetch the large files (git lfs pull)" in refused(one)
    adapter = tmp_path / "adapter"
    write_adapter(adapter, open_model(str(folder), device="cpu").hf, ("q_proj",), base=str(folder))
    for part in sorted(adapter.iterdir()):
        whole = part.read_bytes()
        part.write_bytes(POINTER)
        said = [refused(folder, adapter), refused(adapter)]
        assert all(f"{part.name} is a Git LFS pointer" in one for one in said), said
        part.write_bytes(whole)
    (folder / "model.safetensors").write_bytes(POINTER)
    assert "model.safetensors is a Git LFS pointer" in refused(adapter)


def test_weights_that_are_passed_over_may_stay_pointers(folder: Path) -> None:
    for name in ("pytorch_model.bin", "consolidated.safetensors"):
        (folder / name).write_bytes(POINTER)
    assert open_model(str(folder), device="cpu").n_layers


@pytest.mark.parametrize("own_layout", [False, True])
def test_a_shard_that_is_not_here_is_named(own_layout: bool, folder: Path, tmp_path: Path) -> None:
    if own_layout:
        folder = save_opens2s(tmp_path / "own", shards=3)
    else:
        hf = open_model(str(folder), device="cpu").hf
        (folder / "model.safetensors").unlink()
        hf.save_pretrained(folder, max_shard_size="60KB")
    assert open_model(str(folder), device="cpu").n_layers
    shards = sorted(folder.glob("model-*.safetensors"))
    whole = shards[1].read_bytes()
    shards[1].write_bytes(POINTER)
    assert f"{shards[1].name} is a Git LFS pointer" in refused(folder)
    shards[1].unlink()
    message = refused(folder)
    assert f"lack {shards[1].name}, which model.safetensors.index.json lists; fetch all of its weight files" in message
    shards[1].write_bytes(whole)
    for broken in ("{", "[]", '{"weight_map": 3}', "[" * 100_000, '{"weight_map": {"a": "../x"}}'):
        (folder / "model.safetensors.index.json").write_text(broken)
        assert "model.safetensors.index.json" in refused(folder) and "fetch" in refused(folder)
