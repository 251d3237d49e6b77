"""Audio LLMs: an audio tower whose output stands at placeholder tokens inside a decoder's prompt."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import DynamicCache

from interp_core.errors import InterpError
from interp_core.models.arch import Arch
from interp_core.models.audio_llms.processors import extractor_of
from interp_core.models.labels import LabelTokens, first_tokens
from interp_core.models.prompted import Prompted, Stem
from interp_core.models.subject import Subject
from interp_core.models.writing import Writer


@dataclass(eq=False)
class AudioLLM(Subject):
    """A subject whose prompts hold text and one clip; its readout is the first answer token."""

    arch: Arch
    processor: Any = field(default=None, repr=False)

    pads: ClassVar[bool] = True
    runs_from_inputs: ClassVar[bool] = False

    @property
    def decoder(self) -> nn.Module:
        return self.hf.get_submodule(self.arch.decoder)

    @property
    def entry(self) -> nn.Module:
        return self.blocks[0] if self.arch.embeds_inside else self.decoder

    @property
    def extractor(self) -> Any:
        """The part of the processor that turns samples into what the audio tower takes."""
        return extractor_of(self.processor)

    @property
    def sample_rate(self) -> int:
        return self.extractor.sampling_rate

    @property
    def max_seconds(self) -> float:
        extractor = self.extractor
        longest = getattr(self.processor, "max_audio_len", None)  # of those that cut a clip into windows
        if longest is not None or not self.arch.cuts:
            return longest or math.inf
        if self.arch.most_seconds is not None:
            return self.arch.most_seconds
        return extractor.n_samples / extractor.sampling_rate

    def d_head_at(self, layer: int) -> int:
        return self.sizes.per_layer_config[layer].head_dim if self.passed_on else super().d_head_at(layer)

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def audio_token_id(self) -> int:
        return audio_token_id(self.hf.config, self.arch, self.processor)

    def seconds_per_position(self) -> float:
        extractor = self.extractor
        hop = getattr(extractor, "hop_length", 1)  # of an extractor without one, a frame is a sample
        return self.arch.frames_per_position(self.hf.config) * hop / extractor.sampling_rate

    def chat_text(self, prompt: str) -> str:
        """Render the prompt around one audio placeholder, as far as the place where the answer starts."""
        clip, question = {"type": "audio", "audio_url": ""}, {"type": "text", "text": prompt}
        turns = {
            "parts": [{"role": "user", "content": [clip, question]}],
            "text": [{"role": "user", "content": self.processor.audio_token + prompt}],
            "system": [{"role": "system", "content": [question]}, {"role": "user", "content": [clip]}],
        }[self.arch.turn]
        try:
            return self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except (TemplateError, TypeError, ValueError) as error:  # a template may raise what it likes, or be absent
            raise InterpError(
                f"the chat template of {self.name} takes no clip and question as {self.arch.turn} ({error}); copy the "
                "chat template of the original model into its folder."
            ) from error

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        inputs = dict(
            self.processor(
                text=self.chat_text(prompt), audio=[samples], sampling_rate=self.sample_rate, return_tensors="pt"
            )
        )
        seen = inputs["attention_mask"][0].bool()
        inputs |= {name: inputs[name][:, seen] for name in ("input_ids", "attention_mask")}  # padding is no position
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        return {
            **{name: value.to(self.dtype) if value.is_floating_point() else value for name, value in moved.items()},
            **self.arch.fixed,
        }

    def audio_span(self, token_ids: Tensor, clip_id: str) -> tuple[int, int]:
        at = (token_ids == self.audio_token_id).nonzero().flatten().tolist()
        if not at:
            raise InterpError(
                f"clip {clip_id!r} has no audio position: the prompt needs one audio marker, and the clip must be "
                "long enough to give a token."
            )
        breaks = [i for i in range(1, len(at)) if at[i] != at[i - 1] + 1]
        if breaks:
            starts, ends = [0, *breaks], [*breaks, len(at)]
            spans = " and ".join(f"{at[s]}-{at[e - 1]}" for s, e in zip(starts, ends, strict=True))
            raise InterpError(
                f"clip {clip_id!r} has {len(starts)} audio spans (positions {spans}); Patchbay patches exactly one, "
                "so keep one audio marker in the prompt."
            )
        return at[0], at[-1] + 1

    def prompted(self, stem: Stem) -> Prompted:
        embeds = (stem.kwargs["inputs_embeds"] if not self.arch.embeds_inside else stem.args[0])[0]
        ids = expanded_ids(self, stem.inputs, embeds)
        start, stop = self.audio_span(ids, stem.clip_id)
        stop = min(stop, start + self.positions_heard(stem, stop - start))
        beside = {name: stem.kwargs[name][0] for name in self._per_layer}
        return Prompted(
            stem.key, stem.clip_id, stem.inputs, embeds, ids, (start, stop), self.seconds_per_position(), beside=beside
        )

    @property
    def _per_layer(self) -> tuple[str, ...]:
        """The decoder's argument with a vector for each block, if this checkpoint's blocks take one."""
        name = self.arch.per_layer
        return (name,) if name and self.sizes.hidden_size_per_layer_input else ()

    def positions_heard(self, stem: Stem, made: int) -> int:
        """How many of a clip's audio positions cover sound, where silence is filled in and takes positions too."""
        filled = self.arch.reader == "voxtral" or stem.n_samples < getattr(self.extractor, "min_length", 0)
        if not filled:
            return made
        return max(1, math.ceil(stem.n_samples / self.sample_rate / self.seconds_per_position()))

    def check_prompt(self, prompt: str) -> None:
        """Refuse a prompt that would not give exactly one audio span."""
        token = self.processor.audio_token
        count = self.chat_text(prompt).count(token)
        if not prompt.strip():
            raise InterpError("the prompt is empty; write the question that the model is to answer.")
        if prompt.strip() not in self.chat_text(prompt):
            raise InterpError(
                f"the chat template of {self.name} leaves the question {prompt[:60]!r} out of the prompt; its folder "
                "needs a template that takes one."
            )
        if count != 1:
            raise InterpError(
                f"the prompt {prompt[:60]!r} gives {count} audio spans; Patchbay patches exactly one, "
                f"so leave {token} out of the prompt (it is added for you)."
            )

    def describe(self, prompted: Prompted) -> dict[str, Any]:
        """Return the audio span with the tokens around it."""
        start, stop = prompted.audio
        words = self.tokenizer.convert_ids_to_tokens(prompted.token_ids.tolist())
        return {
            **super().describe(prompted),
            "tokens_before": words[max(0, start - 6) : start],
            "tokens_in_span": sorted(set(words[start:stop])),
            "tokens_after": words[stop : stop + 6],
            "readout_position": len(words) - 1,
            "readout_token": words[-1],
        }

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        # The logits' own last position: of models that expand the audio inside, input_ids end elsewhere.
        return self._scaled(self.hf(**inputs, use_cache=False).logits[:, -1])

    def run_blocks(self, batch: Sequence[Prompted], **cache: Any) -> Tensor:
        """Run the decoder alone on several stems, left-padded.

        Args:
            cache: `past_key_values` and `use_cache`, to keep keys and values.
        """
        cache = cache or {"use_cache": False}
        return self.logits_of(self.decoder(**self.padded(batch), **cache).last_hidden_state[:, -1])

    def run_keeping_keys(self, batch: Sequence[Prompted]) -> tuple[Tensor, Sequence[tuple[Tensor, Tensor]]]:
        cache = DynamicCache(config=self.sizes)
        logits = self.run_blocks(batch, past_key_values=cache, use_cache=True)
        return logits, [(layer.keys, layer.values) for layer in cache.layers]

    def rotary_angles(self, like: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.hf.get_submodule(self.arch.rotary)(like, position_ids)

    def normed(self, hidden: Tensor) -> Tensor:
        return self.hf.get_submodule(self.arch.norm)(hidden)

    def readout(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return self.logits_of(self.normed(hidden[:, -1]))

    def word_lens_refusal(self) -> str | None:
        return self.lens_refusal()

    def words_at(self, hidden: Tensor) -> Tensor:
        return self.logits_of(self.normed(hidden))

    def logits_of(self, last: Tensor) -> Tensor:
        """Logits [rows, d_vocab] of the last position's state [rows, d_model] behind the final norm."""
        logits = self.hf.get_submodule(self.arch.head)(last)
        if self.arch.logits_cap and (cap := getattr(self.sizes, self.arch.logits_cap)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return self._scaled(logits)

    def _scaled(self, logits: Tensor) -> Tensor:
        name = self.arch.logits_divisor
        return logits.float() / getattr(self.sizes, name) if name else logits.float()

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        """Find the token that starts each label right where the answer to a prompt starts; see `first_tokens`."""
        found = first_tokens(self.tokenizer, labels, self.chat_text(prompt), several_tokens=several_tokens)
        return replace(found, report={"prompt": prompt, **found.report})

    @property
    def readout_names(self) -> tuple[str, ...]:
        return (f"{self.arch.norm}.", f"{self.arch.head}.")

    def padded(self, prompted: Sequence[Prompted]) -> dict[str, Tensor]:
        """Left-pad several clips into the decoder's keyword arguments.

        Position ids are given in full: counted from the mask by the library, they would count the padding.

        Returns:
            inputs_embeds [batch, pos, d_model], attention_mask [batch, pos], position_ids [batch, pos], and what stands
            beside the embeddings.
        """
        longest = max(p.n_pos for p in prompted)
        embeds = prompted[0].embeds.new_zeros(len(prompted), longest, prompted[0].embeds.shape[-1])
        mask = torch.zeros(len(prompted), longest, dtype=torch.long, device=embeds.device)
        for row, p in enumerate(prompted):
            embeds[row, longest - p.n_pos :] = p.embeds
            mask[row, longest - p.n_pos :] = 1
        beside = {
            name: torch.stack([_left_padded(p.beside[name], longest) for p in prompted]) for name in self._per_layer
        }
        return {
            **beside,
            "inputs_embeds": embeds,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        }

    # ---- the text that it writes -------------------------------------------------------------------------------------

    def words_refusal(self) -> str | None:
        return None

    @property
    def writes_with(self) -> Any:
        """The library's model that writes, whose generation config decides how."""
        return self.hf

    def asked_of(self, batch: Sequence[Prompted]) -> dict[str, Tensor]:
        """What the library's `generate()` is told of a batch of one length: the ids that it would be given."""
        return {name: torch.cat([p.inputs[name] for p in batch]) for name in ("input_ids", "attention_mask")}

    def writer(self, batch: Sequence[Prompted]) -> Writer:
        return AudioLLMWriter(self, batch)

    def text_of(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def shortcut_refusal(self) -> str | None:
        config = self.sizes
        if self._per_layer:
            return "each block takes a further vector of every position (per-layer embeddings), which no edit reaches"
        types = getattr(config, "layer_types", None)
        odd = set(types or ["full_attention"]) - {"full_attention"}
        window = None if types else getattr(config, "sliding_window", None)
        if window is not None and window < config.max_position_embeddings:
            odd = {f"a window of {window} positions"}
        if odd:
            return f"some layers use {', '.join(sorted(odd))}, whose cached keys depend on more than the position"
        if getattr(config, "num_kv_shared_layers", 0):
            return "keys and values are shared across layers"
        if config._attn_implementation not in ("sdpa", "eager"):
            return f"attention kernel {config._attn_implementation!r} takes no explicit mask"
        return super().shortcut_refusal()

    @property
    def exact_layers(self) -> range:
        if self._per_layer:  # those vectors stay the recipient's
            return range(self.n_layers - 1, self.n_layers)
        if self.passed_on and "store" in (modes := self.sizes.kv_sharing_modes):  # behind it, later blocks read them
            return range(-1, modes.index("store"))
        return super().exact_layers

    @property
    def unread_from(self) -> int:
        shared = self.sizes.num_kv_shared_layers if self.passed_on else 0  # they make no keys of what they are given
        return self.n_layers - 1 - shared


class AudioLLMWriter:
    """See `Writer`: the prompt from stems that are kept, then a token at a time behind its keys and values."""

    each_step = True

    def __init__(self, subject: AudioLLM, batch: Sequence[Prompted]) -> None:
        self._subject, self._batch = subject, batch
        self._cache = DynamicCache(config=subject.sizes)
        self._n_pos = batch[0].n_pos
        self.most = subject.sizes.max_position_embeddings - self._n_pos

    @property
    def hf(self) -> Any:
        return self._subject.writes_with

    @property
    def asked(self) -> dict[str, Any]:
        return self._subject.asked_of(self._batch)

    def first(self) -> Tensor:
        return self._subject.run_blocks(self._batch, past_key_values=self._cache, use_cache=True)

    def step(self, tokens: Tensor) -> Tensor:
        subject, at = self._subject, self._n_pos
        self._n_pos += 1
        rows = len(tokens)
        if subject.arch.takes_ids:
            module, given = subject.hf.get_submodule(subject.arch.takes_ids), {"input_ids": tokens[:, None]}
        else:
            module, given = subject.decoder, {"inputs_embeds": subject.hf.get_input_embeddings()(tokens[:, None])}
        out = module(
            **given,
            attention_mask=torch.ones(rows, self._n_pos, dtype=torch.long, device=tokens.device),
            position_ids=torch.full((rows, 1), at, device=tokens.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        return subject.logits_of(out.last_hidden_state[:, -1])


def _left_padded(state: Tensor, length: int) -> Tensor:
    """Put zeros before [pos, ...] up to a length."""
    return torch.cat([state.new_zeros(length - len(state), *state.shape[1:]), state])


def audio_token_id(config: Any, arch: Arch, processor: Any) -> int:
    """Return the id of the audio placeholder: what the config says, or the tokenizer's where it says nothing."""
    told = config
    for name in arch.audio_token_id.split("."):
        told = getattr(told, name)
    return processor.tokenizer.convert_tokens_to_ids(processor.audio_token) if told is None else told


def expanded_ids(subject: AudioLLM, inputs: Mapping[str, Tensor], embeds: Tensor) -> Tensor:
    """Return the token ids [pos] after expansion, also where the model itself expands one placeholder.

    Some processors leave a single placeholder that the model expands inside; then the sequence that the blocks
    see is longer than `input_ids`, and the audio stands at the placeholder's place, that much longer.
    """
    ids = inputs["input_ids"][0]
    extra = embeds.shape[0] - ids.shape[0]
    if extra == 0:
        return ids
    at = (ids == subject.audio_token_id).nonzero().flatten()
    if extra < 0 or len(at) != 1:
        raise InterpError(
            f"{subject.name} made {embeds.shape[0]} positions out of {ids.shape[0]} tokens with {len(at)} audio "
            "markers; Patchbay can follow the expansion of one marker only."
        )
    i = int(at[0])
    return torch.cat([ids[:i], ids[i].expand(extra + 1), ids[i + 1 :]])
