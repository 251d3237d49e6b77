"""OpenS2S: checking and loading its folder, and its prompt.

A folder holds config.json, the tokenizer and the weights at its root, the Whisper feature extractor in `audio/`, and in
`tts/` what its speech output needs, which is not read here. The network is in opens2s_net.py.

Source: github.com/CASIA-LM/OpenS2S, read in public copies: model_worker.py (prompt, split at the marker),
src/feature_extraction_audio.py (padding to whole 30 s windows); paper: arXiv:2507.05177.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, WhisperFeatureExtractor

from interp_core.errors import InterpError
from interp_core.models.arch import ARCHS
from interp_core.models.audio_llms.opens2s_net import AUDIO_TOKEN_ID, NOT_READ, OpenS2SConfig, OpenS2SModel
from interp_core.models.audio_llms.own_weights import load, stored_in
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.fit import check_counts, check_extractor, check_tokens
from interp_core.models.prompted import Prompted, Stem
from interp_core.models.source import first_line

SYSTEM = "You are a helpful assistant."
AUDIO_START, AUDIO, AUDIO_END, TTS_START = "<|im_audio_start|>", "<|im_audio|>", "<|im_audio_end|>", "<|im_tts_start|>"
GENERATION = "generation_config.json"


class OpenS2SProcessor:
    """Turns a prompt and clips into what `OpenS2SModel.forward` takes.

    The marker `<|im_audio|>` is no token: the text is split at it and -200 stands in its place.
    """

    audio_token = AUDIO

    def __init__(self, tokenizer: Any, feature_extractor: Any) -> None:
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor

    def chat_text(self, prompt: str) -> str:
        """Render the prompt behind one clip, as far as the place where the first word of the answer starts."""
        turns = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": AUDIO_START + AUDIO + AUDIO_END + prompt},
        ]
        text = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False, enable_thinking=False
        )
        # The model was trained to write behind this token, whether or not it is to speak as well.
        return text + TTS_START

    def token_ids(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, piece in enumerate(text.split(AUDIO)):
            ids += [AUDIO_TOKEN_ID] if i else []
            ids += self.tokenizer(piece, add_special_tokens=False).input_ids
        return ids

    def __call__(
        self, *, text: str, audio: Sequence[np.ndarray], sampling_rate: int, return_tensors: str = "pt"
    ) -> dict[str, Tensor]:
        """Return one row of ids and the log-mel frames of its clips, padded to whole windows of 30 s.

        Returns:
            input_ids and attention_mask [1, pos]; speech_values [clips, mel bands, frames] float32 and speech_mask
            [clips, frames], 1 on the frames that hold sound.
        """
        if return_tensors != "pt":
            raise InterpError(f"return_tensors={return_tensors!r} is not supported; leave it at 'pt'.")
        window = self.feature_extractor.n_samples
        longest = max(1, max(len(samples) for samples in audio))
        heard = self.feature_extractor(
            [np.asarray(samples, np.float32) for samples in audio],
            sampling_rate=sampling_rate,
            padding="max_length",
            max_length=-(-longest // window) * window,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids = torch.tensor([self.token_ids(text)])
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "speech_values": heard["input_features"],
            "speech_mask": heard["attention_mask"].long(),
        }


@dataclass(eq=False)
class OpenS2S(AudioLLM):
    """OpenS2S as a subject: a marker that is no token, which the model expands inside."""

    def chat_text(self, prompt: str) -> str:
        return self.processor.chat_text(prompt)

    def prompted(self, stem: Stem) -> Prompted:
        if stem.kwargs["inputs_embeds"].shape[1] < stem.inputs["input_ids"].shape[1]:
            raise InterpError(
                f"clip {stem.clip_id!r} has no audio position: {stem.n_samples} samples at {self.sample_rate} Hz are "
                "too short, give 0.03 s or more."
            )
        return super().prompted(stem)

    @property
    def writes_with(self) -> Any:
        return self.hf.llm_model

    def asked_of(self, batch: Sequence[Prompted]) -> dict[str, Tensor]:
        """As in the original, the decoder is given embeddings, so that no rule about repetition sees the prompt."""
        embeds = torch.stack([p.embeds for p in batch])
        return {"inputs_embeds": embeds, "attention_mask": torch.ones(embeds.shape[:2], dtype=torch.long)}

    def describe(self, prompted: Prompted) -> dict[str, Any]:
        # The marker is no token, so the tokenizer cannot name it: another id stands in while the rest is named.
        start, stop = prompted.audio
        ids = prompted.token_ids.clone()
        ids[start:stop] = self.tokenizer.convert_tokens_to_ids(AUDIO_START)
        return {**super().describe(replace(prompted, token_ids=ids)), "tokens_in_span": [AUDIO]}


def load_opens2s(
    folder: str | Path,
    *,
    dtype: torch.dtype | str = "auto",
    device_map: Any = None,
    quantization_config: Any = None,
) -> tuple[OpenS2SModel, OpenS2SProcessor]:
    """Open an OpenS2S folder: everything is checked by name and shape before the first weight is read.

    Args:
        folder: in the original's layout.
        dtype: of the weights in memory, or "auto" for the one that they are stored in. They are never held in
            another one on the way.
        device_map, quantization_config: as of the library's `from_pretrained`; None leaves the weights whole and on
            the CPU.
    Raises:
        InterpError: a part, file or token that is missing, broken or not OpenS2S's, by its name.
    """
    folder = Path(folder)
    config = _config(folder)
    check_counts(str(folder), config.to_dict())
    processor = _processor(folder, config)
    stored = stored_in(folder)
    hf = load(
        OpenS2SModel, folder, config, stored, "OpenS2S", NOT_READ, dtype=dtype, device_map=device_map,
        quantization_config=quantization_config,
    )  # fmt: skip
    if (folder / GENERATION).is_file():  # the library reads it for models that generate by themselves alone
        try:
            hf.llm_model.generation_config = GenerationConfig.from_pretrained(folder)
        except (OSError, ValueError, TypeError) as error:
            raise InterpError(f"{GENERATION} of {folder} is broken ({first_line(error)}); fetch it again.") from error
    return hf.eval(), processor


def _config(folder: Path) -> OpenS2SConfig:
    raw, _ = PreTrainedConfig.get_config_dict(str(folder))
    for part, known in (("audio_encoder_config", "qwen2_audio_encoder"), ("llm_config", "qwen3")):
        found = (raw.get(part) or {}).get("model_type")
        if found != known:
            raise InterpError(
                f"config.json of {folder} has {part}.model_type={found!r}; Patchbay runs OpenS2S with {known!r} only."
            )
    if raw.get("lora_config"):
        raise InterpError(
            f"config.json of {folder} has a lora_config: the adapter weights are kept apart. Merge them with the "
            "original's merge_lora() and save the model again."
        )
    return OpenS2SConfig.from_dict({**raw, "model_type": OpenS2SConfig.model_type})


def _processor(folder: Path, config: OpenS2SConfig) -> OpenS2SProcessor:
    if not (folder / "audio" / "preprocessor_config.json").is_file():
        raise InterpError(
            f"{folder} has no audio/preprocessor_config.json, the feature extractor of OpenS2S; copy the audio/ folder "
            "of the original model into it."
        )
    extractor = WhisperFeatureExtractor.from_pretrained(folder / "audio")
    check_extractor(str(folder / "audio"), config, extractor, ARCHS[config.model_type])
    made, taken = extractor.nb_max_frames, 2 * config.audio_encoder_config.max_source_positions
    if made != taken:
        raise InterpError(
            f"audio/ of {folder} makes {made} frames a window, but the encoder takes {taken}; copy the audio/ folder "
            "of the original model into it."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise InterpError(f"the tokenizer of {folder} cannot be read: {first_line(error)}") from error
    if not tokenizer.chat_template:
        raise InterpError(
            f"the tokenizer of {folder} has no chat template; copy tokenizer_config.json (and chat_template.jinja, "
            "if there is one) of the original model into it."
        )
    check_tokens(str(folder), tokenizer, config.llm_config.vocab_size)
    known = tokenizer.get_vocab()
    if absent := [token for token in (AUDIO_START, AUDIO_END, TTS_START) if token not in known]:
        raise InterpError(
            f"the tokenizer of {folder} lacks {', '.join(absent)}; it is another model's, so copy the tokenizer files "
            "of the original model into it."
        )
    return OpenS2SProcessor(tokenizer, extractor)
