"""SEW and SEW-D: what is left over behind the squeezed positions is heard as zeros, and what is too short."""

import pytest
import torch

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
