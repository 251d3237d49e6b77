"""OpenS2S against plain tensor formulas on its saved weights; how long the audio is; prompt and frames."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2AudioEncoder, Qwen2AudioEncoderConfig, Qwen3Config, Qwen3ForCausalLM

from interp_core.errors import InterpError
from interp_core.models.audio_llms.opens2s import OpenS2SModel, OpenS2SProcessor, load_opens2s
from tests.tiny import RATE, tone
from tests.tiny_opens2s import ADDED, MELS, encoder_config, llm_config, save_opens2s, weights
from tests.trace.naive import PROMPT, gap

Opened = tuple[OpenS2SModel, OpenS2SProcessor]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    torch.set_num_threads(1)
    return load_opens2s(save_opens2s(tmp_path_factory.mktemp("opens2s") / "model"), dtype=torch.float32)


def inputs_of(processor: OpenS2SProcessor, samples: np.ndarray, prompt: str = PROMPT) -> dict[str, Tensor]:
    return processor(text=processor.chat_text(prompt), audio=[samples], sampling_rate=RATE)


# ---- the same numbers by another route: the library's encoder and decoder, formulas for all that is between ----------


def after_pooling(mel: int) -> int:
    return ((mel - 1) // 2 + 1 - 2) // 2 + 1


def positions(mel_frames: Sequence[int]) -> int:
    """The length formula of the original: mel frames of each window -> audio positions."""
    length = sum(map(after_pooling, mel_frames))
    for _ in range(2):
        length = math.floor((length - 1) / 2 + 1)
    return length


def halved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve [frames, d] with stride 2 by summing shifted matrix products, then gate."""
    size = weight.shape[-1]
    padded = torch.cat([x.new_zeros(size // 2, x.shape[1]), x, x.new_zeros(size // 2, x.shape[1])])
    out = (len(padded) - size) // 2 + 1
    y = bias + sum(padded[k : k + 2 * out - 1 : 2] @ weight[:, :, k].T for k in range(size))
    value, gate = y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]
    return value / (1 + torch.exp(-gate))


def adapted(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    for i in (0, 1):
        at = f"audio_adapter.subsampler.conv_layers.{i}."
        x = halved(x, w[at + "weight"], w[at + "bias"])
    inner = x @ w["audio_adapter.fc1.weight"].T
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    x = x + inner @ w["audio_adapter.fc2.weight"].T
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    return scaled * w["audio_adapter.ln.weight"] + w["audio_adapter.ln.bias"]


def below(w: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(part): value for name, value in w.items() if name.startswith(part)}


@torch.inference_mode()
def straight_logits(inputs: dict[str, Tensor], vocab_size: int) -> Tensor:
    """Return logits [expanded pos, d_vocab] of one row with one clip."""
    w = weights(vocab_size)
    encoder = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**encoder_config())).float().eval()
    encoder.load_state_dict(below(w, "audio_encoder_model."))
    llm = Qwen3ForCausalLM(Qwen3Config(**llm_config(vocab_size))).float().eval()
    llm.load_state_dict(below(w, "llm_model."))
    values, mask = inputs["speech_values"][0], inputs["speech_mask"][0]
    frames = []
    for start in range(0, values.shape[1], 3000):
        heard = int(mask[start : start + 3000].sum())
        if heard:
            window = values[None, :, start : start + 3000]
            frames.append(encoder(window).last_hidden_state[0, : after_pooling(heard)])
    ids = inputs["input_ids"][0].tolist()
    at = ids.index(-200)
    table = w["llm_model.model.embed_tokens.weight"]
    embeds = torch.cat([table[ids[:at]], adapted(torch.cat(frames), w), table[ids[at + 1 :]]])
    return llm(inputs_embeds=embeds[None], use_cache=False).logits[0]


@pytest.mark.parametrize("seconds", [0.3, 3.0, 29.99, 45.0])
def test_logits_equal_a_straight_computation_from_the_saved_weights(opened: Opened, seconds: float) -> None:
    hf, processor = opened
    inputs = inputs_of(processor, tone(seconds, 330))
    with torch.inference_mode():
        found = hf(**inputs, use_cache=False).logits
    expected = straight_logits(inputs, hf.config.llm_config.vocab_size)
    assert gap(found[0], expected) < 1e-5
    changed = dict(inputs, speech_values=inputs["speech_values"].flip(1))  # control: the sound reaches the readout
    with torch.inference_mode():
        assert gap(hf(**changed).logits[0, -1], found[0, -1]) > 1e-2


def test_eight_tokens_and_three_seconds_make_26_logits_with_the_audio_at_3_to_22(opened: Opened) -> None:
    hf, _ = opened
    ids = torch.tensor([[5, 6, 7, -200, 8, 9, 10, 11]])
    values, mask = torch.randn(1, MELS, 3000), (torch.arange(3000) < 300).long()[None]
    embeds: list[Tensor] = []
    handle = hf.llm_model.model.register_forward_pre_hook(
        lambda _m, _a, k: embeds.append(k["inputs_embeds"][0]), with_kwargs=True
    )
    with torch.inference_mode():
        logits = hf(ids, torch.ones_like(ids), values, mask).logits
        audio = hf.speech_embeddings(values, mask)[0]
    handle.remove()
    assert logits.shape == (1, 26, hf.config.llm_config.vocab_size)
    table = hf.get_input_embeddings().weight
    assert torch.equal(embeds[0][3:22], audio)
    assert torch.equal(embeds[0][:3], table[5:8]) and torch.equal(embeds[0][22:], table[8:12])


@pytest.mark.parametrize(
    ("mel", "expected"),
    [(1, 0), (2, 0), (3, 1), (6, 1), (100, 7), (101, 7), (300, 19), (1000, 63), (3000, 188), (3001, 188), (4500, 282)],
)
def test_a_clip_takes_as_many_positions_as_the_length_formula_says(opened: Opened, mel: int, expected: int) -> None:
    hf, processor = opened
    for n_samples in (160 * mel, 160 * mel - 159):  # a frame begins every 160 samples
        inputs = inputs_of(processor, tone(n_samples / RATE, 300)[:n_samples])
        assert int(inputs["speech_mask"].sum()) == mel
        with torch.inference_mode():
            (audio,) = hf.speech_embeddings(inputs["speech_values"], inputs["speech_mask"])
        windows = [3000] * (mel // 3000) + ([mel % 3000] if mel % 3000 else [])
        assert len(audio) == expected == positions(windows)


def test_a_row_of_a_batch_is_left_padded_and_comes_out_as_it_does_alone(opened: Opened) -> None:
    hf, processor = opened
    rows = [
        inputs_of(processor, tone(0.7, 300)),
        inputs_of(processor, tone(33.0, 400), "Happy?"),
        inputs_of(processor, tone(2.0, 500)),
    ]
    longest = max(row["input_ids"].shape[1] for row in rows)
    frames = max(row["speech_values"].shape[2] for row in rows)

    def padded(tensor: Tensor, to: int, value: float, left: bool) -> Tensor:
        extra = to - tensor.shape[-1]
        return torch.nn.functional.pad(tensor, (extra, 0) if left else (0, extra), value=value)

    encoded: list[int] = []
    counted: list[Tensor] = []
    handles = (
        hf.audio_encoder_model.register_forward_pre_hook(lambda _m, args: encoded.append(len(args[0]))),
        hf.llm_model.model.register_forward_pre_hook(
            lambda _m, _a, kwargs: counted.append(kwargs["position_ids"]), with_kwargs=True
        ),
    )
    with torch.inference_mode():
        alone = [hf(**row).logits[0] for row in rows]
        for left in (True, False):
            batch = {
                "input_ids": torch.cat([padded(row["input_ids"], longest, 9, left) for row in rows]),
                "attention_mask": torch.cat([padded(row["attention_mask"], longest, 0, left) for row in rows]),
                # Louder than any speech: what stands behind the mask is not heard.
                "speech_values": torch.cat([padded(row["speech_values"], frames, 7.0, False) for row in rows]),
                "speech_mask": torch.cat([padded(row["speech_mask"], frames, 0, False) for row in rows]),
            }
            found = hf(**batch).logits
            assert found.shape[1] == max(map(len, alone))
            for row, expected in zip(found, alone, strict=True):
                assert gap(row[-len(expected) :], expected) < 1e-5
    for handle in handles:
        handle.remove()
    assert encoded == 3 * [1, 2, 1], "windows that hold no sound of a clip are not encoded"
    for i, row in enumerate(alone):
        assert counted[-1][i, -len(row) :].tolist() == list(range(len(row)))


def test_two_clips_in_one_row_stand_at_their_own_markers(opened: Opened) -> None:
    hf, processor = opened
    first, second = tone(0.5, 300), tone(1.5, 700)
    with torch.inference_mode():
        for clips in ((first, second), (second, first)):
            inputs = processor(text="a<|im_audio|>b<|im_audio|>c", audio=clips, sampling_rate=RATE)
            heard = hf.speech_embeddings(inputs["speech_values"], inputs["speech_mask"])
            found = hf._spliced(inputs["input_ids"][0], heard)
            assert [len(h) for h in heard] == [positions([round(len(c) / 160)]) for c in clips]
            assert torch.equal(found[1 : 1 + len(heard[0])], heard[0])
            assert torch.equal(found[2 + len(heard[0]) : -1], heard[1])
            assert hf(**inputs).logits.shape[1] == 3 + sum(map(len, heard))


def test_markers_and_clips_that_do_not_match_are_refused_and_text_alone_is_not(opened: Opened) -> None:
    hf, _ = opened
    ids, values = torch.tensor([[5, -200, 6, -200]]), torch.zeros(1, MELS, 3000)
    with pytest.raises(InterpError, match="2 audio markers .* but 1 clips"):
        hf(ids, speech_values=values)
    with pytest.raises(InterpError, match="2 audio markers .* but 0 clips"):
        hf(ids)
    with pytest.raises(InterpError, match="has 2999 mel frames; the encoder takes whole windows of 3000"):
        hf(ids[:, :2], speech_values=values[..., :2999])
    with torch.inference_mode():
        text = torch.tensor([[5, 6, 7]])
        assert torch.equal(hf(text).logits, hf.llm_model(text).logits)
        assert hf(ids[:, :2], speech_values=values).logits.shape[1] == 189  # no mask: the whole window is sound


# ---- prompt and front end -----------------------------------------------------------------------------------------


def test_the_prompt_is_the_originals_word_for_word_and_its_marker_is_minus_200(opened: Opened) -> None:
    _, processor = opened
    text = processor.chat_text("Which emotion?")
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|im_audio_start|><|im_audio|><|im_audio_end|>Which emotion?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n<|im_tts_start|>"
    )
    ids = processor.token_ids(text)
    at = ids.index(-200)
    words = processor.tokenizer.convert_ids_to_tokens([i for i in ids if i != -200])
    assert ids.count(-200) == 1 and words[at - 1 : at + 1] == list(ADDED[:2]) and words[-1] == ADDED[2]
    assert processor.tokenizer.decode(ids[:at]) + "<|im_audio|>" + processor.tokenizer.decode(ids[at + 1 :]) == text


@pytest.mark.parametrize(("seconds", "windows"), [(0.2, 1), (30.0, 1), (30.01, 2), (61.0, 3)])
def test_frames_are_those_of_the_clip_padded_with_silence_to_whole_windows(
    opened: Opened, seconds: float, windows: int
) -> None:
    _, processor = opened
    samples = tone(seconds, 440)
    found = inputs_of(processor, samples)
    padded = np.zeros(windows * 30 * RATE, np.float32)
    padded[: len(samples)] = samples
    # Another route: the library's numpy spectrogram, instead of its torch one.
    expected = processor.feature_extractor._np_extract_fbank_features(padded[None], "cpu")
    assert found["speech_values"].shape == (1, MELS, 3000 * windows)
    assert np.abs(found["speech_values"].numpy() - expected).max() < 1e-4
    heard = found["speech_mask"][0]
    assert heard.diff().count_nonzero() == (heard[-1] == 0) and heard.sum() == math.ceil(len(samples) / 160)
