"""Kimi-Audio's tokenizer from its `tiktoken.model`, without the package tiktoken and without code of the folder.

The file holds byte strings in base64 with their ranks, which are their ids; 421 special tokens follow, whose names only
the folder's own code says. What a user writes is text through and through: names of special tokens in it mean nothing.

Source: the checkpoint's tokenization_kimia.py in public copies of two projects (pattern, names and order of the special
tokens, whole text without special tokens), and the ids that github.com/MoonshotAI/Kimi-Audio's config asks for.
"""

import base64
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from interp_core.errors import InterpError

FILE = "tiktoken.model"
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_N_SPECIAL = 421
MSG_END, MEDIA_BEGIN, MEDIA_END = "<|im_msg_end|>", "<|im_media_begin|>", "<|im_media_end|>"
BLANK, TEXT_END = "<|im_kimia_text_blank|>", "<|im_kimia_text_eos|>"
USER, ASSISTANT = "<|im_kimia_user_msg_start|>", "<|im_kimia_assistant_msg_start|>"
TO_TEXT = "<|im_kimia_speech_ct_id|>"
"""Behind a clip that is to be answered in text alone."""
_NAMED = {
    **{0: "[BOS]", 1: "[EOS]", 2: MSG_END, 3: "<|im_user_msg_start|>", 4: "<|im_assistant_msg_start|>", 9: "[EOT]"},
    **{18: MEDIA_BEGIN, 20: MEDIA_END, 23: BLANK, 24: TEXT_END, 27: USER, 28: ASSISTANT},
    **{32: TO_TEXT, 33: "<|im_kimia_speech_ctd_id|>"},
}
"""By the place among the special tokens; all others are reserved and numbered as they come."""


class _Converter(TikTokenConverter):
    """The library's way from ranks to merges, with the file read here."""

    @staticmethod
    def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
        return read_ranks(Path(tiktoken_url))


def special_tokens() -> list[str]:
    """The special tokens in the order of their ids, of which the first follows the last byte string."""
    numbers = iter(range(_N_SPECIAL))
    return [_NAMED.get(place) or f"<|reserved_token_{next(numbers)}|>" for place in range(_N_SPECIAL)]


def kimi_tokenizer(folder: Path) -> Any:
    """Make the tokenizer of a folder.

    Raises:
        InterpError: the file is missing or is none of tiktoken's.
    """
    path = folder / FILE
    if not path.is_file():
        raise InterpError(f"{folder} lacks {FILE}; copy it from the original model.")
    words = _Converter(str(path), pattern=_PATTERN, extra_special_tokens=special_tokens()).converted()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="[BOS]", eos_token=TEXT_END, pad_token=BLANK, padding_side="left",
        split_special_tokens=True, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    return made


def read_ranks(path: Path) -> dict[bytes, int]:
    """Byte strings and their ranks, 0 onwards; InterpError where the file is broken or lacks a byte."""
    try:
        pairs = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (OSError, ValueError) as error:
        raise InterpError(
            f"{path.name} in {path.parent} is no file of tiktoken's (byte strings and ranks); fetch it again."
        ) from error
    if sorted(ranks.values()) != list(range(len(pairs))) or not {bytes([one]) for one in range(256)} <= ranks.keys():
        raise InterpError(
            f"{path.name} in {path.parent} is no whole vocabulary: its ranks have gaps, or a byte has none; fetch it "
            "again."
        )
    return ranks
