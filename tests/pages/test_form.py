"""Declared settings as widgets: what each kind of field becomes, what comes back, and what stands where it is none."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest
from streamlit.testing.v1 import AppTest

from components import form, state
from interp_core.options import declared, option
from interp_core.request import Request


@dataclass(frozen=True)
class Sample(Request):
    """One field of every kind."""

    word: str = option("", "a word", label="Word", placeholder="found by itself")
    column: str = option("label", "a column", label="Column")
    place: str = option("attn_out", "a place", label="Place")
    how: Literal["max", "all"] = option("max", "how", label="How", words={"max": "the loudest", "all": "every"})
    some: tuple[Literal["a", "b", "c"], ...] = option(("a", "b"), "some", label="Some", none="none", wide=True)
    count: int = option(3, "how many", label="Count", least=1, most=9)
    few: int | None = option(None, "how few", label="Few", least=1)
    doses: tuple[int, ...] = option((1, 2), "doses", label="Doses", rare=True)
    layers: tuple[int, ...] | None = option(None, "layers", label="Layers", none="all", rare=True)
    on: bool = option(True, "a switch", label="On")
    unseen: str = option("kept", "no widget")

    command: ClassVar[str] = "sample"


OFFERS = {"column": ("label", "speaker"), "place": form.Open(("attn_out", "mlp_out"))}


def drawn() -> None:
    import streamlit as st

    from components import form
    from tests.pages.test_form import OFFERS, Sample

    filled, _ = form.draw(Sample("m", max_clips=4), offers=OFFERS)
    st.session_state["filled"] = filled


def follow(**parameters):
    at = AppTest.from_function(drawn, default_timeout=30)
    for name, value in parameters.items():
        at.query_params[name] = value
    return at.run()


def filled(at) -> form.Filled[Sample]:
    assert not at.exception
    return at.session_state["filled"]


def test_the_defaults_come_back_and_every_labelled_field_has_its_widget():
    at = follow()
    assert filled(at) == form.Filled(Sample("m", max_clips=4))
    keys = {widget.key for kind in ("text_input", "selectbox", "multiselect", "number_input", "checkbox")
            for widget in at.get(kind)}  # fmt: skip
    labelled = {one.name for one in declared(Sample) if one.about.label}
    assert keys == {state.setting("sample", name) for name in labelled} and "sample_unseen" not in keys
    assert {"sample_doses", "sample_layers", "sample_map_labels", "sample_seed"} == {
        widget.key for kind in ("text_input", "number_input") for widget in at.expander[0].get(kind)
    }


def test_what_is_set_comes_back_as_the_fields_type_when_run_is_pressed():
    at = follow()
    at.text_input(key="sample_word").set_value("hello")
    at.selectbox(key="sample_column").set_value("speaker")
    at.selectbox(key="sample_how").set_value("all")
    at.multiselect(key="sample_some").set_value(["c", "a"])
    at.number_input(key="sample_count").set_value(7)
    at.number_input(key="sample_few").set_value(2)
    at.text_input(key="sample_doses").set_value("4, 8")
    at.text_input(key="sample_layers").set_value("0,3")
    at.checkbox(key="sample_on").uncheck()
    at.button[0].click().run()
    wanted = Sample("m", max_clips=4, word="hello", column="speaker", how="all", some=("a", "c"), count=7, few=2,
                    doses=(4, 8), layers=(0, 3), on=False)  # fmt: skip
    assert filled(at) == form.Filled(wanted, pressed=True)
    at.run()
    assert filled(at).request == wanted and not filled(at).pressed


def test_a_link_sets_them_and_what_is_none_of_the_choices_is_the_default():
    at = follow(sample_column="speaker", sample_count="5", sample_place="head_out:3", sample_layers="1,2")
    wanted = Sample("m", max_clips=4, column="speaker", count=5, place="head_out:3", layers=(1, 2))
    assert filled(at).request == wanted
    at = follow(sample_column="<b>x</b>", sample_how="nonsense", sample_some="z", sample_on="maybe")
    assert filled(at) == form.Filled(Sample("m", max_clips=4))


@pytest.mark.parametrize("parameters, said", [({"sample_doses": "many"}, "Doses 'many' is not a whole number")])
def test_a_text_that_is_no_value_is_a_sentence_with_the_label_and_the_default_stands(parameters, said):
    at = follow(**parameters)
    assert filled(at).request == Sample("m", max_clips=4) and said in filled(at).faults[0]
    at.button[0].click().run()
    assert not filled(at).pressed


def test_a_message_about_flags_names_the_widgets():
    faults = [
        fault for one in declared(Sample) for fault in one.faults(getattr(replace(Sample("m"), count=99), one.name))
    ]
    assert form.for_a_person(faults[0], Sample) == "Count 99 is too large; give 9 or less"
    assert form.for_a_person("--unknown is odd", Sample) == "--unknown is odd"
