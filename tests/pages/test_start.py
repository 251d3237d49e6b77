"""The start page: what a newcomer can click, and where it leads."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from components import state
from components.start.examples import EXAMPLES
from interp_core.models import bundled
from tests.pages.conftest import PATIENCE_S, ROOT, ROUTER, faults, words

START = str(ROOT / "pages" / "start.py")


def links(at):
    return [(link.proto.label, link.proto.page, link.proto.query_string) for link in at.get("page_link")]


def test_the_bare_address_opens_it_and_every_way_leads_somewhere(server):
    at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S).run()
    assert faults(at) == [] and at.title[0].value == "Patchbay"
    said = links(at)
    assert [label for label, _, _ in said][: len(EXAMPLES)] == [f"Open {one.page.capitalize()}" for one in EXAMPLES]
    for example, (_, page, query) in zip(EXAMPLES, said, strict=False):
        assert page == example.page and f"model={example.model}" in query and f"example={example.name}" in query
    assert any(page == "recordings" for _, page, _ in said)
    assert any("run=" in query for _, _, query in said), "the run that ships with the demo is a recent run"


def test_an_example_says_what_to_look_at_until_it_is_closed(open_app):
    at = open_app(example="voice")
    assert EXAMPLES[0].look in words(at)
    at.button(key="close_example").click().run()
    assert EXAMPLES[0].look not in words(at) and faults(at) == []


def test_a_link_from_before_the_start_page_still_opens_its_view(server):
    at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S)
    at.query_params["layer"] = "2"
    at.run()
    assert at.title[0].value == "Layer patching" and at.session_state[state.LAYER] == "2"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_the_models_and_pages_of_the_examples_are_there(example):
    assert (ROOT / "pages" / f"{example.page}.py").is_file()
    assert (bundled.ASSETS / example.model / "demo.json").is_file()
    assert Path(example.view.get(state.RUN, bundled.ASSETS)).is_dir()


def test_what_is_chosen_in_the_sidebar_does_not_lead_away_from_the_start_page(server):
    at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S).run()
    at.query_params[state.DTYPE] = "float32"  # as a choice in the sidebar writes it
    assert at.run().title[0].value == "Patchbay"
    fresh = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S)  # the page is loaded anew
    fresh.query_params[state.DTYPE] = "float32"
    assert fresh.run().title[0].value == "Patchbay" and faults(fresh) == []


def test_a_link_inside_the_dashboard_chooses_its_model_and_clips_whatever_was_chosen_before(server):
    at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S).run()
    at.query_params[state.CLIPS] = ["before.csv", "after.csv"]  # as Streamlit writes a link's value behind a widget's
    at.query_params[state.MODEL] = ["demo-tiny", "another"]
    at.run()
    assert at.session_state[state.MODEL] == "another" and at.session_state[state.CLIPS] == "after.csv"


def test_a_link_to_another_page_wins_over_what_the_sidebar_held(server):
    at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S).run()
    at.session_state[state.PAGE] = "recordings"  # where the visitor was; the address is now the start page's
    at.query_params[state.CLIPS] = "own.csv"
    at.query_params[state.SKIP_BAD] = "true"
    at.run()
    assert at.session_state[state.CLIPS] == "own.csv" and at.session_state[state.SKIP_BAD] is True
