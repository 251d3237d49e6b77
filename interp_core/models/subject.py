"""The contract of every model here: a stem, a list of blocks on a residual stream, a readout.

The *stem* is what runs before block 0 (feature extractor, audio encoder, embeddings). No edit inside the blocks can
touch it, so it is run once a clip and kept. The *blocks* each add to the residual stream. The *readout* turns
the last block's output at one position into logits. Weights are used through the library's own modules only.
"""

import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.arch import SITE_MODULES, Blocks, Side, kinds_of
from interp_core.models.labels import LabelTokens, class_labels
from interp_core.sites import OF_HEADS, STAGES, Kind, Site


class Place(NamedTuple):
    """Where a site is in the library's model.

    Attributes:
        module: whose input or output it is.
        side: input, output; or folded, for an output projection whose weights the module multiplies by without
            calling it: then `module` is the attention and `proj` the projection.
        windows: how many windows of a sample stand one behind the other along the batch axis.
        image: whether the value is [batch, width, ...] with the places behind, instead of [batch, pos, width].
        flat: whether the value is [batch, width]; it is shown as one position.
        proj: of a folded site.
    """

    module: nn.Module
    side: Side
    windows: int = 1
    image: bool = False
    flat: bool = False
    proj: nn.Module | None = None


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

    @property
    def n_pos(self) -> int:
        return len(self.embeds)


@dataclass(eq=False)
class Subject:
    """A loaded model: the library's module plus what a sweep must know about it.

    Every forward pass, hooked or plain, holds `lock`: hooks live on the shared module, so a second thread's pass
    would otherwise see them.
    """

    name: str
    """What the user typed: a bundled name, a folder, a hub id."""
    weights_hash: str
    hf: Any
    arch: Blocks
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    spans: ClassVar[tuple[str, ...]] = ("audio", "prefix", "question", "last", "all")
    """The named spans that the blocks' positions have."""
    timed: ClassVar[bool] = True
    """Whether a position stands for a time of its own, so that a time window can be patched."""
    pads: ClassVar[bool] = False
    """Whether clips of unequal length can share a batch and come out as they would alone."""
    whole_only: ClassVar[bool] = False
    """Whether blocks merge positions, so that only the whole recording can be followed through them."""

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """Names all that changes the numbers: weights, dtype, device, attention kernel."""
        kernel = getattr(self.config, "_attn_implementation", None)
        return f"{self.weights_hash[:16]}|{str(self.dtype).removeprefix('torch.')}|{self.device.type}|{kernel}"

    @property
    def config(self) -> Any:
        """The library's config."""
        return self.hf.config

    @property
    def sizes(self) -> Any:
        """The part of the config that holds the sizes of the blocks."""
        config = self.config
        for name in filter(None, self.arch.sizes.split(".")):
            config = getattr(config, name)
        return config

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        """Heads of a block; where they differ, the most."""
        return self.sizes.num_attention_heads

    def heads_at(self, layer: int) -> int:
        return self.n_heads

    @property
    def d_model(self) -> int:
        return self.sizes.hidden_size

    @property
    def d_head(self) -> int:
        return getattr(self.sizes, "head_dim", None) or self.d_model // self.n_heads

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.hf.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    @property
    def body(self) -> nn.Module:
        """The base model, without the head that a checkpoint may have."""
        return self.hf.get_submodule(self.arch.body) if hasattr(self.hf, self.arch.body) else self.hf

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(cast(nn.ModuleList, self.body.get_submodule(self.arch.blocks)))

    @property
    def batch_first(self) -> frozenset[str]:
        """Keyword arguments of a block whose first axis is the batch times something."""
        return frozenset()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of site inside the blocks that this model has."""
        return kinds_of(self.arch)

    @property
    def stages(self) -> Mapping[Kind, Place]:
        """The sites behind the blocks that this model has, in the order of its forward pass."""
        return {}

    def locate(self, site: Site) -> Place:
        """Return where a site is; InterpError when the model has no such layer, head or kind."""
        if site.kind in STAGES:
            if site.kind not in self.stages:
                raise InterpError(
                    f"{self.name} has no {site.kind} (behind its blocks: {', '.join(self.stages) or 'no site'})."
                )
            return self.stages[site.kind]
        if not 0 <= site.layer < self.n_layers:
            raise InterpError(
                f"layer={site.layer} is outside {self.name}'s {self.n_layers} layers (valid: 0 to {self.n_layers - 1})."
            )
        if site.kind not in self.kinds:
            raise InterpError(f"{self.name} has no {site.kind} (its sites: {', '.join(self.kinds)}).")
        n_heads = self.heads_at(site.layer)
        if site.head is not None and not 0 <= site.head < n_heads:
            raise InterpError(
                f"head={site.head} is outside {self.name}'s {n_heads} heads (valid: 0 to {n_heads - 1}) "
                f"in layer {site.layer}."
            )
        column, side = SITE_MODULES[site.kind]
        block = self.blocks[site.layer]
        try:
            module = block if column is None else block.get_submodule(self.inside(column))
        except AttributeError as error:
            raise InterpError(
                f"the blocks of {self.name} have no {self.inside(str(column))!r}, where its row in arch.py puts "
                f"{site.kind}; correct the row's {column!r} (None where there is no such site)."
            ) from error
        if site.kind in OF_HEADS and not self.arch.attn_proj_called:
            assert self.arch.attn is not None
            return Place(block.get_submodule(self.arch.attn), "folded", proj=module)
        return Place(module, side)

    def inside(self, column: str) -> str:
        """Where, below a block, the column of the table leads in this very model."""
        return getattr(self.arch, column)

    def check_ready(self) -> None:
        """Refuse to run in training mode, where dropout and layer drop make every number random."""
        if self.hf.training:
            raise InterpError(f"{self.name} is in training mode, which adds dropout; call eval() on it first.")

    # ---- the stem ----------------------------------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        raise NotImplementedError

    @property
    def max_seconds(self) -> float:
        """The longest clip that the stem hears whole; it would cut a longer one without a word."""
        raise NotImplementedError

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        """Return the library model's own keyword arguments for one clip [n_samples] under one prompt."""
        raise NotImplementedError

    def seconds_per_position(self) -> float:
        """The time that one audio position covers."""
        raise NotImplementedError

    @property
    def entry(self) -> nn.Module:
        """The module whose call ends the stem."""
        return self.blocks[0]

    def prompted(
        self,
        key: str,
        clip_id: str,
        samples: np.ndarray,
        inputs: Mapping[str, Tensor],
        call: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> Prompted:
        """Describe one clip's stem, given the (args, kwargs) with which it called `entry`.

        Raises:
            InterpError: no audio position, or more than one run of them; the clip is named.
        """
        raise NotImplementedError

    @property
    def asks(self) -> bool:
        """Whether the model is asked something in words beside the recording."""
        return True

    @property
    def default_prompts(self) -> tuple[str, ...]:
        """What this model is asked unless somebody asks otherwise; empty where that is up to the experiment."""
        return () if self.asks else ("",)

    @property
    def parts(self) -> tuple[str, ...]:
        """The lists of blocks to choose from, where a model has several; the first is the default."""
        return ()

    def part(self, name: str) -> "Subject":
        """Return the subject over another list of blocks of the same model; an empty name is the default."""
        if name:
            raise InterpError(f"{self.name} has one list of blocks, so there is no part {name!r} to choose.")
        return self

    def check_prompt(self, prompt: str) -> None:
        """Refuse a prompt that this model cannot be asked, before anything runs."""
        if not self.asks and prompt:
            raise InterpError(f"{self.name} is asked no question, so leave the prompt out (got {prompt[:60]!r}).")

    def describe(self, prompted: Prompted) -> dict[str, Any]:
        """Return the audio positions of one clip, in a form that a person can check."""
        (start, stop), (bands, _) = prompted.audio, prompted.bands
        return {
            "n_pos": prompted.n_pos,
            "audio_start": start,
            "audio_stop": stop,
            "audio_positions": (stop - start) * bands,
            "audio_seconds": round((stop - start) * prompted.seconds_per_position, 3),
        }

    # ---- the blocks --------------------------------------------------------------------------------------------------

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The model's own forward from raw inputs: float32 logits [batch, n_classes] at the readout."""
        raise NotImplementedError

    def batch_key(self, prompted: Prompted) -> Hashable:
        """Only clips whose keys are equal may share a batch: of one shape where none is padded."""
        return None if self.pads else tuple(tuple(value.shape) for value in prompted.inputs.values())

    def run_blocks(self, batch: Sequence[Prompted]) -> Tensor:
        """Run several clips unedited in one batch: float32 logits [batch, n_classes] at the readout."""
        if len({self.batch_key(p) for p in batch}) > 1:
            raise InterpError(f"{self.name} takes clips of one length in a batch, got {len(batch)} unlike ones.")
        return self.forward({name: torch.cat([p.inputs[name] for p in batch]) for name in batch[0].inputs})

    def between(self, layer: int, hidden: Tensor) -> Tensor:
        """Turn what block `layer - 1` left, [batch, pos, width], into what the library gives block `layer`."""
        return hidden

    def rows_of(self, value: Tensor) -> Tensor:
        """Turn what a block of the library takes or gives into [batch, pos, width]."""
        return value

    @property
    def merges_after(self) -> frozenset[int]:
        """The layers behind which positions are merged or widened, so that `between` changes something."""
        return frozenset()

    def shortcut_refusal(self) -> str | None:
        """Say why keys and values of a clean run may not stand in for recomputed ones, or None if they may."""
        return None if self.arch.causal else "attention is not causal"

    # ---- the readout -------------------------------------------------------------------------------------------------

    def layer_shares(self) -> Tensor | None:
        """Return the weight [n_layers + 1] of what enters block 0 and of every block's output in a readout that mixes
        layers; None where it reads the last block alone."""
        return None

    def mixed_state(self, point: int, hidden: Tensor) -> Tensor:
        """Turn what stands at a point of the residual stream (n_layers: behind the last block) into what is mixed."""
        return hidden

    def readout(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        """Turn what the readout reads into float32 logits [rows, n_classes].

        Args:
            hidden: [rows, pos, d_model] the last block's output, or the weighted sum of all layers' where they are
                mixed; a readout that reads one position only takes the last.
            batch: the clips; rows are repetitions of them, all clips of one repetition side by side.
        """
        raise NotImplementedError

    @property
    def by_construction(self) -> bool:
        """Whether the donor's residual stream at all positions gives the donor's answer whatever the layer, because
        nothing else is read: then a flip there says nothing."""
        return False

    @property
    def default_site(self) -> Kind:
        """The site at which patching the whole recording can say something."""
        return "attn_out" if self.by_construction else "resid_post"

    @property
    def exact_layers(self) -> range:
        """The layers of `resid_post` at which the donor's positions, all of them, give exactly the donor's logits."""
        return range(-1, 0 if self.layer_shares() is not None else self.n_layers)

    def lens_refusal(self) -> str | None:
        """Say why the readout cannot be put behind an earlier layer, or None if it can."""
        if self.layer_shares() is not None:
            return "its readout mixes all layers"
        return "its layers differ in width" if self.merges_after else None

    @property
    def answers(self) -> tuple[str, ...]:
        """The labels that a checkpoint names itself; empty where any word can be asked for."""
        return ()

    @property
    def needs_probe(self) -> bool:
        """Whether the checkpoint answers nothing by itself, so that a probe has to be fitted as its readout."""
        return False

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        """Find each label's place among the logits; InterpError lists all that cannot be told apart."""
        return class_labels(self.answers, labels)
