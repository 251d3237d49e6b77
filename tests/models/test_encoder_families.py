"""Every encoder: what is read off its forward pass is the library's, and reading it changes nothing."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.sites import Site
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.hooks import captured, edited
from tests.conftest import our_hooks
from tests.families.encoder_routes import answer, answer_from_the_start, blocks_of, module_of, names_of, seen
from tests.families.subjects import CASES, Opened
from tests.models.conftest import Open
from tests.trace.naive import gap

SPEECHT5 = ("speecht5-encoder", "speecht5-decoder")


def every_site(one: Opened) -> list[Site]:
    return [Site(kind, layer) for kind in one.subject.kinds for layer in range(one.subject.n_layers)]


def test_the_kinds_of_site_are_those_that_the_blocks_have(one: Opened) -> None:
    inside = set(names_of(one)) - ({"cross_out", "cross_head_out"} if one.case.part != "decoder" else set())
    assert set(one.subject.kinds) == {"resid_pre", "resid_post"} | inside
    assert one.subject.blocks == blocks_of(one) and one.subject.n_layers == len(blocks_of(one)) >= 2


def test_clean_logits_are_the_librarys_own_from_the_samples_on(one: Opened) -> None:
    for name in ("short", "long"):
        assert gap(one.runs[name].logits, answer_from_the_start(one, name)) < 2e-6
    assert gap(one.runs["short"].logits, one.runs["long"].logits) > 1e-3  # control: the clips are told apart


def test_capturing_at_every_site_changes_no_logit_and_leaves_nothing_behind(one: Opened) -> None:
    inputs = one.stems["long"].inputs
    expected = answer(one, inputs)
    with captured(one.subject, every_site(one), calls=list(one.subject.blocks)) as store:
        assert torch.equal(answer(one, inputs), expected)
    assert set(store.values) == set(every_site(one)) and our_hooks(one.subject) == []
    assert torch.equal(answer(one, inputs), expected)


def test_an_error_inside_the_block_leaves_no_hook_and_every_module_in_its_place(one: Opened) -> None:
    modules = dict(one.subject.hf.named_modules())
    inputs = one.stems["short"].inputs
    expected = answer(one, inputs)

    def fail(value: Tensor) -> Tensor:
        raise RuntimeError("in the middle of the attention")

    last = one.subject.n_layers - 1
    for kind in one.subject.kinds:
        with pytest.raises(RuntimeError, match="middle"), edited(one.subject, {Site(kind, last): fail}):
            answer(one, inputs)
        with pytest.raises(RuntimeError, match="middle"), captured(one.subject, every_site(one)):
            with edited(one.subject, {Site(kind, last): fail}):
                answer(one, inputs)
        assert our_hooks(one.subject) == []
    # A hook that is not ours may end the attention while WavLM's projection is out of its place.
    attention = module_of(one, "attn_out", 0) if "attn_out" in one.subject.kinds else blocks_of(one)[0]
    handle = attention.register_forward_pre_hook(lambda *_: fail(torch.zeros(0)))
    with pytest.raises(RuntimeError, match="middle"), captured(one.subject, every_site(one)):
        answer(one, inputs)
    handle.remove()
    assert dict(one.subject.hf.named_modules()) == modules
    assert torch.equal(answer(one, inputs), expected)


def test_a_site_of_another_model_is_refused_and_nothing_registered(one: Opened) -> None:
    n_layers = one.subject.n_layers
    bad = [Site("resid_post", n_layers), Site("cross_head_out" if one.case.part != "decoder" else "head_out", 0, 99)]
    for site in bad:
        with pytest.raises(InterpError, match=str(n_layers - 1) if site.head is None else "head"):
            with edited(one.subject, {Site("resid_post", 0): lambda v: v, site: lambda v: v}):
                raise AssertionError("the block is never entered")
        assert our_hooks(one.subject) == []


def recorded(one: Opened, name: str) -> dict[int, Tensor]:
    """The library's own hidden states [1, pos, width], by number of the block that they enter (n_layers: leave)."""
    inputs, hf, n = one.stems[name].inputs, one.subject.hf, one.subject.n_layers
    if one.case.family == "spoof":
        return dict(enumerate(hf(**inputs)["all_hidden_states"], 1))
    if one.case.family == "aasist":
        image, found = hf.front(**inputs), {}
        for layer, unit in enumerate(hf.blocks):
            found[layer] = image.flatten(2).transpose(1, 2)
            image = unit(image)
        return {**found, n: image.flatten(2).transpose(1, 2)}
    if one.case.family == "detector":
        return dict(
            enumerate(hf.trunk(**{"input_values": inputs["waveform"]}, output_hidden_states=True).hidden_states)
        )
    if one.case.family in ("clap", "msclap"):
        tower = getattr(hf, "audio_model", hf)
        entering = tower(**inputs, output_hidden_states=True).hidden_states
        leaving = tower.audio_encoder(
            **inputs, output_hidden_states=True, output_hidden_states_before_downsampling=True
        )
        starts = np.cumsum([0, *tower.config.depths])[:-1].tolist()
        found = dict(zip(starts, entering, strict=False)) | {n: leaving.hidden_states[-1]}
        return {layer: state.flatten(2).transpose(1, 2) for layer, state in found.items()}
    hf = hf.encoder if one.case.name == "parakeet-tdt" else hf  # whose whole forward asks for words
    out = hf(**inputs, output_hidden_states=True)
    if one.case.family == "resnet":
        starts = [0, 2, 3, 4, 6]  # stages of 2, 1, 1 and 2 units
        return {la: m.flatten(2).transpose(1, 2) for la, m in zip(starts, out.hidden_states, strict=True)}
    states = getattr(out, f"{one.case.part}_hidden_states" if one.case.part else "hidden_states")
    assert len(states) == n + 1
    return dict(enumerate(states))


def behind_seamless(one: Opened) -> Callable[[Tensor], Tensor]:
    """What the library's speech encoder does behind its blocks, written out."""

    def behind(hidden: Tensor) -> Tensor:
        heard = one.subject.hf.speech_encoder
        state = heard.encoder.layer_norm(hidden)
        state = state + 0.5 * heard.intermediate_ffn(state)
        return heard.inner_layer_norm(heard.adapter(state, attention_mask=None))

    return behind


@torch.inference_mode()
def test_the_residual_stream_is_the_librarys_hidden_states(one: Opened) -> None:
    run, n = one.runs["long"], one.subject.n_layers
    states = recorded(one, "long")
    # Their last entry has been through the final norm, of SeamlessM4T's encoder through all that is behind its blocks.
    normed_last = one.case.part and one.case.name not in ("canary-encoder", "cohere-encoder", *SPEECHT5)
    normed_last = normed_last or one.case.family == "whisper"
    for point, state in states.items():
        if not (normed_last and point == n):
            assert torch.equal(run.resid[point], state[0]), point
            assert point == n or torch.equal(run.at("resid_pre", point), state[0])
            if point > 0 and one.case.family not in ("clap", "msclap"):
                assert torch.equal(run.at("resid_post", point - 1), state[0])
    if normed_last:
        stack = one.subject.hf.model if hasattr(one.subject.hf, "model") else one.subject.hf
        newer = ("moonshine", "streaming", "canary", "cohere")
        own = "norm" if one.case.part == "decoder" and one.case.family in newer else "layer_norm"
        own = "final_norm" if one.case.name == "streaming-encoder" else own
        norm = {"seamless2-encoder": behind_seamless(one), "seamless-encoder": behind_seamless(one)}.get(one.case.name)
        parts = {"seamless": "text_decoder", "seamless2": "text_decoder"}
        norm = norm or stack.get_submodule(f"{parts.get(one.case.family, one.case.part) or 'encoder'}.{own}")
        left = norm(run.resid[n][None])[0]
        if one.case.name == "streaming-encoder":  # whose decoder adds its positions to the encoder's output in place
            left = left + one.subject.hf.model.decoder.pos_emb.weight[: len(left)]
        assert left.shape != run.resid[n].shape or gap(run.resid[n], states[n][0]) > 1e-2
        assert torch.equal(left, states[n][0])
    assert torch.equal(run.at("resid_post", -1), one.stems["long"].embeds)


@pytest.mark.parametrize("name", [name for name in CASES if "clap" in name])
@torch.inference_mode()
def test_between_claps_stages_a_block_leaves_what_the_downsampling_takes(name: str, open_once: Open) -> None:
    one = open_once(name)
    run, subject = one.runs["long"], one.subject
    tower = getattr(subject.hf, "audio_model", subject.hf)
    sides = [16, 8, 4, 2]
    ends = np.cumsum(tower.config.depths) - 1
    for stage, (end, side) in enumerate(zip(ends[:-1].tolist(), sides, strict=False)):
        left = run.at("resid_post", end)
        assert left.shape[0] == side**2 and run.resid[end + 1].shape[0] == side**2 // 4
        merged = tower.audio_encoder.layers[stage].downsample(left[None], (side, side))
        assert torch.equal(merged[0], run.resid[end + 1])
    assert sorted(subject.merges_after) == ends[:-1].tolist()


@torch.inference_mode()
def test_what_is_kept_is_what_plain_hooks_see_and_heads_and_neurons_project_to_what_is_added(one: Opened) -> None:
    run, kinds = one.runs["long"], one.subject.kinds
    layers = range(one.subject.n_layers)
    for kind in kinds:
        folded = kind == "head_out" and "wavlm" in one.case.name
        found = {} if folded else seen(one, one.stems["long"].inputs, kind, layers)
        for layer, value in found.items():
            rows = value.flatten(2).transpose(1, 2) if value.ndim == 4 else value.flatten(0, 1)[None]
            assert torch.equal(run.at(kind, layer), rows[0]), (kind, layer)
    pairs = (("head_out", "attn_out"), ("mlp_act", "mlp_out"), ("cross_head_out", "cross_out"))
    for inner, outer in pairs:
        for layer in layers if inner in kinds else ():
            project = module_of(one, inner, layer)
            assert gap(project(run.at(inner, layer)), run.at(outer, layer)) < 1e-6
            assert gap(project(run.at(inner, layer).roll(1, -1)), run.at(outer, layer)) > 1e-3  # control: in order


def isinstance_of_wavlm(one: Opened) -> bool:
    return "wavlm" in one.case.name


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("resnet", "aasist")])
@torch.inference_mode()
def test_what_attention_and_mlp_add_makes_the_next_residual_stream(name: str, open_once: Open) -> None:
    one = open_once(name)
    run, subject = one.runs["long"], one.subject
    for layer, block in enumerate(blocks_of(one)):
        before, after = run.at("resid_pre", layer), run.at("resid_post", layer)
        attn, mlp = run.at("attn_out", layer), run.at("mlp_out", layer)
        if one.case.family in ("clap", "msclap"):
            attn = on_the_grid(attn, side=round(len(before) ** 0.5), window=2, odd=is_odd(one, layer))
        added = attn + (run.at("cross_out", layer) if "cross_out" in subject.kinds else 0)
        if hasattr(block, "feed_forward1"):
            between = before + 0.5 * block.feed_forward1(block.norm_feed_forward1(before)) + added
            between = between + block.conv(block.norm_conv(between)[None])[0]
            expected = block.norm_out(between + 0.5 * mlp)
        elif hasattr(block, "ffn1"):
            first = before + 0.5 * block.ffn1(block.ffn1_layer_norm(before)) + added
            between = first + block.conv_module(first[None])[0]
            expected = block.final_layer_norm(between + 0.5 * mlp)
        elif one.case.family == "sewd":
            between = block.attention.output.LayerNorm(before + added)
            expected = block.output.LayerNorm(between + mlp)
        elif one.case.name == "speecht5-decoder":
            between = block.self_attn_layer_norm(before + attn)
            between = block.encoder_attn_layer_norm(between + run.at("cross_out", layer))
            expected = block.final_layer_norm(between + mlp)
        elif hasattr(block, "feed_forward") and not getattr(subject.config, "do_stable_layer_norm", False):
            between = block.layer_norm(before + added)
            expected = block.final_layer_norm(between + mlp)
        else:
            between = before + added
            expected = between + mlp
        assert gap(run.at("resid_mid", layer), between) < 1e-6, layer
        assert gap(after, expected) < 1e-6, layer


def is_odd(one: Opened, layer: int) -> bool:
    for depth in one.subject.sizes.depths:
        if layer < depth:
            return layer % 2 == 1
        layer -= depth
    raise AssertionError


def on_the_grid(windows: Tensor, side: int, window: int, odd: bool) -> Tensor:
    """Put a block's windows, one behind the other, back where they were cut from: token by token."""
    width = min(window, side)
    shift = window // 2 if odd and side > window else 0
    out = torch.empty_like(windows)
    for i, token in enumerate(windows):
        which, inside = divmod(i, width * width)
        row = which // (side // width) * width + inside // width
        column = which % (side // width) * width + inside % width
        out[(row + shift) % side * side + (column + shift) % side] = token
    return out


def test_a_batch_of_equally_long_clips_equals_singles_and_unequal_ones_are_refused(one: Opened) -> None:
    subject, names = one.subject, ["twin", "short"]
    batch = clean_runs(subject, [one.stems[name] for name in names], subject.kinds)
    for name, run in zip(names, batch, strict=True):
        single = one.runs[name]
        assert run.prompted is one.stems[name]
        assert gap(run.logits, single.logits) < 1e-5
        for point, state in enumerate(run.resid):
            assert gap(state, single.resid[point]) < 5e-5
        for kind in set(subject.kinds) - {"resid_pre", "resid_post"}:
            for layer in range(subject.n_layers):
                assert gap(run.at(kind, layer), single.at(kind, layer)) < 5e-5
    assert gap(batch[0].logits, batch[1].logits) > 1e-4  # control: each row its own clip
    lengths = {tuple(stem.inputs[key].shape) for stem in one.stems.values() for key in list(stem.inputs)[:1]}
    if len(lengths) > 1:
        with pytest.raises(InterpError, match="takes clips of one length in a batch, got 2 unlike ones"):
            clean_runs(subject, [one.stems["short"], one.stems["long"]])
    else:  # the front end makes all clips equally long
        assert (
            gap(clean_runs(subject, [one.stems["long"], one.stems["short"]])[0].logits, one.runs["long"].logits) < 1e-5
        )


def test_a_stem_names_clip_and_prompt_and_a_subject_its_weights_probe_and_part(one: Opened) -> None:
    stems = {one.stems[name].key for name in one.stems}
    assert len(stems) == 3
    again = prompt_clip(one.subject, one.samples["short"], one.prompt, "other name")
    assert again.key == one.stems["short"].key and torch.equal(again.embeds, one.stems["short"].embeds)
    assert one.subject.weights_hash[:16] in one.subject.key and "float32|cpu" in one.subject.key
    assert ("probe" in one.subject.key) == (one.case.reads == "probe")
    assert ("decoder" in one.subject.key) == (one.case.part == "decoder")
