"""Models that hear with an encoder and write with a decoder, whose next token is the answer.

Such a model is two subjects over one. In the *encoder* the positions are time, and the readout is everything behind the
encoder, decoder included. In the *decoder* the positions are the tokens of the prompt, every one of which reads the
audio through cross-attention (the sites `cross_out` and `cross_head_out`); its stem is the encoder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from interp_core.errors import InterpError, few
from interp_core.models.arch import EncoderArch
from interp_core.models.block_model import Place
from interp_core.models.encoders.subject import Encoder
from interp_core.models.labels import LabelTokens, first_tokens
from interp_core.models.listeners import STARTS, ListenerArch
from interp_core.models.probe import Probe
from interp_core.models.prompted import Prompted, RecordingSpan
from interp_core.models.subject import Subject
from interp_core.models.weights import Weights
from interp_core.models.writing import Writer
from interp_core.sites import Kind

PARTS = ("encoder", "decoder")


def tower_of(body: nn.Module, arch: EncoderArch) -> nn.Module:
    """The encoder or the decoder: the module below the body that holds the list of blocks, however deep."""
    return body.get_submodule(arch.blocks.partition(".")[0])


def name_in(model: nn.Module, part: nn.Module) -> str:
    """The dotted name of a part of a model."""
    return next(name for name, module in model.named_modules() if module is part)


class ProbedEncoder(Encoder):
    """The encoder below a fitted probe: asked nothing, and without its decoder."""

    @property
    def tower(self) -> nn.Module:
        return tower_of(self.body, self.arch)

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.tower(**inputs).last_hidden_state.mean(1)

    def weights_by_part(self) -> dict[str, Weights]:
        own = (f"{name_in(self.hf, self.tower)}.", "probe.")
        return {
            part: {name: weight for name, weight in weights.items() if name.startswith(own)}
            for part, weights in super().weights_by_part().items()
        }


@dataclass(eq=False)
class Listener(Encoder):
    """The encoder's blocks; the answer is the decoder's next token."""

    tokenizer: Any = field(default=None, repr=False)
    row: ListenerArch = field(default=None, repr=False)  # type: ignore[assignment]

    probed: ClassVar[type[Encoder]] = ProbedEncoder
    """What it is below a probe."""

    @property
    def by_part(self) -> "dict[str, type[Listener]]":
        """What each of its parts is opened as."""
        return {"encoder": Listener, "decoder": ListenerDecoder}

    @property
    def asks(self) -> bool:
        return True

    @property
    def start(self) -> str:
        """The token that every text begins with."""
        told = (getattr(about, key, None) for key in STARTS for about in (self.hf.generation_config, self.config))
        return self.tokenizer.convert_ids_to_tokens(next(one for one in told if one is not None))

    @property
    def default_prompts(self) -> tuple[str, ...]:
        """Asks for the first word of the transcript, in English where a language has to be named."""
        return (self.start + self.row.asked,)

    @property
    def parts(self) -> tuple[str, ...]:
        return PARTS

    def part(self, name: str) -> Subject:
        if name not in ("", *PARTS):
            raise InterpError(f"{self.name} has no part {name!r} (its parts: {', '.join(PARTS)}).")
        name = name or PARTS[0]
        wanted = self.by_part[name]
        if type(self) is wanted:
            return self
        return wanted(
            self.name, self.weights_hash, self.hf, getattr(self.row, name), self.lock, self.extractor,
            tokenizer=self.tokenizer, row=self.row, files=self.files,
        )  # fmt: skip

    # ---- the stem ----------------------------------------------------------------------------------------------------

    @property
    def tower(self) -> nn.Module:
        return tower_of(self.body, self.arch)

    @property
    def encoder(self) -> nn.Module:
        return tower_of(self.body, self.row.encoder)

    @property
    def decoder(self) -> nn.Module:
        return tower_of(self.body, self.row.decoder)

    @property
    def hears(self) -> EncoderArch:
        return self.row.encoder

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        if not prompt:  # what a probe is fitted to: the encoder alone is run
            return super().model_inputs(samples, prompt)
        ids = torch.tensor([self.ids_of(prompt)])
        return {**super().model_inputs(samples, prompt), "decoder_input_ids": ids.to(self.device)}

    def ids_of(self, prompt: str) -> list[int]:
        """The tokens of a prompt; one that begins it and is no special one stands for itself, whatever would become of
        it as a text."""
        start = self.start
        literal = prompt.startswith(start) and start not in self.tokenizer.get_added_vocab()
        rest = self.tokenizer(prompt[len(start) * literal :], add_special_tokens=False).input_ids
        return [self.tokenizer.convert_tokens_to_ids(start)] * literal + rest

    def check_prompt(self, prompt: str) -> None:
        start = self.tokenizer.convert_tokens_to_ids(self.start)
        if self.ids_of(prompt)[:1] != [start] or prompt.count(self.start) > 1:
            raise InterpError(
                f"the prompt {prompt[:60]!r} has to start with {self.start}, once; the default is "
                f"{self.default_prompts[0]}."
            )
        known = self.tokenizer.get_vocab()
        if unknown := [one for one in re.findall(self.row.named, prompt) if one not in known]:
            others = sorted(one for one in known if re.fullmatch(self.row.named, one))
            raise InterpError(
                f"the prompt {prompt[:200]!r} names {few(unknown)}, which the tokenizer of {self.name} has not; it has "
                f"{few(others, 12)}."
            )

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.encoder(**inputs).last_hidden_state.mean(1)

    @property
    def takes_probe(self) -> bool:
        return True

    def with_probe(self, probe: Probe) -> Subject:
        """The encoder alone, read by the probe; the decoder is left out."""
        self.check_takes_probe()
        return self.probed(self.name, self.weights_hash, self.hf, self.row.encoder, self.lock, self.extractor, probe)

    # ---- the readout -------------------------------------------------------------------------------------------------

    @property
    def answers(self) -> tuple[str, ...]:
        return ()

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        """Find the token that each label starts with, behind the prompt."""
        self.check_prompt(prompt)
        return first_tokens(
            self.tokenizer,
            labels,
            prompt,
            lambda label: self.written(label, prompt),
            several_tokens=several_tokens,
        )

    def written(self, label: str, prompt: str) -> str:
        """How a label stands behind the prompt: so that its tokens are those of a text that begins with it."""

        def ids(text: str) -> list[int]:
            return self.tokenizer(text, add_special_tokens=False).input_ids

        own, n_before = ids(label), len(ids(prompt))
        return next((text for text in (label, f" {label}") if ids(prompt + text)[n_before:] == own), label)

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
        prompts = prompts.repeat(len(state) // len(batch), 1)
        heard = {"encoder_hidden_states": state, **self.beside(batch, state)}
        out = self.decoder(**{self.row.ids: prompts}, **heard, use_cache=False)
        return self.head(out.last_hidden_state[:, -1])

    def beside(self, batch: Sequence[Prompted], state: Tensor) -> dict[str, Tensor]:
        """What the decoder is told about the encoder's output [rows, pos, d_model] of a batch or its repetitions."""
        return {}

    @property
    def head(self) -> nn.Module:
        return self.hf.get_submodule(self.row.head)

    @property
    def readout_names(self) -> tuple[str, ...]:
        """Of the encoder all that is not in it, and what it has behind its blocks; of the decoder its norm, and the
        head."""
        head, own = f"{name_in(self.hf, self.head)}.", f"{name_in(self.hf, self.tower)}."
        if self.tower is self.decoder:
            others: tuple[str, ...] = (head,)
        else:
            others = tuple(name for name in self.hf.state_dict() if not name.startswith(own))
        ends = [*([] if self.norm is None else [self.norm]), *self.behind]
        return (*others, *(f"{name_in(self.hf, module)}." for module in ends))

    # ---- the text that it writes -------------------------------------------------------------------------------------

    @property
    def most_tokens(self) -> int:
        """Positions that the decoder has, prompt included."""
        return getattr(self.sizes_of(self.row.decoder), self.row.most)

    transcribes: ClassVar[bool] = True
    writes_in_blocks: ClassVar[bool] = False
    """Whether the blocks run for every token that is written: the decoder's."""

    def words_refusal(self) -> str | None:
        return None

    def writer(self, batch: Sequence[Prompted]) -> Writer:
        return ListenerWriter(self, batch)

    def early_exit_refusal(self) -> str | None:
        return None

    def writer_from(self, hidden: Tensor, batch: Sequence[Prompted]) -> Writer:
        return ListenerWriter(self, batch, BaseModelOutput(self.read_off(hidden, batch)))

    def text_of(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def encoded(self, batch: Sequence[Prompted]) -> ModelOutput:
        """The encoder's own output: what the decoder hears of each row."""
        names = [name for name in batch[0].inputs if name != "decoder_input_ids"]
        return self.encoder(**{name: torch.cat([p.inputs[name] for p in batch]) for name in names})


class ListenerDecoder(Listener):
    """The decoder's blocks: positions are the prompt's tokens, and the encoder is part of the stem."""

    @property
    def by_construction(self) -> bool:
        return False

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

    def read_off(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return self.normed(hidden)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return self.head(state[:, -1])

    def encoded(self, batch: Sequence[Prompted]) -> ModelOutput:
        once = {id(p): p for p in batch}  # no edit of the decoder changes what it hears
        heard, at = super().encoded(list(once.values())), {one: i for i, one in enumerate(once)}
        heard.last_hidden_state = heard.last_hidden_state[[at[id(p)] for p in batch]]
        return heard


class ListenerWriter:
    """See `Writer`; the text goes on behind the prompt's tokens.

    Args:
        heard: what the decoder hears of each row; None for what the encoder makes of the batch.
    """

    def __init__(self, subject: Listener, batch: Sequence[Prompted], heard: ModelOutput | None = None) -> None:
        self._subject, self._batch = subject, batch
        self._ids = torch.cat([p.inputs["decoder_input_ids"] for p in batch])
        self._heard = heard
        self._state: Tensor | None = None
        self._beside: dict[str, Tensor] = {}
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.each_step = subject.writes_in_blocks
        self.most = subject.most_tokens - self._ids.shape[1]

    @property
    def hf(self) -> Any:
        return self._subject.hf

    @property
    def asked(self) -> dict[str, Any]:
        heard = self._subject.encoded(self._batch) if self._heard is None else self._heard
        self._state = heard.last_hidden_state
        self._beside = self._subject.beside(self._batch, self._state)
        return {"encoder_outputs": heard, "decoder_input_ids": self._ids}

    def first(self) -> Tensor:
        return self._run(self._ids)

    def step(self, tokens: Tensor) -> Tensor:
        return self._run(tokens[:, None])

    def _run(self, ids: Tensor) -> Tensor:
        out = self._subject.decoder(
            **{self._subject.row.ids: ids},
            encoder_hidden_states=self._state,
            **self._beside,
            past_key_values=self._cache,
            use_cache=True,
        )
        return self._subject.head(out.last_hidden_state[:, -1]).float()
