"""Whisper as it was trained: an encoder that hears, a decoder whose next token is the answer.

It is two subjects over one model. In the *encoder* the positions are time, and the readout is everything behind the
encoder, decoder included. In the *decoder* the positions are the tokens of the prompt, every one of which reads the
audio through cross-attention (the sites `cross_out` and `cross_head_out`); its stem is the encoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from interp_core.errors import InterpError
from interp_core.models.arch import ENCODERS, EncoderArch
from interp_core.models.block_model import Place
from interp_core.models.encoders.subject import WhisperClassifier
from interp_core.models.labels import LabelTokens, first_tokens
from interp_core.models.probe import Probe
from interp_core.models.prompted import Prompted, RecordingSpan
from interp_core.models.subject import Subject
from interp_core.models.weights import Weights
from interp_core.models.writing import Writer
from interp_core.sites import Kind

START = "<|startoftranscript|>"
PARTS = ("encoder", "decoder")
ENCODER_ROW = replace(ENCODERS["whisper"], body="model")
DECODER_ROW = EncoderArch(
    blocks="decoder.layers",
    body="model",
    attn_proj="self_attn.out_proj",
    mlp="fc2",
    mlp_proj="fc2",
    mid="final_layer_norm",
    cross_attn="encoder_attn",
    cross_proj="encoder_attn.out_proj",
    norm="decoder.layer_norm",
    causal=True,
)


@dataclass(eq=False)
class Whisper(WhisperClassifier):
    """The encoder's blocks of a WhisperForConditionalGeneration; the answer is the decoder's next token."""

    tokenizer: Any = field(default=None, repr=False)

    @property
    def asks(self) -> bool:
        return True

    @property
    def default_prompts(self) -> tuple[str, ...]:
        """Asks for the first word of an English transcript."""
        many = self.tokenizer.convert_tokens_to_ids("<|en|>") not in (None, self.tokenizer.unk_token_id)
        spoken = "<|en|><|transcribe|>" if many and self.multilingual else ""
        return (f"{START}{spoken}<|notimestamps|>",)

    def prompts_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The bare start where every label is a language: there the model says which one it hears."""
        return (START,) if labels and all(map(self._language, labels)) else self.default_prompts

    def _language(self, label: str) -> str | None:
        """The token of a language, given as its code (es), name (Spanish) or token itself; None of anything else."""
        said = label.strip().lower().removeprefix("<|").removesuffix("|>")
        token = f"<|{TO_LANGUAGE_CODE.get(said, said)}|>"
        known = token in self.tokenizer.get_vocab() and token.strip("<|>") in LANGUAGES
        return token if known and self.multilingual else None

    @property
    def multilingual(self) -> bool:
        made = getattr(self.hf, "generation_config", None)
        return bool(getattr(made, "is_multilingual", True))

    @property
    def parts(self) -> tuple[str, ...]:
        return PARTS

    def part(self, name: str) -> Subject:
        if name not in ("", *PARTS):
            raise InterpError(f"{self.name} has no part {name!r} (its parts: {', '.join(PARTS)}).")
        wanted = WhisperDecoder if name == "decoder" else Whisper
        if type(self) is wanted:
            return self
        row = DECODER_ROW if name == "decoder" else ENCODER_ROW
        return wanted(
            self.name, self.weights_hash, self.hf, row, self.lock, self.extractor,
            tokenizer=self.tokenizer, files=self.files,
        )  # fmt: skip

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        if not prompt:  # what a probe is fitted to: the encoder alone is run
            return super().model_inputs(samples, prompt)
        ids = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        return {**super().model_inputs(samples, prompt), "decoder_input_ids": ids.to(self.device)}

    def check_prompt(self, prompt: str) -> None:
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        start = self.tokenizer.convert_tokens_to_ids(START)
        if ids[:1] != [start] or ids.count(start) > 1:
            raise InterpError(
                f"the prompt {prompt[:60]!r} has to start with {START}, once; the default is {self.default_prompts[0]}."
            )

    @property
    def takes_probe(self) -> bool:
        return True

    def with_probe(self, probe: Probe) -> Subject:
        """The encoder alone, read by the probe; the decoder is left out."""
        self.check_takes_probe()
        return ProbedEncoder(self.name, self.weights_hash, self.hf, ENCODER_ROW, self.lock, self.extractor, probe)

    @property
    def answers(self) -> tuple[str, ...]:
        return ()

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        """Find the token that each label starts with: a language right behind the start, a word with its space."""
        self.check_prompt(prompt)

        def written(label: str) -> str:
            language = self._language(label) if prompt.strip() == START else None
            # A transcript starts with a space, as every word in it.
            return language or (label if label.startswith((" ", "<|")) else f" {label}")

        return first_tokens(self.tokenizer, labels, prompt, written, several_tokens=several_tokens)

    # ---- the readout -------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> Mapping[Kind, Place]:
        return {}  # the decoder stands between the encoder and the answer

    @property
    def mix_weights(self) -> nn.Parameter | None:
        return None

    @property
    def needs_probe(self) -> bool:
        return False

    def check_readout(self) -> None:
        """There always is one: the decoder."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.hf(**inputs, use_cache=False).logits[:, -1].float()

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        prompts = torch.cat([p.inputs["decoder_input_ids"] for p in batch])
        decoder: nn.Module = self.hf.model.decoder
        out = decoder(
            input_ids=prompts.repeat(len(state) // len(batch), 1), encoder_hidden_states=state, use_cache=False
        )
        return self.hf.proj_out(out.last_hidden_state[:, -1])

    # ---- the text that it writes -------------------------------------------------------------------------------------

    transcribes: ClassVar[bool] = True
    writes_in_blocks: ClassVar[bool] = False
    """Whether the blocks run for every token that is written: the decoder's."""

    def words_refusal(self) -> str | None:
        return None

    def writer(self, batch: Sequence[Prompted]) -> Writer:
        return WhisperWriter(self, batch)

    def early_exit_refusal(self) -> str | None:
        return None

    def writer_from(self, hidden: Tensor, batch: Sequence[Prompted]) -> Writer:
        return WhisperWriter(self, batch, self.normed(hidden))

    def text_of(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def encoded(self, batch: Sequence[Prompted]) -> Tensor:
        """[rows, frames, d_model] what the decoder hears of each row."""
        return self.hf.model.encoder(torch.cat([p.inputs["input_features"] for p in batch])).last_hidden_state


class ProbedEncoder(WhisperClassifier):
    """Whisper's encoder below a fitted probe: asked nothing, and without its decoder."""

    def weights_by_part(self) -> dict[str, Weights]:
        unread = ("model.decoder.", "proj_out.")
        return {
            part: {name: weight for name, weight in weights.items() if not name.startswith(unread)}
            for part, weights in super().weights_by_part().items()
        }


class WhisperDecoder(Whisper):
    """The decoder's blocks: positions are the prompt's tokens, and the encoder is part of the stem."""

    @property
    def padding_stays(self) -> bool:
        return False

    @property
    def takes_probe(self) -> bool:
        return False

    spans: ClassVar[tuple[str, ...]] = ("audio", "all", "last")
    timed: ClassVar[bool] = False
    writes_in_blocks: ClassVar[bool] = True

    @property
    def key(self) -> str:
        return f"{super().key}|decoder"

    @property
    def n_heads(self) -> int:
        return self.config.decoder_attention_heads

    def seconds_per_position(self) -> float:
        return 0.0  # a token of the prompt has no time of its own

    def span(self, n_pos: int, n_samples: int) -> RecordingSpan:
        return RecordingSpan.whole(n_pos)

    def describe(self, prompted: Prompted) -> dict[str, Any]:
        return {**super().describe(prompted), "holds": "tokens of the prompt, no audio,"}

    @property
    def exact_layers(self) -> range:
        return range(0)  # behind a patch, cross-attention goes on reading the recipient's recording

    def early_exit_refusal(self) -> str | None:
        return "is open as its decoder, whose layers hear the whole encoder: open the part encoder"

    def shortcut_refusal(self) -> str | None:
        return "positions read the audio by cross-attention, so none of them follows another clip's run"

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return self.hf.proj_out(state[:, -1])

    def encoded(self, batch: Sequence[Prompted]) -> Tensor:
        once = {id(p): p for p in batch}  # no edit of the decoder changes what it hears
        states = dict(zip(once, super().encoded(list(once.values())), strict=True))
        return torch.stack([states[id(p)] for p in batch])


class WhisperWriter:
    """See `Writer`; the text goes on behind the prompt's tokens, with no timestamps but those that it asks for.

    Args:
        state: [rows, frames, d_model] what the decoder hears; None for what the encoder makes of the batch.
    """

    def __init__(self, subject: Whisper, batch: Sequence[Prompted], state: Tensor | None = None) -> None:
        self._subject, self._batch = subject, batch
        self._ids = torch.cat([p.inputs["decoder_input_ids"] for p in batch])
        self._state = state
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.each_step = subject.writes_in_blocks
        self.most = subject.config.max_target_positions - self._ids.shape[1]

    @property
    def hf(self) -> Any:
        return self._subject.hf

    @property
    def asked(self) -> dict[str, Any]:
        if self._state is None:
            self._state = self._subject.encoded(self._batch)
        return {"encoder_outputs": BaseModelOutput(self._state), "decoder_input_ids": self._ids}

    def first(self) -> Tensor:
        return self._run(self._ids)

    def step(self, tokens: Tensor) -> Tensor:
        return self._run(tokens[:, None])

    def _run(self, ids: Tensor) -> Tensor:
        out = self.hf.model.decoder(
            input_ids=ids, encoder_hidden_states=self._state, past_key_values=self._cache, use_cache=True
        )
        return self.hf.proj_out(out.last_hidden_state[:, -1]).float()
