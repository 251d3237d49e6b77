"""Adapters: merged exactly, found with their base, and never put on or left out in silence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.compare.experiment import COMPARE
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models import bases
from interp_core.models.files import deciding_files
from interp_core.models.load import open_model
from interp_core.models.merge import merge_adapter
from tests.experiments.neuron_clips import write_clips
from tests.families.adapters import ALPHA, RANK, write_adapter
from tests.families.audio_llms import FAMILIES as AUDIO_LLMS
from tests.families.encoders import (
    EMOTIONS,
    save_ast,
    save_clap,
    save_w2v_bert,
    save_wav2vec2,
    save_wavlm,
    save_whisper,
)
from tests.models.conftest import refused
from tests.models.test_countermeasure import checkpoint
from tests.models.test_countermeasure import saved as save_countermeasure
from tests.tiny import save_qwen2_audio, tone
from tests.tiny_opens2s import save_opens2s
from tests.trace.naive import PROMPT, gap

WAVE = ("q_proj", "v_proj", "intermediate_dense")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_wav2vec2(tmp_path_factory.mktemp("base") / "model", n_layers=2)


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", open_model(str(base), device="cpu").hf, WAVE, base=str(base))
    return tmp_path / "adapter"


def answer(model: Path | str, adapter: Path | str = "", dtype: str = "float32") -> Tensor:
    subject = open_model(str(model), device="cpu", dtype=dtype, adapter=str(adapter))
    with torch.inference_mode():
        return subject.forward(subject.model_inputs(tone(0.6, 300), PROMPT))[0].float()


def change(folder: Path, **entries: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({k: v.contiguous() for k, v in change(load_file(file)).items()}, file, metadata={"format": "pt"})


# ---- the merge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bin_file", [False, True])
def test_an_adapter_adds_what_its_matrices_add_beside_the_weights(base: Path, tmp_path: Path, bin_file: bool) -> None:
    bare = open_model(str(base), device="cpu")
    pairs = write_adapter(tmp_path / "a", bare.hf, WAVE, bin_file=bin_file)
    inputs = bare.model_inputs(tone(0.6, 300), "")
    before, handles = bare.forward(inputs)[0], []
    for path, (a, b) in pairs.items():

        def beside(_module: Any, args: tuple[Tensor], out: Tensor, a: Tensor = a, b: Tensor = b) -> Tensor:
            return out + ALPHA / RANK * (args[0] @ a.T) @ b.T

        handles.append(bare.hf.get_submodule(path).register_forward_hook(beside))
    expected = bare.forward(inputs)[0]
    for handle in handles:
        handle.remove()
    assert gap(expected, before) > 1e-1
    assert gap(answer(base, tmp_path / "a"), expected) < 1e-4


LORA: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True, "lora_alpha": 5},
    "dora": {"use_dora": True},
    "dora, rslora": {"use_dora": True, "use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 3, r"layers\.0\.": 2}, "alpha_pattern": {"layers.1.attention.v_proj": 9}},
    "biases": {"bias": "all"},
    "fan_in_fan_out": {"fan_in_fan_out": True},  # says nothing of a linear layer, and peft heeds it as little
}


def trained(hf: Any, folder: Path, **settings: Any) -> Any:
    """What peft itself makes of a model: saved as an adapter, then merged by peft."""
    peft = pytest.importorskip("peft")
    made = peft.get_peft_model(hf, peft.LoraConfig(r=4, **settings))
    random = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape, generator=random)
    made.save_pretrained(folder)
    return made.merge_and_unload().eval()


@pytest.mark.parametrize("kind", LORA)
@pytest.mark.parametrize("save", [save_wav2vec2, save_wavlm])
def test_a_merged_classifier_answers_as_pefts_own(save: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", n_layers=2)
    hf = transformers.AutoModelForAudioClassification.from_pretrained(folder)
    names = {"target_modules": list(WAVE), "modules_to_save": ["classifier", "projector"]}
    merged = trained(hf, tmp_path / "a", **{**names, **LORA[kind]})
    subject = open_model(str(folder), device="cpu", adapter=str(tmp_path / "a"))
    inputs = subject.model_inputs(tone(0.6, 300), "")
    with torch.inference_mode():
        assert gap(subject.forward(inputs), merged(**inputs).logits) < 1e-5
    assert gap(answer(folder), answer(folder, tmp_path / "a")) > 1e-1
    assert gap(answer(tmp_path / "a"), answer(folder, tmp_path / "a")) == 0  # alone, on the base that it names


@pytest.mark.parametrize("older_names", [False, True])
@pytest.mark.parametrize("kind", ["plain", "dora"])
def test_a_merged_audio_llm_answers_as_pefts_own(kind: str, older_names: bool, tiny_folder: Path, tmp_path) -> None:
    hf = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(tiny_folder)
    merged = trained(hf, tmp_path / "a", target_modules=["q_proj", "down_proj", "fc1"], **LORA[kind])
    if older_names:  # as trained with a library of 2024
        before = "base_model.model.model.language_model.layers"
        change_weights(
            tmp_path / "a",
            lambda w: {
                k.replace(before, "base_model.model.language_model.model.layers").replace(
                    "model.model.audio_tower", "model.audio_tower"
                ): v
                for k, v in w.items()
            },
        )
        assert any("language_model.model.layers" in key for key in load_file(tmp_path / "a/adapter_model.safetensors"))
    subject = open_model(str(tiny_folder), device="cpu", adapter=str(tmp_path / "a"))
    inputs = subject.model_inputs(tone(0.8, 350), PROMPT)
    with torch.inference_mode():
        assert gap(subject.hf(**inputs).logits, merged(**inputs).logits) < 1e-5
    assert gap(answer(tiny_folder), answer(tiny_folder, tmp_path / "a")) > 1e-2


EVERYWHERE: dict[str, tuple[Callable[..., Path], tuple[str, ...]]] = {
    "omnispeech": (save_opens2s, ("q_proj", "down_proj")),
    "ultravox": (AUDIO_LLMS["ultravox"], ("q_proj", "linear_1")),
    "kimi_audio": (AUDIO_LLMS["kimi_audio"], ("q_proj", "down_proj")),
    "qwen2_5_omni": (AUDIO_LLMS["qwen2_5_omni"], ("model.layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj")),
    "voxtral": (AUDIO_LLMS["voxtral"], ("v_proj", "linear_1")),
    "granite_speech": (AUDIO_LLMS["granite_speech"], ("language_model.layers.0.self_attn.q_proj",)),
    "phi4_multimodal": (AUDIO_LLMS["phi4_multimodal"], ("qkv_proj",)),
    "whisper": (save_whisper, ("q_proj", "fc1")),
    "ast": (save_ast, ("q_proj", "fc2")),
    "clap": (save_clap, ("query", "output.dense")),
    "w2vbert": (save_w2v_bert, ("linear_q", "ffn2.intermediate_dense")),
}


@pytest.mark.parametrize("name", EVERYWHERE)
def test_in_every_kind_of_model_just_the_named_weights_get_their_product(name: str, tmp_path: Path) -> None:
    save, targets = EVERYWHERE[name]
    folder = save(tmp_path / "model")
    before = {k: v.clone() for k, v in open_model(str(folder), device="cpu").hf.state_dict().items()}
    pairs = write_adapter(tmp_path / "a", open_model(str(folder), device="cpu").hf, targets)
    if name == "qwen2_5_omni":  # trained on the whole model, of which the thinker is opened
        change_weights(
            tmp_path / "a",
            lambda w: {k.replace("base_model.model.", "base_model.model.thinker."): v for k, v in w.items()},
        )
    after = open_model(str(folder), device="cpu", adapter=str(tmp_path / "a")).hf.state_dict()
    assert len(pairs) >= 1 and after.keys() == before.keys()
    for key, value in after.items():
        if (pair := pairs.get(key.removesuffix(".weight"))) is None or not key.endswith(".weight"):
            assert torch.equal(value, before[key]), key
        else:
            a, b = pair
            assert gap(value, before[key] + ALPHA / RANK * b @ a) < 1e-5 < gap(value, before[key]), key


def test_the_adapter_that_is_part_of_a_model_is_not_put_on_twice(tmp_path: Path) -> None:
    for name, below, target in (("granite_speech", "", "q_proj"), ("phi4_multimodal", "speech-lora", "qkv_proj")):
        folder = AUDIO_LLMS[name](tmp_path / name)
        hf = open_model(str(folder), device="cpu").hf
        write_adapter(folder / below, hf, (f"layers.0.self_attn.{target}",))
        assert "belongs to the model and is always merged" in refused(folder, folder / below)
        assert open_model(str(folder), device="cpu", adapter="none").n_layers  # none leaves out no part of the model


def test_half_precision_is_summed_in_full_and_rounded_once(base: Path, adapter: Path) -> None:
    whole = open_model(str(base), device="cpu", adapter=str(adapter)).hf.state_dict()
    half = open_model(str(base), device="cpu", dtype="bfloat16", adapter=str(adapter)).hf.state_dict()
    name = "wav2vec2.encoder.layers.0.attention.q_proj.weight"
    assert half[name].dtype == torch.bfloat16
    assert (half[name].float() - whole[name]).abs().max() < whole[name].abs().max() * 2**-7


# ---- with, without, alone --------------------------------------------------------------------------------------------


def test_an_adapter_beside_weights_is_opened_with_it_or_without_it_when_one_says_so(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    both = Path(shutil.copytree(base, tmp_path / "both"))
    for file in adapter.iterdir():
        shutil.copy(file, both)
    message = refused(both)
    assert "stands for two models" in message and f"(--adapter {both})" in message and "(--adapter none)" in message
    assert torch.equal(answer(both, "none"), answer(base))
    assert torch.equal(answer(both, both), answer(base, adapter))
    (both / "adapter_model.safetensors").rename(both / "adapter_model.bin")  # and where only settings are left
    assert "stands for two models" in refused(both)
    (both / "adapter_model.bin").unlink()
    assert "stands for two models" in refused(both) and "lacks adapter_model.safetensors" in refused(both, both)


def test_an_adapter_in_a_folder_below_is_neither_hashed_nor_passed_over(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    whole = Path(shutil.copytree(base, tmp_path / "whole"))
    for below in ("checkpoint-500", "runs/lora"):
        place = whole / below
        shutil.copytree(adapter, place)
        message = refused(whole)
        assert f"below them an adapter ({below})" in message and "stands for two models" in message
        assert f"(--adapter {place})" in message and "(--adapter none)" in message
        bare, without = open_model(str(base), device="cpu"), open_model(str(whole), device="cpu", adapter="none")
        assert without.weights_hash == bare.weights_hash
        assert deciding_files(str(whole), "none") == deciding_files(str(whole)) == deciding_files(str(base))
        merged = open_model(str(whole), device="cpu", adapter=str(place))
        assert merged.weights_hash == open_model(str(base), device="cpu", adapter=str(adapter)).weights_hash
        assert torch.equal(answer(whole, place), answer(base, adapter))
        place.rename(tmp_path / "elsewhere")
        assert torch.equal(answer(whole), answer(base))  # control: without it nothing is in the way
        shutil.rmtree(tmp_path / "elsewhere")
    for below in ("checkpoint-500", "checkpoint-900", "."):
        shutil.copytree(adapter, whole / below, dirs_exist_ok=True)
    assert "stands for several models" in refused(whole)
    assert "below them adapters (checkpoint-500, checkpoint-900)" in refused(whole)
    (whole / "training_args.bin").write_bytes(b"of a trainer")
    assert open_model(str(whole), device="cpu", adapter="none").weights_hash == bare.weights_hash
    shutil.copytree(whole / "checkpoint-500", tmp_path / "trained" / "checkpoint-500")
    shutil.copytree(adapter, tmp_path / "trained", dirs_exist_ok=True)  # a trainer's folder: the last one, and before
    assert torch.equal(answer(tmp_path / "trained"), answer(base, adapter))


def test_adapters_of_other_senses_are_no_part_of_what_hears(tmp_path: Path) -> None:
    folder = AUDIO_LLMS["phi4_multimodal"](tmp_path / "model")
    bare = open_model(str(folder), device="cpu")
    write_adapter(folder / "vision-lora", bare.hf, ("layers.0.self_attn.qkv_proj",))
    assert open_model(str(folder), device="cpu").weights_hash == bare.weights_hash
    shutil.copytree(folder / "vision-lora", folder / "speech-lora")  # control: that one is heard
    heard = open_model(str(folder), device="cpu")
    assert heard.weights_hash != bare.weights_hash
    assert "speech-lora/adapter_model.safetensors" in deciding_files(str(folder))
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert not torch.equal(heard.hf.state_dict()[name], bare.hf.state_dict()[name])
    (folder / "speech-lora").rename(folder / "other-lora")
    assert "below them an adapter (other-lora)" in refused(folder)


def test_an_adapter_alone_opens_on_the_base_that_it_names(base: Path, adapter: Path, tmp_path: Path) -> None:
    expected = answer(base, adapter)
    assert torch.equal(answer(adapter), expected)
    beside = Path(shutil.copytree(base, tmp_path / "wave-base"))
    for said in ("../wave-base", "wave-base", "somebody/wave-base", str(beside)):
        change(adapter, base_model_name_or_path=said)
        assert torch.equal(answer(adapter), expected), said
    assert "nothing is left of it with --adapter none" in refused(adapter, "none")
    assert "is itself an adapter, and one is all" in refused(adapter, base)
    for said in (None, "", 3, "nowhere/to-be-found", "x" * 5000, "a\0b"):
        change(adapter, base_model_name_or_path=said)
        assert f"--model BASE --adapter {adapter}" in refused(adapter), said
    change(adapter, base_model_name_or_path=".")
    assert f"--model BASE --adapter {adapter}" in refused(adapter)


def test_the_base_of_an_adapter_is_found_in_the_hubs_cache_and_what_came_from_there_names_no_folder_here(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"owner/wave": base, "owner/adapter": adapter}

    def cached(name: str, local_files_only: bool) -> str:
        if name not in held:
            raise OSError("not in the cache")
        return str(held[name])

    monkeypatch.setattr(bases, "snapshot_download", cached)
    change(adapter, base_model_name_or_path="owner/wave")
    assert torch.equal(answer(adapter), answer(base, adapter))
    monkeypatch.setattr("interp_core.models.load.fetched", lambda name, progress: held[name])
    assert torch.equal(answer("owner/adapter"), answer(base, adapter))
    change(adapter, base_model_name_or_path=str(base))
    assert "neither a folder here nor in the hub's cache" in refused("owner/adapter")


# ---- what is refused -------------------------------------------------------------------------------------------------


def no_such(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.replace("layers.1.attention.q_proj", "layers.7.attention.q_proj"): v for k, v in weights.items()}


@pytest.mark.parametrize(
    ("settings", "harm", "words"),
    [
        ({"peft_type": "IA3"}, None, "of the type IA3, and only LORA"),
        ({"peft_type": None}, None, "of the type None"),
        ({"peft_type": ["LORA"]}, None, "of the type"),
        ({"layer_replication": [[0, 2]]}, None, r"more than a merge of low-rank matrices \(layer_replication\)"),
        ({"init_lora_weights": "pissa"}, None, "init_lora_weights=pissa"),
        ({"alora_invocation_tokens": [3]}, None, "alora_invocation_tokens"),
        ({"use_dora": True}, None, "lora_A and lora_B of .* do not go with its adapter_config.json"),
        ({"r": 3}, None, r"where \[32, 3\] by \[3, 32\] fits"),
        ({"r": "2"}, None, "says r='2'"),
        ({"lora_alpha": float("inf")}, None, "lora_alpha=inf"),
        ({"modules_to_save": ["projector"]}, None, "names projector, but its weights hold nothing for it"),
        ({"modules_to_save": "classifier"}, None, "expected a list of names"),
        ({"target_modules": ["q_proj", "k_proj"]}, None, "names k_proj, but its weights hold nothing for it"),
        ({"rank_pattern": {"(a+)+": 1}}, None, "has the pattern"),
        ({"rank_pattern": {"[": 1}}, None, "has the pattern"),
        ({}, no_such, r"changes wav2vec2.encoder.layers.7.\S* which its model does not have; .* another model"),
        ({}, lambda w: {k: v[..., :-1] for k, v in w.items()}, "it was trained on another model or with another rank"),
        ({}, lambda w: {k: v for k, v in w.items() if "lora_B" not in k}, "holds lora_A of"),
        ({}, lambda w: {k: v / 0 for k, v in w.items()}, "no finite number"),
        ({}, lambda w: {"x": torch.zeros(1)}, "holds no LoRA matrices"),
        ({}, lambda w: {**w, "base_model.model.classifier.weight": torch.zeros(4, 16)}, "none of its modules_to_save"),
        (
            {"modules_to_save": ["classifier"]},
            lambda w: {**w, "base_model.model.classifier.weight": torch.zeros(9, 16)},
            r"replaces classifier.weight by \[9, 16\], where \[4, 16\] fits",
        ),
        (
            {"modules_to_save": ["lm_head"]},
            lambda w: {**w, "base_model.model.lm_head.weight": torch.zeros(9, 16)},
            r"replaces lm_head.weight \(modules_to_save\), which its model does not have",
        ),
        (
            {},
            lambda w: {k.replace("layers.1.attention.q_proj", "layers.1.layer_norm"): v for k, v in w.items()},
            "which is a LayerNorm and no linear layer",
        ),
    ],
)
def test_what_is_no_adapter_of_this_model_is_one_sentence_and_changes_nothing(
    base: Path, adapter: Path, settings: dict, harm: Callable | None, words: str
) -> None:
    change(adapter, **settings)
    if harm is not None:
        change_weights(adapter, harm)
    with pytest.raises(InterpError, match=words):
        open_model(str(base), device="cpu", adapter=str(adapter))
    assert len(refused(base, adapter)) < 600


def test_a_parameter_in_two_places_is_left_alone(tmp_path: Path) -> None:
    folder = save_qwen2_audio(tmp_path / "model", n_layers=1)
    hf = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    hf.lm_head.weight = hf.model.language_model.embed_tokens.weight
    write_adapter(tmp_path / "a", hf, ["lm_head"])
    before = hf.lm_head.weight.clone()
    with pytest.raises(InterpError, match="lm_head.weight, which its model has in two places"):
        merge_adapter(hf, tmp_path / "a", "a")
    assert torch.equal(hf.lm_head.weight, before)
    hf.lm_head.weight = nn.Parameter(before.clone())  # control: untied, it goes in
    assert merge_adapter(hf, tmp_path / "a", "a") == 1 and not torch.equal(hf.lm_head.weight, before)


class Harm:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_broken_files_and_pickles_with_code_in_them_are_one_sentence(base: Path, adapter: Path, capsys) -> None:
    assert "is no folder with adapter_config.json" in refused(base, "nowhere")
    assert "is no folder with adapter_config.json" in refused(base, base)
    assert "is no folder with adapter_config.json" in refused(base, "a\0b")
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "the adapter of" in refused(base, adapter)
    weights.unlink()
    assert "lacks adapter_model.safetensors or adapter_model.bin" in refused(base, adapter)
    torch.save({"x": Harm()}, adapter / "adapter_model.bin")
    assert "could run code" in refused(base, adapter) and "run\n" not in capsys.readouterr().out
    torch.save([1, 2], adapter / "adapter_model.bin")
    assert "holds no tensors by name" in refused(base, adapter)
    for text in ("{", "[]", "nothing", "[" * 100_000):
        (adapter / "adapter_config.json").write_text(text)
        assert "adapter_config.json of" in refused(base, adapter)


def test_a_weight_file_of_another_code_base_takes_no_adapter(adapter: Path, tmp_path: Path) -> None:
    file = save_countermeasure(tmp_path, checkpoint())
    assert "adapters go onto folders in the Hugging Face layout alone" in refused(file, adapter)


# ---- what names a model and a run ------------------------------------------------------------------------------------


def test_the_hash_and_the_files_are_those_of_base_and_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    def opened(of: Path | str) -> Any:
        return open_model(str(base), device="cpu", adapter=str(of))

    bare, merged, again = opened(""), opened(adapter), opened(shutil.copytree(adapter, tmp_path / "copy"))
    assert merged.weights_hash == again.weights_hash != bare.weights_hash
    assert open_model(str(adapter), device="cpu").weights_hash == merged.weights_hash
    assert len({bare.key, merged.key}) == 2
    files = deciding_files(str(base), str(adapter))
    assert files.keys() - deciding_files(str(base)).keys() == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    assert deciding_files(str(adapter)) == files
    change(adapter, lora_alpha=4)
    assert opened(adapter).weights_hash != merged.weights_hash and deciding_files(str(base), str(adapter)) != files


def test_an_engine_opens_each_once_and_anew_when_the_adapter_was_trained_on(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    engine, clips = Engine(cache_bytes=1 << 26), str(write_clips(tmp_path / "clips", texts=4))
    request = PatchRequest(str(base), clips, device="cpu", adapter=str(adapter))
    bare = PatchRequest(str(base), clips, device="cpu")
    first = engine.subject(request)
    assert engine.subject(request) is first and engine.subject(bare) is not first
    assert [one.adapter for one in engine.models.opened()] == ["", str(adapter)]
    key = engine.key_of(request)
    assert key != engine.key_of(bare)
    moved = shutil.copytree(adapter, tmp_path / "moved")
    assert engine.key_of(PatchRequest(str(base), clips, device="cpu", adapter=str(moved))) == key
    change(adapter, lora_alpha=7)
    assert engine.key_of(request) != key and engine.opened(request) is None
    assert engine.subject(request) is not first


def test_an_adapter_and_the_base_that_it_names_lie_in_the_folders_of_models(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    inside = Path(shutil.copytree(adapter, allowed / "adapter"))
    model = Path(shutil.copytree(base, allowed / "model"))
    engine = Engine(model_roots=[allowed])
    with pytest.raises(InterpError, match="outside"):
        engine.open(str(model), adapter=str(adapter))
    with pytest.raises(InterpError, match="outside"):
        engine.open(str(inside))  # names a base outside
    change(inside, base_model_name_or_path="../model")
    assert (
        engine.open(str(inside), device="cpu").weights_hash
        == engine.open(str(model), device="cpu", adapter=str(inside)).weights_hash
    )


def test_a_comparison_takes_the_model_with_an_adapter_as_its_donor(base: Path, tmp_path: Path) -> None:
    hf = open_model(str(base), device="cpu").hf
    write_adapter(tmp_path / "a", hf, ["layers.1.attention.q_proj"], target_modules=["q_proj"])
    clips = str(write_clips(tmp_path / "clips", texts=4))
    request = CompareRequest(
        str(base), clips, device="cpu", donor_adapter=str(tmp_path / "a"), patch=("each",), maps=(),
        labels=EMOTIONS,
    )  # fmt: skip
    assert request.title.endswith(f"with {base.name} with a")
    made = run(COMPARE, Engine(cache_bytes=1 << 26), request)
    assert made.config["donor"]["id"] == made.config["model"]["id"] == str(base)
    assert made.config["donor"]["weights_sha256"] != made.config["model"]["weights_sha256"]
    assert made.config["settings"]["donor_adapter"] == str(tmp_path / "a")
    assert made.findings["onset"] == 1  # layer 0 is the same in both
    assert CompareRequest.from_config(made.config).adapters == ("", str(tmp_path / "a"))
