"""Every page that has something to step through is walked by its keys alone, and the keys panel names them all."""

from __future__ import annotations

import itertools
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from components.keys import ON_THE_PAGE
from tests.browser.drive import wait_for, wait_idle

ROOT = Path(__file__).resolve().parents[2]
STEPPED = {  # page -> what has to be there, and the name in the address that these keys move, one after the other
    "patching": (".st-key-curve .js-plotly-plot .xtick", {"jk": "layer", "pn": "pair"}),
    "pairs": (".st-key-player", {"np": "pair"}),  # opens on the first
    "pairs?pairs=two+clips+by+hand": (".st-key-hand_curve .js-plotly-plot .xtick", {"jk": "hand_layer"}),
    "pairs?pairs=one+clip%2C+edited": (".st-key-hand_curve .js-plotly-plot .xtick", {"jk": "hand_layer"}),
    "compare": (".st-key-cmp_map .js-plotly-plot .xtick", {"jk": "cmp_at"}),
    "compare?cmp_tab=Transplants": (".st-key-cmp_player", {"kj": "cmp_transplant", "np": "cmp_clip"}),
    "neurons": (".st-key-neu_player", {"jk": "neu_k", "np": "neu_clip"}),
    "signflip?sf_only=all": (".st-key-sf_player", {"kj": "sf_layer", "np": "sf_clip"}),
    "steering": (".st-key-st_player", {"jk": "st_alpha", "np": "st_clip"}),
    "probes": (".st-key-pb_player", {"jk": "pb_layer", "np": "pb_clip"}),
    "heads": (".st-key-player", {"jk": "heads_at", "pn": "heads_a"}),
    "models": ("[data-testid='stDataFrame']", {"jk": "models_type"}),
    "runs": ("[data-testid='stDataFrame']", {"jjk": "run"}),
}
STEPS = {"‹", "›", "Undo", "Redo"}
WITHOUT = {"start", "recordings"}
"""Pages with nothing to step through."""
NOW = "name => new URL(location.href).searchParams.get(name) ?? ''"
MOVED = f"([name, was]) => ({NOW})(name) !== was"


def pressed(page: Any, key: str, name: str) -> str:
    """What the address says of `name` once a key has moved it."""
    wait_idle(page, timeout=120)
    was = page.evaluate(NOW, name)
    for last in (False, False, True):  # a key that is pressed while the page still takes its place is not heard
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press(key)
        with nullcontext() if last else suppress(AssertionError):
            wait_for(page, MOVED, [name, was], timeout=20)
            break
    return str(page.evaluate(NOW, name))


@pytest.mark.parametrize("page_name", STEPPED)
def test_keys_step_through_what_a_page_selects_and_each_is_in_the_panel(app: str, open_page: Any, page_name: str):
    page = open_page(f"{app}/{page_name}")
    there, moves = STEPPED[page_name]
    wait_for(page, "place => !!document.querySelector(place)", there, timeout=120)
    wait_idle(page, timeout=120)
    for keys, name in moves.items():
        seen = [pressed(page, key, name) for key in keys]
        assert all(one != other for one, other in itertools.pairwise(seen))
    buttons = [text.split() for text in page.locator("[data-testid=stMain] .stButton button").all_inner_texts()]
    hinted = [text[1].lower() for text in buttons if len(text) == 2 and text[0] in STEPS]
    assert {key for keys in moves for key in keys} <= set(hinted) <= set(ON_THE_PAGE)
    assert len(hinted) == len(set(hinted)), "two buttons want one key"
    assert page.console_errors == []


def test_no_page_is_left_out():
    """A page that is added says here what its keys step through, or that there is nothing."""
    named = {name.partition("?")[0] for name in STEPPED}
    assert named | WITHOUT == {file.stem for file in (ROOT / "pages").glob("*.py")}
