"""CLAP's audio tower, HTS-AT: windows of spectrogram patches in stages that merge positions, read against texts.

Blocks are counted through all stages. A block's attention works in windows of a shifted grid, so its own activations
stand in another order than the residual stream, and between stages four positions become one: only the whole recording
can be followed through it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.block_model import Place
from interp_core.models.clap.msclap import msclap_features
from interp_core.models.encoders.subject import Encoder
from interp_core.models.labels import LabelTokens
from interp_core.models.prompted import Prompted
from interp_core.sites import Kind, Site


@dataclass(frozen=True)
class TextLabels(LabelTokens):
    """Labels as texts: `texts` [n_labels, d_joint] float32, unit length; `scale` is the model's own temperature."""

    texts: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)
    scale: float = 1.0

    def read(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Compare embeddings [rows, d_joint] with the texts: only they compete, so the log mass is 0."""
        return self.scale * logits @ self.texts.to(logits.device).T, logits.new_zeros(len(logits))


@dataclass(eq=False)
class ClapAudio(Encoder):
    """ClapModel or ClapAudioModel. With a text tower the readout is the recording's embedding, compared with texts."""

    tokenizer: Any = field(default=None, repr=False)

    one_shape: ClassVar[bool] = True
    whole_only: ClassVar[bool] = True
    timed: ClassVar[bool] = False
    TEMPLATE: ClassVar[str] = "This is a sound of {}."

    @property
    def asks(self) -> bool:
        return self.has_texts and self.probe is None

    @property
    def has_texts(self) -> bool:
        """Whether there is a text tower to compare with, and a tokenizer for it."""
        return hasattr(self.hf, "text_model") and self.tokenizer is not None

    @property
    def default_prompts(self) -> tuple[str, ...]:
        return (self.TEMPLATE,) if self.asks else ("",)

    # ---- geometry ----------------------------------------------------------------------------------------------------

    @property
    def sizes(self) -> Any:
        return getattr(self.config, "audio_config", self.config)

    @property
    def towers(self) -> nn.ModuleList:
        """The stages, each a list of blocks and a merge of positions behind it."""
        return self.body.audio_encoder.layers  # type: ignore[union-attr, return-value]

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [block for stage in self.towers for block in stage.blocks]  # type: ignore[union-attr]

    def stage_of(self, layer: int) -> tuple[int, int]:
        """Return (stage, block in it) of a block that is counted through all stages."""
        for stage, depth in enumerate(self.sizes.depths):
            if layer < depth:
                return stage, layer
            layer -= depth
        raise InterpError(f"{self.name} has {self.n_layers} blocks, counted from 0.")

    @property
    def n_heads(self) -> int:
        return max(self.sizes.num_attention_heads)

    def heads_at(self, layer: int) -> int:
        return self.sizes.num_attention_heads[self.stage_of(layer)[0]]

    @property
    def d_model(self) -> int:
        """Of the first stage; each further one is twice as wide."""
        return self.sizes.patch_embeds_hidden_size

    def d_head_at(self, layer: int) -> int:
        stage, _ = self.stage_of(layer)
        return self.d_model * 2**stage // self.sizes.num_attention_heads[stage]

    def grid(self, layer: int) -> tuple[int, int]:
        """Height and width of a block's grid of positions."""
        return self.body.audio_encoder.input_resolutions[self.stage_of(layer)[0]]  # type: ignore[union-attr, return-value, index]

    @property
    def merges_after(self) -> frozenset[int]:
        ends = np.cumsum(self.sizes.depths)[:-1] - 1
        return frozenset(int(end) for end in ends)

    def between(self, layer: int, hidden: Tensor) -> Tensor:
        if layer - 1 not in self.merges_after:
            return hidden
        stage = self.towers[self.stage_of(layer - 1)[0]]
        return stage.downsample(hidden, self.grid(layer - 1))  # type: ignore[operator]

    def locate(self, site: Site) -> Place:
        place = super().locate(site)
        if site.kind not in ("attn_out", "head_out"):
            return place
        # As the block does in its forward: a grid no larger than the window is not cut.
        window = min(self.sizes.window_size, *self.grid(site.layer))
        height, width = (-(-side // window) for side in self.grid(site.layer))
        return place._replace(windows=height * width)

    # ---- the stem ----------------------------------------------------------------------------------------------------

    @property
    def max_seconds(self) -> float:
        return self.extractor.max_length_s

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        made = self.extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        names = ("input_features", "is_longer") if self.sizes.enable_fusion else ("input_features",)
        return self.on_device({name: made[name] for name in names})

    def seconds_per_position(self) -> float:
        # Bands of the folded spectrogram lie over one another: all positions together cover what is heard.
        return self.max_seconds / math.prod(self.grid(0))

    # ---- the readout -------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> Mapping[Kind, Place]:
        if self.probe is not None:
            return super().stages
        pooled = Place(self.body.audio_encoder.avgpool, "output", image=True)  # type: ignore[union-attr, arg-type]
        if not hasattr(self.hf, "audio_projection"):
            return {"pooled": pooled}
        return {"pooled": pooled, "projection": Place(self.hf.audio_projection, "output", flat=True)}

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.probe is not None:
            return self.probe(self.heard(inputs))
        self.check_readout()
        return self.embedded(inputs).float()

    def embedded(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The library's own embedding [batch, d_joint] of recordings, of unit length."""
        return self.hf.get_audio_features(**inputs).pooler_output

    def text_embeds(self, texts: Sequence[str]) -> Tensor:
        """The library's own embedding [n_texts, d_joint], of unit length."""
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt").to(self.device)
        return self.hf.get_text_features(**tokens).pooler_output

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.body(**inputs).pooler_output

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return self._unit(self.hf.audio_projection(state.mean(1)))

    @staticmethod
    def _unit(joint: Tensor) -> Tensor:
        return joint / joint.norm(p=2, dim=-1, keepdim=True)

    def words_refusal(self) -> str | None:
        return "compares a recording with texts that it is given and writes none"

    @property
    def needs_probe(self) -> bool:
        return self.probe is None and not self.has_texts

    def check_readout(self) -> None:
        if not self.has_texts:
            raise InterpError(
                f"{self.name} has no text tower to compare with, so it answers nothing; fit a probe as its readout "
                "(--probe COLUMN), or open the whole ClapModel with its tokenizer."
            )

    def check_prompt(self, prompt: str) -> None:
        super().check_prompt(prompt)
        if self.asks and prompt.count("{}") != 1:
            raise InterpError(f"the prompt {prompt[:60]!r} has to hold {{}} once, where the label goes in.")

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        if self.probe is not None:
            return super().labels(labels, prompt)
        self.check_readout()
        if len(set(labels)) < max(2, len(labels)):
            raise InterpError(f"labels {', '.join(labels)}: give two or more, each once.")
        texts = [prompt.replace("{}", label) for label in labels]
        with torch.no_grad(), self.lock:  # not inference_mode: gradients of the recording pass through them
            made = self.text_embeds(texts).float().cpu()
            scale = float(self.hf.logit_scale_a.exp())
        report = {"prompt": prompt, "labels": [{"label": la, "text": t} for la, t in zip(labels, texts, strict=True)]}
        return TextLabels(tuple(labels), tuple(range(len(labels))), report, made, scale)


@dataclass(eq=False)
class MsclapAudio(ClapAudio):
    """An msclap weight file: the same audio tower below Microsoft's projection and front end; `hf` is `Msclap`."""

    @property
    def sizes(self) -> Any:
        return self.config

    @property
    def has_texts(self) -> bool:
        return self.hf.text_refusal is None

    @property
    def sample_rate(self) -> int:
        return self.hf.front_end.sample_rate

    @property
    def max_seconds(self) -> float:
        return self.hf.front_end.seconds

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        return self.on_device({"input_features": msclap_features(samples, self.hf.front_end)})

    def check_readout(self) -> None:
        if not self.has_texts:
            raise InterpError(f"{self.hf.text_refusal} Or fit a probe as its readout (--probe COLUMN).")

    def embedded(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self._unit(self.hf.audio_embeds(**inputs))

    def text_embeds(self, texts: Sequence[str]) -> Tensor:
        return self._unit(self.hf.text_embeds(texts))
