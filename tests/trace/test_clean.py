"""Clean runs: batches equal singles, keys equal the library's cache, the lens reads what a norm and a head would."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from interp_core.cache import ByteCache
from interp_core.data.clips import Clip, ClipLimits, file_digest
from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.trace.clean import clean_runs, logit_lens, prompt_clip
from interp_core.trace.store import CleanStore
from tests.conftest import Build
from tests.tiny import RATE, tone
from tests.trace.conftest import Runs, RunsOf
from tests.trace.naive import PROMPT, gap, plain_logits, states

VARIANTS = {
    "sdpa": {},
    "eager": {"attention": "eager"},
    "kv heads = heads": {"n_kv_heads": 4},
    "double": {"dtype": "float64"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_clean_runs_in_a_ragged_batch_equal_singles_and_the_librarys_own_forward(
    build: Build, runs_of: RunsOf, variant: str
) -> None:
    subject = build(**VARIANTS[variant])
    singles, close = runs_of(subject), 1e-6 if variant == "double" else 5e-5
    batch = clean_runs(subject, [run.prompted for run in singles.values()], subject.kinds)
    assert len({run.prompted.n_pos for run in batch}) == 3  # ragged, so there is padding
    for run, single in zip(batch, singles.values(), strict=True):
        assert run.prompted is single.prompted
        assert gap(run.logits, plain_logits(subject.hf, run.prompted.inputs)) < close
        assert gap(single.logits, run.logits) < close
        for name in ("keys", "values"):
            assert gap(getattr(run, name), getattr(single, name)) < close
        assert gap(torch.stack(run.resid), torch.stack(single.resid)) < close
        for kind in set(subject.kinds) - {"resid_pre", "resid_post"}:
            assert gap(torch.stack(run.sites[kind]), torch.stack(single.sites[kind])) < close
    logits = [run.logits for run in batch]
    assert min(gap(logits[i], logits[j]) for i in range(4) for j in range(i)) > 0.01  # control: each row its own clip


def test_a_clean_run_holds_what_plain_hooks_see_at_every_site_and_layer(tiny: AudioLLM, runs: Runs) -> None:
    run = runs["middle"]
    for kind in tiny.kinds:
        for layer, expected in states(tiny.hf, run.prompted.inputs, kind, range(5)).items():
            assert gap(run.at(kind, layer), expected) < 1e-5
    assert torch.equal(run.at("resid_post", -1), run.prompted.embeds)
    assert torch.equal(run.at("resid_post", 1), run.at("resid_pre", 2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_kept_keys_and_values_equal_the_librarys_cache(build: Build, runs_of: RunsOf, variant: str) -> None:
    subject = build(**VARIANTS[variant])
    run = runs_of(subject)["long"]
    with torch.inference_mode():
        cache = subject.hf(**run.prompted.inputs, use_cache=True).past_key_values
    assert run.keys is not None and run.values is not None
    assert run.keys.shape == (5, subject.sizes.num_key_value_heads, run.prompted.n_pos, 12)
    for layer in range(5):
        assert gap(run.keys[layer], cache.layers[layer].keys[0]) < 1e-5
        assert gap(run.values[layer], cache.layers[layer].values[0]) < 1e-5
    turned = run.keys[:, :, :-1]  # control: a key carries its position
    assert gap(run.keys[:, :, 1:], turned) > 0.01


def test_no_clip_gives_no_run(tiny: AudioLLM) -> None:
    assert clean_runs(tiny, []) == []


def test_the_lens_reads_each_layer_through_norm_and_head_and_its_last_row_is_the_models_answer(
    tiny: AudioLLM, runs: Runs
) -> None:
    run = runs["long"]
    lens = logit_lens(tiny, run)
    assert lens.shape == (6, len(run.logits)) and lens.dtype == torch.float32
    assert gap(lens[-1], plain_logits(tiny.hf, run.prompted.inputs)) < 1e-5
    norm, head = tiny.hf.model.language_model.norm, tiny.hf.lm_head
    for row in range(6):
        state = run.resid[row][-1].double()
        root_mean_square = (state.pow(2).mean() + norm.variance_epsilon).sqrt()
        assert gap(lens[row], (head.weight.double() @ (norm.weight * state / root_mean_square)).float()) < 1e-5
        assert gap(lens[row], lens[row - 1]) > 0.01  # control: no two layers say the same


def test_the_stem_is_the_librarys_own_and_names_its_content(tiny: AudioLLM) -> None:
    samples = tone(0.8, 350)
    prompted = prompt_clip(tiny, samples, PROMPT, "a")
    with torch.inference_mode():
        embeds = tiny.hf(**prompted.inputs, output_hidden_states=True).hidden_states[0][0]
    assert torch.equal(prompted.embeds, embeds) and prompted.n_pos == len(prompted.token_ids)
    start, stop = prompted.audio
    n_mel = -(-len(samples) // 160)
    assert stop - start == ((n_mel - 1) // 2 + 1 - 2) // 2 + 1
    assert set(prompted.token_ids[start:stop].tolist()) == {tiny.audio_token_id}
    assert prompted.seconds_per_position == 0.04
    same, other_prompt, other_clip = (
        prompt_clip(tiny, s, p, "b").key
        for s, p in ((samples, PROMPT), (samples, PROMPT + " "), (np.roll(samples, 1), PROMPT))
    )
    assert prompted.key == same and len({same, other_prompt, other_clip}) == 3


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.8, 350), RATE, subtype="FLOAT")
    return Clip("a", path, {}, file_digest(path))


def test_the_store_runs_a_clip_once_a_prompt_and_set_of_sites(tiny: AudioLLM, clip: Clip, runs: Runs) -> None:
    cache = ByteCache(100_000_000)
    store = CleanStore(tiny, cache)
    first = store.run(clip, PROMPT)
    assert gap(first.logits, runs["middle"].logits) < 1e-5 and first.sites == {}
    assert store.run(clip, PROMPT) is first and store.run(clip, PROMPT, ["resid_post"]) is first
    more = store.run(clip, PROMPT, ["mlp_out", "attn_out"])
    assert set(more.sites) == {"mlp_out", "attn_out"} and more.prompted is first.prompted
    assert store.run(clip, PROMPT, ["attn_out", "mlp_out"]) is more
    assert gap(store.run(clip, "Judge the words.").logits, first.logits) > 0.01
    renamed = dataclasses.replace(clip, clip_id="b")
    assert store.run(renamed, PROMPT) is first  # keyed by content


def test_a_clip_longer_than_the_model_takes_is_refused_and_one_that_fits_is_not(tiny: AudioLLM, tmp_path: Path) -> None:
    assert tiny.max_seconds == 4.0
    store = CleanStore(tiny, ByteCache(100_000_000), ClipLimits(0.1, 30.0))
    clips = {}
    for seconds in (3.9, 4.5):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, tone(seconds, 200), RATE)
        clips[seconds] = Clip(path.stem, path, {}, file_digest(path))
    with pytest.raises(InterpError, match=r"4\.5.* s.*4"):
        store.prompted(clips[4.5], PROMPT)
    start, stop = store.prompted(clips[3.9], PROMPT).audio
    assert stop - start == 97  # 390 mel frames
    assert CleanStore(tiny, ByteCache(1), ClipLimits(0.1, 2.0)).limits.max_seconds == 2.0  # the tighter bound holds
