"""Subspaces on the patching page: a run that exchanged one has a view of it, with random ones beside it."""

import json

import pytest

from components import server as running
from components import state
from tests.pages.conftest import OpenApp, by_key, click_point, faults, words
from tests.pages.test_in_words import numbers


def test_a_run_within_a_subspace_has_a_view_of_it_and_says_what_it_does_not_show(open_app: OpenApp) -> None:
    at = open_app(
        patch_kinds="semantic", patch_max_pairs="3", patch_subspace="mean-difference", patch_subspace_draws="2",
        patch_controls="", patch_flow="", patch_checks="false",
    )  # fmt: skip
    assert "Subspace" not in at.selectbox(key=state.VIEW).options
    at = next(button for button in at.button if button.label == "Run on all pairs").click().run()
    assert faults(at) == []
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    at = at.run()
    at = at.selectbox(key=state.VIEW).set_value("Subspace").run()
    at = at.selectbox(key=state.MEASURE).set_value("log-probability").run()
    assert faults(at) == [] and "2 random subspaces by" in words(at) and "2303.02536" in words(at)
    drawn = json.loads(by_key(at, "plotly_chart", state.CURVE).proto.spec)["data"]
    traces = [one for one in drawn if one.get("customdata")]
    table = job.result.subspace.sort_values("layer")
    for trace, condition in zip(traces, ("random", "subspace", "whole"), strict=True):
        rows = table[table["condition"] == condition]
        assert numbers(trace["y"]) == pytest.approx(rows["delta_logprob_target_mean"].tolist())
    at = click_point(at, state.CURVE, "whole state", 1)
    assert faults(at) == [] and at.select_slider(key=state.LAYER).value == "0" and "1 direction at layer 0" in words(at)
