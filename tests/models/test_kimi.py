"""Kimi-Audio against plain formulas on its saved weights: mel frames, codes, streams, logits; its tokenizer; what it
writes; how long the audio is."""

import base64
import json
import math
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import regex
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import WhisperConfig

from interp_core.errors import InterpError
from interp_core.experiments.checks import TOLERANCE
from interp_core.models.audio_llms.glm_tokenizer import GlmSpeechTokenizer
from interp_core.models.audio_llms.kimi import KimiAudio
from interp_core.models.audio_llms.kimi_net import KimiAudioModel
from interp_core.models.load import open_model
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.generate import Row, generate
from interp_core.trace.sweep import sweep
from tests.tiny import LABELS, RATE, tone
from tests.tiny_kimi import (
    CODE_LAYERS,
    MELS,
    N_SPECIAL,
    TOKENIZER,
    WHISPER,
    ranks,
    save_kimi,
    save_tokenizer,
    special,
    tokenizer_json,
)
from tests.trace.cases import every_layer, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap

Weights = dict[str, Tensor]
PATTERN = (  # Qwen2's
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = (
    *(PROMPT, "it's  12 o'clock\n\n ok", "<|im_msg_end|><|im_media_begin|> is text", " \t", "é🙂"),
    "你好，请将音频内容转换为文字。",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_kimi(tmp_path_factory.mktemp("kimi") / "model")


@pytest.fixture(scope="module")
def subject(folder: Path) -> KimiAudio:
    return opened(folder)


def opened(folder: Path | str, dtype: str = "float32") -> KimiAudio:
    found = open_model(str(folder), device="cpu", dtype=dtype)
    assert isinstance(found, KimiAudio)
    return found


# ---- the published forward, written out ------------------------------------------------------------------------------


def read(folder: Path) -> Weights:
    return {n: v.double() for file in sorted(folder.glob("*.safetensors")) for n, v in load_file(file).items()}


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    out = x @ w[f"{name}.weight"].T
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def layer_norm(w: Weights, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def rms_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]


def attended(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Heads apart: q, k, v [heads, pos, d_head], allowed [pos, pos]; back side by side [pos, heads * d_head]."""
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    return (scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v).transpose(0, 1).flatten(1)


def heads(x: Tensor, n: int) -> Tensor:
    return x.unflatten(-1, (n, -1)).transpose(0, 1)


def whisper_layer(w: Weights, at: str, x: Tensor, allowed: Tensor) -> Tensor:
    h = layer_norm(w, f"{at}.self_attn_layer_norm", x)
    q, k, v = (heads(linear(w, f"{at}.self_attn.{n}_proj", h), 2) for n in "qkv")
    x = x + linear(w, f"{at}.self_attn.out_proj", attended(q, k, v, allowed))
    h = linear(w, f"{at}.fc1", layer_norm(w, f"{at}.final_layer_norm", x))
    return x + linear(w, f"{at}.fc2", functional.gelu(h))


def convolved(w: Weights, at: str, mel: Tensor, edge: tuple[int, int]) -> Tensor:
    """mel [bands, frames] through two convolutions: [frames // 2, width]."""
    x = mel.double()[None]
    for number, stride in ((1, 1), (2, 2)):
        weight, bias = w[f"{at}conv{number}.weight"], w[f"{at}conv{number}.bias"]
        x = functional.gelu(functional.conv1d(functional.pad(x, edge), weight, bias, stride=stride))
    return x[0].T


def plain_codes(folder: Path, mel: Tensor, heard: Tensor) -> list[int]:
    """The codes of one piece: mel [bands, frames], heard [frames]."""
    w, about = read(folder / TOKENIZER), json.loads((folder / TOKENIZER / "config.json").read_text())
    x = convolved(w, "", mel, (2, 0) if about["encoder_causal_convolution"] else (1, 1))
    x = x + w["embed_positions.weight"][: len(x)]
    frames, block = heard[::2].bool(), about["quantize_causal_block_size"]
    for layer in range(CODE_LAYERS):
        n = len(x)
        allowed = [[block is None or b <= a or a // block == b // block for b in range(n)] for a in range(n)]
        x = whisper_layer(w, f"layers.{layer}", x, torch.tensor(allowed) & frames)
        if layer + 1 == about["pooling_position"]:
            fours = [x[i : i + 4] for i in range(0, n, 4)]
            x = torch.stack([one.mean(0) if about["pooling_type"] == "avg" else one.max(0).values for one in fours])
            frames, block = frames[::4], block and block // 4
    nearest = [int((w["codebook.weight"] - state).norm(dim=-1).argmin()) for state in x]
    return [code for code, kept in zip(nearest, frames.tolist(), strict=True) if kept]


def plain_frames(folder: Path, mel: Tensor) -> Tensor:
    """Whisper's encoder on one piece of 3000 mel frames: [1500, d_encoder]."""
    w = {n.removeprefix("model.encoder."): v for n, v in read(folder / WHISPER).items() if "decoder" not in n}
    x = convolved(w, "", mel, (1, 1)) + w["embed_positions.weight"]
    everything = torch.ones(1500, 1500, dtype=torch.bool)
    return layer_norm(w, "layer_norm", whisper_layer(w, "layers.0", x, everything))


def rotated(x: Tensor, theta: float) -> Tensor:
    """x [heads, pos, d_head] by the angles of its positions."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1]).double()[:, None] / theta ** (torch.arange(half).double() / half)
    cos, sin = (torch.cat([made, made], -1) for made in (angles.cos(), angles.sin()))
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def plain_logits(folder: Path, embeds: Tensor) -> Tensor:
    """The text branch over what enters the first block [pos, d_model]: [pos, d_vocab]."""
    w, about = read(folder), json.loads((folder / "config.json").read_text())
    n_heads, n_kv = about["num_attention_heads"], about["num_key_value_heads"]
    x, n = embeds, len(embeds)
    before = torch.ones(n, n, dtype=torch.bool).tril()
    for layer in range(about["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        h = rms_norm(w, f"{at}.input_layernorm", x)
        q, k, v = (
            heads(linear(w, f"{at}.self_attn.{m}_proj", h), many)
            for m, many in (("q", n_heads), ("k", n_kv), ("v", n_kv))
        )
        k, v = (kept.repeat_interleave(n_heads // n_kv, 0) for kept in (rotated(k, about["rope_theta"]), v))
        x = x + linear(w, f"{at}.self_attn.o_proj", attended(rotated(q, about["rope_theta"]), k, v, before))
        h = rms_norm(w, f"{at}.post_attention_layernorm", x)
        gated = functional.silu(linear(w, f"{at}.mlp.gate_proj", h)) * linear(w, f"{at}.mlp.up_proj", h)
        x = x + linear(w, f"{at}.mlp.down_proj", gated)
    return rms_norm(w, "model.norm", x) @ w["lm_head.weight"].T


def plain_embeds(folder: Path, inputs: Weights, written: tuple[int, ...] = ()) -> Tensor:
    """What enters the first block, from a processor's mel frames, with tokens written behind the prompt."""
    w, base = read(folder), len(ranks())
    vectors, blank = w["model.embed_tokens.weight"], special("blank")
    codes, frames = [], []
    for long, short, heard in zip(
        inputs["whisper_features"], inputs["code_features"], inputs["code_mask"], strict=True
    ):
        of_piece = plain_codes(folder, short, heard)
        codes += of_piece
        frames.append(plain_frames(folder, long)[: 4 * len(of_piece)])
    stacked = torch.cat(frames).reshape(len(codes), -1)  # four frames side by side
    h = functional.silu(linear(w, "model.vq_adaptor.layers.0", stacked))
    h = layer_norm(w, "model.vq_adaptor.layers.4", linear(w, "model.vq_adaptor.layers.3", h), 1e-6)
    sound = (vectors[[base + N_SPECIAL + code for code in codes]] + h) * math.sqrt(2)
    asked = plain_tokens(PROMPT)
    before = [special("user"), *[blank] * len(asked), special("media_begin")]
    behind = [special(name) for name in ("media_end", "to_text", "msg_end", "assistant")] + [blank] * len(written)
    stream = torch.cat([vectors[before], sound, vectors[behind]])
    words = [blank, *asked, *[blank] * (len(codes) + 5), *written]
    return stream + vectors[words]


def plain_tokens(text: str) -> list[int]:
    """tiktoken's way: of each piece of the text the two neighbours are joined that make the first of the list."""
    of = {piece: rank for rank, piece in enumerate(ranks())}
    found = []
    for piece in regex.findall(PATTERN, text):
        parts = [bytes([byte]) for byte in piece.encode()]
        while len(parts) > 1:
            joined = [of.get(a + b, math.inf) for a, b in zip(parts, parts[1:], strict=False)]
            at = joined.index(min(joined))
            if joined[at] == math.inf:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        found += [of[part] for part in parts]
    return found


# ---- equal to it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0001, 0.08, 0.081, 1.31, 31.0])
def test_logits_equal_a_straight_computation_from_the_saved_weights(folder: Path, seconds: float) -> None:
    subject = opened(folder)
    subject.hf.double()  # both sides: in float32 their roundings alone may differ by 1e-5
    samples = tone(seconds, 330) if seconds > 0.001 else np.full(1, 0.1, np.float32)
    inputs = subject.model_inputs(samples, PROMPT)
    with torch.inference_mode():
        found = subject.hf(**inputs, use_cache=False).logits[0]
    embeds = plain_embeds(folder, inputs)
    expected = plain_logits(folder, embeds)
    assert found.shape == expected.shape and gap(found, expected) < 1e-5
    other = subject.model_inputs(tone(max(seconds, 0.5), 700), PROMPT)
    assert gap(subject.forward(other)[0], expected[-1].float()) > 1e-2  # control: the sound reaches the readout


def test_codes_are_the_nearest_vectors_and_each_part_of_the_sum_reaches_the_answer(
    folder: Path, subject: KimiAudio
) -> None:
    hf: KimiAudioModel = subject.hf
    inputs = subject.model_inputs(librosa.chirp(fmin=80, fmax=4000, sr=RATE, duration=2.2).astype("f4"), PROMPT)
    with torch.inference_mode():
        found = hf.audio_tokenizer(inputs["code_features"], inputs["code_mask"])[0].tolist()
        assert found[:28] == plain_codes(folder, inputs["code_features"][0], inputs["code_mask"][0])
        assert len(set(found)) > 5  # control: not one code for everything
        clean = hf(**inputs).logits[0, -1]
        for name in ("whisper_features", "code_features"):
            assert gap(hf(**{**inputs, name: inputs[name].flip(-1)}).logits[0, -1], clean) > 1e-3, name
        words = inputs["text_input_ids"].clone()
        words[0, 2] = 7
        assert gap(hf(**{**inputs, "text_input_ids": words}).logits[0, -1], clean) > 1e-3


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"pooling_type": "max"},
        {"quantize_causal_block_size": None},
        {"encoder_causal_convolution": False},
        {"pooling_position": 1},
    ],
)
def test_each_setting_that_the_tokenizers_code_knows_does_what_it_says(
    folder: Path, tmp_path: Path, other: dict[str, Any]
) -> None:
    save_tokenizer(tmp_path / "model" / TOKENIZER, **other)
    about = {**WhisperConfig().to_dict(), **tokenizer_json(**other)}
    made = GlmSpeechTokenizer(WhisperConfig.from_dict(about)).eval().double()
    made.load_state_dict(read(tmp_path / "model" / TOKENIZER), strict=False)
    torch.manual_seed(0)
    mel, heard = torch.randn(2, MELS, 200).double(), torch.ones(2, 200, dtype=torch.long)
    heard[1, 123:] = 0
    with torch.inference_mode():
        found = made(mel, heard)
    for row, n in ((0, 25), (1, 16)):
        expected = plain_codes(tmp_path / "model", mel[row], heard[row])
        assert found[row, :n].tolist() == expected and len(expected) == n
        assert not other or expected != plain_codes(folder, mel[row], heard[row])  # control: it changes the codes


def test_a_frame_of_the_tokenizer_sees_its_block_and_all_before_and_no_padding(subject: KimiAudio) -> None:
    hf: KimiAudioModel = subject.hf
    state: list[Tensor] = []
    handle = hf.audio_tokenizer.layers[-1].register_forward_hook(lambda _m, _a, out: state.append(out[0]))
    torch.manual_seed(0)
    mel, heard = torch.randn(1, MELS, 160), torch.ones(1, 160, dtype=torch.long)
    other = mel.clone()
    other[..., 120:] += 1  # frames 60 onwards, of blocks of 20
    with torch.inference_mode():
        for one in (mel, other):
            hf.audio_tokenizer(one, heard)
        assert gap(state[0][:60], state[1][:60]) < 1e-5 < 1e-2 < gap(state[0][60:], state[1][60:])
        heard[:, 120:] = 0
        for one in (mel, other):
            hf.audio_tokenizer(one, heard)
    handle.remove()
    assert gap(state[2][:60], state[3][:60]) < 1e-5 and gap(state[0][40], state[0][59]) > 1e-2


def test_mel_frames_are_those_that_the_published_code_computes(subject: KimiAudio) -> None:
    samples = tone(1.0, 440) + 0.01 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    inputs = subject.model_inputs(samples, PROMPT)
    for name, length in (("whisper_features", 480_000), ("code_features", 16_640)):  # 30 s, and 13 codes
        padded = torch.from_numpy(np.pad(samples, (0, length - len(samples))))
        spectrum = torch.stft(padded, 400, 160, window=torch.hann_window(400), return_complex=True)[..., :-1].abs() ** 2
        bands = torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=400, n_mels=MELS)) @ spectrum
        log = bands.clamp(min=1e-10).log10()
        expected = (torch.maximum(log, log.max() - 8) + 4) / 4
        assert inputs[name].shape[1:] == expected.shape and gap(inputs[name][0], expected) < 1e-4
    assert inputs["code_mask"].sum() == 100 and inputs["code_mask"].shape == (1, 104)


# ---- the tokenizer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_pieces_that_tiktoken_joins_and_names_of_special_tokens_mean_nothing(
    subject: KimiAudio, text: str
) -> None:
    ids = subject.tokenizer(text, add_special_tokens=False).input_ids
    assert ids == plain_tokens(text) and max(ids) < len(ranks())
    assert subject.text_of(ids) == text


def test_special_tokens_stand_where_the_published_config_has_them(subject: KimiAudio) -> None:
    known, base = subject.tokenizer.get_vocab(), 151_643  # byte strings of the published file
    published = {
        "<|im_msg_end|>": 151_645,
        "<|im_media_begin|>": 151_661,
        "<|im_media_end|>": 151_663,
        "<|im_kimia_text_blank|>": 151_666,
        "<|im_kimia_text_eos|>": 151_667,
        "<|im_kimia_user_msg_start|>": 151_670,
        "<|im_kimia_assistant_msg_start|>": 151_671,
        "<|im_kimia_speech_ct_id|>": 151_675,
        "<|im_kimia_speech_ctd_id|>": 151_676,
    }
    assert {name: known[name] - len(ranks()) + base for name in published} == published
    assert len(known) - len(ranks()) + base == 152_064  # where the published codes begin
    assert known["<|reserved_token_20|>"] == known["<|im_kimia_speech_ctd_id|>"] + 1


def test_a_label_is_the_first_token_of_a_text_of_its_own(subject: KimiAudio) -> None:
    found = subject.labels(LABELS, PROMPT)
    assert [plain_tokens(label) for label in LABELS] == [[i] for i in found.ids]


# ---- in the engine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "n"), [(1, 1), (1280, 1), (1281, 2), (RATE, 13), (30 * RATE + 1, 376)])
def test_a_clip_takes_a_position_for_every_begun_80_ms(subject: KimiAudio, samples: int, n: int) -> None:
    stem = prompt_clip(subject, np.resize(tone(1.0, 300), samples), PROMPT, "a")
    start, stop = stem.audio
    assert stop - start == n and stem.n_pos == len(plain_tokens(PROMPT)) + 6 + n
    assert stem.seconds_per_position == pytest.approx(0.08) and subject.max_seconds == float("inf")
    about = subject.describe(stem)
    assert about["tokens_before"][-1] == "<|im_media_begin|>" and about["tokens_in_span"] == ["<|AUDIO|>"]
    assert about["tokens_after"][0] == "<|im_media_end|>"
    assert about["readout_token"] == "<|im_kimia_assistant_msg_start|>"


def test_an_empty_clip_and_a_prompt_with_the_marker_are_refused(subject: KimiAudio) -> None:
    with pytest.raises(InterpError, match="clip 'blip' has no audio position: it holds no sample"):
        prompt_clip(subject, np.zeros(0, np.float32), PROMPT, "blip")
    with pytest.raises(InterpError, match=r"gives 2 audio spans; .* leave <\|AUDIO\|> out of the prompt"):
        subject.check_prompt("And <|AUDIO|>? " + PROMPT)
    subject.check_prompt(PROMPT)


def test_rows_of_a_batch_take_the_codes_of_their_own_clips(subject: KimiAudio) -> None:
    rows = [subject.model_inputs(tone(1.0, hertz), PROMPT) for hertz in (300, 900)]
    with torch.inference_mode():
        together = subject.hf(**{name: torch.cat([row[name] for row in rows]) for name in rows[0]}).logits
        for row, found in zip(rows, together, strict=True):
            assert gap(found, subject.hf(**row).logits[0]) < 1e-5
    assert gap(*together[:, -1]) > 1e-2


def test_answers_in_words_are_plain_greedy_decoding_with_a_blank_beside_every_word(
    folder: Path, subject: KimiAudio
) -> None:
    stem = prompt_clip(subject, tone(0.9, 300), PROMPT, "a")
    (text,) = generate(subject, [Row(stem)], 6)
    inputs, written = subject.model_inputs(tone(0.9, 300), PROMPT), []
    for _ in range(6):
        token = int(plain_logits(folder, plain_embeds(folder, inputs, tuple(written)))[-1].argmax())
        if token == special("text_end"):
            break
        written.append(token)
    assert list(text.tokens) == written and len(written) > 2
    ended = subject.hf.generation_config.eos_token_id
    assert ended == special("text_end")  # of the original's loop, not of generation_config.json
    codes = [len(ranks()) + N_SPECIAL + 3, *plain_tokens("happy")]
    assert subject.text_of(codes) == "happy"  # what the text branch puts out of the codes is left out, as there


def test_in_bfloat16_codes_stay_what_they_are_and_the_fast_route_near_the_reference(
    folder: Path, subject: KimiAudio
) -> None:
    half = opened(folder, "bfloat16")
    assert half.dtype == torch.bfloat16 and half.hf.whisper.conv1.weight.dtype == torch.bfloat16
    assert {p.dtype for p in half.hf.audio_tokenizer.parameters()} == {torch.float32}
    for hertz in (350, 800):
        one, two = (which.model_inputs(tone(1.6, hertz), PROMPT) for which in (half, subject))
        assert one["code_features"].dtype == torch.float32 and torch.equal(one["code_features"], two["code_features"])
    stems = [prompt_clip(half, tone(1.6, 350), PROMPT, "a"), prompt_clip(half, tone(2.3, 500), PROMPT, "b")]
    a, b = clean_runs(half, stems)
    fast, slow = (
        sweep(half, [truncated(a, b)], whole_vocabulary(a), every_layer(half), method=method).label_logits[0]
        for method in ("fast", "reference")
    )
    assert gap(fast, slow) < TOLERANCE[torch.bfloat16]


def test_the_vocabulary_file_is_what_was_written(folder: Path) -> None:
    lines = (folder / "tiktoken.model").read_bytes().splitlines()
    assert [base64.b64decode(line.split()[0]) for line in lines] == ranks()
