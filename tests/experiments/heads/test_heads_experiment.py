"""A heads run asked for, kept in its folder, read back, repeated from its config; corpora as they lie on disk."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.heads.experiment import (
    HEADS,
    HeadEffect,
    effect_of,
    patch_head,
    start_effect,
)
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.heads.run import HeadsResult
from interp_core.runs import WRITTEN, find_runs
from tests.experiments.heads_cases import CLASSES, write_clips, write_manifest
from tests.families.encoders import save_clap_audio, save_wavlm


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
        str(place / "tiny-clap"), str(place / "c" / "clips.csv"), device="cpu", probe="label", pt=True,
        draws=99, probes="wide", ablate=("zero", "mean"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(engine: Engine, asked: HeadsRequest, place: Path) -> HeadsResult:
    return run(HEADS, engine, asked, out=place / "run")


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
    assert_same(open_result(HEADS, place / "run"), result)
    (found,) = find_runs(place / "run")
    assert found.command == "heads" and found.finished


def test_the_summary_counts_heads_with_still_dimensions_and_an_older_folder_without_them_opens(
    result: HeadsResult, place: Path, tmp_path: Path
) -> None:
    whole = list(HEADS.summary(result))
    assert not any("never vary" in line for line in whole)
    table, row = result.table.copy(), result.points("head").index[1]
    table.loc[row, ["live_dims", "fisher_f_live"]] = 1, 37.25
    said = [line for line in HEADS.summary(replace(result, table=table)) if "never vary" in line]
    assert len(said) == 1 and said[0].startswith("heads: 1 hold dimensions that never vary and count as 0")
    assert f"{table.loc[row, 'name']}: 37.25 (1 of {table.loc[row, 'width']} vary)" in said[0]
    older = shutil.copytree(place / "run", tmp_path / "older")
    config = json.loads((older / "heads_config.json").read_text())
    del config[WRITTEN]  # it had no digests of its files either
    (older / "heads_config.json").write_text(json.dumps(config))
    kept = pd.read_csv(older / "fisher.csv", dtype=str, keep_default_na=False)
    for columns in (["fisher_f_live"], ["live_dims"]):
        kept = kept.drop(columns=columns)
        kept.to_csv(older / "fisher.csv", index=False)
        assert list(HEADS.summary(open_result(HEADS, older))) == whole


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
    made = HeadsRequest.from_config(config)
    assert made == replace(asked, dtype="float32") and (made.model, made.probe, made.pt) == (asked.model, "label", True)
    assert_same(run(HEADS, engine, made, out=tmp_path / "again"), result)
    for name in ("tiny-clap_head_outputs.npz", "fisher.csv", "ablation.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (place / "run" / name).read_bytes()
    with pytest.raises(InterpError, match="config is one of 'patch'"):
        HeadsRequest.from_config({"command": "patch"})


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
        run(HEADS, engine, asked, out=out, progress=stop)
    with pytest.raises(InterpError, match="is not finished"):
        open_result(HEADS, out)
    with pytest.raises(InterpError, match="add --resume"):
        run(HEADS, engine, asked, out=out)
    assert_same(run(HEADS, engine, asked, out=out, resume=True), result)
    other = replace(asked, seed=7)
    with pytest.raises(InterpError, match="other settings: settings.seed was 42, is 7"):
        run(HEADS, engine, other, out=out, resume=True)


def test_a_broken_folder_is_said(result: HeadsResult, place: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (place / "run").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    clips = (broken / "clips.csv").read_text().splitlines()
    (broken / "clips.csv").write_text("\n".join([clips[0], *clips[:0:-1]]) + "\n")
    with pytest.raises(InterpError, match="not as it was written: clips.csv changed since"):
        open_result(HEADS, broken)
    (broken / "tiny-clap_head_outputs.npz").unlink()
    with pytest.raises(InterpError, match="not as it was written"):
        open_result(HEADS, broken)


def test_one_heads_effect_is_the_runs_own_row_and_one_key_names_one_job(
    engine: Engine, asked: HeadsRequest, result: HeadsResult
) -> None:
    effect = HeadEffect(asked, heads=((3, 5),), kinds=("zero", "mean"))
    found = effect_of(engine, effect)
    rows = result.ablation[(result.ablation["layer"] == 3) & (result.ablation["head"] == 5)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, rows)
    job = start_effect(engine, effect)
    assert start_effect(engine, replace(effect)) is job and job.key != replace(effect, heads=((3, 4),)).key_in(engine)
    assert job.wait(300) and job.result is not None
    pd.testing.assert_frame_equal(job.result, rows)


def test_a_head_is_patched_between_two_clips(engine: Engine, asked: HeadsRequest) -> None:
    clips = engine.manifest(asked).clips
    table = patch_head(engine, asked, clips[7], clips[8], (3, 0))
    assert list(table["label"]) == sorted(CLASSES) and (table["patched"] - table["base"]).abs().max() > 1e-5


def test_the_cost_counts_clips_heads_and_kinds(engine: Engine, asked: HeadsRequest) -> None:
    ready = HEADS.prepare(engine, asked)
    cost = HEADS.cost(ready)
    assert cost.forwards == 18 * (1 + 1 + 15 * 2) and "18 clips (hiss 6, hum 6, tone 6)" in str(cost)
    assert HEADS.cost(HEADS.prepare(engine, replace(asked, ablate=(), probe=""))).forwards == 18
    assert len(HEADS.prepare(engine, replace(asked, pilot=2)).plan.clips) == 6


def test_what_is_wrong_is_said_before_anything_is_written(engine: Engine, asked: HeadsRequest, tmp_path: Path) -> None:
    for wrong, words in (
        (replace(asked, ablate=("flip",)), "--ablate 'flip' is none of zero, mean, resample"),
        (replace(asked, label="species"), "no clip has a value in 'species'"),
        (replace(asked, prompt="What?"), "asked no question"),
        (replace(asked, pilot=0), "--pilot 0 is too small; give 1 or more"),
    ):
        with pytest.raises(InterpError, match=words):
            run(HEADS, engine, wrong, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_stages_has_its_layers_in_the_files(engine: Engine, place: Path, tmp_path: Path) -> None:
    save_wavlm(tmp_path / "m")
    clips = write_clips(tmp_path / "c", CLASSES * 3, seconds=(0.4,), rate=16_000)
    request = HeadsRequest(
        str(tmp_path / "m"), str(write_manifest(tmp_path / "c", clips)), device="cpu",
        draws=19, probes="none",
    )  # fmt: skip
    made = run(HEADS, engine, request, out=tmp_path / "run")
    with np.load(tmp_path / "run" / "m_layer_outputs.npz") as layers:
        assert [key for key in layers.files if key.startswith("layer")] == [
            f"layer{i}" for i in range(made.vectors.geometry.n_layers)
        ]
    assert_same(open_result(HEADS, tmp_path / "run"), made)


def test_a_corpus_is_read_from_its_folder(engine: Engine, place: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("dog", "rain"):
        for number in range(3):
            path = tmp_path / "corpus" / name / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(24_000), 48_000)
    request = HeadsRequest(
        str(place / "tiny-clap"), str(tmp_path / "corpus"), corpus="auto", device="cpu", draws=19, probes="none"
    )
    made = run(HEADS, engine, request, out=tmp_path / "out")
    assert made.config["classes"] == {"dog": 3, "rain": 3}
    with pytest.raises(InterpError, match="holds no corpus that is recognised|holds no audio file"):
        run(HEADS, engine, replace(request, manifest=str(place / "tiny-clap")), out=tmp_path / "none")
