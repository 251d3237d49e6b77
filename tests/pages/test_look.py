"""What a presenter relies on: words on the page, models that a page can show, a link that keeps the larger type."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from components import shown, state
from components.charts.parts import PRESENTED_TYPE
from components.signflip import view
from interp_core.errors import InterpError
from tests.pages.conftest import PATIENCE_S, ROOT, ROUTER, by_key, faults, words
from tests.pages.tiny_demo import NAME


def at_page(name: str, **parameters: str) -> AppTest:
    at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S).switch_page(str(ROOT / "pages" / f"{name}.py"))
    for key, value in parameters.items():
        at.query_params[key] = value
    return at.run()


def curve(at: AppTest) -> dict:
    return json.loads(by_key(at, "plotly_chart", "curve").proto.spec)


def test_the_question_and_the_words_of_the_curve_stand_on_the_page(open_app):
    at = open_app(kind="prosody")
    assert faults(at) == []
    for word in ("Asked: “", "**prosody**: the same words", "**reachable**: ", "**random donor**", "**matched noise**"):
        assert word in words(at), word
    flow = open_app(kind="semantic", view="Information flow")
    assert "**semantic**: other words" in words(flow) and "**matched noise**" not in words(flow)


def test_the_presenter_mode_is_in_the_link_enlarges_the_chart_and_keeps_the_numbers(open_app):
    plain, large = open_app(), open_app(**{state.PRESENT: "true"})
    assert faults(large) == [] and large.toggle(key=state.PRESENT).value
    sizes = [curve(at)["layout"]["xaxis"]["tickfont"]["size"] for at in (plain, large)]
    assert sizes[1] == pytest.approx(PRESENTED_TYPE * sizes[0])
    assert curve(large)["layout"]["height"] < curve(plain)["layout"]["height"]
    assert [t.get("y") for t in curve(plain)["data"]] == [t.get("y") for t in curve(large)["data"]]
    off = large.toggle(key=state.PRESENT).set_value(False).run()
    assert curve(off)["layout"]["height"] == curve(plain)["layout"]["height"]


@pytest.mark.parametrize("said", ["", "perhaps", "<b>", "TRUE "])
def test_a_link_with_no_word_for_the_presenter_mode_opens_the_page_as_usual(open_app, said):
    at = open_app(**{state.PRESENT: said})
    assert faults(at) == [] and not at.toggle(key=state.PRESENT).value


def test_a_page_without_a_choice_opens_on_a_model_with_a_saved_run_and_a_choice_stays(assets, server):
    assert shown.demos_with("patch") == [NAME] and shown.demos_with("nonsense") == []
    at = at_page("patching")
    assert at.selectbox(key=state.MODEL).value == NAME and state.CHOSEN not in at.session_state
    named = at_page("patching", model=NAME)
    assert state.CHOSEN in named.session_state


def test_a_model_that_a_page_cannot_serve_is_said_calmly_and_another_one_is_a_click_away(server, monkeypatch):
    def refuse(subject):
        raise InterpError(f"{subject.name} hears nothing; take <b>another</b> one.")

    monkeypatch.setattr(view, "check_subject", refuse)
    monkeypatch.setattr(shown, "demos_with", lambda command: [NAME, "demo-other"])
    at = at_page("signflip", model=NAME)
    assert faults(at) == []
    assert "has nothing to show for demo-tiny: " in words(at) and "<b>another</b>" in words(at)
    assert [button.label.replace("\\", "") for button in at.button if (button.key or "").startswith("instead_")] == [
        "Look at demo-other instead"
    ]
