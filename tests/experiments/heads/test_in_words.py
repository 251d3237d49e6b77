"""Answers in words without the best heads, over a run's clips: the library's own text under a plain hook."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.heads.experiment import HEADS
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.heads.words import best_heads, clips_in_words, run_words
from interp_core.jobs import silent
from interp_core.sinks import MEMORY
from tests.experiments.conftest import PROMPTS
from tests.experiments.neuron_clips import write_clips, write_model
from tests.experiments.plain_loop import PlainLoop
from tests.models.test_writing import cut, plain_hook

N = 8


@pytest.fixture(scope="module")
def asked(tiny_folder, tmp_path_factory):
    clips = write_clips(tmp_path_factory.mktemp("clips"))
    return HeadsRequest(
        str(tiny_folder), str(clips), device="cpu", label="prosody_label", per_class=3, draws=19, probes="none",
        prompt=PROMPTS[0], words=N, word_heads=2, word_clips=3,
    )  # fmt: skip


def library(loop, clip, layer, columns, during):
    """The tokens that `generate()` writes with some columns of what `o_proj` takes at zero."""
    _, _, n_pos = loop.span(clip)

    def change(value, call):
        if call and during == "prefill":
            return None
        value = value.clone()
        value[..., columns] = 0
        return value

    projection = loop.hf.model.language_model.layers[layer].self_attn.o_proj
    with plain_hook(projection, change, on_input=True), torch.inference_mode():
        out = loop.hf.generate(**loop.inputs(clip), max_new_tokens=N, do_sample=False)[0]
    return cut(out[n_pos:].tolist(), loop.hf)


@pytest.mark.parametrize("during", ["prefill", "all"])
def test_each_text_is_the_librarys_without_that_head_and_is_read_back(engine, asked, tmp_path, during):
    asked = replace(asked, during=during)
    ready = HEADS.prepare(engine, asked)
    made = run(HEADS, engine, asked, out=tmp_path / "run", ready=ready)
    subject, table = ready.store.subject, made.words
    loop = PlainLoop(subject, PROMPTS[0], sorted(set(ready.plan.labels)))
    clips = {clip.clip_id: clip for clip in clips_in_words(ready.plan, asked)}
    ranked = made.points("head").sort_values("fisher_f", ascending=False)
    assert table["clip_id"].tolist() == [name for name in clips for _ in range(2)] and len(clips) == 3
    assert table["head"].tolist() == ranked["name"].tolist()[:2] * 3 and set(table["during"]) == {during}
    places = ranked.set_index("name")
    for row in table.to_dict("records"):
        layer, head = (int(places.loc[row["head"], column]) for column in ("layer", "head"))
        columns = slice(head * subject.d_head, (head + 1) * subject.d_head)
        tokens = library(loop, clips[row["clip_id"]], layer, columns, during)
        assert (row["n_tokens"], row["answer_edited"]) == (len(tokens), subject.text_of(tokens))
        own = library(loop, clips[row["clip_id"]], layer, slice(0, 0), during)
        assert row["answer"] == subject.text_of(own) and row["changed"] == (own != tokens)
    back = open_result(HEADS, tmp_path / "run")
    pd.testing.assert_frame_equal(back.words, table)
    assert (tmp_path / "run" / "answers.csv").exists() and "words" in back.tables()
    said = [text for text in HEADS.summary(made) if text.startswith("in words, head ")]
    assert len(said) == 2 and "of 3 texts of 3 clips change" in said[0]


def test_few_clips_are_of_each_class_in_turn_and_all_are_where_none_are_counted(engine, asked):
    drawn = HEADS.prepare(engine, asked).plan
    label = dict(zip((clip.clip_id for clip in drawn.clips), drawn.labels, strict=True))
    classes = sorted(set(drawn.labels))
    first = clips_in_words(drawn, replace(asked, word_clips=len(classes)))
    assert sorted(label[clip.clip_id] for clip in first) == classes
    assert set(clips_in_words(drawn, replace(asked, word_clips=0))) == set(drawn.clips)
    assert clips_in_words(drawn, replace(asked, words=0, word_clips=0, word_heads=3)) == ()


def test_a_head_without_an_f_is_none_of_the_best_and_a_draw_goes_to_the_earlier_one():
    heads = pd.DataFrame(
        {"name": list("abcd"), "layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "fisher_f": [2.0, np.nan, 3.0, 2.0]}
    )
    assert best_heads(heads, 9) == [("c", 1, 0), ("a", 0, 0), ("d", 1, 1)]
    assert best_heads(heads, 2) == [("c", 1, 0), ("a", 0, 0)]


def test_without_a_head_that_has_an_f_nothing_is_written(engine, asked):
    ready = HEADS.prepare(engine, asked)
    heads = pd.DataFrame({"name": ["a"], "layer": [0], "head": [0], "fisher_f": [np.nan]})
    assert run_words(ready.store, ready.plan, heads, asked, MEMORY, silent).empty
    assert len(run_words(ready.store, ready.plan, heads.assign(fisher_f=1.0), asked, MEMORY, silent)) == 3


def test_a_model_that_writes_nothing_is_refused_before_it_runs(tmp_path):
    model, clips = write_model(tmp_path / "wavlm"), write_clips(tmp_path / "clips")
    silent = HeadsRequest(str(model), str(clips), device="cpu", label="prosody_label", words=N)
    with pytest.raises(InterpError, match="writes no text, so there is no answer in words"):
        HEADS.prepare(Engine(), silent)
