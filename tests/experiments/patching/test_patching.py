"""A whole run against a plain loop over its pairs: every number of every record, and the metrics by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from interp_core.choices import EMOTIONS
from interp_core.errors import InterpError
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.chunks import patches_of
from interp_core.experiments.patching.experiment import PATCHING, patch_by_hand
from interp_core.experiments.patching.metrics import METRIC_COLUMNS, summarise
from interp_core.experiments.patching.run import base_predictions, run_patching
from interp_core.sinks import MEMORY
from tests.experiments.conftest import PROMPTS
from tests.experiments.plain_loop import PlainLoop

LAYERS = range(-1, 5)
CONDITIONS = {"matched", "random", "noise", "no-conflict", "prefix", "question", "last"}
KEY = ["kind", "prompt", "alpha", "condition", "pair_id", "layer"]


@pytest.fixture(scope="module")
def loops(ready):
    return [PlainLoop(ready.store.subject, prompt, EMOTIONS) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def clips(ready):
    return {clip.clip_id: clip for clip in ready.manifest.clips}


def agree(record, logits, loop):
    """Whether a record's patched numbers are those of these full logits, within the tolerance of the house."""
    expected, mass, prediction = loop.read(logits)
    allowed = 1e-4 * max(1, np.abs(expected).max())
    np.testing.assert_allclose(record.patched_logits, expected, rtol=0, atol=allowed)
    assert record.patched_label_mass == pytest.approx(mass, abs=1e-4)
    top = np.sort(expected)
    if top[-1] - top[-2] > 2 * allowed:
        assert record.patched_prediction == prediction


def rows(records, **chosen):
    keep = np.logical_and.reduce([records[name] == value for name, value in chosen.items()])
    assert keep.any(), chosen
    return records[keep]


@pytest.mark.parametrize("prompt, alpha", [(0, 1.0), (0, 0.5), (1, 1.0)])
def test_matched_records_are_those_of_a_plain_loop_over_pairs_and_layers(result, loops, clips, prompt, alpha):
    records = rows(result.records, condition="matched", prompt=prompt, alpha=alpha)
    loop = loops[prompt]
    moved = 0.0
    step = 1 if (prompt, alpha) == (0, 1.0) else 2
    for _, pair in list(records.groupby("pair_id"))[::step]:
        a, b = clips[pair.recipient.iloc[0]], clips[pair.donor.iloc[0]]
        (start, stop, _), (b_start, b_stop, _) = loop.span(a), loop.span(b)
        m = min(stop - start, b_stop - b_start)
        assert pair.layer.tolist() == list(LAYERS)
        assert pair.span_covered.unique() == pytest.approx([m / (stop - start)], abs=1e-4)
        for record in pair.itertuples():
            donor = loop.state(b, record.layer)[b_start : b_start + m]
            logits = loop.patched(a, donor, record.layer, range(start, start + m), alpha)
            agree(record, logits, loop)
            moved = max(moved, np.abs(np.subtract(record.patched_logits, record.base_logits)).max())
    assert moved > 1, "a patch that does nothing would agree with a loop that does nothing"
    assert (records.patched_prediction != records.base_prediction).sum() >= 3


def test_base_and_donor_runs_are_the_unedited_model(result, loops, clips):
    some = result.records[result.records.layer == 0].drop_duplicates(["prompt", "recipient", "donor"])
    for record in some.itertuples():
        loop = loops[record.prompt]
        for clip_id, side in ((record.recipient, "base"), (record.donor, "donor")):
            if pd.isna(clip_id):
                assert record.condition == "noise" and record.donor_logits is None
                assert pd.isna(record.donor_prediction)
                continue
            expected, mass, prediction = loop.read(loop.forward(clips[clip_id]))
            np.testing.assert_allclose(getattr(record, f"{side}_logits"), expected, rtol=0, atol=1e-4)
            assert getattr(record, f"{side}_prediction") == prediction
            if side == "base":
                assert record.base_label_mass == pytest.approx(mass, abs=1e-4)
    assert some.base_prediction.nunique() > 1, "a model that always answers the same could not tell clips apart"


@pytest.mark.parametrize("condition", ["random", "no-conflict", "question", "last", "prefix"])
def test_other_conditions_are_the_same_loop_with_another_donor_or_other_positions(result, loops, clips, condition):
    records = rows(result.records, condition=condition, prompt=0)
    loop = loops[0]
    for pair_id in records.pair_id.unique()[::3]:
        for record in records[records.pair_id == pair_id].drop_duplicates("layer").itertuples():
            a, b = clips[record.recipient], clips[record.donor]
            (start, stop, n), (b_start, b_stop, n_b) = loop.span(a), loop.span(b)
            m = min(stop - start, b_stop - b_start)
            at, source = {
                "question": (range(stop, n - 1), range(b_stop, n_b - 1)),
                "last": ([n - 1], [n_b - 1]),
                "prefix": (range(start), range(b_start)),
            }.get(condition, (range(start, start + m), range(b_start, b_start + m)))
            agree(record, loop.patched(a, loop.state(b, record.layer)[list(source)], record.layer, at), loop)
    if condition == "last":
        final = records[records.layer == 4]
        np.testing.assert_allclose(np.stack(final.patched_logits), np.stack(final.donor_logits), atol=1e-4)


def test_noise_is_as_long_as_what_it_replaces_and_points_elsewhere_at_every_layer(result, ready, loops, clips):
    chunk = next(c for c in ready.plan.chunks if c.condition == "noise" and c.prompt == 0)
    patches, _, donors = patches_of(ready.plan, ready.store, chunk)
    assert set(donors) == {None}
    records = rows(result.records, condition="noise", prompt=0, pair_id=chunk.pairs[0].pair_id)
    loop, a = loops[0], clips[records.recipient.iloc[0]]
    start, stop, _ = loop.span(a)
    directions = []
    for record in records.itertuples():
        own = loop.state(a, record.layer)[start:stop]
        noise = patches[0].mix(own, None, record.layer)
        torch.testing.assert_close(noise.norm(dim=-1), own.norm(dim=-1), rtol=1e-4, atol=1e-5)
        assert torch.nn.functional.cosine_similarity(noise, own).abs().mean() < 0.3
        agree(record, loop.patched(a, noise, record.layer, range(start, stop)), loop)
        directions.append(torch.nn.functional.normalize(noise, dim=-1))
    alike = torch.stack([(x * y).sum(-1).mean() for i, x in enumerate(directions) for y in directions[:i]])
    assert alike.abs().max() < 0.3
    other = patches[1].mix(own, None, 4)
    assert (other - noise).abs().max() > 0.1, "every pair has noise of its own"


def test_positions_before_the_audio_change_nothing(result):
    records = rows(result.records, condition="prefix")
    difference = np.subtract(np.stack(records.patched_logits), np.stack(records.base_logits))
    assert np.abs(difference).max() <= 1e-4 * np.abs(np.stack(records.base_logits)).max()
    assert (records.patched_prediction == records.base_prediction).all()


def test_the_run_holds_every_condition_prompt_strength_and_layer_once(result, ready):
    records = result.records
    assert set(records.condition) == CONDITIONS
    assert not records.duplicated(KEY).any()
    assert len(records) == sum(len(c.pairs) for c in ready.plan.chunks) * 6
    counts = records.groupby("condition").size()
    assert counts["matched"] == 12 * 6 * 2 * 2  # pairs, layers, prompts, strengths
    assert counts["random"] == counts["noise"] == counts["question"] == counts["last"] == 12 * 6 * 2
    assert set(records.alpha[records.condition != "matched"]) == {1.0}
    for prompt in (0, 1):
        assert len(rows(records, prompt=prompt)) == len(records) / 2
    assert set(records.site) == {"resid_post"}
    random = rows(records, condition="random")
    assert (random.donor == random.pair_id.map({k: c.clip_id for k, c in ready.plan.random_donors.items()})).all()
    donors = {pair.pair_id: pair.donor.clip_id for pair in ready.plan.pairs.pairs}
    assert (random.donor != random.pair_id.map(donors)).all()
    assert (rows(records, condition="question").donor == rows(records, condition="question").pair_id.map(donors)).all()
    same = rows(records, condition="matched", alpha=1.0).merge(
        rows(records, condition="matched", alpha=1.0), on=["pair_id", "layer"]
    )
    other = same[(same.prompt_x == 0) & (same.prompt_y == 1)]
    assert (other.recipient_x == other.recipient_y).all() and len(other) == 72, "the same pairs under every prompt"
    assert any(list(x) != list(y) for x, y in zip(other.base_logits_x, other.base_logits_y, strict=True))


def test_the_method_of_each_record_is_the_one_that_its_patch_allows(result):
    shortcut = rows(result.records, condition="matched", alpha=1.0)
    assert set(shortcut.method) == {"shortcut"}
    assert set(rows(result.records, condition="matched", alpha=0.5).method) == {"wavefront"}
    assert set(rows(result.records, condition="noise").method) == {"wavefront"}


def test_the_reference_method_gives_the_same_run(engine, asked, result):
    asked = replace(asked, pilot=2, method="reference", prompts=PROMPTS[:1], flow=("last",), checks=False)
    slow = run(PATCHING, engine, asked)
    both = result.records.merge(slow.records, on=KEY, suffixes=("", "_slow"))
    assert len(both) == len(slow.records) > 100 and set(both.method_slow) == {"reference"}
    fast_logits, slow_logits = np.stack(both.patched_logits), np.stack(both.patched_logits_slow)
    assert np.abs(fast_logits - slow_logits).max() <= 1e-4 * np.abs(slow_logits).max()
    assert (both.patched_prediction == both.patched_prediction_slow).all()
    np.testing.assert_allclose(both.patched_label_mass, both.patched_label_mass_slow, atol=1e-4)


def test_batches_of_other_sizes_give_the_same_numbers(engine, plain, result):
    alone = run(PATCHING, engine, replace(plain, batch_size=1))
    both = result.records.merge(alone.records, on=KEY, suffixes=("", "_alone"))
    assert len(both) == len(alone.records) == 72
    np.testing.assert_allclose(np.stack(both.patched_logits), np.stack(both.patched_logits_alone), atol=1e-4)


def test_metrics_are_the_summary_of_the_records(result, clips, ready):
    # Four texts are too few to resample, so speakers are the units.
    clusters = {clip_id: clip.labels["speaker"] for clip_id, clip in clips.items()}
    expected = summarise(result.records, EMOTIONS, clusters, seed=42, cluster_column="speaker")
    pd.testing.assert_frame_equal(result.metrics, expected)
    assert list(result.metrics.columns) == METRIC_COLUMNS


def test_the_flips_of_a_layer_counted_by_hand(result):
    records = rows(result.records, condition="matched", prompt=0, alpha=1.0)
    flips = records[(records.patched_prediction == records.target) & (records.base_prediction != records.target)]
    assert len(flips) > 0, "the corpus was chosen so that something flips"
    kind, layer = flips.kind.iloc[0], flips.layer.iloc[0]
    chosen = rows(records, kind=kind, layer=layer)
    [row] = rows(result.metrics, kind=kind, condition="matched", prompt=0, alpha=1.0, layer=layer).itertuples()
    n = flipped = eligible = reachable = flipped_reachable = left = hits = 0
    shift = []
    for record in chosen.itertuples():
        n += 1
        to_target = record.base_prediction != record.target and record.patched_prediction == record.target
        flipped += to_target
        eligible += record.base_prediction != record.target
        can = record.base_prediction != record.target and record.donor_prediction == record.target
        reachable += can
        flipped_reachable += can and to_target
        left += record.patched_prediction != record.base_prediction
        hits += record.donor_prediction == record.target
        at = EMOTIONS.index(record.target)
        shift.append(record.patched_logits[at] - record.base_logits[at])
    assert (row.n, row.eligible_count, row.reachable_count) == (n, eligible, reachable) and n == 6
    assert row.flip_to_target_rate == pytest.approx(flipped / n) and flipped > 0
    assert row.flip_to_target_rate_eligible == pytest.approx(flipped / eligible)
    if reachable:
        assert row.flip_to_target_rate_reachable == pytest.approx(flipped_reachable / reachable)
    assert row.flip_from_base_rate == pytest.approx(left / n)
    assert row.donor_hits_target_rate == pytest.approx(hits / n)
    assert row.delta_logit_target_mean == pytest.approx(np.mean(shift))


@pytest.mark.parametrize("prompt, alphas", [(0, (1.0,)), (1, (0.5, 1.0))])
def test_a_pair_swept_by_hand_is_its_record_of_the_run(engine, asked, ready, result, prompt, alphas):
    for pair in (ready.plan.pairs.pairs[0], ready.plan.pairs.pairs[-1]):
        by_hand = patch_by_hand(engine, asked, pair, prompt=prompt, alphas=alphas)
        assert len(by_hand) == 6 * len(alphas)
        of_run = rows(result.records, condition="matched", prompt=prompt, pair_id=pair.pair_id)
        both = of_run.merge(by_hand, on=KEY, suffixes=("", "_hand"))
        assert len(both) == len(by_hand)
        for column in ("recipient", "donor", "target", "base_prediction", "donor_prediction", "patched_prediction"):
            assert (both[column] == both[f"{column}_hand"]).all()
        for column in ("base_logits", "donor_logits", "patched_logits"):
            np.testing.assert_allclose(np.stack(both[column]), np.stack(both[f"{column}_hand"]), atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"site": "attn_out"},
        {"site": "mlp_out", "align": "resample"},
        {"site": "head_out"},
        {"site": "head_out:2", "alphas": (0.7,)},
        {"align": "resample"},
        {"positions": "0.1-0.3"},
        {"positions": "0.1-0.3", "align": "resample"},
        {"positions": "all"},
        {"layers": (3, 0)},
    ],
    ids=str,
)
def test_sites_spans_and_alignments_run_and_equal_the_reference(engine, plain, change):
    asked = replace(plain, pilot=2, **change)
    fast = run(PATCHING, engine, asked).records
    slow = run(PATCHING, engine, replace(asked, method="reference")).records
    fast_logits, slow_logits = np.stack(fast.patched_logits), np.stack(slow.patched_logits)
    assert np.abs(fast_logits - slow_logits).max() <= 1e-4 * max(1, np.abs(slow_logits).max())
    assert np.abs(fast_logits - np.stack(fast.base_logits)).max() > 0.01
    first = -1 if "site" not in change else 0
    assert set(fast.layer) == set(change.get("layers", range(first, 5)))
    assert len(fast) == 4 * fast.layer.nunique()


def test_strength_zero_leaves_the_answer_and_full_strength_everywhere_gives_the_donors(engine, plain, ready):
    nothing = run(PATCHING, engine, replace(plain, alphas=(0.0,))).records
    np.testing.assert_allclose(np.stack(nothing.patched_logits), np.stack(nothing.base_logits), atol=1e-4)
    spans = {c.clip_id: ready.store.prompted(c, PROMPTS[0]).n_pos for c in ready.manifest.clips}
    everywhere = run(PATCHING, engine, replace(plain, positions="all")).records
    same = everywhere[[spans[r.recipient] == spans[r.donor] for r in everywhere.itertuples()]]
    assert len(same) >= 6, "some pair of the corpus has clips of one length"
    np.testing.assert_allclose(np.stack(same.patched_logits), np.stack(same.donor_logits), atol=1e-4)


def test_base_predictions_and_accuracy_are_those_of_the_clean_model(result, ready, loops, clips, asked):
    answers = list(base_predictions(ready.store, ready.manifest.clips, asked))
    assert len(answers) == 2 * len(clips)
    for row in answers[::5]:
        expected, mass, prediction = loops[row["prompt"]].read(loops[row["prompt"]].forward(clips[row["clip_id"]]))
        np.testing.assert_allclose(row["logits"], expected, atol=1e-4)
        assert (row["prediction"], row["label_mass"]) == (prediction, pytest.approx(mass, abs=1e-4))
    used = {c for p in result.pairs for c in (p["recipient"], p["donor"])} | set(result.records.donor.dropna())
    used |= set(result.records.recipient)
    right = [
        row["prediction"] == clips[row["clip_id"]].labels["prosody_label"]
        for row in answers
        if row["prompt"] == 0 and row["clip_id"] in used
    ]
    table = result.reports["pair_construction_report"]["base_accuracy"]
    [row] = rows(table, prompt=0, column="prosody_label").itertuples()
    assert (row.n, row.accuracy) == (len(right), pytest.approx(np.mean(right)))


def test_reports_name_the_tokens_the_pairs_and_how_their_sounds_differ(result, loops, ready):
    for prompt, report in enumerate(result.reports["tokenization_report"]["prompts"]):
        assert report["prompt"] == PROMPTS[prompt]
        assert [row["first_id"] for row in report["labels"]] == [ids[0] for ids in loops[prompt].ids]
    pairs = result.reports["pair_construction_report"]
    assert set(pairs["acoustic_differences"]) == {"prosody", "semantic"} and pairs["random_donor_missing"] == []
    used = {c.clip_id for p in ready.plan.pairs.pairs for c in (p.recipient, p.donor)}
    assert set(pairs["acoustics"]) == used
    assert [line["pair_id"] for line in result.pairs] == [pair.pair_id for pair in ready.plan.pairs.pairs]


def test_progress_counts_to_its_total_and_may_stop_the_run(ready, plain, engine):
    made = PATCHING.prepare(engine, replace(plain, flow=("last", "lens", "knockout")))
    seen = []
    run_patching(made.plan, made.store, made.manifest.clips, {}, sink=MEMORY, progress=lambda *step: seen.append(step))
    done = [step[0] for step in seen]
    assert done == sorted(done) and {step[1] for step in seen} == {done[-1]}
    assert {"matched prosody", "last semantic", "logit lens", "attention knockout"} <= {step[2] for step in seen}

    class Stop(Exception):
        pass

    def stop(done, total, note):
        if done:
            raise Stop

    with pytest.raises(Stop):
        run_patching(made.plan, made.store, made.manifest.clips, {}, sink=MEMORY, progress=stop)


def test_a_target_that_is_no_label_makes_no_pair(engine, plain):
    narrow = replace(plain, kinds="prosody", labels=("happy", "sad"))
    found = run(PATCHING, engine, narrow)
    assert set(found.records.target) == {"happy", "sad"}
    assert all(len(logits) == 2 for logits in found.records.patched_logits)
    with pytest.raises(InterpError, match="no pair of kind 'prosody'.*targets that are not among the labels"):
        run(PATCHING, engine, replace(narrow, labels=("angry", "surprised")))
