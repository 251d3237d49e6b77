"""What stands at every layer and at the output of one clip, as frames, when neurons of a layer were edited.

Edited copies of a clip are rows of one batch: they leave the layer that was edited and travel through the blocks
behind it, and what each block leaves is measured on the way. What is before the layer is computed once a clip.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.experiments.ablation_site import Hearing, Ready
from interp_core.models.audio_llm import AudioLLM
from interp_core.models.encoders import Encoder
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Prompted, Subject
from interp_core.sites import Site
from interp_core.trace.clean import CleanRun
from interp_core.trace.hooks import Edit, edited
from interp_core.trace.lanes import FullLane

ROWS = 64
"""How many edited copies of a clip travel together."""


def check_subject(subject: Subject) -> None:
    """Refuse a model whose positions are no frames in time that keep their places."""
    if not subject.timed or subject.whole_only or subject.merges_after:
        raise InterpError(
            f"the positions of {subject.name} are no frames in time that stay in their places from block to block, so "
            "there is no series to measure; choose an encoder of the waveform, Whisper, AST or an audio LLM."
        )


@dataclass(frozen=True, eq=False)
class _Stem:
    prompted: Prompted


class Flow:
    """One clip's blocks, for any number of edited copies.

    Attributes:
        states: n_layers tensors [pos, width], what each block leaves unedited.
        frames_at: [frames * bands] positions that hold the recording, band by band.
        bands: of a spectrogram cut into patches; 1 otherwise.
    """

    def __init__(self, hearing: Hearing, ready: Ready, labels: LabelTokens) -> None:
        subject = self.subject = hearing.subject
        self._labels = labels
        self._stem = hearing.stem(ready)
        self._batch = [self._stem]
        self._shares = subject.layer_shares()
        (start, stop), (self.bands, stride) = self._stem.audio, self._stem.bands
        steps = torch.arange(self.bands)[:, None] * stride
        self.frames_at = (torch.arange(start, stop) + steps).flatten()
        self._lane = self._new_lane()
        self.states = [self._lane.clean(layer + 1)[0] for layer in range(subject.n_layers)]
        self.logits = self._labels.read(self._read(self._clean_points()))[0][0]

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return 1 / self._stem.seconds_per_position

    def frames(self, value: Tensor) -> Tensor:
        """[.., pos, width] to [.., frames, width]: the recording's positions, bands averaged."""
        inside = value[..., self.frames_at.to(value.device), :]
        return inside if self.bands == 1 else inside.unflatten(-2, (self.bands, -1)).mean(-3)

    def output(self) -> Tensor:
        """[1, pos, width] what the readout reads of the unedited clip."""
        return self._seen(self._clean_points())

    @property
    def read_as_is(self) -> int | None:
        """The last layer, where the readout reads exactly what it leaves; None where a norm or a mix is between."""
        return len(self.states) - 1 if torch.equal(self.output()[0], self.states[-1]) else None

    def travel(self, layer: int, rows: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Send copies of what block `layer` left, [rows, pos, width], edited, through the blocks behind it.

        Returns:
            what each later block leaves, what the readout reads, [rows, pos, width] each, and label logits
            [rows, n_labels] float32.
        """
        made: list[list[Tensor]] = [[] for _ in range(layer + 1, self.subject.n_layers)]
        outputs, logits = [], []
        for part in rows.split(ROWS):
            points = [self._point(i).expand(len(part), -1, -1) for i in range(layer + 1)] if self._mixes else []
            points.append(part)
            # A lane keeps a mixture of its own rows, which no later batch fits; it is not read here.
            lane = self._new_lane() if self._mixes else self._lane
            for i, later in enumerate(range(layer + 1, self.subject.n_layers)):
                part = lane.run(later, part)
                points.append(part)
                made[i].append(part)
            outputs.append(self._seen(points))
            logits.append(self._labels.read(self._read(points))[0])
        return [torch.cat(parts) for parts in made], torch.cat(outputs), torch.cat(logits)

    # ---- the readout: of the last point, or of the mixture of all ----------------------------------------------------

    @property
    def _mixes(self) -> bool:
        return self._shares is not None

    def _new_lane(self) -> FullLane:
        return FullLane(self.subject, [cast(CleanRun, _Stem(self._stem))])

    def _point(self, point: int) -> Tensor:
        """[1, pos, width] unedited: what enters block `point`."""
        return self._lane.clean(point)

    def _clean_points(self) -> list[Tensor]:
        n = self.subject.n_layers
        return [self._point(i) for i in range(n + 1)] if self._mixes else [self._point(n)]

    def _mixed(self, points: list[Tensor]) -> Tensor:
        """What the readout is handed: the last point, or the weighted sum of all."""
        if self._shares is None:
            return points[-1]
        seen = self.subject.mixed_state
        return sum((share * seen(i, p) for i, (share, p) in enumerate(zip(self._shares, points, strict=True))),
                   torch.zeros_like(points[-1]))  # fmt: skip

    def _read(self, points: list[Tensor]) -> Tensor:
        return self.subject.readout(self._mixed(points), self._batch)

    def _seen(self, points: list[Tensor]) -> Tensor:
        """As the readout sees it: behind the final norm, where there is one and layers are not mixed."""
        state = self._mixed(points)
        if self._mixes:
            return state
        if isinstance(self.subject, Encoder):
            return self.subject.normed(state)
        assert isinstance(self.subject, AudioLLM)
        return self.subject.hf.get_submodule(self.subject.arch.norm)(state)


def gradients(hearing: Hearing, ready: Ready, labels: LabelTokens, target: int) -> list[Tensor]:
    """Gradient times activation of the target's logit at what every block leaves: n_layers tensors [frames, width]."""
    subject = hearing.subject
    if ready.prompted is not None:  # made for inference, which autograd refuses
        ready = replace(ready, prompted=replace(ready.prompted, embeds=ready.prompted.embeds.clone()))
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def leaf(layer: int) -> Edit:
        def edit(value: Tensor) -> Tensor:
            delta = torch.zeros_like(value, requires_grad=True)
            seen[layer] = (value.detach(), delta)
            return value + delta

        return edit

    sites = {Site("resid_post", layer): leaf(layer) for layer in range(subject.n_layers)}
    with torch.enable_grad(), edited(subject, sites):
        logit = labels.read(hearing.answer([ready]))[0][0, target]
    deltas = [seen[layer][1] for layer in range(subject.n_layers)]
    found = torch.autograd.grad(logit, deltas, allow_unused=True)
    at = hearing.inside(ready, Site("resid_post", 0), deltas[0].shape[1])
    return [
        torch.zeros_like(delta[0, at]) if grad is None else (grad * seen[layer][0])[0, at].float()
        for layer, (delta, grad) in enumerate(zip(deltas, found, strict=True))
    ]
