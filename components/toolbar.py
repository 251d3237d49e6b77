"""What every experiment's page has beside its export: undo and redo of what is selected, and a link to the view."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from components import history

_ASSETS = Path(__file__).resolve().parents[1] / "assets" / "copy_link"

_html, _css, _js = ((_ASSETS / f"copy_link.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
_copy_link = st.components.v2.component("patchbay_copy_link", html=_html, css=_css, js=_js)


def draw(of: str) -> None:
    """Note what is selected in the run that `of` names, and offer the way back; to be called behind all widgets."""
    history.note_selection(of)
    undone, redone = history.steps_left()
    _step("Undo", "u", -1, undone, "undo")
    _step("Redo", "y", 1, redone, "redo")
    _copy_link(key="copy_link", width="content")


def _step(label: str, key: str, by: int, left: int, icon: str) -> None:
    st.button(
        label,
        key=label.lower(),
        icon=f":material/{icon}:",
        on_click=history.step_selection,
        args=(by,),
        shortcut=key,
        disabled=not left,
        help=f"{label} what was selected on this page: {left} {'step' if left == 1 else 'steps'}",
    )
