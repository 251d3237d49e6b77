"""Later layers in earlier ones and prompts that state an answer: planted models, plain loops, folders and refusals."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from interp_core.choices import EMOTIONS
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.patching import conflict
from interp_core.experiments.patching.back_map import back_layers, changes, summarise_back
from interp_core.experiments.patching.clip_chunks import Units, answer_columns, clip_chunks, clips_of_pairs
from interp_core.experiments.patching.conflict_figures import back_figure, stated_figure
from interp_core.experiments.patching.experiment import PATCHING, later_by_hand, statement_by_hand
from interp_core.experiments.patching.stated import (
    AGAINST,
    ALL_DIFFER,
    ALONE,
    ALONE_APART,
    DOMINANCE,
    stating,
    summarise_stated,
)
from interp_core.experiments.sharded import merge, run_shard
from interp_core.jobs import Cancelled
from interp_core.shards import Shard
from tests.experiments.conflict_planted import LABELS, N_LAYERS, QUESTION, READ, TAKE, conflicted, laid_out, planted
from tests.experiments.conflict_planted import clips as planted_clips
from tests.experiments.conftest import PROMPTS
from tests.experiments.plain_loop import PlainLoop

STATEMENT = "The speaker sounds {label}."


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    return planted_clips(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def asked_both(plain):
    return replace(plain, kinds="prosody", maps=("back",), stated="prosody_label", max_pairs=4, layers=(0, 2, 4))


@pytest.fixture(scope="module")
def folder(engine, asked_both, tmp_path_factory):
    out = tmp_path_factory.mktemp("conflict") / "run"
    run(PATCHING, engine, replace(asked_both, checks=True), out=out)
    return out


@pytest.fixture(scope="module")
def made(folder):
    return open_result(PATCHING, folder)


# ---- planted: whom a model follows, and what comes too late ----------------------------------------------------------


@pytest.mark.parametrize(
    "follows, alone, told, ratio",
    [
        ("text", {"voice": 1.0}, {"text": 1.0}, 1.0),
        ("voice", {"voice": 1.0}, {"voice": 1.0}, 0.0),
        ("words", {"words": 1.0}, {"words": 1.0}, None),
    ],
)
def test_a_model_that_follows_one_source_alone_has_all_of_its_share(some, follows, alone, told, ratio):
    table = conflicted(planted(follows), some, stated="prosody_label").conflict.stated_shares
    shares = table.set_index(["items", "source"])["share"].to_dict()
    for items, expected in ((ALONE_APART, alone), (ALL_DIFFER, told)):
        found = {source: share for (name, source), share in shares.items() if name == items and source != DOMINANCE}
        assert {source: share for source, share in found.items() if share} == expected, items
    row = table[(table["items"] == ALL_DIFFER) & (table["source"] == DOMINANCE)].iloc[0]
    if ratio is None:
        assert row["n"] == 0 and np.isnan(row["share"]), "no answer follows either, so there is no ratio"
    else:
        assert row["share"] == ratio and row["n"] > 15
        assert row["n_clusters"] >= 10 and row["low"] <= ratio <= row["high"] and "Wilson" in row["interval_method"]


def test_by_layer_the_text_wins_where_it_is_carried_and_read_and_nowhere_else(some):
    table = conflicted(planted("text"), some, stated="prosody_label", max_pairs=6).conflict.stated_layers
    rows = table[(table["items"] == AGAINST) & (table["source"] == "text")].set_index(["span", "layer"])["share"]
    layers = range(-1, N_LAYERS)
    assert rows["question"].to_dict() == {layer: float(TAKE <= layer < READ) for layer in layers}
    assert rows["last"].to_dict() == {layer: float(layer >= READ) for layer in layers}
    voice = table[(table["items"] == AGAINST) & (table["source"] == "voice")].set_index(["span", "layer"])["share"]
    assert (voice + rows == 1).all(), "control: elsewhere it is the voice that wins"


def test_a_voice_that_comes_too_late_is_read_when_its_state_is_put_before_the_reader(some):
    table = conflicted(planted("late"), some, maps=("back",)).conflict.back_map
    voice = table[table["column"] == "prosody_label"].set_index(["source", "target"])
    right = voice["accuracy_patched"].to_dict()
    assert set(right) == {(s, t) for t in range(-1, N_LAYERS) for s in range(t, N_LAYERS)}
    base = voice["accuracy_base"].iloc[0]
    assert 0 < base < 0.6
    for (source, target), share in right.items():
        helps = source >= READ and target < READ - 1
        assert share == (1.0 if helps else base), (source, target)
        assert voice.loc[(source, target), "restored_rate"] == float(helps)
    assert (voice["broken_rate"] == 0).all()
    diagonal = voice[[source == target for source, target in voice.index]]
    names = ["accuracy_change", "logprob_change", "probability_change", "logit_change"]
    assert (diagonal[names] == 0).all(axis=None), "exactly null"
    words = table[table["column"] == "semantic_label"].set_index(["source", "target"])["accuracy_patched"]
    assert words[(READ, 0)] < 0.6, "control: the words' label is not what was late"
    best = voice.loc[(READ, 0)]
    assert best["accuracy_change_low"] > 0 and best["n_clusters"] >= 10 and "with t over text_id" in best.iloc[-1]


# ---- against plain loops ---------------------------------------------------------------------------------------------


def test_records_are_those_of_the_librarys_own_forward_with_one_hook(engine, asked_both, made):
    ready = PATCHING.prepare(engine, asked_both)
    clips = {clip.clip_id: clip for clip in ready.manifest.clips}
    loop = PlainLoop(ready.store.subject, PROMPTS[0], EMOTIONS)
    record = made.conflict.back_records[1]
    clip = clips[record["clip_id"]]
    start, stop, _ = loop.span(clip)
    assert record["cells"] == [[0, 0], [2, 0], [4, 0], [2, 2], [4, 2], [4, 4]]
    apart = 0.0
    for (source, target), logits in zip(record["cells"], record["patched_logits"], strict=True):
        incoming = loop.state(clip, source)[start:stop]
        expected = loop.read(loop.patched(clip, incoming, target, range(start, stop)))[0]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * max(1, abs(expected).max()))
        apart = max(apart, abs(np.asarray(logits) - record["base_logits"]).max())
    assert apart > 0.5, "control: later states do something"
    assert 0 <= record["diagonal_gap"] < 1e-3 and record["method"] == "wavefront"
    # Whom it follows: the prompt with the statement, asked by the library alone.
    told = PlainLoop(ready.store.subject, f"The speaker sounds sad. {PROMPTS[0]}", EMOTIONS)
    [row] = [
        r for r in made.conflict.stated_records if r["clip_id"] == clip.clip_id and r["stated"] == "sad"
    ]  # fmt: skip
    np.testing.assert_allclose(row["logits"], told.read(told.forward(clip))[0], rtol=0, atol=1e-3)
    # By layer: the last position of the run with the statement in the run without it.
    [row] = [
        r for r in made.conflict.stated_layer_records
        if (r["clip_id"], r["stated"], r["span"]) == (clip.clip_id, "sad", "last")
    ]  # fmt: skip
    n, m = loop.span(clip)[2], told.span(clip)[2]
    for layer, logits in zip(row["layers"], row["patched_logits"], strict=True):
        expected = loop.read(loop.patched(clip, told.state(clip, layer)[m - 1 : m], layer, [n - 1]))[0]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * max(1, abs(expected).max()))


def test_the_first_and_the_last_layer_are_the_runs_without_and_with_the_statement(engine, asked_both):
    request = replace(asked_both, maps=(), layers=(-1, 4), max_pairs=1)
    made = run(PATCHING, engine, request).conflict
    asked = {(r["clip_id"], r["stated"]): r["logits"] for r in made.stated_records}
    apart = 0.0
    for row in made.stated_layer_records:
        without, told = asked[row["clip_id"], None], asked[row["clip_id"], row["stated"]]
        assert row["patched_logits"][0] == pytest.approx(without, abs=2e-3), "the same tokens enter both"
        if row["span"] == "last":
            assert row["patched_logits"][1] == pytest.approx(told, abs=2e-3), "all that is read is replaced"
            apart = max(apart, np.abs(np.subtract(without, told)).max())
    assert apart > 0.1, "control: a statement changes something"


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_changes_and_rates_of_a_map_are_those_of_a_hand_count():
    labels = ("a", "b")
    base = {"prompt": 0, "base_logits": [0.0, 1.0], "cells": [[0, 0], [1, 0]]}
    records = [
        {**base, "clip_id": "x", "labels": {"label": "a"}, "patched_logits": [[0.0, 1.0], [2.0, 0.0]]},
        {**base, "clip_id": "y", "labels": {"label": "b"}, "patched_logits": [[0.0, 1.0], [2.0, 0.0]]},
        {**base, "clip_id": "z", "labels": {}, "patched_logits": [[0.0, 1.0], [9.0, 0.0]]},
    ]
    table = summarise_back(records, labels, {name: name for name in "xyz"}).set_index("source")
    assert table.n.tolist() == [2, 2] and table.loc[1, "accuracy_base"] == 0.5
    assert table.loc[1, "restored_rate"] == 1 and table.loc[1, "broken_rate"] == 1
    assert table.loc[1, "accuracy_change"] == 0 and table.loc[1, "logit_change"] == pytest.approx((2 - 1) / 2)
    first, second = log_softmax([2.0, 0.0]) - log_softmax([0.0, 1.0])
    assert table.loc[1, "logprob_change"] == pytest.approx((first + second) / 2)
    assert "2 text_id clusters, 10 needed" in table.loc[1, "interval_method"] and np.isnan(table.loc[1].iloc[7])
    assert changes(records[2], labels, "label") is None


def test_an_answer_counts_once_and_the_ratio_leaves_out_those_that_follow_neither():
    def row(clip, stated, voice, words, prediction):
        return {"prompt": 0, "clip_id": clip, "stated": stated, "voice": voice, "words": words,
                "prediction": prediction}  # fmt: skip

    rows = [
        row("p", None, "a", "b", "b"), row("p", "c", "a", "b", "c"), row("q", "c", "a", "b", "a"),
        row("r", "c", "a", "b", "d"), row("s", "b", "a", "b", "b"), row("t", "a", "a", "b", "a"),
        row("u", "c", "a", None, "c"),
    ]  # fmt: skip
    table = summarise_stated(rows, {name: name for name in "pqrstu"}, columns=["prosody_label", "semantic_label"])
    shares = {key: (row.share, row.n) for key, row in table.set_index(["items", "source"]).iterrows()}
    assert shares[ALL_DIFFER, "text"] == (pytest.approx(1 / 3), 3) and shares[ALL_DIFFER, "none"][0] == 1 / 3
    assert shares[ALL_DIFFER, DOMINANCE] == (1 / 2, 2)
    assert shares[AGAINST, "text"] == (3 / 5, 5), "what the words say too counts for the text there"
    assert shares[AGAINST, DOMINANCE] == (3 / 4, 4) and shares[AGAINST, "words"] == (0, 5)
    assert shares[ALONE, "words"] == (1, 1) and (ALONE, "text") not in shares
    alone = summarise_stated(rows, {name: name for name in "pqrstu"}, columns=["label"])
    assert set(alone["items"]) == {ALONE, AGAINST} and "label" in set(alone["source"]), "without a column of words"


def test_means_over_clips_resample_units_and_say_when_there_are_too_few():
    ids = [f"c{i}" for i in range(40)]
    values = np.array([[i % 2, 1.0] for i in range(40)])
    units = Units(ids, {name: f"u{int(name[1:]) // 2}" for name in ids}, "speaker")
    half, all_ = units.means(values, rates=True)
    assert half["mean"] == 0.5 and 0.3 < half["low"] < 0.4, "every unit holds one of each: as wide as 40 clips are"
    assert all_["low"] == pytest.approx(0.82, abs=1e-3) and all_["high"] == 1, "of 20 units"
    assert all_["interval_method"] == "cluster-robust with t, Wilson with effective n over speaker"
    alone, _ = Units(ids, {name: name for name in ids}, "clip").means(values)
    assert alone["low"] < 0.4 < 0.6 < alone["high"], "clips by themselves spread"
    plain, _ = units.means(values)
    assert plain["low"] == plain["high"] == 0.5, "control: a mean over units that are all alike has no width"
    few, _ = Units(ids, dict.fromkeys(ids, "one"), "speaker").means(values)
    assert np.isnan(few["low"]) and few["interval_method"] == "no interval: 1 speaker clusters, 10 needed"


# ---- plan, settings, refusals ----------------------------------------------------------------------------------------


def test_chunks_of_clips_hold_every_clip_once_a_question_and_follow_chunks_of_pairs(some):
    made, _ = laid_out(planted("voice"), some, batch_size=5, maps=("back",), prompts=(QUESTION, "Now ?"))
    chunks = clip_chunks(made)
    for prompt in (0, 1):
        listed = [clip.clip_id for chunk in chunks if chunk.prompt == prompt for clip in chunk.clips]
        assert sorted(listed) == sorted({clip.clip_id for clip in clips_of_pairs(made)})
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert {chunk.group for chunk in chunks} <= {made.group_of(chunk) for chunk in made.chunks}
    assert len({chunk.group for chunk in chunks}) > 1, "control: shards have something to share"


def test_columns_that_answers_match_come_voice_first_and_others_are_none(some):
    assert answer_columns(some, LABELS) == ("prosody_label", "semantic_label")
    assert answer_columns(some, ("yes", "no")) == ()
    assert stating(STATEMENT, "sad", "What?") == "The speaker sounds sad. What?"


def test_of_many_layers_every_nth_is_taken_counted_from_the_last(some, asked_both):
    subject = planted("voice")
    assert back_layers(subject, replace(asked_both, layers=None)) == (-1, 0, 1, 2, 3)
    assert back_layers(subject, replace(asked_both, layers=None, back_every=2)) == (-1, 1, 3)

    class Deep:
        n_layers = 32

    assert back_layers(Deep(), replace(asked_both, layers=None)) == tuple(range(1, 32, 3))
    Deep.n_layers = 12
    assert len(back_layers(Deep(), replace(asked_both, layers=None))) == 13, "all of 12 and the embeddings"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"maps": (), "back_every": 2}, "--back-every means nothing without --map back"),
        ({"layers": (3,)}, "leave layer 3 alone"),
        ({"stated": "speaker"}, "stated 'speaker' is no label column that the answers .* columns that do: prosody_l"),
        ({"statement": "It is sad."}, "states nothing: write {label}"),
        ({"stated": "", "statement": "It is {label}."}, "--statement means nothing without --stated"),
        ({"back_every": 0}, "too small"),
        ({"maps": ("back", "back")}, "give each map once"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(engine, asked_both, change, said):
    with pytest.raises(InterpError, match=said):
        PATCHING.prepare(engine, replace(asked_both, **change))


def test_requests_without_either_keep_their_key(plain, asked_both):
    assert replace(asked_both, kinds=plain.kinds, maps=(), stated="", max_pairs=6, layers=None).key == plain.key
    assert asked_both.key != plain.key


def test_the_cost_counts_them(engine, asked_both, plain):
    without = replace(asked_both, maps=(), stated="")
    passes = [PATCHING.cost(PATCHING.prepare(engine, one)).forwards for one in (without, asked_both)]
    assert passes[1] > passes[0] + 5 * 6, "five statements a clip at the least"


# ---- folders and by hand ---------------------------------------------------------------------------------------------


def test_the_folder_holds_tables_records_and_pictures_and_reads_back(folder, made, engine, asked_both):
    for name in ("back_map.csv", "stated_shares.csv", "stated_layers.csv"):
        assert len(pd.read_csv(folder / name))
    for name in ("back_map.png", "stated.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG") and name.removesuffix(".png") in made.figures()
    assert {"back_map", "stated_shares", "stated_layers"} <= set(made.tables())
    said = list(PATCHING.summary(made))
    assert any("back-patching, voice (prosody_label)" in line and "by selection" in line for line in said)
    assert any("a prompt that states an answer" in line for line in said)
    assert "2406.12775" in made.limits and "2602.11488" in made.limits
    assert any(check["check"] == "back-patching, fast = reference" for check in made.checks())
    clip = next(c for c in engine.manifest(asked_both).clips if c.clip_id == made.conflict.back_records[0]["clip_id"])
    alone = later_by_hand(engine, replace(asked_both, maps=()), clip)
    for row, kept in zip(alone["patched_logits"], made.conflict.back_records[0]["patched_logits"], strict=True):
        assert row == pytest.approx(kept, abs=1e-3)
    told = statement_by_hand(engine, asked_both, clip)
    kept = [r for r in made.conflict.stated_records if r["clip_id"] == clip.clip_id]
    assert [r["stated"] for r in told] == [r["stated"] for r in kept] == [None, *EMOTIONS]
    assert [r["prediction"] for r in told] == [r["prediction"] for r in kept]


def same_files(one, other):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if not name.endswith("_config.json"):  # times
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("note", ["later layers in earlier ones", "prompts that state an answer, by layer"])
def test_a_run_that_is_stopped_in_its_clips_goes_on_behind_the_last_whole_chunk(
    engine, asked_both, tmp_path, monkeypatch, note
):
    """`asked_both` in chunks of one pair; the work itself is counted, as both halves run on cached clean states."""
    done = []
    for name in ("run_back_chunk", "run_stated_chunk", "run_stated_layers"):
        compute = getattr(conflict, name)
        monkeypatch.setattr(conflict, name, lambda *a, _c=compute, _n=name: (done.append((_n, a[2].number)), _c(*a))[1])
    request = replace(asked_both, batch_size=1, layers=(0, 4), prompts=PROMPTS[:1])

    def stop(at, total, said):
        if said == note:
            raise Cancelled

    out = tmp_path / "run"
    with pytest.raises(Cancelled):
        run(PATCHING, engine, request, out=out, progress=stop)
    before = list(done)
    run(PATCHING, engine, request, out=out, resume=True)
    assert before and len(done) == len(set(done)), "no chunk of clips was computed twice"
    assert len(done) > len(before) and not set(before) & set(done[len(before) :])
    run(PATCHING, engine, request, out=tmp_path / "whole")
    same_files(tmp_path / "whole", out)


def test_shards_join_to_the_files_of_one_process(engine, asked_both, tmp_path):
    request = replace(asked_both, batch_size=1, layers=(0, 4), max_pairs=3)
    ready = PATCHING.prepare(engine, request)
    folders = [run_shard(PATCHING, ready, Shard(i, 2), tmp_path / "shards") for i in (1, 2)]
    kept = [len((folder / "back_map_records.jsonl").read_text().splitlines()) for folder in folders]
    assert min(kept) > 0, "control: both have clips of their own"
    merge(folders, tmp_path / "merged", engine=engine)
    run(PATCHING, engine, request, out=tmp_path / "whole")
    same_files(tmp_path / "whole", tmp_path / "merged")


def test_a_run_without_either_has_no_such_tables_and_lost_ones_are_missed(folder, engine, plain, tmp_path):
    result = run(PATCHING, engine, replace(plain, kinds="prosody", max_pairs=1, layers=(0,)))
    assert "2406.12775" not in result.limits
    assert not {"back_map", "stated_shares"} & set(result.tables()) and "stated" not in result.figures()
    for draw in (lambda: back_figure(pd.DataFrame(), ""), lambda: stated_figure(*[pd.DataFrame()] * 2, [], "")):
        with pytest.raises(InterpError, match="run with --"):
            draw()
    broken = shutil.copytree(folder, tmp_path / "run")
    (broken / "back_map.csv").unlink()
    with pytest.raises(InterpError, match=r"lacks? .*back_map\.csv"):
        open_result(PATCHING, broken)
