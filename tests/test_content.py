"""What a run is made of: its key, its resumption and what a reader is told hang on what files hold, not on where."""

import ast
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file, save_file

from interp_core import experiments
from interp_core.content import MOST_NAMED, changed, clips_entry, unknown
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.experiment import open_result, run, start
from interp_core.jobs import Cancelled
from interp_core.models.bundled import demos
from interp_core.models.files import deciding_files
from interp_core.runs import read_config
from tests.toy.experiment import LOUDNESS, RECORDS
from tests.toy.request import LoudnessRequest

CONFIG = "loudness_config.json"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(experiments.EXPERIMENTS, "loudness", experiments.Registered(LoudnessRequest, lambda: LOUDNESS))
    monkeypatch.setattr(LOUDNESS, "passes", 0, raising=False)


@pytest.fixture
def place(tmp_path, tiny_folder):
    """A folder with a model of its own and four recordings with labels."""
    shutil.copytree(tiny_folder, tmp_path / "here" / "model")
    write_clips(tmp_path / "here")
    return tmp_path / "here"


def write_clips(folder):
    rows = ["clip_id,path,label"]
    for i in range(4):
        noise(folder / f"{i}.wav", i)
        rows.append(f"clip{i},{i}.wav,{'ab'[i % 2]}")
    (folder / "clips.csv").write_text("\n".join(rows))


def noise(path, seed):
    soundfile.write(path, np.random.default_rng(seed).normal(size=8000) * 0.05, 16_000)


def asked(folder, **more):
    return LoudnessRequest(str(folder / "model"), str(folder / "clips.csv"), device="cpu", **more)


def swap_labels(folder):
    path = folder / "clips.csv"
    path.write_text("clip_id,path,label\n" + "\n".join(f"clip{i},{i}.wav,{'ba'[i % 2]}" for i in range(4)))


def replace_clip(folder):
    before = (folder / "2.wav").stat()
    noise(folder / "2.wav", 99)
    os.utime(folder / "2.wav", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "2.wav").stat().st_size == before.st_size


def replace_weights(folder):
    path = folder / "model" / "model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, path, metadata={"format": "pt"})


def edit_config(folder):
    edit(folder / "model" / "config.json", lambda settings: settings["text_config"].update(rms_norm_eps=1e-3))


def edit_processor(folder):
    def other(settings):
        settings["feature_extractor"]["dither"] = 0.25

    edit(folder / "model" / "processor_config.json", other)


def edit(path, how):
    settings = json.loads(path.read_text())
    how(settings)
    path.write_text(json.dumps(settings))


EDITS = {
    "labels": (swap_labels, "the manifest with its labels"),
    "a recording": (replace_clip, "the recordings clip2"),
    "weights": (replace_weights, "the model's files model.safetensors"),
    "a setting": (edit_config, "the model's files config.json"),
    "the processor": (edit_processor, "the model's files processor_config.json"),
}


def stopped_run(folder, out):
    def stop(done, total, note=""):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(LOUDNESS, Engine(), asked(folder), out=out, progress=stop)


@pytest.mark.parametrize("what", EDITS)
def test_what_was_edited_in_place_is_another_run_and_a_resumption_is_refused_by_its_name(what, place, tmp_path):
    edit_it, said = EDITS[what]
    engine, out = Engine(), tmp_path / "run"
    before, content = engine.key_of(asked(place)), engine.content(asked(place))
    subject = engine.open(str(place / "model"), "cpu")
    stopped_run(place, out)
    kept = (out / CONFIG).read_bytes()
    edit_it(place)
    assert engine.key_of(asked(place)) != before, "also for an engine that has read it all"
    assert changed(content, engine.content(asked(place))) == [said]
    with pytest.raises(InterpError, match=f"other files: {said} changed since"):
        run(LOUDNESS, Engine(), asked(place), out=out, resume=True)
    assert (out / CONFIG).read_bytes() == kept
    again = engine.open(str(place / "model"), "cpu")
    assert (again is not subject) == said.startswith("the model"), (
        "what is open is opened again where its files changed"
    )
    assert (again.key != subject.key) == said.startswith("the model")


@pytest.mark.parametrize("command", EXPERIMENTS)
def test_every_experiment_s_run_is_another_one_after_an_edit_in_place_also_for_a_server_that_was_started_anew(
    command, place
):
    engine, made = Engine(), EXPERIMENTS[command].request(str(place / "model"), str(place / "clips.csv"), device="cpu")
    keys, content = {engine.key_of(made)}, engine.content(made)
    assert {Engine().key_of(made)} == keys, "control: nothing was edited"
    for number, (edit_it, said) in enumerate(EDITS.values(), 2):
        edit_it(place)
        now = engine.content(made)
        assert changed(content, now) == [said], "which is what --resume refuses by"
        keys |= {engine.key_of(made), Engine().key_of(made)}
        assert len(keys) == number, said
        content = now


def test_the_key_does_not_hang_on_where_files_lie_nor_on_what_decides_nothing(place, tmp_path):
    engine, there = Engine(), tmp_path / "there"
    key = engine.key_of(asked(place))
    shutil.copytree(place, there)
    assert engine.key_of(asked(there)) == key
    (place / "model" / "README.md").write_text("other words")
    (place / "model" / "trainer_state.json").write_text("{}")
    assert engine.key_of(asked(place)) == key == engine.key_of(asked(place, batch_size=2))
    assert engine.key_of(asked(place, measure="peak")) != key
    stopped_run(place, tmp_path / "run")
    shutil.rmtree(place)
    result = run(LOUDNESS, engine, asked(there), out=tmp_path / "run", resume=True)
    assert LOUDNESS.passes == 4 and len(result.metrics) == 4, "a run whose files were moved goes on"


def test_a_recording_that_is_overwritten_during_a_run_ends_it_with_its_name(place, tmp_path):
    def overwrite(done, total, note=""):
        if done == 1:
            replace_clip(place)

    with pytest.raises(InterpError, match=r"2.wav was changed .* since the run was begun"):
        run(LOUDNESS, Engine(), asked(place), out=tmp_path / "run", progress=overwrite)
    assert not (tmp_path / "run" / "loudness.csv").exists()


def test_every_experiment_keeps_the_digests_of_all_that_decides():
    engine = Engine()
    for command, registered in EXPERIMENTS.items():
        if command == "loudness":
            continue
        ready = experiment_of(command).prepare(engine, registered.request(registered.request.demo, device="cpu"))
        config = ready.config
        sides = {"model": ready.request.models[0]}
        if command == "compare":
            sides["donor"] = ready.request.models[1]
        for side, name in sides.items():
            assert config[side]["files_sha256"] == deciding_files(name) != {}, command
        clips = {clip.clip_id: clip.digest[-16:] for clip in ready.manifest.clips}
        assert config["manifest"]["clips_sha256"] == clips and unknown(config) == []
        assert changed(config, engine.content(ready.request)) == [], command


def test_runs_of_earlier_versions_open_go_on_and_say_what_is_not_known(place, tmp_path):
    out = tmp_path / "run"
    stopped_run(place, out)

    def forget(config):
        del config["model"]["files_sha256"], config["manifest"]["clips_sha256"], config["manifest"]["content_sha256"]

    edit(out / CONFIG, forget)
    replace_clip(place)  # nobody can tell
    run(LOUDNESS, Engine(), asked(place), out=out, resume=True)
    config = open_result(LOUDNESS, out).config
    assert unknown(config) == ["the model's settings and processor", "the recordings"], "it claims no more than before"
    swap_labels(place)
    assert changed(config, Engine().content(asked(place))) == ["the manifest with its labels"]
    for folder in (folder for demo in demos().values() for folder in demo.saved_runs):
        assert len(unknown(open_result(experiment_of(read_config(folder)["command"]), folder).config)) in (0, 2)


def test_after_a_restart_run_never_fails_for_what_lies_in_its_folder(place, tmp_path):
    def finished(request):
        engine = Engine()  # as after a restart
        job = start(LOUDNESS, engine, request, tmp_path / "runs")
        assert job.wait(300) and job.status == "done", job.error
        return engine.key_of(request)

    key = finished(asked(place))
    first = tmp_path / "runs" / f"loudness-model-{key}"
    assert LOUDNESS.passes == 4
    finished(asked(place))
    assert LOUDNESS.passes == 4, "a good folder is read back"
    (first / "loudness.csv").write_text("clip_id,loudness\n")
    finished(asked(place))
    assert LOUDNESS.passes == 8 and read_config(first.with_name(f"{first.name}.2"))["finished"]
    for number, text in ((2, "{"), (3, '{"command": "loudness", "device": "cuda:7"}')):
        (first.with_name(f"{first.name}.{number}") / CONFIG).write_text(text)
        finished(asked(place))
        assert read_config(first.with_name(f"{first.name}.{number + 1}"))["finished"]


def test_a_changed_digit_and_swapped_lines_are_computed_again_and_nothing_else(place, tmp_path):
    request = asked(place)
    whole, out = tmp_path / "whole", tmp_path / "run"
    run(LOUDNESS, Engine(), request, out=whole)
    for harm in (change_a_digit, swap_values, shuffle):
        LOUDNESS.passes = 0
        shutil.copytree(whole, out)
        edit(out / CONFIG, lambda config: config.update(finished=None))
        again = harm(out / RECORDS)
        run(LOUDNESS, Engine(), request, out=out, resume=True)
        assert LOUDNESS.passes == again, harm.__name__
        for name in (RECORDS, "loudness.csv"):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (harm.__name__, name)
        shutil.rmtree(out)


def change_a_digit(path):
    lines = path.read_text().splitlines(keepends=True)
    at = lines[1].index('"loudness": 0.') + len('"loudness": 0.')
    lines[1] = lines[1][:at] + str(9 - int(lines[1][at])) + lines[1][at + 1 :]
    path.write_text("".join(lines))
    return 1


def swap_values(path):
    """The values of two lines trade places, each still a line of JSON with its own chunk number."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["loudness"], rows[3]["loudness"] = rows[3]["loudness"], rows[0]["loudness"]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return 2


def shuffle(path):
    """Whole chunks in another order are whole."""
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    return 0


def test_a_finished_run_whose_files_were_changed_is_refused_by_their_names(place, tmp_path):
    out = tmp_path / "run"
    run(LOUDNESS, Engine(), asked(place), out=out)
    change_a_digit(out / RECORDS)
    table = (out / "loudness.csv").read_text()
    (out / "loudness.csv").write_text(table.replace("0.0", "0.1", 1))
    said = rf"not as it was written: loudness.csv, {RECORDS} changed since"
    with pytest.raises(InterpError, match=said):
        open_result(LOUDNESS, out)
    with pytest.raises(InterpError, match=said):
        run(LOUDNESS, Engine(), asked(place), out=out, resume=True)


def test_so_many_recordings_that_a_config_would_burst_are_told_apart_in_all():
    many = {f"c{i}": "0" * 64 for i in range(MOST_NAMED + 1)}
    entry, other = clips_entry(many), clips_entry({**many, "c5": "1" * 64})
    assert "clips_sha256" not in entry
    assert changed({"manifest": entry}, {"manifest": other}) == ["the recordings"]
    assert changed({"manifest": entry}, {"manifest": dict(entry)}) == []


def test_a_request_for_a_demo_by_its_name_is_not_one_for_its_folder():
    engine, demo = Engine(), demos()["demo-emotion-wavlm"]
    by_name = LoudnessRequest("demo-emotion-wavlm", device="cpu", max_clips=2)
    by_place = replace(by_name, model=str(demo.model_dir), manifest=str(demo.manifest))
    assert engine.key_of(by_name) != engine.key_of(by_place), "the name brings labels and columns of its own"
    assert engine.key_of(replace(by_name, manifest=str(demo.manifest))) == engine.key_of(by_name)


def by_hand_caches():
    """Every function of a page that keeps what a model says of a clip, with the texts of what names its entries."""
    hidden = {"_clip", "_pair", "_a"}
    for path in sorted((Path(__file__).resolve().parents[1] / "components").rglob("*.py")):
        tree = ast.parse(path.read_text())
        texts = {
            ast.unparse(node.targets[0]): ast.unparse(node.value) for node in ast.walk(tree) if type(node) is ast.Assign
        }
        for made in ast.walk(tree):
            if not isinstance(made, ast.FunctionDef) or not hidden & {one.arg for one in made.args.args}:
                continue
            if not any("cache_data" in ast.unparse(one) for one in made.decorator_list):
                continue
            shown = [at for at, one in enumerate(made.args.args) if not one.arg.startswith("_")]
            for call in ast.walk(tree):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == made.name:
                    given = [
                        ast.unparse(one) for at, one in enumerate(call.args) if at in shown or "*" in ast.unparse(one)
                    ]
                    named = " ".join(f"{text} {texts.get(text.lstrip('*'), '')}" for text in given)
                    yield f"{path.parent.name}/{path.stem}.{made.name}", named


def test_what_a_page_keeps_of_a_clip_by_hand_is_named_by_the_recording_and_by_the_model_s_files():
    found = dict(by_hand_caches())
    wanted = {"patching/time_window._replaced", "probes/lens._nearest", "steering/live._steered", "heads/view._patch"}
    assert wanted <= set(found)
    for name, named in found.items():
        if name == "steering/in_words._written":  # handed the name that live.py made
            continue
        assert ".digest" in named and ("key_of(" in named or "subject.key" in named), (name, named)
