"""What stands at every layer and at the output of one clip, as frames, when neurons of a layer were edited.

Edited copies of a clip are rows of one batch: they leave the layer that was edited and travel through the blocks
behind it, and what each block leaves is measured on the way. What is before the layer is computed once a clip.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader, ReadyClip
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.finite import check_finite
from interp_core.trace.hooks import tracked
from interp_core.trace.rows import BlockRows, Rows


def has_series(subject: Subject | type[Subject]) -> bool:
    """Whether the positions of a model, or of a kind of model, are frames in time that keep their places."""
    return subject.timed and not subject.whole_only


def check_subject(subject: Subject) -> None:
    """Refuse a model whose positions are no frames in time that keep their places."""
    if not has_series(subject):
        raise InterpError(
            f"the positions of {subject.name} are no frames in time that stay in their places from block to block, so "
            "there is no series to measure; choose an encoder of the waveform, Whisper, AST or an audio LLM."
        )


def check_layers(subject: Subject, layers: Sequence[int]) -> None:
    """Refuse layers that are not there."""
    for layer in layers:
        if not 0 <= layer < subject.n_layers:
            raise InterpError(f"layer={layer} is outside {subject.name}'s {subject.n_layers} layers.")


class LayerStates:
    """One clip's blocks, for any number of edited copies, `together` of which are in one pass.

    Attributes:
        states: n_layers tensors [pos, width], what each block leaves unedited.
        frames_at: [frames * bands] positions that hold the recording, band by band.
        bands: of a spectrogram cut into patches; 1 otherwise.
    """

    def __init__(self, reader: ClipReader, ready: ReadyClip, labels: LabelTokens, together: int = 64) -> None:
        subject = self.subject = reader.subject
        self._labels, self._together = labels, together
        self._stem = reader.stem(ready)
        recording = self._stem.recording
        self.bands, self.frames_at = recording.bands, recording.positions()
        self._runner = runner = BlockRows(subject, [self._stem])
        self.states = [runner.clean(layer + 1)[0] for layer in range(subject.n_layers)]
        self._end = runner.start(subject.n_layers, runner.clean(subject.n_layers))
        self.logits = self._read(self._end)[0]

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
        return self._seen(self._end)

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
        edited_at = f"clip {self._stem.clip_id!r} with neurons of layer {layer} edited"
        left: list[list[Tensor]] = [[] for _ in range(layer + 1, self.subject.n_layers)]
        outputs, logits = [], []
        for some in rows.split(self._together):
            part = self._runner.start(layer + 1, some)
            for i, later in enumerate(range(layer + 1, self.subject.n_layers)):
                part = self._runner.run(later, part)
                check_finite(self.subject, part.hidden, [f"what layer {later} leaves of {edited_at}"])
                left[i].append(part.hidden)
            outputs.append(self._seen(part))
            logits.append(self._read(part))
            check_finite(self.subject, logits[-1], [f"the answer to {edited_at}"])
        return [torch.cat(parts) for parts in left], torch.cat(outputs), torch.cat(logits)

    def _read(self, rows: Rows) -> Tensor:
        """[rows, n_labels] float32 label logits of rows behind the last block."""
        return self._labels.read(self._runner.logits(rows))[0]

    def _seen(self, rows: Rows) -> Tensor:
        """As the readout sees it: behind the final norm, where there is one and layers are not mixed."""
        state = self._runner.read(rows)
        return self.subject.normed(state) if rows.mixed is None else state


def gradients(reader: ClipReader, ready: ReadyClip, labels: LabelTokens, target: int) -> list[Tensor]:
    """Gradient times activation of the target's logit at what every block leaves: n_layers tensors [frames, width]."""
    subject = reader.subject
    if ready.prompted is not None:  # made for inference, which autograd refuses
        ready = replace(ready, prompted=replace(ready.prompted, embeds=ready.prompted.embeds.clone()))
    sites = [Site("resid_post", layer) for layer in range(subject.n_layers)]
    with tracked(subject, sites) as track:
        logit = labels.read(reader.answer([ready]))[0][0, target]
    found = track.gradients(logit)
    at = reader.inside(ready, sites[0], found[sites[0]].shape[1])
    return [(found[site] * track.values[site])[0, at].float() for site in sites]
