"""Patches within a subspace: as a plain loop makes them, fitted without A's and B's units, found where planted."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from interp_core.cache import ByteCache
from interp_core.choices import EMOTIONS
from interp_core.data.pairs import build_pairs, parse_kinds
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.plan import plan
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.run import run_patching
from interp_core.experiments.patching.subspace import Subspaces, read_subspaces
from interp_core.experiments.patching.subspace_figures import subspace_figure
from interp_core.experiments.patching.subspace_table import COLUMNS, summarise_subspace
from interp_core.experiments.patching.subspace_words import sentence
from interp_core.maths.subspaces import random_basis
from interp_core.sinks import MEMORY
from interp_core.trace.store import CleanStore
from tests.experiments.conftest import PROMPTS
from tests.experiments.plain_loop import PlainLoop
from tests.experiments.time_planted import LABELS, planted
from tests.experiments.time_planted import clips as planted_clips

RANK, DRAWS = 2, 2


@pytest.fixture(scope="module")
def within(plain):
    """Pairs that differ in words; their speakers are the units, so two of three are left to fit on."""
    return replace(
        plain, kinds="semantic", max_pairs=4, layers=(-1, 2), subspace="mean-difference", rank=RANK,
        subspace_draws=DRAWS, batch_size=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def within_ready(engine, within):
    return PATCHING.prepare(engine, within)


@pytest.fixture(scope="module")
def folder(engine, within, within_ready, tmp_path_factory):
    out = tmp_path_factory.mktemp("within") / "run"
    run(PATCHING, engine, within, out=out, ready=within_ready)
    return out


@pytest.fixture(scope="module")
def made(folder):
    return open_result(PATCHING, folder)


def test_a_subspace_is_that_of_class_means_without_the_pairs_units_and_is_patched_as_a_plain_loop_does(
    made, within_ready
):
    clips = {clip.clip_id: clip for clip in within_ready.manifest.clips}
    loop = PlainLoop(within_ready.store.subject, PROMPTS[0], EMOTIONS)

    def mean_state(clip, layer):
        start, stop, _ = loop.span(clip)
        return loop.state(clip, layer)[start:stop].numpy().mean(0, dtype=np.float64)

    moved = 0.0
    for record in made.subspace_records.head(2).to_dict("records"):
        a, b, layer = clips[record["recipient"]], clips[record["donor"]], record["layer"]
        others = [c for c in clips.values() if c.label("speaker") not in (a.label("speaker"), b.label("speaker"))]
        classes = sorted({clip.label("semantic_label") for clip in others})
        assert (record["fitted_classes"], record["fitted_clips"]) == (len(classes), len(others)) == (3, 8)
        means = [np.mean([mean_state(c, layer) for c in others if c.label("semantic_label") == k], 0) for k in classes]
        centred = np.stack(means) - np.mean(means, 0)
        values, vectors = np.linalg.eigh(centred.T @ centred)
        basis = vectors[:, np.argsort(values)[::-1][:RANK]].T
        drawn = [random_basis(basis.shape[1], RANK, 42, "subspace", draw, layer).numpy() for draw in range(DRAWS)]
        (start, stop, _), (b_start, b_stop, _) = loop.span(a), loop.span(b)
        length = min(stop - start, b_stop - b_start)
        own = loop.state(a, layer)[start : start + length].double().numpy()
        change = loop.state(b, layer)[b_start : b_start + length].double().numpy() - own
        shares = []
        for one, logits in zip([basis, *drawn], [record["patched_logits"], *record["random_logits"]], strict=True):
            incoming = torch.from_numpy(own + change @ one.T @ one).float()
            expected = loop.read(loop.patched(a, incoming, layer, range(start, start + length)))[0]
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * abs(expected).max())
            moved = max(moved, abs(expected - np.asarray(record["base_logits"])).max())
            shares.append(((change @ one.T) ** 2).sum() / (change**2).sum())
        assert [record["share"], *record["random_share"]] == pytest.approx(shares, abs=1e-4)
    assert moved > 0.1, "a loop of patches that do nothing would agree as well"


def test_clips_of_the_pairs_own_units_have_no_hand_in_its_subspace(within_ready):
    fitted = read_subspaces(within_ready.plan, within_ready.store, MEMORY, lambda *_: None)
    pair = within_ready.plan.pairs.pairs[0]
    own = {fitted.units[clip.clip_id] for clip in (pair.recipient, pair.donor)}
    mine = torch.tensor([fitted.units[clip.clip_id] in own for clip in fitted.clips])
    bases, _, _ = fitted.of(pair)
    for rows, same in ((mine, True), (~mine, False)):
        torch.manual_seed(0)
        shaken = {la: state + 9 * rows[:, None] * torch.randn(state.shape) for la, state in fitted.states.items()}
        again, _, _ = Subspaces(fitted.clips, shaken, fitted.units, fitted.settings).of(pair)
        assert all(torch.equal(again[layer], bases[layer]) for layer in bases) == same


def planted_run(folder, rank, *, labels="prosody_label", seed=0):
    """A model in which mlp_out of layer 1 alone carries the label, in two directions of eleven."""
    some = planted_clips(folder, seed=seed)
    asked = PatchRequest(
        "planted", "none", kinds="prosody", labels=LABELS, prompts=("",), site="mlp_out", positions="audio",
        controls=(), flow=(), checks=False, max_pairs=24, subspace="mean-difference", rank=rank, subspace_draws=20,
        subspace_label="" if labels == "prosody_label" else labels,
    )  # fmt: skip
    subject = planted(1, 1)
    made = build_pairs(some, parse_kinds("prosody"), labels=LABELS, max_pairs=24, seed=seed)
    config = {"settings": {"labels": LABELS, "prompts": ("",)}, "model": {"id": "planted"}}
    store = CleanStore(subject, ByteCache(1 << 26))
    return run_patching(plan(subject, made, some, asked), store, some, config, sink=MEMORY)


def changes(table, layer):
    return table[table.layer == layer].set_index("condition").delta_logprob_target_mean


def test_two_planted_directions_do_what_the_whole_state_does_and_one_or_random_ones_less(tmp_path):
    result = planted_run(tmp_path, 2)
    table = result.subspace
    found = changes(table, 1)
    assert found["subspace"] == pytest.approx(found["whole"], rel=0.02) and found["whole"] > 0.5
    one = changes(planted_run(tmp_path, 1).subspace, 1)["subspace"]
    assert found["random"] < 0.6 * found["whole"] and one < 0.9 * found["whole"]
    own = table[table.condition == "subspace"].set_index("layer")
    assert own.p_adjusted[1] < 0.05 and own.flip_to_target_rate_reachable[1] > 0.9
    assert changes(table, 0)[["whole", "subspace"]].abs().max() < 1e-6  # where classes differ in what nobody reads
    words = sentence(table, 1)
    assert words.startswith("2 directions at layer 1") and "20 random subspaces" in words and "adjusted p" in words


def test_classes_that_have_nothing_to_do_with_the_answer_are_told_from_random_ones_in_no_layer(tmp_path):
    table = planted_run(tmp_path, 1, labels="text_id").subspace
    own = table[table.condition == "subspace"].set_index("layer")
    assert own.share[1] > 0 and changes(table, 1)["subspace"] < 0.6 * changes(table, 1)["whole"]


def test_the_table_holds_the_runs_own_matched_numbers_and_means_of_draws(made):
    table, matched = made.subspace, made.metrics[made.metrics.condition == "matched"].set_index("layer")
    whole = table[table.condition == "whole"].set_index("layer")
    assert list(table) == COLUMNS and (whole.share == 1).all()
    for column in ("flip_to_target_rate_reachable", "delta_logprob_target_mean", "delta_logprob_target_mean_low"):
        np.testing.assert_allclose(whole[column].astype(float), matched[column].astype(float), atol=1e-9)
    for layer, rows in made.subspace_records.groupby("layer"):
        said = []
        for draw in range(DRAWS):
            each = []
            for row in rows.to_dict("records"):
                at = EMOTIONS.index(row["target"])
                each.append(_log_share(row["random_logits"][draw], at) - _log_share(row["base_logits"], at))
            said.append(np.mean(each))
        random = table[(table.condition == "random") & (table.layer == layer)].iloc[0]
        ends = [random[f"delta_logprob_target_mean{end}"] for end in ("", "_low", "_high")]
        assert ends == pytest.approx([np.mean(said), min(said), max(said)], abs=1e-9)
        assert random["share"] == pytest.approx(np.mean(rows["random_share"].tolist()), abs=1e-9)
    own = table[table.condition == "subspace"]
    assert own.interval_method.str.contains("not testable").all() and own.p_adjusted.isna().all()
    assert f"not testable: {DRAWS} random draws, 20 needed (--subspace-draws 20)" in sentence(
        table, int(own.layer.iloc[0])
    )
    assert summarise_subspace([], made.records, EMOTIONS, {}).empty


def _log_share(logits, at):
    values = np.asarray(logits)
    return values[at] - np.log(np.exp(values).sum())


def test_the_folder_holds_table_records_and_picture_and_a_lost_table_is_missed(folder, made, tmp_path):
    assert (folder / "subspace_semantic.png").read_bytes().startswith(b"\x89PNG")
    assert list(pd.read_csv(folder / "subspace_semantic.csv")) == COLUMNS
    assert "subspace" in made.tables() and "subspace_semantic" in made.figures()
    assert len(made.subspace_records) == 2 * len(made.pairs)
    with pytest.raises(InterpError, match="there are no subspaces to draw"):
        subspace_figure(made.subspace.iloc[:0], "none")
    broken = shutil.copytree(folder, tmp_path / "run")
    (broken / "subspace_semantic.csv").unlink()
    with pytest.raises(InterpError, match=r"lacks? .*subspace_semantic\.csv"):
        open_result(PATCHING, broken)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"rank": 3}, r"rank 3 needs the mean states of 4 classes, .*speaker\) fewer are left for 4 of 4 pairs"),
        ({"subspace": "none"}, "--rank means nothing without --subspace other than none"),
        ({"rank": 9}, "too large"),
        ({"pairs": ("t0-happy <- t1-happy",), "kinds": "", "subspace_label": "nothing"}, r"\(0 of nothing\)"),
    ],
)
def test_what_has_no_subspace_is_refused_before_anything_runs(engine, within, change, said):
    if "pairs" in change:
        change = {**change, "max_pairs": 100}
    with pytest.raises(InterpError, match=said):
        PATCHING.prepare(engine, replace(within, **change))


def test_requests_without_a_subspace_keep_their_key(plain, within):
    assert replace(plain, subspace="none", rank=1).key == plain.key != replace(plain, subspace="mean-difference").key
