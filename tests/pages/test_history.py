"""Undo and redo of what is selected, and the panel that names every key."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from components import keys, state
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
    known = shortcuts() | {"u", "y", "1", "2"}  # which are handed on by name
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
