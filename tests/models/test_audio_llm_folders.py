"""Audio LLM folders as they lie about: old key layouts, whole models, adapters beside the weights, and a new type."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.audio_utils import mel_filter_bank, spectrogram

from interp_core.errors import InterpError
from interp_core.models.arch import ARCHS, Arch
from interp_core.models.audio_llms.fun_asr import FunAsrFbank
from interp_core.models.audio_llms.granite_speech import GraniteMel
from interp_core.models.audio_llms.processors import with_fixed_date
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.audio_llms.voxtral import VoxtralReader
from interp_core.models.load import open_model
from interp_core.sites import Site
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.patch import SiteSpec
from interp_core.trace.sweep import sweep
from tests.families import made_up
from tests.families.audio_llms import FAMILIES
from tests.families.words import save_tekken
from tests.tiny import tone
from tests.trace.cases import KINDS_INSIDE, every_layer, everywhere, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap


def opened(folder: Path) -> AudioLLM:
    subject = open_model(str(folder), device="cpu")
    assert isinstance(subject, AudioLLM)
    return subject


@torch.inference_mode()
def answer(subject: AudioLLM) -> Tensor:
    return subject.forward(subject.model_inputs(tone(0.8, 350), PROMPT))[0]


def weights_of(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def change_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# What the library writes today is the layout of the hub; the other is that of its own modules.
FORWARD = [
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.", "model.language_model."),
    (r"^(audio_tower|multi_modal_projector|encoder|projector)\.", r"model.\1."),
]
OLD = ("qwen2_audio", "audioflamingo3", "musicflamingo", "glmasr", "voxtral", "granite_speech")


@pytest.mark.parametrize("family", OLD)
def test_both_key_layouts_open_to_the_same_model(tmp_path: Path, family: str) -> None:
    old = FAMILIES[family](tmp_path / "old")
    keys = load_file(old / "model.safetensors").keys()
    assert any(key.startswith("language_model.model.layers.0.") for key in keys)  # what files on the hub are named
    new = Path(shutil.copytree(old, tmp_path / "new"))

    def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        out = {}
        for key, value in weights.items():
            for pattern, target in FORWARD:
                key = re.sub(pattern, target, key)
            out[key.replace("model.language_model.model.", "model.language_model.")] = value
        return out

    weights_of(new, renamed)
    assert not any(key.startswith("language_model.") for key in load_file(new / "model.safetensors"))
    assert torch.equal(answer(opened(old)), answer(opened(new)))


@pytest.mark.parametrize(("family", "whole"), [("qwen2_5_omni", True), ("qwen3_omni_moe_thinker", False)])
def test_a_whole_omni_folder_is_its_thinker(tmp_path: Path, family: str, whole: bool) -> None:
    folder = FAMILIES[family](tmp_path / "saved")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    if whole:  # cut the thinker out of it; on the hub it is named Qwen2_5OmniModel, which the library has no more
        change_json(folder / "config.json", architectures=["Qwen2_5OmniModel"])
        thinker = {**config["thinker_config"], "architectures": ["Qwen2_5OmniThinkerForConditionalGeneration"]}
        (other / "config.json").write_text(json.dumps(thinker))
        weights_of(other, lambda w: {k.removeprefix("thinker."): v for k, v in w.items() if k.startswith("thinker.")})
    else:  # put one around it
        around = {"model_type": family.removesuffix("_thinker"), "enable_audio_output": False, "thinker_config": config}
        (other / "config.json").write_text(json.dumps(around))
        weights_of(other, lambda w: {f"thinker.{k}": v for k, v in w.items()})
    a, b = opened(folder), opened(other)
    assert type(a.hf) is type(b.hf) and "Thinker" in type(a.hf).__name__
    assert torch.equal(answer(a), answer(b))
    assert not any("talker" in name for name, _ in a.hf.named_modules())


# ---- adapters --------------------------------------------------------------------------------------------------------


def add_adapter(folder: Path, below: str, targets: dict[str, tuple[int, int]], layers: int, **settings: Any) -> dict:
    """Write a LoRA as the package peft writes it; returns {(layer, path): (A, B)}."""
    random, pairs, named = torch.Generator().manual_seed(0), {}, {}
    prefix = "base_model.model.language_model.model" if not below else "base_model.model.model"
    for layer in range(layers):
        for path, (wide, tall) in targets.items():
            a, b = (torch.randn(*shape, generator=random) * 0.5 for shape in ((2, wide), (tall, 2)))
            pairs[layer, path] = a, b
            for half, value in (("A", a), ("B", b)):
                named[f"{prefix}.layers.{layer}.{path}.lora_{half}.weight"] = value
    (folder / below).mkdir(exist_ok=True)
    save_file(named, folder / below / "adapter_model.safetensors", metadata={"format": "pt"})
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "bias": "none", "use_dora": False, "rank_pattern": {}}
    (folder / below / "adapter_config.json").write_text(json.dumps({**about, **settings}))
    return pairs


WHERE = {
    "granite_speech": ("", {"self_attn.q_proj": (32, 32), "self_attn.v_proj": (32, 16)}),
    "phi4_multimodal": ("speech-lora", {"self_attn.qkv_proj": (32, 64), "mlp.down_proj": (64, 32)}),
}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("family", WHERE)
def test_the_adapter_that_belongs_to_hearing_is_in_the_weights(tmp_path: Path, family: str, rslora: bool) -> None:
    folder = FAMILIES[family](tmp_path / "model")
    bare = opened(folder)
    before = answer(bare)
    below, targets = WHERE[family]
    pairs = add_adapter(folder, below, targets, bare.n_layers, use_rslora=rslora)
    scale = 3 / (2**0.5 if rslora else 2)
    handles = []
    for (layer, path), (a, b) in pairs.items():  # another route: the low-rank way beside the weights of the bare model

        def beside(_module: Any, args: tuple[Tensor], out: Tensor, a: Tensor = a, b: Tensor = b) -> Tensor:
            return out + scale * (args[0] @ a.T) @ b.T

        handles.append(bare.blocks[layer].get_submodule(path).register_forward_hook(beside))
    expected = answer(bare)
    for handle in handles:
        handle.remove()
    assert gap(expected, before) > 1e-2
    assert gap(answer(opened(folder)), expected) < 1e-4


def test_weights_saved_under_an_adapters_wrapper_open(tmp_path: Path) -> None:
    folder = FAMILIES["granite_speech"](tmp_path / "model")
    before = answer(opened(folder))
    weights_of(folder, lambda w: {k.replace("q_proj.weight", "q_proj.base_layer.weight"): v for k, v in w.items()})
    assert any("base_layer" in key for key in load_file(folder / "model.safetensors"))
    assert torch.equal(answer(opened(folder)), before)


@pytest.mark.parametrize(
    ("settings", "harm", "words"),
    [
        ({"use_dora": True}, None, "is not a plain LoRA .*use_dora.*peft"),
        ({"peft_type": "IA3"}, None, "is not a plain LoRA .*IA3"),
        ({"bias": "all"}, None, "is not a plain LoRA .*bias all"),
        ({}, "adapter_model.safetensors", "lacks adapter_model.safetensors; fetch it"),
        ({}, "adapter_config.json", "lacks adapter_config.json; fetch it"),
    ],
    ids=["dora", "ia3", "bias", "no weights", "no config"],
)
def test_adapters_that_cannot_be_merged_are_refused(tmp_path: Path, settings: dict, harm: str, words: str) -> None:
    folder = FAMILIES["granite_speech"](tmp_path / "model")
    add_adapter(folder, "", WHERE["granite_speech"][1], 3, **settings)
    if harm:
        (folder / harm).unlink()
    with pytest.raises(InterpError, match=words):
        opened(folder)


def test_an_adapter_on_more_than_the_blocks_is_refused(tmp_path: Path) -> None:
    folder = FAMILIES["granite_speech"](tmp_path / "model")
    add_adapter(folder, "", WHERE["granite_speech"][1], 4)  # one layer more than the model has
    with pytest.raises(InterpError, match=r"holds what is no low-rank matrix of a block: .*layers\.3\."):
        opened(folder)


# ---- features and prompts without the packages that the library asks for ---------------------------------------------


@pytest.mark.parametrize("n_samples", [100, 400, 7001])
def test_fun_asrs_filter_bank_is_the_librarys_of_kaldis_settings(n_samples: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)
    filters = mel_filter_bank(
        257, 80, 20, 8000, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )  # fmt: skip
    expected = spectrogram(
        np.pad(samples, (0, max(0, 400 - n_samples))), np.hamming(400), 400, 160, 512, power=2.0, center=False,
        preemphasis=0.97,
        mel_filters=filters, log_mel="log", mel_floor=1.192092955078125e-07, remove_dc_offset=True,
    ).T  # fmt: skip
    extractor = FunAsrFbank()
    found = extractor._extract_fbank_features(torch.from_numpy(samples)).numpy()
    assert found.shape == expected.shape == (1 + max(0, n_samples - 400) // 160, 80)
    assert np.abs(found - expected).max() < 1e-4 < np.ptp(found)
    assert extractor(samples, sampling_rate=16000)["input_features"].shape == (1, -(-len(found) // 6), 560)


def test_fun_asrs_filter_bank_is_torchaudios() -> None:
    """By numbers that `torchaudio.compliance.kaldi.fbank` of torchaudio 2.11 gave: bands 0, 8, 40 and 79."""
    expected = [[-9.460112, -6.779132, -4.397094, 1.127398], [-7.541518, -6.237679, -3.039608, 0.818237],
                [-7.296524, -5.766763, -1.244896, 0.690173]]  # fmt: skip
    found = FunAsrFbank()._extract_fbank_features(torch.from_numpy(tone(0.05, 440)))
    assert gap(found[:, [0, 8, 40, 79]], torch.tensor(expected)) < 1e-4


def test_the_seconds_that_mosss_processor_would_write_into_a_recording_are_left_out(tmp_path: Path) -> None:
    folder = FAMILIES["moss_transcribe_diarize"](tmp_path / "model")
    subject = opened(folder)
    ids = subject.model_inputs(tone(3.3, 300), "What?")["input_ids"][0]
    start, stop = subject.audio_span(ids, "a")
    assert stop - start == 42  # 330 frames -> 165, of 4
    subject.processor.time_marker_every_seconds = 2  # control: as the folder has it
    with pytest.raises(InterpError, match="has 2 audio spans"):
        subject.audio_span(subject.model_inputs(tone(3.3, 300), "What?")["input_ids"][0], "a")


@pytest.mark.parametrize("n_samples", [16000, 20801, 5000])
def test_granites_spectrogram_is_librosas_of_the_same_settings(n_samples: int) -> None:
    samples = tone(n_samples / 16000, 440)[:n_samples]
    found = GraniteMel().mel(torch.from_numpy(samples)[None])[0].numpy()
    expected = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=512, hop_length=160, win_length=400, window="hann", center=True,
        pad_mode="reflect", power=2.0, n_mels=80, fmin=0.0, fmax=8000.0, htk=True, norm=None,
    )  # fmt: skip
    assert found.shape == expected.shape == (80, n_samples // 160 + 1)
    assert np.abs(found - expected).max() / expected.max() < 1e-5
    slaney = librosa.feature.melspectrogram(y=samples, sr=16000, n_fft=512, hop_length=160, win_length=400, n_mels=80)
    assert np.abs(found - slaney).max() / expected.max() > 0.05  # control: another scale would be seen


def test_granites_frames_are_log_power_stacked_in_pairs() -> None:
    samples = tone(0.815, 440)  # 82 frames: 41 pairs
    made = GraniteMel()(samples)
    power = GraniteMel().mel(torch.from_numpy(samples)[None])[0].T.double()
    log = power.clamp(min=1e-10).log10()
    frames = torch.maximum(log, log.max() - 8) / 4 + 1
    pairs = torch.stack([torch.cat([frames[2 * i], frames[2 * i + 1]]) for i in range(len(frames) // 2)])
    assert made["input_features"].shape == (1, 41, 160)
    assert gap(made["input_features"][0], pairs.float()) < 1e-5
    assert made["audio_embed_sizes"] == [9] and made["input_features_mask"].tolist() == [[True] * 9]


def test_voxtrals_prompt_holds_one_marker_for_every_position_of_whole_windows(tmp_path: Path) -> None:
    reader = opened(FAMILIES["voxtral"](tmp_path / "model")).processor
    assert isinstance(reader, VoxtralReader)
    turn = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": PROMPT}]}]
    words = reader.tokenizer(PROMPT, add_special_tokens=False).input_ids
    for seconds, windows in ((0.5, 1), (4.0, 1), (4.01, 2)):
        made = reader(text=reader.apply_chat_template(turn), audio=[tone(seconds, 300)], sampling_rate=16000)
        assert made["input_ids"][0].tolist() == [1, 3, 25, *[24] * 50 * windows, *words, 4]
        assert made["input_features"].shape == (windows, 16, 400)


def test_a_tokenizer_that_is_none_of_voxtrals_is_refused(tmp_path: Path) -> None:
    folder = FAMILIES["voxtral"](tmp_path / "model")
    save_tekken(folder)
    whole = json.loads((folder / "tekken.json").read_text())
    for entry in whole["special_tokens"]:
        entry["token_str"] = entry["token_str"].replace("[AUDIO]", "<SPECIAL_24>")
    (folder / "tekken.json").write_text(json.dumps(whole))
    with pytest.raises(InterpError, match=r"lacks \[AUDIO\], so it is none of Voxtral's"):
        opened(folder)
    del whole["special_tokens"]
    (folder / "tekken.json").write_text(json.dumps(whole))
    with pytest.raises(InterpError, match="lists no special tokens.*mistral-common"):
        opened(folder)


def test_a_template_that_tells_the_date_gives_the_same_prompt_every_day(tmp_path: Path) -> None:
    folder = FAMILIES["granite_speech"](tmp_path / "model")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("Today's Date: {{ strftime_now('%B %d, %Y') }}.\n" + template)
    assert opened(folder).chat_text("Hm?").startswith("Today's Date: January 01, 2025.")
    assert with_fixed_date('{{ strftime_now("%Y") }}') == "{{ '2025' }}" and with_fixed_date(None) is None


def test_a_template_that_drops_the_question_is_refused(tmp_path: Path) -> None:
    folder = FAMILIES["audioflamingo3"](tmp_path / "model")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("{{ part['text'] }}", ""))
    with pytest.raises(InterpError, match="leaves the question 'What is .* out of the prompt"):
        opened(folder).check_prompt(PROMPT)


@pytest.mark.parametrize("template", ["{{ messages[0].content + '!' }}", "{% if %}", None])
def test_a_template_that_fails_or_is_absent_is_one_sentence(tmp_path: Path, template: str | None) -> None:
    folder = FAMILIES["audioflamingo3"](tmp_path / "model")
    if template is None:
        (folder / "chat_template.jinja").unlink()
    else:
        (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(InterpError, match="takes no clip and question as parts .*; copy the chat template"):
        opened(folder).check_prompt(PROMPT)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = FAMILIES["audioflamingo3"](tmp_path / "model")
    change_json(folder / "config.json", audio_token_id=9)
    with pytest.raises(InterpError, match="audio stands at token 9, but its tokenizer's <sound> is 3"):
        opened(folder)


# ---- a type that nobody has thought of -------------------------------------------------------------------------------


def test_for_a_new_decoder_type_one_row_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.register()
    folder = made_up.save_made_up(tmp_path / "model")
    with pytest.raises(InterpError, match=r"\(type made_up\), which is not known here"):
        opened(folder)
    wrong = Arch(**made_up.ROW | {"mlp_proj": "thinking.down"})
    monkeypatch.setitem(ARCHS, "made_up", wrong)
    with pytest.raises(InterpError, match="have no 'thinking.down', where its row in arch.py puts mlp_act; correct"):
        opened(folder).locate(Site("mlp_act", 0))
    monkeypatch.setitem(ARCHS, "made_up", Arch(**made_up.ROW))
    subject = opened(folder)
    assert type(subject.hf).__name__ == "MadeUpForConditionalGeneration"
    assert (subject.n_layers, subject.n_heads, subject.d_head, subject.max_seconds) == (3, 4, 4, 600)
    stems = [prompt_clip(subject, tone(*about), PROMPT, "abc"[i]) for i, about in enumerate(((0.5, 200), (1.2, 500)))]
    short, long = (clean_runs(subject, [stem], subject.kinds)[0] for stem in stems)
    for run in (short, long):
        with torch.inference_mode():
            assert gap(run.logits, subject.hf(**run.prompted.inputs).logits[0, -1]) < 1e-5
    labels = whole_vocabulary(short)
    for kind in ("resid_post", *KINDS_INSIDE):
        spec = every_layer(subject) if kind == "resid_post" else SiteSpec(kind, layers=(0, 1, 2))
        patches = [truncated(short, long), truncated(long, short), everywhere(long, long)]
        routes = {m: sweep(subject, patches, labels, spec, method=m) for m in ("fast", "wavefront", "reference")}
        for method in ("fast", "wavefront"):
            assert gap(routes[method].label_logits, routes["reference"].label_logits) < 1e-4, (kind, method)
        if kind == "resid_post":
            assert routes["fast"].methods == ("shortcut", "shortcut", "wavefront")
        rows = routes["reference"].label_logits
        assert gap(rows[0][:-1], short.logits.expand_as(rows[0][:-1])) > 1e-3
        assert gap(rows[2], long.logits.expand_as(rows[2])) < 1e-4
