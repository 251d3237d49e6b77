"""Data in sentences: labels, file names and prompts are shown as they are, never as markup."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

_MARKS = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&\"'@/])")
# What is found in the text once its backslashes are gone: addresses, emoji, icons, arrows and dashes.
_FOUND_LATER = re.compile(
    r"(?<=http)(?=s?://)|(?<=www)(?=\.)|(?<=\w)(?=@\w)|(?<=:)(?=[\w+/-]+:)|(?<= [-<>~])(?=[->=])", re.I
)
_NOTHING = "\u2060"


def md(text: object) -> str:
    """Markdown that shows `text` word for word: the one way for text from elsewhere to get onto a page.

    Every character that could mean something is escaped. Where that is not enough, because the page looks for a pattern
    in the finished text, a word joiner, which has no width and no line break, stands inside the pattern.
    """
    return _MARKS.sub(r"\\\1", _FOUND_LATER.sub(_NOTHING, " ".join(str(text).split())))


def option(text: object) -> str:
    """As `md`, for the choices of widgets that read them as markdown and write them into the URL: plain names stay."""
    return str(text) if re.fullmatch(r"(?:[^\W_]|[ ,]|(?<=[^\W_])[_-](?=[^\W_]))*", str(text)) else md(text)


def answer_badge(answer: object, of_a: object, of_b: object = None) -> str:
    """An answer in the colour of whose it is: blue where it is A's own, vermillion where it is B's, else violet.

    Args:
        of_a: what the recording is answered as it is. of_b: what B is answered, where there is one.
    """
    colour = "blue" if answer == of_a else "orange" if of_b is not None and answer == of_b else "violet"
    return f":{colour}-badge[{md(answer)}]"


def layer_text(layer: int) -> str:
    """A layer as the URL and the slider write it: `emb` for the embeddings, else its number."""
    return "emb" if layer == -1 else str(layer)


def layer_of(text: str) -> int:
    """The layer that `layer_text` wrote."""
    return -1 if text == "emb" else int(text)


def layer_title(layer: int) -> str:
    """As a sentence begins with it."""
    return "Embeddings" if layer == -1 else f"Layer {layer}"


def nbytes(count: float) -> str:
    """Bytes for a person: `312 MB`, `5.8 GB`."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def seconds(count: float) -> str:
    """A duration for a person: `8 s`, `3 min`, `2 h 5 min`."""
    if count < 90:
        return f"{count:.0f} s"
    minutes = round(count / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def share(row: Mapping | pd.Series, rate: str, count: str) -> str:
    """`62 % (50 of 80)`, or a dash where nothing could flip."""
    n, value = row[count], row[rate]
    if not n or value != value:
        return "–"
    return f"{100 * value:.0f} % ({round(value * n)} of {int(n)})"
