"""Kimi-Audio: finding the parts of a checkpoint, checking and loading them, and its prompt.

A published folder holds config.json, tiktoken.model, the weights, and in `whisper-large-v3/` the encoder that it hears
with. Its codes of sound come from a second model, GLM-4-Voice's tokenizer, which the published code fetches by itself;
here it has to be on this machine (bases.py). What speech output takes (`audio_detokenizer/`, `vocoder/`) is not read.
The network is in kimi_net.py, the tokenizer of its text in kimi_words.py.

Source: github.com/MoonshotAI/Kimi-Audio (commit 2607d51): kimia_infer/api/prompt_manager.py (order of the prompt, the
two streams), models/tokenizer/whisper_Lv3/whisper.py and glm4_tokenizer.py (30 s pieces, mel settings).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, WhisperFeatureExtractor

from interp_core.errors import InterpError
from interp_core.models.arch import ARCHS
from interp_core.models.audio_llms import glm_tokenizer
from interp_core.models.audio_llms.kimi_net import (
    AUDIO_TOKEN_ID,
    FRAMES_STACKED,
    NOT_READ,
    KimiAudioConfig,
    KimiAudioModel,
)
from interp_core.models.audio_llms.kimi_words import (
    ASSISTANT,
    BLANK,
    FILE,
    MEDIA_BEGIN,
    MEDIA_END,
    MSG_END,
    TEXT_END,
    TO_TEXT,
    USER,
    kimi_tokenizer,
)
from interp_core.models.audio_llms.own_weights import Stored, load, stored_in
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.bases import bases_of, named_bases, shown
from interp_core.models.fit import check_counts, check_extractor, check_settings, check_tokens
from interp_core.models.labels import LabelTokens, first_tokens
from interp_core.models.prompted import Prompted, Stem

AUDIO = "<|AUDIO|>"
"""Stands in the prompt as text where the clip goes; no token."""
PER_CODE = 1280
"""Samples of one code and of one position: 12.5 a second at 16 kHz."""
PIECE = 30 * 16_000
"""Samples that either encoder hears at a time; what follows is heard anew."""
_FRAMES = PIECE // 320
"""Frames of 20 ms that they make of it."""
_HEAD, _TAIL = USER, MEDIA_BEGIN + AUDIO + MEDIA_END + TO_TEXT + MSG_END + ASSISTANT
WHISPER, TOKENIZER = "whisper", "audio_tokenizer"
"""The parts in folders of their own, by their names in bases.py and in the network."""
_TOKENIZER_NEEDS = ("quantize_vocab_size", "quantize_position", "pooling_kernel_size", "pooling_position")
_TOKENIZER_HAS: dict[str, Any] = {
    **{"pooling_type": "max", "quantize_causal_block_size": None, "encoder_causal_convolution": False},
    **{"encoder_causal_attention": False, "quantize_causal_encoder": False},
}
"""What its config stands for where it says nothing."""


class KimiProcessor:
    """Turns a prompt and a clip into what `KimiAudioModel.forward` takes: the question first, the clip behind it."""

    audio_token = AUDIO

    def __init__(self, tokenizer: Any, feature_extractor: Any, code_extractor: Any) -> None:
        """
        Args:
            feature_extractor: of Whisper. code_extractor: of GLM-4-Voice's tokenizer.
        """
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.code_extractor = code_extractor

    def chat_text(self, prompt: str) -> str:
        """Write the prompt as one text, as far as the place where the answer starts."""
        return f"{_HEAD}{prompt}{_TAIL}"

    def streams(self, text: str, n_codes: int) -> tuple[list[int], list[int]]:
        """The streams of sound and of text of a prompt [pos], with a place for each code."""
        question = text.removeprefix(_HEAD).removesuffix(_TAIL)
        if self.chat_text(question) != text:
            raise InterpError(f"the text {text[:80]!r} is no prompt of Kimi-Audio with one clip behind one question.")
        ids = self.tokenizer.convert_tokens_to_ids
        asked = self.tokenizer(question, add_special_tokens=False).input_ids
        before = [ids(USER), *[ids(BLANK)] * len(asked), ids(MEDIA_BEGIN)]
        behind = [ids(token) for token in (MEDIA_END, TO_TEXT, MSG_END, ASSISTANT)]
        sound = [*before, *[AUDIO_TOKEN_ID] * n_codes, *behind]
        words = [ids(BLANK), *asked]
        return sound, words + [ids(BLANK)] * (len(sound) - len(words))

    def __call__(
        self, *, text: str, audio: Sequence[np.ndarray], sampling_rate: int, return_tensors: str = "pt"
    ) -> dict[str, Tensor]:
        """Return the two streams and the log-mel frames of the clip, in pieces of 30 s.

        Returns:
            input_ids, text_input_ids and attention_mask [1, pos]; whisper_features [pieces, mel bands, 3000],
            code_features [pieces, mel bands, frames] float32 and code_mask [pieces, frames] as
            `KimiAudioModel.embedded` takes them.
        """
        (samples,) = audio
        heard = np.asarray(samples, np.float32)
        pieces = [heard[start : start + PIECE] for start in range(0, len(heard), PIECE)]
        sound, words = self.streams(text, sum(-(-len(piece) // PER_CODE) for piece in pieces))
        bands = self.feature_extractor.feature_size, self.code_extractor.feature_size
        made = {
            "whisper_features": torch.zeros(0, bands[0], 2 * _FRAMES),
            "code_features": torch.zeros(0, bands[1], PER_CODE // 160),
            "code_mask": torch.zeros(0, PER_CODE // 160, dtype=torch.long),
        }
        if pieces:
            how = {"sampling_rate": sampling_rate, "return_tensors": "pt", "truncation": False}
            made["whisper_features"] = self.feature_extractor(pieces, padding="max_length", **how)["input_features"]
            codes = self.code_extractor(
                pieces, padding="longest", pad_to_multiple_of=PER_CODE, return_attention_mask=True, **how
            )
            made |= {"code_features": codes["input_features"], "code_mask": codes["attention_mask"].long()}
        streams = {"input_ids": torch.tensor([sound]), "text_input_ids": torch.tensor([words])}
        return {**streams, "attention_mask": torch.ones_like(streams["input_ids"]), **made}


@dataclass(eq=False)
class KimiAudio(AudioLLM):
    """Kimi-Audio as a subject: two streams that are summed at every position, of which the blocks see one."""

    def chat_text(self, prompt: str) -> str:
        return self.processor.chat_text(prompt)

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        made = self.processor(text=self.chat_text(prompt), audio=[samples], sampling_rate=self.sample_rate)
        made["whisper_features"] = made["whisper_features"].to(self.dtype)  # those of the codes stay in float32
        return {name: value.to(self.device) for name, value in made.items()}

    def prompted(self, stem: Stem) -> Prompted:
        sound, words = (stem.inputs[name][0] for name in ("input_ids", "text_input_ids"))
        at = (sound == AUDIO_TOKEN_ID).nonzero().flatten().tolist()
        if not at:
            raise InterpError(f"clip {stem.clip_id!r} has no audio position: it holds no sample, give a longer one.")
        ids = torch.where(words == self.config.kimia_text_blank, sound, words)
        embeds, span = stem.kwargs["inputs_embeds"][0], (at[0], at[-1] + 1)
        return Prompted(stem.key, stem.clip_id, stem.inputs, embeds, ids, span, self.seconds_per_position())

    def asked_of(self, batch: Sequence[Prompted]) -> dict[str, Tensor]:
        """As in the original, no rule about repetition sees the prompt."""
        embeds = torch.stack([p.embeds for p in batch])
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        return {"inputs_embeds": embeds, "attention_mask": mask}

    def text_of(self, tokens: Sequence[int]) -> str:
        return super().text_of([token for token in tokens if token < self.config.kimia_token_offset])

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        """Find the token that starts each label. The stream of text is blank up to the answer, which so begins a text
        of its own."""
        found = first_tokens(self.tokenizer, labels, "", several_tokens=several_tokens)
        return replace(found, report={"prompt": prompt, **found.report})

    def describe(self, prompted: Prompted) -> dict[str, Any]:
        # The place of a code is no token, so the tokenizer cannot name it: another id stands in while the rest is.
        start, stop = prompted.audio
        ids = prompted.token_ids.clone()
        ids[start:stop] = self.tokenizer.convert_tokens_to_ids(MEDIA_BEGIN)
        return {**super().describe(replace(prompted, token_ids=ids)), "tokens_in_span": [AUDIO]}


def load_kimi(
    name: str, folder: str | Path, *, dtype: torch.dtype, device_map: Any = None, quantization_config: Any = None
) -> tuple[KimiAudioModel, KimiProcessor]:
    """Open a Kimi-Audio folder: everything is checked by name and shape before the first weight is read.

    Args:
        name: the model as it was typed, which decides where GLM-4-Voice's tokenizer is looked for.
        folder: in the published layout.
        dtype: of the weights in memory; GLM-4-Voice's tokenizer stays in float32, as in the original.
        device_map, quantization_config: as of the library's `from_pretrained`; None leaves the weights whole and on
            the CPU.
    Raises:
        InterpError: a part, file or token that is missing, broken or not Kimi-Audio's, by its name.
    """
    folder = Path(folder)
    parts = _parts(name, folder)
    config = _config(folder, parts)
    check_counts(str(folder), config.to_dict())
    processor = _processor(folder, parts, config)
    stored = stored_in(folder) | _of_parts(parts, config)
    not_read = (*NOT_READ, rf"^{TOKENIZER}\.({glm_tokenizer.NOT_READ})")
    hf = load(
        KimiAudioModel, folder, config, stored, "Kimi-Audio", not_read, dtype=dtype, device_map=device_map,
        quantization_config=quantization_config,
    )  # fmt: skip
    end, blank = (processor.tokenizer.convert_tokens_to_ids(token) for token in (TEXT_END, BLANK))
    hf.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=blank)  # the original has its own loop
    return hf.eval(), processor


def _parts(name: str, folder: Path) -> dict[str, Path]:
    found = bases_of(name, folder)
    if WHISPER not in found:
        raise InterpError(
            f"{folder} lacks whisper-large-v3/config.json, of the encoder that Kimi-Audio hears with; copy that folder "
            "of the original model into it."
        )
    said, here = named_bases(folder).get(TOKENIZER), Path(name).expanduser().exists()
    if said is None:
        raise InterpError(
            f"config.json of {folder} says {TOKENIZER} and no text behind it, expected a folder or a hub id; take the "
            "entry out, which stands for THUDM/glm-4-voice-tokenizer."
        )
    if TOKENIZER not in found:
        raise InterpError(
            "Kimi-Audio takes the codes of a recording from a second model, GLM-4-Voice's tokenizer, and "
            f"{shown(said)} is neither a folder here nor in the hub's cache; fetch it"
            + (f", or put its folder into {folder} as {Path(said).name:.80}." if here else " (hf download).")
        )
    for part in found.values():
        check_settings(str(part), part)
    return found


def _config(folder: Path, parts: dict[str, Path]) -> KimiAudioConfig:
    raw, _ = PreTrainedConfig.get_config_dict(str(folder))
    of = {part: PreTrainedConfig.get_config_dict(str(place))[0] for part, place in parts.items()}
    if not raw.get("use_whisper_feature", True):
        raise InterpError(
            f"config.json of {folder} says use_whisper_feature=false, a model that hears codes alone, which is not "
            "known here; take the config of the original model."
        )
    whisper, tokenizer = of[WHISPER], {**_TOKENIZER_HAS, **of[TOKENIZER]}
    _check_tokenizer(parts[TOKENIZER], tokenizer)
    for place, about in ((parts[WHISPER], whisper), (parts[TOKENIZER], tokenizer)):
        if (kind := about.get("model_type")) != "whisper" or about.get("max_source_positions", 1500) != _FRAMES:
            raise InterpError(
                f"config.json of {place} is of a {kind!r} that hears {about.get('max_source_positions', 1500)} frames; "
                f"Kimi-Audio takes a 'whisper' of {_FRAMES}, which are 30 s."
            )
    config = KimiAudioConfig.from_dict(
        {
            **raw,
            "model_type": KimiAudioConfig.model_type,
            "use_sliding_window": False,  # the original attends to everything before, whatever its config says
            "whisper_config": whisper,
            "audio_tokenizer_config": tokenizer,
        }
    )
    if (taken := config.kimia_adaptor_input_dim) != (made := FRAMES_STACKED * config.whisper_config.d_model):
        raise InterpError(
            f"config.json of {folder} says kimia_adaptor_input_dim={taken}, but {FRAMES_STACKED} frames of the encoder "
            f"in whisper-large-v3/, which are one position of 80 ms, are {made} numbers; take both from one model."
        )
    codes = config.audio_tokenizer_config.quantize_vocab_size
    if config.kimia_token_offset + codes > config.vocab_size:
        raise InterpError(
            f"the {codes} codes of {parts[TOKENIZER]} do not fit {folder}, which knows {config.vocab_size} tokens and "
            f"begins those of codes at {config.kimia_token_offset}; it takes the tokenizer that it was trained with."
        )
    return config


def _check_tokenizer(place: Path, about: dict[str, Any]) -> None:
    """Refuse a config that is none of GLM-4-Voice's tokenizer, or of one that works in another way than those known."""
    absent = [key for key in _TOKENIZER_NEEDS if not isinstance(about.get(key), int) or about[key] < 1]
    if absent:
        raise InterpError(
            f"config.json of {place} says no {', '.join(absent)}, so it is none of GLM-4-Voice's tokenizer; fetch "
            "THUDM/glm-4-voice-tokenizer."
        )
    block, pool = about["quantize_causal_block_size"], about["pooling_kernel_size"]
    fits = {
        "quantize_causal_block_size": block is None or (isinstance(block, int) and block >= pool and block % pool == 0),
        "encoder_causal_convolution": isinstance(about["encoder_causal_convolution"], bool),
        "pooling_position": about["pooling_position"] <= about["quantize_position"],
        "pooling_type": about["pooling_type"] in ("avg", "max"),
        "encoder_causal_attention": not about["encoder_causal_attention"],
        "quantize_causal_encoder": not about["quantize_causal_encoder"],
    }
    if other := [f"{key}={about[key]}" for key, fine in fits.items() if not fine]:
        raise InterpError(
            f"config.json of {place} says {', '.join(other)}, which is not known of GLM-4-Voice's tokenizer; fetch "
            "THUDM/glm-4-voice-tokenizer."
        )


def _of_parts(parts: dict[str, Path], config: KimiAudioConfig) -> dict[str, Stored]:
    """The weights of the two encoders by their names in the network; Whisper's decoder is left out."""
    layers = config.audio_tokenizer_config.quantize_position

    def of_whisper(name: str) -> str | None:
        bare = name.removeprefix("model.")
        return f"{WHISPER}.{bare.removeprefix('encoder.')}" if bare.startswith("encoder.") else None

    def of_tokenizer(name: str) -> str | None:
        bare = name.removeprefix("model.encoder.")
        if bare == name:  # as it is published: what is read, and no more
            return None if name.startswith(("model.decoder.", "proj_out.")) else f"{TOKENIZER}.{name}"
        above = bare.startswith("layers.") and int(bare.split(".")[1]) >= layers
        return None if above or bare.startswith("layer_norm.") else f"{TOKENIZER}.{bare}"

    return stored_in(parts[WHISPER], of_whisper) | stored_in(parts[TOKENIZER], of_tokenizer)


def _processor(folder: Path, parts: dict[str, Path], config: KimiAudioConfig) -> KimiProcessor:
    row, place = ARCHS[config.model_type], parts[TOKENIZER]
    if not (place / "preprocessor_config.json").is_file():
        raise InterpError(f"{place} lacks preprocessor_config.json; fetch THUDM/glm-4-voice-tokenizer again.")
    codes = WhisperFeatureExtractor.from_pretrained(place)
    check_extractor(str(place), config.audio_tokenizer_config, codes, row)
    pool = config.audio_tokenizer_config.pooling_kernel_size
    if (made := codes.hop_length * glm_tokenizer.CONV_STRIDE * pool) != PER_CODE:
        raise InterpError(
            f"the tokenizer in {place} makes a code of every {made} samples, but Kimi-Audio takes one of every "
            f"{PER_CODE} (12.5 a second); fetch THUDM/glm-4-voice-tokenizer."
        )
    tokenizer = kimi_tokenizer(folder)
    check_tokens(str(folder), tokenizer, config.kimia_token_offset)
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in _IN_CONFIG.items()}
    if other := [f"{key}={told}" for key, at in ids.items() if (told := getattr(config, key, at)) != at]:
        raise InterpError(
            f"config.json of {folder} says {', '.join(other)}, but by {FILE} these are "
            f"{', '.join(str(at) for at in ids.values())}; take both from one model."
        )
    config.kimia_text_blank = tokenizer.convert_tokens_to_ids(BLANK)
    # The original reads no settings for Whisper: those of its first paper, with as many mel bands as the encoder takes.
    whisper = WhisperFeatureExtractor(feature_size=config.whisper_config.num_mel_bins)
    return KimiProcessor(tokenizer, whisper, codes)


_IN_CONFIG = {"kimia_media_begin": MEDIA_BEGIN, "kimia_media_end": MEDIA_END}
"""Entries of config.json that tell the id of a token."""
