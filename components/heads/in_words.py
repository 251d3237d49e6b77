"""A's answer in words with the selected head and without it."""

from __future__ import annotations

import streamlit as st

from components import server, state, texts
from components.guard import readable_errors
from components.words import md
from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.experiments.heads.experiment import answer_without
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.wording import Origin, Written, marked
from interp_core.models.subject import Subject


def draw(asked: HeadsRequest, subject: Subject, clip: Clip, head: tuple[int, int], name: str) -> None:
    """The fold: nothing is written before it is opened. `name` is the head's."""
    fold = st.expander("A's answer in words", icon=":material/notes:", key=state.HEADS_WORDS, on_change="rerun")
    if not fold.open:
        return
    with fold, readable_errors():
        if (refusal := subject.words_refusal()) is not None:
            st.caption(f"{md(subject.name)} {md(refusal)}, so there is no answer in words.")
            return
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            n_tokens = texts.length(state.HEADS_TOKENS, texts.GREEDY)
            on = st.toggle(
                "also while it writes",
                key=state.HEADS_DURING,
                help="Off: the head is at zero over the prompt alone. On: at every word that is written, too.",
            )
        during: During = "all" if on else "prefill"
        with st.spinner("Writing …"):
            own, without = _written(server.engine().key_of(asked), clip.digest, head, n_tokens, during, asked, clip)
        one: list[tuple[str, Origin]] = [
            (word, "A" if differs else "both") for word, differs in marked(own.text, without.text)
        ]
        other: list[tuple[str, Origin]] = [
            (word, "neither" if differs else "both") for word, differs in marked(without.text, own.text)
        ]
        st.markdown(f":blue-badge[A] {texts.in_marks(one, own)}")
        st.markdown(f":violet-badge[A without {md(name)}] {texts.in_marks(other, without)}")
        if own.tokens == without.tokens:
            st.markdown("The answer stays the same, word for word.")
        else:
            gone, new = (sum(mark != "both" for _, mark in words) for words in (one, other))
            st.markdown(f"{gone} of the {len(one)} words are gone (*italic*), {new} of {len(other)} are new (on grey).")
        st.caption(f"The head's output is replaced by zero. {texts.LIMIT}")


@st.cache_data(max_entries=256, show_spinner=False)
def _written(
    key: str, clip: str, head: tuple[int, int], n_tokens: int, during: During, _asked: HeadsRequest, _clip: Clip
) -> tuple[Written, Written]:
    """`key` and the digest name the model and the clip."""
    return answer_without(server.engine(), _asked, _clip, head, n_tokens=n_tokens, during=during)
