"""Encoders that one recording goes into and one answer comes out of.

wav2vec 2.0 and its kin, HuBERT, WavLM, Whisper's encoder, the audio spectrogram transformer: a stem (feature extractor
and convolutions), blocks over frames, and a readout: a norm where there is one, or a learned mix of all layers, then
the checkpoint's classifier, or a probe that was fitted for one that has none.
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
from interp_core.models.block_model import Place
from interp_core.models.labels import LabelTokens
from interp_core.models.probe import Probe
from interp_core.models.prompted import Prompted, RecordingSpan, Stem
from interp_core.models.subject import Subject
from interp_core.models.weights import Weights
from interp_core.sites import Kind

_BEHIND = ("intermediate_ffn", "adapter", "inner_layer_norm")
"""What some types have behind their last block: half an MLP, convolutions that shorten, and a norm."""


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

    @property
    def shared(self) -> frozenset[str]:
        return self.arch.shared

    def inside(self, column: str) -> str:
        behind = column == "mid" and self.arch.mid_behind and not getattr(self.sizes, str(self.arch.norm_if))
        return str(self.arch.mid_behind) if behind else super().inside(column)

    # ---- the stem ----------------------------------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        return self.extractor.sampling_rate

    @property
    def hears(self) -> EncoderArch:
        """The row of the blocks that the recording goes into."""
        return self.arch

    @property
    def max_seconds(self) -> float:
        hears = self.hears
        if hears.most_positions and hears.frames is not None:
            step = hears.frames(self.extractor, self.sizes_of(hears))[1]
            return getattr(self.config, hears.most_positions) * step / self.sample_rate
        return getattr(self.extractor, "max_audio_clip_s", math.inf)  # Cohere's, which cuts what is longer into clips

    @property
    def shortest(self) -> int:
        """Samples of the shortest clip that fills one position."""
        sizes = self.sizes_of(self.hears)
        if self.hears.frames is not None:
            return self.hears.frames(self.extractor, sizes)[0]
        reach = 1
        if hasattr(sizes, "conv_kernel"):
            for kernel, stride in zip(reversed(sizes.conv_kernel), reversed(sizes.conv_stride), strict=True):
                reach = (reach - 1) * stride + kernel
        return reach

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        # The library fails on a clip that is shorter still; `prompted` knows its name and says so.
        samples = np.pad(samples, (0, max(0, self.shortest - len(samples))))
        how = {"padding": True, "pad_to_multiple_of": self.hears.pieces} if self.hears.pieces else {}
        made = self.extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt", **how)
        made = {name: value for name, value in made.items() if isinstance(value, Tensor)}
        mask = made.get("attention_mask")
        if mask is not None and (self.hears.mask == "always" or (self.hears.mask == "partial" and not mask.all())):
            return self.on_device(made)
        if self.hears.frames is not None and mask is not None:
            # Frames are filled up to whole positions; one that is not whole is masked by the library.
            real = int(mask.sum())
            made = {name: value[:, :real] for name, value in made.items()}
        # One clip at a time has no padding, so nothing is to be masked.
        return self.on_device({name: value for name, value in made.items() if name != "attention_mask"})

    def on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move arguments to the model's device, and those that are no integers to its dtype."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }

    def seconds_per_position(self) -> float:
        if self.arch.frames is not None:
            return self.arch.frames(self.extractor, self.sizes)[1] / self.sample_rate
        return math.prod(self.sizes.conv_stride) / self.sample_rate

    def prompted(self, stem: Stem) -> Prompted:
        embeds = (stem.args[0] if stem.args else stem.kwargs["hidden_states"])[0].clone()
        span = self.span(len(embeds), stem.n_samples)
        if stem.n_samples < self.shortest or span.stop <= span.start:
            raise InterpError(f"clip {stem.clip_id!r} is too short for {self.name}: it does not fill one position.")
        ids = torch.zeros(len(embeds), dtype=torch.long, device=embeds.device)
        audio, bands = (span.start, span.stop), (span.bands, span.stride)
        step = self.seconds_per_position()
        return Prompted(stem.key, stem.clip_id, stem.inputs, embeds, ids, audio, step, bands, worded=False)

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

    @property
    def mix_weights(self) -> nn.Parameter | None:
        if self.probe is not None or not getattr(self.config, "use_weighted_layer_sum", False):
            return None
        return getattr(self.hf, "layer_weights", None)  # they go with a head that was left out

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
        state = hidden if self.layer_shares() is not None else self.read_off(hidden, batch)
        if self.probe is not None:
            return self.probe(state.mean(1))
        self.check_readout()
        return self.classify(state, batch).float()

    def read_off(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        """Turn what the last block left into the base model's output."""
        state, adapter = self.normed(hidden), getattr(self.tower, "adapter", None)
        return state if adapter is None else adapter(state)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        """Turn [rows, pos, d_model] into class logits as the checkpoint's own head does."""
        assert self.classifier is not None, "check_readout refuses a checkpoint without one"
        return self.classifier(self.hf.projector(state).mean(1))

    def normed(self, hidden: Tensor) -> Tensor:
        """Apply what the base model has behind its last block position by position: a norm, and half an MLP."""
        state = hidden if self.norm is None else self.norm(hidden)
        mlp = getattr(self.tower, "intermediate_ffn", None)
        return state if mlp is None else state + 0.5 * mlp(state)

    @property
    def tower(self) -> nn.Module:
        """The module that runs the blocks and what follows them."""
        return self.body

    @property
    def norm(self) -> nn.Module | None:
        """The norm behind the last block, where there is one."""
        absent = self.arch.norm is None or (self.arch.norm_if and not getattr(self.sizes, self.arch.norm_if))
        return None if absent else self.body.get_submodule(str(self.arch.norm))

    @property
    def needs_probe(self) -> bool:
        return self.probe is None and self.classifier is None

    @property
    def takes_probe(self) -> bool:
        return True

    def check_readout(self) -> None:
        """Refuse to read an answer off a checkpoint that has no classifier."""
        if self.classifier is None:
            raise InterpError(
                f"{self.name} has no classifier, so it answers nothing; fit a probe as its readout (--probe COLUMN), "
                "or open a checkpoint that was trained to classify."
            )

    # ---- its parts ---------------------------------------------------------------------------------------------------

    @property
    def readout_names(self) -> tuple[str, ...]:
        """Beside the base model a checkpoint has its head; inside it, a norm behind the blocks where there is one."""
        named = {id(module): name for name, module in self.hf.named_modules()}
        outside = () if self.body is self.hf else tuple(name for name, _ in self.hf.named_children())
        found = tuple(f"{name}." for name in outside if not named[id(self.body)].startswith(name))
        norm = () if self.norm is None else (f"{named[id(self.norm)]}.",)
        behind = tuple(f"{named[id(module)]}." for module in self.behind)
        return (*found, "layer_weights", *norm, *behind)

    @property
    def behind(self) -> tuple[nn.Module, ...]:
        """What the tower has behind its last block and the norm there."""
        found = (getattr(self.tower, name, None) for name in _BEHIND)
        return tuple(module for module in found if module is not None)

    def weights_by_part(self) -> dict[str, Weights]:
        parts = super().weights_by_part()
        if self.probe is not None:
            parts["readout"] |= {"probe.weight": self.probe.weight, "probe.bias": self.probe.bias}
        return parts


class WhisperClassifier(Encoder):
    """Whisper's encoder below a classifier: clips are padded to 30 s, and only real positions are their span."""

    one_shape: ClassVar[bool] = True

    @property
    def by_construction(self) -> bool:
        return False  # the positions of the padding stay the recipient's

    @property
    def padding_stays(self) -> bool:
        return self.layer_shares() is None

    @property
    def max_seconds(self) -> float:
        return self.extractor.n_samples / self.sample_rate

    def seconds_per_position(self) -> float:
        return 2 * self.extractor.hop_length / self.sample_rate

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.body.get_submodule("encoder")(**inputs).last_hidden_state.mean(1)

    def span(self, n_pos: int, n_samples: int) -> RecordingSpan:
        return RecordingSpan(0, min(n_pos, math.ceil(n_samples / (2 * self.extractor.hop_length))), n_pos)


class SqueezedEncoder(Encoder):
    """SEW and SEW-D: a position of the blocks is several frames of the convolutions, averaged; behind the last block
    each becomes as many again, and frames that are left over are zeros.

    Source: Wu et al. 2021, arXiv:2109.06870, section 4.2.
    """

    def seconds_per_position(self) -> float:
        return self.sizes.squeeze_factor * super().seconds_per_position()

    @property
    def shortest(self) -> int:
        return super().shortest + (self.sizes.squeeze_factor - 1) * math.prod(self.sizes.conv_stride)

    def read_off(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        frames = batch[0].inputs["input_values"].shape[-1]  # clips of a batch are equally long
        for kernel, stride in zip(self.sizes.conv_kernel, self.sizes.conv_stride, strict=True):
            frames = (frames - kernel) // stride + 1
        state = self.body.get_submodule("encoder.upsample")(self.normed(hidden))
        return nn.functional.pad(state, (0, 0, 0, max(0, frames - state.shape[1])))


class SpectrogramTransformer(Encoder):
    """AST: two answer tokens, then patches of the spectrogram, band by band; the answer tokens are read."""

    one_shape: ClassVar[bool] = True

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

    def span(self, n_pos: int, n_samples: int) -> RecordingSpan:
        n_time = (self.sizes.max_length - self.sizes.patch_size) // self.sizes.time_stride + 1
        n_frames = 1 + (n_samples - round(self._WINDOW * self.sample_rate)) // round(self._HOP * self.sample_rate)
        real = min(n_time, math.ceil(n_frames / self.sizes.time_stride))
        return RecordingSpan(2, 2 + real, n_pos, (n_pos - 2) // n_time, n_time)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        assert self.classifier is not None, "check_readout refuses a checkpoint without one"
        return self.classifier((state[:, 0] + state[:, 1]) / 2)


OPENED_AS: dict[str, type[Encoder]] = {
    "whisper": WhisperClassifier,
    "audio-spectrogram-transformer": SpectrogramTransformer,
    **dict.fromkeys(("sew", "sew-d"), SqueezedEncoder),
}
"""Types of encoders with a classifier that are not plain ones."""
