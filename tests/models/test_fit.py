"""A folder is one model: half of one, weights of other shapes, absurd sizes and odd names are refused by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from benchmarks import fuzz_models, fuzzing
from interp_core.errors import InterpError
from interp_core.models.load import open_model
from interp_core.trace.clean import clean_runs, prompt_clip
from tests.families.audio_llms import FAMILIES
from tests.families.encoders import (
    save_ast,
    save_canary,
    save_clap,
    save_moonshine,
    save_moonshine_streaming,
    save_parakeet,
    save_seamless,
    save_speech2text,
    save_speecht5,
    save_w2v_bert,
    save_wavlm,
    save_whisper,
)
from tests.families.subjects import CASES
from tests.tiny import tone
from tests.tiny_kimi import save_kimi
from tests.tiny_opens2s import save_opens2s
from tests.tiny_ultravox import save_ultravox

Save = Callable[[Path], Path]
LAYERS = ("num_hidden_layers", "encoder_layers", "decoder_layers")
QUICK: dict[str, Save] = {"wavlm": save_wavlm, "whisper": save_whisper, "qwen2_audio": FAMILIES["qwen2_audio"]}
OTHERS: dict[str, Save] = {
    **{"ast": save_ast, "clap": save_clap, "speech2text": save_speech2text, **FAMILIES},
    **{"seamless": save_seamless, "canary": save_canary, "moonshine_streaming": save_moonshine_streaming},
    **{"cohere_asr": lambda folder: save_canary(folder, kind="CohereAsr"), "speecht5": save_speecht5},
    "ultravox": lambda folder: save_ultravox(folder, own=("text", "audio")),  # its own config says how many layers
}


def change(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def refused(name: str | Path) -> str:
    with pytest.raises(InterpError) as error:
        open_model(str(name), device="cpu")
    assert "\n" not in str(error.value)
    return str(error.value)


def counts(config: dict[str, Any], place: tuple[str, ...] = ()):
    """Where a config says how many layers a part has that is read, and how many."""
    for key, value in config.items():
        if isinstance(value, dict) and key not in ("talker_config", "token2wav_config", "vision_config"):
            yield from counts(value, (*place, key))
        elif key in LAYERS and isinstance(value, int) and not key.startswith("decoder") or key == "decoder_layers":
            yield (*place, key), value


def less_one(config: Any, place: tuple[str, ...]) -> None:
    for key in place[:-1]:
        config = config[key]
    config[place[-1]] -= 1
    for each_layer in ("layer_types", "intermediate_size", "activation_sparsity_pattern"):
        if isinstance(config.get(each_layer), list):
            config[each_layer] = config[each_layer][: config[place[-1]]]


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS if name not in QUICK)]
)
def test_a_config_with_fewer_layers_than_the_weights_is_refused_by_a_weights_name(name: str, tmp_path: Path) -> None:
    folder = {**OTHERS, **QUICK}[name](tmp_path / "model")
    file = folder / "config.json"
    whole = file.read_text()
    by_stage = "depths" in json.loads(whole).get("audio_config", {})  # the layers' number is then their sum
    tried = 0
    for place, number in counts(json.loads(whole)):
        other_parts = {("ultravox", "decoder_layers"), ("seamless", "encoder_layers")}
        unread = place[0] == "tts_lm_config" or (name, place[-1]) in other_parts
        if unread or number < 1 or by_stage:
            continue
        config = json.loads(whole)
        less_one(config, place)
        file.write_text(json.dumps(config))
        # One layer less moves those of Gemma 4 that share keys, whose MLP is wider, and narrows Gemma 3n's tables.
        wider = "|do not fit its config" if name in ("gemma4", "gemma3n") else ""
        assert re.search(rf"weights (of|in) .* hold \S*layers?\.{number - 1}\.{wider}", refused(folder)), place
        tried += 1
    if by_stage:
        change(file, audio_config={**json.loads(whole)["audio_config"], "depths": [1, 1, 1, 1]})
        assert "of blocks that its config.json leaves out" in refused(folder)
    else:
        assert tried
    file.write_text(whole)
    assert open_model(str(folder), device="cpu").n_layers > 1


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"num_hidden_layers": 0}, "hold wavlm.encoder.layers.0."),
        ({"num_hidden_layers": -1}, "says num_hidden_layers=-1, expected 0 to 1000"),
        ({"num_hidden_layers": 100_000}, r"says num_hidden_layers=100000, expected 0 to 1000"),
        ({"hidden_size": 10**9}, r"describes hidden_size=1e\+09, but its weight files hold .* bytes"),
        ({"intermediate_size": 10**7}, "describes a model of .* numbers, but its weight files hold"),
        (
            {"conv_stride": [5, 2, 2, 2, 2, 2, 10**9]},
            r"conv_stride=5, .*, 1e\+09, 1.6e\+11 samples of a clip to a",
        ),
        ({"conv_stride": [40] * 7}, r"conv_stride=40, .* samples of a clip to a position, expected 65536 at most"),
        ({"intermediate_size": 51}, r"do not fit its config: wavlm\S*intermediate_dense.bias \[48\] where \[51\] fits"),
    ],
)
def test_sizes_that_are_not_those_of_the_weights_are_refused(folder: Path, entries: dict, words: str) -> None:
    change(folder / "config.json", **entries)
    assert re.search(words, refused(folder))


def test_a_model_without_layers_is_refused_even_if_its_weights_have_none(folder: Path) -> None:
    change(folder / "config.json", num_hidden_layers=0)
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if ".layers." not in k}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "0 layers, which leaves nothing to edit" in refused(folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_data_parallel_and_compiled_models_lead_to_the_same_weights(
    folder: Path, wavlm: Path, prefix: str
) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({prefix + k: v.clone() for k, v in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    one, two = (open_model(str(path), device="cpu").hf.state_dict() for path in (folder, wavlm))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("save", [save_opens2s, save_ultravox, save_kimi])
def test_they_do_in_layouts_of_their_own_too(save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    whole = open_model(str(folder), device="cpu").hf.state_dict()
    parts = (folder / "Llama-3.2-1B-Instruct", folder / "whisper-large-v3", folder / "glm-4-voice-tokenizer")
    for place, prefix in ((folder, "module."), *((part, "_orig_mod.") for part in parts)):
        for file in place.glob("*.safetensors"):
            weights = {prefix + k: v.clone() for k, v in load_file(file).items()}
            save_file(weights, file, {"format": "pt"})
    found = open_model(str(folder), device="cpu").hf.state_dict()
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)


def test_an_extractor_with_other_mel_bands_is_refused_at_the_door(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path / "whisper")
    file = folder / "preprocessor_config.json"
    bands = json.loads(file.read_text())["feature_size"]
    change(file, feature_size=bands + 8)
    assert f"makes {bands + 8} mel bands, but its config says that the model takes {bands}" in refused(folder)
    change(file, feature_size=bands, chunk_length=10**9)
    assert "says chunk_length=1e+09, expected a number from 1 to 3600" in refused(folder)


HEARS: dict[str, Save] = {
    **{"wavlm": save_wavlm, "w2v-bert": save_w2v_bert, "parakeet": save_parakeet, "ast": save_ast, "clap": save_clap},
    **{"whisper": save_whisper, "moonshine": save_moonshine, "speech2text": save_speech2text, **FAMILIES},
    **{"seamless": save_seamless, "canary": save_canary, "moonshine_streaming": save_moonshine_streaming},
    **{"cohere_asr": lambda folder: save_canary(folder, kind="CohereAsr"), "speecht5": save_speecht5},
}


@pytest.mark.parametrize("name", HEARS)
def test_an_extractor_with_another_rate_or_other_frames_is_refused_at_the_door(name: str, tmp_path: Path) -> None:
    folder = HEARS[name](tmp_path / "model")
    made_for = {"clap": 48_000, "vibevoice_asr": 24_000}.get(name, 16_000)
    changed = 0
    for file in (path for path in folder.rglob("*.json") if "processor" in path.name):
        about = json.loads(file.read_text())
        for part in (about, about.get("feature_extractor"), about.get("audio_processor")):
            if isinstance(part, dict) and "sampling_rate" in part:
                rate, part["sampling_rate"] = part["sampling_rate"], 8_000
                assert rate == made_for
                file.write_text(json.dumps(about))
                assert f"takes 8000 samples a second, but models of its type are made for {rate}" in refused(folder)
                part["sampling_rate"] = rate
                bands = {"num_mel_bins", "feature_size"} & part.keys()
                if bands and not name.startswith(("wavlm", "moonshine", "vibevoice_asr")):
                    whole = {key: part[key] for key in bands}
                    for key in bands:
                        part[key] += 8
                    file.write_text(json.dumps(about))
                    assert re.search(r"makes \d+ mel bands", refused(folder))
                    part.update(whole)
                file.write_text(json.dumps(about))
                changed += 1
    assert changed and open_model(str(folder), device="cpu").sample_rate == made_for


def test_a_model_that_was_trained_at_another_rate_says_so_in_its_config(tmp_path: Path) -> None:
    folder = save_wavlm(tmp_path / "telephone")
    change(folder / "preprocessor_config.json", sampling_rate=8_000)
    assert 'If it was trained at 8000, write "sampling_rate": 8000 into its config.json.' in refused(folder)
    change(folder / "config.json", sampling_rate=8_000)
    assert open_model(str(folder), device="cpu").sample_rate == 8_000


@pytest.mark.parametrize(
    ("family", "file", "entry"),
    [
        ("fun_asr_nano", "processor_config.json", "frame_length"),
        ("fun_asr_nano", "processor_config.json", "num_frames_lfr"),
        ("qwen3_asr", "processor_config.json", "min_length"),
        ("granite_speech", "preprocessor_config.json", "projector_window_size"),
        ("phi4_multimodal", "preprocessor_config.json", "audio_feat_stride"),
    ],
)
def test_a_setting_that_would_fill_the_memory_with_one_clip_is_refused(
    family: str, file: str, entry: str, tmp_path: Path
) -> None:
    folder = FAMILIES[family](tmp_path / "model")
    about = json.loads((folder / file).read_text())
    part = about.get("feature_extractor", about)
    for value in (10**9, 0):
        part[entry] = value
        (folder / file).write_text(json.dumps(about))
        assert f"says {entry}={value:g}, expected a number from 1 to" in refused(folder)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (("audio_config", "attention_context_right"), "attention_context_right=1e+09, expected 65536 at most"),
        (("text_config", "num_hidden_layers"), "num_hidden_layers=1e+09, expected 0 to 1000"),
    ],
)
def test_a_number_that_the_library_makes_a_list_or_a_mask_of_is_refused_before_it_reads_the_config(
    place: tuple[str, str], said: str, tmp_path: Path
) -> None:
    folder = FAMILIES["gemma4"](tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config[place[0]][place[1]] = 10**9
    config["text_config"].pop("layer_types")
    (folder / "config.json").write_text(json.dumps(config))
    assert said in refused(folder)


def test_as_many_convolutions_of_positions_as_a_loop_would_never_end_to_make_are_refused(tmp_path: Path) -> None:
    folder = CASES["data2vec"].write(tmp_path / "model")
    change(folder / "config.json", num_conv_pos_embeddings=10**9)
    assert "says num_conv_pos_embeddings=1e+09, expected 0 to 1000" in refused(folder)


@pytest.mark.parametrize("save", [save_whisper, save_moonshine, save_clap, save_opens2s, FAMILIES["qwen2_audio"]])
def test_a_tokenizer_with_more_tokens_than_the_model_knows_is_refused(save: Save, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    most = max(tokenizer.get_vocab().values())
    tokenizer.add_tokens([f"of another model {i}" for i in range(500)])
    tokenizer.save_pretrained(folder)
    assert f"has tokens up to {most + 500}, but the model knows" in refused(folder)


def test_a_tokenizer_without_the_token_that_starts_a_text_is_refused(tmp_path: Path) -> None:
    folder = save_moonshine(tmp_path / "model")
    change(folder / "config.json", decoder_start_token_id=10**4, vocab_size=10**5)
    (folder / "generation_config.json").unlink()  # which the library follows, where it is
    assert "has no token 10000, with which the model begins every text" in refused(folder)


@pytest.mark.parametrize("made", [{"_from_model_config": True}, {}])
def test_the_token_that_starts_a_text_is_the_librarys_and_is_looked_at_on_opening(tmp_path: Path, made: dict) -> None:
    folder = save_moonshine(tmp_path / "model")
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**made, "decoder_start_token_id": 5}))
    subject = open_model(str(folder), device="cpu")
    text = subject.hf.generate(torch.zeros(1, 8000), max_new_tokens=1)
    assert text[0, 0] == 5 and subject.default_prompts[0].startswith(subject.tokenizer.convert_ids_to_tokens(5))
    for start, said in ((10**4, "has no token 10000"), ("x", "start_token_id='x', expected"), (-1, "id=-1, expected")):
        file.write_text(json.dumps({**made, "decoder_start_token_id": start}))
        assert said in refused(folder)
    file.write_text("[]")
    assert "generation_config.json holds no settings" in refused(folder)


def test_the_tokenizer_of_another_whisper_is_refused(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path / "model")
    start = json.loads((folder / "config.json").read_text())["decoder_start_token_id"]
    for file in ("config.json", "generation_config.json"):  # the library follows the second, where it is
        change(folder / file, decoder_start_token_id=start + 1)
    assert f"at token {start + 1}, where the model begins with <|startoftranscript|>; copy the" in refused(folder)


def test_what_the_library_fails_on_in_a_run_names_the_clip(wavlm: Path) -> None:
    subject = open_model(str(wavlm), device="cpu")
    stem = prompt_clip(subject, tone(0.5, 300), "", "a")
    subject.hf.wavlm.encoder.layers[1].final_layer_norm = torch.nn.LayerNorm(3)
    with pytest.raises(InterpError, match=r"fails on clip 'a' \(.*of one model"):
        clean_runs(subject, [stem])


@pytest.mark.parametrize("name", fuzz_models.NAMES)
def test_an_odd_name_is_one_sentence(name: str) -> None:
    assert len(refused(name)) < 500


def test_links_in_circles_and_folders_in_the_place_of_files_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "leads nowhere" in refused(tmp_path / "loop") or "no folder or file" in refused(tmp_path / "loop")
    for name in ("preprocessor_config.json", "model.safetensors", "config.json"):
        (folder / name).unlink()
        (folder / name).mkdir()
        assert len(refused(folder)) > 20


def test_mutated_folders_and_files_are_answered_or_refused(tmp_path: Path) -> None:
    some = {name: CASES[name].write for name in ("wavlm-base", "whisper-encoder", "spoof-wavlm-erm", "resnet")}
    some["qwen2_audio"] = FAMILIES["qwen2_audio"]
    (tmp_path / "whole").mkdir()
    tally = fuzzing.run(fuzz_models.cases(some, tmp_path, 30, 0))
    assert not tally.faults, str(tally)
    assert tally.counts["fine"] > 2 and tally.counts["refused"] > 10
