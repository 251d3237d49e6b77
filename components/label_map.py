"""Labels that the model of a run cannot answer, read as answers: a form that fills the setting of that name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from components import state
from components.words import md
from interp_core.data.relabel import suggested
from interp_core.errors import Unanswered
from interp_core.options import declared

MOST = 24
"""Labels that are asked about; more are words of a text, not classes."""


def offer(command: str, request: Any, config: Mapping[str, Any]) -> None:
    """Draw the form below a run whose clips have labels that are no answers; nothing for other runs."""
    _form(command, request, config.get("unanswered") or {}, folded=True)


def offer_beside(error: Exception, command: str, request: Any) -> None:
    """Draw the form beside a refusal whose reason is that labels are no answers; nothing for other errors."""
    if isinstance(error, Unanswered):
        _form(command, request, error.sides, folded=False)


def _form(command: str, request: Any, sides: Mapping[str, list[str]], *, folded: bool) -> None:
    labels, answers = sides.get("labels", [])[:MOST], sides.get("answers", [])
    if not labels or not answers:
        return
    near = suggested(labels, answers)
    with (
        st.expander(
            "Labels that the model cannot answer: read them as answers", icon=":material/label:", expanded=not folded
        ),
        st.form(f"map_labels_{command}", border=False),
    ):
        for at, label in enumerate(labels):
            chosen = answers.index(near[label]) if label in near else None
            st.selectbox(
                md(label), answers, chosen, placeholder="no answer of the model", key=state.label_read_as(command, at)
            )
        pressed = st.form_submit_button("Read them so", on_click=_fill, args=(command, request, labels))
    if pressed:
        st.rerun(scope="app")


def _fill(command: str, request: Any, labels: list[str]) -> None:
    """Write what was chosen into the setting, beside what it holds already."""
    one = next(one for one in declared(type(request)) if one.name == "map_labels")
    keys = [state.label_read_as(command, at) for at in range(len(labels))]
    chosen = [(label, st.session_state.get(key)) for label, key in zip(labels, keys, strict=True)]
    parts = (*request.map_labels, *(f"{label}={answer}" for label, answer in chosen if answer))
    setting = state.setting(command, one.name)
    st.session_state[setting] = one.write(parts)
