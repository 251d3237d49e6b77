"""Encoders that one recording goes into and one answer comes out of.

wav2vec 2.0, HuBERT, WavLM, Whisper's encoder, the audio spectrogram transformer: a stem (feature extractor and
convolutions), blocks over frames, and a readout: a norm where there is one, or a learned mix of all layers, then the
checkpoint's classifier, or a probe that was fitted for one that has none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.arch import EncoderArch
from interp_core.models.labels import LabelTokens
from interp_core.models.probe import Probe
from interp_core.models.subject import Place, Prompted, Subject
from interp_core.sites import Kind


@dataclass(eq=False)
class Encoder(Subject):
    """A subject without words: its positions are frames, and its answer is one of a classifier's classes.

    Attributes:
        extractor: the library's feature extractor.
        probe: reads the time mean of the last layer in the place of the classifier.
    """

    arch: EncoderArch
    extractor: Any = field(default=None, repr=False)
    probe: Probe | None = None

    spans: ClassVar[tuple[str, ...]] = ("audio", "all")

    @property
    def asks(self) -> bool:
        return False

    @property
    def key(self) -> str:
        return super().key if self.probe is None else f"{super().key}|probe {self.probe.key}"

    @property
    def batch_first(self) -> frozenset[str]:
        return self.arch.batch_first

    def inside(self, column: str) -> str:
        behind = column == "mid" and self.arch.mid_behind and not getattr(self.sizes, str(self.arch.norm_if))
        return str(self.arch.mid_behind) if behind else super().inside(column)

    # ---- the stem ----------------------------------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        return self.extractor.sampling_rate

    @property
    def max_seconds(self) -> float:
        return math.inf

    @property
    def shortest(self) -> int:
        """Samples of the shortest clip that fills one position."""
        reach, sizes = 1, self.sizes
        if hasattr(sizes, "conv_kernel"):
            for kernel, stride in zip(reversed(sizes.conv_kernel), reversed(sizes.conv_stride), strict=True):
                reach = (reach - 1) * stride + kernel
        return reach

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        # The library fails on a clip that is shorter still; `prompted` knows its name and says so.
        samples = np.pad(samples, (0, max(0, self.shortest - len(samples))))
        made = self.extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        # One clip at a time has no padding, so nothing is to be masked.
        return self.on_device({name: value for name, value in made.items() if name != "attention_mask"})

    def on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move arguments to the model's device, and those that are no integers to its dtype."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }

    def seconds_per_position(self) -> float:
        return math.prod(self.sizes.conv_stride) / self.sample_rate

    def span(self, n_pos: int, n_samples: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the positions that hold the recording, and its bands, as of `Prompted`."""
        return (0, n_pos), (1, 0)

    def prompted(
        self,
        key: str,
        clip_id: str,
        samples: np.ndarray,
        inputs: Mapping[str, Tensor],
        call: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> Prompted:
        args, kwargs = call
        embeds = (args[0] if args else kwargs["hidden_states"])[0].clone()
        audio, bands = self.span(len(embeds), len(samples))
        if len(samples) < self.shortest or audio[1] <= audio[0]:
            raise InterpError(f"clip {clip_id!r} is too short for {self.name}: it does not fill one position.")
        ids = torch.zeros(len(embeds), dtype=torch.long, device=embeds.device)
        return Prompted(key, clip_id, inputs, embeds, ids, audio, self.seconds_per_position(), bands, False)

    # ---- the readout -------------------------------------------------------------------------------------------------

    @property
    def by_construction(self) -> bool:
        return self.layer_shares() is None

    @property
    def stages(self) -> Mapping[Kind, Place]:
        head = self.probe if self.probe is not None else self.classifier
        if head is None:
            return {}
        return {"pooled": Place(head, "input", flat=True), "logits": Place(head, "output", flat=True)}

    @property
    def classifier(self) -> nn.Module | None:
        return getattr(self.hf, "classifier", None)

    @property
    def answers(self) -> tuple[str, ...]:
        if self.probe is not None:
            return self.probe.classes
        names = self.config.id2label if self.classifier is not None else {}
        return tuple(str(names[i]) for i in sorted(names))

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        if self.probe is None:
            self.check_readout()
        return super().labels(labels, prompt, several_tokens=several_tokens)

    def layer_shares(self) -> Tensor | None:
        if self.probe is not None or not getattr(self.config, "use_weighted_layer_sum", False):
            return None
        if not hasattr(self.hf, "layer_weights"):  # they go with a head that was left out
            return None
        return self.hf.layer_weights.softmax(-1)

    def mixed_state(self, point: int, hidden: Tensor) -> Tensor:
        return self.normed(hidden) if self.arch.last_mixed_normed and point == self.n_layers else hidden

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.probe is not None:
            return self.probe(self.heard(inputs))
        self.check_readout()
        return self.hf(**inputs).logits.float()

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The base model's own forward: features [batch, width] for a probe, the mean over positions."""
        return self.body(**inputs).last_hidden_state.mean(1)

    def readout(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        if self.probe is not None:
            return self.probe(self.normed(hidden).mean(1))
        self.check_readout()
        return self.classify(hidden if self.layer_shares() is not None else self.normed(hidden), batch).float()

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        """Turn [rows, pos, d_model] into class logits as the checkpoint's own head does."""
        assert self.classifier is not None, "check_readout refuses a checkpoint without one"
        return self.classifier(self.hf.projector(state).mean(1))

    def normed(self, hidden: Tensor) -> Tensor:
        """Apply what the base model has behind its last block: a norm, and convolutions that shorten."""
        absent = self.arch.norm is None or (self.arch.norm_if and not getattr(self.sizes, self.arch.norm_if))
        state = hidden if absent else self.body.get_submodule(str(self.arch.norm))(hidden)
        adapter = getattr(self.body, "adapter", None)
        return state if adapter is None else adapter(state)

    @property
    def needs_probe(self) -> bool:
        return self.probe is None and self.classifier is None

    def check_readout(self) -> None:
        """Refuse to read an answer off a checkpoint that has no classifier."""
        if self.classifier is None:
            raise InterpError(
                f"{self.name} has no classifier, so it answers nothing; fit a probe as its readout (--probe COLUMN), "
                "or open a checkpoint that was trained to classify."
            )


class WhisperClassifier(Encoder):
    """Whisper's encoder below a classifier: clips are padded to 30 s, and only real positions are their span."""

    @property
    def by_construction(self) -> bool:
        return False  # the positions of the padding stay the recipient's

    @property
    def max_seconds(self) -> float:
        return self.extractor.n_samples / self.sample_rate

    def seconds_per_position(self) -> float:
        return 2 * self.extractor.hop_length / self.sample_rate

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.body.get_submodule("encoder")(**inputs).last_hidden_state.mean(1)

    def span(self, n_pos: int, n_samples: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, min(n_pos, math.ceil(n_samples / (2 * self.extractor.hop_length)))), (1, 0)


class SpectrogramTransformer(Encoder):
    """AST: two answer tokens, then patches of the spectrogram, band by band; the answer tokens are read."""

    # The extractor's frames are Kaldi's: 25 ms every 10 ms, whole ones only.
    _WINDOW, _HOP = 0.025, 0.010

    @property
    def shortest(self) -> int:
        return round(self._WINDOW * self.sample_rate)

    @property
    def max_seconds(self) -> float:
        return self._WINDOW + (self.extractor.max_length - 1) * self._HOP

    @property
    def by_construction(self) -> bool:
        return False  # the answer tokens stay the recipient's

    def seconds_per_position(self) -> float:
        return self.sizes.time_stride * self._HOP

    def span(self, n_pos: int, n_samples: int) -> tuple[tuple[int, int], tuple[int, int]]:
        n_time = (self.sizes.max_length - self.sizes.patch_size) // self.sizes.time_stride + 1
        n_frames = 1 + (n_samples - round(self._WINDOW * self.sample_rate)) // round(self._HOP * self.sample_rate)
        real = min(n_time, math.ceil(n_frames / self.sizes.time_stride))
        return (2, 2 + real), ((n_pos - 2) // n_time, n_time)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        assert self.classifier is not None, "check_readout refuses a checkpoint without one"
        return self.classifier((state[:, 0] + state[:, 1]) / 2)
