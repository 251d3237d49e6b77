"""Gemma 4 in the shapes of its sizes: heads of two widths, experts, half precision, and folders that cannot hear."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.load import open_model
from interp_core.sites import Kind
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import Method, sweep
from tests.families.audio_llms import FAMILIES
from tests.models.conftest import AUDIO_LLM_CLIPS, OpenFamily, clip_for
from tests.trace.cases import every_layer, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap

EXPERTS = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "two widths of heads": {"global_head_dim": 16, "head_dim": 8},
    "experts": EXPERTS,
    "global keys are values": {"attention_k_eq_v": True, "num_global_key_value_heads": 1},
    "nothing shared": {"num_kv_shared_layers": 0},
    "no further vectors, nothing shared": {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
    "pictures see both ways": {"use_bidirectional_attention": "vision"},
}


def opened_as(folder: Path, family: str = "gemma4", dtype: str = "float32", **text: Any) -> AudioLLM:
    subject = open_model(str(FAMILIES[family](folder, text=text)), device="cpu", dtype=dtype)
    assert isinstance(subject, AudioLLM)
    return subject


def runs_of(subject: AudioLLM) -> list[CleanRun]:
    """Short, middle and long."""
    sounds = {name: clip_for(subject, *AUDIO_LLM_CLIPS[name]) for name in ("short", "middle", "long")}
    stems = [prompt_clip(subject, sound, PROMPT, name) for name, sound in sounds.items()]
    return [clean_runs(subject, [stem], subject.kinds)[0] for stem in stems]


def swept(subject: AudioLLM, patches: list[Patch], spec: SiteSpec, method: Method) -> torch.Tensor:
    return sweep(subject, patches, whole_vocabulary(patches[0].recipient), spec, method=method).label_logits


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_patched_as_its_own_forward_would_be(shape: str, tmp_path: Path) -> None:
    subject = opened_as(tmp_path / "model", **SHAPES[shape])
    short, middle, long = runs_of(subject)
    with torch.inference_mode():
        for run in (short, long):
            assert gap(run.logits, subject.hf(**run.prompted.inputs, use_cache=False).logits[0, -1].float()) < 1e-5
    patches, last = [truncated(short, long), truncated(long, middle, 0.5)], subject.n_layers - 1
    assert subject.unread_from == last - (0 if "nothing shared" in shape else 2)
    kinds: tuple[Kind, ...] = ("resid_post", "head_out", "mlp_out", "mlp_act")
    for kind in kinds:
        spec = every_layer(subject) if kind == "resid_post" else SiteSpec(kind, layers=tuple(range(last + 1)))
        reference = swept(subject, patches, spec, "reference")
        assert gap(swept(subject, patches, spec, "fast"), reference) < 1e-4, kind
        for patch, rows in zip(patches, reference, strict=True):
            for layer, row in zip(spec.layers, rows, strict=True):  # what a layer makes no keys of, nothing reads
                moved = gap(row, patch.recipient.logits)
                assert moved > 1e-4 if layer < subject.unread_from else moved < 1e-5, (kind, layer)


def test_heads_of_two_widths_are_patched_at_once_and_not_one_by_one(tmp_path: Path) -> None:
    subject = opened_as(tmp_path / "model", **SHAPES["two widths of heads"])
    with pytest.raises(InterpError, match=r"has heads of widths \[8, 16\]; patch them all at once"):
        _ = subject.d_head


@pytest.mark.parametrize("family", ["gemma4", "gemma4_unified"])
def test_in_bfloat16_all_sites_are_kept_and_routes_agree_within_its_rounding(family: str, tmp_path: Path) -> None:
    subject = opened_as(tmp_path / "model", family, "bfloat16")
    short, _, long = runs_of(subject)
    patch, spec = truncated(short, long), every_layer(subject)
    reference = swept(subject, [patch], spec, "reference")
    moved = (reference[0] - short.logits).abs().max()
    assert (swept(subject, [patch], spec, "fast") - reference).abs().max() < 0.1 * moved
    with torch.inference_mode():
        assert gap(short.logits, subject.hf(**short.prompted.inputs, use_cache=False).logits[0, -1].float()) < 0.05


@pytest.mark.parametrize("family", ["gemma4", "gemma4_unified"])
def test_the_layers_that_nothing_reads_are_said_and_the_shortcut_is_refused(opened: OpenFamily, family: str) -> None:
    subject = opened(family)
    (note,) = subject.unread_notes()
    assert "layers 3 to 4 read keys and values of earlier ones" in note and "layer 2 and later ones leave" in note
    why = {"gemma4": "further vector of every position", "gemma4_unified": "some layers use sliding_attention"}
    assert why[family] in str(subject.shortcut_refusal())
    assert opened("qwen2_audio").unread_notes() == []


def test_a_gemma_without_an_audio_tower_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    folder = FAMILIES["gemma4"](tmp_path / "model")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "audio_config": None}))
    with pytest.raises(InterpError, match="hears nothing: its config.json has no audio_config"):
        open_model(str(folder), device="cpu")
