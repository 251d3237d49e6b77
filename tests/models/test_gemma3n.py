"""Gemma 3n: opened without the tower that sees, four streams between blocks, and shapes of its sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp_core.errors import InterpError
from interp_core.models.audio_llms.gemma3n import Gemma3n
from interp_core.models.load import open_model
from interp_core.sites import Kind, Site
from interp_core.trace.clean import CleanRun, prompt_clip
from interp_core.trace.hooks import captured, edited
from interp_core.trace.patch import SiteSpec
from tests.models.conftest import OpenFamily, Runs, clip_for
from tests.models.test_gemma import runs_of, swept
from tests.tiny_gemma3n import library_model, save_gemma3n
from tests.trace.cases import every_layer, everywhere, truncated
from tests.trace.naive import PROMPT, gap

SHAPES: dict[str, dict[str, Any]] = {
    "nothing shared": {"num_kv_shared_layers": 0},
    "two streams, the second one active": {"altup_num_inputs": 2, "altup_active_idx": 1},
    "no scale, no silent neurons": {"altup_correct_scale": False, "activation_sparsity_pattern": [0.0] * 5},
}


def opened_from(folder: Path, dtype: str = "float32") -> Gemma3n:
    subject = open_model(str(folder), device="cpu", dtype=dtype)
    assert isinstance(subject, Gemma3n)
    return subject


@torch.inference_mode()
def test_it_answers_as_the_librarys_whole_model_and_opens_without_the_tower_that_sees(tmp_path: Path) -> None:
    folder = save_gemma3n(tmp_path / "model")
    subject, whole = opened_from(folder), library_model(folder)
    sees = {name for name in load_file(folder / "model.safetensors") if "vision_tower" in name}
    assert sees and not any("vision_tower" in name for name, _ in subject.hf.named_modules())
    stems = [prompt_clip(subject, clip_for(subject, seconds, 300), PROMPT, "a") for seconds in (0.4, 1.1)]
    for stem in stems:
        made = whole(**stem.inputs, use_cache=False, output_hidden_states=True)
        assert gap(subject.forward(stem.inputs)[0], made.logits[0, -1]) < 1e-5
        behind = whole.model.language_model(
            inputs_embeds=stem.embeds[None], per_layer_inputs=stem.beside["per_layer_inputs"][None]
        ).last_hidden_state
        with captured(subject, [Site("resid_post", 4)]) as store:
            subject.forward(stem.inputs)
        last = store[Site("resid_post", 4)]
        assert last.shape == (1, stem.n_pos, 4 * 32) and gap(subject.normed(last), behind) < 1e-5
    assert gap(stems[0].embeds[:40], stems[1].embeds[:40]) > 0.1  # control: the two are heard


def test_without_the_weights_of_hearing_it_is_refused_and_without_those_of_sight_it_opens(tmp_path: Path) -> None:
    folder = save_gemma3n(tmp_path / "model")
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if "vision_tower" not in k}, path, metadata={"format": "pt"})
    assert opened_from(folder).n_layers == 5
    save_file({k: v for k, v in weights.items() if "audio_tower" not in k}, path, metadata={"format": "pt"})
    with pytest.raises(InterpError, match="audio_tower"):
        open_model(str(folder), device="cpu")


def test_the_text_begins_once_though_template_and_tokenizer_both_begin_it(opened: OpenFamily) -> None:
    subject = opened("gemma3n")
    assert subject.tokenizer("a").input_ids[0] == subject.tokenizer.bos_token_id
    assert subject.chat_text(PROMPT).startswith("<bos>")
    ids = subject.model_inputs(clip_for(subject, 0.5, 300), PROMPT)["input_ids"][0].tolist()
    assert ids.count(subject.tokenizer.bos_token_id) == 1 and ids[0] == subject.tokenizer.bos_token_id


def test_a_position_is_all_of_its_streams_and_the_first_one_alone_is_not_the_donor(
    opened: OpenFamily, runs_of_family: Any
) -> None:
    subject, runs = opened("gemma3n"), runs_of_family("gemma3n")
    own, donor = runs["middle"], runs["twin"]
    whole, last = everywhere(own, donor), subject.n_layers - 1
    spec = SiteSpec("resid_post", layers=(last,))
    assert gap(swept(subject, [whole], spec, "fast")[0, 0], donor.logits) < 1e-5
    for streams in (1, 3):
        only = slice(streams * 32)

        def put(value: torch.Tensor, only: slice = only) -> torch.Tensor:
            value = value.clone()
            value[0, :, only] = donor.resid[-1][:, only]
            return value

        with torch.inference_mode(), edited(subject, {Site("resid_post", last): put}):
            assert gap(subject.forward(own.prompted.inputs)[0], donor.logits) > 1e-2, streams


def test_why_there_is_no_shortcut_and_what_nothing_reads_are_said(opened: OpenFamily) -> None:
    subject = opened("gemma3n")
    assert "further vector of every position" in str(subject.shortcut_refusal())
    (note,) = subject.unread_notes()
    assert "layers 3 to 4 read keys and values of earlier ones" in note
    assert {subject.d_model, subject.d_head} == {128, 8}


def agrees(subject: Gemma3n, runs: list[CleanRun]) -> None:
    short, middle, long = runs
    patches = [truncated(short, long), truncated(long, middle, 0.5)]
    kinds: tuple[Kind, ...] = ("resid_post", "head_out", "mlp_act", "resid_mid")
    for kind in kinds:
        spec = every_layer(subject) if kind == "resid_post" else SiteSpec(kind, layers=tuple(range(subject.n_layers)))
        reference = swept(subject, patches, spec, "reference")
        assert gap(swept(subject, patches, spec, "fast"), reference) < 1e-4, kind
        assert gap(reference[0, 1], short.logits) > 1e-3  # control: the edit does something


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_patched_as_its_own_forward_would_be(shape: str, tmp_path: Path) -> None:
    folder = save_gemma3n(tmp_path / "model", text=SHAPES[shape])
    subject = opened_from(folder)
    runs = runs_of(subject)
    with torch.inference_mode():
        made = library_model(folder)(**runs[2].prompted.inputs, use_cache=False).logits[0, -1]
    assert gap(runs[2].logits, made) < 1e-5
    agrees(subject, runs)


def test_in_bfloat16_routes_agree_within_its_rounding(tmp_path: Path) -> None:
    subject = opened_from(save_gemma3n(tmp_path / "model"), "bfloat16")
    short, _, long = runs_of(subject)
    patch, spec = truncated(short, long), every_layer(subject)
    reference = swept(subject, [patch], spec, "reference")
    moved = (reference[0] - short.logits).abs().max()
    assert (swept(subject, [patch], spec, "fast") - reference).abs().max() < 0.1 * moved


def test_clips_are_heard_as_far_as_the_positions_go(opened: OpenFamily, runs_of_family: Any) -> None:
    subject, runs = opened("gemma3n"), runs_of_family("gemma3n")
    assert subject.seconds_per_position() == pytest.approx(0.16) and subject.max_seconds == pytest.approx(34 * 0.16)
    found: Runs = runs
    heard = {name: run.prompted.audio[1] - run.prompted.audio[0] for name, run in found.items()}
    assert heard == {"short": 3, "middle": 5, "long": 8, "twin": 5}
    pads = found["short"].prompted
    start, stop = pads.audio
    filled = pads.embeds[stop : start + 34]  # one and the same vector where nothing is heard
    assert gap(filled, filled[:1].expand_as(filled)) < 1e-6 and gap(pads.embeds[stop - 1], filled[0]) > 1e-2
