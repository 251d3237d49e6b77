"""What is Speech2Text's own among models that hear and write: its tokenizer, without the package sentencepiece, and
prompts that name the language which a text is translated into."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from interp_core.errors import InterpError
from interp_core.models.encoders.listener import Listener, ListenerDecoder

VOCAB, PIECES = "vocab.json", "sentencepiece.bpe.model"
"""Files of a folder: ids by piece, and sentencepiece's model, which on the hub has this name whatever it is."""
START, PAD, UNKNOWN = "</s>", "<pad>", "<unk>"
_LANGUAGE = re.compile(r"<lang:\w+>")
_OF_SCORES = {1: "unigram", 4: "characters"}
"""Kinds of sentencepiece models whose best pieces are those with the best sum of scores."""
_WHOLE, _EIGHT, _LONG, _FOUR = 0, 1, 2, 5
"""Protobuf's wire types."""


class Speech2Text(Listener):
    """The encoder's blocks of a Speech2TextForConditionalGeneration."""

    begins: ClassVar[str] = START

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


class Pieces(NamedTuple):
    """A sentencepiece model: its pieces with their scores, its kind, and its table of normal forms, b"" for none."""

    scores: dict[str, float]
    kind: int
    table: bytes


def speech2text_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """Make the tokenizer of a folder: the pieces that sentencepiece would find, by the ids of its vocabulary.

    Raises:
        InterpError: a file that is missing or broken, or a model whose pieces are not found by their scores alone.
    Source: github.com/google/sentencepiece, src/sentencepiece_model.proto.
    """
    folder = Path(source)
    for name in (VOCAB, PIECES):
        if not (folder / name).is_file():
            raise InterpError(f"{source} lacks {name}; copy the tokenizer files of the original model into it.")
    about = folder / "tokenizer_config.json"
    told = json.loads(about.read_text("utf-8")) if about.is_file() else {}
    ids: dict[str, int] = json.loads((folder / VOCAB).read_text("utf-8"))
    pieces = read_pieces(folder / PIECES)
    if pieces.kind not in _OF_SCORES:
        raise InterpError(f"{PIECES} in {source} joins pieces by rules, which is not known of models of this type.")
    in_order = sorted(ids, key=lambda piece: ids[piece])
    if [ids[piece] for piece in in_order] != list(range(len(ids))) or not {START, PAD, UNKNOWN} <= ids.keys():
        raise InterpError(f"{VOCAB} in {source} is no list of pieces without a gap; fetch it again.")
    least = min(pieces.scores.values(), default=0.0)
    words = Tokenizer(Unigram([(piece, pieces.scores.get(piece, least)) for piece in in_order], ids[UNKNOWN], False))
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(pieces.table)] if pieces.table else []
    steps += [normalizers.Lowercase()] if told.get("do_lower_case") else []
    words.normalizer = normalizers.Sequence([*steps, normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    words.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=False)
    words.decoder = decoders.Metaspace("▁", prepend_scheme="always")
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


def read_pieces(path: Path) -> Pieces:
    """Read a sentencepiece model; InterpError where it is none."""
    scores: dict[str, float] = {}
    kind, table = 1, b""
    try:
        for number, value in _entries(path.read_bytes()):
            inside = dict(_entries(value)) if number in (1, 2, 3) and isinstance(value, bytes) else {}
            if number == 1:
                scores[inside[1].decode("utf-8")] = struct.unpack("<f", inside.get(2, bytes(4)))[0]
            elif number == 2:
                kind = inside.get(3, kind)
            elif number == 3:
                table = inside.get(2, table)
    except (IndexError, KeyError, ValueError, AttributeError, TypeError, struct.error) as error:
        raise InterpError(f"{path.name} in {path.parent} is no model of sentencepiece; fetch it again.") from error
    return Pieces(scores, kind, table)


def _entries(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message of protobuf in their order: numbers as int, all else as bytes."""
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        wire = key & 7
        if wire == _WHOLE:
            value, at = _number(data, at)
            yield key >> 3, value
            continue
        size = {_EIGHT: 8, _FOUR: 4}.get(wire)
        if wire == _LONG:
            size, at = _number(data, at)
        if size is None or at + size > len(data):
            raise ValueError("cut short, or no message")
        yield key >> 3, data[at : at + size]
        at += size


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of any length that begins at a place, and the place behind it."""
    found = shift = 0
    while True:
        byte = data[at]
        found |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return found, at
