"""The models page: what is at hand, the types and their filters, and what a click and a link show."""

import shlex

import pytest
from streamlit.testing.v1 import AppTest

from components import state
from components.models_page import rows
from interp_core.cli import parser
from interp_core.experiments import EXPERIMENTS
from interp_core.models import verified as records
from interp_core.models.families import families
from tests.families.encoders import save_wavlm
from tests.pages.conftest import PATIENCE_S, ROOT, ROUTER, by_key, faults, send, words
from tests.pages.tiny_demo import NAME


@pytest.fixture
def zoo(server):
    """A server that may read a folder with a WavLM in it."""
    save_wavlm(server / "speech" / "wavlm-own")
    return server


def visit(**parameters):
    at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S).switch_page(str(ROOT / "pages" / "models.py"))
    for name, value in parameters.items():
        at.query_params[name] = value
    return at.run()


def listed(at) -> list[str]:
    return list(by_key(at, "dataframe", state.MODELS_TABLE).value["type"])


# ---- the rows, without a page ----------------------------------------------------------------------------------------


def test_the_rows_are_the_families_of_the_command_with_their_records_and_experiments():
    every = rows.every()
    assert [row.family for row in every] == families()
    assert all(set(row.lacks) == set(EXPERIMENTS) for row in every)
    real = {row.family.name for row in every if row.records}
    assert {record.model_type for row in every for record in row.records} == {r.model_type for r in records.verified()}
    assert real == {row.family.name for row in every if row.checked == rows.REAL} and "whisper (decoder)" in real
    assert next(row for row in every if row.family.name == "wavlm").checked == rows.RANDOM


def test_kind_experiment_and_text_narrow_the_rows_together():
    every, all_of = rows.every(), {"groups": (), "runs": (), "text": ""}
    assert rows.matching(every, **all_of) == list(every)
    pictures = rows.matching(every, **{**all_of, "groups": ["picture classifier"]})
    assert [row.family.name for row in pictures] == ["resnet"]
    assert not rows.matching(pictures, **{**all_of, "runs": ["patch"]})
    assert rows.matching(pictures, **{**all_of, "runs": ["ablate", "steer"]}) == pictures
    crossed = rows.matching(every, **{**all_of, "text": "CROSS_out  real"})
    assert [row.family.name for row in crossed] == ["whisper (decoder)"]
    assert not rows.matching(every, **{**all_of, "text": "cross_out signflip"})  # all words, in one row
    assert [*rows.cannot("encodec").values()] == [["encodec"]] and not rows.cannot("no such word")


# ---- the page --------------------------------------------------------------------------------------------------------


def test_what_is_at_hand_has_a_link_to_every_page_that_shows_it(zoo):
    at = visit()
    assert faults(at) == [] and at.title[0].value == "Models"
    said = words(at)
    assert NAME in said and "wavlm-own" in said and str(zoo / "speech") in said
    links = [(link.proto.page, link.proto.query_string) for link in at.get("page_link")]
    assert sum(f"model={NAME}" in query for _, query in links) == len(EXPERIMENTS)
    own = [page for page, query in links if "wavlm-own" in query]
    assert {"patching", "steering", "heads"} <= set(own) and len(own) == len(EXPERIMENTS)


def test_a_model_that_was_found_is_opened_only_when_the_visitor_says_so(zoo):
    at = AppTest.from_file(str(ROUTER), default_timeout=PATIENCE_S).switch_page(str(ROOT / "pages" / "heads.py"))
    at.query_params[state.MODEL] = str(zoo / "speech" / "wavlm-own")
    at.run()
    assert "does not ship with Patchbay" in words(at)


def test_the_link_selects_a_type_and_its_command_can_be_typed(server):
    at = visit(**{state.MODELS_TYPE: "whisper (decoder)"})
    said = words(at)
    assert faults(at) == [] and "whisper (decoder) · encoder and decoder" in said.replace("**", "")
    assert "cross_head_out" in said and "Sign flip: no, it has no frames in time" in said and "on real weights" in said
    command = at.code[0].value
    assert "--part=decoder" in command and parser().parse_args(shlex.split(command)[3:]).command == "patch"
    at.button_group(key=state.MODELS_COMMAND).set_value("steer").run()
    assert " steer " in at.code[0].value and faults(at) == []


def test_a_click_on_a_line_shows_it_and_a_type_without_the_chosen_experiment_shows_another(server):
    at = visit(**{state.MODELS_COMMAND: "Sign flip"})
    assert " signflip " in at.code[0].value
    at_row = listed(at).index("resnet")
    at = send(at, by_key(at, "dataframe", state.MODELS_TABLE), {"rows": [at_row], "columns": [], "cells": []})
    assert faults(at) == [] and "resnet · picture classifier" in words(at).replace("**", "")
    assert " ablate " in at.code[0].value and "the pages play sound" in words(at)


def test_the_filters_of_a_link_narrow_what_is_at_hand_and_the_types_and_say_so_where_nothing_is_left(zoo):
    at = visit(**{state.MODELS_TEXT: "wavlm"})
    assert "wavlm" in listed(at) and "qwen2_audio" not in listed(at) and NAME not in words(at)
    assert f"of {len(rows.every())} types" in words(at)
    at = visit(**{state.MODELS_GROUP: "CLAP"})
    assert listed(at) == ["clap"] and "wavlm-own" not in words(at) and "do not open" not in words(at)
    at = visit(**{state.MODELS_TEXT: "zzz"})
    assert faults(at) == [] and "No type has these words" in words(at) and "None of the models at hand" in words(at)


def test_a_folder_too_large_to_be_searched_is_said_and_the_rest_stands(zoo, monkeypatch):
    monkeypatch.setattr(rows, "MOST_FOLDERS", 1)
    at = visit()
    assert "holds more than 1 folders" in words(at) and NAME in words(at) and len(listed(at)) == len(rows.every())
