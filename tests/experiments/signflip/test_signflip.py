"""Sign flips: a two-layer model worked out by hand, the flow against hooks in every sort of model, planted neurons."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from interp_core.data.clips import Acoustics, Clip
from interp_core.data.sampling import halves
from interp_core.errors import InterpError
from interp_core.experiments.signflip.layers import LayerStates, gradients
from interp_core.experiments.signflip.measure import edit_rows
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.experiments.signflip.run import attribute, run_signflip
from interp_core.experiments.signflip.tables import OUTPUT, cluster_error, constructed
from interp_core.models.arch import EncoderArch
from interp_core.models.encoders.subject import Encoder
from interp_core.models.labels import LabelTokens
from interp_core.sinks import MEMORY
from interp_core.sites import Site
from interp_core.trace.hooks import captured, edited
from tests.experiments.scenes import Recordings, open_scene
from tests.families.subjects import all_logits

LABELS = LabelTokens(("a", "b"), (0, 1), {})
RATE = 50


class Mix(nn.Module):
    """A block: each frame times a matrix."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = torch.tensor(matrix)

    def forward(self, hidden_states):
        return hidden_states @ self.matrix.T


class Net(nn.Module):
    config = SimpleNamespace(model_type="by hand", num_attention_heads=1, hidden_size=2)

    def __init__(self, *matrices):
        super().__init__()
        self.layers = nn.ModuleList(Mix(matrix) for matrix in matrices)
        self.classifier = nn.Linear(2, 2)
        self.classifier.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
        self.classifier.bias.data.zero_()
        self.eval().requires_grad_(False)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x.mean(1))


class ByHand(Encoder):
    """Its `samples` are its frames, two numbers each, side by side."""

    sample_rate, shortest = 2 * RATE, 1

    @property
    def config(self):
        return self.hf.config

    def model_inputs(self, samples, prompt):
        return {"x": torch.from_numpy(samples).view(1, -1, 2)}

    def seconds_per_position(self):
        return 1 / RATE

    def forward(self, inputs):
        return self.hf(**inputs).float()

    def readout(self, hidden, batch):
        return self.hf.classifier(hidden.mean(1))

    @property
    def answers(self):
        return LABELS.labels

    @property
    def device(self):
        return torch.device("cpu")


ARCH = EncoderArch(blocks="layers", sizes="", attn=None, attn_proj=None, mlp=None, mlp_proj=None, norm=None)
SERIES = {
    "c0": [(1.0, 2.0), (-2.0, 0.5), (3.0, -1.0), (-0.5, -2.0), (0.2, 1.5), (2.5, 0.3)],
    "c1": [(0.3, 1.0), (1.2, -0.4), (-2.0, 2.0), (1.5, -1.0), (0.7, 0.9), (-1.1, 0.2)],
    "c2": [(2.0, -1.0), (0.1, 0.8), (-1.0, 1.4), (0.6, -2.0), (1.9, 0.4), (-0.8, 1.1)],
    "c3": [(-1.4, 0.2), (0.9, 1.3), (2.2, -0.6), (-0.1, 0.7), (1.0, -1.5), (0.5, 2.0)],
}


def by_hand(*matrices):
    subject = ByHand("by hand", "0" * 64, Net(*matrices), ARCH)
    clips = [Clip(name, Path(name), {"label": "ab"[i % 2], "speaker": f"s{i}"}, name) for i, name in enumerate(SERIES)]
    return Recordings(subject, "", {name: np.float32(series).ravel() for name, series in SERIES.items()}), clips


def silent(clips):
    return {c.clip_id: Acoustics(1.0, 100.0 + i, 0.1 * i, 0.2 * i, 50.0 * i) for i, c in enumerate(clips)}


def run(reader, clips, settings, labels=LABELS):
    settings = replace(settings, task="label", units="speaker")
    return run_signflip(reader, clips, labels, settings, config={}, acoustics=silent, sink=MEMORY)


def change(found, flipped, measured, proxy, column="change"):
    rows = found.changes
    rows = rows[(rows["flipped"] == flipped) & (rows["measured"] == measured) & (rows["proxy"] == proxy)]
    assert len(rows) == 1
    return rows[column].iloc[0]


IDENTITY, SHEAR = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize("frames", ["max", "all"])
def test_a_two_layer_model_worked_out_by_hand(frames):
    reader, clips = by_hand(IDENTITY, SHEAR)
    settings = SignflipRequest("m", target="a", topk=1, frames=frames, draws=0)
    found = run(reader, clips, settings)
    # The target's logit is the mean of x0 + x1 behind the shear: both neurons of layer 0 weigh alike, the larger wins.
    neuron = int(found.top[(found.top["layer"] == 0)]["neuron"].iloc[0])
    _, measured = halves(clips, "speaker", settings.seed)
    expected = []
    for clip in measured:
        series = SERIES[clip.clip_id]
        loudest = max(range(6), key=lambda t: abs(series[t][neuron]))  # noqa: B023
        base, other = [], []
        for t, (x0, x1) in enumerate(series):
            turn = -1 if frames == "all" or t == loudest else 1
            y0, y1 = (turn * x0, x1) if neuron == 0 else (x0, turn * x1)
            base.append(math.hypot(x0 + x1, x1))  # what the shear makes of a frame
            other.append(math.hypot(y0 + y1, y1))
        expected.append(sum(abs(a - b) for a, b in zip(base, other, strict=True)) / sum(base))
    assert change(found, 0, 1, "rms") == pytest.approx(np.mean(expected), rel=1e-5)
    assert change(found, 0, OUTPUT, "rms") == pytest.approx(np.mean(expected), rel=1e-5)  # nothing between them
    assert change(found, 0, 1, "rms") > 0.05
    for proxy in ("rms", "centroid", "centroid_no_dc"):
        assert change(found, 0, 0, proxy) == pytest.approx(0, abs=1e-6)
        assert change(found, 0, 0, proxy, "by_construction")
        assert not change(found, 0, 1, proxy, "by_construction")
        assert change(found, 0, 1, proxy) > 1e-3
    assert change(found, 0, 0, "zcr_refit", "by_construction") == (frames == "all")
    if frames == "all":
        assert change(found, 0, 0, "zcr_refit") == 0
    assert not change(found, 0, 0, "zcr", "by_construction")
    assert set(found.changes["measured"][found.changes["flipped"] == 1]) == {1, OUTPUT}  # nothing before the edit
    # The readout reads the last layer as it is, so a flip there is measured in place at the output too.
    assert change(found, 1, OUTPUT, "rms", "by_construction") and change(found, 1, OUTPUT, "rms") < 1e-6
    assert not change(found, 0, OUTPUT, "rms", "by_construction")


def test_only_a_flip_in_place_has_zeros_by_construction():
    assert constructed("flip", "max", "rms", True) and constructed("flip", "all", "zcr_refit", True)
    assert not constructed("flip", "max", "zcr_refit", True)
    assert not constructed("flip", "all", "zcr", True)
    assert not constructed("zero", "all", "rms", True)
    assert not constructed("flip", "all", "rms", False)
    assert not constructed("flip", "max", "rms", True, bands=3)  # bands are averaged after the flip of one patch


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_what_is_no_flip_does_change_energy_in_place(kind):
    reader, clips = by_hand(IDENTITY, SHEAR)
    found = run(reader, clips, SignflipRequest("m", topk=1, frames="all", kind=kind, draws=0))
    assert change(found, 0, 0, "rms") > 0.05


def test_edits_reach_the_chosen_neurons_at_the_chosen_frames_and_nothing_else():
    value = torch.tensor([[1.0, -9.0, 0.5], [4.0, 2.0, -3.0], [-5.0, 1.0, 2.0], [7.0, 8.0, 9.0]])
    at = torch.tensor([0, 1, 2])  # the last position holds no recording, though it is the loudest
    turned = edit_rows(value, [(0, 2), (1,)], at, SignflipRequest("m", frames="max"), None)
    expected = value.expand(2, -1, -1).clone()
    expected[0, 2, 0], expected[0, 1, 2] = 5.0, 3.0
    expected[1, 0, 1] = 9.0
    assert torch.equal(turned, expected)
    turned = edit_rows(value, [(0,)], at, SignflipRequest("m", frames="all"), torch.tensor([0.25, 1.0, 1.0]))
    assert turned[0, :, 0].tolist() == [0.25, 0.25, 0.25, 7.0]
    assert torch.equal(turned[0, :, 1:], value[:, 1:])


SORTS = ["wavlm-base", "wav2vec2-large-weighted", "ast", "spoof-wavlm-erm", "whisper-classifier", "qwen2-audio"]


@pytest.fixture(scope="module", params=SORTS)
def scene(request, tmp_path_factory):
    reader, clips = open_scene(request.param, tmp_path_factory.mktemp("model") / "m")
    with torch.inference_mode():
        labels = all_logits(reader.answer([reader.ready(clips[0])])[:, :5])
    return reader, clips, labels


def test_edited_copies_travel_as_the_whole_forward_with_the_edit_in_it(scene):
    reader, clips, labels = scene
    subject, ready = reader.subject, reader.ready(clips[3])
    later_sites = [Site("resid_post", layer) for layer in range(subject.n_layers)]
    with torch.inference_mode(), subject.lock:
        flow = LayerStates(reader, ready, labels)
        settings = SignflipRequest("m", frames="all")
        for layer in range(subject.n_layers):
            rows = edit_rows(flow.states[layer], [(0, 3), (1, 2, 5)], flow.frames_at, settings, None)
            later, _, logits = flow.travel(layer, rows)
            for row in range(2):
                with (
                    captured(subject, later_sites) as store,
                    edited(subject, {Site("resid_post", layer): lambda value, new=rows[row]: new[None].to(value)}),
                ):
                    reference = labels.read(reader.answer([ready]))[0][0]
                scale = max(1.0, float(reference.abs().max()))
                assert float((logits[row] - reference).abs().max()) <= 1e-4 * scale
                for i, state in enumerate(later):
                    wanted = store[Site("resid_post", layer + 1 + i)][0]
                    assert torch.allclose(state[row], wanted, atol=1e-4 * float(wanted.abs().max()))
        plain = labels.read(reader.answer([ready]))[0][0]
    assert torch.allclose(flow.logits, plain, atol=1e-4 * float(plain.abs().max().clamp(min=1)))


def test_the_gradient_times_activation_is_what_scaling_a_neuron_does_to_the_logit(scene):
    reader, clips, labels = scene
    subject, ready, layer, step = reader.subject, reader.ready(clips[0]), 0, 2e-3
    products = gradients(reader, ready, labels, target=1)[layer].sum(0)
    neuron = int(products.abs().argmax())
    answers = []
    for sign in (1, -1):

        def scaled(value, sign=sign):
            inside = reader.inside(ready, Site("resid_post", layer), value.shape[1])
            new = value.clone()
            new[:, inside, neuron] *= 1 + sign * step
            return new

        with torch.inference_mode(), edited(subject, {Site("resid_post", layer): scaled}):
            answers.append(float(labels.read(reader.answer([ready]))[0][0, 1]))
    assert float(products[neuron]) == pytest.approx((answers[0] - answers[1]) / (2 * step), rel=0.05)


def test_a_run_on_a_real_class_measures_every_later_layer_and_counts_what_changed(scene):
    reader, clips, labels = scene
    clips = [
        Clip(c.clip_id, c.path, {"label": labels.labels[i % 2], "speaker": f"s{i}"}, c.digest)
        for i, c in enumerate(clips)
    ]
    found = run(reader, clips, SignflipRequest("m", topk=4, frames="all", draws=3), labels)
    n = reader.subject.n_layers
    pairs = set(zip(found.changes["flipped"], found.changes["measured"], strict=True))
    assert pairs == {(f, m) for f in range(n) for m in (*range(f, n), OUTPUT)}
    in_place = found.changes[found.changes["by_construction"]]
    assert set(in_place["proxy"]) == {"rms", "centroid", "centroid_no_dc", "zcr_refit"}
    assert (in_place["change"].dropna() < 1e-6).all()
    assert (found.changes[found.changes["measured"] > found.changes["flipped"]]["change"].dropna() > 0).any()
    for flipped, part in found.clips.groupby("flipped"):
        told = found.effects[(found.effects["flipped"] == flipped) & (found.effects["condition"] == "top")].iloc[0]
        assert told["changed_rate"] == pytest.approx((part["base"] != part["answer"]).mean())
        assert told["accuracy"] == pytest.approx((part["label"] == part["answer"]).mean())


def test_a_planted_neuron_is_found_and_turning_it_moves_the_answer_more_than_random_ones():
    width = 8
    torch.manual_seed(0)

    class Wide(Net):
        def __init__(self):
            super().__init__(torch.eye(width).tolist(), torch.eye(width).tolist())
            self.classifier = nn.Linear(width, 2)
            self.classifier.weight.data.zero_(), self.classifier.bias.data.zero_()
            self.classifier.weight.data[0, 5] = 3.0
            self.requires_grad_(False)

    class WideSubject(ByHand):
        def model_inputs(self, samples, prompt):
            return {"x": torch.from_numpy(samples).view(1, -1, width)}

    rng = np.random.default_rng(0)
    sounds = {f"c{i}": (rng.normal(size=(12, width)) + 0.5).astype(np.float32).ravel() for i in range(24)}
    reader = Recordings(WideSubject("wide", "0" * 64, Wide(), ARCH), "", sounds)
    clips = [Clip(name, Path(name), {"label": "a", "speaker": name}, name) for name in sounds]
    found = run(reader, clips, SignflipRequest("m", topk=1, frames="all", draws=10))
    assert set(found.top["neuron"]) == {5}
    for layer in (0, 1):
        top, random = (
            found.effects[(found.effects["flipped"] == layer) & (found.effects["condition"] == c)].iloc[0]
            for c in ("top", "random")
        )
        assert top["target_probability_change"] < -0.3 < -0.05 < random["target_probability_change"]
        assert top["changed_rate"] > 0.8 and top["n_units"] == 12


def test_a_unit_is_never_in_both_halves_and_one_unit_is_refused():
    clips = [Clip(f"c{i}", Path("x"), {"speaker": f"s{i % 5}"}, str(i)) for i in range(40)]
    first, second = halves(clips, "speaker", 1)
    assert not {c.label("speaker") for c in first} & {c.label("speaker") for c in second}
    assert len(first) + len(second) == 40 and first and second
    with pytest.raises(InterpError, match="all clips are of one speaker"):
        halves([c for c in clips if c.label("speaker") == "s0"], "speaker", 1)


def test_the_error_over_units_of_independent_units_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=30)
    mean, error, n = cluster_error(values, np.arange(30))
    assert (mean, error, n) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1) / 30**0.5), 30)
    doubled = cluster_error(np.repeat(values, 4), np.repeat(np.arange(30), 4))
    assert doubled[1] == pytest.approx(error)  # four copies of a unit are no more evidence than one
    assert math.isnan(cluster_error(values, np.zeros(30))[1])


def test_attribution_uses_clips_of_the_target_class_where_there_are_any():
    reader, clips = by_hand(IDENTITY, SHEAR)
    settings = SignflipRequest("m", target="a")
    found = attribute(reader, clips, LABELS, 0, replace(settings, task="label"), MEMORY, lambda: None)
    assert (found.clips, found.of_target) == (2, True)
    found = attribute(reader, clips, LABELS, 0, replace(settings, task="speaker"), MEMORY, lambda: None)
    assert (found.clips, found.of_target) == (4, False)


@pytest.mark.parametrize(
    "settings, said",
    [
        (SignflipRequest("m", target="z"), "target 'z' is none of a, b"),
        (SignflipRequest("m", frames="some"), "--frames 'some' is none of max, all"),
        (SignflipRequest("m", kind="twist"), "--kind 'twist' is none of"),
        (SignflipRequest("m", topk=0), "--topk 0 is too small; give 1 or more"),
        (SignflipRequest("m", layers=(7,)), "layer=7 is outside"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(InterpError, match=said):
        settings.check()
        run(*by_hand(IDENTITY, SHEAR), settings)


def test_a_model_that_merges_positions_is_refused(tmp_path):
    reader, clips = open_scene("resnet", tmp_path / "m")
    with pytest.raises(InterpError, match="no frames in time"):
        run(reader, clips, SignflipRequest("m", draws=0), all_logits(torch.zeros(1, 3)))
