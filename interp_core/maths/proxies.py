"""Three measures that are called acoustic when they are taken of a representation: energy, zero crossings, modulation.

They see a representation [.., frames, width] as if it were a sound of many channels. That they follow the clip's real
level, crossings or rhythm is a claim to be tested, layer by layer, and not a name for them. All in float64.

An energy is a norm, so turning signs can change neither it nor the centroid of its modulation; and turning the sign of
a dimension at every frame is an orthogonal map, so the scores of a component that is fitted again are the same up to
sign. Where an edit and its measurement are at the same place, such zeros follow from the definition.
"""

import torch
from torch import Tensor

from interp_core.errors import InterpError


def frame_energy(x: Tensor) -> Tensor:
    """The L2 norm over dimensions of every frame: [.., frames, width] to [.., frames]. The source calls it RMS."""
    _check(x)
    return x.double().norm(dim=-1)


def first_component(x: Tensor) -> Tensor:
    """The direction of the largest variance over frames, a unit vector: [.., frames, width] to [.., width].

    Its sign means nothing: the largest entry is made positive, so that one input gives one answer.
    """
    _check(x)
    centred = x.double() - x.double().mean(dim=-2, keepdim=True)
    component = torch.linalg.svd(centred, full_matrices=False).Vh[..., 0, :]
    largest = component.gather(-1, component.abs().argmax(-1, keepdim=True))
    return component * torch.where(largest < 0, -1.0, 1.0)


def zero_crossing_rate(x: Tensor, component: Tensor | None = None) -> Tensor:
    """Sign changes a frame step of the representation along one direction, centred over frames.

    Args:
        x: [.., frames, width] with two frames or more.
        component: [.., width] to look along; None: `first_component(x)`, fitted on x itself.
    Returns:
        [..] in [0, 1]; a score of exactly 0 ends no run, so x and -x cross equally often.
    """
    _check(x)
    if x.shape[-2] < 2:
        raise InterpError(f"x {tuple(x.shape)} has one frame, so there is no step to cross zero in; give two or more.")
    along = first_component(x) if component is None else component.double()
    centred = x.double() - x.double().mean(dim=-2, keepdim=True)
    scores = (centred * along[..., None, :]).sum(-1)  # [.., frames]
    return (scores[..., 1:] * scores[..., :-1] < 0).double().mean(-1)


def modulation_centroid(energy: Tensor, frame_rate: float, *, with_dc: bool) -> Tensor:
    """The centre of the spectrum of an energy series, by magnitude.

    Args:
        energy: [.., frames] from `frame_energy`.
        frame_rate: frames a second.
        with_dc: keep the bin at 0 Hz, as the source does: it then mostly says how large the mean is beside the rest.
    Returns:
        [..] Hz; NaN where no magnitude is left (a constant series without its DC).
    """
    if energy.shape[-1] < 2 or frame_rate <= 0:
        raise InterpError(
            f"energy {tuple(energy.shape)} at {frame_rate} Hz; give two frames or more at a rate above 0."
        )
    size = torch.fft.rfft(energy.double()).abs()  # [.., bins]
    hertz = torch.fft.rfftfreq(energy.shape[-1], 1 / frame_rate, dtype=torch.float64, device=energy.device)
    floor = 1e-12 * size[..., :1]  # what rounding leaves of a constant
    if not with_dc:
        size, hertz = torch.where(size > floor, size, 0.0)[..., 1:], hertz[1:]
    total = size.sum(-1)
    return torch.where(total > 0, (size * hertz).sum(-1) / total, torch.nan)


def relative_change(base: Tensor, other: Tensor) -> Tensor:
    """|other - base| / |base| of numbers [..]; NaN where base is 0 and the other is not, 0 where both are."""
    base, other = base.double(), other.double()
    change = (other - base).abs() / base.abs()
    return torch.where((base == 0) & (other == 0), 0.0, torch.where(base == 0, torch.nan, change))


def energy_change(base: Tensor, other: Tensor) -> Tensor:
    """Mean over frames of |change of energy| over the mean energy: [.., frames] twice to [..], as the source has it."""
    return (other.double() - base.double()).abs().mean(-1) / base.double().mean(-1)


def _check(x: Tensor) -> None:
    if x.ndim < 2 or not x.shape[-1] or not x.shape[-2]:
        raise InterpError(f"x {tuple(x.shape)} must be [.., frames, width].")
