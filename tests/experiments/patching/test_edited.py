"""Donors made by editing the sound: same clips for every dose, nulls that are null, and a planted dose-response.

The planted model answers by how loud a recording is and writes that at one layer alone (`time_planted`): by how much a
level was moved says which answer comes, and at which layer the patch carries it.
"""

import json
import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from interp_core.cache import ByteCache
from interp_core.cli import parser, request_of
from interp_core.data.edits import clip_named, edited, parse_edit, read_clip
from interp_core.data.pairs import parse_kinds
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.patching.by_hand import pair_text
from interp_core.experiments.patching.edit_doses import best_layer, curves_of, dose_table
from interp_core.experiments.patching.edit_figures import edit_figures
from interp_core.experiments.patching.edited import edit_pairs
from interp_core.experiments.patching.experiment import PATCHING, pair_by_hand, patch_by_hand
from interp_core.experiments.patching.plan import plan
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.run import base_predictions, run_patching
from interp_core.experiments.report.page import Recordings
from interp_core.jobs import Cancelled
from interp_core.options import from_config, python_call, to_config
from interp_core.sinks import MEMORY
from interp_core.trace.store import CleanStore
from tests.corpus import assert_same_records
from tests.experiments import time_planted

LAYER = 1
DOSES = (0, -2.2, -2.4, -2.6, -2.8)
"""Around where a loud clip begins to sound like a middling one to the model, at -2.5 dB."""


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    """Loud clips of the planted model, each a unit of its own, which it calls angry."""
    some = time_planted.clips(tmp_path_factory.mktemp("planted"), texts=12)
    return [clip for clip in some if clip.label("prosody_label") == "angry"]


def planted_run(clips, kinds, **settings):
    subject = time_planted.planted(LAYER, 1)
    asked = PatchRequest(
        "planted", "none", kinds=kinds, labels=time_planted.LABELS, prompts=("",), site="mlp_out", positions="audio",
        controls=("random",), flow=(), checks=False, **settings,
    )  # fmt: skip
    store = CleanStore(subject, ByteCache(1 << 26))
    made = edit_pairs(store, clips, parse_kinds(kinds), asked)
    config = {"settings": {"labels": time_planted.LABELS, "prompts": ("",)}, "model": {"id": "planted"}}
    return run_patching(plan(subject, made, clips, asked), store, clips, config, sink=MEMORY), made


@pytest.fixture(scope="module")
def dosed(loud):
    return planted_run(loud, ",".join(f"edit:level={dose}" for dose in DOSES))


def test_a_model_that_answers_by_level_moves_with_the_dose_and_only_at_the_layer_that_carries_it(dosed):
    doses = dosed[0].edit_doses
    here = doses[(doses["answers"] == "all") & (doses["layer"] == LAYER)].set_index("dose")
    assert best_layer(doses) == LAYER and curves_of(doses) == ("level",)
    effects = here.loc[list(map(float, DOSES)), "change"].to_numpy()
    assert (np.diff(effects) > 0.05).all(), "each further step moves the logits further"
    assert effects[0] == 0 and here.loc[0.0, "whole_change"] == 0
    assert here.loc[-2.8, "flip_rate"] == here.loc[-2.8, "whole_flip_rate"] > 0.8, "angry, turned down, is sad"
    assert here.loc[-2.2, "whole_flip_rate"] < 0.2
    np.testing.assert_allclose(here["change"], here["whole_change"], atol=1e-5)
    np.testing.assert_allclose(here["recovered"].drop(0.0), 1, atol=1e-5)
    elsewhere = doses[(doses["answers"] == "all") & (doses["layer"] != LAYER)]  # control: what nobody reads
    assert (elsewhere["change"].abs() < 1e-6).all() and (elsewhere["flip_rate"] == 0).all()
    assert (elsewhere["whole_change"].groupby(elsewhere["dose"]).max().drop(0.0) > 0.05).all()


def test_the_target_is_the_models_own_answer_to_the_copy_and_an_answer_that_stays_is_counted(dosed, loud):
    result, made = dosed
    store = CleanStore(time_planted.planted(LAYER, 1), ByteCache(1 << 26))
    asked = PatchRequest("planted", "none", labels=time_planted.LABELS, prompts=("",))
    for pair in made.pairs[::7]:
        own = next(base_predictions(store, [pair.donor], asked))["prediction"]
        assert pair.target == own and pair.donor.original is pair.recipient
    doses = result.edit_doses[result.edit_doses["layer"] == LAYER].set_index(["dose", "answers"])
    for dose, kind in zip(DOSES, made.kinds, strict=True):
        stays = made.report["kinds"][kind.name]["answer_stays"]
        counts = {answers: int(doses.loc[(dose, answers), "n"]) for answers in ("all", "turns", "stays")}
        assert counts == {"all": 12, "turns": 12 - stays, "stays": stays}
    assert made.report["kinds"][made.kinds[0].name]["answer_stays"] == 12
    assert doses.loc[(-2.4, "stays"), "n"] > 0 and doses.loc[(-2.4, "stays"), "change"] > 0.1, (
        "said, though nothing flips"
    )


def test_the_effect_is_that_of_a_plain_loop_over_the_records(dosed):
    result, _ = dosed
    records = result.records[(result.records["condition"] == "matched") & (result.records["layer"] == LAYER)]
    for kind in dict.fromkeys(records["kind"]):
        rows = records[records["kind"] == kind]
        effects, wholes = [], []
        for _, row in rows.iterrows():
            a, b, p = (np.array(row[f"{name}_logits"]) for name in ("base", "donor", "patched"))
            whole, part = (b - a) - np.mean(b - a), (p - a) - np.mean(p - a)
            wholes.append(np.sqrt((whole**2).sum()))
            effects.append((whole * part).sum() / wholes[-1] if wholes[-1] else 0.0)
        table = result.edit_doses.query("kind == @kind and answers == 'all' and layer == @LAYER").iloc[0]
        assert table["change"] == pytest.approx(np.mean(effects), abs=1e-9)
        assert table["whole_change"] == pytest.approx(np.mean(wholes), abs=1e-9)
        if max(wholes):
            assert table["recovered"] == pytest.approx(sum(effects) / sum(wholes), abs=1e-9)
            assert table["change_low"] <= table["change"] <= table["change_high"] and table["n_clusters"] == 12


def test_under_ten_units_there_is_no_interval_and_it_is_said(loud):
    result, _ = planted_run(loud[:4], "edit:level=-3,edit:level=-6")
    assert result.edit_doses[["change_low", "flip_rate_high"]].isna().all().all()
    assert set(result.edit_doses["interval_method"]) >= {"no interval: 4 text_id clusters, 10 needed"}


def test_every_dose_has_the_same_clips_and_more_pairs_keep_those_that_were_there(dosed, loud):
    _, made = dosed
    by_kind = [[pair.recipient.clip_id for pair in made.of(kind.name)] for kind in made.kinds]
    assert all(ids == by_kind[0] for ids in by_kind) and sorted(by_kind[0]) == sorted(clip.clip_id for clip in loud)
    store = CleanStore(time_planted.planted(LAYER, 1), ByteCache(1 << 26))
    asked = PatchRequest("planted", "none", labels=time_planted.LABELS, prompts=("",), max_pairs=5)
    fewer = edit_pairs(store, loud[::-1], parse_kinds("edit:level=-6"), asked)
    assert [pair.recipient.clip_id for pair in fewer.pairs] == by_kind[0][:5]
    other = edit_pairs(store, loud, parse_kinds("edit:level=-6"), replace(asked, seed=1))
    assert [pair.recipient.clip_id for pair in other.pairs] != by_kind[0][:5]


def test_a_figure_is_drawn_of_every_edit_that_has_two_doses_and_of_no_other(dosed, loud):
    assert list(edit_figures(dosed[0].edit_doses, "m")) == ["edit_doses_level"]
    one, _ = planted_run(loud[:3], "edit:level=-6,edit:noise=20")
    assert edit_figures(one.edit_doses, "m") == {} and curves_of(one.edit_doses) == ()
    assert dose_table(one.records, planted_run(loud[:3], "edit:level=-6")[1], loud)["kind"].unique().tolist() == [
        "edit~level~-6"
    ]


# ---- through the engine, on an audio LLM -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_edits(plain):
    kinds = "edit:level=0,edit:pitch=+4,edit:rate=1.3,prosody"
    return replace(plain, kinds=kinds, max_pairs=2, layers=(0, 2))


@pytest.fixture(scope="module")
def folder(engine, with_edits, tmp_path_factory):
    return run_into(engine, with_edits, tmp_path_factory.mktemp("edited") / "run")


def run_into(engine, asked, out, **more):
    run(PATCHING, engine, asked, out=out, **more)
    return out


def test_a_run_says_what_its_edits_did_and_reads_back_with_its_pairs(engine, with_edits, folder, ready):
    result = open_result(PATCHING, folder)
    assert result.kinds == ("edit~level~0", "edit~pitch~4", "edit~rate~1.3", "prosody")
    edits = result.edits.set_index(["edit", "recording"])
    assert len(edits) == 6 and edits.loc["rate=1.3", "duration_s_after"].mean() == pytest.approx(
        edits.loc["rate=1.3", "duration_s_before"].mean() / 1.3, rel=0.01
    )
    assert (folder / "edit_doses.csv").exists() and set(result.edit_doses["kind"]) == set(result.kinds[:3])
    said = "\n".join(PATCHING.summary(result))
    assert "edit:level=0: median over 2 clips" in said and "the answer to B is another in 0 of 2 pairs" in said
    assert "in 2 of kind edit~level~0 B is answered as A is" in str(result.config["rests_on"])
    assert PatchRequest.from_config(result.config).kinds == with_edits.kinds
    clips = {clip.clip_id: clip for clip in ready.manifest.clips}
    for line in result.pairs[:6]:
        assert clip_named(line["donor"], clips).original.clip_id == line["recipient"]


def test_the_report_plays_the_edited_copy(engine, folder, ready):
    result = open_result(PATCHING, folder)
    recordings, clips = Recordings(result.config, engine, None), {c.clip_id: c for c in ready.manifest.clips}
    donor = result.pairs[2]["donor"]
    expected = read_clip(clip_named(donor, clips), recordings.sound(donor).sample_rate)
    assert " edit:pitch=+4" in donor and np.array_equal(recordings.sound(donor).samples, expected)
    assert not np.array_equal(recordings.sound(result.pairs[2]["recipient"]).samples, expected)  # control


def test_the_kinds_go_through_command_config_and_snippet(with_edits):
    line = with_edits.command_line("runs/x")
    asked = request_of(parser().parse_args(shlex.split(line)[3:]))
    assert asked == with_edits
    again = from_config(PatchRequest, json.loads(json.dumps(to_config(with_edits))))
    assert again == with_edits and again.key == with_edits.key
    assert replace(with_edits, kinds="edit:pitch=+5").key != with_edits.key
    made = {}
    exec(f"from interp_core.experiments.patching.request import *; made = {python_call(with_edits)}", made)
    assert made["made"] == with_edits


def test_a_dose_of_nothing_changes_no_logit_at_any_layer(folder):
    records = open_result(PATCHING, folder).records
    null, other = (records[records["kind"] == kind] for kind in ("edit~level~0", "edit~pitch~4"))
    assert null["donor_logits"].tolist() == null["base_logits"].tolist()
    # Rows that travel in a batch differ from one row alone by the last digit of a record.
    np.testing.assert_allclose(np.stack(null["patched_logits"]), np.stack(null["base_logits"]), atol=2.1e-5)
    assert np.abs(np.stack(other["patched_logits"]) - np.stack(other["base_logits"])).max() > 0.1  # control


def test_the_fast_route_is_the_reference_with_edited_donors(engine, with_edits):
    some = replace(with_edits, kinds="edit:rate=1.3,edit:pitch=+4", max_pairs=1)
    fast, reference = (run(PATCHING, engine, replace(some, method=method)).records for method in ("fast", "reference"))
    a, b = (np.stack(records["patched_logits"]) for records in (fast, reference))
    assert np.abs(a - b).max() <= 1e-4 * max(1, np.abs(b).max())


def test_a_run_that_is_stopped_goes_on_with_the_same_pairs(with_edits, folder, tmp_path):
    steps = [0]

    def stop(done, total, note=""):
        steps[0] += note.startswith("matched")
        if steps[0] == 2:
            raise Cancelled

    out = tmp_path / "run"
    with pytest.raises(Cancelled):
        run(PATCHING, Engine(), with_edits, out=out, progress=stop)
    run(PATCHING, Engine(), with_edits, out=out, resume=True)
    assert_same_records(open_result(PATCHING, out).records, open_result(PATCHING, folder).records)
    for path in folder.iterdir():
        if path.suffix in (".csv", ".jsonl"):
            assert path.read_bytes() == (out / path.name).read_bytes(), path.name


def test_a_pair_by_hand_takes_an_edited_copy_on_either_side(engine, plain, ready):
    a = ready.manifest.clips[0]
    copy = edited(a, parse_edit("pitch=+4"))
    hand = replace(plain, kinds="", max_pairs=PatchRequest("m").max_pairs)
    texts = (pair_text(a.clip_id, copy.clip_id), pair_text(copy.clip_id, a.clip_id))
    result = run(PATCHING, engine, replace(hand, pairs=texts))
    assert list(dict.fromkeys(result.records["pair_id"])) == list(texts) and len(result.edits) == 1
    alone = patch_by_hand(engine, hand, pair_by_hand(engine, hand, a, copy))
    pd.testing.assert_series_equal(
        result.records[result.records["pair_id"] == texts[0]]["patched_logits"].reset_index(drop=True),
        alone["patched_logits"],
    )
    with pytest.raises(InterpError, match="names 'nobody edit:pitch=\\+4'"):
        run(PATCHING, engine, replace(hand, pairs=(f"{a.clip_id} <- nobody edit:pitch=+4",)))


def test_edits_that_cannot_be_made_are_all_named_before_the_run(engine, plain):
    with pytest.raises(InterpError) as caught:
        PATCHING.prepare(engine, replace(plain, kinds="edit:band=300-9000,edit:rate=0.25,edit:pitch=+1", max_pairs=4))
    said = str(caught.value)
    assert "edit:band=300-9000 on" in said and "(4 of 12 copies): it has no sound above 8000 Hz" in said
    assert "pitch" not in said


@pytest.mark.parametrize(
    "kinds, said",
    [
        ("edit:pitch=4,edit:pitch=+4", "'edit~pitch~4' is there more than once"),
        ("edit:pitsch=4", "did you mean 'pitch'"),
        ("edit:", "unknown edit ''"),
    ],
)
def test_kinds_that_are_no_edit_are_refused(kinds, said):
    with pytest.raises(InterpError, match=said):
        parse_kinds(kinds)
