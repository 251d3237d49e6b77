"""A run before it starts: each patch once, the same chunks whatever else happens, and no settings without meaning."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from interp_core.data.clips import seconds_of
from interp_core.errors import InterpError
from interp_core.experiments.patching.experiment import PATCHING, pairs_of
from interp_core.experiments.patching.plan import PREFIX_PAIRS, plan
from interp_core.experiments.patching.request import PatchRequest
from interp_core.options import from_config, to_config

DEFAULT = PatchRequest("m").filled()


def wanted(ready, settings):
    """By the words of the specification, as (prompt, alpha, condition, kind, pair, target)."""
    rows = []
    donors = ready.plan.random_donors
    calm = sorted(
        {p for c in ready.plan.chunks if c.condition == "no-conflict" for p in c.pairs}, key=lambda p: p.pair_id
    )
    calm = list(dict.fromkeys((p.pair_id, p.target) for p in calm))
    for prompt in range(len(settings.prompts)):
        for kind in ("prosody", "semantic"):
            pairs = [(p.pair_id, p.target) for p in ready.plan.pairs.of(kind)]
            for alpha in settings.alphas:
                rows += [(prompt, alpha, "matched", kind, *p) for p in pairs]
            first = settings.alphas[0]
            rows += [(prompt, first, "random", kind, *p) for p in pairs if p[0] in donors]
            rows += [(prompt, first, "noise", kind, *p) for p in pairs]
            rows += [(prompt, first, "no-conflict", kind, *p) for p in calm[: len(pairs)]]
            rows += [(prompt, first, "prefix", kind, *p) for p in pairs[:PREFIX_PAIRS]]
            rows += [(prompt, first, flow, kind, *p) for flow in ("question", "last") for p in pairs]
    return Counter(rows)


def patched(made):
    return Counter((c.prompt, c.alpha, c.condition, c.kind, p.pair_id, p.target) for c in made.chunks for p in c.pairs)


def chunks(made):
    return [(c.number, c.kind, c.prompt, c.alpha, c.condition, [p.pair_id for p in c.pairs]) for c in made.chunks]


def test_every_patch_stands_in_exactly_one_chunk(ready, asked):
    found = patched(ready.plan)
    assert found == wanted(ready, asked)
    assert set(found.values()) == {1} and len(found) > 150
    assert [c.number for c in ready.plan.chunks] == list(range(len(ready.plan.chunks)))
    sizes = [len(c.pairs) for c in ready.plan.chunks]
    assert min(sizes) >= 1 and max(sizes) == asked.batch_size


def test_the_prefix_control_takes_a_few_pairs(engine, asked):
    many = PATCHING.prepare(engine, replace(asked, max_pairs=14, controls=("prefix",), flow=()))
    assert len(many.plan.pairs.of("semantic")) == 14
    counts = Counter((c.kind, c.condition) for c in many.plan.chunks for _ in c.pairs if c.prompt == 0 and c.alpha == 1)
    assert counts["semantic", "matched"] == 14 and counts["semantic", "prefix"] == PREFIX_PAIRS == 10


def test_chunks_do_not_hang_on_the_order_of_the_clips_nor_on_what_was_run_before(engine, asked, ready, result):
    again = plan(ready.store.subject, ready.plan.pairs, ready.manifest.clips[::-1], asked)
    assert chunks(again) == chunks(ready.plan)
    assert again.random_donors == ready.plan.random_donors
    assert chunks(PATCHING.prepare(engine, asked).plan) == chunks(ready.plan)
    other = plan(ready.store.subject, ready.plan.pairs, ready.manifest.clips, replace(asked, seed=7))
    assert other.random_donors != ready.plan.random_donors


def test_batches_alone_do_not_change_what_is_patched(ready, asked):
    for size in (1, 5, 100):
        made = plan(ready.store.subject, ready.plan.pairs, ready.manifest.clips, replace(asked, batch_size=size))
        assert patched(made) == patched(ready.plan)
        assert max(len(c.pairs) for c in made.chunks) == min(size, 6)


def test_a_plan_knows_how_many_records_each_file_will_hold(ready, result):
    for kind in ("prosody", "semantic"):
        for control in (False, True):
            rows = result.records[(result.records.kind == kind) & ((result.records.condition != "matched") == control)]
            name = f"{'control' if control else 'patching'}_records_{kind}.jsonl"
            assert sum(ready.plan.expected(name).values()) == len(rows) > 0


def test_controls_and_flow_can_be_left_out(engine, plain):
    conditions = {c.condition for c in PATCHING.prepare(engine, plain).plan.chunks}
    assert conditions == {"matched"}
    noise = replace(plain, controls=("noise",), flow=("last", "lens"))
    assert [c for c in dict.fromkeys(c.condition for c in PATCHING.prepare(engine, noise).plan.chunks)] == [
        "matched",
        "noise",
        "last",
    ]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"site": "resid_pst"}, "unknown site kind 'resid_pst'; did you mean 'resid_post'"),
        ({"positions": "middle"}, "positions 'middle' is none of"),
        ({"align": "stretch"}, "--align 'stretch' is none of truncate, resample"),
        ({"controls": ("random", "shuffle")}, "--controls 'shuffle' is none of random, noise, no-conflict, prefix"),
        ({"flow": ("lense",)}, "--flow 'lense' is none of question, last, lens, knockout"),
        ({"method": "quick"}, "--method 'quick' is none of fast, wavefront, reference"),
        ({"alphas": ()}, "give one or more strengths between 0 and 1"),
        ({"alphas": (0.5, 1.5)}, "--alpha 1.5 is too large; give 1 or less"),
        ({"alphas": (float("nan"),)}, "--alpha nan is not a number"),
        ({"alphas": (1.0, 1.0)}, "give each strength once"),
        ({"layers": ()}, "no layer was given"),
        ({"batch_size": 0}, "--batch-size 0 is too small; give 1 or more"),
        ({"seed": -1}, "--seed -1 is too small; give 0 or more"),
        ({"knockout_width": 0}, "--knockout-width 0 is too small; give 1 or more"),
        ({"prompts": ("a?", "a?")}, "one prompt is given twice; give different ones"),
        ({"site": "resid_post:1"}, "a head is patched at site head_out or cross_head_out, not at resid_post"),
    ],
)
def test_settings_without_meaning_are_refused_before_the_model_is_touched(change, said):
    DEFAULT.check()
    with pytest.raises(InterpError, match=said):
        plan(None, None, (), replace(DEFAULT, **change))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"layers": (0, 5)}, r"layers \[5\] do not exist at resid_post \(valid: -1 to 4\)"),
        ({"layers": (-1,), "site": "attn_out"}, r"layers \[-1\] do not exist at attn_out \(valid: 0 to 4\)"),
        ({"site": "head_out:4"}, r"head=4 is outside .*'s 4 heads \(valid: 0 to 3\)"),
        ({"prompts": ("Listen: <|AUDIO|> what is it?",)}, "gives 2 audio spans; Patchbay patches exactly one"),
        ({"prompts": ("  ",)}, "the prompt is empty"),
        ({"labels": ("happy",)}, "1 label"),
        ({"labels": ("happy", "happy")}, "'happy' and 'happy' start with the same token"),
        ({"labels": ("happy", "melancholic")}, "label 'melancholic' is .* tokens"),
    ],
)
def test_settings_that_the_model_cannot_serve_are_refused_by_the_plan(ready, change, said):
    with pytest.raises(InterpError, match=said):
        plan(ready.store.subject, ready.plan.pairs, ready.manifest.clips, replace(DEFAULT, **change))


def test_layers_are_sorted_and_taken_once(ready):
    made = plan(ready.store.subject, ready.plan.pairs, ready.manifest.clips, replace(DEFAULT, layers=(3, -1, 3, 0)))
    assert made.spec.layers == (-1, 0, 3)


def test_settings_survive_their_config_file():
    odd = PatchRequest(
        "m", labels=("a", "b"), prompts=("x?", "y?"), site="head_out:2", layers=(0, 3), alphas=(1.0, 0.1), flow=()
    )
    for settings in (DEFAULT, odd):
        assert from_config(PatchRequest, json.loads(json.dumps(to_config(settings)))) == settings
    with pytest.raises(InterpError, match="unknown settings 'alpha'"):
        from_config(PatchRequest, {"alpha": 1.0})


def test_the_default_question_and_labels_are_fixed_word_for_word():
    question = (
        "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised."
    )
    assert DEFAULT.prompts == (question,)
    assert DEFAULT.labels == ("neutral", "happy", "sad", "angry", "surprised")


def test_every_kind_of_site_can_be_planned(ready):
    for kind in ready.store.subject.kinds:
        made = plan(ready.store.subject, ready.plan.pairs, ready.manifest.clips, replace(DEFAULT, site=kind))
        assert made.spec.layers == tuple(range(-1 if kind == "resid_post" else 0, 5))


@pytest.mark.parametrize(
    ("positions", "conditions"),
    [
        ("audio", {"matched", "random", "noise", "no-conflict", "prefix", "question", "last"}),
        ("all", {"matched", "random", "noise", "no-conflict"}),
        ("0.1-0.4", {"matched", "random", "noise", "no-conflict"}),
        ("question", {"matched"}),
        ("last", {"matched"}),
    ],
)
def test_controls_run_wherever_audio_is_exchanged(engine, asked, positions, conditions):
    made = PATCHING.prepare(engine, replace(asked, positions=positions)).plan
    assert {chunk.condition for chunk in made.chunks} == conditions


def test_controls_of_a_time_window_draw_only_clips_that_reach_it(engine, asked):
    clips = engine.manifest(asked).clips
    lengths = sorted(seconds_of(clip.path) for clip in clips)
    start = round(lengths[len(lengths) // 2] - 0.05, 2)  # behind the end of some clips, within others
    settings = replace(asked, positions=f"{start}-{start + 0.1}")
    pairs = pairs_of(engine, asked)
    reaching = tuple(
        p for p in pairs.pairs if min(seconds_of(p.recipient.path), seconds_of(p.donor.path)) > start + 0.1
    )
    made = plan(engine.open(asked.model), replace(pairs, pairs=reaching), clips, settings)
    drawn = [*made.random_donors.values()]
    drawn += [c for k in made.chunks if k.condition == "no-conflict" for p in k.pairs for c in (p.recipient, p.donor)]
    assert all(seconds_of(clip.path) > start + 0.1 for clip in drawn)
    short = plan(engine.open(asked.model), pairs, clips, replace(settings, align="resample"))
    assert any(seconds_of(clip.path) < start for clip in short.random_donors.values())
