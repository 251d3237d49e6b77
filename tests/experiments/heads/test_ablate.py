"""Taking a head away, by another route: weights set to zero, plain hooks, and a head that nobody reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import binom
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.experiments.heads.ablate import (
    HEAD_EDITS,
    Task,
    ablate,
    answer_changes,
    donor_draws,
    donors_of,
    patch,
    source_positions,
)
from interp_core.experiments.heads.capture import Vectors, capture
from interp_core.models.clap.subject import ClapAudio
from interp_core.models.labels import LabelTokens
from interp_core.models.load import open_model
from interp_core.models.probe import Probe
from interp_core.models.prompted import RecordingSpan
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep
from tests.experiments.heads_cases import CLASSES, store_of, write_clips
from tests.families.encoders import save_clap_audio, save_wavlm
from tests.tiny import LABELS, save_qwen2_audio
from tests.trace.naive import gap

HEADS = (2, 4, 8, 16)


class Scene:
    """A tiny HTS-AT with a random probe, twelve clips, their vectors, the task, and logits by the library alone."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        subject = open_model(str(save_clap_audio(folder / "m", depths=(1, 1, 2, 1), heads=HEADS)), device="cpu")
        made = torch.Generator().manual_seed(1)
        width = subject.hf.config.hidden_size
        probe = Probe(CLASSES, 3 * torch.randn(3, width, generator=made), torch.randn(3, generator=made), {})
        self.subject: ClapAudio = replace(subject, probe=probe)
        self.store: CleanStore = store_of(self.subject)
        self.clips = write_clips(folder / "clips", CLASSES * 4, seconds=(0.5,))
        self.labels = [clip.labels["label"] for clip in self.clips]
        self.vectors: Vectors = capture(self.store, self.clips)
        self.task = Task.of(self.store, "", self.labels, None)

    @torch.inference_mode()
    def logits(self) -> np.ndarray:
        rows = [self.subject.model_inputs(self.store.samples(clip), "") for clip in self.clips]
        pooled = torch.cat([self.subject.hf(**row).pooler_output for row in rows])
        return self.subject.probe(pooled).double().numpy()  # type: ignore[misc]

    def attention(self, layer: int) -> Any:
        blocks = [block for stage in self.subject.hf.audio_encoder.layers for block in stage.blocks]
        return blocks[layer].attention

    def score(self, logits: np.ndarray) -> np.ndarray:
        """[n] log-probability of each clip's class."""
        return log_softmax(logits, axis=1)[np.arange(len(logits)), self.task.truth]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


def row_of(scene: Scene, layer: int, head: int, kind: str) -> dict[str, Any]:
    return ablate(scene.store, scene.clips, scene.task, [(layer, head)], [kind], scene.vectors).to_dict("records")[0]


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (2, 3), (3, 7), (4, 15)])
def test_zero_is_what_zeroed_columns_of_the_output_projection_give(scene: Scene, layer: int, head: int) -> None:
    base = scene.logits()
    weight = scene.attention(layer).output.dense.weight
    width = weight.shape[1] // scene.subject.heads_at(layer)
    kept = weight.data.clone()
    weight.data[:, head * width : (head + 1) * width] = 0
    without = scene.logits()
    weight.data.copy_(kept)
    row = row_of(scene, layer, head, "zero")
    change = scene.score(without) - scene.score(base)
    assert np.abs(change).max() > 1e-3  # control: the head does something
    assert row["logprob_change"] == pytest.approx(change.mean(), abs=1e-5)
    truth = scene.task.truth
    assert row["base_accuracy"] == (base.argmax(1) == truth).mean()
    assert row["accuracy"] == (without.argmax(1) == truth).mean()
    assert row["change"] == pytest.approx(row["accuracy"] - row["base_accuracy"])
    assert row["changed"] == (without.argmax(1) != base.argmax(1)).sum() and row["n"] == 12


def replaced(scene: Scene, layer: int, head: int, values: list[Tensor]) -> np.ndarray:
    """Logits with a head's output of the i-th clip replaced by values[i] [windows, tokens, d] or [d]; plain hooks."""
    module, turn = scene.attention(layer).self, iter(values)

    def change(_module: Any, _args: Any, output: Any) -> Any:
        heads = output[0].clone()
        width = heads.shape[-1] // scene.subject.heads_at(layer)
        heads[..., head * width : (head + 1) * width] = next(turn)
        return (heads, *output[1:])

    handle = module.register_forward_hook(change)
    try:
        return scene.logits()  # one clip at a time
    finally:
        handle.remove()


@torch.inference_mode()
def heads_by_hand(scene: Scene, layer: int, head: int) -> list[Tensor]:
    seen: list[Tensor] = []
    handle = scene.attention(layer).self.register_forward_hook(lambda m, a, out: seen.append(out[0].clone()))
    scene.logits()
    handle.remove()
    width = seen[0].shape[-1] // scene.subject.heads_at(layer)
    return [value[..., head * width : (head + 1) * width] for value in seen]


@pytest.mark.parametrize(("layer", "head"), [(1, 2), (3, 0)])
def test_mean_is_the_mean_over_positions_and_clips(scene: Scene, layer: int, head: int) -> None:
    mean = torch.stack([value.flatten(0, 1).mean(0) for value in heads_by_hand(scene, layer, head)]).mean(0)
    change = scene.score(replaced(scene, layer, head, [mean] * 12)) - scene.score(scene.logits())
    assert row_of(scene, layer, head, "mean")["logprob_change"] == pytest.approx(change.mean(), abs=1e-5)
    other = scene.score(replaced(scene, layer, head, [2 * mean] * 12)) - scene.score(scene.logits())
    assert abs(other.mean() - change.mean()) > 1e-4  # control


@pytest.mark.parametrize(("layer", "head"), [(1, 2), (4, 9)])
def test_resample_is_the_same_head_on_a_clip_of_another_class(scene: Scene, layer: int, head: int) -> None:
    donors = donors_of(scene.clips, scene.task.truth, 42)
    assert all(scene.labels[row] != scene.labels[donor] for row, donor in enumerate(donors))
    assert len(set(donors)) > 4 and donors != donors_of(scene.clips, scene.task.truth, 43)
    theirs = heads_by_hand(scene, layer, head)
    change = scene.score(replaced(scene, layer, head, [theirs[d] for d in donors])) - scene.score(scene.logits())
    row = row_of(scene, layer, head, "resample")
    assert row["logprob_change"] == pytest.approx(change.mean(), abs=1e-5)
    own = replaced(scene, layer, head, theirs)  # control: with its own heads nothing changes
    assert np.abs(own - scene.logits()).max() < 1e-5 < np.abs(change).max()


def test_a_head_that_nothing_reads_changes_nothing_whatever_it_separates(scene: Scene) -> None:
    layer, head = 4, 6
    weight = scene.attention(layer).output.dense.weight
    width, kept = weight.shape[1] // 16, weight.data.clone()
    weight.data[:, head * width : (head + 1) * width] = 0
    try:
        rows = ablate(scene.store, scene.clips, scene.task, [(layer, head), (layer, 7)], HEAD_EDITS, scene.vectors)
    finally:
        weight.data.copy_(kept)
    unread, read = rows[rows["head"] == head], rows[rows["head"] == 7]
    assert (unread[["change", "changed"]] == 0).all(axis=None) and (unread.logprob_change.abs() < 1e-6).all()
    assert (read.logprob_change.abs() > 1e-4).all()


def test_related_clips_make_the_interval_and_under_ten_groups_there_is_none(scene: Scene) -> None:
    alone = row_of(scene, 3, 1, "zero")
    assert alone["n_groups"] == 12 and alone["logprob_change_low"] < alone["logprob_change"]
    task = replace(scene.task, groups=np.array([clip.labels["group"] for clip in scene.clips]))
    few = ablate(scene.store, scene.clips, task, [(3, 1)], ["zero"]).iloc[0]
    assert few["n_groups"] == 4 and np.isnan(few["change_low"]) and "4 groups, 10 needed" in few["interval_method"]


def test_one_heads_patch_is_the_reference_sweeps_and_a_clip_patched_with_itself_stays(scene: Scene) -> None:
    a, b = scene.clips[0], scene.clips[1]
    labels = scene.task.labels
    runs = [scene.store.run(clip, "") for clip in (a, b)]
    every = torch.arange(runs[0].prompted.n_pos)
    made = Patch(runs[0], runs[1], every, every.double())
    for layer, head in ((0, 1), (2, 5), (4, 11)):
        ours = patch(scene.store, a, b, (layer, head), labels, "")
        width = scene.vectors.at[scene.vectors.geometry.site_of(scene.vectors.geometry.head_of(layer, head))].shape[1]
        spec = SiteSpec("head_out", head, width // HEADS[scene.subject.stage_of(layer)[0]], (layer,))
        reference = sweep(scene.subject, [made], labels, spec, method="reference").label_logits[0, 0]
        assert gap(torch.tensor(ours["patched"].to_numpy()), reference.double()) < 1e-5
        assert (ours["patched"] - ours["base"]).abs().max() > 1e-4
        same = patch(scene.store, a, a, (layer, head), labels, "")
        assert np.abs(same["patched"] - same["base"]).max() < 1e-5
    assert np.allclose(ours["donor"], scene.logits()[1], atol=1e-5)


def test_positions_of_another_length_are_stretched_and_text_stays_aligned() -> None:
    same = source_positions(RecordingSpan(1, 4, 6), RecordingSpan(1, 4, 6), 6)
    assert same.tolist() == [0, 1, 2, 3, 4, 5]
    found = source_positions(
        RecordingSpan(2, 6, 9), RecordingSpan(2, 4, 7), 9
    )  # four audio positions from two, text around them
    assert found.tolist() == [0, 1, 2, 2, 3, 3, 4, 5, 6]
    shrunk = source_positions(RecordingSpan(0, 3, 3), RecordingSpan(0, 9, 9), 3)
    assert shrunk.tolist() == [1, 4, 7]


@pytest.mark.parametrize("family", ["wavlm", "qwen2_audio"])
def test_clips_of_unlike_length_and_padded_prompts_are_answered_as_alone(family: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    write = save_wavlm if family == "wavlm" else save_qwen2_audio
    subject = open_model(str(write(tmp_path / "m")), device="cpu")
    names = LABELS[:2] if family == "qwen2_audio" else subject.answers[:2]
    clips = write_clips(tmp_path / "c", list(names) * 3, seconds=(0.5, 0.8, 0.65), rate=subject.sample_rate)
    prompt = "What is the emotion of this audio?" if family == "qwen2_audio" else ""
    store = store_of(subject)
    vectors = capture(store, clips, prompt)
    task = Task.of(store, prompt, [clip.labels["label"] for clip in clips], None)
    rows = [ablate(store, clips, task, [(1, 1)], HEAD_EDITS, vectors, batch_size=size) for size in (6, 1)]
    assert np.allclose(rows[0]["logprob_change"], rows[1]["logprob_change"], atol=1e-5)
    assert (rows[0]["logprob_change"].abs() > 1e-6).all()


def test_what_cannot_be_ablated_is_refused_before_anything_runs(scene: Scene) -> None:
    for kinds, heads, vectors, words in (
        (["flip"], [(0, 0)], None, "unknown kind of ablation flip"),
        (["mean"], [(0, 0)], None, "needs the vectors"),
        (["zero"], [(0, 2)], None, "head=2 is outside"),
        (["zero"], [(9, 0)], None, "layer=9 is outside"),
    ):
        with pytest.raises(InterpError, match=words):
            ablate(scene.store, scene.clips, scene.task, heads, kinds, vectors)
    bare = store_of(replace(scene.subject, probe=None))
    with pytest.raises(InterpError, match="has no classifier"):
        Task.of(bare, "", scene.labels, None)


def test_shared_donors_widen_the_interval_of_a_resample_until_it_covers() -> None:
    rng, missed, rows = np.random.default_rng(7), [0, 0], np.arange(60)
    labels = LabelTokens(("a", "b"), (0, 1), {})
    for seed in range(150):
        truth, groups = rng.permutation(np.repeat([0, 1], [50, 10])), rng.permutation(60) % 30
        donors = [int(rng.choice(np.flatnonzero(truth != code))) for code in truth]
        base, ablated = np.zeros((2, 60, 2))
        ablated[rows, truth] = rng.normal(size=30)[groups] + rng.normal(size=30)[groups][donors]
        task = Task("", labels, truth, groups)
        for i, drawn in enumerate((donor_draws(task, donors, seed), None)):
            row: Any = answer_changes(base, ablated, task, drawn)
            missed[i] += not row["change_low"] <= -0.5 + (truth == 1).mean() <= row["change_high"]
    alarm = binom.ppf(0.999, 150, 0.05)
    assert missed[0] <= alarm < missed[1]  # control: over recipients alone
    assert row["interval_method"].startswith("delete-a-group")
    said = answer_changes(base, ablated, task, donor_draws(task, donors, 0))["interval_method"]
    assert said == "pigeonhole bootstrap, 2000 draws, over 30 groups as recipients and donors"
