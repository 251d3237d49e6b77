"""Pairs by hand as a run: its records are those of each pair swept alone, and what names no two clips is refused."""

from dataclasses import replace

import numpy as np
import pytest

from interp_core.errors import InterpError
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.by_hand import BY_HAND, pair_text
from interp_core.experiments.patching.controls import random_donors
from interp_core.experiments.patching.experiment import PATCHING, pair_by_hand, patch_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.run import base_predictions


@pytest.fixture(scope="module")
def clips(ready):
    return ready.manifest.clips


@pytest.fixture(scope="module")
def hand(plain, clips):
    """Three pairs of clips that share nothing, one of them in both directions."""
    texts = tuple(pair_text(clips[a].clip_id, clips[b].clip_id) for a, b in ((0, 7), (7, 0), (3, 11)))
    return replace(plain, kinds="", max_pairs=PatchRequest("m").max_pairs, pairs=texts, controls=("random",))


def test_a_run_over_pairs_by_hand_has_each_pair_as_it_is_swept_alone_toward_the_donors_own_answer(
    engine, hand, clips, ready
):
    result = run(PATCHING, engine, hand)
    by_id = {clip.clip_id: clip for clip in clips}
    matched = result.records[result.records.condition == "matched"]
    assert list(dict.fromkeys(matched.pair_id)) == list(hand.pairs) and result.kinds == (BY_HAND.name,)
    answers = {row["clip_id"]: row["prediction"] for row in base_predictions(ready.store, clips, hand)}
    for pair_id, rows in matched.groupby("pair_id"):
        a, b = (by_id[name] for name in pair_id.split(" <- "))
        assert set(rows.target) == set(rows.donor_prediction) == {answers[b.clip_id]}
        alone = patch_by_hand(engine, hand, pair_by_hand(engine, hand, a, b))
        np.testing.assert_allclose(np.stack(rows.patched_logits), np.stack(alone.patched_logits), atol=1e-4)
    assert f"3 of 3 candidate pairs of kind {BY_HAND.name}" in result.config["rests_on"]
    again = PatchRequest.from_config(result.config)
    assert (again.pairs, again.kinds) == (hand.pairs, "")


def test_a_random_donor_is_drawn_by_the_column_that_says_the_target_or_else_from_all_others(engine, hand, clips):
    a, b = clips[0], clips[7]
    pair = pair_by_hand(engine, hand, a, b)
    told = replace(pair, column="prosody_label", target=b.label("prosody_label"))
    for seed in range(20):
        drawn = random_donors([told], clips, seed)[pair.pair_id]
        assert drawn.clip_id not in (a.clip_id, b.clip_id) and drawn.label("prosody_label") != told.target
    untold = replace(pair, column="")
    anyone = {random_donors([untold], clips, seed)[pair.pair_id].clip_id for seed in range(60)}
    assert not anyone & {a.clip_id, b.clip_id}
    assert any(clip.label("prosody_label") == told.target for clip in clips if clip.clip_id in anyone)


@pytest.mark.parametrize(
    "pairs, said",
    [
        (("{a} <- nobody", "nowhere <- {b}"), "'{a} <- nobody' names 'nobody'.*'nowhere <- {b}' names 'nowhere'"),
        (("{a} <- {a}",), "is one clip twice"),
        (("{a}",), "give two clips by their clip_id"),
        (("{a} <- {b}", "{a} <- {b}"), "given twice"),
    ],
)
def test_what_names_no_two_clips_is_refused_and_all_of_it_named(engine, hand, clips, pairs, said):
    names = {"a": clips[0].clip_id, "b": clips[7].clip_id}
    asked = replace(hand, pairs=tuple(text.format(**names) for text in pairs))
    with pytest.raises(InterpError, match=said.format(**names)):
        run(PATCHING, engine, asked)


@pytest.mark.parametrize("more, said", [({"kinds": "prosody"}, "--kinds"), ({"max_pairs": 3}, "--max-pairs")])
def test_settings_that_build_pairs_are_refused_beside_pairs_by_hand(hand, more, said):
    with pytest.raises(InterpError, match=f"{said} means nothing beside --pair"):
        replace(hand, **more).check()
