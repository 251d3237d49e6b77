"""On the patching page: later layers in earlier ones, and prompts that state an answer, of a run and of one clip."""

import numpy as np
import pytest

from components import state
from interp_core.engine import Engine
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.back_map import changes
from interp_core.experiments.patching.conflict_figures import grid_of
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.stated import ALL_DIFFER, DOMINANCE, follows
from tests.pages.conftest import click_point, faults, words
from tests.pages.test_head_map import traces
from tests.pages.test_patching import _numbers
from tests.pages.tiny_demo import N_LAYERS, NAME

FOLDS = (state.FOLD_LATER, state.FOLD_LATER_HERE, state.FOLD_STATED, state.FOLD_STATED_HERE)


@pytest.fixture
def with_both(server):
    request = PatchRequest(
        NAME, kinds="prosody", max_pairs=4, device="cpu", controls=(), flow=(), checks=False, maps=("back",),
        stated="prosody_label",
    )  # fmt: skip
    out = server / "with-both"
    return out, run(PATCHING, Engine(), request, out=out)


def frame(at, alt):
    return next(table.value for table in at.dataframe if table.proto.alt.startswith(alt))


def matrix(at, key):
    [trace] = [each for each in traces(at, key).values() if each["type"] == "heatmap"]
    return np.asarray(_numbers(trace["z"]), float).reshape(N_LAYERS + 1, N_LAYERS + 1)


def test_the_map_of_a_run_is_its_table_and_a_click_shows_the_clips_answers_before_and_after(open_app, with_both):
    folder, result = with_both
    at = open_app(run=str(folder))
    for fold in FOLDS:
        at.session_state[fold] = True
    at.run()
    assert faults(at) == []
    table = result.conflict.back_map
    rows = table[(table["prompt"] == 0) & (table["column"] == "prosody_label")]
    layers, grid = grid_of(rows, "accuracy_change")
    np.testing.assert_allclose(matrix(at, state.BACK_MAP), 100 * grid, atol=1e-9)
    assert np.nan_to_num(np.diag(matrix(at, state.BACK_MAP)), nan=1).tolist() == [0] * len(layers)
    source, target = layers.index(3), layers.index(0)
    click_point(at, state.BACK_MAP, "cells", target * len(layers) + source)
    assert faults(at) == [] and at.selectbox(key=state.BACK_CELL).value == "3 into 0"
    cell = rows[(rows["source"] == 3) & (rows["target"] == 0)].iloc[0]
    assert f"{100 * cell.accuracy_patched:.0f} % after" in words(at)
    # The answers of every clip in that cell.
    shown = frame(at, "Clips at the selected cell").set_index("clip")
    own = [r for r in result.conflict.back_records if r["prompt"] == 0]
    assert len(shown) == len(own) == int(cell["n"])
    for record in own:
        logits = record["patched_logits"][record["cells"].index([3, 0])]
        assert shown.loc[record["clip_id"], "after"] == result.labels[int(np.argmax(logits))]
        assert shown.loc[record["clip_id"], "before"] == record["base_prediction"]
    # The selected pair's A alone, of the run's own records.
    recipient = next(line for line in result.pairs if line["pair_id"] == at.selectbox(key=state.PAIR).value)[
        "recipient"
    ]
    [record] = [r for r in own if r["clip_id"] == recipient]
    expected = changes(record, result.labels, "prosody_label")["logprob"]
    alone = matrix(at, state.BACK_OF_CLIP)
    for (source, target), value in zip(record["cells"], expected, strict=True):
        assert alone[layers.index(target), layers.index(source)] == pytest.approx(value, abs=1e-9)
    answers = frame(at, "A's answers before and after")
    logits = record["patched_logits"][record["cells"].index([3, 0])]
    assert answers["logit after"].tolist() == pytest.approx(logits, abs=0.006)


def test_a_link_names_the_parts_that_are_open_and_the_cell_that_is_selected(open_app, with_both):
    folder, result = with_both
    table = result.conflict.back_map
    cells = [(int(row.source), int(row.target)) for row in table.itertuples() if row.source > row.target]
    said = {state.FOLD_LATER: "true", state.FOLD_NUMBERS: "true", state.BACK_CELL: "2 into 1"}
    at = open_app(run=str(folder), **said)
    assert (2, 1) in cells and faults(at) == []
    assert {fold.label for fold in at.expander if fold.proto.expanded} >= {
        "Later layers in earlier ones, over clips",
        "Numbers behind the curve",
    }
    assert at.selectbox(key=state.BACK_CELL).value == "2 into 1"
    assert matrix(at, state.BACK_MAP).size
    click_point(at, state.BACK_MAP, "cells", 3)  # row 0, column 3
    assert at.query_params[state.BACK_CELL] in ("2 into emb", ["2 into emb"])
    assert at.query_params[state.FOLD_LATER] in ("true", ["true"])


def test_the_shares_of_a_run_are_drawn_with_every_answer_beside_them(open_app, with_both):
    folder, result = with_both
    at = open_app(run=str(folder))
    at.session_state[state.FOLD_STATED] = True
    at.run()
    assert faults(at) == []
    table = result.conflict.stated_shares
    rows = table[(table["prompt"] == 0) & (table["items"] == ALL_DIFFER) & (table["source"] != DOMINANCE)]
    drawn = traces(at, state.STATED_BARS)
    names = {"text": "the prompt's text", "none": "none of them"}
    for row in rows.itertuples():
        assert list(_numbers(drawn[names.get(row.source, row.source)]["y"]))[-1] == pytest.approx(row.share)
    assert "Text dominance" in words(at)
    layers = result.conflict.stated_layers
    own = layers[(layers["prompt"] == 0) & (layers["span"] == "question") & (layers["items"] == ALL_DIFFER)]
    voice = own[own["source"] == "voice"].sort_values("layer")["share"].tolist()
    [drawn] = [each for name, each in traces(at, state.STATED_CURVE).items() if str(name).startswith("voice")]
    assert list(_numbers(drawn["y"])) == pytest.approx(voice)
    shown = frame(at, "Clips, what voice and words are").set_index("clip")
    label = result.labels[0]
    own = [r for r in result.conflict.stated_records if (r["prompt"], r["stated"]) == (0, label)]
    assert len(shown) == len(own)
    for record in own:
        assert shown.loc[record["clip_id"], "with it"] == record["prediction"]
        assert shown.loc[record["clip_id"], "follows"] == follows(record).replace("stated", "text")


def test_a_run_without_either_has_only_the_folds_of_one_clip_and_they_compute_when_opened(open_app):
    at = open_app()
    folds = [fold.label for fold in at.expander]
    assert "Later layers in earlier ones, over clips" not in folds
    assert "Voice, words, or what the prompt states" not in folds
    assert "Later layers of A in its earlier ones" in folds and "State an answer to A in the prompt" in folds
    at.session_state[state.FOLD_LATER_HERE] = at.session_state[state.FOLD_STATED_HERE] = True
    at.run()
    assert faults(at) == []
    assert np.nan_to_num(np.diag(matrix(at, state.BACK_OF_CLIP)), nan=1).tolist() == [0] * (N_LAYERS + 1)
    asked = frame(at, "A's answer for every statement")
    assert asked["the prompt states"].tolist()[0] == "nothing" and len(asked) == 6
