"""Adding a vector behind a layer: in every family the fast route is the model's own forward with one hook."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.experiments.steering.steered import SteeredClip
from tests.experiments.scenes import Recordings
from tests.families.audio_llms import FAMILIES
from tests.families.encoder_routes import answer, hook
from tests.families.subjects import Opened, all_logits
from tests.models.conftest import OpenFamily, clip_for
from tests.trace.naive import PROMPT, gap

CLIP = Clip("long", Path("long"), {}, "long")


def both(subject, prompt, sound, logits, positions="audio"):
    """The clip by the fast route and by the reference."""
    reader = Recordings(subject, prompt, {"long": sound})
    return [
        SteeredClip(reader, CLIP, all_logits(logits), positions, method=method, together=2)
        for method in ("fast", "reference")
    ]


def some_vectors(width: int, size: float) -> Tensor:
    """Nothing, and three vectors of about a state's length."""
    made = torch.Generator().manual_seed(5)
    return torch.cat([torch.zeros(1, width), size * torch.randn(3, width, generator=made)])


def agree(fast: SteeredClip, slow: SteeredClip, states: list[Tensor], moves: range) -> dict[int, Tensor]:
    """Hold the routes against each other behind the first, a middle and the last layer; the reference's logits."""
    found = {}
    assert gap(fast.logits, slow.logits) < 1e-4
    for layer in sorted({0, len(states) // 2, len(states) - 1}):
        shifts = some_vectors(states[layer].shape[-1], float(states[layer].std()))
        one, other = fast.computed(layer, shifts), slow.computed(layer, shifts)
        assert gap(one[0], other[0]) < 1e-4 and gap(one[1], other[1]) < 1e-4, layer
        assert gap(one[0][0], slow.logits) < 1e-4, "nothing added changes nothing"
        assert torch.equal(other[0][0], slow.logits), "and by the reference not one bit"
        if layer in moves:  # control: vectors do something, and each another thing
            assert min(gap(other[0][i], other[0][j]) for i in range(4) for j in range(i)) > 2e-4, layer
        nothing = fast.answers(layer, torch.zeros(2, shifts.shape[1]))
        assert torch.equal(nothing[0], fast.logits.expand(2, -1)) and nothing[1].tolist() == [fast.log_mass] * 2
        found[layer] = other[0]
    return found


def test_an_encoder_steered_behind_a_layer_answers_as_its_own_forward_with_a_plain_hook_does(one: Opened):
    subject, run = one.subject, one.runs["long"]
    fast, slow = both(subject, one.prompt, one.samples["long"], run.logits)
    states = [run.at("resid_post", layer) for layer in range(subject.n_layers)]
    found = agree(fast, slow, states, range(1))  # of later layers some read nothing, or other positions
    if one.case.reads == "texts":  # the plain forward ends at an embedding there
        return
    for layer, logits in found.items():
        shifts = some_vectors(states[layer].shape[-1], float(states[layer].std()))
        for shift, expected in zip(shifts, logits, strict=True):

            def add(value: Tensor, shift: Tensor = shift) -> Tensor:
                if value.ndim == 4:  # a picture
                    return value + shift[:, None, None]
                value = value.clone()
                at = one.stems["long"].recording.positions()
                value[:, at if len(at) <= value.shape[1] and not subject.whole_only else slice(None)] += shift
                return value

            handle = hook(one, "resid_post", layer, add)
            plain = answer(one, one.stems["long"].inputs)[0]
            handle.remove()
            assert gap(plain, expected) < 1e-4, layer


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", ["audio", "last"])
def test_an_audio_llm_steered_behind_a_layer_answers_as_its_own_forward_with_one_hook_does(
    opened: OpenFamily, family: str, positions
):
    subject = opened(family)
    sound = clip_for(subject, 0.8, 350)
    reader = Recordings(subject, PROMPT, {"long": sound})
    run = reader.store.run(CLIP, PROMPT)
    fast, slow = both(subject, PROMPT, sound, run.logits, positions)
    states = [run.at("resid_post", layer) for layer in range(subject.n_layers)]
    last, unread = subject.n_layers - 1, subject.unread_from
    assert unread == last - 2 * family.startswith("gemma")  # two more, which read keys of earlier ones
    found = agree(fast, slow, states, range(last + 1) if positions == "last" else range(unread))
    for layer in found if positions == "audio" else ():  # of what it leaves, the answer reads the last position alone
        if layer >= unread:
            assert gap(found[layer], slow.logits.expand_as(found[layer])) < 1e-6
