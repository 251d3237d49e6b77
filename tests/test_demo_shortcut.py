"""The bundled demo-shortcut is what its files say: a shortcut that was planted, which ablation finds and takes out.

The numbers of its saved run are computed again by the library's own forward and a classifier written out.
"""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, WavLMForSequenceClassification

from interp_core.data.clips import read_audio
from interp_core.experiments.experiment import open_result
from interp_core.experiments.neurons.experiment import NEURONS, _planted, resolve
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.models.bundled import demos
from interp_core.models.load import open_model

NAME = "demo-shortcut"
ASSETS = Path(__file__).parents[1] / "assets"
FOLDER = ASSETS / NAME
with (FOLDER / "manifest.csv").open(newline="") as file:
    CLIPS = list(csv.DictReader(file))
METRICS = json.loads((FOLDER / "metrics.json").read_text())
USUAL = {"calm": "studio", "excited": "phone"}
PLANTED = METRICS["planted_features"]


@pytest.fixture(scope="module")
def model():
    made = WavLMForSequenceClassification.from_pretrained(FOLDER / "model", dtype=torch.float32, local_files_only=True)
    return made.eval()


@pytest.fixture(scope="module")
def features(model):
    """[clips, 128] what the library's classifier gets."""
    extractor, seen = AutoFeatureExtractor.from_pretrained(FOLDER / "model", local_files_only=True), []
    hook = model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        for clip in CLIPS:
            samples = read_audio(FOLDER / clip["path"], 16_000)
            model(input_values=extractor(samples, sampling_rate=16_000, return_tensors="pt").input_values)
    hook.remove()
    return torch.cat(seen)


@pytest.fixture(scope="module")
def saved():
    return open_result(NEURONS, FOLDER / "run-ablate")


def rows(split):
    return [i for i, clip in enumerate(CLIPS) if clip["split"] == split]


def accuracy(model, features, split, without=()):
    """Share of a split's clips that the classifier names right when neurons are at their mean over the train clips."""
    edited = features.clone()
    edited[:, list(without)] = features[rows("train")].mean(0)[list(without)]
    with torch.inference_mode():
        answers = model.classifier(edited).argmax(-1)
    return float(np.mean([model.config.id2label[int(answers[i])] == CLIPS[i]["arousal"] for i in rows(split)]))


def best(saved, name, k):
    return saved.scores.sort_values(f"{name}_rank")["neuron"].head(k).tolist()


def test_the_stated_accuracies_are_what_the_librarys_own_classes_give(model, features):
    assert sum(p.numel() for p in model.parameters()) == METRICS["n_parameters"]
    for split in ("train", "id_val", "ood"):
        stated = METRICS["accuracy"][f"the shipped clips, split {split}"]
        assert stated["n"] == len(rows(split))
        assert accuracy(model, features, split) == pytest.approx(stated["accuracy"], abs=0.015)
    usual, other = (METRICS["accuracy"][f"held-out voices and sentences, the {n} channel"] for n in ("usual", "other"))
    assert usual["accuracy"] > 0.9 and other["accuracy"] < 0.5, "the classifier leans on the channel"


def test_taking_out_the_domains_neurons_helps_out_of_domain_as_the_saved_run_says_and_other_sets_do_not(
    model, features, saved
):
    k = saved.report["evidence"]["k"]
    row = saved.curve[(saved.curve["set"] == "domain") & (saved.curve["k"] == k)].iloc[0]
    domain, task = best(saved, "domain", k), best(saved, "task", k)
    base, without = accuracy(model, features, "ood"), accuracy(model, features, "ood", domain)
    assert base == pytest.approx(saved.report["base"]["head_ood"], abs=0.015)
    assert without == pytest.approx(row["head_ood"], abs=0.015)
    assert without > base + 0.3 and row["head_ood_change_low"] > 0.2
    assert accuracy(model, features, "ood", task) < base + 0.1
    rng = np.random.default_rng(1)
    others = [i for i in range(128) if i not in PLANTED]
    drawn = [accuracy(model, features, "ood", rng.choice(others, k, replace=False)) for _ in range(50)]
    assert max(drawn) < base + 0.1, "no set without a planted neuron helps"
    assert accuracy(model, features, "id_val", domain) > accuracy(model, features, "id_val") - 0.1


def test_the_ranking_finds_the_planted_neurons_and_they_alone_make_the_difference(model, features, saved):
    assert set(best(saved, "domain", len(PLANTED))) == set(PLANTED)
    assert not set(best(saved, "task", len(PLANTED))) & set(PLANTED)
    assert accuracy(model, features, "ood", PLANTED) > accuracy(model, features, "ood") + 0.3
    phone = np.array([clip["channel"] == "phone" for clip in CLIPS])
    apart = (features[phone].mean(0) - features[~phone].mean(0)).abs() / features.std(0)
    assert apart[PLANTED].min() > 1.5 > 2 * np.delete(apart.numpy(), PLANTED).max()


def test_the_verdict_is_selective_and_every_part_of_the_evidence_says_that_it_was_planted(saved):
    assert saved.report["verdict"] == "selective", saved.report["why"]
    assert saved.report["planted"] == demos()[NAME].planted
    assert any("was planted" in line for line in NEURONS.summary(saved))
    assert "planted" in saved.figure().get_suptitle()
    assert demos()[NAME].description.startswith("The shortcut in this model was planted")
    assert "planted" in (FOLDER / "DATA_CARD.md").read_text().splitlines()[2]


def test_each_recording_comes_over_both_channels_and_the_splits_are_crossed_held_and_turned_round():
    channels, texts, held = defaultdict(list), defaultdict(set), defaultdict(Counter)
    for clip in CLIPS:
        channels[clip["clip_id"].rpartition("-")[0]].append(clip["channel"])
        texts[clip["split"]].add(clip["text_id"])
        holds = "holds" if USUAL[clip["arousal"]] == clip["channel"] else "misleads"
        assert clip["shortcut"] == holds
        held[clip["split"]][clip["arousal"], holds] += 1
    assert all(sorted(both) == ["phone", "studio"] for both in channels.values()) and len(channels) == 120
    assert not texts["train"] & texts["id_val"] and texts["id_val"] == texts["ood"]
    assert set(held["train"].values()) == {24}
    for label in USUAL:
        assert (held["id_val"][label, "holds"], held["id_val"][label, "misleads"]) == (32, 4)
        assert (held["ood"][label, "holds"], held["ood"][label, "misleads"]) == (4, 32)


def test_the_data_card_states_the_measured_accuracies_and_all_demos_stay_small():
    card = (FOLDER / "DATA_CARD.md").read_text()
    for name, row in METRICS["accuracy"].items():
        assert f"| {name} | {row['n']} | {100 * row['accuracy']:.1f} % |" in card
    sizes = {
        demo.name: sum(f.stat().st_size for f in demo.folder.rglob("*") if f.is_file()) for demo in demos().values()
    }
    assert sizes[NAME] < 2e6 and sum(sizes.values()) < 48 * 2**20


def test_the_saved_run_is_of_these_weights_and_clips_and_is_what_the_command_gives_with_nothing_else(saved):
    assert saved.config["model"]["id"] == NAME and saved.config["manifest"]["clips"] == len(CLIPS)
    assert open_model(NAME, device="cpu").weights_hash == saved.config["model"]["weights_sha256"]
    filled = {name: getattr(demos()[NAME], name) for name in ("task", "domain", "train", "id", "ood")}
    wanted = resolve(AblateRequest(NAME))
    assert filled == {name: getattr(wanted, name) for name in filled}
    assert not wanted.differences_from(saved.config)


def test_what_was_planted_is_said_of_the_demos_own_clips_and_domain_and_of_nothing_else():
    for other in (AblateRequest(NAME, manifest="mine.csv"), AblateRequest(NAME, domain="speaker")):
        assert _planted(resolve(other)) == {}
    assert _planted(resolve(AblateRequest("demo-emotion-wavlm"))) == {}
    assert _planted(resolve(AblateRequest(NAME))) == {"planted": demos()[NAME].planted}
