"""Where the recording stands among the positions, and which clips share a batch: one answer for every experiment."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from interp_core.experiments.clips import ClipReader, collect, plan_batches
from interp_core.experiments.compare.passes import batches, one_frame, time_mean
from interp_core.experiments.heads.capture import capture
from interp_core.experiments.signflip.layers import LayerStates
from interp_core.models.load import open_model
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.clean import prompt_clip
from interp_core.trace.hooks import captured, edited
from tests.experiments.heads_cases import store_of, write_clips
from tests.families.encoders import save_ast, save_clap, save_wavlm, save_whisper_classifier
from tests.families.subjects import CASES, all_logits
from tests.tiny import save_qwen2_audio

QUESTION = "What is this?"
SHORT, LONG = 0.15, 0.22  # seconds; spoof models fill clips up to 0.25 s
# name -> (writer of a model, whether something beside the recording stands among the positions)
MODELS: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "whisper": (save_whisper_classifier, True),
    "ast": (save_ast, True),
    "wavlm": (save_wavlm, False),
    "spoof": (CASES["spoof-wavlm-erm"].write, True),
    "qwen2_audio": (save_qwen2_audio, True),
    "clap": (save_clap, False),
}


def open_tiny(name: str, folder: Path) -> tuple[Subject, str]:
    subject = open_model(str(MODELS[name][0](folder)), device="cpu")
    return subject, QUESTION if name == "qwen2_audio" else subject.default_prompts[0]


def plainly(subject: Subject, inputs: dict[str, Tensor], layer: int) -> Tensor:
    """[pos, width] that a block leaves in the library's own forward, by a hook of torch's."""
    seen: list[Tensor] = []

    def hook(module, args, output):
        seen.append((output[0] if isinstance(output, tuple) else output)[0])

    handle = subject.blocks[layer].register_forward_hook(hook)
    try:
        with torch.inference_mode():
            subject.forward(inputs)
    finally:
        handle.remove()
    return seen[0].double()


@pytest.mark.parametrize("name", MODELS)
def test_every_experiment_averages_the_recording_alone_and_what_plain_hooks_show_there(name: str, tmp_path: Path):
    subject, prompt = open_tiny(name, tmp_path / "model")
    clips = write_clips(
        tmp_path / "clips", ["hiss", "hum", "tone"], seconds=(SHORT, LONG, SHORT), rate=subject.sample_rate
    )
    store = store_of(subject)
    reader = ClipReader(store, prompt)
    vectors = capture(store, clips, prompt, batch_size=3)
    site = next(site for site in vectors.at if site.kind == "resid_post")
    width = reader.answer([reader.ready(clips[0])]).shape[1]
    features = collect(reader, clips, site, all_logits(torch.zeros(1, min(width, 3)))).features
    means, frames = {}, {}
    shares = (0.0, 0.5, 0.999)
    for batch in batches(store, store, clips, prompt, plan_batches([reader, reader], clips, 3)):
        with torch.inference_mode(), captured(subject, [site]) as seen:
            batch.base.forward()
        of_batch = [shares[row] for row in batch.rows]
        means |= zip(batch.rows, time_mean(batch.base, site, seen[site]), strict=True)
        frames |= zip(batch.rows, one_frame(batch.base, site, seen[site], of_batch), strict=True)
    for row, clip in enumerate(clips):
        samples = store.samples(clip)
        states = plainly(subject, subject.model_inputs(samples, prompt), site.layer)
        (start, stop), (bands, stride) = (
            (found := prompt_clip(subject, samples, prompt, clip.clip_id)).audio,
            found.bands,
        )
        at = [band * stride + i for band in range(bands) for i in range(start, stop)]
        at = list(range(len(states))) if subject.whole_only else at  # blocks of CLAP merge positions on the way
        expected, size = states[at].mean(0).numpy(), float(states.abs().max())
        for experiment, mean in (("heads", vectors.at[site][row]), ("neurons", features[row]), ("compare", means[row])):
            assert np.abs(np.asarray(mean) - expected).max() < 1e-5 * size, experiment
        one = states[at[min(int(shares[row] * len(at)), len(at) - 1)]].numpy()
        assert np.abs(frames[row] - one).max() < 1e-5 * size
        if subject.timed:
            with torch.inference_mode():
                layers = LayerStates(reader, reader.ready(clip), all_logits(torch.zeros(1, min(width, 3))))
                ours = layers.frames(layers.states[site.layer]).double().mean(0).numpy()
            assert np.abs(ours - expected).max() < 1e-5 * size
        # Control: the other positions would move the mean, where there are any.
        beside = np.abs(states.mean(0).numpy() - expected).max()
        assert (beside > 1e-3 * size) == MODELS[name][1], beside / size


def test_a_plan_hangs_on_the_clips_alone_and_each_of_its_batches_can_be_made_ready_by_itself(tmp_path: Path):
    subject, _ = open_tiny("wavlm", tmp_path / "model")
    lengths = (0.15, 0.2, 0.15, 0.25, 0.2)
    clips = write_clips(tmp_path / "clips", ["hiss", "hum"] * 6, seconds=lengths, rate=subject.sample_rate)
    reader = ClipReader(store_of(subject), "")
    planned = plan_batches([reader], clips, 3)
    assert planned == plan_batches([ClipReader(store_of(subject), "")], clips, 3)
    assert planned == ((0, 2, 5), (1, 4, 6), (3, 8), (7, 10), (9, 11))
    with torch.inference_mode():
        alone = ClipReader(store_of(subject), "").batch(clips, planned[2])
        assert alone.rows == (3, 8)
        logits = [reader.batch(clips, rows).forward() for rows in planned]
        assert torch.equal(alone.forward(), logits[2])  # though none was made ready before it
        for rows, some in zip(planned, logits, strict=True):
            single = torch.cat([reader.answer([reader.ready(clips[row])]) for row in rows])
            assert torch.allclose(some, single, atol=1e-5 * float(single.abs().max()))
    # Two models: clips share a batch only where they can for both; one of one shape for all leaves the plan alone.
    other, _ = open_tiny("whisper", tmp_path / "other")
    assert plan_batches([ClipReader(store_of(other), "")], clips, 5) == ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11))
    assert plan_batches([reader, ClipReader(store_of(other), "")], clips, 3) == planned


def test_behind_a_pooling_there_is_nothing_but_the_recording(tmp_path: Path):
    subject, _ = open_tiny("spoof", tmp_path / "model")
    clips = write_clips(tmp_path / "clips", ["hiss"], seconds=(SHORT,), rate=subject.sample_rate)
    reader = ClipReader(store_of(subject), "")
    ready = reader.ready(clips[0])
    with torch.inference_mode(), captured(subject, [Site("mixed"), Site("projection")]) as seen:
        reader.answer([ready])
    n_pos = seen[Site("mixed")].shape[1]
    assert 1 < int(reader.inside(ready, Site("mixed"), n_pos).sum()) < n_pos
    assert reader.inside(ready, Site("projection"), seen[Site("projection")].shape[1]).tolist() == [True]


@pytest.mark.parametrize("name", ["wavlm", "qwen2_audio"])
def test_a_plain_pass_waits_while_another_thread_edits_the_model(name: str, tmp_path: Path):
    """As the cost of a run, which a page asks for, meets a job on the same model."""
    subject, prompt = open_tiny(name, tmp_path / "model")
    (clip,) = write_clips(tmp_path / "clips", ["hum"], seconds=(SHORT,), rate=subject.sample_rate)
    reader = ClipReader(store_of(subject), prompt)
    ready = reader.ready(clip)
    answers: list[Tensor] = []

    def ask() -> None:
        with torch.inference_mode():
            answers.append(reader.answer([ready]))

    other = threading.Thread(target=ask)
    with torch.inference_mode(), edited(subject, {Site("resid_post", 0): torch.zeros_like}):
        other.start()
        other.join(0.3)
        assert other.is_alive() and not answers
        muted = reader.answer([ready])
    other.join(30)
    ask()
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], muted)
