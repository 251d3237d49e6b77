"""The answer in words with a vector added: the library's own text under a plain hook, an audio LLM's and Whisper's."""

from dataclasses import replace

import pytest
import torch

from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.steering.by_hand import answer_steered
from interp_core.experiments.steering.experiment import STEERING
from interp_core.experiments.steering.request import SteerRequest
from tests.experiments.conftest import PROMPTS
from tests.experiments.neuron_clips import write_clips, write_model
from tests.experiments.plain_loop import PlainLoop
from tests.families.encoders import save_whisper
from tests.models.test_writing import blocks_of, cut, plain_hook

N, LAYER = 8, 1


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


def adding(vector, inside, during, *, encoder=False):
    """The library runs the encoder more than once, each time on the whole recording."""

    def change(value, call):
        if call and during == "prefill" and not encoder:
            return None
        value = value.clone()
        value[0, inside if encoder or not call else slice(None)] += vector
        return value

    return change


@pytest.mark.parametrize("positions", ["audio", "last"])
def test_a_steered_text_is_the_librarys_and_at_alpha_0_the_clips_own(engine, tiny_folder, clips, positions):
    asked = SteerRequest(
        str(tiny_folder), str(clips), device="cpu", labels=("neutral", "happy"), prompts=PROMPTS[:1], layers=(LAYER,),
        alphas=(1.0, 4.0), controls=(), checks=False, positions=positions, pilot=4,
    )  # fmt: skip
    ready = STEERING.prepare(engine, asked)
    vectors = run(STEERING, engine, asked, ready=ready).vectors
    loop = PlainLoop(ready.store.subject, PROMPTS[0], asked.labels)
    changed = 0
    for clip in ready.plan.steered[:2]:
        start, stop, n_pos = loop.span(clip)
        inside = slice(start, stop) if positions == "audio" else slice(n_pos - 1, n_pos)

        def library(shift, during, clip=clip, inside=inside, n_pos=n_pos):
            change = adding(shift, inside, during)
            with plain_hook(loop.hf.model.language_model.layers[LAYER], change), torch.inference_mode():
                out = loop.hf.generate(**loop.inputs(clip), max_new_tokens=N, do_sample=False)[0]
            return cut(out[n_pos:].tolist(), loop.hf)

        for during in ("prefill", "all"):
            for alpha in (0.0, 30.0):
                own, steered = answer_steered(
                    engine, ready.request, vectors, clip, label="happy", layer=LAYER, alpha=alpha, n_tokens=N,
                    during=during,
                )  # fmt: skip
                assert own.tokens == library(torch.zeros(1), during)
                assert steered.tokens == library(alpha * vectors.of("happy", LAYER), during), (during, alpha)
                assert alpha or steered == own
                changed += own != steered
    assert changed, "control: the vector changes a text"


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_whispers_transcript_with_a_vector_added_is_the_librarys(engine, clips, tmp_path, part, monkeypatch):
    asked = SteerRequest(
        str(save_whisper(tmp_path / "model")), str(clips), device="cpu", labels=("happy", "sad", "neutral", "angry"),
        part=part, layers=(LAYER,), alphas=(4.0,), controls=(), checks=False, pilot=2,
    )  # fmt: skip
    ready = STEERING.prepare(engine, asked)
    vectors, subject = run(STEERING, engine, asked, ready=ready).vectors, ready.store.subject
    hf, clip = subject.hf, ready.plan.steered[0]
    timestamps = range(hf.generation_config.no_timestamps_token_id, hf.config.vocab_size)
    monkeypatch.setattr(hf.generation_config, "suppress_tokens", [*range(0, 300, 7), *timestamps])
    prompted = ready.store.prompted(clip, ready.request.prompts[0])
    inside = prompted.recording.positions()
    n_asked = prompted.inputs["decoder_input_ids"].shape[1]
    assert n_asked == 4  # language and task, as the library is told them here
    block = blocks_of(hf.model, "EncoderLayer" if part == "encoder" else "DecoderLayer")[LAYER]

    def library(shift, during):
        change = adding(shift, inside, during, encoder=part == "encoder")
        with plain_hook(block, change), torch.inference_mode():
            features = prompted.inputs["input_features"]
            out = hf.generate(features, language="en", task="transcribe", max_new_tokens=N)[0].tolist()
        return cut(out[n_asked:] if out[:1] == [hf.config.decoder_start_token_id] else out, hf)

    label = vectors.labels[0]
    for during in ("prefill", "all"):
        for alpha in (0.0, 40.0):
            own, steered = answer_steered(
                engine, ready.request, vectors, clip, label=label, layer=LAYER, alpha=alpha, n_tokens=N, during=during
            )
            assert own.tokens == library(torch.zeros(1), during)
            assert steered.tokens == library(alpha * vectors.of(label, LAYER), during), (during, alpha)
        assert steered != own, "control"


def test_a_model_that_writes_nothing_says_so(engine, clips, tmp_path):
    asked = SteerRequest(str(write_model(tmp_path / "model")), str(clips), device="cpu", layers=(LAYER,), pilot=2)
    asked = replace(asked, controls=(), checks=False)
    ready = STEERING.prepare(engine, asked)
    vectors = run(STEERING, engine, asked, ready=ready).vectors
    with pytest.raises(InterpError, match="writes no text, so there is no answer in words"):
        answer_steered(
            engine, ready.request, vectors, ready.plan.steered[0], label=vectors.labels[0], layer=LAYER, alpha=1.0,
            n_tokens=N,
        )  # fmt: skip


@pytest.mark.parametrize("during", ["prefill", "all"])
def test_a_run_writes_the_answers_of_its_first_clips_and_reads_them_back(engine, tiny_folder, clips, tmp_path, during):
    asked = SteerRequest(
        str(tiny_folder), str(clips), device="cpu", labels=("neutral", "happy"), prompts=PROMPTS[:1], layers=(0, LAYER),
        alphas=(1.0, 8.0), controls=(), checks=False, pilot=4, words=N, word_clips=2, during=during,
    )  # fmt: skip
    ready = STEERING.prepare(engine, asked)
    made = run(STEERING, engine, asked, out=tmp_path / "run", ready=ready)
    table = made.answers
    expected = [
        (clip.clip_id, label, layer, 8.0)
        for clip in ready.plan.steered[:2]
        for label in ready.plan.targets
        for layer in (0, LAYER)
    ]
    assert list(zip(table.clip_id, table.label, table.layer, table.alpha, strict=True)) == expected
    for row in table.to_dict("records"):
        (clip,) = [clip for clip in ready.plan.steered if clip.clip_id == row["clip_id"]]
        own, steered = answer_steered(
            engine, ready.request, made.vectors, clip, label=row["label"], layer=row["layer"], alpha=8.0, n_tokens=N,
            during=during,
        )  # fmt: skip
        assert (row["answer"], row["answer_edited"]) == (own.text, steered.text)
        assert row["changed"] == (own.tokens != steered.tokens)
    again = open_result(STEERING, tmp_path / "run")
    assert again.answers.to_dict("records") == table.to_dict("records") and "answers" in again.tables()
    assert (tmp_path / "run" / "answers.csv").is_file()
    said = [one for one in STEERING.summary(again) if one.startswith("in words, label ")]
    assert len(said) == 2 and "of 4 texts of 2 clips change" in said[0]
    assert f"up to {N} tokens in words of 2 clips" in str(STEERING.cost(ready))


def test_settings_of_answers_that_are_not_written_are_refused(tiny_folder, clips):
    for change in ({"word_clips": 2}, {"during": "all"}):
        with pytest.raises(InterpError, match="means nothing without --words"):
            SteerRequest(str(tiny_folder), str(clips), **change).check()
