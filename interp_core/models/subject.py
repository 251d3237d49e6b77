"""The contract of every model here: a stem, a list of blocks on a residual stream, a readout.

The *stem* is what runs before block 0 (feature extractor, audio encoder, embeddings). No edit inside the blocks can
touch it, so it is run once a clip and kept. The *blocks* each add to the residual stream. The *readout* turns
the last block's output at one position into logits. Weights are used through the library's own modules only.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.block_model import BlockModel
from interp_core.models.labels import LabelTokens, class_labels
from interp_core.models.probe import Probe
from interp_core.models.prompted import Prompted, RecordingSpan, Stem
from interp_core.models.weights import Weights, split_weights
from interp_core.models.writing import Writer
from interp_core.sites import Kind

NOT_OF_THE_NUMBERS = {
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "id2label", "label2id", "transformers_version"),
    *("problem_type", "num_labels", "finetuning_task"),
}
"""Entries of a config that change no activation."""


@dataclass(eq=False)
class Subject(BlockModel):
    """A loaded model: the library's module plus what a sweep must know about it."""

    spans: ClassVar[tuple[str, ...]] = ("audio", "prefix", "question", "last", "all")
    """The named spans that the blocks' positions have."""
    timed: ClassVar[bool] = True
    """Whether a position stands for a time of its own, so that a time window can be patched."""
    pads: ClassVar[bool] = False
    """Whether clips of unequal length can share a batch and come out as they would alone."""
    one_shape: ClassVar[bool] = False
    """Whether the stem cuts or fills up every clip to one length, so that any clips can share a batch."""
    runs_from_inputs: ClassVar[bool] = True
    """Whether `run_blocks` of a clip is the model's own forward from its inputs, stem included."""
    whole_only: ClassVar[bool] = False
    """Whether blocks merge positions, so that only the whole recording can be followed through them."""
    takes: ClassVar[Literal["recordings", "pictures"]] = "recordings"

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

    def span(self, n_pos: int, n_samples: int) -> RecordingSpan:
        """Which of `n_pos` positions hold a recording of `n_samples`; where words stand around it, `Prompted` says.

        Always at least one of a clip that is long enough for the model.
        """
        return RecordingSpan.whole(n_pos)

    @property
    def entry(self) -> nn.Module:
        """The module whose call ends the stem."""
        return self.blocks[0]

    def prompted(self, stem: Stem) -> Prompted:
        """Describe one clip by what its stem made.

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

    def prompts_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """What this model is asked where certain answers are wanted and nobody says how; see `default_prompts`."""
        return self.default_prompts

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

    def run_keeping_keys(self, batch: Sequence[Prompted]) -> tuple[Tensor, Sequence[tuple[Tensor, Tensor]]]:
        """As `run_blocks`, with the keys and values [batch, n_kv_heads, pos, d_head] of every block; only of a model
        whose `shortcut_refusal` is None."""
        raise NotImplementedError

    def rotary_angles(self, like: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [batch, pos, d_head] for the blocks of a model whose `shortcut_refusal` is None.

        Args:
            like: of the dtype and on the device that they are to have.
            position_ids: [batch, pos].
        """
        raise NotImplementedError

    # ---- the readout -------------------------------------------------------------------------------------------------

    @property
    def mix_weights(self) -> nn.Parameter | None:
        """The parameter, one number a mixed layer, with which the readout mixes layers; None where it mixes none."""
        return None

    @property
    def mixed_layers(self) -> tuple[int, ...]:
        """The layers whose outputs are mixed, in the order of `mix_weights`; -1 is what enters block 0."""
        return () if self.mix_weights is None else tuple(range(-1, self.n_layers))

    def layer_shares(self) -> Tensor | None:
        """Return the weight [n_layers + 1] of what enters block 0 and of every block's output in a readout that mixes
        layers; None where it reads the last block alone."""
        weights = self.mix_weights
        if weights is None:
            return None
        at = torch.tensor(self.mixed_layers, device=weights.device) + 1
        return weights.new_zeros(self.n_layers + 1).index_add(0, at, weights.softmax(-1))  # a layer may be mixed twice

    def normed(self, hidden: Tensor) -> Tensor:
        """Turn what the last block left, [batch, pos, d_model], into what the head reads: behind the final norm."""
        return hidden

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
    def padding_stays(self) -> bool:
        """Whether only its padding is left of the recipient where the donor's residual stream stands at all heard
        positions, and the answer is read off both: then nearly every flip is by construction."""
        return False

    @property
    def default_site(self) -> Kind:
        """The site at which patching the whole recording can say something."""
        return "attn_out" if self.by_construction or self.padding_stays else "resid_post"

    @property
    def exact_layers(self) -> range:
        """The layers of `resid_post` at which the donor's positions, all of them, give exactly the donor's logits."""
        return range(-1, 0 if self.layer_shares() is not None else self.n_layers)

    @property
    def unread_from(self) -> int:
        """The first layer that leaves nothing at positions before the last that a later one reads; at best the last."""
        return self.n_layers - 1

    def unread_notes(self) -> list[str]:
        """A sentence on the layers from `unread_from` on, where there are others than the last."""
        if self.unread_from == self.n_layers - 1:
            return []
        first = self.unread_from + 1
        return [
            f"layers {first} to {self.n_layers - 1} read keys and values of earlier ones, so nothing reads what layer "
            f"{first - 1} and later ones leave before the last position: edits of the recording there do nothing by "
            "construction"
        ]

    def lens_refusal(self) -> str | None:
        """Say why the readout cannot be put behind an earlier layer, or None if it can."""
        if self.layer_shares() is not None:
            return "its readout mixes all layers"
        return "its layers differ in width" if self.merges_after else None

    @property
    def readout_of(self) -> str:
        """Whose code the readout is, where models of one family may have unlike ones; else ""."""
        return ""

    @property
    def answers(self) -> tuple[str, ...]:
        """The labels that a checkpoint names itself; empty where any word can be asked for."""
        return ()

    @property
    def needs_probe(self) -> bool:
        """Whether the checkpoint answers nothing by itself, so that a probe has to be fitted as its readout."""
        return False

    @property
    def probe(self) -> Probe | None:
        """What was fitted as the readout in the place of the checkpoint's own."""
        return None

    @property
    def takes_probe(self) -> bool:
        return False

    def check_takes_probe(self) -> None:
        """Refuse a probe as the readout of a model that answers in words."""
        if not self.takes_probe:
            raise InterpError(f"{self.name} answers in words, so it takes no probe; leave --probe out.")

    def with_probe(self, probe: Probe) -> "Subject":
        """Return the same model, weights and lock included, with a probe as its readout."""
        self.check_takes_probe()
        return replace(self, probe=probe)  # type: ignore[call-arg]  # a field of those that take one

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The base model's own forward: what a probe reads, [batch, width]; only of a model that takes a probe."""
        raise NotImplementedError

    # ---- the text that it writes -------------------------------------------------------------------------------------

    transcribes: ClassVar[bool] = False
    """Whether its text is what is said in the recording, whatever it is asked."""

    def words_refusal(self) -> str | None:
        """Say, behind the model's name, why there is no text of it, or None if it writes."""
        return "answers with one of a fixed list of classes and writes no text"

    def check_writes(self) -> None:
        """Refuse to ask a model for a text that it does not write."""
        if (refusal := self.words_refusal()) is not None:
            raise InterpError(f"{self.name} {refusal}, so there is no answer in words; leave --words out.")

    def writer(self, batch: Sequence[Prompted]) -> Writer:
        """Begin to write behind a batch of rows of one length; only of a model whose `words_refusal` is None."""
        raise NotImplementedError

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text that tokens stand for, without those that are none of it; only of a model that writes."""
        raise NotImplementedError

    # ---- what its layers say, read as if each were the last ----------------------------------------------------------

    def word_lens_refusal(self) -> str | None:
        """Say, behind the model's name, why no word can be read off the positions of a layer, or None if one can."""
        return "has no words at its positions"

    def words_at(self, hidden: Tensor) -> Tensor:
        """Turn states [.., d_model] of any layer into float32 logits [.., d_vocab], by the final norm and the
        unembedding; only of a model whose `word_lens_refusal` is None."""
        raise NotImplementedError

    def early_exit_refusal(self) -> str | None:
        """Say, behind the model's name, why nothing can be written from what a layer leaves, or None if it can."""
        return "has no decoder that could write from what a layer of its encoder leaves"

    def writer_from(self, hidden: Tensor, batch: Sequence[Prompted]) -> Writer:
        """Begin to write behind states [rows, pos, d_model] of any layers, each as if it were the last; only of a model
        whose `early_exit_refusal` is None."""
        raise NotImplementedError

    @property
    def bonafide_index(self) -> int | None:
        """Which logit stands for bona fide; None of a model that does not tell bona fide from spoofed speech."""
        return None

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        """Find each label's place among the logits; InterpError lists all that cannot be told apart."""
        return class_labels(self.answers, labels)

    def label_notes(self, labels: Sequence[str], prompt: str) -> tuple[str, ...]:
        """Sentences on labels that are read as something else than they seem to mean."""
        return ()

    # ---- its parts ---------------------------------------------------------------------------------------------------

    @property
    def readout_names(self) -> tuple[str, ...]:
        """Beginnings of the names of the weights that act behind the last block."""
        return ()

    def weights_by_part(self) -> dict[str, Weights]:
        """Every weight that acts at inference by its part, in the order of the forward pass: `stem`, `layer 0` to the
        last, then `readout`, or the parts that the readout has."""
        return split_weights(self.hf, self.blocks, self.readout_names)

    def settings_by_part(self) -> Mapping[str, Any]:
        """What acts in a part and shows in none of its weights."""
        config = self.config.to_dict() if hasattr(self.config, "to_dict") else dict(vars(self.config))
        return {"stem": {name: value for name, value in config.items() if name not in NOT_OF_THE_NUMBERS}}

    @property
    def stage_parts(self) -> Mapping[Kind, str]:
        """The part that ends at each stage, in the order of the forward pass; empty where that is not known."""
        return {}
