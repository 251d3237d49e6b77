"""The fold that Heads, Neurons and Steering share: one clip's answer in words as it is, and under an edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import streamlit as st

from components import heard, texts
from components.guard import readable_errors
from components.widgets import folded
from components.words import md
from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.experiments.edited_words import said_of
from interp_core.experiments.wording import Origin, Written, marked
from interp_core.models.subject import Subject


def fold(
    subject: Subject,
    keys: tuple[str, str, str],
    *,
    title: str,
    edited: str,
    about: str,
    help: str,
    write: Callable[[int, During], tuple[Written, Written]],
) -> None:
    """Nothing is written before it is opened.

    Args:
        keys: of the fold, of how many tokens, of whether the edit goes on while the model writes.
        title: of the fold. edited: what the clip is called under the edit, as a person reads it.
        about: what the edit does, a sentence. help: of the switch, what it does while the model writes.
        write: up to so many tokens: the answer as it is, and under the edit.
    """
    key, tokens, going_on = keys
    part = folded(title, ":material/notes:", key=key)
    if not part.open:
        return
    with part, readable_errors():
        if (refusal := subject.words_refusal()) is not None:
            st.caption(f"{md(subject.name)} {md(refusal)}, so there is no answer in words.")
            return
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            n_tokens = texts.length(tokens, texts.GREEDY)
            on = st.toggle("also while it writes", key=going_on, help=help)
        with st.spinner("Writing …"):
            own, after = write(n_tokens, "all" if on else "prefill")
        _texts(own, after, edited)
        st.caption(f"{md(about)} {texts.LIMIT}")


def _texts(own: Written, after: Written, edited: str) -> None:
    one: list[tuple[str, Origin]] = [
        (word, "A" if differs else "both") for word, differs in marked(own.text, after.text)
    ]
    other: list[tuple[str, Origin]] = [
        (word, "neither" if differs else "both") for word, differs in marked(after.text, own.text)
    ]
    st.markdown(f":blue-badge[A] {texts.in_marks(one, own)}")
    st.markdown(f":violet-badge[{md(edited)}] {texts.in_marks(other, after)}")
    if own.tokens == after.tokens:
        st.markdown("The answer stays the same, word for word.")
        return
    gone, new = (sum(mark != "both" for _, mark in words) for words in (one, other))
    st.markdown(f"{gone} of the {len(one)} words are gone (*italic*), {new} of {len(other)} are new (on grey).")


def of_run(table: pd.DataFrame, what: str, key: str, clips: Mapping[str, Clip]) -> None:
    """The answers that a run wrote, as a table; nothing where it wrote none.

    Args:
        table: of `edited_answers`. what: the column that says which edit it was. key: of the fold.
        clips: of the run, to be heard.
    """
    if not len(table):
        return
    part = folded("Answers in words of the run", ":material/table:", key=key)
    if not part.open:
        return
    with part:
        for said in said_of(table, what):
            st.markdown(f"{md(said[0].upper() + said[1:])}.")
        heard.table(table, clips, height=260, alt="Answers in words as the clips are, and under each edit.")
