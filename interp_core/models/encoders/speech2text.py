"""What is Speech2Text's own among models that hear and write: its tokenizer, without the package sentencepiece, and
prompts that name the language which a text is translated into."""

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from interp_core.errors import InterpError
from interp_core.models.encoders.listener import Listener, ListenerDecoder
from interp_core.models.encoders.pieces import OF_SCORES, read_pieces, unigram

VOCAB, PIECES = "vocab.json", "sentencepiece.bpe.model"
"""Files of a folder: ids by piece, and sentencepiece's model, which on the hub has this name whatever it is."""
START, PAD, UNKNOWN = "</s>", "<pad>", "<unk>"
_LANGUAGE = re.compile(r"<lang:\w+>")


class Speech2Text(Listener):
    """The encoder's blocks of a Speech2TextForConditionalGeneration."""

    @property
    def by_part(self) -> dict[str, type[Listener]]:
        return {"encoder": Speech2Text, "decoder": Speech2TextDecoder}

    @property
    def default_prompts(self) -> tuple[str, ...]:
        """Asks for the first word of the transcript, or of the translation into the language of the checkpoint."""
        first = getattr(self.hf.generation_config, "forced_bos_token_id", None)
        return (self.start + ("" if first is None else self.tokenizer.convert_ids_to_tokens(first)),)

    def text_of(self, tokens: Any) -> str:
        text = super().text_of(tokens)
        return text.upper() if self.tokenizer.init_kwargs.get("do_upper_case") else text


class Speech2TextDecoder(ListenerDecoder, Speech2Text):
    """The decoder's blocks."""


def speech2text_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """Make the tokenizer of a folder: the pieces that sentencepiece would find, by the ids of its vocabulary.

    Raises:
        InterpError: a file that is missing or broken, or a model whose pieces are not found by their scores alone.
    """
    folder = Path(source)
    for name in (VOCAB, PIECES):
        if not (folder / name).is_file():
            raise InterpError(f"{source} lacks {name}; copy the tokenizer files of the original model into it.")
    about = folder / "tokenizer_config.json"
    told = json.loads(about.read_text("utf-8")) if about.is_file() else {}
    ids: dict[str, int] = json.loads((folder / VOCAB).read_text("utf-8"))
    pieces = read_pieces(folder / PIECES)
    if pieces.kind not in OF_SCORES:
        raise InterpError(f"{PIECES} in {source} joins pieces by rules, which is not known of models of this type.")
    in_order = sorted(ids, key=lambda piece: ids[piece])
    if [ids[piece] for piece in in_order] != list(range(len(ids))) or not {START, PAD, UNKNOWN} <= ids.keys():
        raise InterpError(f"{VOCAB} in {source} is no list of pieces without a gap; fetch it again.")
    words = unigram(in_order, pieces, UNKNOWN, lowers=bool(told.get("do_lower_case")))
    special = [AddedToken(piece, special=True, normalized=False) for piece in in_order if _LANGUAGE.fullmatch(piece)]
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token=START,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=special,
        do_upper_case=told.get("do_upper_case", False),
    )
