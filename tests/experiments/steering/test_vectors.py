"""Vectors of labels: a planted direction comes back, shuffled labels give none, and a file is the vectors again."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from interp_core.errors import InterpError
from interp_core.experiments.steering.plan import partners_of, random_vector
from interp_core.experiments.steering.vectors import (
    fit_vectors,
    foreign,
    load_vectors,
    misfit,
    of_length,
    shuffled_vectors,
)

LABELS = ("calm", "angry", "sad")
WIDTH = 64


def planted(n=90, size=3.0, seed=0):
    """(states, labels, directions): each label's clips lie that far along a direction of its own, in noise."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(WIDTH, len(LABELS))))
    named = [LABELS[i % len(LABELS)] for i in range(n)]
    rows = rng.normal(size=(n, WIDTH)) + size * np.stack([directions[:, LABELS.index(one)] for one in named])
    return {0: rows.astype(np.float32), 3: (2 * rows).astype(np.float32)}, named, directions.T


def cosine(one, other):
    one, other = np.asarray(one, float), np.asarray(other, float)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_vector_is_the_mean_of_a_labels_clips_minus_that_of_all_other_clips():
    states, named, _ = planted(n=10)  # 4, 3 and 3 clips: the rest is weighed by clips, not by labels
    made = fit_vectors(states, named, LABELS, {})
    for label in LABELS:
        own = [i for i, one in enumerate(named) if one == label]
        rest = [i for i in range(10) if i not in own]
        for layer, rows in states.items():
            expected = rows[own].mean(0) - rows[rest].mean(0)
            np.testing.assert_allclose(made.of(label, layer).numpy(), expected, atol=1e-5)
            np.testing.assert_allclose(made.mean(label, layer).numpy(), rows[own].mean(0), atol=1e-5)


def test_a_planted_direction_comes_back_and_shuffled_labels_find_none():
    states, named, directions = planted()
    made = fit_vectors(states, named, LABELS, {})
    units = [f"u{i // 9}" for i in range(len(named))]
    shuffled = shuffled_vectors(states, named, LABELS, units, draws=20, seed=1)
    for number, label in enumerate(LABELS):
        wanted = directions[number] - np.delete(directions, number, axis=0).mean(axis=0)
        assert cosine(made.of(label, 0), wanted) > 0.9
        found = [cosine(vector, wanted) for vector in shuffled[0][:, number]]
        assert np.abs(found).mean() < 0.4 and max(map(abs, found)) < 0.9
        longest = float(shuffled[0][:, number].norm(dim=-1).max())
        assert longest < 0.6 * float(made.of(label, 0).norm()), "and what they find is short"
    again = shuffled_vectors(states, named, LABELS, units, draws=20, seed=1)
    assert torch.equal(again[0], shuffled[0]) and not torch.equal(shuffled[0][0], shuffled[0][1])


def test_random_vectors_are_as_long_as_the_labels_and_each_another_one():
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    drawn = [random_vector(vector, 42, 3, "angry", draw) for draw in range(20)]
    for one in drawn:
        assert float(one.norm()) == pytest.approx(float(vector.norm()), rel=1e-5)
    angles = [cosine(a, b) for i, a in enumerate(drawn) for b in [vector, *drawn[:i]]]
    assert max(map(abs, angles)) < 0.6
    assert torch.equal(drawn[0], random_vector(vector, 42, 3, "angry", 0))
    assert not torch.equal(drawn[0], random_vector(vector, 42, 4, "angry", 0))
    assert of_length(torch.zeros(WIDTH), vector).any().item() is False


def test_a_label_without_a_clip_or_that_all_clips_have_has_no_difference():
    states, named, _ = planted(n=9)
    with pytest.raises(InterpError, match="0 of 9 clips are 'happy'"):
        fit_vectors(states, named, ("happy",), {})
    with pytest.raises(InterpError, match="9 of 9 clips are 'calm'"):
        fit_vectors(states, ["calm"] * 9, ("calm",), {})


@pytest.fixture
def kept(tmp_path):
    """(vectors, their file)"""
    states, named, _ = planted()
    about = {"model": {"id": "m", "weights_sha256": "abc", "n_layers": 4}, "n": {"calm": 30}, "fitted": ["d"]}
    made = fit_vectors(states, named, LABELS, about)
    path = tmp_path / "steering_vectors.safetensors"
    path.write_bytes(made.to_bytes())
    return made, path


def test_a_file_holds_the_vectors_and_all_that_is_known_of_them_in_the_same_bytes_each_time(kept):
    made, path = kept
    again = load_vectors(path)
    assert (again.labels, again.layers, again.about) == (made.labels, made.layers, made.about)
    for label in LABELS:
        for layer in (0, 3):
            assert torch.equal(again.of(label, layer), made.of(label, layer))
            assert torch.equal(again.mean(label, layer), made.mean(label, layer))
    assert again.to_bytes() == made.to_bytes() == path.read_bytes()


def test_what_is_no_file_of_vectors_is_one_sentence(kept, tmp_path):
    made, path = kept
    other = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, other, {"format": "pt"})
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:300])
    for bad, said in ((other, "holds no steering vectors"), (broken, "cannot be read"), (tmp_path / "no", "not exist")):
        with pytest.raises(InterpError, match=said) as caught:
            load_vectors(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(InterpError, match="no vector of 'happy' \\(there are calm, angry, sad\\)"):
        made.of("happy", 0)
    with pytest.raises(InterpError, match="no vector behind layer 1 \\(there are 0, 3\\)"):
        made.of("calm", 1)


class Model:
    """As much of a model as a vector is checked against."""

    name, n_layers, weights_hash = "other", 4, "abc"


def test_vectors_fit_a_model_of_their_width_and_layers_and_another_one_is_noted(kept):
    made, _ = kept
    assert misfit(made, Model, (0, 3), {0: WIDTH, 3: WIDTH}) == ""
    said = misfit(made, Model, (0, 3), {0: WIDTH, 3: 32})
    assert "64 numbers wide at layer 3" in said and "32 wide there" in said
    assert "not behind 1" in misfit(made, Model, (0, 1), {0: WIDTH, 1: WIDTH})
    assert foreign(made, Model) == ""
    Model.weights_hash = "other weights"
    assert "fitted to another model of this width (m, 4 layers)" in foreign(made, Model)
    json.dumps(made.about)


def test_the_layer_that_controls_another_is_half_the_depth_away_and_as_wide():
    widths = dict.fromkeys(range(12), 8)
    assert partners_of((0, 2, 7), range(12), widths, 12) == {0: 6, 2: 8, 7: 1}
    assert partners_of((0, 3), (0, 3), widths, 12) == {0: 3, 3: 0}, "of the layers that have vectors"
    assert partners_of((4,), (4,), widths, 12) == {}
    wider = {layer: 8 if layer < 2 else 16 for layer in range(4)}
    assert partners_of((0, 1, 2, 3), range(4), wider, 4) == {0: 1, 1: 0, 2: 3, 3: 2}
