"""A sixth experiment of under 80 lines gets a command, a config, resume, a job and an entry among the runs, with no
file touched but the registry.
"""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

import interp_core
from interp_core import cli, experiments
from interp_core import engine as engine_module
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run, start
from interp_core.experiments.report.notebook import notebook
from interp_core.jobs import Cancelled
from interp_core.runs import find_runs
from tests.toy.experiment import LOUDNESS
from tests.toy.request import LoudnessRequest

TOY = Path(__file__).parent / "toy"


@pytest.fixture(autouse=True)
def registered(monkeypatch, tiny):
    registration = experiments.Registered(LoudnessRequest, lambda: LOUDNESS)
    monkeypatch.setitem(experiments.EXPERIMENTS, "loudness", registration)
    monkeypatch.setattr(engine_module, "open_model", lambda name, **_: tiny)
    monkeypatch.setattr(LOUDNESS, "passes", 0, raising=False)


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["clip_id,path"]
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", rng.normal(size=8000) * 0.02 * (i + 1), 16_000)
        rows.append(f"clip{i},{i}.wav")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    return str(tmp_path / "clips.csv")


def test_it_is_shorter_than_eighty_lines():
    lines = [line for path in TOY.glob("*.py") for line in path.read_text("utf-8").splitlines() if line.strip()]
    assert len(lines) < 80


def test_its_command_runs_into_a_folder_and_its_config_repeats_it(clips, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["loudness", "--model", "m", "--manifest", clips, "--measure", "peak", "--out", str(out)]
    args = cli.parser().parse_args(arguments)
    assert args.run(args) == cli.DONE
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out) and "the loudest clip is clip3" in printed.err and "4 clips" in printed.err
    config = json.loads((out / "loudness_config.json").read_text("utf-8"))
    assert config["finished"] and config["settings"]["measure"] == "peak" and config["asked"]["measure"] == "peak"
    again = LoudnessRequest.from_config(config)
    line = shlex.split(again.command_line("again"))[3:]
    assert cli.request_of(cli.parser().parse_args(line)) == again
    assert open_result(LOUDNESS, out).metrics["loudness"].max() <= 1


def test_its_snippet_and_its_notebook_run_and_its_request_shows_itself_as_the_call_that_makes_it(clips):
    request = LoudnessRequest("m", clips, measure="peak")
    assert "LoudnessRequest" in interp_core.__all__ and "LoudnessRequest" in dir(interp_core)
    there = {"interp_core": interp_core}
    exec(request.snippet(), there)
    result = there["result"]
    assert eval(repr(request), there) == request and "measure='peak'" in repr(request)
    cells = [cell["source"] for cell in json.loads(notebook(result))["cells"] if cell["cell_type"] == "code"]
    again = {"display": lambda table: None}
    for cell in cells:
        exec(cell, again)
    assert again["result"].metrics.equals(result.metrics) and again["result"].config["settings"]["measure"] == "peak"


def test_a_killed_run_goes_on_and_ends_with_the_same_files(clips, tmp_path):
    request = LoudnessRequest("m", clips)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(LOUDNESS, Engine(), request, out=whole)

    def kill(done, total, note=""):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(LOUDNESS, Engine(), request, out=broken, progress=kill)
    before = LOUDNESS.passes
    with pytest.raises(InterpError, match="--resume"):
        run(LOUDNESS, Engine(), request, out=broken)
    run(LOUDNESS, Engine(), request, out=broken, resume=True)
    assert LOUDNESS.passes == before + 2, "what was done is not computed again"
    for name in ("loudness.csv", "loudness_records.jsonl"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    run(LOUDNESS, Engine(), request, out=broken, resume=True)
    assert LOUDNESS.passes == before + 2, "a finished folder is read back"


def test_it_is_a_job_and_stands_among_the_runs(clips, tmp_path):
    engine, request = Engine(), LoudnessRequest("m", clips, pilot=2)
    job = start(LOUDNESS, engine, request, tmp_path / "runs")
    assert start(LOUDNESS, engine, request, tmp_path / "runs") is job
    assert job.wait(300) and job.result is not None, job.error
    (found,) = find_runs(tmp_path / "runs")
    assert (found.command, found.finished, found.fault) == ("loudness", True, "")
    assert found.path.name == request.folder_of(engine.key_of(request)) and len(job.result.metrics) == 2


def test_a_refused_run_leaves_nothing_behind(clips, tmp_path, monkeypatch):
    def refuse(ready, sink, progress):
        raise InterpError("no")

    monkeypatch.setattr(LOUDNESS, "compute", refuse)
    with pytest.raises(InterpError):
        run(LOUDNESS, Engine(), LoudnessRequest("m", clips), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    kept = tmp_path / "other"
    kept.mkdir()
    (kept / "mine.json").write_text("{}")
    with pytest.raises(InterpError):
        run(LOUDNESS, Engine(), LoudnessRequest("m", clips), out=kept)
    assert [path.name for path in kept.iterdir()] == ["mine.json"]
