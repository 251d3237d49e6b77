"""A heads run asked for, kept in its folder, read back, repeated from its config; corpora as they lie on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from interp_core.doors.heads import (
    HeadEffect,
    HeadsRequest,
    as_heads,
    manifest_of_corpus,
    open_heads,
    patch_head,
    prepare,
    request_from,
)
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.heads import HeadSettings, HeadsResult
from interp_core.request import PatchRequest
from interp_core.runs import find_runs
from tests.experiments.heads_cases import CLASSES, write_clips, write_manifest
from tests.families.encoders import save_clap_audio, save_wavlm

QUICK = HeadSettings(draws=99, probes="wide", ablate=("zero", "mean"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny HTS-AT and 24 clips, the first six of them training clips."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("heads")
    save_clap_audio(folder / "tiny-clap", depths=(1, 1, 1, 1), heads=(1, 2, 4, 8))
    write_manifest(folder / "c", write_clips(folder / "c", CLASSES * 8, seconds=(0.5,)), train=6)
    return folder


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def asked(place: Path) -> HeadsRequest:
    return HeadsRequest(
        str(place / "tiny-clap"), str(place / "c" / "clips.csv"), device="cpu", probe="label", pt=True, settings=QUICK
    )


@pytest.fixture(scope="module")
def result(engine: Engine, asked: HeadsRequest, place: Path) -> HeadsResult:
    return asked.run(engine, out=place / "run")


def assert_same(found: HeadsResult, expected: HeadsResult) -> None:
    for name in ("table", "clips", "ablation"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name), check_dtype=False)
    assert found.vectors.geometry == expected.vectors.geometry and found.notes == expected.notes
    for site, rows in expected.vectors.at.items():
        assert np.array_equal(found.vectors.at[site], rows), site


def test_the_folder_holds_the_files_of_the_specification_and_reads_back_equal(result: HeadsResult, place: Path) -> None:
    names = {path.name for path in (place / "run").iterdir()}
    arrays = {f"tiny-clap_{kind}_outputs.npz" for kind in ("head", "block", "layer")}
    assert names == arrays | {
        *("heads_config.json", "fisher.csv", "fisher_heatmap.png", "clips.csv", "notes.json", "ablation.csv"),
        "tiny-clap_outputs.pt",
    }
    assert (place / "run" / "fisher_heatmap.png").read_bytes()[:4] == b"\x89PNG"
    assert_same(open_heads(place / "run"), result)
    (found,) = find_runs(place / "run")
    assert found.command == "heads" and found.finished


def test_the_arrays_name_their_clips_and_hold_a_vector_a_place(result: HeadsResult, place: Path) -> None:
    with np.load(place / "run" / "tiny-clap_head_outputs.npz") as heads:
        assert list(heads["clip_id"]) == list(result.clips["clip_id"]) and set(heads["label"]) == set(CLASSES)
        assert heads["stage2_block0"].shape == (18, 4, 8)  # clips, heads, d_head
        point = result.vectors.geometry.head_of(2, 3)
        assert np.array_equal(heads["stage2_block0"][:, 3], result.vectors.of(point))
    with np.load(place / "run" / "tiny-clap_layer_outputs.npz") as layers:
        shapes = {key: layers[key].shape[1] for key in layers.files if key.startswith("stage")}
    assert shapes == {
        "stage0_after": 16, "stage0_before": 8, "stage1_after": 32, "stage1_before": 16,
        "stage2_after": 64, "stage2_before": 32, "stage3_after": 64, "stage3_before": 64,
    }  # fmt: skip
    kept = torch.load(place / "run" / "tiny-clap_outputs.pt", weights_only=True)
    assert torch.equal(kept["head"][2, 0, 3], torch.from_numpy(result.vectors.of(point).copy()))
    assert set(kept["layer"]) == {0, 1, 2, 3} and kept["labels"] == list(result.clips["label"])


def test_the_config_says_what_was_run_and_runs_it_again(
    engine: Engine, asked: HeadsRequest, result: HeadsResult, place: Path, tmp_path: Path
) -> None:
    config = json.loads((place / "run" / "heads_config.json").read_text())
    assert config["classes"] == dict.fromkeys(sorted(CLASSES), 6) and config["left_out"]["training clips"] == 6
    assert config["grouped_by"] == "group" and config["geometry"]["heads"] == [1, 2, 4, 8]
    assert config["model"]["probe"]["column"] == "label" and config["finished"]
    made = request_from(config)
    assert made.settings == asked.settings and (made.model, made.probe, made.pt) == (asked.model, "label", True)
    assert_same(made.run(engine, out=tmp_path / "again"), result)
    for name in ("tiny-clap_head_outputs.npz", "fisher.csv", "ablation.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (place / "run" / name).read_bytes()
    with pytest.raises(InterpError, match="config is one of 'patch'"):
        request_from({"command": "patch"})


def test_a_run_that_was_stopped_goes_on_to_the_same_files(
    engine: Engine, asked: HeadsRequest, result: HeadsResult, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int, note: str = "") -> None:
        if "without" in note:
            raise Stop

    out = tmp_path / "run"
    with pytest.raises(Stop):
        asked.run(engine, out=out, progress=stop)
    with pytest.raises(InterpError, match="is not finished"):
        open_heads(out)
    with pytest.raises(InterpError, match="add --resume"):
        asked.run(engine, out=out)
    assert_same(asked.run(engine, out=out, resume=True), result)
    other = replace(asked, settings=replace(QUICK, seed=7))
    with pytest.raises(InterpError, match="other settings: settings.seed was 42, is 7"):
        other.run(engine, out=out, resume=True)


def test_a_broken_folder_is_said(result: HeadsResult, place: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (place / "run").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    clips = (broken / "clips.csv").read_text().splitlines()
    (broken / "clips.csv").write_text("\n".join([clips[0], *clips[:0:-1]]) + "\n")
    with pytest.raises(InterpError, match="other clips than clips.csv"):
        open_heads(broken)
    (broken / "tiny-clap_head_outputs.npz").unlink()
    with pytest.raises(InterpError, match="cannot be read as a heads run"):
        open_heads(broken)


def test_one_heads_effect_is_the_runs_own_row_and_one_key_names_one_job(
    engine: Engine, asked: HeadsRequest, result: HeadsResult
) -> None:
    effect = HeadEffect(
        asked.model, asked.manifest, "cpu", probe="label", heads=((3, 5),), kinds=("zero", "mean"), settings=QUICK
    )
    found = effect.run(engine)
    rows = result.ablation[(result.ablation["layer"] == 3) & (result.ablation["head"] == 5)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, rows)
    job = engine.start(effect)
    assert engine.start(replace(effect)) is job and job.key != replace(effect, heads=((3, 4),)).key
    assert job.wait(60) and job.result is not None
    pd.testing.assert_frame_equal(job.result, rows)


def test_a_head_is_patched_between_two_clips(engine: Engine, asked: HeadsRequest) -> None:
    clips = engine.manifest(asked).clips
    table = patch_head(engine, asked, clips[7], clips[8], (3, 0))
    assert list(table["label"]) == sorted(CLASSES) and (table["patched"] - table["base"]).abs().max() > 1e-5


def test_the_cost_counts_clips_heads_and_kinds(engine: Engine, asked: HeadsRequest) -> None:
    ready = prepare(engine, asked)
    assert ready.forwards == 18 * (1 + 1 + 15 * 2) and "18 clips (hiss 6, hum 6, tone 6)" in ready.cost()
    assert prepare(engine, replace(asked, settings=replace(QUICK, ablate=()))).forwards == 18
    assert len(prepare(engine, replace(asked, pilot=2)).drawn.clips) == 6


def test_what_is_wrong_is_said_before_anything_is_written(engine: Engine, asked: HeadsRequest, tmp_path: Path) -> None:
    for wrong, words in (
        (replace(asked, settings=replace(QUICK, ablate=("flip",))), "unknown kind of ablation flip"),
        (replace(asked, settings=replace(QUICK, label="species")), "no clip has a value in 'species'"),
        (replace(asked, settings=replace(QUICK, prompt="What?")), "asked no question"),
        (replace(asked, pilot=0), "a pilot of 0 clips"),
    ):
        with pytest.raises(InterpError, match=words):
            wrong.run(engine, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_stages_has_its_layers_in_the_files(engine: Engine, place: Path, tmp_path: Path) -> None:
    save_wavlm(tmp_path / "m")
    clips = write_clips(tmp_path / "c", CLASSES * 3, seconds=(0.4,), rate=16_000)
    request = HeadsRequest(
        str(tmp_path / "m"), str(write_manifest(tmp_path / "c", clips)), device="cpu",
        settings=HeadSettings(draws=19, probes="none"),
    )  # fmt: skip
    made = request.run(engine, out=tmp_path / "run")
    with np.load(tmp_path / "run" / "m_layer_outputs.npz") as layers:
        assert [key for key in layers.files if key.startswith("layer")] == [
            f"layer{i}" for i in range(made.vectors.geometry.n_layers)
        ]
    assert_same(open_heads(tmp_path / "run"), made)


def test_a_corpus_folder_becomes_a_manifest(engine: Engine, place: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("dog", "rain"):
        for number in range(3):
            path = tmp_path / "corpus" / name / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(24_000), 48_000)
    manifest, _ = manifest_of_corpus(tmp_path / "corpus", "auto", tmp_path / "out")
    request = HeadsRequest(
        str(place / "tiny-clap"), str(manifest), device="cpu", settings=HeadSettings(draws=19, probes="none")
    )
    made = request.run(engine, out=tmp_path / "out")
    assert made.config["classes"] == {"dog": 3, "rain": 3}
    with pytest.raises(InterpError, match="holds no corpus that is recognised|holds no audio file"):
        manifest_of_corpus(place / "tiny-clap", "auto", tmp_path / "none")


def test_another_pages_request_becomes_a_heads_request() -> None:
    base = PatchRequest("m", "c.csv", probe="label", part="", max_clips=5)
    made = as_heads(base, QUICK)
    assert (made.model, made.manifest, made.probe, made.max_clips) == ("m", "c.csv", "label", 5)
    assert made.settings == QUICK and as_heads(base).settings == HeadSettings()
