"""Neuron ablation from request to run folder and back, on recordings and on pictures."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.neurons.experiment import NEURONS, site_of
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.models.load import open_model
from interp_core.runs import find_runs
from interp_core.sites import Site
from interp_core.storage import plain
from tests.data.corpora.test_camelyon17 import PATIENTS, file_of, lay
from tests.experiments.neuron_clips import write_clips, write_model
from tests.models.test_resnet import small

QUICK = {"ks": (0, 2, 4), "refits": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablate")
    return write_model(folder / "model"), write_clips(folder / "clips")


@pytest.fixture(scope="module")
def engine():
    return Engine()


@pytest.fixture
def asked(place):
    model, manifest = place
    return AblateRequest(str(model), str(manifest), device="cpu", draws=4, **QUICK)


def test_what_is_not_asked_for_is_found_and_said(asked, engine):
    found = NEURONS.prepare(engine, asked).request
    assert (found.task, found.domain, found.units, found.at) == ("prosody_label", "speaker", "speaker", "pooled")
    assert found.labels == ("neutral", "happy", "sad", "angry")


def test_a_run_folder_holds_specs_files_and_reads_back_as_it_was(asked, engine, tmp_path):
    made = run(NEURONS, engine, asked, out=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"ablation_config.json", "neuron_scores.csv", "neuron_ablation.json", "neuron_ablation.png"} <= names
    again = open_result(NEURONS, tmp_path / "run")
    for name in ("curve", "scores"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(made, name), check_dtype=False)
    assert again.answers.to_dict("records") == made.answers.to_dict("records")
    assert again.report["verdict"] == made.report["verdict"] and again.config == made.config
    assert [one.command for one in find_runs(tmp_path)] == ["ablate"]
    assert (tmp_path / "run" / "neuron_ablation.png").read_bytes()[:4] == b"\x89PNG"


def test_the_json_has_the_sources_keys_with_intervals_beside_them(asked, engine, tmp_path):
    made = run(NEURONS, engine, asked, out=tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "neuron_ablation.json").read_text())
    wanted = {"run_id", "epoch", "layer", "feature_dim", "shortcut_scores_top10", "morphology_scores_top10", "sweep"}
    assert wanted <= set(saved) and saved["run_id"] == "run" and saved["layer"] == "pooled"
    dose = saved["sweep"][-1]
    for name in ("shortcut", "morphology"):
        for key in ("head_ood", "hosp_probe", "tumor_probe", "head_id"):
            assert f"{name}_{key}" in dose and f"{name}_{key}_low" in dose
    rows = made.curve[(made.curve["set"] == "random") & (made.curve["k"] == 4)].iloc[0]
    assert dose["k"] == 4 and dose["random_head_ood_mean"] == pytest.approx(rows["head_ood"])
    assert dose["random_head_ood_std"] == pytest.approx(rows["head_ood_std"])


def test_the_unedited_answers_are_those_of_the_library(asked, engine, place):
    made, subject = run(NEURONS, engine, asked, out=None), open_model(str(place[0]), device="cpu")
    ready = NEURONS.prepare(engine, asked)
    none = made.answers[(made.answers["k"] == 0) & (made.answers["set"] == "domain")].set_index("clip_id")
    for clip in ready.plan.clips[-3:]:
        samples = ready.plan.reader.samples(clip)
        with torch.inference_mode():
            inputs = subject.extractor(samples, sampling_rate=16_000, return_tensors="pt").input_values
            logits = subject.hf(input_values=inputs).logits
        assert none.loc[clip.clip_id, "base"] == subject.answers[int(logits.argmax())]
        assert none.loc[clip.clip_id, "answer"] == none.loc[clip.clip_id, "base"]


def test_a_config_repeats_its_run_exactly(asked, engine, tmp_path):
    request = replace(asked, at="resid_post:1", train="speaker=s0", id="speaker=s1", ood="speaker=s2", domain="text_id")
    made = run(NEURONS, engine, request, out=tmp_path / "a")
    again = AblateRequest.from_config(json.loads((tmp_path / "a" / "ablation_config.json").read_text()))
    assert (again.ks, again.refits) == ((0, 2, 4), 1) and again.at == "resid_post:1" and again.train == "speaker=s0"
    second = run(NEURONS, engine, again, out=tmp_path / "b")
    pd.testing.assert_frame_equal(second.curve, made.curve)
    assert plain(second.report) == plain(made.report)
    with pytest.raises(InterpError, match="give that of a 'ablate' run"):
        AblateRequest.from_config({"command": "patch"})


def test_without_a_split_column_one_domain_is_kept_out_and_the_sentence_says_so(place, engine, tmp_path):
    manifest = write_clips(tmp_path / "plain", split=False)
    ready = NEURONS.prepare(engine, AblateRequest(str(place[0]), str(manifest), device="cpu"))
    ood = {ready.plan.clips[i].label("speaker") for i in ready.plan.splits.ood}
    assert ood == {"s2"} and "no split column: speaker 's2' is out of domain" in ready.plan.splits.said
    inside = [
        {ready.plan.clips[i].label("speaker") for i in rows} for rows in (ready.plan.splits.train, ready.plan.splits.id)
    ]
    assert inside[0] | inside[1] == {"s0", "s1"}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"task": "colour"}, "no clip has a column 'colour' for the task"),
        ({"train": "train"}, "give all of train, id and ood"),
        ({"train": "train", "id": "nothing", "ood": "ood"}, "no clip passes id 'nothing'"),
        ({"train": "train", "id": "train", "ood": "ood"}, "are both in train"),
        (
            {"domain": "prosody_label", "train": "prosody_label=happy", "id": "id_val", "ood": "ood"},
            "are both in train",
        ),
        ({"at": "resid_post"}, "needs a layer"),
        ({"at": "resid_post:9"}, "outside"),
        ({"at": "pooled:1"}, "too many numbers"),
        ({"at": "pool"}, "did you mean 'pooled'"),
        ({"at": "resid_post:x"}, "write pooled, resid_post:LAYER"),
        ({"labels": ("a", "b")}, "tells 4 classes apart"),
        ({"pilot": 2}, "too small to rank"),
        ({"kind": "shave"}, "--kind 'shave' is none of mean"),
        ({"score": "luck"}, "--score 'luck' is none of coef, univariate"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked_is_one_sentence(asked, engine, changes, said):
    with pytest.raises(InterpError, match=said) as caught:
        run(NEURONS, engine, replace(asked, **changes))
    assert "\n" not in str(caught.value)


def test_sites_are_written_as_they_are_read(place):
    subject = open_model(str(place[0]), device="cpu")
    assert site_of(subject, "") == Site("pooled")
    assert site_of(subject, "head_out:2:1") == Site("head_out", 2, 1)
    assert site_of(subject, "mlp_act:0") == Site("mlp_act", 0)


def test_cancelling_stops_the_run_and_leaves_a_folder_that_can_be_started_over(asked, engine, tmp_path):
    class Stop(Exception):
        pass

    def stop(done, total, note):
        raise Stop

    with pytest.raises(Stop):
        run(NEURONS, engine, asked, out=tmp_path / "run", progress=stop)
    with pytest.raises(InterpError, match="--resume"):
        run(NEURONS, engine, asked, out=tmp_path / "run")
    made = run(NEURONS, engine, asked, out=tmp_path / "run", resume=True)
    assert open_result(NEURONS, tmp_path / "run").report["base"] == made.report["base"]


def pictures(root):
    """A WILDS folder of five centres with sixteen patches each, and a tiny ResNet's checkpoint."""
    lines = [
        f"{i},{patient},{node},{96 * i},{32 * node},{i % 2},{slide},{centre},{int(i % 4 > 1)}"
        for centre, (patient, slide) in PATIENTS.items()
        for node in (0, 1)
        for i in range(8)
    ]
    lay(root / "camelyon17_v1.0", lines)
    rng = np.random.default_rng(0)
    for line in lines:
        centre, tumor = int(line.split(",")[7]), int(line.split(",")[5])
        image = rng.integers(0, 120, (96, 96, 3)) + np.array([25 * centre, 60 * tumor, 10])
        Image.fromarray(image.astype(np.uint8)).save(root / "camelyon17_v1.0" / file_of(line))
    torch.manual_seed(0)
    torch.save(small().state_dict(), root / "resnet.pth")
    return root / "resnet.pth", root / "camelyon17_v1.0"


def centres_of(ready):
    rows = (ready.plan.splits.train, ready.plan.splits.id, ready.plan.splits.ood)
    return [{ready.plan.clips[i].label("center") for i in part} for part in rows]


def test_pictures_of_camelyon_are_read_with_the_centres_that_are_asked_for(engine, tmp_path):
    model, folder = pictures(tmp_path)
    n_labels = open_model(str(model), device="cpu").hf.config.num_labels
    labels = ("normal", "tumor", *(f"other {i}" for i in range(n_labels - 2)))
    asked = AblateRequest(str(model), str(folder), device="cpu", corpus="camelyon17", draws=3, **QUICK, labels=labels)
    ready = NEURONS.prepare(engine, asked)
    centres = centres_of(ready)
    assert centres == [set("034"), set("034"), {"2"}]  # the official split
    assert (ready.request.task, ready.request.domain, ready.request.units) == ("label", "domain", "slide")
    own = replace(asked, train="center=0,center=1", ood="center=4")
    ready = NEURONS.prepare(engine, own)
    centres = centres_of(ready)
    assert centres == [set("01"), set("01"), {"4"}]
    made = run(NEURONS, engine, own, out=tmp_path / "run")
    assert made.report["counts"]["ood"]["clips"] == 16 and set(made.answers["answer"]) <= set(labels)
    again = AblateRequest.from_config(json.loads((tmp_path / "run" / "ablation_config.json").read_text()))
    assert (again.corpus, again.train) == ("camelyon17", "center=0,center=1")
    assert centres_of(NEURONS.prepare(engine, again)) == centres


def test_a_corpus_outside_the_allowed_folders_is_refused(tmp_path):
    model, folder = pictures(tmp_path / "data")
    (tmp_path / "other").mkdir()
    asked = AblateRequest(str(model), str(folder), device="cpu", corpus="camelyon17")
    with pytest.raises(InterpError, match="outside the folders"):
        NEURONS.prepare(Engine(roots=[tmp_path / "other"]), asked)
