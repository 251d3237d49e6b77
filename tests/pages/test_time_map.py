"""The time map on the patching page: its cells are the engine's numbers, and a click chooses layer and window."""

import base64
import json

import numpy as np
import pytest

from components import server as running
from components import state
from interp_core.experiments.experiment import open_result
from interp_core.experiments.patching.experiment import PATCHING, map_by_hand, pairs_of
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.time_map import pair_map
from tests.pages.conftest import by_key, click_point, faults, in_link, words
from tests.pages.test_patching import logits_on_page
from tests.pages.tiny_demo import N_LAYERS, NAME

FOLD = "time-map"


@pytest.fixture
def saved(assets):
    return open_result(PATCHING, assets / NAME / "run")


def test_the_fold_computes_the_map_of_the_pair_and_a_click_on_a_cell_chooses_its_layer_and_window(open_app, saved):
    at = open_app()
    at.session_state[FOLD] = True
    at.run()
    assert faults(at) == []
    pair_id = at.selectbox(key=state.PAIR).value
    request = PatchRequest.from_config(saved.config)
    [pair] = [one for one in pairs_of(running.engine(), request).pairs if one.pair_id == pair_id]
    records = map_by_hand(running.engine(), request, pair)
    expected = pair_map(records, saved.labels)
    drawn = json.loads(by_key(at, "plotly_chart", state.TIME_MAP).proto.spec)
    [matrix] = [trace for trace in drawn["data"] if trace["type"] == "heatmap"]
    shown = matrix["z"]
    if isinstance(shown, dict):
        shown = np.frombuffer(base64.b64decode(shown["bdata"]), dtype=shown["dtype"]).reshape(expected.shape)
    assert np.abs(np.asarray(shown, float) - expected).max() <= 0.05 + 1e-9, "to one decimal"
    assert len(expected) == N_LAYERS + 1
    click_point(at, state.TIME_MAP, "cells", 1 * expected.shape[1] + 1)
    assert faults(at) == []
    start, stop = records[1]["windows"][1]
    assert at.text_input(key=state.WINDOW).value == f"{start:.4g}-{stop:.4g}"
    assert at.toggle(key=state.ONLY_WINDOW).value and in_link(at, state.LAYER) == "0"
    assert "take B's states" in words(at)
    drawn = logits_on_page(at)["A after the patch"]
    assert sorted(drawn) == pytest.approx(sorted(records[1]["patched_logits"][1]), abs=1e-4), "those of the cell"


def test_a_run_without_a_map_shows_none_over_its_pairs(open_app):
    assert "Which moment carries it, over all pairs" not in [fold.label for fold in open_app().expander]
