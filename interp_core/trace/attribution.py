"""What a patch at every place would do, from one pass forward and back: the first-order estimate.

    estimate = (B's state - A's state) . d(log-probability of the target)/d(state), at A's state

The gradient is that of the unedited pass of A, so that all layers, heads and units share it, where a true patch is a
pass for each. It is exact where the answer is linear in the state. Where it is not (saturated attention or softmax, a
step as large as another clip's state) it is wrong, in size or in sign: it says where to look, a true patch what is so.

Source: Nanda 2023, "Attribution patching: activation patching at industrial scale"; Kramar et al. 2024 (AtP*),
arXiv:2403.00745, on where it fails.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.labels import LabelTokens
from interp_core.models.prompted import Prompted
from interp_core.models.subject import Subject
from interp_core.sites import ATTRIBUTED, Kind, Site, check_attributed
from interp_core.trace.finite import finite_run
from interp_core.trace.hooks import attention_seen, tracked
from interp_core.trace.patch import Patch


@dataclass(frozen=True, eq=False)
class Attention:
    """Where the heads of the unedited pass look, on average over those who read.

    Attributes:
        shares: who reads -> [n_layers, n_heads] share of the attention that goes to the recording, in [0, 1]: `readout`
            is the readout position, `text` all positions behind the recording. Empty where no words stand around it.
        frames: [n_layers, n_heads, frames] attention to each of the recording's frames (their sum is the share), by the
            readout position; where there are no words, by the recording's own positions.
    """

    shares: Mapping[str, Tensor]
    frames: Tensor


def attribute(
    subject: Subject,
    patches: Sequence[Patch],
    labels: LabelTokens,
    target: int,
    kinds: Sequence[Kind] = ATTRIBUTED,
    *,
    attention: bool = False,
) -> tuple[list[dict[Site, Tensor]], Attention | None]:
    """Estimate what patches of one recipient do to the target's log-probability among the labels.

    Args:
        patches: of one recipient under one prompt, each with a donor whose run kept the kinds.
        target: its number among the labels.
        kinds: sites; see `ATTRIBUTED`.
        attention: whether the pass runs under eager attention and the weights are read.
    Returns:
        For each patch, by site, [width] float64 on the CPU: the estimate of each column, summed over the patched
        positions, nats. And the attention of the recipient's pass, if asked for and there to be had.
    Raises:
        InterpError: a site that is refused or missing, patches of several recipients or without a clip as donor.
    """
    for kind in kinds:
        check_attributed(kind)
    run = patches[0].recipient
    if any(patch.recipient is not run or patch.donor is None or patch.mean is not None for patch in patches):
        raise InterpError("patches that are estimated together have one recipient, and a clip as donor each.")
    subject.check_ready()
    # What enters the blocks was made for inference, which autograd refuses.
    prompted = replace(run.prompted, embeds=run.prompted.embeds.clone())
    sites = [Site(kind, layer) for kind in kinds for layer in range(subject.n_layers)]
    looking = _Looking(prompted) if attention and subject.timed else None
    seen: dict[int, Tensor] = {}
    with ExitStack() as stack:
        if looking is not None:
            seen = stack.enter_context(attention_seen(subject, looking.read))
        track = stack.enter_context(tracked(subject, sites))
        logits = finite_run(subject, [prompted.clip_id], lambda: subject.run_blocks([prompted]))
        score = labels.read(logits)[0][0].log_softmax(-1)[target]
        slopes = track.gradients(score)
    found = [
        {site: _along(subject, patch, track.values[site][0], slopes[site][0], site) for site in sites}
        for patch in patches
    ]
    return found, looking.told(seen, subject.n_layers) if looking is not None else None


def _along(subject: Subject, whole: Patch, own: Tensor, slope: Tensor, site: Site) -> Tensor:
    """[width] the step from the recipient's to the donor's state along the slope, both [pos, width], summed."""
    assert whole.donor is not None
    patch = whole.over(len(own)) if subject.whole_only else whole
    at = patch.positions.to(own.device)
    donor = patch.donor_value(whole.donor.at(site.kind, site.layer)).to(own.device)
    step = patch.alpha * (donor.double() - own[at].double())
    return (step * slope[at].double()).sum(0).cpu()


class _Looking:
    """Reads a layer's attention weights [1, n_heads, pos, pos] of one clip."""

    def __init__(self, prompted: Prompted) -> None:
        self._prompted = prompted
        self._heard = prompted.recording.positions()

    def read(self, weights: Tensor) -> Tensor:
        """[n_heads, 2 + frames]: shares of the readout and of the text, then the frames."""
        p, per_head = self._prompted, weights[0].double()
        heard = self._heard.to(weights.device)
        on_heard = per_head[:, :, heard] if per_head.shape[-1] == p.n_pos else per_head.new_zeros(len(per_head), 1, 0)
        if p.worded:
            shares = on_heard.sum(-1)  # [n_heads, pos]
            frames, readers = on_heard[:, -1], [shares[:, -1], shares[:, p.audio[1] :].mean(-1)]
        else:
            frames = on_heard[:, heard].mean(1) if on_heard.shape[-1] else on_heard[:, 0]
            readers = [frames.new_full((len(frames),), torch.nan)] * 2
        if frames.shape[-1]:
            frames = frames.unflatten(-1, (p.bands[0], -1)).sum(1)  # bands are heard at one time
        return torch.cat([torch.stack(readers, 1), frames], 1).cpu()

    def told(self, seen: Mapping[int, Tensor], n_layers: int) -> Attention | None:
        """None where a layer hands out nothing, or weights of other positions than the blocks'."""
        if len(seen) < n_layers or seen[0].shape[-1] == 2:
            return None
        every = torch.stack([seen[layer] for layer in range(n_layers)])
        shares = {"readout": every[..., 0], "text": every[..., 1]} if self._prompted.worded else {}
        return Attention(shares, every[..., 2:])
