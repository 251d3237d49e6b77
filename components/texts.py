"""Texts that a model wrote, on a page: how long, whose words they have, and what they do not show."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from components.words import md
from interp_core.experiments.wording import Origin, Written

LENGTHS = (10, 20, 40, 80, 160)
GREEDY = "Greedy decoding: the likeliest token each time, as the model's own generate() does."
LIMIT = (
    "What this does not show: one early word decides what follows, so two texts can part over a near tie, and an "
    "answer that is drawn at random may be another one ([Holtzman et al. 2020](https://arxiv.org/abs/1904.09751))."
)
MARKS: dict[Origin, tuple[str, str]] = {
    "both": ("", ""),
    "A": (":blue-background[*", "*]"),
    "B": (":orange-background[**", "**]"),
    "neither": (":gray-background[", "]"),
}


def length(key: str, help: str) -> int:
    """Choose how many tokens are written at most."""
    return st.select_slider("Up to, tokens", LENGTHS, value=40, key=key, help=help)


def in_marks(words: Sequence[tuple[str, Origin]], written: Written) -> str:
    """Words for the page, neighbours of one kind under one mark, and whether the text was cut off."""
    parts: list[str] = []
    at = 0
    while at < len(words):
        stop = at
        while stop < len(words) and words[stop][1] == words[at][1]:
            stop += 1
        before, behind = MARKS[words[at][1]]
        parts.append(before + md(" ".join(word for word, _ in words[at:stop])) + behind)
        at = stop
    text = " ".join(parts) or "*no word*"
    return text if written.ended else f"{text} … :small[(cut off after {len(written.tokens)} tokens)]"
