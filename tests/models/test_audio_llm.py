"""The audio span and the readout of a prompt, and where a model's parts are."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.arch import SITE_MODULES
from interp_core.models.audio_llms.subject import AudioLLM, expanded_ids
from interp_core.sites import KINDS, STAGES, Site
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.sweep import sweep
from tests.conftest import Build
from tests.tiny import tone
from tests.trace.cases import every_layer, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap, plain_logits


def ids_with(subject: AudioLLM, *runs: int) -> Tensor:
    """Return ids in which runs of the audio token of these lengths stand between other tokens."""
    pieces = [torch.tensor([7, 8])]
    for length in runs:
        pieces += [torch.full((length,), subject.audio_token_id), torch.tensor([9])]
    return torch.cat(pieces)


def test_the_span_is_the_one_run_of_audio_tokens(tiny: AudioLLM) -> None:
    for length in (1, 2, 40):
        assert tiny.audio_span(ids_with(tiny, length), "a") == (2, 2 + length)


def test_two_spans_or_none_are_refused_by_the_clips_name(tiny: AudioLLM) -> None:
    with pytest.raises(InterpError, match=r"clip 's03' has 2 audio spans \(positions 2-4 and 6-6\); .* keep one"):
        tiny.audio_span(ids_with(tiny, 3, 1), "s03")
    with pytest.raises(InterpError, match=r"3 audio spans \(positions 2-2 and 4-4 and 6-7\)"):
        tiny.audio_span(ids_with(tiny, 1, 1, 2), "s03")
    with pytest.raises(InterpError, match="clip 's03' has no audio position"):
        tiny.audio_span(ids_with(tiny), "s03")


def test_a_prompt_that_is_empty_or_brings_a_second_marker_is_refused_before_anything_runs(tiny: AudioLLM) -> None:
    tiny.check_prompt(PROMPT)
    for prompt in ("", " \n "):
        with pytest.raises(InterpError, match="the prompt is empty; write the question"):
            tiny.check_prompt(prompt)
    with pytest.raises(InterpError, match=r"gives 2 audio spans; .* leave <\|AUDIO\|> out of the prompt"):
        tiny.check_prompt("And <|AUDIO|>? " + PROMPT)
    assert tiny.chat_text(PROMPT).count("<|AUDIO|>") == 1 and PROMPT in tiny.chat_text(PROMPT)


@pytest.mark.parametrize("seconds", [0.01, 0.0])
def test_a_clip_too_short_for_a_token_is_one_sentence(tiny: AudioLLM, seconds: float) -> None:
    with pytest.raises(InterpError, match="clip 'blip' .*(no audio position|empty|too short)"):
        prompt_clip(tiny, tone(seconds, 300), PROMPT, "blip")


def test_a_clip_of_one_token_takes_the_models_own_merge_and_reads_out_at_the_end(tiny: AudioLLM, monkeypatch) -> None:
    decoder, seen = tiny.hf.model, []
    merge = type(decoder)._merge_input_ids_with_audio_features
    monkeypatch.setattr(
        decoder, "_merge_input_ids_with_audio_features", lambda *a, **k: seen.append(1) or merge(decoder, *a, **k)
    )
    prompted = prompt_clip(tiny, tone(0.05, 300), PROMPT, "blip")
    assert seen, "control: the library took its legacy path"
    start, stop = prompted.audio
    assert stop - start == 1 and prompted.n_pos == len(prompted.token_ids) == prompted.inputs["input_ids"].shape[1]
    run = clean_runs(tiny, [prompted])[0]
    assert gap(run.logits, plain_logits(tiny.hf, prompted.inputs)) < 1e-5


class OnePlaceholder(AudioLLM):
    """A model whose processor leaves one placeholder, which the library's forward expands, as older folders do."""

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        inputs = super().model_inputs(samples, prompt)
        ids = inputs["input_ids"][0]
        audio = (ids == self.audio_token_id).nonzero().flatten()
        keep = torch.ones(len(ids), dtype=torch.bool)
        keep[audio[1:]] = False
        return {**inputs, "input_ids": ids[keep][None], "attention_mask": inputs["attention_mask"][:, keep]}


def legacy(subject: AudioLLM) -> OnePlaceholder:
    return OnePlaceholder(
        name="legacy", weights_hash="0", hf=subject.hf, arch=subject.arch, processor=subject.processor
    )


def test_an_unexpanded_placeholder_gives_the_span_readout_and_sweep_of_an_expanded_one(tiny: AudioLLM) -> None:
    old = legacy(tiny)
    clips = {"a": tone(0.8, 350), "b": tone(1.2, 500)}
    new_runs = clean_runs(tiny, [prompt_clip(tiny, samples, PROMPT, name) for name, samples in clips.items()])
    old_runs = clean_runs(old, [prompt_clip(old, samples, PROMPT, name) for name, samples in clips.items()])
    for new, run in zip(new_runs, old_runs, strict=True):
        assert run.prompted.inputs["input_ids"].shape[1] == run.prompted.n_pos - (new.prompted.audio[1] - 21)
        assert run.prompted.audio == new.prompted.audio
        assert torch.equal(run.prompted.token_ids, new.prompted.token_ids)
        assert gap(run.prompted.embeds, new.prompted.embeds) < 1e-6
        assert gap(run.logits, new.logits) < 1e-5
        about = old.describe(run.prompted)
        assert about["readout_position"] == run.prompted.n_pos - 1 != run.prompted.inputs["input_ids"].shape[1] - 1
    labels = whole_vocabulary(new_runs[0])
    expected = sweep(tiny, [truncated(*new_runs)], labels, every_layer(tiny), method="reference").label_logits
    for method in ("fast", "wavefront", "reference"):
        found = sweep(old, [truncated(*old_runs)], labels, every_layer(old), method=method).label_logits
        assert gap(found, expected) < 1e-4, method


def test_an_expansion_that_cannot_be_followed_is_refused(tiny: AudioLLM) -> None:
    ids = ids_with(tiny, 1, 1)
    with pytest.raises(InterpError, match="made 9 positions out of 6 tokens with 2 audio markers"):
        expanded_ids(tiny, {"input_ids": ids[None]}, torch.zeros(9, 4))
    with pytest.raises(InterpError, match="made 3 positions out of 4 tokens with 1 audio markers"):
        expanded_ids(tiny, {"input_ids": ids_with(tiny, 1)[None]}, torch.zeros(3, 4))
    one = ids_with(tiny, 1)
    assert expanded_ids(tiny, {"input_ids": one[None]}, torch.zeros(6, 4)).tolist() == ids_with(tiny, 3).tolist()


def test_the_span_is_described_with_the_tokens_around_it(tiny: AudioLLM) -> None:
    prompted = prompt_clip(tiny, tone(0.8, 350), PROMPT, "a")
    about = tiny.describe(prompted)
    assert about["tokens_in_span"] == ["<|AUDIO|>"] and about["audio_positions"] == 20
    assert about["tokens_before"][-1] == "<|audio_bos|>" and about["tokens_after"][0] == "<|audio_eos|>"
    assert about["audio_seconds"] == pytest.approx(0.8, abs=0.05)
    assert about["readout_position"] == prompted.n_pos - 1 and about["readout_token"] == "Ċ"


def test_the_table_leads_to_modules_of_the_right_kind_and_width(tiny: AudioLLM) -> None:
    block = tiny.blocks[2]
    expected = {
        "resid_pre": (block, "input"),
        "resid_post": (block, "output"),
        "attn_out": (block.self_attn, "output"),
        "head_out": (block.self_attn.o_proj, "input"),
        "mlp_out": (block.mlp, "output"),
        "mlp_act": (block.mlp.down_proj, "input"),
        "resid_mid": (block.post_attention_layernorm, "input"),
    }
    assert set(SITE_MODULES) == set(KINDS) - set(STAGES)
    assert set(tiny.kinds) == set(expected) == set(SITE_MODULES) - {"cross_out", "cross_head_out"}
    with pytest.raises(InterpError, match="has no cross_out .its sites: resid_pre, resid_post, "):
        tiny.locate(Site("cross_out", 2))
    for kind, (module, side) in expected.items():
        found = tiny.locate(Site(kind, 2))
        assert found[0] is module and found[1] == side
    assert tiny.locate(Site("resid_post", 1))[0] is not block


def test_the_shortcut_is_refused_by_what_makes_keys_depend_on_more_than_the_position(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = build()
    assert subject.shortcut_refusal() is None
    for field, value, words in (
        ("layer_types", ["full_attention", "sliding_attention"], "some layers use sliding_attention"),
        ("num_kv_shared_layers", 2, "keys and values are shared across layers"),
        ("_attn_implementation_internal", "flash_attention_2", "'flash_attention_2' takes no explicit mask"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(subject.sizes, field, value, raising=False)
            assert re.search(words, subject.shortcut_refusal() or "")
    with monkeypatch.context() as patched:
        patched.setattr(subject, "arch", replace(subject.arch, causal=False))
        assert subject.shortcut_refusal() == "attention is not causal"
