"""OpenS2S in the engine: one placeholder that the model expands, the readout behind it, and patching at its layers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.models.arch import Arch
from interp_core.models.audio_llms.opens2s import OpenS2S, load_opens2s
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.sweep import sweep
from tests.tiny import LABELS, RATE, tone
from tests.tiny_opens2s import save_opens2s
from tests.trace.cases import every_layer, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap, plain_logits

ROW = Arch(
    blocks="llm_model.model.layers",
    decoder="llm_model.model",
    norm="llm_model.model.norm",
    head="llm_model.lm_head",
    rotary="llm_model.model.rotary_emb",
    sizes="llm_config",
    # The encoder makes one frame of four mel frames, the adapter's two convolutions one position of four of those.
    frames_per_position=lambda config: 16,
    cuts=False,
)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> OpenS2S:
    torch.set_num_threads(1)
    folder: Path = save_opens2s(tmp_path_factory.mktemp("opens2s") / "model")
    hf, processor = load_opens2s(folder, dtype=torch.float32)
    hf.requires_grad_(False)
    return OpenS2S(name="speech", weights_hash="0" * 64, hf=hf, arch=ROW, processor=processor)


def test_the_span_starts_at_the_placeholder_and_the_readout_is_the_last_logit(subject: OpenS2S) -> None:
    assert (subject.n_layers, subject.n_heads, subject.d_model, subject.d_head) == (4, 4, 40, 16)
    assert subject.audio_token_id == -200 and subject.sample_rate == RATE
    for seconds, length in ((1.0, 7), (3.0, 19), (10.0, 63), (30.0, 188), (45.0, 282)):
        prompted = prompt_clip(subject, tone(seconds, 350), PROMPT, "a")
        ids = prompted.inputs["input_ids"][0]
        start = ids.tolist().index(-200)
        assert prompted.audio == (start, start + length)
        assert prompted.n_pos == len(prompted.token_ids) == len(ids) - 1 + length
        assert prompted.token_ids[start : start + length].eq(-200).all()
        assert prompted.token_ids[start + length :].equal(ids[start + 1 :])
        assert length * prompted.seconds_per_position == pytest.approx(seconds, abs=0.2)
        run = clean_runs(subject, [prompted])[0]
        logits = subject.hf(**prompted.inputs).logits[0]
        assert len(logits) == prompted.n_pos
        assert gap(run.logits, logits[-1]) < 1e-5
        assert gap(run.logits, logits[len(ids) - 1]) > 1e-2  # control: where a readout without the expansion would be


def test_the_audio_positions_are_described_with_the_tokens_around_them(subject: OpenS2S) -> None:
    about = subject.describe(prompt_clip(subject, tone(3.0, 350), PROMPT, "a"))
    assert about["audio_positions"] == 19 and about["audio_seconds"] == pytest.approx(3.04)
    assert about["tokens_before"][-1] == "<|im_audio_start|>" and about["tokens_after"][0] == "<|im_audio_end|>"
    assert about["tokens_in_span"] == ["<|im_audio|>"] and about["readout_token"] == "<|im_tts_start|>"


def test_a_label_is_the_word_right_behind_the_last_token_of_the_prompt(subject: OpenS2S) -> None:
    found = subject.labels(LABELS, PROMPT)
    assert [subject.tokenizer.decode(i) for i in found.ids] == list(LABELS)


def test_fast_and_reference_patching_agree_with_a_hook_on_the_decoders_layer(subject: OpenS2S) -> None:
    clips = {"a": tone(1.6, 350), "b": tone(2.3, 500)}
    a, b = clean_runs(subject, [prompt_clip(subject, samples, PROMPT, name) for name, samples in clips.items()])
    labels, (start, stop) = whole_vocabulary(a), a.prompted.audio
    fast, slow = (
        sweep(subject, [truncated(a, b)], labels, every_layer(subject), method=method).label_logits[0]
        for method in ("fast", "reference")
    )
    assert gap(fast, slow) < 1e-4
    for layer, found in enumerate(slow[1:]):
        donated = b.resid[layer + 1][start:stop]

        def patch(_module, _args, output, donated=donated):
            return torch.cat([output[:, :start], donated[None], output[:, stop:]], 1)

        handle = subject.hf.llm_model.model.layers[layer].register_forward_hook(patch)
        expected = plain_logits(subject.hf, a.prompted.inputs)
        handle.remove()
        assert gap(found, expected) < 1e-4, layer
    assert gap(slow[1], a.logits) > 1e-2  # control: a patch behind the first block changes the answer


@pytest.mark.parametrize("samples", [0, 160, 320])
def test_a_clip_too_short_for_one_position_is_named(subject: OpenS2S, samples: int) -> None:
    with pytest.raises(InterpError, match=f"clip 'blip' has no audio position: {samples} samples at 16000 Hz are too"):
        prompt_clip(subject, np.zeros(samples, np.float32), PROMPT, "blip")
    assert prompt_clip(subject, np.zeros(480, np.float32), PROMPT, "blip").n_pos > 0


def test_a_prompt_with_a_marker_of_its_own_is_refused(subject: OpenS2S) -> None:
    subject.check_prompt(PROMPT)
    with pytest.raises(InterpError, match=r"gives 2 audio spans; .* leave <\|im_audio\|> out of the prompt"):
        subject.check_prompt("And <|im_audio|>? " + PROMPT)


def test_no_clip_is_too_long_and_keys_and_values_may_be_reused(subject: OpenS2S) -> None:
    assert subject.max_seconds == float("inf")
    assert subject.shortcut_refusal() is None
