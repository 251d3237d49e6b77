"""One planted effect in four methods: the head, layer and half that carry the label are named, and without one nothing.

`benchmarks/planted.py` measures more seeds, and how often something is named where labels are shuffled.
"""

import numpy as np
import pytest
import soundfile
import torch

from benchmarks.planted import METHODS, set_of, wanted
from interp_core.engine import Engine
from interp_core.sites import Site
from interp_core.trace.hooks import captured
from tests.experiments.planted_encoder import LABELS, N_HEADS, N_LAYERS, carrier, save_clips, save_encoder


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 11, 20])
def test_the_head_the_layer_and_the_half_that_carry_the_label_are_named_and_nothing_else(seed, tmp_path):
    assert set_of(tmp_path, seed) == wanted(seed)


@pytest.mark.slow
def test_with_shuffled_labels_nothing_is_named(tmp_path):
    assert set_of(tmp_path, 1000, shuffled=True) == {method: [] for method in METHODS}


def test_every_head_and_half_is_planted_by_one_of_the_seeds():
    assert len({carrier(seed) for seed in range(24)}) == 24 == N_LAYERS * N_HEADS * 2


def test_the_model_answers_by_the_label_tones_of_one_half_alone(tmp_path):
    """By another route: the library's own forward on recordings of which a half was taken from another clip."""
    layer, head, half = carrier(5)
    engine = Engine()
    subject = engine.open(str(save_encoder(tmp_path / "model", 5)), "cpu", "float32")
    manifest = save_clips(tmp_path / "clips", 5, texts=4)

    sounds = {
        label: [soundfile.read(manifest.with_name(f"t{text}-{label}.wav"), dtype="float32")[0] for text in range(4)]
        for label in LABELS
    }

    def answer(wave):
        return LABELS[int(subject.forward(subject.model_inputs(wave, "")).argmax())]

    cut, right, kept, followed = len(sounds["sad"][0]) // 2, [], [], []
    for label in LABELS:
        for own, other in zip(sounds[label], sounds[LABELS[(LABELS.index(label) + 1) % 3]], strict=True):
            mine, theirs = [own[:cut], own[cut:]], [other[:cut], other[cut:]]
            right.append(answer(own) == label)
            kept.append(answer(np.concatenate([(mine if part == half else theirs)[part] for part in (0, 1)])))
            followed.append(answer(np.concatenate([(theirs if part == half else mine)[part] for part in (0, 1)])))
            kept[-1], followed[-1] = kept[-1] == answer(own), followed[-1] == answer(other)
    # In a clip whose frames are of two labels in equal parts, the loudest decides.
    assert min(np.mean(right), np.mean(kept), np.mean(followed)) > 0.8
    with torch.no_grad(), captured(subject, [Site("head_out", layer, head)]) as seen:
        answer(sounds["sad"][0])
    assert seen[Site("head_out", layer, head)].abs().max() > 0.1
