"""Undo and redo of what is selected, and the panel that names every key."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from components import keys, state, widgets
from interp_core.data.edits import KNOBS
from tests.pages.conftest import faults, in_link, tell, told, words

ROOT = Path(__file__).resolve().parents[2]


def look(at):
    return at.selectbox(key=state.PAIR).value, at.select_slider(key=state.LAYER).value


def test_selections_are_undone_and_redone_one_by_one_and_a_new_one_ends_what_was_undone(open_app):
    at = open_app(pair="prosody-0001", layer="0")
    assert at.button(key="undo").disabled and at.button(key="redo").disabled
    at = at.button(key="layer-up").click().run()
    at = at.button(key="pair-after").click().run()
    at = at.slider(key=state.ALPHA).set_value(0.3).run()
    assert look(at) == ("prosody-0002", "1") and at.slider(key=state.ALPHA).value == 0.3
    at = at.button(key="undo").click().run()
    assert faults(at) == [] and at.slider(key=state.ALPHA).value == 1.0 and look(at) == ("prosody-0002", "1")
    at = at.button(key="undo").click().run()
    assert look(at) == ("prosody-0001", "1")
    at = at.button(key="undo").click().run()
    assert look(at) == ("prosody-0001", "0") and in_link(at, "layer") == "0"
    assert at.button(key="undo").disabled
    at = at.button(key="redo").click().run()
    at = at.button(key="redo").click().run()
    assert look(at) == ("prosody-0002", "1") and not at.button(key="redo").disabled
    at = at.run()  # the same once more is no step
    assert not at.button(key="redo").disabled
    at = at.button(key="layer-up").click().run()
    assert at.button(key="redo").disabled
    at = at.button(key="undo").click().run()
    assert look(at) == ("prosody-0002", "1")


def test_undo_brings_a_pair_back_with_its_window_and_its_question(open_app):
    at = open_app(pair="prosody-0001", layer="1")
    region = {"clips": told(at, "player")["identity"], "start": 0.2, "end": 0.35, "told": 1}
    at = tell(at, "player", region=region)
    at = at.button(key="pair-after").click().run()
    assert in_link(at, "window") is None and look(at)[0] == "prosody-0002"
    at = at.segmented_control(key=state.PROMPT).set_value("words").run()
    at = at.button(key="undo").click().run()
    assert at.segmented_control(key=state.PROMPT).value == "default"
    at = at.button(key="undo").click().run()
    assert faults(at) == [] and look(at)[0] == "prosody-0001"
    assert in_link(at, "window") == "0.20-0.35" and told(at, "player")["region"] == {"start": 0.2, "end": 0.35}


# ---- keys ------------------------------------------------------------------------------------------------------------


def shortcuts() -> set[str]:
    """Every shortcut that a button of the components declares as a text."""
    found = set()
    for path in (ROOT / "components").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "shortcut" and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
    return found


def handled(name: str) -> set[str]:
    """Every key that a script of a player answers to."""
    return set(re.findall(r'case "([^"]+)":', (ROOT / "assets" / "player" / name).read_text("utf-8")))


def test_the_panel_names_every_key_of_the_page_and_of_the_players():
    handed_on = {"u", "y", "1", "2", *widgets.OF_SELECTION, *widgets.OF_LINES, *widgets.OF_CLIPS}  # by name
    known = shortcuts() | handed_on
    assert {"j", "k", "n", "p", "h"} <= known
    assert known | {"Tab"} == set(keys.ON_THE_PAGE)
    players = handled("player.js") | handled("blind.js")
    assert {" ", "q", "x", "escape"} <= players
    assert players == {" " if key == "Space" else key.lower() for key in keys.IN_THE_PLAYER}


@pytest.mark.parametrize(
    "page",
    [
        "start",
        "patching",
        "pairs",
        "compare",
        "neurons",
        "signflip",
        "probes",
        "steering",
        "heads",
        "recordings",
        "runs",
    ],
)
def test_every_page_has_the_panel(open_app, page):
    at = open_app().switch_page(str(ROOT / "pages" / f"{page}.py")).run()
    at = at.button(key="keys").click().run()
    assert not at.exception
    text = words(at)
    for key, what in (("U", "undo"), ("Space", "play, pause"), ("Q", "play all")):
        assert f"**{key}** | {what}" in text, key


# ---- every selection is in the link and in undo --------------------------------------------------------------------

HELPERS = {"choice", "stepped", "folded", "shared"}  # which bind what they draw
WIDGETS = {"selectbox", "select_slider", "slider", "segmented_control", "toggle", "checkbox", "tabs", "number_input",
           "text_input", "multiselect", "radio", "pills", "expander"}  # fmt: skip
NOT_IN_LINKS = {
    "OWN_CLIPS": "sets the manifest, which is in the link",
    "BLIND_WHO": "who listens at this browser",
    "REC_A": "of a link that leads to the pair", "REC_B": "of a link that leads to the pair",
    "REC_COLUMN": "typed once, and kept in the collection", "REC_PATTERN": "typed once, and kept in the collection",
    "REC_NEW": "typed once, and kept in the collection",
    "WORDS_LAYERS": "a part of what a button computes",
}  # fmt: skip
NOT_UNDONE = {
    **dict.fromkeys(("MODEL", "ADAPTER", "DEVICE", "DTYPE", "PART", "PROBE", "CLIPS", "CORPUS", "SKIP_BAD"),
                    "which model hears which clips is no selection in a run"),
    **dict.fromkeys(("COLLECTION", "MODELS_COMMAND", "MODELS_GROUP", "MODELS_RUNS", "MODELS_TEXT", "RUNS_FILE",
                     "RUNS_FOLDER", "RUNS_LOOK", "RUNS_OTHER", "RUNS_SERIES", "RUNS_TEXT"), "its page has no undo"),
    "PRESENT": "how the page looks", "WORDS": "whether a part of the page is open",
}  # fmt: skip


def keys_of_widgets() -> dict[str, bool]:
    """Every constant of state.py that is a widget's key -> whether a link carries it."""
    found = dict.fromkeys((name for name in vars(state) if vars(state)[name] in state.LINKED_TEXTS), True)
    for path in [*(ROOT / "components").rglob("*.py"), *(ROOT / "pages").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            given = {one.arg: ast.unparse(one.value) for one in getattr(node, "keywords", [])}
            key = given.get("key", "")
            if called not in HELPERS | WIDGETS or not re.fullmatch(r"state\.[A-Z_]+", key):
                continue
            bound = given.get("bind", "state.BOUND" if called in HELPERS else "") == "state.BOUND"
            found[key.removeprefix("state.")] = bound
    return found


def test_every_selection_is_in_the_link_and_in_undo_or_says_why_not():
    found = keys_of_widgets()
    assert len(found) > 70
    assert {name for name, bound in found.items() if not bound} == set(NOT_IN_LINKS)
    undone = {name for name in found if getattr(state, name) in state.SELECTION}
    folds = {name for name in found if name.startswith("FOLD_")}  # what is open is no selection
    assert set(found) - undone - folds - set(NOT_IN_LINKS) == set(NOT_UNDONE)
    assert {state.edit_dose(knob) for knob in KNOBS} <= set(state.SELECTION)


def test_a_row_that_was_clicked_is_in_the_link_and_comes_back_with_it():
    def page():
        import streamlit as st

        from components import state
        from components.widgets import choosing, chosen_of

        st.button("click", on_click=choosing(state.NEU_CLIP), args=("c",))
        st.button("other model", on_click=state.forget_choices)
        st.text(chosen_of(state.NEU_CLIP, ("a", "b", "c"), ("a",)))

    at = AppTest.from_function(page)
    at.query_params[state.NEU_CLIP] = "b"
    at = at.run()
    assert at.text[0].value == "b" and in_link(at, state.NEU_CLIP) == "b"
    at = at.button[0].click().run()
    assert at.text[0].value == "c" and in_link(at, state.NEU_CLIP) == "c"
    at = at.button[1].click().run()
    assert at.text[0].value == "a" and in_link(at, state.NEU_CLIP) is None
