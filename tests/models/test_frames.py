"""SEW, SEW-D and Parakeet: frames that a position does not hold, and clips that are too short for one."""

import pytest
import torch
from transformers import AutoFeatureExtractor

from interp_core.errors import InterpError
from interp_core.trace.clean import prompt_clip
from tests.models.conftest import Open
from tests.trace.naive import gap


@pytest.mark.parametrize("name", ["sew", "sewd"])
def test_frames_that_no_position_holds_are_zeros_in_the_mean(name: str, open_once: Open) -> None:
    one = open_once(name)
    run, hf = one.runs["long"], one.subject.hf
    body = getattr(hf, one.subject.arch.body)
    with torch.inference_mode():
        state = body.encoder.upsample(run.resid[-1][None])
        assert state.shape[1] == 38  # of 39 frames: 19 positions of two
        zero = hf.projector(torch.zeros(1, 1, state.shape[2]))
        by_hand = hf.classifier((hf.projector(state).sum(1) + zero[:, 0]) / 39)[0]
        without = hf.classifier(hf.projector(state).mean(1))[0]
    assert gap(run.logits, by_hand) < 1e-5 and gap(run.logits, without) > 1e-3


@pytest.mark.parametrize("name", ["sew", "sewd"])
def test_a_clip_of_one_frame_fills_no_position_of_two(name: str, open_once: Open) -> None:
    one = open_once(name)
    with pytest.raises(InterpError, match="clip 'click' is too short for"):
        prompt_clip(one.subject, one.samples["short"][:719], "", "click")
    assert prompt_clip(one.subject, one.samples["short"][:720], "", "click").audio == (0, 1)


@pytest.mark.parametrize("name", ["parakeet", "parakeet-bare"])
def test_a_clip_of_one_frame_has_no_spread_to_be_scaled_by(name: str, open_once: Open) -> None:
    one = open_once(name)
    for n in (1, 160, 319):
        with pytest.raises(InterpError, match="clip 'click' is too short for"):
            prompt_clip(one.subject, one.samples["short"][:n], "", "click")
    stem = prompt_clip(one.subject, one.samples["short"][:320], "", "click")
    assert stem.audio == (0, 1) and stem.embeds.isfinite().all() and stem.seconds_per_position == 0.08


def test_a_frame_of_the_spectrogram_that_is_padding_is_not_heard(open_once: Open) -> None:
    """The extractor makes one frame more than there is sound, masked; positions are those of the library under it."""
    one = open_once("parakeet")
    extractor = AutoFeatureExtractor.from_pretrained(one.path)
    made = extractor(one.samples["long"], sampling_rate=16_000, return_tensors="pt")
    assert made["input_features"].shape[1] == 81 and int(made["attention_mask"].sum()) == 80
    with torch.inference_mode():
        masked = one.subject.hf.encoder(**made)
        whole = one.subject.hf.encoder(made["input_features"]).last_hidden_state
    heard = masked.last_hidden_state[0, masked.attention_mask[0].bool()]
    assert len(heard) == one.stems["long"].n_pos == 10 and whole.shape[1] == 11
    assert gap(one.runs["long"].resid[-1], heard) < 1e-5 and gap(whole[0, :10], heard) > 1e-3
