"""The runs page: what is listed, what may be done with a run, and two runs side by side."""

import io
import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from components import server as of_server
from components import shown, state, visitors
from components.runs import charts, compared, pack, rows
from interp_core import experiments
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run, start
from interp_core.jobs import Cancelled
from interp_core.models import bundled
from interp_core.runs import find_runs, read_notes
from interp_core.storage import claim, release
from tests.pages.conftest import PATIENCE_S, ROOT, by_key, faults, send, words
from tests.pages.tiny_demo import NAME
from tests.toy.experiment import LOUDNESS
from tests.toy.request import LoudnessRequest

N_CLIPS = 12


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(experiments.EXPERIMENTS, "loudness", experiments.Registered(LoudnessRequest, lambda: LOUDNESS))


@pytest.fixture
def kept(server):
    """The runs folder with a finished run, another one of other settings, an unfinished one and a damaged one."""
    folder, engine = server / "runs", Engine()
    run(LOUDNESS, engine, LoudnessRequest(NAME), out=folder / "rms")
    run(LOUDNESS, engine, LoudnessRequest(NAME, measure="peak", seed=7), out=folder / "peak")

    def kill(done, total, note=""):
        if done == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(LOUDNESS, engine, LoudnessRequest(NAME, seed=3), out=folder / "half", progress=kill)
    shutil.copytree(folder / "rms", folder / "torn")
    (folder / "torn" / "loudness_config.json").write_text("{")
    for number, name in enumerate(("rms", "peak")):  # the clock has seconds
        config = folder / name / "loudness_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"finished": f"2031-01-0{number + 1}T00:00"}))
    return folder


def visit(**parameters):
    at = AppTest.from_file(str(ROOT / "pages" / "runs.py"), default_timeout=PATIENCE_S)
    for name, value in parameters.items():
        at.query_params[name] = value
    return at.run()


def listed(at):
    return by_key(at, "dataframe", state.RUNS_TABLE).value


def button(at, label):
    return next(one for one in at.button if one.label == label)


def labels(at):
    return [one.label for one in at.button]


def select(at, number):
    return send(at, by_key(at, "dataframe", state.RUNS_TABLE), {"rows": [number], "columns": [], "cells": []})


def test_every_run_is_a_line_and_a_damaged_folder_is_one_that_says_so(kept):
    at = visit()
    assert faults(at) == []
    lines = listed(at)
    states = dict(zip(zip(lines["experiment"], lines["asked"], strict=True), lines["state"], strict=True))
    assert states[("loudness", "")] == states[("loudness", "Seed: 7; Measure: peak")] == "finished"
    assert states[("loudness", "Seed: 3")] == "unfinished"
    (torn,) = lines[lines["state"] == "damaged"].to_dict("records")
    assert torn["asked"].startswith("torn/loudness_config.json cannot be read") and torn["experiment"] == "loudness"
    (shipped,) = lines[lines["source"] == "shipped"].to_dict("records")
    assert shipped["experiment"] == "patch" and shipped["model"] == NAME and "Most pairs a kind: 8" in shipped["asked"]
    assert "1 of them cannot be read" in words(at) and len(lines) == 5
    assert list(lines["made"])[:2] == ["2031-01-02 00:00", "2031-01-01 00:00"], "the newest first"


def test_what_is_wrong_inside_a_config_is_one_line_and_never_an_error_page(kept):
    for name, value in (("a", []), ("b", {"command": "loudness", "model": {"id": 3}, "asked": {"seed": 1}}), ("c", 1)):
        shutil.copytree(kept / "rms", kept / name)
        (kept / name / "loudness_config.json").write_text(json.dumps(value))
    at = visit(run=str(kept / "b"))
    assert not at.exception and len(faults(at)) <= 1
    assert {"damaged"} == set(listed(at)[listed(at)["asked"].str.startswith(("a/", "c/"))]["state"])
    shutil.rmtree(kept / "peak" / "nothing", ignore_errors=True)
    (kept / "peak" / "loudness.csv").unlink()
    at = visit(run=str(kept / "peak"), runs_look="Tables")
    assert not at.exception and len(faults(at)) == 1 and "loudness.csv" in faults(at)[0].replace("\\", "")


def test_filters_leave_what_all_of_them_let_through(kept):
    at = visit(runs_of="loudness")
    assert set(listed(at)["experiment"]) == {"loudness"} and "4 of 5 runs" in words(at)
    at = visit(runs_state="unfinished")
    assert list(listed(at)["asked"]) == ["Seed: 3"]
    at = visit()
    at = at.text_input(key=state.RUNS_TEXT).set_value("PEAK finished").run()
    assert list(listed(at)["asked"]) == ["Seed: 7; Measure: peak"]
    at = at.multiselect(key=state.RUNS_OF).set_value(["patch"]).run()
    assert "0 of 5 runs" in words(at) and faults(at) == []


def test_notes_are_kept_in_the_folder_and_shown_in_the_table(kept):
    at = select(visit(), 0)
    assert at.query_params[state.RUN] in ([str(kept / "peak")], str(kept / "peak"))
    at.text_area[0].set_value("loud <b>and</b>\nclear")
    at = button(at, "Keep the notes").click().run()
    assert faults(at) == [] and read_notes(kept / "peak") == "loud <b>and</b>\nclear"
    at = visit()
    assert listed(at)["notes"][0] == "loud <b>and</b> clear"
    at = at.text_input(key=state.RUNS_TEXT).set_value("clear").run()
    assert len(listed(at)) == 1


def test_a_click_on_any_cell_of_a_line_chooses_it_and_marks_the_line(kept):
    at = visit()
    table = by_key(at, "dataframe", state.RUNS_TABLE)
    at = send(at, table, {"rows": [], "columns": [], "cells": [[1, "model"]]})
    assert faults(at) == []
    key = table.proto.id.rpartition("None-")[2] or table.proto.id
    assert at.session_state[key]["selection"]["rows"] == [1]
    chosen = at.query_params[state.RUN]
    at = select(visit(), 1)
    assert at.query_params[state.RUN] == chosen


def test_a_run_is_deleted_at_the_second_press_and_another_selection_disarms(kept):
    at = select(visit(), 0)
    at = button(at, "Delete …").click().run()
    assert (kept / "peak").exists() and "Delete it for good" in labels(at)
    at = select(at, 1)
    assert "Delete it for good" not in labels(at)
    at = select(at, 0)
    assert "Delete it for good" not in labels(at)
    at = button(at, "Delete …").click().run()
    at = button(at, "Keep it").click().run()
    assert "Delete it for good" not in labels(at)
    at = button(at, "Delete …").click().run()
    at = button(at, "Delete it for good").click().run()
    assert not (kept / "peak").exists() and faults(at) == [] and len(listed(at)) == 4


def test_a_run_that_somebody_else_asked_for_is_deleted_by_them_alone(kept, monkeypatch):
    from components.runs import actions

    def made(progress):
        return open_result(LOUDNESS, kept / "peak")

    job = of_server.engine().jobs.submit("of another", "Another's", made, place=kept / "peak")
    job.asked_by.add("another")
    assert job.wait(30) and job.status == "done", job.error
    at = select(visit(), 0)
    assert "Delete …" not in labels(at) and "only they can delete it" in words(at)
    (row,) = [row for row in rows.every() if row.folder == kept / "peak"]
    with pytest.raises(InterpError, match="asked for by somebody else"):
        actions.delete(row)
    assert (kept / "peak").is_dir()
    monkeypatch.setenv("PATCHBAY_CANCEL", "all")
    assert "Delete …" in labels(select(visit(), 0))


def test_what_ships_what_lies_elsewhere_and_what_is_written_now_is_not_deleted(kept, server, assets, monkeypatch):
    from components.runs import actions

    shutil.copytree(kept / "rms", server / "elsewhere" / "mine")
    shipped = assets / NAME / "run"
    for name, also in ((str(shipped), ""), (str(server / "elsewhere" / "mine"), str(server / "elsewhere"))):
        at = visit(run=name, folder=also)
        assert faults(at) == [] and "Facts" not in labels(at) and "Delete …" not in labels(at)
        assert not at.text_area, "its notes are read only"
        (row,) = [row for row in rows.every(rows.folder_of(also)) if row.name == name]
        with pytest.raises(InterpError, match="ships with|outside the runs folder"):
            actions.delete(row)
    assert shipped.is_dir() and (server / "elsewhere" / "mine").is_dir()
    monkeypatch.setenv("PATCHBAY_RUNS", str(assets))  # also where the demos lie in the runs folder
    (row,) = [row for row in rows.every() if row.name == str(shipped)]
    assert not row.writable
    with pytest.raises(InterpError, match="ships with"):
        actions.delete(row)
    monkeypatch.setenv("PATCHBAY_RUNS", str(kept))
    lock = claim(kept / "half")
    at = visit(run=str(kept / "half"))
    assert set(listed(at)[listed(at)["asked"] == "Seed: 3"]["state"]) == {"running"}
    assert "Delete …" not in labels(at) and "Go on" not in labels(at) and "is writing" in words(at)
    (row,) = [row for row in rows.every() if row.name == str(kept / "half")]
    with pytest.raises(InterpError, match="is writing"):
        actions.delete(row)
    release(kept / "half", lock)


def test_going_on_computes_the_rest_in_the_same_folder(kept, monkeypatch):
    monkeypatch.setattr(visitors, "visitor", lambda: "one browser")  # which may delete what it asked for
    at = visit(run=str(kept / "half"))
    monkeypatch.setattr(LOUDNESS, "passes", 0, raising=False)
    at = button(at, "Go on").click().run()
    (job,) = of_server.engine().jobs.jobs()
    assert job.wait(300) and job.error is None and LOUDNESS.passes == N_CLIPS - 5
    whole = open_result(LOUDNESS, kept / "rms").metrics
    pd.testing.assert_frame_equal(open_result(LOUDNESS, kept / "half").metrics, whole)
    at = visit(run=str(kept / "half"))
    assert faults(at) == [] and "Go on" not in labels(at)
    assert "in memory" not in set(listed(at)["source"]), "a result that is kept in a folder is one line"
    at = button(at, "Delete …").click().run()
    at = button(at, "Delete it for good").click().run()
    assert len(listed(at)) == 4 and of_server.engine().jobs.jobs() == ()


def test_going_on_with_a_model_that_nobody_named_first_asks_to_open_it(kept):
    config = kept / "half" / "loudness_config.json"
    config.write_text(config.read_text().replace(f'"id": "{NAME}"', '"id": "/no/such/model"'))
    at = visit(run=str(kept / "half"))
    assert "Go on" not in labels(at)
    (opens,) = [one for one in at.button if one.label.startswith("Open the model")]
    at = opens.click().run()
    at = button(at, "Go on").click().run()
    assert len(faults(at)) == 1 and not at.exception and of_server.engine().jobs.jobs() == ()


def test_a_run_in_memory_is_a_line_with_its_tables_and_a_link_that_opens_it(server, open_app):
    job = start(LOUDNESS, of_server.engine(), LoudnessRequest(NAME, seed=5))
    assert job.wait(300) and job.error is None
    at = visit(run=job.key, runs_look="Tables")
    (line,) = listed(at)[listed(at)["source"] == "in memory"].to_dict("records")
    assert line["asked"] == "Seed: 5" and line["state"] == "finished" and line["made"]
    assert faults(at) == [] and "memory alone" in words(at) and len(at.dataframe[1].value) == N_CLIPS
    with zipfile.ZipFile(io.BytesIO(pack.zip_result(job.result, "x"))) as packed:
        assert packed.namelist() == ["x/config.json", "x/loudness.csv"]
    at = open_app(run=job.key)
    at = at.switch_page(str(ROOT / "pages" / "runs.py")).run()
    (link,) = [link for link in at.get("page_link") if "Open on the page" in link.proto.label]
    assert link.proto.query_string == f"{state.RUN}={job.key}"
    at.query_params[state.RUN] = job.key
    assert shown.linked(job.key).result is job.result and shown.linked(job.key).source == "job"


def test_an_unfinished_run_elsewhere_says_why_it_is_not_gone_on_with_and_by_which_command(kept, server):
    (server / "elsewhere").mkdir()
    shutil.move(kept / "half", server / "elsewhere" / "half")
    place = server / "elsewhere" / "half"
    at = visit(run=str(place), folder=str(place.parent))
    assert faults(at) == [] and "Go on" not in labels(at)
    assert "outside the runs folder, the only place where the dashboard writes" in words(at)
    command = next(one.value for one in at.code if "--resume" in one.value)
    assert "loudness" in command and f"--out={place} --resume" in command and "--seed=3" in command


@pytest.mark.parametrize("name", ["nothing-there", "there", "../{}/there", "{}\0"])
def test_a_folder_outside_is_refused_in_the_same_words_whether_it_exists_or_not(kept, tmp_path_factory, name):
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree(kept / "rms", outside / "there" / "run")
    typed = outside / name.format(outside.name)
    at = visit(folder=str(typed))
    (fault,) = faults(at)
    said = fault.replace("\\", "").replace(" ".join(str(typed).split()), "X")
    assert said.startswith("X lies outside the folders that may be read") and len(listed(at)) == 5
    (kept / "link").symlink_to(outside / "there")
    assert "outside" in faults(visit(folder=str(kept / "link")))[0]


def test_a_folder_inside_is_listed_and_its_models_are_no_runs(kept, server, assets, monkeypatch):
    shutil.copytree(kept / "rms", server / "more" / "deep" / "one")
    shutil.copytree(assets / NAME / "model", server / "more" / "model")
    at = visit(folder=str(server / "more"), run=str(server / "more" / "deep" / "one"))
    assert faults(at) == [] and list(listed(at)["source"]).count("folder more") == 1 and len(listed(at)) == 6
    assert [run.path.name for run in find_runs(server / "more")] == ["one"]
    assert "loudness · demo-tiny" in " ".join(one.value.replace("\\", "") for one in at.subheader)
    monkeypatch.setattr(rows, "MOST_FOLDERS", 2)
    at = visit(folder=str(server / "more"))
    assert len(faults(at)) == 1 and "more than 2 folders" in faults(at)[0].replace("\\", "") and len(listed(at)) == 5


def test_two_runs_side_by_side_show_what_was_asked_otherwise_and_numpys_difference(kept):
    at = visit(run=str(kept / "peak"), runs_look="Side by side")
    assert faults(at) == []
    apart, values = at.dataframe[1].value, at.dataframe[2].value
    assert dict(zip(apart["setting"], zip(apart["run 1"], apart["run 2"], strict=True), strict=True)) == {
        "Seed": ("7", "42"),
        "Measure": ("peak", "rms"),
    }
    peak, rms = (
        open_result(LOUDNESS, kept / name).metrics.set_index("clip_id")["loudness"] for name in ("peak", "rms")
    )
    names = list(values["place"])
    assert sorted(names) == sorted(peak.index) and len(names) == N_CLIPS
    expected = peak[names].to_numpy() - rms[names].to_numpy()
    np.testing.assert_array_equal(values["run 1 − run 2"], expected)
    assert (np.diff(np.abs(expected)) <= 0).all(), "names by how far they are apart"
    drawn = json.loads(by_key(at, "plotly_chart", state.RUNS_CURVES).proto.spec)["data"]
    colours, dashes, markers = zip(
        *((one["line"]["color"], one["line"]["dash"], one["marker"]["symbol"]) for one in drawn), strict=True
    )
    assert len(set(colours)) == len(set(dashes)) == len(set(markers)) == 2
    assert not {"#0072B2", "#D55E00"} & set(colours)


def profile(xs, values, series="s"):
    return pd.DataFrame({"series": series, "x": xs, "value": values})


def test_points_that_one_run_lacks_are_counted_and_left_out():
    laid = compared.compare(profile([0, 4, 8, 16], [1, 2, np.nan, 4.0]), profile([4, 8, 16, 32], [1.0, 1, 1, 1]), "s")
    assert list(laid.points["x"]) == [0, 4, 8, 16, 32] and list(laid.both["x"]) == [4, 16]
    np.testing.assert_array_equal(laid.both[compared.DIFFERENCE], [1.0, 3.0])
    assert (laid.only(compared.ONE), laid.only(compared.OTHER)) == (1, 2)
    said = compared.in_words(laid, "K")
    assert "2 points in both" in said and "1 that only run 1 has and 2 that only run 2 has" in said
    assert "2 above run 2" in said and "K = 16 (+3)" in said
    same = compared.compare(profile([0, 1], [1.0, 2]), profile([0, 1], [1.0, 2]), "s")
    assert "agree in every one" in compared.in_words(same, "layer")
    none = compared.compare(profile([0], [1.0]), profile([1], [1.0]), "s")
    assert "no point" in compared.in_words(none, "layer")


def test_many_names_are_drawn_one_run_against_the_other():
    names = [f"S0 B{i} <H{i}>" for i in range(60)]
    laid = compared.compare(profile(names, np.arange(60.0)), profile(names[::-1], np.ones(60)), "s")
    assert charts.crowded(laid) and not charts.crowded(compared.compare(profile(names[:5], 1.0), profile([], []), "s"))
    diagonal, marks = charts.against(laid, "s").data
    assert list(diagonal.x) == list(diagonal.y) and list(marks.y) == list(range(60)) and set(marks.x) == {1.0}
    assert "&lt;H3&gt;" in marks.text[3]


def test_a_zip_holds_the_files_without_links_and_lock_and_is_bounded(kept, tmp_path):
    (kept / "rms" / ".lock").write_text("")
    (kept / "rms" / "stolen.csv").symlink_to(kept / "peak" / "loudness.csv")
    with zipfile.ZipFile(io.BytesIO(pack.zip_folder(kept / "rms", 10**6))) as packed:
        assert set(packed.namelist()) == {
            f"rms/{name}" for name in ("loudness.csv", "loudness_config.json", "loudness_records.jsonl")
        }
        assert packed.read("rms/loudness.csv") == (kept / "rms" / "loudness.csv").read_bytes()
    with pytest.raises(InterpError, match="more than 100 bytes"):
        pack.zip_folder(kept / "rms", 100)


def test_a_run_too_large_for_a_download_says_so(kept, monkeypatch):
    monkeypatch.setenv("PATCHBAY_MAX_DOWNLOAD_MB", "0.0001")
    assert "too large for a download" in words(visit(run=str(kept / "rms")))


def test_every_look_at_every_shipped_run_is_drawn(server, monkeypatch):
    monkeypatch.setattr(bundled, "ASSETS", ROOT / "assets")
    bundled.demos.cache_clear()
    shipped = [row for row in rows.every() if row.ships]
    assert {row.command for row in shipped} >= {"patch", "compare", "heads", "ablate", "signflip"}
    for row in shipped:
        for look in ("Facts", "Figure", "Tables", "Repeat it", "Side by side"):
            at = visit(run=row.name, runs_look=look)
            assert faults(at) == [], (row.name, look)


def test_a_table_that_names_clips_has_their_sound_in_its_rows(server, monkeypatch):
    monkeypatch.setattr(bundled, "ASSETS", ROOT / "assets")
    bundled.demos.cache_clear()
    for folder, table, names in (
        ("demo-emotion/run", "records (14820 rows)", ("recipient", "donor")),
        ("demo-emotion/run-probes", "clips (840 rows)", ("clip_id",)),
        ("demo-emotion/run-probes", "best (7 rows)", ()),  # control: it names none
    ):
        at = visit(run=str(ROOT / "assets" / folder), runs_look="Tables", runs_file=table)
        assert faults(at) == []
        shown = at.dataframe[-1].value
        sounds = [name for name in shown if str(name).startswith("hear")]
        assert len(sounds) == len(names)
        for sound, name in zip(sounds, names, strict=True):
            assert list(shown).index(sound) + 1 == list(shown).index(name)
            rows = shown.groupby(name)[sound]
            assert (rows.nunique() == 1).all() and shown[sound].str.startswith("/audio/").all()
            assert shown[sound].nunique() == shown[name].nunique() > 1, "each clip has its own sound"


def test_a_link_opens_the_run_and_leads_to_its_page(open_app, kept, assets):
    at = open_app()
    at.query_params[state.RUN] = str(assets / NAME / "run")
    at = at.switch_page(str(ROOT / "pages" / "runs.py")).run()
    assert faults(at) == [] and at.title[0].value == "Runs"
    (link,) = [link for link in at.get("page_link") if "on the page" in link.proto.label]
    assert link.proto.label == "Open on the page Patching" and state.RUN in link.proto.query_string
    at.query_params[state.RUN] = "/no/such/run"
    assert "not among those listed" in faults(at.run())[0]
