"""The answer in words without neurons: the library's own text under a plain hook, each ablation as in the run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.neurons.by_hand import answer_without
from interp_core.experiments.neurons.experiment import NEURONS
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.words import ablated_rows, best_neurons
from tests.experiments.conftest import PROMPTS
from tests.experiments.neuron_clips import write_clips, write_model
from tests.experiments.plain_loop import PlainLoop
from tests.models.test_writing import cut, plain_hook

N, K, LAYER = 8, 6, 1


@pytest.fixture(scope="module")
def asked(tiny_folder, tmp_path_factory):
    clips = write_clips(tmp_path_factory.mktemp("clips"))
    return AblateRequest(
        str(tiny_folder), str(clips), device="cpu", at=f"resid_post:{LAYER}", labels=("neutral", "happy"),
        prompt=PROMPTS[0], draws=2, ks=(0, K), refits=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(engine, asked):
    return run(NEURONS, engine, asked)


def library(loop, clip, neurons, fill, during):
    """The tokens that `generate()` writes with a plain hook behind the block; fill None turns the sign."""
    start, stop, n_pos = loop.span(clip)

    def change(value, call):
        if call and during == "prefill":
            return None
        value = value.clone()
        inside = slice(None) if call else slice(start, stop)
        for at, neuron in enumerate(neurons):
            value[0, inside, neuron] = -value[0, inside, neuron] if fill is None else fill[at]
        return value

    with plain_hook(loop.hf.model.language_model.layers[LAYER], change), torch.inference_mode():
        out = loop.hf.generate(**loop.inputs(clip), max_new_tokens=N, do_sample=False)[0]
    return cut(out[n_pos:].tolist(), loop.hf)


@pytest.mark.parametrize("kind", ["mean", "zero", "resample", "flip"])
def test_the_text_without_neurons_is_the_librarys_with_what_the_run_put_in_their_place(engine, asked, made, kind):
    asked = replace(asked, kind=kind)
    plan = NEURONS.prepare(engine, asked).plan
    loop = PlainLoop(plan.reader.subject, PROMPTS[0], asked.labels)

    def feature(clip):
        start, stop, _ = loop.span(clip)
        return loop.state(clip, LAYER)[start:stop].mean(0)

    neurons = best_neurons(made.scores, "domain", K)
    ranks = made.scores.set_index("neuron")["domain_rank"]
    assert len(set(neurons)) == K and ranks.loc[list(neurons)].tolist() == sorted(ranks)[:K]
    train = [plan.clips[i] for i in plan.splits.train]
    features = {clip.clip_id: feature(clip) for clip in train}
    changed = 0
    for i in (int(plan.splits.ood[0]), int(plan.splits.ood[1]), int(plan.splits.id[0])):
        clip = plan.clips[i]
        fills = {
            "mean": torch.stack(list(features.values())).mean(0)[list(neurons)],
            "zero": torch.zeros(K),
            "flip": None,
        }
        if kind == "resample":  # the clip that the run drew for this one
            drawn = np.random.default_rng(asked.seed).choice(plan.splits.train, size=len(plan.clips))
            fills["resample"] = features[plan.clips[int(drawn[i])].clip_id][list(neurons)]
        for during in ("prefill", "all"):
            own, without = answer_without(engine, asked, clip, neurons, n_tokens=N, during=during)
            assert own.tokens == library(loop, clip, (), None, during)
            assert without.tokens == library(loop, clip, neurons, fills[kind], during), (clip.clip_id, during)
            changed += own.tokens != without.tokens
    assert changed, "control: the edit changes a text"


def test_a_site_behind_the_blocks_and_a_model_that_writes_nothing_are_refused(engine, asked, made, tmp_path):
    model, clips = write_model(tmp_path / "wavlm"), write_clips(tmp_path / "clips")
    silent = AblateRequest(str(model), str(clips), device="cpu", at="resid_post:1")
    plan = NEURONS.prepare(engine, silent).plan
    with pytest.raises(InterpError, match="writes no text, so there is no answer in words"):
        answer_without(engine, silent, plan.clips[0], (0,), n_tokens=N)
    pooled = NEURONS.prepare(engine, replace(silent, at="pooled"))
    with pytest.raises(InterpError, match="site pooled stands behind the blocks, where no words are written"):
        ablated_rows(pooled.plan.reader, pooled.plan.site, plan.clips[0], [(0,)], None)
    ready = NEURONS.prepare(engine, replace(asked, kind="resample"))
    stranger = replace(plan.clips[0], clip_id="stranger")
    with pytest.raises(InterpError, match="'stranger' is not one of the run's"):
        answer_without(engine, ready.request, stranger, (0,), n_tokens=N)


@pytest.mark.parametrize("kind, during", [("mean", "prefill"), ("resample", "all")])
def test_a_run_writes_the_answers_of_its_first_clips_and_reads_them_back(engine, asked, tmp_path, kind, during):
    asked = replace(asked, kind=kind, words=N, word_clips=3, during=during)
    ready = NEURONS.prepare(engine, asked)
    made = run(NEURONS, engine, asked, out=tmp_path / "run", ready=ready)
    table, k = made.words, made.report["evidence"]["k"]
    places = [*ready.plan.splits.ood, *ready.plan.splits.id][:3]
    clips = [ready.plan.clips[int(i)] for i in places]
    assert table["clip_id"].tolist() == [clip.clip_id for clip in clips for _ in range(2)]
    assert table["set"].tolist() == ["domain", "task"] * 3 and set(table["k"]) == {k}
    assert set(table["during"]) == {during}
    for row in table.to_dict("records"):
        (clip,) = [clip for clip in clips if clip.clip_id == row["clip_id"]]
        neurons = best_neurons(made.scores, row["set"], k)
        own, without = answer_without(engine, asked, clip, neurons, n_tokens=N, during=during)
        assert (row["answer"], row["answer_edited"]) == (own.text, without.text)
        assert row["changed"] == (own.tokens != without.tokens)
    again = open_result(NEURONS, tmp_path / "run")
    assert again.words.to_dict("records") == table.to_dict("records") and "words" in again.tables()
    assert pd.read_csv(tmp_path / "run" / "answers.csv")["clip_id"].tolist() == table["clip_id"].tolist()
    said = [one for one in NEURONS.summary(again) if one.startswith("in words, set domain: ")]
    assert len(said) == 1 and "of 3 texts of 3 clips change" in said[0]
    assert f"up to {N} tokens in words of 3 clips" in str(NEURONS.cost(ready))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"word_clips": 2}, "--word-clips means nothing without --words"),
        ({"during": "all"}, "--during means nothing without --words"),
    ],
)
def test_settings_of_answers_that_are_not_written_are_refused(engine, asked, change, said):
    with pytest.raises(InterpError, match=said):
        NEURONS.prepare(engine, replace(asked, **change))


def test_a_run_at_a_site_behind_the_blocks_or_of_a_model_that_writes_nothing_has_no_words(engine, tmp_path):
    model, clips = write_model(tmp_path / "wavlm"), write_clips(tmp_path / "clips")
    silent = AblateRequest(str(model), str(clips), device="cpu", at="resid_post:1", words=N)
    with pytest.raises(InterpError, match="writes no text, so there is no answer in words"):
        NEURONS.prepare(engine, silent)
