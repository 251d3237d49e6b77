"""A model whose blocks are put off to disk between two passes, by accelerate's hooks, gives a whole one's numbers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models import load
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.load import needs_sharing, open_model
from interp_core.models.shelf import weight_bytes
from interp_core.sites import Kind
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.generate import Row, generate
from interp_core.trace.patch import HeadAblated, PatchAt, SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.adapters import write_adapter
from tests.families.audio_llms import FAMILIES
from tests.tiny import tone
from tests.trace.cases import every_layer, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap

accelerate = pytest.importorskip("accelerate")

KINDS: tuple[Kind, ...] = ("resid_post", "head_out", "mlp_act")


def places(hf: nn.Module, blocks: str, *, everything: bool) -> dict[str, str]:
    """Every second block on disk, or all there is."""
    found: dict[str, str] = {}

    def fill(name: str, module: nn.Module) -> None:
        for child_name, child in module.named_children():
            full = f"{name}.{child_name}" if name else child_name
            if full == blocks:
                found.update(
                    {f"{full}.{i}": "disk" if everything or i % 2 else "cpu" for i, _ in enumerate(child.children())}
                )
            elif blocks.startswith(f"{full}."):
                fill(full, child)
            else:
                found[full] = "disk" if everything else "cpu"

    fill("", hf)
    return found


def opened(folder: Path, away: Path | None = None, *, everything: bool = False) -> AudioLLM:
    subject = open_model(str(folder), device="cpu")
    assert isinstance(subject, AudioLLM)
    if away is not None:
        where = places(subject.hf, subject.arch.blocks, everything=everything)
        accelerate.dispatch_model(subject.hf, where, main_device="cpu", offload_dir=str(away), force_hooks=True)
    return subject


def numbers(subject: AudioLLM) -> dict[str, Tensor]:
    clips = {"long": (1.3, 300), "short": (0.8, 500)}
    a, b = (
        clean_runs(subject, [prompt_clip(subject, tone(*about), PROMPT, name)], subject.kinds)[0]
        for name, about in clips.items()
    )
    found = {"clean": a.logits}
    patches = [truncated(a, b), truncated(b, a, 0.5)]
    for kind in KINDS:
        if kind not in subject.kinds:
            continue
        spec = every_layer(subject) if kind == "resid_post" else SiteSpec(kind, layers=tuple(range(subject.n_layers)))
        for method in ("reference", "wavefront", "fast"):
            swept = sweep(subject, patches, whole_vocabulary(a), spec, method=method)
            found[f"{kind} {method}"] = swept.label_logits
    rows = [Row(a.prompted, (PatchAt(patches[0], every_layer(subject), 1),))]
    rows += [Row(a.prompted, (HeadAblated(layer, 1, subject.d_head),)) for layer in range(subject.n_layers)]
    texts = generate(subject, rows, 2)
    found["words"] = torch.tensor([[*text.tokens, *[-1] * (2 - len(text.tokens))] for text in texts])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "everything"),
    [("qwen2_audio", False), ("ultravox", True), ("kimi_audio", True), ("granite_speech", False)],
)
def test_patches_heads_and_words_are_those_of_a_whole_model(family: str, everything: bool, tmp_path: Path) -> None:
    folder = FAMILIES[family](tmp_path / "model", n_layers=3)
    whole, away = opened(folder), opened(folder, tmp_path / "away", everything=everything)
    off = [p for p in away.hf.parameters() if p.device.type == "meta"]
    assert off and all(p.device.type == "meta" for p in away.blocks[1].parameters())
    assert away.device == torch.device("cpu") and away.dtype == torch.float32 and away.key == whole.key
    expected = numbers(whole)
    found = numbers(away)
    assert len(expected) == 11
    for name, value in found.items():
        assert gap(value.float(), expected[name].float()) < 1e-5, name
    assert all(p.device.type == "meta" for p in away.blocks[1].parameters())  # and they are put off again
    assert weight_bytes(away) >= 0.9 * weight_bytes(whole)  # what is put off takes memory or disk all the same


def test_an_adapter_is_not_merged_into_weights_that_are_not_here(tmp_path: Path) -> None:
    folder = FAMILIES["qwen2_audio"](tmp_path / "model")
    subject = opened(folder)
    write_adapter(tmp_path / "adapter", subject.hf, ("q_proj",))
    away = opened(folder, tmp_path / "away")
    from interp_core.models.merge import merge_adapter

    with pytest.raises(InterpError, match="memory|meta"):
        merge_adapter(away.hf, tmp_path / "adapter", "a")


def test_gpus_share_what_one_of_them_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    half, whole = torch.bfloat16, torch.float32
    assert not needs_sharing(10**12, half) or torch.cuda.device_count()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (100, 200))
    for gpus, nbytes, dtype, shared in (
        (0, 10**9, half, False),
        (1, 90, half, False),
        (1, 90, whole, True),
        (1, 110, half, True),
        (2, 10, half, True),
    ):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert needs_sharing(nbytes, dtype) is shared, (gpus, nbytes)
    monkeypatch.setattr(load, "find_spec", lambda _name: None)  # without accelerate
    assert not needs_sharing(10, half)
