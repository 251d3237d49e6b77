"""The view Heads of the patching page: the map of the run, a click on a head, the head on the selected pair."""

import json
import math

import pytest

from components import state
from interp_core.engine import Engine
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.experiment import PATCHING, head_patch_by_hand, heads_by_hand
from interp_core.experiments.patching.request import PatchRequest
from tests.pages.conftest import by_key, click, faults, words
from tests.pages.tiny_demo import N_LAYERS, NAME


@pytest.fixture
def request_of_map():
    return PatchRequest(
        NAME, kinds="prosody", max_pairs=4, device="cpu", controls=(), flow=(), checks=False, maps=("heads",),
        top_heads=2,
    )  # fmt: skip


@pytest.fixture
def with_map(server, request_of_map):
    """A run with a map of heads, below the folders that the server may read."""
    out = server / "with-map"
    return out, run(PATCHING, Engine(), request_of_map, out=out)


def traces(at, key):
    return {trace.get("name"): trace for trace in json.loads(by_key(at, "plotly_chart", key).proto.spec)["data"]}


def test_a_click_on_the_map_selects_the_head_and_patches_it_on_the_selected_pair(open_app, with_map, request_of_map):
    folder, result = with_map
    at = open_app(run=str(folder), view="Heads")
    assert faults(at) == []
    rows = result.heads_of("prosody")
    heads = rows[rows.site == "head_out"]
    cells = traces(at, state.HEAD_MAP)["cells"]
    assert len(cells["customdata"]) == len(heads) == 4 * N_LAYERS
    signs = "".join(traces(at, state.HEAD_MAP)["numbers"]["text"])
    assert signs.count("□") == 2 and signs.count("◇") == 10, "verified heads are told by their sign, not by colour"
    best = heads.loc[heads.true_mean.abs().idxmax()]
    assert at.selectbox(key=state.HEAD).value == f"L{best.layer}H{best['head']}"
    other = heads[heads.verified == ""].iloc[0]
    layer, head = int(other.layer), int(other["head"])
    at = click(at, state.HEAD_MAP, [layer, head])
    assert faults(at) == [] and at.selectbox(key=state.HEAD).value == f"L{layer}H{head}"
    said = words(at)
    assert f"L{layer}H{head}**: estimate {other.estimate_mean:+.3f}" in said and "Not verified" in said
    engine = Engine()
    pair = next(
        p
        for p in PATCHING.prepare(engine, request_of_map).plan.pairs.pairs
        if p.pair_id == at.selectbox(key=state.PAIR).value
    )
    truth = head_patch_by_hand(engine, request_of_map, pair, layer, head)
    seen = heads_by_hand(engine, request_of_map, pair)
    assert math.isfinite(truth["target_change"])
    assert f"{truth['target_change']:+.3f} nats by a true patch, {seen.estimates[layer, head]:+.3f} estimated" in said
    share = 100 * float(seen.attention.frames[layer, head].sum())
    assert f"the readout position gives {share:.0f} % of its attention to the recording" in said
    assert f"L{layer}H{head}" in traces(at, "head_attention")


def test_a_run_without_a_map_says_how_to_get_one(open_app):
    at = open_app(view="Heads")
    assert faults(at) == [] and "This run has no map of heads" in words(at)
    assert by_key(at, "plotly_chart", "curve")


def test_a_head_that_a_link_names_and_the_model_lacks_falls_back(open_app, with_map):
    at = open_app(run=str(with_map[0]), view="Heads", head="L99H0")
    assert faults(at) == [] and at.selectbox(key=state.HEAD).value in at.selectbox(key=state.HEAD).options
