"""Gemma 4 in the shapes of its sizes: heads of two widths, experts, half precision, and folders that cannot hear."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks.not_finite import write_clips
from interp_core.__main__ import main
from interp_core.errors import InterpError
from interp_core.experiments.clips import columns_of
from interp_core.experiments.patching.head_map import parts_of, true_changes
from interp_core.experiments.patching.plan import site_spec
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.load import open_model
from interp_core.sites import Kind, Site
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from interp_core.trace.generate import Row, generate
from interp_core.trace.patch import HeadAblated, Patch, SiteSpec
from interp_core.trace.sweep import Method, sweep
from tests.families.audio_llms import FAMILIES
from tests.models.conftest import AUDIO_LLM_CLIPS, OpenFamily, clip_for
from tests.models.test_writing import HEAD, N, library, plain_hook, silencing
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


def test_one_head_is_patched_at_the_width_that_it_has_in_each_layer(tmp_path: Path) -> None:
    subject = opened_as(tmp_path / "model", **SHAPES["two widths of heads"])
    with pytest.raises(InterpError, match=r"has heads of widths \[8, 16\]; ask for that of a layer"):
        _ = subject.d_head
    widths = {layer: subject.d_head_at(layer) for layer in range(subject.n_layers)}
    assert list(widths.values()) == [16, 8, 16, 8, 16]
    _, middle, long = runs_of(subject)
    patch = truncated(long, middle)
    found = []
    for head in (0, 3):
        settings = PatchRequest("m", site=f"head_out:{head}")
        spec = site_spec(subject, settings)
        assert {layer: spec.width_at(layer) for layer in spec.layers} == widths
        found.append(swept(subject, [patch], spec, "reference")[0])
        assert gap(swept(subject, [patch], spec, "fast")[0], found[-1]) < 1e-4
        for layer, row in enumerate(found[-1]):
            columns = slice(head * widths[layer], (head + 1) * widths[layer])
            assert columns_of(subject, Site("head_out", layer, head)) == columns
            projection = subject.blocks[layer].get_submodule("self_attn.o_proj")

            def put(_module: Any, args: Any, layer: int = layer, columns: slice = columns) -> Any:
                value = args[0].clone()
                value[0, patch.positions, columns] = middle.at("head_out", layer)[patch.source.long()][:, columns]
                return (value, *args[1:])

            handle = projection.register_forward_pre_hook(put)
            with torch.inference_mode():
                plain = subject.hf(**long.prompted.inputs, use_cache=False).logits[0, -1]
            handle.remove()
            assert gap(row, plain) < 1e-5, (head, layer)
    assert gap(found[0][:2], found[1][:2]) > 1e-4  # control: another head is another edit
    labels, target = whole_vocabulary(long), 5
    parts = [part for part in parts_of(subject, long, ("head_out",)) if part.head in (0, 3)]
    assert {part.layer: part.stop - part.first for part in parts} == widths
    plan, store = SimpleNamespace(labels=[labels]), SimpleNamespace(subject=subject)
    (changes,) = true_changes(plan, store, [patch], [target], 0, parts, "fast")  # type: ignore[arg-type]
    before = long.logits.double().log_softmax(-1)[target]
    for part, change in zip(parts, changes, strict=True):
        after = found[part.head == 3][part.layer].double().log_softmax(-1)[target]
        assert change == pytest.approx(float(after - before), abs=1e-4), part


def test_one_head_is_silenced_in_a_text_at_the_width_that_it_has_in_each_layer(tmp_path: Path) -> None:
    subject = opened_as(tmp_path / "model", **SHAPES["two widths of heads"])
    _, _, run = runs_of(subject)
    layers = range(subject.n_layers)
    rows = [Row(run.prompted, (HeadAblated(layer, HEAD, subject.d_head_at(layer)),)) for layer in layers]
    expected = []
    for layer in layers:
        change = silencing(subject.d_head_at(layer), written=True)
        with plain_hook(subject.blocks[layer].get_submodule("self_attn.o_proj"), change, on_input=True):
            expected.append(library(subject, run))
    assert [text.tokens for text in generate(subject, rows, N, during="all")] == expected


def test_heads_of_two_widths_are_ranked_and_silenced_by_the_command(tmp_path: Path) -> None:
    folder = FAMILIES["gemma4"](tmp_path / "model", text=SHAPES["two widths of heads"])
    clips = write_clips(tmp_path / "clips", ("neutral", "happy"), 0.5)
    given = ["--model", str(folder), "--manifest", str(clips), "--device", "cpu"]
    heads = ["heads", *given, "--label", "prosody_label", "--draws", "19", "--probes", "none", "--per-class", "3"]
    assert main([*heads, "--ablate", "zero", "--out", str(tmp_path / "heads")]) == 0
    table = pd.read_csv(tmp_path / "heads" / "fisher.csv")
    widths = table[table.granularity == "head"].groupby("layer")["width"].unique().map(list).tolist()
    assert widths == [[16], [8], [16], [8], [16]] and "stage_mean" not in set(table.granularity)
    assert len(pd.read_csv(tmp_path / "heads" / "ablation.csv")) == 20


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
