"""Voxtral's prompt and features from its `tekken.json`, without the package mistral-common.

On the hub a Voxtral folder holds no chat template: the library leaves the prompt to mistral-common. The prompt of one
clip and one question is short enough to be written here: `<s>[INST][BEGIN_AUDIO][AUDIO]...question[/INST]`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, WhisperFeatureExtractor
from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer
from transformers.utils import cached_file

from interp_core.errors import InterpError

AUDIO = "[AUDIO]"


class VoxtralReader:
    """Stands where other models have the library's processor.

    The audio is filled up with silence to whole windows of the extractor (30 s), and all of it takes positions, the
    silence too.
    """

    audio_token = AUDIO

    def __init__(
        self, tokenizer: Any, feature_extractor: WhisperFeatureExtractor, frames_per_position: int = 8
    ) -> None:
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.frames_per_position = frames_per_position

    @classmethod
    def from_pretrained(cls, source: str) -> "VoxtralReader":
        """Read a folder or a hub id; InterpError when its tokenizer cannot be made."""
        tekken = cached_file(source, "tekken.json", _raise_exceptions_for_missing_entries=False)
        try:
            if tekken is None:
                tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            else:
                tokenizer = convert_tekken_tokenizer(tekken, chat_template="")
        except ImportError as error:
            raise InterpError(
                f"the tekken.json of {source} lists no special tokens, as files of 2024 do; "
                "install the package mistral-common, which knows them, or fetch a newer file."
            ) from error
        missing = [t for t in ("<s>", "[INST]", "[BEGIN_AUDIO]", AUDIO, "[/INST]") if t not in tokenizer.get_vocab()]
        if missing:
            raise InterpError(f"the tokenizer of {source} lacks {', '.join(missing)}, so it is none of Voxtral's.")
        return cls(tokenizer, WhisperFeatureExtractor.from_pretrained(source))

    def apply_chat_template(self, turns: Sequence[dict[str, Any]], **_: Any) -> str:
        """Render one user turn of audio and text."""
        parts = [part for turn in turns for part in turn["content"]]
        inside = "".join("[BEGIN_AUDIO]" + AUDIO if part["type"] == "audio" else part["text"] for part in parts)
        return f"<s>[INST]{inside}[/INST]"

    def __call__(
        self, *, text: str, audio: Sequence[np.ndarray], sampling_rate: int, return_tensors: str = "pt"
    ) -> dict[str, Tensor]:
        """Return ids with the marker expanded, and log-mel windows.

        Returns:
            input_ids and attention_mask [1, pos]; input_features [windows, mel bands, frames of a window].
        """
        extractor = self.feature_extractor
        (samples,) = audio
        heard = extractor(
            samples,
            sampling_rate=sampling_rate,
            truncation=False,
            padding=True,
            pad_to_multiple_of=extractor.n_samples,
            return_tensors="pt",
        )["input_features"]
        windows = heard.reshape(extractor.feature_size, -1, extractor.nb_max_frames).transpose(0, 1)
        positions = len(windows) * extractor.nb_max_frames // self.frames_per_position
        ids = self.tokenizer(text.replace(AUDIO, AUDIO * positions), add_special_tokens=False).input_ids
        whole = torch.tensor([ids])
        return {"input_ids": whole, "attention_mask": torch.ones_like(whole), "input_features": windows.contiguous()}
