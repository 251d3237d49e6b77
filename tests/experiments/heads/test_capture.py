"""One pass, pooled: the vectors are those of plain hooks, sample by sample, for every family that has heads."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ClapAudioConfig, ClapAudioModel, ClapFeatureExtractor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.clips import ReadyBatch, ReadyClip
from interp_core.experiments.heads.capture import capture, pooled
from interp_core.experiments.heads.points import geometry_of
from interp_core.models.arch import ENCODERS
from interp_core.models.clap.subject import ClapAudio
from interp_core.models.load import open_model
from interp_core.models.prompted import RecordingSpan
from tests.experiments.heads_cases import store_of, write_clips
from tests.families.encoders import save_ast, save_clap_audio, save_hubert, save_wavlm, save_whisper
from tests.tiny import save_qwen2_audio

Write = Callable[[Path], Path]
SMALL = {"depths": (2, 2, 6, 2), "heads": (2, 4, 8, 16)}


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> ClapAudio:
    torch.set_num_threads(1)
    return open_model(str(save_clap_audio(tmp_path_factory.mktemp("clap") / "m", **SMALL)), device="cpu")


def test_the_published_geometry_has_184_heads_of_24_and_stages_that_merge_inside() -> None:
    torch.manual_seed(0)
    config = ClapAudioConfig()
    subject = ClapAudio("htsat", "0", ClapAudioModel(config).eval(), ENCODERS["clap"], extractor=ClapFeatureExtractor())
    geometry = geometry_of(subject)
    assert geometry.heads == (4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32) and sum(geometry.heads) == 184
    assert [len(stage) for stage in geometry.stages] == [2, 2, 6, 2]
    with torch.inference_mode():
        features = {"input_features": torch.randn(1, 1, 1001, 64)}
    batch = ReadyBatch(subject, (0,), (ReadyClip(Clip("c", Path("c"), {}, ""), features, 480, None),))
    _, found = next(pooled(batch, geometry.sites()))

    def widths(granularity: str) -> list[int]:
        rows = [found[geometry.site_of(point)] for point in geometry.points(granularity)]  # type: ignore[arg-type]
        return [row.shape[1] for row in rows]

    assert {width // heads for width, heads in zip(widths("block_mean"), geometry.heads, strict=True)} == {24}
    assert widths("block") == [96] * 2 + [192] * 2 + [384] * 6 + [768] * 2
    assert widths("stage") == [192, 384, 768, 768]
    assert widths("stage_before") == [96, 192, 384, 768]
    assert widths("stage") != [96 * 2**stage for stage in range(4)]  # what one would expect, and what is wrong


def test_other_geometries_are_read_from_the_config_and_named_as_on_screen(tmp_path: Path) -> None:
    subject = open_model(str(save_clap_audio(tmp_path / "m", depths=(1, 1, 2, 1), heads=(2, 4, 8, 16))), device="cpu")
    geometry = geometry_of(subject)
    assert geometry.heads == (2, 4, 8, 8, 16) and [len(s) for s in geometry.stages] == [1, 1, 2, 1]
    heads = geometry.points("head")
    assert [point.name for point in heads[:3]] == ["S0 B0 H0", "S0 B0 H1", "S1 B0 H0"]
    assert geometry.head_of(3, 7).name == "S2 B1 H7" and geometry.points("stage")[2].name == "S2"
    plain = geometry_of(open_model(str(save_wavlm(tmp_path / "w")), device="cpu"))
    assert not plain.staged and plain.points("head")[-1].name == f"L{plain.n_layers - 1} H{plain.heads[-1] - 1}"
    assert [point.name for point in plain.points("stage")] == [f"L{layer}" for layer in range(plain.n_layers)]
    assert plain.points("stage_before") == ()


@torch.inference_mode()
def test_heads_blocks_and_stages_of_clap_are_those_of_plain_hooks_pooled_a_sample(
    clap: ClapAudio, tmp_path: Path
) -> None:
    clips = write_clips(tmp_path, ["hiss", "hum", "tone"])
    store = store_of(clap)
    vectors = capture(store, clips, batch_size=3)
    features = torch.cat([clap.model_inputs(store.samples(clip), "")["input_features"] for clip in clips])
    encoder = clap.hf.audio_encoder
    seen: dict[tuple, Tensor] = {}
    handles = []
    layer = 0
    for number, stage in enumerate(encoder.layers):
        handles.append(
            stage.register_forward_hook(
                lambda m, a, out, n=number: seen.update({("after", n): out[0], ("before", n): out[1]})
            )
        )
        for block in stage.blocks:
            handles.append(
                block.attention.self.register_forward_hook(
                    lambda m, a, out, n=layer: seen.update({("head", n): out[0]})
                )
            )
            handles.append(
                block.layernorm_after.register_forward_pre_hook(lambda m, a, n=layer: seen.update({("block", n): a[0]}))
            )
            layer += 1
    clap.hf(input_features=features)
    for handle in handles:
        handle.remove()
    for point in vectors.geometry.points("head"):
        whole = seen["head", point.layer]  # [batch * windows, tokens, heads * d_head], batch-major
        n_heads = vectors.geometry.heads[point.layer]
        by_sample = whole.unflatten(0, (3, -1)).unflatten(-1, (n_heads, -1))  # [batch, windows, tokens, heads, d_head]
        expected = by_sample.double().mean((1, 2))[:, point.head]
        assert np.allclose(vectors.of(point), expected, rtol=1e-5, atol=1e-6), point.name
    mixed = seen["head", 0].double().mean((0, 1))  # over samples too, as a batch of one allows
    assert (
        np.abs(vectors.at[vectors.geometry.site_of(vectors.geometry.points("head")[0])][1] - mixed.numpy()).max() > 1e-3
    )
    for granularity, key in (("block", "block"), ("stage", "after"), ("stage_before", "before")):
        for point in vectors.geometry.points(granularity):  # type: ignore[arg-type]
            expected = seen[key, point.layer if granularity == "block" else point.stage].double().mean(1)
            assert np.allclose(vectors.of(point), expected, rtol=1e-5, atol=1e-6), (granularity, point.name)


def test_means_over_heads_and_over_a_stages_blocks_have_one_width(clap: ClapAudio, tmp_path: Path) -> None:
    vectors = capture(store_of(clap), write_clips(tmp_path, ["hiss", "hum"]))
    heads = {p: vectors.of(p) for p in vectors.geometry.points("head")}
    for stage, layers in zip(vectors.geometry.points("stage_mean"), vectors.geometry.stages, strict=True):
        blocks = [np.mean([v for p, v in heads.items() if p.layer == layer], axis=0) for layer in layers]
        assert np.allclose(vectors.of(stage), np.mean(blocks, axis=0), atol=1e-7)
    assert {rows.shape[1] for rows in vectors.all("block_mean") + vectors.all("stage_mean")} == {4}


FAMILIES: dict[str, Write] = {
    "clap-audio": lambda path: save_clap_audio(path, **SMALL),
    "wavlm": save_wavlm,
    "hubert": save_hubert,
    "whisper": save_whisper,
    "ast": save_ast,
    "qwen2_audio": save_qwen2_audio,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-5), ("float64", 1e-10)])
def test_a_batch_of_eight_is_eight_singles(family: str, dtype: str, allowed: float, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    subject = open_model(str(FAMILIES[family](tmp_path / "model")), device="cpu")
    if dtype == "float64":
        subject.hf.double()
    seconds = (0.6,) if family in ("wavlm", "hubert", "clap-audio") else (0.5, 0.8, 0.65)
    clips = write_clips(tmp_path / "clips", ["hiss", "hum"] * 4, seconds=seconds, rate=subject.sample_rate)
    prompt = "What is this?" if family == "qwen2_audio" else subject.default_prompts[0]
    store = store_of(subject)
    together, alone = (capture(store, clips, prompt, batch_size=size) for size in (8, 1))
    for site, rows in together.at.items():
        other = alone.at[site]
        assert rows.shape == other.shape and rows.dtype == np.dtype(dtype)
        assert np.abs(rows - other).max() <= allowed * np.abs(other).max(), site
        assert np.abs(rows[0] - other[1]).max() > 1e-3 * np.abs(other).max(), site  # control: clips differ


def test_only_positions_that_hold_the_recording_are_pooled(tmp_path: Path) -> None:
    subject = open_model(str(save_ast(tmp_path / "model")), device="cpu")
    (clip,) = write_clips(tmp_path / "clips", ["hum"], seconds=(0.3,), rate=subject.sample_rate)
    store = store_of(subject)
    vectors = capture(store, [clip])
    run = store.run(clip, "", ["head_out"])
    (start, stop), (bands, stride) = run.prompted.audio, run.prompted.bands
    at = [start + i + band * stride for band in range(bands) for i in range(stop - start)]
    assert 0 < len(at) < run.prompted.n_pos - 2  # padding and answer tokens are left out
    site = next(site for site in vectors.at if site.kind == "head_out")
    expected = run.at("head_out", site.layer)[at].double().mean(0)
    assert np.allclose(vectors.at[site][0], expected, rtol=1e-5, atol=1e-7)


def test_positions_are_counted_behind_the_padding() -> None:
    assert RecordingSpan(2, 5, 7).positions(10).tolist() == [5, 6, 7]
    assert RecordingSpan(0, 7, 7).is_whole and not RecordingSpan(2, 5, 7).is_whole
    assert RecordingSpan(2, 4, 12, bands=2, stride=5).positions(12).tolist() == [2, 3, 7, 8]


def test_no_more_clips_are_made_ready_than_two_batches_hold_and_every_one_is_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = open_model(str(save_wavlm(tmp_path / "model")), device="cpu")
    seconds = tuple(0.3 + 0.01 * i for i in range(7))
    clips = write_clips(tmp_path / "clips", ["hiss", "hum"] * 20, seconds=seconds, rate=subject.sample_rate)
    held: list[int] = []
    made: list[int] = []
    model_inputs, forward = type(subject).model_inputs, type(subject).forward
    monkeypatch.setattr(
        type(subject), "model_inputs", lambda self, *args: held.append(1) or made.append(1) or model_inputs(self, *args)
    )

    def counted(self, inputs):
        assert len(inputs["input_values"]) <= 3 and len(held) <= 6
        del held[: len(inputs["input_values"])]
        return forward(self, inputs)

    monkeypatch.setattr(type(subject), "forward", counted)
    assert capture(store_of(subject), clips, batch_size=3).n_clips == len(clips) and not held
    assert len(made) == len(clips)


def test_a_batch_that_does_not_fit_is_halved(clap: ClapAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = write_clips(tmp_path, ["hiss", "hum"] * 4)
    store = store_of(clap)
    expected = capture(store, clips, batch_size=2)
    heard, sizes = type(clap).heard, []

    def tight(self, inputs):
        sizes.append(len(inputs["input_features"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("no room")
        return heard(self, inputs)

    monkeypatch.setattr(type(clap), "heard", tight)
    found = capture(store, clips, batch_size=8)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    for site, rows in expected.at.items():
        assert np.allclose(found.at[site], rows, rtol=1e-5, atol=1e-6)


def test_a_model_without_heads_is_refused_by_name(tmp_path: Path) -> None:
    from tests.models.test_resnet import small

    torch.save(small().state_dict(), tmp_path / "resnet.pth")
    subject = open_model(str(tmp_path / "resnet.pth"), device="cpu")
    with pytest.raises(InterpError, match="has no attention heads"):
        geometry_of(subject)
