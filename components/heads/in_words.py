"""A's answer in words with the selected head and without it."""

from __future__ import annotations

import streamlit as st

from components import edited_answer, server, state
from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.experiments.heads.experiment import answer_without
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.wording import Written
from interp_core.models.subject import Subject


def draw(asked: HeadsRequest, subject: Subject, clip: Clip, head: tuple[int, int], name: str) -> None:
    """The fold; `name` is the head's."""
    edited_answer.fold(
        subject,
        (state.HEADS_WORDS, state.HEADS_TOKENS, state.HEADS_DURING),
        title="A's answer in words",
        edited=f"A without {name}",
        about="The head's output is replaced by zero.",
        help="Off: the head is at zero over the prompt alone. On: at every word that is written, too.",
        write=lambda n, during: _written(
            server.engine().key_of(asked), clip.digest, head, n, during, asked, clip
        ),
    )  # fmt: skip


@st.cache_data(max_entries=256, show_spinner=False)
def _written(
    key: str, clip: str, head: tuple[int, int], n_tokens: int, during: During, _asked: HeadsRequest, _clip: Clip
) -> tuple[Written, Written]:
    """`key` and the digest name the model and the clip."""
    return answer_without(server.engine(), _asked, _clip, head, n_tokens=n_tokens, during=during)
