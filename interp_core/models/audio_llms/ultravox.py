"""Ultravox: finding the parts of a checkpoint, checking and loading them, and its prompt.

A published folder holds config.json, the tokenizer and the weights that were trained: the projector, and with some
versions the audio tower. The other tower or towers are those of the models that its config names, which have to be on
this machine (bases.py); what the checkpoint holds goes before what they hold. The network is in ultravox_net.py.

Source: github.com/fixie-ai/ultravox (commit 648efe7): ultravox/model/ultravox_processing.py (windows, lengths, places),
ultravox_pipeline.py (the clip behind the question), ultravox_model.py (which weights a checkpoint holds).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, WhisperFeatureExtractor

from interp_core.errors import InterpError
from interp_core.models.arch import ARCHS
from interp_core.models.audio_llms.own_weights import Stored, load, stored_in
from interp_core.models.audio_llms.processors import with_fixed_date
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.audio_llms.ultravox_net import NOT_READ, SWIGLU, UltravoxConfig, UltravoxModel
from interp_core.models.bases import bases_of, shown
from interp_core.models.fit import check_counts, check_extractor
from interp_core.models.prompted import Prompted, Stem
from interp_core.models.source import first_line

AUDIO = "<|audio|>"
ENCODER_STRIDE = 2
"""Mel frames of one frame of Whisper's encoder."""
DECODERS = ("llama", "mistral", "qwen2", "qwen3")
"""Text models whose modules lie where the row in arch.py says."""
EXTRACTOR, GENERATION = "preprocessor_config.json", "generation_config.json"


class UltravoxProcessor:
    """Turns a prompt and a clip into what `UltravoxModel.forward` takes.

    The marker `<|audio|>` need be no token: the text is split at it, and the token that ends a text stands at every
    place of the audio, as in the original.
    """

    audio_token = AUDIO

    def __init__(self, tokenizer: Any, feature_extractor: Any, *, stack_factor: int, window: int) -> None:
        """
        Args:
            stack_factor: encoder frames of one position.
            window: mel frames that the encoder takes at a time.
        """
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.frames_per_position = ENCODER_STRIDE * stack_factor
        self.window = window

    def chat_text(self, prompt: str) -> str:
        """Render the prompt with the clip behind it, as far as the place where the answer starts."""
        turn = {"role": "user", "content": f"{prompt} {AUDIO}"}
        return self.tokenizer.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

    def __call__(
        self, *, text: str, audio: Sequence[np.ndarray], sampling_rate: int, return_tensors: str = "pt"
    ) -> dict[str, Tensor]:
        """Return one row of ids, and the log-mel frames of its clip in windows.

        Returns:
            input_ids and attention_mask [1, pos]; audio_values [windows, mel bands, frames] float32, a last window that
            follows others filled up with zeros; audio_lens, audio_token_start_idx and audio_token_len [windows], and
            audio_batch_size [1] as `UltravoxModel.forward` takes them.
        """
        (samples,) = audio
        if text.count(AUDIO) != 1:
            raise InterpError(f"the text has {text.count(AUDIO)} markers {AUDIO}; one clip takes one.")
        before, behind = (self.tokenizer(piece, add_special_tokens=False).input_ids for piece in text.split(AUDIO))
        frames = self._frames(samples, sampling_rate)
        windows = list(frames.split(self.window, dim=-1))
        heard = torch.tensor([window.shape[-1] for window in windows])
        if len(windows) > 1:
            windows[-1] = torch.nn.functional.pad(windows[-1], (0, self.window - windows[-1].shape[-1]))
        lengths = -(-heard // self.frames_per_position)
        ids = torch.tensor([[*before, *[self.tokenizer.eos_token_id] * int(lengths.sum()), *behind]])
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "audio_values": torch.stack(windows),
            "audio_lens": heard,
            "audio_token_start_idx": len(before) + lengths.cumsum(0) - lengths,
            "audio_token_len": lengths,
            "audio_batch_size": torch.tensor([len(windows)]),
        }

    def _frames(self, samples: np.ndarray, sampling_rate: int) -> Tensor:
        """Log-mel frames [mel bands, n], one for every begun hop of the clip and two at the least."""
        hop = self.feature_extractor.hop_length
        n_frames = max(2, -(-len(samples) // hop))
        padded = np.pad(np.asarray(samples, np.float32), (0, n_frames * hop - len(samples)))
        made = self.feature_extractor(
            padded, sampling_rate=sampling_rate, padding="longest", truncation=False, return_tensors="pt"
        )
        return made["input_features"][0]


@dataclass(eq=False)
class Ultravox(AudioLLM):
    """Ultravox as a subject: the places of the audio are told by the processor, whatever ids stand there."""

    def chat_text(self, prompt: str) -> str:
        return self.processor.chat_text(prompt)

    def prompted(self, stem: Stem) -> Prompted:
        starts, lengths = (stem.inputs[f"audio_token_{part}"] for part in ("start_idx", "len"))
        start, stop = int(starts[0]), int(starts[-1] + lengths[-1])
        ids = stem.inputs["input_ids"][0].clone()
        ids[start:stop] = self.audio_token_id
        embeds = stem.kwargs["inputs_embeds"][0]
        return Prompted(stem.key, stem.clip_id, stem.inputs, embeds, ids, (start, stop), self.seconds_per_position())

    @property
    def writes_with(self) -> Any:
        return self.hf.language_model

    def describe(self, prompted: Prompted) -> dict[str, Any]:
        return {**super().describe(prompted), "tokens_in_span": [AUDIO]}


def load_ultravox(
    name: str, folder: str | Path, *, dtype: torch.dtype, device_map: Any = None, quantization_config: Any = None
) -> tuple[UltravoxModel, UltravoxProcessor]:
    """Open an Ultravox folder: everything is checked by name and shape before the first weight is read.

    Args:
        name: the model as it was typed, which decides where the models that it names are looked for.
        folder: in the original's layout.
        dtype: of the weights in memory.
        device_map, quantization_config: as of the library's `from_pretrained`; None leaves the weights whole and on
            the CPU.
    Raises:
        InterpError: a part, file or token that is missing, broken or not Ultravox's, by its name.
    """
    folder = Path(folder)
    bases = bases_of(name, folder)
    config = _config(folder, bases)
    check_counts(str(folder), config.to_dict())
    processor = _processor(folder, config, bases.get("audio_model_id"))
    stored = _stored(folder, config, bases)
    hf = load(
        UltravoxModel, folder, config, stored, "Ultravox", NOT_READ, dtype=dtype, device_map=device_map,
        quantization_config=quantization_config,
    )  # fmt: skip
    for place in filter(None, (bases.get("text_model_id"), folder)):
        if (place / GENERATION).is_file():  # as the decoder has it when it is opened alone
            hf.language_model.generation_config = _generation(place)
            break
    hf.generation_config = hf.language_model.generation_config
    return hf.eval(), processor


def _generation(place: Path) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(place)
    except (OSError, ValueError, TypeError) as error:
        raise InterpError(f"{GENERATION} of {place} is broken ({first_line(error)}); fetch it again.") from error


def _config(folder: Path, bases: dict[str, Path]) -> UltravoxConfig:
    raw, _ = PreTrainedConfig.get_config_dict(str(folder))
    for entry, part in (("text_model_id", "text_config"), ("audio_model_id", "audio_config")):
        if entry in bases:
            raw[part] = json.loads((bases[entry] / "config.json").read_text("utf-8"))
        elif raw.get(part) is None:
            raise InterpError(_not_here(folder, entry, raw.get(entry)))
    text, audio = (raw[part].get("model_type") for part in ("text_config", "audio_config"))
    if text not in DECODERS or audio != "whisper":
        raise InterpError(
            f"{folder} is made of {audio!r} and {text!r}; Patchbay runs Ultravox with 'whisper' and one of "
            f"{', '.join(map(repr, DECODERS))} only."
        )
    for entry in ("text_model_lora_config", "audio_model_lora_config"):
        if (raw.get(entry) or {}).get("r"):
            raise InterpError(
                f"config.json of {folder} has a {entry}: the adapter weights are kept apart. Merge them with the "
                "original's merge_and_unload() and save the model again."
            )
    if raw.get("projector_act", SWIGLU) != SWIGLU and raw["projector_act"] not in ("gelu", "relu", "silu"):
        raise InterpError(
            f"config.json of {folder} says projector_act={raw['projector_act']!r}; Patchbay knows {SWIGLU}, gelu, relu "
            "and silu."
        )
    return UltravoxConfig.from_dict({**raw, "model_type": UltravoxConfig.model_type})


def _not_here(folder: Path, entry: str, said: Any) -> str:
    part = {"text_model_id": "text model", "audio_model_id": "audio tower"}[entry]
    if not isinstance(said, str) or not said.strip():
        return f"{folder} holds no {part} of its own and its config.json names none ({entry}); fetch it again."
    return (
        f"{folder} holds what Ultravox adds to other models, and its {part} {shown(said)} is neither a folder here nor "
        f"in the hub's cache; fetch it, or put its folder into {folder} as {Path(said).name}."
    )


def _stored(folder: Path, config: UltravoxConfig, bases: dict[str, Path]) -> dict[str, Stored]:
    own = stored_in(folder)
    found: dict[str, Stored] = {}
    for entry, part, renamed in (
        ("text_model_id", "language_model.", lambda name: f"language_model.{name}"),
        ("audio_model_id", "audio_tower.", _of_the_encoder),
    ):
        if entry in bases:
            found |= stored_in(bases[entry], renamed)
        elif not any(name.startswith(part) for name in own):
            raise InterpError(_not_here(folder, entry, getattr(config, entry)))
    return found | own


def _of_the_encoder(name: str) -> str | None:
    bare = name.removeprefix("model.")
    return f"audio_tower.{bare.removeprefix('encoder.')}" if bare.startswith("encoder.") else None


def _processor(folder: Path, config: UltravoxConfig, base: Path | None) -> UltravoxProcessor:
    told = next((place for place in (folder, base) if place is not None and (place / EXTRACTOR).is_file()), None)
    # Of Whisper's own extractors nothing but the number of mel bands differs.
    bands = config.audio_config.num_mel_bins
    extractor = (
        WhisperFeatureExtractor(feature_size=bands) if told is None else WhisperFeatureExtractor.from_pretrained(told)
    )
    check_extractor(str(folder), config, extractor, ARCHS[config.model_type])
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise InterpError(f"the tokenizer of {folder} cannot be read: {first_line(error)}") from error
    if not tokenizer.chat_template or tokenizer.eos_token_id is None:
        raise InterpError(
            f"the tokenizer of {folder} has no chat template or no token that ends a text; copy tokenizer_config.json "
            "(and chat_template.jinja, if there is one) of the original model into it."
        )
    tokenizer.padding_side = "left"
    tokenizer.chat_template = with_fixed_date(tokenizer.chat_template)
    known = AUDIO in tokenizer.get_vocab()
    config.audio_token_index = tokenizer.convert_tokens_to_ids(AUDIO) if known else tokenizer.eos_token_id
    window = ENCODER_STRIDE * config.audio_config.max_source_positions
    return UltravoxProcessor(tokenizer, extractor, stack_factor=config.stack_factor, window=window)
