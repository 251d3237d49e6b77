"""The bundled demo-spoof-erm and demo-spoof-dann are what their files say: clips, checkpoints, numbers."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from interp_core.data.clips import read_audio
from interp_core.data.manifest import read_manifest
from interp_core.experiments.compare.parts import alike_parts, null_sites
from interp_core.maths.probes import linear_probe
from interp_core.maths.scores import by_codec, detection
from interp_core.models.bundled import demos
from interp_core.models.countermeasure.checkpoint import (
    bonafide_margin,
    load_countermeasure,
)
from interp_core.models.countermeasure.subject import SpoofDetector
from interp_core.sites import Site
from tests.maths.plain_cka import linear_cka

ASSETS = Path(__file__).parents[1] / "assets"
ERM, DANN = ASSETS / "demo-spoof-erm", ASSETS / "demo-spoof-dann"
RUNS = {(demo.name.rpartition("-")[2], kind): demo / kind for demo in (ERM, DANN) for kind in ("tuned", "frozen")}
CODECS = ("PCM", "ULAW", "GSM", "MP3", "OPUS")
with (ERM / "manifest.csv").open(newline="") as file:
    CLIPS = list(csv.DictReader(file))
IS_HUMAN = np.array([clip["label"] == "bonafide" for clip in CLIPS])
CODEC = [clip["domain"] for clip in CLIPS]
UTTERANCE = np.array([clip["utterance"] for clip in CLIPS])
N_LAYERS = 6


@pytest.fixture(scope="module")
def loaded():
    return {run: load_countermeasure(folder) for run, folder in RUNS.items()}


@pytest.fixture(scope="module")
def outputs(loaded):
    """outputs[method, kind] -> margin, pooled, repr [n, ..] and hidden [n_layers, n, pos, d_model] of all clips."""
    clips = [read_audio(ERM / clip["path"], 16_000) for clip in CLIPS]
    found = {}
    for run, countermeasure in loaded.items():
        parts = []
        with torch.inference_mode():
            for start in range(0, len(clips), 48):
                out = countermeasure.net(**countermeasure.inputs(clips[start : start + 48]))
                hidden = torch.stack(out["all_hidden_states"])
                parts.append((bonafide_margin(out["task_logits"]), out["pooled"], out["repr"], hidden))
        margin, pooled, representation, hidden = zip(*parts, strict=True)
        found[run] = {
            "margin": torch.cat(margin).numpy(),
            "pooled": torch.cat(pooled).numpy(),
            "repr": torch.cat(representation).numpy(),
            "hidden": torch.cat(hidden, 1),
        }
    return found


def metrics(run):
    method, kind = run
    return json.loads((ASSETS / f"demo-spoof-{method}" / "metrics.json").read_text())["runs"][kind]


@pytest.mark.parametrize("run", RUNS, ids="-".join)
def test_every_checkpoint_is_a_run_folder_of_the_thesis_code(loaded, run):
    method, kind = run
    found, folder = loaded[run], RUNS[run]
    assert found.method == method
    assert found.net.layout.frozen == (kind == "frozen")
    assert (found.net.domain_discriminator is not None) == (method == "dann")
    assert yaml.safe_load((folder / "config_resolved.yaml").read_text()) == found.config
    vocab = json.loads((folder / "codec_vocab.json").read_text())
    assert list(vocab) == list(CODECS) and sorted(vocab.values()) == list(range(5))
    saved = torch.load(folder / "best.pt", weights_only=True)
    assert {"epoch", "metrics", "timestamp", "config", "model_state_dict", "optimizer_state_dict"} <= set(saved)
    assert (found.max_seconds, found.sample_rate) == (2.0, 16_000)
    assert found.metrics["eer"] == metrics(run)["eer"]["all"]


def test_the_frozen_pair_shares_its_whole_backbone_and_the_tuned_pair_shares_no_layer(loaded):
    layers = [f"layer {i}" for i in range(N_LAYERS)]
    subjects = {run: SpoofDetector.of("-".join(run), loaded[run], torch.device("cpu")) for run in RUNS}
    frozen = alike_parts(subjects["erm", "frozen"], subjects["dann", "frozen"])
    assert [part for part in ("stem", *layers) if not frozen[part]] == []
    assert not frozen["layer_pooling"] and not frozen["projection"] and not frozen["task_head"]
    null = null_sites(subjects["erm", "frozen"], subjects["dann", "frozen"])
    assert null == {Site("resid_post", layer) for layer in range(N_LAYERS)}
    tuned = alike_parts(subjects["erm", "tuned"], subjects["dann", "tuned"])
    assert not any(tuned[part] for part in ("stem", *layers, "layer_pooling", "projection", "task_head"))


@pytest.mark.slow
def test_a_frozen_backbones_layers_answer_alike_to_the_bit_and_tuned_ones_do_not(outputs):
    assert torch.equal(outputs["erm", "frozen"]["hidden"], outputs["dann", "frozen"]["hidden"])
    assert not np.allclose(outputs["erm", "frozen"]["margin"], outputs["dann", "frozen"]["margin"], atol=0.1)
    alike = [
        linear_cka(ours.mean(1), theirs.mean(1))
        for ours, theirs in zip(outputs["erm", "tuned"]["hidden"], outputs["dann", "tuned"]["hidden"], strict=True)
    ]
    assert alike[0] < 0.9
    assert alike[-1] < alike[0] - 0.15


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids="-".join)
def test_the_error_rates_of_the_shipped_clips_are_those_of_the_metrics_file(outputs, run):
    margin, told = outputs[run]["margin"], metrics(run)["shipped_clips_eer"]
    assert detection(margin, IS_HUMAN).eer == pytest.approx(told["all"], abs=0.01)
    for codec, found in by_codec(margin, IS_HUMAN, CODEC).items():
        assert found.eer == pytest.approx(told[codec], abs=0.045)  # one clip of 24 more or less
    assert told["all"] < 0.35  # no coin: the demo has something to lose


@pytest.mark.slow
@pytest.mark.parametrize("label", ["bonafide", "spoof"])
def test_the_tuned_dann_hides_the_codec_that_the_plain_model_shows(outputs, label):
    rows = IS_HUMAN == (label == "bonafide")
    codec, groups = np.array(CODEC)[rows].tolist(), UTTERANCE[rows]
    shown, hidden = (
        linear_probe(outputs[method, "tuned"]["repr"][rows], codec, groups, draws=0).accuracy
        for method in ("erm", "dann")
    )
    assert shown > 0.35
    assert hidden < shown - 0.08


@pytest.mark.parametrize("method", ["erm", "dann"])
def test_both_manifests_hold_the_same_clips_and_are_read_below_the_assets(method):
    manifest = read_manifest(ASSETS / f"demo-spoof-{method}" / "manifest.csv", roots=[ASSETS])
    assert [clip.clip_id for clip in manifest.clips] == [clip["clip_id"] for clip in CLIPS]
    assert {clip.path.resolve().parent for clip in manifest.clips} == {(ERM / "clips").resolve()}
    assert manifest.skipped == ()


def test_every_utterance_is_there_in_all_codecs_with_one_label_speaker_and_engine():
    assert len({clip["clip_id"] for clip in CLIPS}) == len(CLIPS) == 240
    of = {}
    for clip in CLIPS:
        of.setdefault(clip["utterance"], []).append(clip)
    for versions in of.values():
        assert [clip["domain"] for clip in versions] == list(CODECS)
        assert len({(clip["label"], clip["speaker"], clip["engine"], clip["language"]) for clip in versions}) == 1
    assert sum(IS_HUMAN) == 120
    assert {clip["engine"] for clip in CLIPS} == {"human", "espeak", "flite", "diphone", "hts", "clunits"}
    for label, fewest in (("bonafide", 5), ("spoof", 10)):
        assert len({clip["speaker"] for clip in CLIPS if clip["label"] == label}) >= fewest


def test_no_band_level_or_length_tells_people_from_synthesisers():
    seconds, level, top = [], [], []
    for clip in CLIPS:
        samples, rate = soundfile.read(ERM / clip["path"])
        info = soundfile.info(ERM / clip["path"])
        assert (info.format, info.subtype, rate, info.channels) == ("FLAC", "PCM_16", 8000, 1)
        seconds.append(len(samples) / rate)
        level.append(np.sqrt((samples**2).mean()))
        power = np.cumsum(np.abs(np.fft.rfft(samples)) ** 2)
        top.append(np.searchsorted(power, 0.999 * power[-1]) / len(power) * rate / 2)
    assert set(seconds) == {2.0}
    assert np.ptp(level) < 1e-3
    assert np.quantile(np.array(top)[np.array(CODEC) == "PCM"], 0.95) < 3500  # Hz: the telephone's band


def test_the_card_and_the_licence_name_every_person_and_the_address_that_one_of_them_asks_for():
    for folder in (ERM, DANN):
        card, licence = ((folder / name).read_text("utf-8") for name in ("DATA_CARD.md", "LICENSE.md"))
        for name in ("Allison Smith", "June Wallack", "Carlo Flora", "ivrvoice.ru", "Menardi", "voip.ammdomus.it"):
            assert name in licence
        assert "CC BY-SA 3.0" in licence and "CC BY 3.0" in licence
        assert "LICENSE.md" in card


def test_the_bundled_list_opens_both_with_the_fine_tuned_checkpoint():
    for folder in (ERM, DANN):
        demo = demos()[folder.name]
        assert demo.model_dir == folder / "tuned" / "best.pt" and demo.model_dir.is_file()
        assert demo.labels == ("bonafide", "spoof")
    named = demos()["demo-spoof-erm"].comparisons
    frozen = [(ERM / pair[side]).resolve() for pair in named for side in ("base", "donor") if "/" in pair[side]]
    assert frozen == [RUNS["erm", "frozen"] / "best.pt", RUNS["dann", "frozen"] / "best.pt"]


def test_the_folders_stay_small():
    size = {folder: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6 for folder in (ERM, DANN)}
    models = sum((folder / "best.pt").stat().st_size for folder in RUNS.values()) / 1e6
    assert models < 4
    assert sum((ERM / clip["path"]).stat().st_size for clip in CLIPS) / 1e6 < 6
    assert sum(size.values()) < 11


def test_the_saved_comparison_is_one_of_these_checkpoints_on_these_clips(loaded):
    config = json.loads((ERM / "run-compare" / "compare_config.json").read_text())
    assert config["manifest"]["sha256"] == hashlib.sha256((ERM / "manifest.csv").read_bytes()).hexdigest()
    for side, method in (("model", "erm"), ("donor", "dann")):
        assert config[side]["weights_sha256"] == loaded[method, "tuned"].weights_hash
