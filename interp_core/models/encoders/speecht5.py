"""What is SpeechT5's own among models that hear and write: it writes letter by letter, a space first, and its tokenizer
is read without the package sentencepiece."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from interp_core.errors import InterpError
from interp_core.models.encoders.listener import Listener, ListenerDecoder
from interp_core.models.encoders.pieces import OF_SCORES, read_pieces, unigram
from interp_core.models.labels import LabelTokens

LETTERS, ADDED = "spm_char.model", "added_tokens.json"


class SpeechT5(Listener):
    """The encoder's blocks of a SpeechT5ForSpeechToText."""

    @property
    def by_part(self) -> dict[str, type[Listener]]:
        return {"encoder": SpeechT5, "decoder": SpeechT5Decoder}

    def labels(self, labels: Sequence[str], prompt: str, *, several_tokens: str = "refuse") -> LabelTokens:
        """By their first letters, as every word is several tokens; InterpError names those that begin alike."""
        return super().labels(labels, prompt, several_tokens="first")

    def written(self, label: str, prompt: str) -> str:
        """As it is: the space in front of it is a letter of its own, with which the default prompt ends."""
        return label


class SpeechT5Decoder(ListenerDecoder, SpeechT5):
    """The decoder's blocks."""


def speecht5_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """Make the tokenizer of a folder: letters by their places in the model, then what was added.

    Raises:
        InterpError: a file that is missing or broken, or pieces of another kind.
    """
    folder = Path(source)
    if not (folder / LETTERS).is_file():
        raise InterpError(f"{source} lacks {LETTERS}; copy the tokenizer files of the original model into it.")
    pieces = read_pieces(folder / LETTERS)
    if pieces.kind not in OF_SCORES:
        raise InterpError(f"{LETTERS} in {source} joins pieces by rules, which is not known of models of this type.")
    added: dict[str, int] = json.loads((folder / ADDED).read_text("utf-8")) if (folder / ADDED).is_file() else {}
    in_order = [
        *pieces.scores,
        *sorted((name for name in added if name not in pieces.scores), key=lambda name: added[name]),
    ]
    if moved := next((name for name, i in added.items() if in_order.index(name) != i), None):
        raise InterpError(
            f"{ADDED} in {source} has {moved} at {added[moved]}, where {LETTERS} leaves {in_order.index(moved)} to it; "
            "copy the tokenizer files of one model into it."
        )
    special = [AddedToken(name, special=True, normalized=False) for name in added]
    return PreTrainedTokenizerFast(
        tokenizer_object=unigram(in_order, pieces, "<unk>"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=special,
    )
