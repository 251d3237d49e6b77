"""Steering from request to run folder and back: planted directions, controls, doses by another route, vectors of a
file.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from interp_core.data.clips import Clip
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.steering import tables
from interp_core.experiments.steering.experiment import STEERING
from interp_core.experiments.steering.plan import Question, SteerPlan
from interp_core.experiments.steering.request import SteerRequest
from interp_core.experiments.steering.run import run_steering
from interp_core.models.arch import EncoderArch
from interp_core.models.encoders.subject import Encoder
from interp_core.models.labels import LabelTokens
from interp_core.sinks import MEMORY
from interp_core.sites import Site
from interp_core.storage import plain
from interp_core.trace.hooks import edited
from tests.experiments.neuron_clips import write_clips, write_model
from tests.experiments.scenes import Recordings
from tests.families.encoders import save_clap_audio, save_whisper
from tests.spoof_pairs import save_pair, write_spoof_corpus

# ---- a model whose directions are known ------------------------------------------------------------------------------

WIDTH, LABELS = 16, LabelTokens(("a", "b", "c"), (0, 1, 2), {})
DIRECTIONS = torch.linalg.qr(torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(3)))[0].T


class Same(nn.Module):
    """A block that leaves its input."""

    def forward(self, hidden_states):
        return hidden_states + 0


class Net(nn.Module):
    """Three such blocks, and a head that reads how far the mean frame lies along each label's direction."""

    config = SimpleNamespace(model_type="planted", num_attention_heads=1, hidden_size=WIDTH)

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Same() for _ in range(3))
        self.classifier = nn.Linear(WIDTH, 3, bias=False)
        self.classifier.weight.data = 5 * DIRECTIONS
        self.eval().requires_grad_(False)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x.mean(1))


class Planted(Encoder):
    """Its samples are its frames, one after the other."""

    sample_rate, shortest, device = 100, 1, torch.device("cpu")
    answers = LABELS.labels

    @property
    def config(self):
        return self.hf.config

    def model_inputs(self, samples, prompt):
        return {"x": torch.from_numpy(samples).view(1, -1, WIDTH)}

    def seconds_per_position(self):
        return 0.01

    def forward(self, inputs):
        return self.hf(**inputs).float()

    def readout(self, hidden, batch):
        return self.hf.classifier(hidden.mean(1))


ARCH = EncoderArch(blocks="layers", sizes="", attn=None, attn_proj=None, mlp=None, mlp_proj=None, norm=None)


@pytest.fixture(scope="module")
def planted():
    """The result of a run on 48 clips of that model, with the label's direction 1 long in a good deal of noise."""
    rng, sounds, clips = np.random.default_rng(0), {}, []
    for i in range(48):
        name, label = f"c{i}", LABELS.labels[i % 3]
        frames = DIRECTIONS[i % 3].numpy() + 0.3 * rng.normal(size=(5, WIDTH))
        sounds[name] = frames.astype(np.float32).ravel()
        clips.append(Clip(name, Path(name), {"label": label, "speaker": f"s{i // 3}"}, name))
    subject = Planted("planted", "0" * 64, Net(), ARCH)
    reader = Recordings(subject, "", sounds)
    settings = SteerRequest(
        "m", alphas=(1.0, 2.0, 4.0), control_alpha=2.0, task="label", units="speaker", prompts=("",),
        targets=LABELS.labels, layers=(0, 1, 2), every_draw=True,
    )  # fmt: skip
    first, second = tuple(clips[:24]), tuple(clips[24:])
    plan = SteerPlan(
        settings, (Question(reader, LABELS),), {}, first, tuple(str(c.label("label")) for c in first), second,
        LABELS.labels, (0, 1, 2), {0: 1, 1: 2, 2: 0}, None, ("label",),
    )  # fmt: skip
    halves = {"fitted_on": {"clips": 24, "units": 8}, "steered": {"clips": 24, "units": 8}}
    return run_steering(plan, clips, {"settings": {"units": "speaker"}, "halves": halves}, sink=MEMORY)


def rates(result, condition, alpha, column="moved_rate"):
    rows = result.dose[(result.dose["condition"] == condition) & (result.dose["alpha"] == alpha)]
    return rows[column].to_numpy(float)


def test_a_planted_direction_is_recovered_and_moves_every_clip_where_random_and_shuffled_ones_move_none(planted):
    for number, label in enumerate(LABELS.labels):
        wanted = DIRECTIONS[number] - DIRECTIONS[[i for i in range(3) if i != number]].mean(0)
        for layer in (0, 1, 2):
            found = planted.vectors.of(label, layer)
            assert float(torch.cosine_similarity(found, wanted, dim=0)) > 0.95
    assert (rates(planted, "vector", 2.0) == 1).all() and len(rates(planted, "vector", 2.0)) == 9
    assert (rates(planted, "layer", 2.0) == 1).all(), "all layers hold the same here"
    assert rates(planted, "random", 2.0).max() < 0.2 and rates(planted, "random", 1.0).max() < 0.1
    assert rates(planted, "shuffled", 2.0).max() < 0.2, "at its own length"
    p = rates(planted, "vector", 2.0, "p_random")
    assert p.max() <= 0.1 and (planted.smallest["alpha"] <= 2).all()
    adjusted = rates(planted, "vector", 2.0, "p_adjusted")
    assert (adjusted >= p).all() and np.median(adjusted) < 0.05, "of 20 random vectors some lie near a direction"


def test_every_random_vector_met_every_clip_at_the_controls_strength_and_one_in_turn_elsewhere(planted):
    rows = planted.records[planted.records["condition"] == "random"].to_dict("records")
    for row in rows:
        number = int(row["clip_id"][1:]) - 24
        drawn = {
            alpha: [d for a, d in zip(row["alpha"], row["draw"], strict=True) if a == alpha] for alpha in (1, 2, 4)
        }
        assert drawn == {1: [number % 20], 2: list(range(20)), 4: [number % 20]}
    for column in ("p_random", "p_adjusted"):
        assert np.isnan(rates(planted, "vector", 1.0, column)).all()


def test_p_is_missing_with_what_to_ask_for_where_random_vectors_are_few_or_met_a_part_of_the_clips(planted):
    clips = [Clip(f"c{i}", Path("c"), {"label": "abc"[i % 3], "speaker": f"s{i // 3}"}, "") for i in range(24, 48)]

    def found(kept):
        rows = []
        for row in planted.records.to_dict("records"):
            some = [i for i, draw in enumerate(row["draw"]) if row["condition"] != "random" or kept(row, draw)]
            lists = ("alpha", "draw", "answer", "logits", "label_mass")
            rows.append({**row, **{name: [row[name][i] for i in some] for name in lists}})
        dose = tables.dose_table(rows, clips, LABELS.labels, ("label",), "speaker")
        return dose[dose["condition"] == "vector"]

    assert found(lambda row, draw: True)["p_adjusted"].notna().any()
    few = found(lambda row, draw: draw < 10)
    assert few["p_adjusted"].isna().all() and few["p_random"].notna().any()
    assert few["interval_method"].str.endswith("not testable: 10 random draws, 20 needed (--draws 20)").all()
    turns = found(lambda row, draw: draw == (int(row["clip_id"][1:]) - 24) % 20)
    assert turns[["p_adjusted", "p_random"]].isna().all(axis=None)
    assert turns["interval_method"].str.endswith("cannot be ranked; --every-draw lets each meet all").all()


def test_the_accuracy_that_a_vector_costs_is_that_of_the_steered_answers(planted):
    truth = {f"c{i}": LABELS.labels[i % 3] for i in range(48)}
    dose = planted.dose
    for condition, label, layer, alpha in (("vector", "b", 1, 2.0), ("shuffled", "a", 0, 2.0)):
        rows = planted.records
        rows = rows[(rows["condition"] == condition) & (rows["label"] == label) & (rows["layer"] == layer)]
        answers = {row["clip_id"]: row["answer"][row["alpha"].index(alpha)] for row in rows.to_dict("records")}
        right = np.mean([truth[clip_id] == answer for clip_id, answer in answers.items()])
        here = dose[(dose["condition"] == condition) & (dose["label"] == label) & (dose["layer"] == layer)]
        row = here[here["alpha"] == alpha].iloc[0]
        assert row["accuracy_label"] == pytest.approx(right)
        assert row["accuracy_change_label"] == pytest.approx(right - 1)  # unsteered, all are right
        assert (row["n"], row["n_units"], row["n_label"]) == (24, 8, 24)
        others = [clip_id for clip_id in answers if truth[clip_id] != label]  # unsteered, all are answered rightly
        assert row["eligible"] == len(others) == 16
        assert row["moved_rate"] == pytest.approx(np.mean([answers[clip_id] == label for clip_id in others]))
        assert row["changed_rate"] == pytest.approx(np.mean([answers[one] != truth[one] for one in answers]))
    base = dose[dose["condition"] == "base"].iloc[0]
    assert base["accuracy_label"] == 1 and base["changed_rate"] == 0 and np.isnan(base["moved_rate"])
    few = dose[dose["condition"] == "vector"]["interval_method"]
    assert few.str.startswith(
        "no interval: 8 clusters, 10 needed; p, against random vectors: the larger of rank among 20"
    ).all()


# ---- the whole way, with a tiny encoder ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steering")
    return write_model(folder / "model"), write_clips(folder / "clips")


@pytest.fixture(scope="module")
def engine():
    return Engine()


@pytest.fixture(scope="module")
def asked(place):
    model, manifest = place
    return SteerRequest(
        str(model), str(manifest), device="cpu", units="text_id", layers=(0, 2), alphas=(0.0, 4.0), draws=3
    )


@pytest.fixture(scope="module")
def kept(asked, engine, tmp_path_factory):
    """(result, its folder)"""
    folder = tmp_path_factory.mktemp("run") / "run"
    return run(STEERING, engine, asked, out=folder), folder


def test_a_run_folder_holds_specs_files_and_reads_back_as_it_was(kept, asked, engine):
    made, folder = kept
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "steering_config.json", "steering_vectors.safetensors", "steering_dose.csv", "steering_records.jsonl",
        "steering_dose.png", "sanity_check_steering.json",
    }  # fmt: skip
    again = open_result(STEERING, folder)
    pd.testing.assert_frame_equal(again.dose, made.dose, check_dtype=False)
    pd.testing.assert_frame_equal(again.records, made.records, check_dtype=False)
    assert again.report == plain(made.report) and again.config == made.config
    assert again.vectors.to_bytes() == made.vectors.to_bytes() == (folder / "steering_vectors.safetensors").read_bytes()
    request = SteerRequest.from_config(json.loads((folder / "steering_config.json").read_text()))
    assert request == replace(STEERING.prepare(engine, asked).request, dtype="float32")
    assert all(check["passed"] for check in made.checks()) and len(made.checks()) == 3


def test_no_text_is_on_both_sides_and_both_halves_are_in_the_files(kept):
    made, _ = kept
    halves = made.config["halves"]
    assert not set(halves["fitted_on"]["names"]) & set(halves["steered"]["names"])
    assert halves["fitted_on"]["units"] == halves["steered"]["units"] == 4
    about = made.vectors.about
    assert sum(about["n"].values()) == halves["fitted_on"]["clips"] == len(about["fitted"]) == 12
    assert not set(about["fitted"]) & set(about["held_out"])
    steered = {name.split("-")[0] for name in made.records["clip_id"]}
    assert steered == set(halves["steered"]["names"])
    assert any(
        "fitted on 12 clips (4 of text_id), added to 12 others (4 of text_id)" in s for s in made.config["rests_on"]
    )


def test_fewer_clips_to_steer_leave_those_that_are_fitted_on_and_a_pilot_takes_fewer_of_both(asked, engine):
    whole, few, pilot = (
        STEERING.prepare(engine, replace(asked, **changes)).plan for changes in ({}, {"max_steered": 3}, {"pilot": 2})
    )
    assert few.fitted == whole.fitted and len(few.steered) == 3
    assert set(few.steered) < set(whole.steered) and few.steered[-1] == whole.steered[-1], "evenly over them"
    assert len(pilot.steered) == 2 and len(pilot.fitted) == 4, "two of each label"


def test_a_strength_of_nothing_moves_nothing_and_leaves_every_logit(kept):
    made, _ = kept
    nothing = made.dose[made.dose["alpha"] == 0]
    assert len(nothing) and (nothing["changed_rate"] == 0).all()
    base = made.records[made.records["condition"] == "base"].set_index("clip_id")["logits"]
    for row in made.records[made.records["condition"] == "vector"].to_dict("records"):
        assert row["logits"][row["alpha"].index(0.0)] == base[row["clip_id"]][0]
        assert row["logits"][1] != row["logits"][0]


def test_records_are_what_a_hook_in_the_whole_forward_answers(kept, asked, engine):
    made, _ = kept
    plan = STEERING.prepare(engine, asked).plan
    question = plan.questions[0]
    clip = plan.steered[3]
    ready = question.reader.ready(clip)
    rows = made.records[(made.records["clip_id"] == clip.clip_id) & (made.records["condition"] == "vector")]
    for row in rows.to_dict("records"):
        vector = made.vectors.of(row["label"], int(row["layer"]))
        with (
            torch.inference_mode(),
            edited(
                question.reader.subject,
                {Site("resid_post", int(row["layer"])): lambda v, vector=vector: v + 4 * vector},
            ),
        ):
            logits = question.labels.read(question.reader.answer([ready]))[0][0]
        np.testing.assert_allclose(row["logits"][1], logits.numpy(), atol=2e-4)


def test_vectors_of_a_file_are_added_to_the_clips_that_they_were_not_fitted_on(kept, asked, engine, tmp_path):
    made, folder = kept
    path = folder / "steering_vectors.safetensors"
    again = run(STEERING, engine, replace(asked, vector=str(path), layers=None), out=tmp_path / "again")
    assert again.layers == (0, 1, 2)[: len(made.vectors.layers)] or set(again.layers) == set(made.vectors.layers)
    assert set(again.records["clip_id"]) == set(made.records["clip_id"])
    assert "shuffled" not in set(again.dose["condition"])
    for column in ("moved_rate", "changed_rate"):
        ours, theirs = (
            one.dose[(one.dose["condition"] == "vector") & one.dose["layer"].isin([0, 2])][column].to_numpy(float)
            for one in (made, again)
        )
        np.testing.assert_allclose(ours, theirs)
    assert again.config["halves"]["vector"]["sha256"] and "the vectors of steering_vectors" in again.remarks()[0]
    assert engine.key_of(asked) != engine.key_of(replace(asked, vector=str(path)))
    other = tmp_path / "copy.safetensors"
    other.write_bytes(path.read_bytes())
    key = engine.key_of(replace(asked, vector=str(other)))
    other.write_bytes(replace(made.vectors, about={}).to_bytes())
    assert engine.key_of(replace(asked, vector=str(other))) != key, "what the file holds is a part of the run"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"targets": ("joyful",)}, "--targets 'joyful': no answer of the model"),
        ({"targets": ("sad",)}, "--targets 'sad': there is no clip to fit on"),
        ({"layers": (3,)}, "layer=3 is outside"),
        ({"layers": ()}, "no layer was given"),
        ({"alphas": ()}, "give one or more strengths"),
        ({"alphas": (1.0, 1.0)}, "give each strength once"),
        ({"control_alpha": 3.0}, "3 is none of the strengths 0, 4"),
        ({"positions": "last"}, "has no positions 'last'"),
        ({"task": "speaker"}, "none of the answers"),
        ({"units": "split", "pilot": 1, "max_clips": 2}, "all clips are of one split; two are needed"),
        ({"vector": "nowhere.safetensors"}, "the vectors nowhere.safetensors do not exist"),
        ({"told": "It is so."}, "names no label; write {label}"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked_is_one_sentence(asked, engine, changes, said):
    with pytest.raises(InterpError) as caught:
        run(STEERING, engine, replace(asked, **changes))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_vectors_outside_the_folders_of_a_server_are_not_opened(asked, place, kept):
    engine = Engine(roots=[place[1].parent], model_roots=[place[0]])
    with pytest.raises(InterpError, match="outside|not below|may be read"):
        STEERING.prepare(engine, replace(asked, vector=str(kept[1] / "steering_vectors.safetensors")))


WORDS = {"labels": ("happy", "sad", "neutral", "angry")}
SUBJECTS = {
    "whisper": (save_whisper, WORDS),
    "whisper, decoder": (save_whisper, {**WORDS, "part": "decoder"}),
    "whisper, last position": (save_whisper, {**WORDS, "part": "decoder", "positions": "last"}),
    "clap with a probe": (save_clap_audio, {"probe": "prosody_label"}),
    "countermeasure": (lambda folder: save_pair(folder, "tuned")[0], {}),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_kind_of_model_is_steered_with_as_many_records_as_its_plan_says(name, place, tmp_path):
    save, changes = SUBJECTS[name]
    manifest = place[1]
    if name == "countermeasure":
        manifest = write_spoof_corpus(tmp_path / "spoof", speakers=2, utterances=1, codecs=("NONE",))
    asked = SteerRequest(
        str(save(tmp_path / "model")), str(manifest), device="cpu", alphas=(4.0,), draws=2, pilot=2, **changes
    )
    engine = Engine()
    ready = STEERING.prepare(engine, asked)
    made = run(STEERING, engine, asked, ready=ready)
    assert len(made.records) == len(ready.plan.steered) * ready.plan.records_a_clip
    assert all(check["passed"] for check in made.checks())
    assert {"vector", "random", "shuffled", "base"} <= set(made.dose["condition"])
    assert ("layer" in set(made.dose["condition"])) == bool(ready.plan.partners)
    told = "prompt" in set(made.dose["condition"])
    assert not told and ("whisper" not in name or any("has to start with" in note for note in ready.notes))
    made.figure(), made.profile(), list(STEERING.summary(made)), made.examples(1)


def test_a_model_without_an_answer_is_refused_with_what_to_do(place, tmp_path):
    with pytest.raises(InterpError, match=r"has no classifier.*\(--probe COLUMN\)"):
        STEERING.prepare(Engine(), SteerRequest(str(save_clap_audio(tmp_path / "m")), str(place[1]), device="cpu"))


# ---- the bundled demo ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_the_demo_angry_of_two_voices_moves_two_unseen_voices_and_random_vectors_do_not():
    asked = SteerRequest(
        "demo-emotion", device="cpu", units="speaker", targets=("angry",), layers=(2, 4), alphas=(4.0,), pilot=20,
        controls=("random", "shuffled"), every_draw=True, draws=20, prompts=("",), checks=False,
    )  # fmt: skip
    prompt = Engine().demo("demo-emotion").prompts[0][1]
    made = run(STEERING, Engine(), replace(asked, prompts=(prompt,)))
    fitted, steered = (set(made.config["halves"][side]["names"]) for side in ("fitted_on", "steered"))
    assert len(fitted) == len(steered) == 2 and not fitted & steered
    base = made.records[made.records["condition"] == "base"].set_index("clip_id")["answer"]
    others = {clip for clip, answer in base.items() if answer[0] != "angry"}  # an angry clip cannot be moved to angry
    assert len(base) == 20 and len(others) >= 15
    rows = made.records[(made.records["label"] == "angry") & made.records["clip_id"].isin(others)]
    for layer in (2, 4):
        here = rows[rows["layer"] == layer].set_index("condition")["answer"]
        assert sum(answer[0] == "angry" for answer in here["vector"]) >= 0.9 * len(others)
        by_draw = [sum(answer[draw] == "angry" for answer in here["random"]) for draw in range(20)]
        assert np.mean(by_draw) <= 1 and sum(moved > 1 for moved in by_draw) <= 1, (layer, by_draw, len(others))
        assert max(by_draw) <= 0.15 * len(others)
        dose = made.dose[(made.dose["layer"] == layer) & (made.dose["label"] == "angry")].set_index("condition")
        assert dose.loc["vector", "moved_rate"] >= 0.9 and dose.loc["shuffled", "moved_rate"] < 0.1
        assert dose.loc["random", "eligible"] == len(others)
