"""A run that writes answers in words: every text by itself, the means by hand, and nothing of it unless asked for."""

import importlib.util
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments import wording
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.patching import words
from interp_core.experiments.patching.experiment import PATCHING, answer_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.run import patches_of
from interp_core.options import deciding
from interp_core.trace.generate import Row, generate
from interp_core.trace.patch import PatchAt
from tests.corpus import write_corpus
from tests.families.encoders import save_whisper, save_whisper_classifier

N = 5


@pytest.fixture(scope="module")
def spoken(plain):
    return replace(plain, words=N, word_pairs=4)


@pytest.fixture(scope="module")
def made(engine, spoken, tmp_path_factory):
    out = tmp_path_factory.mktemp("words") / "run"
    return out, run(PATCHING, engine, spoken, out=out)


def test_every_text_is_the_one_of_its_pair_and_layer_written_alone(engine, spoken, made):
    ready = PATCHING.prepare(engine, spoken)
    subject, plan = ready.store.subject, ready.plan
    answers = made[1].answers.set_index(["pair_id", "layer"])
    chunks = words.chunks_of(plan)
    assert [len(chunk.pairs) for chunk in chunks] == [4, 4]  # batches of four of six pairs of either kind
    texts = set()
    for chunk in chunks:
        for pair, patch in zip(chunk.pairs, patches_of(plan, ready.store, chunk)[0], strict=True):
            clean = [generate(subject, [Row(run.prompted)], N)[0] for run in (patch.recipient, patch.donor)]
            for layer in plan.spec.layers:
                row = answers.loc[pair.pair_id, layer]
                edited = generate(subject, [Row(patch.recipient.prompted, (PatchAt(patch, plan.spec, layer),))], N)[0]
                assert [row.answer_a, row.answer_b] == [text.text for text in clean]
                assert row.answer_patched == edited.text and row.n_tokens == len(edited.tokens)
                assert (row.ended, row.ended_a) == (edited.ended, clean[0].ended)
                moved = wording.words_moved(clean[0].text, clean[1].text, edited.text)
                assert (row.moved, row.kept) == pytest.approx((moved.moved, moved.kept), nan_ok=True)
                texts.add(edited.text)
    assert len(texts) > 8  # control: layers and pairs write different texts
    assert len(answers) == 8 * len(plan.spec.layers)


def test_means_over_pairs_are_by_hand_and_say_what_was_left_out(made, ready):
    result = made[1]
    assert set(result.words_moved["kind"]) == {"prosody", "semantic"}
    for row in result.words_moved.itertuples():
        here = result.answers[(result.answers.kind == row.kind) & (result.answers.layer == row.layer)]
        known = here["moved"].dropna().astype(float)
        assert row.n == len(known) and row.n_pairs == 4 and row.pairs_left_out == 2
        assert row.moved_mean == pytest.approx(known.mean()) and row.kept_mean == pytest.approx(here["kept"].mean())
        assert row.changed_rate == pytest.approx((here.answer_patched != here.answer_a).mean(), abs=0.26)
        assert row.unfinished == (~here.ended.astype(bool)).sum()
        assert np.isnan(row.moved_low) and "no interval: " in row.interval_method  # of four pairs
    said = "; ".join(PATCHING.summary(result))
    assert "prosody, in words: 4 pairs (2 more were not written out)" in said


def test_the_interval_of_many_pairs_holds_the_mean_and_none_is_given_where_all_are_alike(made, engine, spoken):
    plan = PATCHING.prepare(engine, spoken).plan
    drawn = np.random.default_rng(0)
    rows = [
        {
            **{"kind": "prosody", "prompt": 0, "alpha": 1.0, "pair_id": f"p{i}", "recipient": f"a{i}"},
            **{"donor": f"b{i}", "layer": layer, "moved": None if i == 3 else value, "kept": 0.5, "changed": True},
            "ended": True,
        }
        for i in range(40)
        for layer, value in ((0, float(drawn.integers(0, 2))), (1, 1.0))
    ]
    clusters = {f"{side}{i}": f"{side}{i}" for side in "ab" for i in range(40)}
    table = words.metrics_of(pd.DataFrame(rows), plan, clusters, "text_id", 0)
    first, second = table.itertuples()
    assert first.n == second.n == 39 and first.n_pairs == 40
    assert first.moved_low < first.moved_mean < first.moved_high and first.moved_high - first.moved_low > 0.1
    assert np.isnan(second.moved_low) and second.interval_method == "no interval: the same share in all pairs"


def test_files_hold_what_the_run_found_and_are_read_back(made):
    folder, result = made
    table = pd.read_csv(folder / "answers_prosody.csv", keep_default_na=False)
    here = result.answers[result.answers.kind == "prosody"]
    assert table["answer_patched"].tolist() == here["answer_patched"].tolist()
    assert table["layer"].tolist() == here["layer"].tolist() and "wer_a" not in table
    again = open_result(PATCHING, folder)
    pd.testing.assert_frame_equal(again.answers, result.answers)
    pd.testing.assert_frame_equal(again.words_moved, result.words_moved, check_dtype=False)


def test_without_the_setting_nothing_is_written_and_no_key_moves(engine, plain, made, tmp_path):
    assert not {"words", "word_pairs"} & set(deciding(plain)) and plain.words == 0
    result = run(PATCHING, engine, plain, out=tmp_path / "run")
    assert not len(result.answers) and not len(result.words_moved)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    more = {path.name for path in made[0].iterdir()} - names
    tables = {f"{what}_{kind}.csv" for kind in ("prosody", "semantic") for what in ("answers", "words_moved")}
    assert more == {*tables, "answers_records_prosody.jsonl", "answers_records_semantic.jsonl"}
    pd.testing.assert_frame_equal(result.metrics, made[1].metrics)
    assert PATCHING.cost(PATCHING.prepare(engine, plain)).also == ""


def test_the_cost_counts_prompts_and_tokens_of_every_layer(engine, spoken, plain):
    asked, without = (PATCHING.cost(PATCHING.prepare(engine, one)) for one in (spoken, plain))
    rows = 8 * (6 + 2)  # pairs, by the layers from the embeddings on, and both clips as they are
    assert rows < asked.forwards - without.forwards < 1.2 * rows
    assert "up to 5 tokens in words of 8 pairs" in str(asked)
    more = PATCHING.cost(PATCHING.prepare(engine, replace(spoken, words=200)))
    assert more.forwards > asked.forwards + rows


def test_a_model_that_writes_nothing_is_refused_before_anything_runs(engine, tmp_path, corpus):
    folder = save_whisper_classifier(tmp_path / "model")
    asked = PatchRequest(str(folder), str(corpus), device="cpu", kinds="prosody", checks=False, words=N)
    with pytest.raises(InterpError, match="writes no text.*leave --words out"):
        PATCHING.prepare(engine, asked)
    with pytest.raises(InterpError, match="--word-pairs means nothing without --words"):
        replace(asked, words=0, word_pairs=3).check()


def test_one_pair_by_hand_is_written_as_in_the_run(engine, spoken, made):
    pair = PATCHING.prepare(engine, spoken).plan.pairs.of("prosody")[1]
    found = answer_by_hand(engine, spoken, pair, n_tokens=N, layers=(0, 2))
    rows = made[1].answers.set_index(["pair_id", "layer"])
    for layer in (0, 2):
        assert found.patched[layer].text == rows.loc[(pair.pair_id, layer), "answer_patched"]
    weak = answer_by_hand(engine, spoken, pair, n_tokens=N, alpha=0.0, layers=(2,))
    assert weak.patched[2] == weak.a and weak.a.text == rows.loc[(pair.pair_id, 0), "answer_a"]


@pytest.mark.skipif(not wording.counts_errors(), reason="the package jiwer is not installed")
def test_a_transcript_has_word_error_rates_against_both_texts(engine, tmp_path):
    manifest = _with_texts(tmp_path)
    asked = _whisper(tmp_path, manifest)
    result = run(PATCHING, engine, asked)
    texts = {f"t{t}": f" dog {t}" for t in range(4)}
    for row in result.answers.itertuples():
        for clip, found in ((row.recipient, row.wer_a), (row.donor, row.wer_b)):
            assert found == pytest.approx(wording.word_error_rate(row.answer_patched, texts[clip.partition("-")[0]]))
    assert result.answers["wer_a"].notna().all()


def test_what_is_left_out_without_the_package_is_said(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(wording, "find_spec", lambda name: None if name == "jiwer" else importlib.util.find_spec(name))
    ready = PATCHING.prepare(engine, _whisper(tmp_path, _with_texts(tmp_path)))
    assert [note for note in ready.notes if "jiwer is not installed" in note]
    result = run(PATCHING, engine, ready.asked, ready=ready)
    assert len(result.answers) and "wer_a" not in result.answers


def _with_texts(folder):
    manifest = write_corpus(folder / "corpus")
    table = pd.read_csv(manifest)
    table.assign(text=[f"Dog, {name[1:]}!" for name in table["text_id"]]).to_csv(manifest, index=False)
    return manifest


def _whisper(folder, manifest):
    if not (folder / "whisper").exists():
        save_whisper(folder / "whisper")
    return PatchRequest(
        str(folder / "whisper"), str(manifest), device="cpu", kinds="prosody", max_pairs=2, controls=(), flow=(),
        checks=False, labels=("happy", "sad", "neutral"), part="decoder", words=N,
    )  # fmt: skip


def test_an_engine_of_its_own_comes_to_the_same_texts(spoken, made):
    again = run(PATCHING, Engine(), replace(spoken, kinds="prosody"))
    ours = made[1].answers[made[1].answers.kind == "prosody"].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.answers, ours)
