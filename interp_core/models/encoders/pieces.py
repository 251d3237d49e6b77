"""Reading a model of sentencepiece without the package, and making a tokenizer of its pieces and their scores."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from interp_core.errors import InterpError

OF_SCORES = {1: "unigram", 4: "characters"}
"""Kinds of models whose best pieces are those with the best sum of scores."""
_WHOLE, _EIGHT, _LONG, _FOUR = 0, 1, 2, 5
"""Protobuf's wire types."""


class Pieces(NamedTuple):
    """A sentencepiece model: its pieces with their scores, its kind, and its table of normal forms, b"" for none."""

    scores: dict[str, float]
    kind: int
    table: bytes


def read_pieces(path: Path) -> Pieces:
    """Read a sentencepiece model; InterpError where it is none.

    Source: github.com/google/sentencepiece, src/sentencepiece_model.proto.
    """
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


def unigram(in_order: Sequence[str], pieces: Pieces, unknown: str, *, lowers: bool = False) -> Tokenizer:
    """A tokenizer that cuts a text into the pieces with the best sum of scores.

    Args:
        in_order: the pieces by their ids. unknown: the one for what is none of them.
        lowers: whether capital letters become small ones.
    """
    least = min(pieces.scores.values(), default=0.0)
    scored = [(piece, pieces.scores.get(piece, least)) for piece in in_order]
    words = Tokenizer(Unigram(scored, list(in_order).index(unknown), False))
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(pieces.table)] if pieces.table else []
    steps += [normalizers.Lowercase()] if lowers else []
    words.normalizer = normalizers.Sequence([*steps, normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")])
    words.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=False)
    words.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    return words
