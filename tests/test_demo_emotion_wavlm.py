"""The bundled demo-emotion-wavlm is what its files say, and both neuron experiments run on it out of the box."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor, WavLMForSequenceClassification

from interp_core.__main__ import main
from interp_core.cli import DONE
from interp_core.experiments.experiment import open_result
from interp_core.experiments.neurons.experiment import NEURONS
from interp_core.experiments.signflip.experiment import SIGNFLIP
from interp_core.models.bundled import demos
from interp_core.models.load import open_model

NAME = "demo-emotion-wavlm"
FOLDER = Path(__file__).parents[1] / "assets" / NAME
with (FOLDER / "manifest.csv").open(newline="") as file:
    CLIPS = list(csv.DictReader(file))
METRICS = json.loads((FOLDER / "metrics.json").read_text())


def test_the_stated_accuracy_on_the_shipped_clips_is_what_the_librarys_own_classes_give():
    model = WavLMForSequenceClassification.from_pretrained(FOLDER / "model", dtype=torch.float32, local_files_only=True)
    extractor = AutoFeatureExtractor.from_pretrained(FOLDER / "model", local_files_only=True)
    assert sum(p.numel() for p in model.parameters()) == METRICS["n_parameters"]
    right = []
    with torch.inference_mode():
        for clip in CLIPS:
            samples, rate = soundfile.read(FOLDER / clip["path"], dtype="float32")
            inputs = extractor(samples, sampling_rate=rate, return_tensors="pt")
            answer = model.eval()(input_values=inputs.input_values).logits.argmax().item()
            right.append(model.config.id2label[answer] == clip["prosody_label"])
    stated = METRICS["accuracy"]["the shipped clips"]
    assert stated["n"] == len(CLIPS) and sum(right) / len(right) == pytest.approx(stated["accuracy"], abs=0.01)
    assert sum(right) / len(right) > 0.4  # twice chance, or there is nothing to look into


def test_the_data_card_states_the_measured_accuracies_and_the_folder_is_small():
    card = (FOLDER / "DATA_CARD.md").read_text()
    for name, row in METRICS["accuracy"].items():
        assert f"| {name} | {row['n']} | {100 * row['accuracy']:.1f} % |" in card
    size = sum(path.stat().st_size for path in (FOLDER / "model").iterdir())
    assert size < 5e6
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 8e6


def test_splits_divide_no_sentence_and_keep_one_speaker_out():
    parts = defaultdict(set)
    for clip in CLIPS:
        parts[clip["split"]].add((clip["text_id"], clip["speaker"]))
    assert set(parts) == {"train", "id_val", "ood"}
    texts = {split: {text for text, _ in pairs} for split, pairs in parts.items()}
    assert not texts["train"] & texts["id_val"] and not texts["train"] & texts["ood"]
    speakers = {split: {speaker for _, speaker in pairs} for split, pairs in parts.items()}
    assert speakers["train"] == speakers["id_val"] and len(speakers["train"]) == 3
    assert len(speakers["ood"]) == 1 and not speakers["ood"] & speakers["train"]


@pytest.mark.slow
def test_both_experiments_run_on_it_with_nothing_else_given(tmp_path):
    assert main(["ablate", "--model", NAME, "--draws", "5", "--refits", "0", "--out", str(tmp_path / "a")]) == DONE
    made = open_result(NEURONS, tmp_path / "a")
    assert made.config["settings"]["domain"] == "speaker" and made.report["counts"]["ood"]["clips"] == 30
    assert not made.report["refused"]
    assert main(["signflip", "--model", NAME, "--pilot", "30", "--draws", "2", "--out", str(tmp_path / "s")]) == DONE
    made = open_result(SIGNFLIP, tmp_path / "s")
    assert made.report["target"] == "neutral" and made.report["n_layers"] == 6


def test_the_saved_runs_are_of_these_weights_and_clips():
    demo = demos()[NAME]
    for command, experiment in (("ablate", NEURONS), ("signflip", SIGNFLIP)):
        saved = open_result(experiment, demo.folder / f"run-{command}")
        assert saved.config["model"]["id"] == NAME and saved.config["manifest"]["clips"] == len(CLIPS)
    assert open_model(NAME, device="cpu").weights_hash == saved.config["model"]["weights_sha256"]
