"""Class means as donors: as a plain loop makes them, without A's and B's units, counted, and refused where none is."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from interp_core.choices import EMOTIONS
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.patching import necessity
from interp_core.experiments.patching.chunks import patches_of
from interp_core.experiments.patching.experiment import (
    PATCHING,
    answer_by_hand,
    check,
    heads_by_hand,
    map_by_hand,
    patch_by_hand,
)
from interp_core.experiments.patching.means import ClassMeans, counts_said
from interp_core.experiments.patching.states import with_means
from interp_core.trace.sweep import sweep
from tests.corpus import write_corpus
from tests.experiments.conftest import PROMPTS
from tests.experiments.plain_loop import PlainLoop


@pytest.fixture(scope="module")
def meant(asked, tmp_path_factory):
    """Of ten texts, which are the units then: pairs of either kind under two questions, a mean in the place of B."""
    texts = write_corpus(tmp_path_factory.mktemp("ten"), texts=10)
    return replace(
        asked, manifest=str(texts), max_pairs=4, alphas=(1.0,), layers=(-1, 1, 2), donor_state="mean", flow=()
    )


@pytest.fixture(scope="module")
def meant_ready(engine, meant):
    return PATCHING.prepare(engine, meant)


@pytest.fixture(scope="module")
def folder(engine, meant, meant_ready, tmp_path_factory):
    out = tmp_path_factory.mktemp("means") / "run"
    run(PATCHING, engine, meant, out=out, ready=meant_ready)
    return out


@pytest.fixture(scope="module")
def made(folder):
    return open_result(PATCHING, folder)


def unit_free(clips, column, a, b):
    return [clip for clip in clips.values() if clip.label(column) not in (a.label(column), b.label(column))]


@pytest.mark.parametrize("condition", ["matched", "random", "no-conflict"])
def test_every_patch_is_that_of_a_plain_loop_with_the_mean_of_a_class(made, meant_ready, condition):
    clips = {clip.clip_id: clip for clip in meant_ready.manifest.clips}
    column = meant_ready.config["donor_means"][0]["units"]
    pairs = {pair.pair_id: pair for pair in meant_ready.plan.pairs.pairs}
    moved = 0.0
    for number, prompt in enumerate(PROMPTS):
        loop = PlainLoop(meant_ready.store.subject, prompt, EMOTIONS)

        def mean_state(clip, layer, loop=loop):
            start, stop, _ = loop.span(clip)
            return loop.state(clip, layer)[start:stop].mean(0)

        rows = made.records[(made.records.condition == condition) & (made.records.prompt == number)]
        assert len(rows)
        for record in rows.iloc[::4].to_dict("records"):
            a, donor, layer = clips[record["recipient"]], clips[record["donor"]], record["layer"]
            own = pairs.get(record["pair_id"])
            b, of = (donor, "prosody_label") if own is None else (own.donor, own.column)
            label = donor.label(of)
            assert (label == record["target"]) == (condition != "random")
            others = [clip for clip in unit_free(clips, column, a, b) if clip.label(of) == label]
            assert others and a not in others and b not in others
            mean = np.mean([mean_state(clip, layer).double().numpy() for clip in others], 0)
            start, stop, _ = loop.span(a)
            incoming = loop.state(a, layer).new_tensor(mean).expand(stop - start, -1)
            expected = loop.read(loop.patched(a, incoming, layer, range(start, stop)))
            np.testing.assert_allclose(
                record["patched_logits"], expected[0], rtol=0, atol=1e-4 * max(1, abs(expected[0]).max())
            )
            assert record["span_covered"] == 1.0 and record["method"] == "wavefront"
            moved = max(moved, abs(expected[0] - np.asarray(record["base_logits"])).max())
    assert moved > 0.1, "a loop of patches that do nothing would agree as well"


def test_b_stays_the_clip_that_says_what_is_reachable(made, meant_ready):
    pairs = {pair.pair_id: pair for pair in meant_ready.plan.pairs.pairs}
    for record in made.records[made.records.condition == "matched"].to_dict("records"):
        b, labels = pairs[record["pair_id"]].donor, meant_ready.plan.labels[record["prompt"]]
        logits = labels.read(meant_ready.store.run(b, PROMPTS[record["prompt"]]).logits[None])[0][0]
        assert record["donor"] == b.clip_id and record["donor_logits"] == pytest.approx(logits.tolist(), abs=1e-4)
    assert not set(made.records.condition) & {"prefix", "question", "last"}


def test_how_many_clips_a_mean_is_of_stands_in_config_report_and_summary(made, meant_ready):
    counts = made.config["donor_means"]
    assert counts == made.reports["pair_construction_report"]["donor_means"]
    said = "; ".join(made.config["rests_on"])
    assert counts and all(
        f"the class mean of {row['label']} ({row['kind']}) of {row['clips']} clips" in said for row in counts
    )
    clips = {clip.clip_id: clip for clip in meant_ready.manifest.clips}
    for one in counts:
        pairs = [
            pair
            for pair in meant_ready.plan.pairs.pairs
            if (pair.kind, pair.column, pair.target) == (one["kind"], one["column"], one["label"])
        ]
        left = [unit_free(clips, one["units"], pair.recipient, pair.donor) for pair in pairs]
        sizes = [
            sum(clip.label(pair.column) == pair.target for clip in some) for pair, some in zip(pairs, left, strict=True)
        ]
        every = sum(clip.label(one["column"]) == one["label"] for clip in clips.values())
        assert (one["clips"], one["least"], one["most"], one["pairs"]) == (every, min(sizes), max(sizes), len(pairs))
        assert one["least"] < one["clips"]
    said = next(PATCHING.summary(made))
    assert said == counts_said(counts) and f"{counts[0]['least']} or more a pair" in said
    assert any("prefix are left out" in note and "the mean of another class" in note for note in meant_ready.notes)
    assert ", donor: the mean of the target" in made.heading("prosody")


def test_the_mean_of_a_label_is_for_the_pairs_toward_it(engine, meant):
    ready = PATCHING.prepare(engine, replace(meant, donor_state="mean:sad"))
    assert {pair.target for pair in ready.plan.pairs.pairs} == {"sad"} and len(ready.plan.pairs.of("prosody")) == 4
    calm = [chunk for chunk in ready.plan.chunks if chunk.condition == "no-conflict"]
    assert {pair.target for chunk in calm for pair in chunk.pairs} <= {"sad"}
    report = ready.plan.pairs.report["kinds"]["prosody"]["targets_outside_labels"]
    assert report and "sad" not in report


def test_a_pair_by_hand_gets_the_mean_that_it_has_in_the_run(engine, meant, meant_ready, made):
    pair = meant_ready.plan.pairs.pairs[0]
    rows = patch_by_hand(engine, meant, pair, prompt=1).set_index("layer")
    own = made.records[(made.records.pair_id == pair.pair_id) & (made.records.condition == "matched")]
    for record in own[own.prompt == 1].to_dict("records"):
        np.testing.assert_allclose(rows.loc[record["layer"], "patched_logits"], record["patched_logits"], atol=1e-4)
    answers = answer_by_hand(engine, meant, pair, n_tokens=5)
    b = answer_by_hand(engine, replace(meant, donor_state=""), pair, n_tokens=5)
    assert answers.b == b.b and answers.a == b.a and answers.patched != b.patched
    assert len(map_by_hand(engine, replace(meant, windows=2, maps=("time",)), pair)) == len(rows)


def test_windows_of_a_time_map_get_the_mean_of_the_whole_span(engine, meant, meant_ready):
    plan, store = with_means(meant_ready.plan, meant_ready.store), meant_ready.store
    (pair,) = plan.pairs.pairs[:1]
    whole = patches_of(plan, store, plan.chunks[0])[0][0]
    record = map_by_hand(engine, replace(meant, maps=("time",), windows=2), pair)[1]  # layer 1
    half = whole.replaced // 2
    first = replace(whole, positions=whole.positions[:half], source=whole.source[:half])
    by_hook = sweep(store.subject, [first], plan.labels[0], plan.spec, method="reference").label_logits[0, 1]
    np.testing.assert_allclose(record["patched_logits"][0], by_hook.numpy(), atol=1e-4 * max(1, by_hook.abs().max()))


def test_no_recording_brought_a_mean_so_windows_are_masked_in_a_alone(engine, meant):
    result = run(PATCHING, engine, replace(meant, maps=("time",), windows=2, controls=(), max_pairs=2))
    assert set(result.mask_records.side) == {"recipient"} == set(result.necessity.side)


def test_masks_kept_by_a_run_of_before_sides_are_of_the_recipient(engine, meant, monkeypatch):
    run_masks = necessity.run_masks
    before = lambda *given: [{k: v for k, v in one.items() if k != "side"} for one in run_masks(*given)]  # noqa: E731
    monkeypatch.setattr(necessity, "run_masks", before)
    result = run(PATCHING, engine, replace(meant, maps=("time",), windows=2, controls=(), max_pairs=2))
    assert set(result.mask_records.side) == {"recipient"} == set(result.necessity.side)


def test_a_time_map_of_a_clip_that_is_longer_than_b_with_its_question_has_a_cost(engine, meant, tmp_path):
    manifest = write_corpus(tmp_path, texts=10)
    for name in ("neutral", "happy"):
        for file in tmp_path.glob(f"*-{name}.wav"):
            short, rate = soundfile.read(file, dtype="float32")
            soundfile.write(file, np.tile(short, 12)[: int(3.9 * rate)], rate, subtype="FLOAT")
    request = replace(meant, manifest=str(manifest), maps=("time",), windows=2, controls=(), max_pairs=8)
    ready = PATCHING.prepare(engine, request)
    (chunk, *_) = ready.plan.map_chunks
    prompt = ready.request.prompts[0]
    pairs = [[ready.store.run(clip, prompt).prompted for clip in (p.recipient, p.donor)] for p in chunk.pairs]
    assert any(a.audio[1] > b.n_pos for a, b in pairs)  # the window in the middle ends where B has no position
    without = PATCHING.cost(PATCHING.prepare(engine, replace(request, maps=(), windows=None)))
    assert PATCHING.cost(ready).forwards > without.forwards


@pytest.mark.parametrize(
    "change, said",
    [
        ({"donor_state": "median"}, "donor 'median': give mean or mean:LABEL"),
        ({"donor_state": "mean:"}, "donor 'mean:': give mean or mean:LABEL"),
        ({"donor_state": "mean:bored"}, "mean:bored is none of the answers neutral"),
        (
            {"donor_state": "mean:angry", "labels": ("neutral", "happy", "sad", "angry")},
            "no clip has this prosody_label",
        ),
        ({"positions": "last"}, "a class mean stands at the positions of the recording, and the run patches .*'last'"),
        ({"positions": "all"}, "stands at the positions of the recording"),
        ({"maps": ("heads",)}, "the map of heads is estimated with B's own states"),
        ({"subspace": "mean-difference"}, "a subspace is exchanged with B's own states"),
        ({"kinds": "edit:level=-6"}, "the donor of edit:level=-6 is A's own edited copy"),
        ({"max_clips": 4}, "no clip of the target is left: prosody-"),
    ],
)
def test_what_has_no_class_mean_is_refused_before_anything_runs(engine, meant, change, said):
    with pytest.raises(InterpError, match=said):
        PATCHING.prepare(engine, replace(meant, **change))


def test_pairs_by_hand_have_the_mean_of_what_b_is_answered_or_are_refused(engine, meant, meant_ready):
    pair = meant_ready.plan.pairs.pairs[0]
    nameless = replace(pair, column="")
    with pytest.raises(InterpError, match="no column says of which class the target is in 1 pairs"):
        patch_by_hand(engine, meant, nameless)
    other = next(label for label in EMOTIONS if label != pair.target)
    with pytest.raises(InterpError, match=rf"--donor mean:{other} is the donor of pairs toward {other}, and .*toward"):
        patch_by_hand(engine, replace(meant, donor_state=f"mean:{other}"), pair)
    with pytest.raises(InterpError, match="heads are estimated with B's own states"):
        heads_by_hand(engine, meant, pair)


def test_the_checks_alone_hold_with_a_mean(engine, meant):
    report, notes = check(engine, meant)
    (agree,) = [one for one in report.self_patch["checks"] if "reference" in one["check"]]
    assert agree["passed"] and "wavefront" in agree["check"] and any("class means" in note for note in notes)


def test_before_states_are_read_a_mean_has_no_layer(meant_ready):
    means = meant_ready.plan.means
    pair = meant_ready.plan.pairs.pairs[0]
    assert isinstance(means, ClassMeans) and means.of(pair, pair.target, 0) == {}


def test_requests_without_a_donor_keep_their_key(plain):
    assert replace(plain, donor_state="").key == plain.key != replace(plain, donor_state="mean").key
