"""Proxies of a representation: closed forms, invariances, and controls that must break them."""

import math

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.maths.proxies import (
    energy_change,
    first_component,
    frame_energy,
    modulation_centroid,
    relative_change,
    zero_crossing_rate,
)

RATE = 50.0


def random_frames(seed=0, frames=40, width=6):
    return torch.randn(3, frames, width, generator=torch.Generator().manual_seed(seed)).double()


def test_energy_is_the_norm_over_dimensions_frame_by_frame():
    x = torch.tensor([[[3.0, 4.0], [5.0, 12.0], [0.0, 0.0]]])
    assert frame_energy(x).tolist() == [[5.0, 13.0, 0.0]]


def test_the_first_component_is_the_direction_of_the_largest_variance_by_another_route():
    x = random_frames() * torch.tensor([1.0, 5, 1, 1, 1, 1])
    found = first_component(x)
    for i in range(len(x)):
        values, vectors = np.linalg.eigh(np.cov(x[i].numpy().T))
        assert abs(float(found[i].numpy() @ vectors[:, -1])) == pytest.approx(1, abs=1e-9)
    assert torch.equal(first_component(-x), found)  # its sign is settled


def test_a_sine_along_one_direction_crosses_zero_twice_a_period_whatever_is_constant_beside_it():
    frames, periods = 100, 5
    phase = 2 * math.pi * periods * (torch.arange(frames) + 0.25) / frames
    x = torch.sin(phase)[:, None] * torch.tensor([2.0, -1.0, 0.5]) + torch.tensor([10.0, 0.0, -4.0])
    assert zero_crossing_rate(x).item() == pytest.approx((2 * periods - 1) / (frames - 1))
    alternating = torch.tensor([1.0, -1.0]).repeat(10)[:, None] * torch.ones(2)
    assert zero_crossing_rate(alternating).item() == 1


def test_zero_crossings_along_a_given_component_are_counted_along_it_and_not_along_the_largest():
    slow, fast = torch.linspace(-9, 9, 20), torch.tensor([1.0, -1.0]).repeat(10)
    x = torch.stack([slow, fast], -1)
    assert zero_crossing_rate(x).item() == pytest.approx(1 / 19)  # the slow one has more variance
    assert zero_crossing_rate(x, torch.tensor([0.0, 1.0])).item() == 1


@pytest.mark.parametrize("depth", [0.2, 1.0])
def test_the_centroid_of_a_modulation_at_one_frequency_with_and_without_its_mean(depth):
    frames, bin_ = 100, 8
    hertz = bin_ * RATE / frames
    energy = 1 + depth * torch.cos(2 * math.pi * bin_ * torch.arange(frames).double() / frames)
    # |rfft|: frames at 0 Hz, depth * frames / 2 at the modulation, nothing else.
    assert modulation_centroid(energy, RATE, with_dc=True).item() == pytest.approx(hertz * depth / (2 + depth))
    assert modulation_centroid(energy, RATE, with_dc=False).item() == pytest.approx(hertz)
    assert modulation_centroid(3 * energy, RATE, with_dc=True).item() == pytest.approx(hertz * depth / (2 + depth))


def test_a_constant_series_has_no_centroid_without_its_mean():
    assert math.isnan(modulation_centroid(torch.full((50,), 0.3), RATE, with_dc=False).item())
    assert modulation_centroid(torch.full((50,), 0.3), RATE, with_dc=True).item() == pytest.approx(0, abs=1e-9)


def test_turning_signs_in_place_changes_neither_energy_nor_its_centroid_but_adding_does():
    x = random_frames()
    turned = x.clone()
    turned[:, 7, 2:5] *= -1  # one frame
    assert torch.equal(frame_energy(turned), frame_energy(x))
    for with_dc in (True, False):
        assert torch.equal(
            modulation_centroid(frame_energy(turned), RATE, with_dc=with_dc),
            modulation_centroid(frame_energy(x), RATE, with_dc=with_dc),
        )
    shifted = x + 1
    assert not torch.allclose(frame_energy(shifted), frame_energy(x))


def test_turning_dimensions_at_every_frame_leaves_refitted_crossings_alone_but_not_those_of_a_fixed_component():
    x = random_frames(seed=3)
    turned = x * torch.tensor([-1.0, 1, -1, 1, 1, -1])
    base = zero_crossing_rate(x)
    assert torch.allclose(zero_crossing_rate(turned), base, atol=1e-12)
    assert not torch.allclose(zero_crossing_rate(turned, first_component(x)), base)
    one_frame = x.clone()
    one_frame[:, ::3, 0] *= -1  # at some frames only: no orthogonal map
    assert not torch.allclose(zero_crossing_rate(one_frame), base)


def test_changes_are_relative_to_the_base_and_a_base_of_zero_has_none():
    assert relative_change(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([3.0, 0.0, 1.0])).tolist()[:2] == [0.5, 0.0]
    assert math.isnan(relative_change(torch.tensor(0.0), torch.tensor(1.0)).item())
    assert energy_change(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])).item() == pytest.approx(0.5)


def test_what_has_no_frames_is_refused():
    with pytest.raises(InterpError, match="one frame"):
        zero_crossing_rate(torch.ones(1, 4))
    with pytest.raises(InterpError, match=r"\[.., frames, width\]"):
        frame_energy(torch.ones(4))
    with pytest.raises(InterpError, match="two frames or more"):
        modulation_centroid(torch.ones(1), RATE, with_dc=True)
