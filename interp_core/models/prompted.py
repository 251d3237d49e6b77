"""One clip on its way into the blocks, and which of their positions hold the recording."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stem:
    """What the stem of one clip was given, and the arguments with which it called the module behind it.

    Attributes:
        key: names the samples and the prompt. clip_id: for messages.
        n_samples: of the recording; inputs: the library model's own keyword arguments.
    """

    key: str
    clip_id: str
    n_samples: int
    inputs: Mapping[str, Tensor]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class RecordingSpan:
    """Where in a row of positions the recording is: `bands` runs of [start, stop), `stride` apart, of `n_pos`.

    There is one run, but where a spectrogram is cut into patches: there each run covers the same time in another band.
    """

    start: int
    stop: int
    n_pos: int
    bands: int = 1
    stride: int = 0

    @classmethod
    def whole(cls, n_pos: int) -> "RecordingSpan":
        """All positions."""
        return cls(0, n_pos, n_pos)

    @property
    def is_whole(self) -> bool:
        return (self.start, self.stop, self.bands) == (0, self.n_pos, 1)

    def positions(self, n_pos: int | None = None) -> Tensor:
        """The recording's positions, band by band, in a row that is padded on the left to `n_pos`."""
        pad = 0 if n_pos is None else n_pos - self.n_pos
        bands = torch.arange(self.bands)[:, None] * self.stride
        return (torch.arange(self.start, self.stop) + pad + bands).flatten()


@dataclass(frozen=True, eq=False)
class Prompted:
    """One clip under one prompt: what the model takes, and what enters its first block.

    Attributes:
        key: names the content: clip samples and prompt; with the subject's key it names the run.
        clip_id: for messages.
        inputs: the model's own keyword arguments, batch of one; the reference route uses nothing else.
        embeds: [pos, d_model] what enters the blocks.
        token_ids: [pos] ids after expansion of the audio placeholder; all zero where positions are no tokens.
        audio: (start, stop) of the positions that hold the recording.
        seconds_per_position: time that one audio position covers.
        bands: where a spectrogram is cut into patches: (count, stride) of the rows of positions that each cover the
            same time in another band; `audio` is then the first row.
        worded: whether the positions around the recording hold words; else they hold its padding.
        beside: further arguments of the module that runs the blocks, [pos, ...] each.
    """

    key: str
    clip_id: str
    inputs: Mapping[str, Tensor]
    embeds: Tensor
    token_ids: Tensor
    audio: tuple[int, int]
    seconds_per_position: float
    bands: tuple[int, int] = (1, 0)
    worded: bool = True
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_pos(self) -> int:
        return len(self.embeds)

    @property
    def recording(self) -> RecordingSpan:
        return RecordingSpan(*self.audio, self.n_pos, *self.bands)
