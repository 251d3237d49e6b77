"""The Compare page: what is said before anything runs, what a click changes, and that the numbers are the run's."""

from pathlib import Path

import pytest

from components import export, state
from interp_core.experiments.compare.experiment import COMPARE
from interp_core.experiments.experiment import open_result
from tests.pages.conftest import click_point, faults, marks_on, opened_export, send, told, words
from tests.pages.tiny_spoof import BASE, DONOR, PAIRS, write_spoof_demo
from tests.spoof_pairs import N_LAYERS

PAGE = str(Path(__file__).resolve().parents[2] / "pages" / "compare.py")


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    return write_spoof_demo(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="session")
def saved(assets):
    return open_result(COMPARE, assets / BASE / "run-compare")


@pytest.fixture
def compare(open_app):
    """compare(url parameters) -> the page in a session of its own."""

    def follow(**parameters):
        at = open_app(**{"model": BASE, **parameters})
        return at.switch_page(PAGE).run()

    return follow


def cell(at, row, column):
    return click_point(at, "cmp_map", "cells", row * (N_LAYERS + 4) + column)


def widget(at, kind, key):
    return next(w for w in getattr(at, kind) if w.key == key)


def test_the_saved_run_of_the_demo_is_shown_with_its_identical_parts_and_findings(compare, saved):
    at = compare()
    said = words(at)
    assert faults(at) == []
    assert "Identical in both models: stem, layers 0 to 1, pooling." in said
    assert f"The models **part at layer {saved.findings['onset']}**" in said
    assert f"ships with {BASE}" in said
    assert {chart.proto.id.rpartition("-")[2] for chart in at.get("plotly_chart")} >= {
        "cmp_map", "cmp_diagonal", "cmp_effect", "cmp_rates",
    }  # fmt: skip


def test_a_click_on_a_cell_selects_its_row_and_the_sentence_has_the_runs_numbers(compare, saved, paper):
    at = cell(compare(), 1, 3)
    assert widget(at, "select_slider", "cmp_at").value == "1"
    rows = saved.cka[(saved.cka["representation"] == "time mean") & (saved.cka["base_point"] == "resid_post.L1")]
    value = rows.loc[rows["donor_point"] == "resid_post.L1", "unbiased"].item()
    assert f"**Layer 1**: unbiased CKA {value:.3f}" in words(at)
    assert "moves the score by exactly 0 (null by construction)" in words(at)
    opened_export(at)
    found = marks_on(paper())
    assert found["frames"] >= {(1, 1)} and "framed: layer 1" in found["words"] and "seed" in found["words"]
    at = cell(at, N_LAYERS, 0)  # the first stage behind the layers
    assert widget(at, "select_slider", "cmp_at").value == "mixed"


def test_one_click_takes_the_selected_point_as_the_transplant_and_its_clips_are_listed(compare, saved):
    at = cell(compare(), 3, 3)
    widget(at, "button", "cmp-patch-point").click().run()
    assert widget(at, "selectbox", "cmp_transplant").value == "layer 3"
    scores = saved.scores.pivot(index="clip_id", columns="model", values="score")
    most = (scores["layer 3"] - scores["base"]).abs().idxmax()
    assert widget(at, "selectbox", "cmp_clip").value == most
    row = saved.summary[saved.summary["model"] == "layer 3"].iloc[0]
    assert f"layer 3: {row['eer']:.2%}" in words(at)
    assert told(at, state.CMP_PLAYER)["clips"]


def test_every_view_draws_and_a_row_of_the_table_selects_its_transplant(compare, saved):
    at = compare()
    for view, key in (("DET", "cmp-det"), ("Domain probe", "cmp-probes")):
        at.segmented_control(key="cmp_view").set_value(view).run()
        assert faults(at) == [] and any(chart.proto.id.endswith(f"-{key}") for chart in at.get("plotly_chart"))
    at.segmented_control(key="cmp_view").set_value("By codec and attack").run()
    assert faults(at) == []
    table = next(element for element in at.get("dataframe") if element.proto.id.endswith("-cmp_table"))
    names = list(table.value["model"])
    at = send(at, table, {"rows": [names.index("projection")], "columns": [], "cells": []})
    assert widget(at, "selectbox", "cmp_transplant").value == "projection"


def test_a_pair_that_has_not_run_says_what_is_null_and_what_it_costs_and_runs_on_a_click(compare):
    at = compare(compare_donor=PAIRS[1])
    said = words(at)
    assert "Identical in both models: stem, layers 0 to 3, pooling." in said
    assert "A transplant at every layer alone must change nothing" in said
    assert "forward passes" in said and not at.get("plotly_chart")
    next(button for button in at.button if button.label == "Run it now").click().run()
    from components import server

    job = server.engine().jobs.jobs()[0]
    assert job.wait(300) and job.error is None, job.traceback
    at = compare(compare_donor=PAIRS[1])
    assert faults(at) == [] and "alike at every layer" in words(at)
    assert "Computed by this server" in words(at)


def test_the_donor_of_a_pair_is_its_base_turned_round(compare):
    at = compare(model=DONOR)
    assert widget(at, "selectbox", "compare_donor").value == f"{PAIRS[0]}, turned round"
    assert faults(at) == [] and "Run it now" in [button.label for button in at.button]


def test_another_model_in_the_sidebar_leaves_the_pair_of_the_one_before(compare):
    at = compare(compare_donor=PAIRS[1])
    at.selectbox(key="model").set_value(DONOR).run()
    assert widget(at, "selectbox", "compare_donor").value == f"{PAIRS[0]}, turned round"
    assert faults(at) == [] and "does not ship" not in words(at)


def test_a_link_to_a_foreign_donor_opens_nothing_before_the_visitor_agrees(compare):
    at = compare(compare_donor="somebody/model")
    assert "does not ship with Patchbay" in words(at)
    assert "Open this model" in [button.label for button in at.button]


def test_a_link_to_a_donors_adapter_opens_nothing_before_the_visitor_agrees(compare):
    at = compare(compare_donor_adapter="/somewhere/lora")
    assert "names an adapter that does not ship with Patchbay" in words(at)
    at = next(button for button in at.button if button.label == "Open this adapter").click().run()
    assert len(faults(at)) == 1 and "lies outside the folders that may be read" in faults(at)[0]


def test_wrong_settings_are_one_sentence(compare):
    at = compare(compare_domain="planet", compare_donor=PAIRS[1])
    assert "no clip has a column 'planet'" in words(at)


def test_what_is_exported_is_the_figure_of_the_tab_on_show(compare, monkeypatch):
    seen = []
    monkeypatch.setattr(export, "menu", lambda shown, drawn=None, asked=None: seen.append(drawn))
    assert faults(compare()) == [] and seen[-1].title.startswith("unbiased linear CKA")
    assert faults(compare(cmp_tab="Transplants", cmp_view="Error rates")) == []
    assert seen[-1].title.startswith("Error rates") and "seed " in seen[-1].signed() and seen[-1].name == "Error rates"
    on_paper = export._on_paper(seen[-1])
    shown = [text.get_text() for text in on_paper.axes[0].get_yticklabels()]
    assert shown[:2] != [] and {"base", "donor"} <= set(shown) and "seed " in on_paper.get_supxlabel()
    assert faults(compare(cmp_tab="How it was computed")) == [] and seen[-1] is None  # the run's own figure
