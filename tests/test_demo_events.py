"""The bundled sounds: a real HTS-AT folder, its clips and groups, and the run that ships with it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import ClapAudioModel

from interp_core.engine import Engine
from interp_core.experiments.experiment import open_result
from interp_core.experiments.heads.ablate import Task, ablate
from interp_core.experiments.heads.capture import capture
from interp_core.experiments.heads.experiment import HEADS
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.models.bundled import demos

DEMO = demos()["demo-events"]
HELD_OUT, TRAINING = 12, 8


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.read_csv(DEMO.manifest, dtype=str)


def test_it_is_small_and_every_clip_has_its_licence(rows: pd.DataFrame) -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(DEMO.model_dir) < 6e6 and size(DEMO.folder / "clips") < 6e6
    assert {f"clips/{path.name}" for path in (DEMO.folder / "clips").iterdir()} == set(rows["path"])
    assert not rows.isna().any(axis=None) and rows["licence"].str.startswith(("GPL-2", "CC", "MIT")).all()


def test_no_group_is_on_both_sides_and_classes_have_the_same_number_of_clips(rows: pd.DataFrame) -> None:
    sides = rows.groupby("group")["split"].nunique()
    assert (sides == 1).all() and len(sides) > 60
    counts = rows.groupby(["label", "split"]).size().unstack()
    assert (counts["held-out"] == HELD_OUT).all() and (counts["train"] == TRAINING).all()
    assert tuple(sorted(DEMO.labels)) == tuple(counts.index)


def test_the_model_is_the_librarys_own_with_the_published_heads() -> None:
    model = ClapAudioModel.from_pretrained(DEMO.model_dir)
    assert (
        model.config.depths == [2, 2, 6, 2]
        and sum(d * h for d, h in zip(model.config.depths, model.config.num_attention_heads, strict=True)) == 184
    )
    assert (
        sum(p.numel() for p in model.parameters())
        == json.loads((DEMO.folder / "metrics.json").read_text())["parameters"]
    )


@pytest.mark.slow
def test_the_run_that_ships_is_what_the_model_gives() -> None:
    torch.set_num_threads(1)
    saved = open_result(HEADS, DEMO.folder / "run-heads")
    ready = HEADS.prepare(Engine(), HeadsRequest("demo-events", device="cpu"))
    assert saved.config["model"]["weights_sha256"] == ready.store.subject.weights_hash
    assert list(saved.clips["clip_id"]) == [clip.clip_id for clip in ready.plan.clips]
    some = ready.plan.clips[:4]
    vectors = capture(ready.store, some, batch_size=4)
    for site, values in vectors.at.items():
        assert np.allclose(saved.vectors.at[site][:4], values, rtol=1e-3, atol=1e-3), site
    task = Task.of(ready.store, "", ready.plan.labels, ready.plan.groups)
    found = ablate(ready.store, ready.plan.clips, task, [(11, 3)], ["mean"], saved.vectors).iloc[0]
    kept = saved.ablation[(saved.ablation["layer"] == 11) & (saved.ablation["head"] == 3)].iloc[0]
    assert found["accuracy"] == pytest.approx(kept["accuracy"], abs=0.03)
    assert found["logprob_change"] == pytest.approx(kept["logprob_change"], abs=1e-2)
    metrics = json.loads((DEMO.folder / "metrics.json").read_text())
    assert kept["base_accuracy"] == pytest.approx(metrics["shipped_clips"]["accuracy"], abs=0.03)
    heads = saved.points("head")
    assert len(heads) == 184 and (heads["p_adjusted"] < 0.05).sum() > 20
