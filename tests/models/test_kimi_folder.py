"""Opening a Kimi-Audio folder: where its parts are found, which weights are taken, and what is refused by name."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.models import bases
from interp_core.models.audio_llms.kimi import KimiAudio
from interp_core.models.audio_llms.kimi_net import KimiAudioConfig, KimiAudioModel
from interp_core.models.files import deciding_files
from interp_core.models.load import bytes_on_disk, open_model
from interp_core.trace.clean import prompt_clip
from tests.models.conftest import refused
from tests.tiny import tone
from tests.tiny_kimi import TOKENIZER, WHISPER, ranks, save_kimi, save_tokenizer, tokenizer_weights
from tests.trace.naive import PROMPT, gap

CODES = "THUDM/glm-4-voice-tokenizer"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_kimi(tmp_path_factory.mktemp("kimi") / "model")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def opened(folder: Path | str) -> KimiAudio:
    found = open_model(str(folder), device="cpu")
    assert isinstance(found, KimiAudio)
    return found


def answer(folder: Path | str) -> Tensor:
    subject = opened(folder)
    with torch.inference_mode():
        return subject.forward(subject.model_inputs(tone(0.8, 350), PROMPT))[0]


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_config(folder: Path, **fields: object) -> None:
    change(folder / "config.json", **fields)


def change_weights(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Of the last file, if there are several."""
    file = sorted(folder.glob("*.safetensors"))[-1]
    held = load_file(file)
    edit(held)
    save_file(held, file, metadata={"format": "pt"})


# ---- which parts -----------------------------------------------------------------------------------------------------


def test_the_tokenizer_is_found_inside_beside_by_path_and_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer(folder)
    shutil.move(folder / TOKENIZER, tmp_path / TOKENIZER)  # beside
    assert torch.equal(answer(folder), expected)
    (folder / "THUDM").mkdir()
    shutil.move(tmp_path / TOKENIZER, folder / CODES)  # by the whole id
    assert torch.equal(answer(folder), expected)
    shutil.move(folder / CODES, tmp_path / "elsewhere")
    message = refused(folder)
    assert f"'{CODES}' is neither a folder here nor in the hub's cache; fetch it, or put its folder into" in message
    assert message.endswith(f"as {TOKENIZER}.") and "codes of a recording from a second model" in message
    change_config(folder, audio_tokenizer=str(tmp_path / "elsewhere"))
    assert torch.equal(answer(folder), expected)
    held: dict[str, Path] = {}

    def cached(name: str, local_files_only: bool) -> str:
        if name not in held:
            raise OSError("not in the cache")
        return str(held[name])

    monkeypatch.setattr(bases, "snapshot_download", cached)
    monkeypatch.setattr("interp_core.models.load.fetched", lambda name, progress: folder)
    assert "neither a folder here" in refused("owner/kimi")  # what was fetched chooses no path of this machine
    change_config(folder, audio_tokenizer=None)
    assert refused("owner/kimi").endswith("nor in the hub's cache; fetch it (hf download).")
    held[CODES] = tmp_path / "elsewhere"
    assert torch.equal(answer("owner/kimi"), expected)  # and its Whisper lies in what was fetched
    assert torch.equal(answer(folder), expected)


@pytest.mark.parametrize("about", [{"model_type": "moonshot_kimia"}, {"model_type": None}, {"architectures": None}])
def test_its_type_or_its_class_alone_says_what_it_is(folder: Path, original: Path, about: dict) -> None:
    change_config(folder, **about)
    assert torch.equal(answer(folder), answer(original))


def test_the_parts_weights_are_hashed_counted_and_watched(folder: Path, tmp_path: Path) -> None:
    before, files, room = opened(folder).weights_hash, deciding_files(str(folder)), bytes_on_disk(str(folder))
    weights = [*folder.glob("*.safetensors"), *(folder / part / "model.safetensors" for part in (WHISPER, TOKENIZER))]
    index = folder / "model.safetensors.index.json"
    assert room == sum(file.stat().st_size for file in (*weights, index))
    assert {"whisper/model.safetensors", "audio_tokenizer/model.safetensors", "tiktoken.model"} <= files.keys()
    assert not any("vocoder" in name or "detokenizer" in name for name in files)
    seen = {before}
    for part in (WHISPER, TOKENIZER):
        change_weights(folder / part, lambda held: next(iter(held.values())).view(-1)[:1].add_(1))
        assert (found := opened(folder).weights_hash) not in seen and deciding_files(str(folder)) != files
        seen.add(found)
    shutil.move(folder / TOKENIZER, tmp_path / "elsewhere")
    change_config(folder, audio_tokenizer=str(tmp_path / "elsewhere"))
    with pytest.raises(InterpError, match="elsewhere"):
        Engine(model_roots=(folder,)).check_model(str(folder))
    Engine(model_roots=(tmp_path,)).check_model(str(folder))


@pytest.mark.parametrize("part", [TOKENIZER, WHISPER])
def test_a_part_that_is_a_link_out_of_the_folders_of_models_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    shutil.move(folder / part, tmp_path / "elsewhere")
    (folder / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InterpError, match="outside the folders that may be read"):
        Engine(model_roots=(folder,)).check_model(str(folder))
    Engine(model_roots=(tmp_path,)).check_model(str(folder))


# ---- which weights ---------------------------------------------------------------------------------------------------


def test_at_the_published_sizes_the_weights_add_up_to_the_published_index() -> None:
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    about = {**sizes, "num_key_value_heads": 4, "vocab_size": 168_448, "kimia_adaptor_input_dim": 5120}
    small = {"d_model": 8, "encoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    tokenizer = {**small, "quantize_position": 1, "quantize_vocab_size": 4, "pooling_kernel_size": 4}
    with torch.device("meta"):
        made = KimiAudioModel(KimiAudioConfig(**about, whisper_config=small, audio_tokenizer_config=tokenizer))
    parts = ("whisper.", "audio_tokenizer.")  # in folders of their own
    own = {name: value.numel() for name, value in made.state_dict().items() if not name.startswith(parts)}
    block = [number for name, number in own.items() if name.startswith("model.layers.0.")]
    speech = [*block * 6, 3584, 168_448 * 3584]  # mimo_layers, mimo_norm, mimo_output
    tables = [64] * (28 + 6)
    assert len(own) + len(speech) + len(tables) == 453
    assert 2 * (sum(own.values()) + sum(speech) + sum(tables)) == 19_532_673_280  # bytes, in bfloat16


def test_the_speech_output_and_whispers_decoder_are_left_out_and_change_nothing(folder: Path) -> None:
    expected, names = answer(folder), set(opened(folder).hf.state_dict())
    assert not any("mimo" in name or "decoder." in name or "ema_" in name for name in names)
    for file in folder.glob("*.safetensors"):
        held = load_file(file)
        held = {n: torch.full_like(v, torch.nan) if "mimo" in n or "inv_freq" in n else v for n, v in held.items()}
        save_file(held, file, metadata={"format": "pt"})
    for part in (WHISPER, TOKENIZER):
        change_weights(
            folder / part,
            lambda w: w.update({n: v + 1 for n, v in w.items() if "decoder" in n or "ema" in n or "positions2" in n}),
        )
    assert torch.equal(answer(folder), expected)


def test_a_tokenizer_that_was_saved_as_a_whole_model_gives_the_same_codes(folder: Path) -> None:
    expected = answer(folder)
    held = {f"model.encoder.{name}": value for name, value in tokenizer_weights().items()}
    held |= {n.replace("layers.1", "layers.2"): v.clone() for n, v in held.items() if "layers.1" in n}
    held |= {"model.encoder.layer_norm.weight": torch.ones(20), "model.decoder.embed_positions.weight": torch.ones(3)}
    save_file(held, folder / TOKENIZER / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(answer(folder), expected)


@pytest.mark.parametrize("harm", [torch.nan, torch.inf])
@pytest.mark.parametrize("module", ["layers.1.fc2", "codebook"])
def test_weights_of_the_tokenizer_that_are_not_numbers_give_no_codes(folder: Path, module: str, harm: float) -> None:
    subject = opened(folder)
    with torch.no_grad():
        subject.hf.audio_tokenizer.get_submodule(module).weight.view(-1)[0] = harm
    with pytest.raises(InterpError, match="of GLM-4-Voice's tokenizer become NaN or infinite"):
        prompt_clip(subject, tone(1.0, 300), PROMPT, "a")


# ---- what is refused -------------------------------------------------------------------------------------------------


def drop_byte(folder: Path) -> None:
    lines = (folder / "tiktoken.model").read_bytes().splitlines(keepends=True)
    (folder / "tiktoken.model").write_bytes(b"".join(lines[1:]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: shutil.rmtree(f / TOKENIZER), f"second model, .* '{CODES}' is neither a folder here nor in the hub"),
        (lambda f: shutil.rmtree(f / WHISPER), "lacks whisper-large-v3/config.json, of the encoder"),
        (lambda f: (f / WHISPER / "model.safetensors").unlink(), f"{WHISPER} lacks the weights model.safetensors"),
        (lambda f: (f / TOKENIZER / "model.safetensors").unlink(), f"{TOKENIZER} lacks the weights model.safetensors"),
        (lambda f: (f / TOKENIZER / "preprocessor_config.json").unlink(), "lacks preprocessor_config.json"),
        (lambda f: cut(f / TOKENIZER / "model.safetensors"), f"model.safetensors in .*{TOKENIZER} cannot be read"),
        (lambda f: change_weights(f, lambda w: w.pop("model.vq_adaptor.layers.3.bias")), r"lack model\.vq_adaptor\.l"),
        (
            lambda f: change_weights(f / WHISPER, lambda w: w.pop("model.encoder.layer_norm.bias")),
            r"lack whisper\.layer_norm\.bias",
        ),
        (
            lambda f: change_weights(f / TOKENIZER, lambda w: w.pop("codebook.weight")),
            r"lack audio_tokenizer\.codebook\.weight",
        ),
        (
            lambda f: change_weights(f, lambda w: w.update({"model.ced_processor.a": torch.zeros(2)})),
            r"hold model\.ced_processor\.a, which Kimi-Audio as Patchbay knows it has not",
        ),
        (
            lambda f: change_weights(f / TOKENIZER, lambda w: w.update({"extra.weight": torch.zeros(2)})),
            r"hold audio_tokenizer\.extra\.weight, which",
        ),
        (lambda f: change_config(f / TOKENIZER, quantize_position=1, pooling_position=1), r"hold audio_tokenizer\.lay"),
        (lambda f: change_config(f, num_hidden_layers=5), r"lack model\.layers\.4\."),
        (lambda f: change_config(f, intermediate_size=48), r"do not fit .*: model\.layers\.0\.mlp\.down_proj"),
        (
            lambda f: change_config(f, kimia_adaptor_input_dim=48),
            "says kimia_adaptor_input_dim=48, but 4 frames .* 80 ms, are 96 numbers",
        ),
        (lambda f: change_config(f / TOKENIZER, quantize_vocab_size=41), "the 41 codes of .* do not fit"),
        (lambda f: change_config(f, kimia_token_offset=len(ranks())), "has tokens up to .*, but the model knows"),
        (lambda f: change_config(f / TOKENIZER, pooling_kernel_size=2), r"a code of every 640 samples, .*1280 \(12.5"),
        (
            lambda f: change(f / TOKENIZER / "preprocessor_config.json", hop_length=80),
            "a code of every 640 samples",
        ),
        (
            lambda f: change(f / TOKENIZER / "preprocessor_config.json", feature_size=80),
            "makes 80 mel bands, but its config says that the model takes 16",
        ),
        (lambda f: change_config(f / TOKENIZER, quantize_vocab_size=None), "says no quantize_vocab_size, so it is no"),
        (lambda f: change_config(f / TOKENIZER, encoder_causal_attention=True), "encoder_causal_attention=True, which"),
        (lambda f: change_config(f / TOKENIZER, pooling_type="sum"), "pooling_type=sum, which is not known"),
        (lambda f: change_config(f / TOKENIZER, quantize_causal_block_size=-1), "quantize_causal_block_size=-1, which"),
        (lambda f: change_config(f / TOKENIZER, quantize_causal_block_size=3), "quantize_causal_block_size=3, which"),
        (
            lambda f: change_config(f / TOKENIZER, encoder_causal_convolution="no"),
            "encoder_causal_convolution=no, which",
        ),
        (lambda f: change_config(f, audio_tokenizer=5), "audio_tokenizer and no text behind it, expected a folder"),
        (lambda f: change_config(f / TOKENIZER, pooling_position=3), "pooling_position=3, which is not known"),
        (lambda f: change_config(f / WHISPER, max_source_positions=750), "'whisper' that hears 750 frames"),
        (lambda f: change_config(f / WHISPER, model_type="wav2vec2"), "of a 'wav2vec2' that hears 1500 frames"),
        (lambda f: change_config(f, use_whisper_feature=False), "says use_whisper_feature=false"),
        (lambda f: change_config(f, kimia_media_end=3), r"says kimia_media_end=3, but by tiktoken\.model"),
        (lambda f: (f / "tiktoken.model").unlink(), r"lacks tiktoken\.model"),
        (lambda f: (f / "tiktoken.model").write_text("no vocabulary"), r"tiktoken\.model in .* is no file of tiktoken"),
        (lambda f: (f / "tiktoken.model").write_bytes(b"\xff\xfe \xff\n"), "is no file of tiktoken"),
        (drop_byte, "is no whole vocabulary: its ranks have gaps"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_by_what_is_wrong(
    folder: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(folder)
    message = refused(folder)
    assert re.search(words, message), message
    assert str(folder) in message


def test_the_tokenizer_by_itself_is_said_to_be_a_part(original: Path) -> None:
    assert "it is GLM-4-Voice's tokenizer, which makes codes of sound for other models" in refused(original / TOKENIZER)


def test_another_models_tokenizer_of_codes_gives_another_answer(folder: Path, original: Path) -> None:
    shutil.rmtree(folder / TOKENIZER)
    save_tokenizer(folder / TOKENIZER, seed=7)
    assert gap(answer(folder), answer(original)) > 1e-2
