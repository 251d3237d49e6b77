"""Fisher maps: a planted head is found and nothing else, labels without meaning find nothing; which clips are taken."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.heads.capture import Vectors, capture
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.heads.run import draw, groups_of, measure, run_heads
from interp_core.maths.fisher import fisher_interval, fisher_ratio, fisher_test
from interp_core.models.clap.subject import ClapAudio
from interp_core.models.load import open_model
from tests.experiments.heads_cases import store_of, write_clips
from tests.families.encoders import save_clap_audio

HEADS = (2, 4, 8, 16)
PLANTED = 5


def silent(done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> ClapAudio:
    torch.set_num_threads(1)
    folder = save_clap_audio(tmp_path_factory.mktemp("clap") / "m", depths=(1, 1, 1, 1), heads=HEADS)
    return open_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def noise(clap: ClapAudio, tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """48 clips of nothing but noise."""
    return capture(store_of(clap), write_clips(tmp_path_factory.mktemp("noise"), ["hiss"] * 48, seconds=(0.5,)))


def labels_of(seed: int, n: int = 48) -> list[str]:
    return [str(label) for label in np.random.default_rng(seed).permutation(np.arange(n) % 3)]


def test_a_head_of_the_last_block_that_carries_the_label_is_the_single_significant_one(
    clap: ClapAudio, tmp_path: Path
) -> None:
    store = store_of(clap)
    clips = write_clips(tmp_path, ["hiss"] * 36, seconds=(0.5,))
    labels = labels_of(1, 36)
    names = {}  # the label of a recording is nowhere in it: only this table knows, by what the model is given
    for clip, label in zip(clips, labels, strict=True):
        features = clap.model_inputs(store.samples(clip), "")["input_features"]
        names[hashlib.sha256(features[0].numpy().tobytes()).hexdigest()] = int(label)
    batch: list[int] = []

    def read(_module: object, args: tuple, kwargs: dict) -> None:
        rows = kwargs["input_features"] if "input_features" in kwargs else args[0]
        batch[:] = [names[hashlib.sha256(row.numpy().tobytes()).hexdigest()] for row in rows]

    attention = clap.hf.audio_encoder.layers[-1].blocks[-1].attention.self
    width = clap.hf.config.patch_embeds_hidden_size * 8 // HEADS[-1]

    def plant(_module: object, _args: tuple, output: tuple) -> tuple[Tensor, ...]:
        heads = output[0].clone()
        windows = len(heads) // len(batch)
        for row, label in enumerate(batch):  # one direction a class, at every position
            heads[row * windows : (row + 1) * windows, :, PLANTED * width + label] += 5
        return (heads, *output[1:])

    hooks = [clap.hf.register_forward_pre_hook(read, with_kwargs=True), attention.register_forward_hook(plant)]
    try:
        vectors = capture(store, clips)
    finally:
        for hook in hooks:
            hook.remove()
    table, _ = measure(vectors, labels, None, HeadsRequest("m", draws=499, probes="none"), silent)
    heads = table[table.granularity == "head"]
    sure = heads[heads.p_adjusted < 0.05]
    assert list(zip(sure["layer"], sure["head"], strict=True)) == [(3, PLANTED)]
    assert sure.fisher_f.iloc[0] > 10 * heads.fisher_f.drop(sure.index).max()
    clean, _ = measure(capture(store, clips), labels, None, HeadsRequest("m", draws=499, probes="none"), silent)
    assert not (clean[clean.granularity == "head"].p_adjusted < 0.05).any()  # control: without the plant, none


@pytest.mark.slow
def test_labels_without_meaning_find_a_head_no_more_often_than_said(noise: Vectors) -> None:
    heads = noise.all("head")
    found = sum(bool((fisher_test(heads, labels_of(s), seed=s).adjusted_p < 0.05).any()) for s in range(200))
    assert found <= 21  # 200 tests at .05: more happens once in a thousand
    assert binom.sf(21, 200, 0.05) < 1e-3
    easy = [np.array([float(label) for label in labels_of(s)])[:, None] for s in range(20)]  # control: power
    assert all((fisher_test([*heads, x], labels_of(s), draws=199).adjusted_p[-1] < 0.05) for s, x in enumerate(easy))


def test_noise_gives_one_on_the_normalised_scale(noise: Vectors) -> None:
    heads, ratios, covered = noise.all("head"), [], 0
    for seed in range(40):
        ratios.append(fisher_ratio(heads, labels_of(seed)).normalised)
    mean = np.mean(ratios)
    # Heads of one clip go together: the error of the mean is that over labellings, not over heads.
    error = np.std(np.mean(ratios, axis=1)) / np.sqrt(len(ratios))
    assert abs(mean - 1) < 4 * error + 0.05 and error < 0.1
    for seed in range(20):
        interval = fisher_interval(heads, labels_of(seed))
        covered += int(np.median(interval.low) < 1 < np.median(interval.high))
    assert covered >= 15


def test_the_table_has_a_row_a_point_with_the_numbers_of_the_maths(noise: Vectors) -> None:
    labels, settings = labels_of(0), HeadsRequest("m", draws=99, probes="wide")
    groups = [f"g{i // 3}" for i in range(48)]
    table, notes = measure(noise, labels, groups, settings, silent)
    counts = table.granularity.value_counts()
    assert dict(counts) == {"head": 30, "block": 4, "stage": 4, "stage_before": 4, "block_mean": 4, "stage_mean": 4}
    for granularity in counts.index:
        rows = table[table.granularity == granularity]
        values = noise.all(granularity)
        expected = fisher_ratio(values, labels)
        interval = fisher_interval(values, labels, groups)
        assert np.array_equal(rows.fisher_f, expected.normalised) and np.array_equal(rows.width, expected.dims)
        assert np.array_equal(rows.fisher_f_low, interval.low)
        test = fisher_test(values, labels, groups, draws=99, seed=42)
        assert np.array_equal(rows.p_adjusted, test.adjusted_p) and notes[granularity]["p"] == test.method
    assert table[table.granularity == "head"].probe_accuracy.isna().all()
    assert table[table.granularity != "head"].probe_accuracy.between(0, 1).all()


def clip(number: int, **labels: str) -> Clip:
    return Clip(f"c{number}", Path(f"c{number}.wav"), labels, f"{number:064x}")


def test_the_same_number_of_clips_a_class_and_training_clips_stay_out() -> None:
    clips = [clip(i, label="ab"[i % 2], split="train" if i < 4 else "test") for i in range(17)]
    clips.append(clip(17, split="test"))
    found = draw(clips, HeadsRequest("m"))
    assert sorted(found.labels) == ["a"] * 6 + ["b"] * 6 and found.groups is None
    assert not {"c0", "c1", "c2", "c3"} & {one.clip_id for one in found.clips}
    assert {what: count for what, count in found.left_out.items() if count} == {
        "training clips": 4, "clips without a label": 1, "clips so that every class has as many": 1,
    }  # fmt: skip
    assert len(found.pool) == 14, "of which one has no label"
    one = draw(clips, HeadsRequest("m", classes=("b", "a"), per_class=2))
    assert one.left_out["clips so that every class has as many"] == 9
    others = draw([*clips, clip(18, label="c", split="test")], HeadsRequest("m", classes=("a", "b")))
    assert others.left_out["clips of other classes"] == 1
    assert [one.clip_id for one in draw(clips[::-1], HeadsRequest("m")).clips] == [one.clip_id for one in found.clips]
    assert len(draw(clips, HeadsRequest("m", clips="all", per_class=8)).clips) == 16
    everything = [clip(i, label="ab"[i % 2], split="train") for i in range(8)]  # nothing is held out: all are taken
    assert len(draw(everything, HeadsRequest("m")).clips) == 8


def test_a_missing_class_too_few_clips_and_a_wrong_column_are_said() -> None:
    clips = [clip(i, label="abb"[i % 3], kind="x") for i in range(9)]
    for settings, words in (
        (HeadsRequest("m", per_class=4), "4 clips of every label were asked for, but a has 3"),
        (HeadsRequest("m", classes=("a", "dog")), "dog has 0"),
        (HeadsRequest("m", label="species"), r"no clip has a value in 'species' \(columns: kind, label\)"),
        (HeadsRequest("m", label="kind"), "all clips with a 'kind' are 'x'"),
        (HeadsRequest("m", groups="speaker"), "not every clip has a value in the column of groups 'speaker'"),
    ):
        with pytest.raises(InterpError, match=words):
            draw(clips, settings)
    with pytest.raises(InterpError, match="--probes 'some' is none of all, wide, none"):
        HeadsRequest("m", probes="some").check()
    with pytest.raises(InterpError, match="--draws 5 is too small; give 19 or more"):
        HeadsRequest("m", draws=5).check()


def test_related_clips_are_told_by_the_first_column_that_groups_them() -> None:
    clips = [clip(i, label="ab"[i % 2], src_file=f"s{i // 2}", speaker="one", fold=str(i % 5)) for i in range(10)]
    assert groups_of(clips, "auto", "label") == (tuple(f"s{i // 2}" for i in range(10)), "src_file")
    assert groups_of(clips, "fold", "label")[1] == "fold" and groups_of(clips, "none", "label")[0] is None
    lonely = [clip(i, label="ab"[i % 2], src_file=f"s{i}", speaker="one") for i in range(10)]
    assert groups_of(lonely, "auto", "label") == (None, "none: no column says which clips are related")


def test_a_run_is_what_its_parts_give(clap: ClapAudio, tmp_path: Path) -> None:
    clips = write_clips(tmp_path, ["hum", "tone"] * 8, seconds=(0.5,))
    settings = HeadsRequest("m", draws=99, probes="none")
    drawn = draw(clips, settings)
    result = run_heads(store_of(clap), drawn, settings, {"classes": {}})
    assert list(result.clips["label"]) == list(drawn.labels) and result.ablation.empty
    assert result.clips["group"].nunique() == 8 and drawn.grouped_by == "group"
    assert (result.points("head").p_adjusted < 0.05).any()  # noise and a hum, and noise and a tone, are told apart
    again = run_heads(store_of(clap), draw(clips[::-1], settings), settings, {})
    assert again.table.equals(result.table)
