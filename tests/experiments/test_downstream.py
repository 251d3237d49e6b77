"""Editing behind a site, from its block on, and by hook in the whole forward: one answer, for every sort of model."""

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.experiments.clips import Collected, collect
from interp_core.experiments.downstream import (
    BlocksDownstream,
    HookDownstream,
    TailDownstream,
    downstream_of,
    fillings,
    impact,
)
from interp_core.jobs import silent
from interp_core.maths.subspaces import random_eraser
from interp_core.sinks import MEMORY
from interp_core.sites import Site
from interp_core.trace.hooks import edited
from tests.experiments.scenes import open_scene
from tests.families.subjects import all_logits

MODELS = {
    "wavlm": Site("resid_post", 1),
    "wav2vec2-large-weighted": Site("mlp_act", 1),
    "conformer-rotary-weighted": Site("resid_post", 0),  # whose angles are kept from pass to pass
    "w2vbert-bare": Site("resid_post", 0),
    "ast": Site("head_out", 1, 2),
    "spoof-wavlm-dann": Site("attn_out", 1),
    "resnet": Site("resid_post", 1),
    "qwen2-audio": Site("mlp_out", 0),
}


@pytest.fixture(scope="module", params=list(MODELS))
def scene(request, tmp_path_factory):
    """(reader, clips, site in the blocks)"""
    return (*open_scene(request.param, tmp_path_factory.mktemp("model") / "m"), MODELS[request.param])


def everything(reader, clips, site):
    ready = reader.ready(clips[0])
    with torch.inference_mode():
        labels = all_logits(reader.answer([ready])[:, :7])
    return labels, collect(reader, clips, site, labels)


def masks_of(width):
    made = torch.Generator().manual_seed(3)
    masks = torch.rand(40, width, generator=made) < 0.4  # more than travel together
    masks[0] = False
    return masks


@pytest.mark.parametrize("kind", ["mean", "flip", "resample"])
def test_blocks_from_the_site_on_answer_as_the_whole_forward_with_the_edit_does(scene, kind):
    reader, clips, site = scene
    labels, collected = everything(reader, clips, site)
    rest = downstream_of(reader, collected, site, labels)
    assert isinstance(rest, BlocksDownstream)
    masks = masks_of(collected.features.shape[1])
    fill = fillings(kind, collected.features, np.arange(3), seed=0)
    for i in (1, 3):
        ready, own = reader.ready(clips[i]), None if fill is None else fill[i]
        with torch.inference_mode():
            found = rest.of_clip(ready, masks, own)
            reference = HookDownstream(reader, collected, site, labels, MEMORY, silent).of_clip(ready, masks, own)
        scale = max(1.0, float(reference.abs().max()))
        assert float((found - reference).abs().max()) <= 1e-4 * scale
        assert float((found[0] - collected.logits[i]).abs().max()) <= 1e-4 * scale  # nothing edited
        # Control: the edits do something, beyond what is allowed above; another clip's neurons do the least.
        assert float((found[1:] - found[:1]).abs().max()) > (2e-4 if kind == "resample" else 1e-3) * scale


def test_maps_at_the_site_answer_as_the_whole_forward_with_a_plain_edit_does(scene):
    reader, clips, site = scene
    labels, collected = everything(reader, clips, site)
    rest = downstream_of(reader, collected, site, labels)
    width = collected.features.shape[1]
    maps = [lambda x: x, random_eraser(collected.features.mean(0), width // 2, "test"), lambda x: -x]
    for i in (1,):
        ready = reader.ready(clips[i])
        with torch.inference_mode():
            found = rest.of_sets(ready, len(maps), lambda ready, at: rest.mapping(ready, maps[at]))
            flipped = rest.of_clip(ready, torch.ones(1, width, dtype=torch.bool), None)
        scale = max(1.0, float(found.abs().max()))
        assert float((found[0] - collected.logits[i]).abs().max()) <= 1e-4 * scale
        assert float((found[2] - flipped[0]).abs().max()) <= 1e-4 * scale  # the edit of every neuron, by another route
        seen = {}

        def plain(value, ready=ready, seen=seen):
            inside = reader.inside(ready, site, value.shape[1])
            new = value.clone()
            own = value[:, inside][..., rest.columns]
            new[:, inside] = new[:, inside].index_copy(-1, columns(rest, value), maps[1](own))
            seen["mean"] = new[0, inside].mean(0)
            return new

        with torch.inference_mode(), edited(reader.subject, {site: plain}):
            expected = labels.read(reader.answer([ready]))[0][0]
        assert float((found[1] - expected).abs().max()) <= 1e-4 * scale
        # Being affine it erases the same from the clip's mean, which it was fitted on.
        torch.testing.assert_close(seen["mean"][rest.columns], maps[1](collected.features[i]), atol=1e-3, rtol=1e-3)
        assert float((found[1] - found[0]).abs().max()) > 1e-3 * scale  # control


def columns(rest, value):
    return torch.arange(value.shape[-1])[rest.columns]


def test_modules_behind_pooled_features_answer_as_the_whole_forward_with_the_edit_does(scene):
    reader, clips, _ = scene
    site = Site("pooled")
    if "pooled" not in reader.subject.stages:
        with pytest.raises(InterpError, match="has no pooled"):
            everything(reader, clips, site)
        return
    labels, collected = everything(reader, clips, site)
    tail = downstream_of(reader, collected, site, labels)
    assert isinstance(tail, TailDownstream)
    masks = masks_of(collected.features.shape[1])
    fill = fillings("mean", collected.features, np.arange(3), seed=0)
    for i in (0, 3):
        with torch.inference_mode():
            reference = HookDownstream(reader, collected, site, labels, MEMORY, silent).of_clip(
                reader.ready(clips[i]), masks, fill[i]
            )
            found = tail.logits(torch.where(masks, fill[i], collected.features[i]))
        assert float((found - reference).abs().max()) <= 1e-4 * max(1.0, float(reference.abs().max()))
        assert tail.answers(np.array([i]), masks, fill)[:, 0].tolist() == reference.argmax(-1).tolist()
        assert float(reference.std(0).max()) > 1e-4


def test_features_are_those_of_each_clip_by_itself_whatever_shares_its_batch(scene):
    reader, clips, site = scene
    _, together = everything(reader, clips, site)
    for i in (0, 4):
        _, alone = everything(reader, [clips[i]], site)
        assert torch.allclose(alone.features[0], together.features[i], atol=1e-4)
        assert torch.allclose(
            alone.logits[0], together.logits[i], atol=1e-4 * float(alone.logits.abs().max().clamp(min=1))
        )


def test_the_weight_of_a_neuron_is_what_a_small_step_moves_the_logits_by(scene):
    reader, clips, site = scene
    labels, collected = everything(reader, clips, site)
    rest = downstream_of(reader, collected, site, labels)
    train = np.array([0, 2])
    with torch.inference_mode():  # some modules keep the angles of the last length that they saw
        reader.answer([reader.ready(clips[0])])
    found = impact(reader, collected, rest, site, train)
    neuron, step = int(found.argmax()), 1e-2
    place = range(collected.features.shape[1])[neuron] + (site.head or 0) * (reader.subject.d_head or 0)
    moved = []
    for i in train:
        ready, answers = reader.ready(clips[i]), []
        for sign in (1, -1):

            def shifted(value, sign=sign, ready=ready):
                new = value.clone()
                new[:, reader.inside(ready, site, value.shape[1]), place] += sign * step
                return new

            with torch.inference_mode(), edited(reader.subject, {site: shifted}):
                answers.append(labels.read(reader.answer([ready]))[0][0])
        moved.append(float((answers[0] - answers[1]).norm()) / (2 * step))
    spread = float(collected.features[train, neuron].std(correction=0))
    assert float(found[neuron]) == pytest.approx(np.mean(moved) * spread, rel=0.1)


def test_a_tail_that_does_not_give_the_models_own_logits_is_not_used(scene):
    reader, clips, _ = scene
    if "pooled" not in reader.subject.stages:
        pytest.skip("no pooled features")
    labels, collected = everything(reader, clips, Site("pooled"))
    wrong = Collected(collected.clips, collected.features.flip(1), collected.logits)
    assert isinstance(downstream_of(reader, wrong, Site("pooled"), labels), HookDownstream)
