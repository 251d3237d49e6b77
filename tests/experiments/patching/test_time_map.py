"""The time map: each window patched alone as a plain loop would, over pairs with intervals and p, and its masks."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax

from interp_core.choices import EMOTIONS
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.patching.chunks import patches_of
from interp_core.experiments.patching.experiment import PATCHING, map_by_hand
from interp_core.experiments.patching.necessity import MASKS, RANDOM_WINDOWS, SIDES, masked_side, moved, summarise_masks
from interp_core.experiments.patching.plan import Chunk
from interp_core.experiments.patching.positions import in_bands
from interp_core.experiments.patching.time_figures import time_figure
from interp_core.experiments.patching.time_map import COLUMNS, effects, pair_map, run_time_chunk, summarise_time
from interp_core.experiments.patching.windows import Span, shares
from interp_core.trace.patch import Patch
from tests.experiments.conftest import PROMPTS
from tests.experiments.plain_loop import PlainLoop
from tests.experiments.time_planted import clips as planted_clips
from tests.experiments.time_planted import mapped, planted

WINDOWS = 3


@pytest.fixture(scope="module")
def timed(plain):
    """Three windows of each pair, against random donors."""
    return replace(plain, maps=("time",), windows=WINDOWS, controls=("random",), batch_size=4)


@pytest.fixture(scope="module")
def timed_ready(engine, timed):
    return PATCHING.prepare(engine, timed)


@pytest.fixture(scope="module")
def folder(engine, timed, timed_ready, tmp_path_factory):
    out = tmp_path_factory.mktemp("timed") / "run"
    run(PATCHING, engine, timed, out=out, ready=timed_ready)
    return out


@pytest.fixture(scope="module")
def made(folder):
    return open_result(PATCHING, folder)


@pytest.fixture(scope="module")
def loop(timed_ready):
    return PlainLoop(timed_ready.store.subject, PROMPTS[0], EMOTIONS)


@pytest.fixture(scope="module")
def clips(timed_ready):
    return {clip.clip_id: clip for clip in timed_ready.manifest.clips}


def edges_of(length, windows):
    return [number * length // windows for number in range(windows + 1)]


@pytest.mark.parametrize("condition", ["matched", "random"])
def test_every_window_is_patched_alone_as_a_plain_loop_patches_it(made, loop, clips, condition):
    records = made.time_records[(made.time_records.kind == "prosody") & (made.time_records.condition == condition)]
    apart = 0.0
    for record in records[records.pair_id == records.pair_id.iloc[0]].itertuples():
        a, b = clips[record.recipient], clips[record.donor]
        (start, stop, _), (b_start, b_stop, _) = loop.span(a), loop.span(b)
        edges = edges_of(min(stop - start, b_stop - b_start), WINDOWS)
        state = loop.state(b, record.layer)
        for number, (i, j) in enumerate(zip(edges, edges[1:], strict=False)):
            logits = loop.patched(a, state[b_start + i : b_start + j], record.layer, range(start + i, start + j))
            expected = loop.read(logits)[0]
            np.testing.assert_allclose(record.patched_logits[number], expected, rtol=0, atol=1e-4 * abs(expected).max())
            assert record.windows[number] == pytest.approx([0.04 * i, 0.04 * j], abs=1e-4)
        if record.layer < 4:
            apart = max(apart, np.ptp(record.patched_logits, axis=0).max())
    assert apart > 0.5, "windows that all did the same would agree with a loop that ignores them"


def test_one_window_over_the_whole_span_is_the_ordinary_sweep(engine, timed):
    result = run(PATCHING, engine, replace(timed, windows=1))
    keys = ["kind", "condition", "pair_id", "layer"]
    whole = result.records.set_index(keys)["patched_logits"]
    for record in result.time_records.to_dict("records"):
        [logits] = record["patched_logits"]
        assert logits == pytest.approx(whole[tuple(record[key] for key in keys)], abs=1e-4)
    means = result.metrics[result.metrics.condition == "matched"].set_index(["kind", "layer"])
    for row in result.time_map.itertuples():
        assert row.mean == pytest.approx(means.loc[(row.kind, row.layer), "delta_logprob_target_mean"], abs=1e-4)
        reachable = means.loc[(row.kind, row.layer)]
        assert row.reachable_count == reachable["reachable_count"]
        assert row.flip_to_target_rate_reachable == pytest.approx(
            reachable["flip_to_target_rate_reachable"], nan_ok=True
        )


def test_a_clip_patched_into_itself_moves_no_window_and_another_one_does(timed_ready):
    ready = timed_ready
    pair = ready.plan.pairs.pairs[0]
    labels = ready.plan.labels[0].labels
    for donor, still in ((pair.recipient, True), (pair.donor, False)):
        chunk = Chunk(0, pair.kind, 0, 1.0, "matched", (replace(pair, donor=donor),), "time")
        found = pair_map(run_time_chunk(ready.plan, ready.store, chunk), labels)
        assert found.shape == (6, WINDOWS)
        assert (np.abs(found).max() < 1e-4) == still


def test_weaker_and_stretched_windows_follow_the_settings_of_the_run(engine, timed, timed_ready):
    pair = timed_ready.plan.pairs.pairs[0]
    whole = map_by_hand(engine, timed, pair)
    none = map_by_hand(engine, timed, pair, alpha=0.0)
    assert np.abs(pair_map(none, EMOTIONS)).max() < 1e-4 < np.abs(pair_map(whole, EMOTIONS)).max()
    stretched = map_by_hand(engine, replace(timed, align="resample"), pair)
    n = timed_ready.store.prompted(pair.recipient, PROMPTS[0]).audio
    assert stretched[0]["windows"][-1][1] == pytest.approx(0.04 * (n[1] - n[0])), "all of A"
    seconds = map_by_hand(engine, replace(timed, windows=None, window_seconds=0.1), pair)
    lengths = {round(stop - start, 2) for start, stop in seconds[0]["windows"]}
    assert lengths <= {0.08, 0.12}
    part = map_by_hand(engine, replace(timed, positions="0.1-0.3"), pair)
    assert part[0]["windows"][0][0] == pytest.approx(0.08) and part[0]["windows"][-1][1] <= 0.33


def test_windows_of_a_span_are_equal_whole_and_two_positions_or_more(timed_ready):
    [patch, *_], _, _ = patches_of(timed_ready.plan, timed_ready.store, timed_ready.plan.chunks[0])
    span = Span(patch.recipient.prompted, patch)
    for count in (1, 2, 3, 4, 50):
        windows = span.cut(count)
        lengths = [window.stop - window.first for window in windows]
        assert sum(lengths) == span.frames and max(lengths) - min(lengths) <= 1 and min(lengths) >= 2
        assert len(windows) == min(count, span.frames // 2)
        assert torch.equal(torch.cat([window.positions for window in windows]), patch.positions)
        assert torch.equal(torch.cat([window.source for window in windows]), patch.source)


def test_shares_lay_windows_over_a_grid_without_losing_time():
    assert np.array_equal(shares(4, 4), np.eye(4))
    assert shares(2, 4).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert shares(4, 2).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert shares(2, 3) == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))
    values = np.random.default_rng(0).normal(size=7)
    assert (shares(5, 7) @ values).mean() == pytest.approx(values.mean())


def record(pair, layer, patched, *, condition="matched", windows=None, text=None, target="a"):
    windows = windows or [[0.0, 0.5], [0.5, 1.0]]
    return {
        "kind": "k", "condition": condition, "pair_id": f"p{pair}", "layer": layer, "target": target,
        "recipient": f"c{pair if text is None else text}", "donor": f"d{pair}", "base_prediction": "b",
        "donor_prediction": "a", "base_logits": [0.0, 1.0], "windows": windows, "patched_logits": patched,
    }  # fmt: skip


CLUSTERS = {f"{side}{i}": f"{side}{i}" for side in "cd" for i in range(40)}


def test_the_mean_map_is_the_mean_over_pairs_laid_by_fraction():
    rows = [record(0, 3, [[2.0, 0.0], [0.0, 1.0]]), record(1, 3, [[0.0, 1.0], [0.0, 1.0]])]
    rows.append(record(2, 3, [[3.0, 0.0]], windows=[[0.0, 2.0]]))
    table = summarise_time(rows, ("a", "b"), CLUSTERS)
    assert list(table) == COLUMNS and table.window.tolist() == [0, 1] and set(table.layer) == {3}

    def change(logits):
        return log_softmax(logits)[0] - log_softmax([0.0, 1.0])[0]

    one, long = change([2.0, 0.0]), change([3.0, 0.0])
    assert table["mean"].tolist() == pytest.approx([(one + long) / 3, long / 3])
    assert table.start_s.tolist() == pytest.approx([0, (0.5 + 0.5 + 1) / 3])
    assert table.flip_to_target_rate_reachable.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert "1 of 3 pairs have other windows than 2" in table.interval_method[0]
    assert table[["low", "high", "p_adjusted"]].isna().all(axis=None) and "no random donor" in table.interval_method[0]
    again = summarise_time(rows[::-1], ("a", "b"), CLUSTERS)
    pd.testing.assert_frame_equal(table[["mean", "start_s", "n"]], again[["mean", "start_s", "n"]])


def test_p_is_of_the_matched_against_the_random_donor_over_all_cells_and_rounding_is_no_effect():
    rng = np.random.default_rng(1)
    rows = []
    for pair in range(24):
        for condition in ("matched", "random"):
            for layer in (0, 1):
                noise = rng.normal(scale=0.3, size=(2, 2))
                noise[1] = [0, 1 + (2e-5 if condition == "matched" else 0)]  # the same everywhere but for rounding
                noise[0, 0] += 3 * (condition == "matched" and layer == 1)
                rows.append(record(pair, layer, noise.tolist(), condition=condition))
    table = summarise_time(rows, ("a", "b"), CLUSTERS).set_index(["layer", "window"])
    named = table[table.p_adjusted < 0.05].index.tolist()
    assert named == [(1, 0)] and (table.p_adjusted.loc[:, 1] == 1).all()
    assert table.low.loc[1, 0] < table["mean"].loc[1, 0] < table.high.loc[1, 0] and table.low.loc[1, 0] > 0
    loose = summarise_time(rows, ("a", "b"), CLUSTERS, tolerance=1e-7).set_index(["layer", "window"])
    assert (loose.p_adjusted.loc[:, 1] < 0.05).all(), "control: without the tolerance rounding would be named"
    assert "the larger p of 24 recipient, 24 donor and 24 random donor clusters" in table.interval_method.iloc[0]


SEEDS = range(2)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_layer_and_half_that_carry_the_label_are_named_and_nothing_else(seed, tmp_path):
    layer, half = seed % 3, seed % 2
    result = mapped(planted(layer, half, seed=seed), planted_clips(tmp_path, seed=seed), seed=seed)
    table = result.time_map
    named = table[table.p_adjusted < 0.05][["layer", "window"]].to_numpy().tolist()
    assert named == [[layer, half]]
    best = table.loc[table["mean"].idxmax()]
    assert (best.layer, best.window) == (layer, half) and best["mean"] > 0.5 and best.low > 0
    assert best.flip_to_target_rate_reachable > 0.5
    top = result.mask_records
    assert ((top.layer == layer) & (top.window == half)).all()
    shares = result.necessity[result.necessity.pairs == "reachable"].set_index(["side", "mask"]).share_more
    for side in SIDES:
        assert shares[side, "silence"] == 1.0, "masking the window that carries it moves the answer more than the other"
    # The mean over both halves puts half of it into either: what one loses, the other gains.
    moved = result.mask_records[result.mask_records["mask"] == "mean"]
    assert moved["moved"].to_numpy() == pytest.approx(np.concatenate(moved["random_moved"].to_list()), rel=0.2)


def test_with_shuffled_labels_hardly_a_set_has_a_named_cell(tmp_path):
    subject, sets = planted(1, 1), 12
    found = [mapped(subject, planted_clips(tmp_path, seed=s, shuffled=True), seed=s).time_map for s in range(sets)]
    assert all(table.p_adjusted.notna().all() for table in found)
    assert sum((table.p_adjusted < 0.05).any() for table in found) <= 3  # of a rate of .05: chance of more is .002


@pytest.mark.parametrize("side", SIDES)
def test_masks_are_the_clips_own_mean_and_silence_as_a_plain_loop_puts_them(side, made, loop, clips, timed_ready):
    rows = made.mask_records[(made.mask_records.kind == "prosody") & (made.mask_records.side == side)]
    assert set(rows["mask"]) == set(MASKS)
    silent = {}
    for row in rows[rows.pair_id.isin(rows.pair_id.unique()[:2])].itertuples():
        a = clips[getattr(row, side)]
        np.testing.assert_allclose(row.base_logits, loop.read(loop.forward(a))[0], rtol=0, atol=1e-4)
        start, stop, _ = loop.span(a)
        first, last = start + round(row.start_s / 0.04), start + round(row.stop_s / 0.04)
        own = loop.state(a, row.layer)
        if row.mask == "mean":
            incoming = own[start:stop].mean(0).expand(last - first, -1)
        else:
            if a.clip_id not in silent:
                silent[a.clip_id] = timed_ready.store.silence(a, PROMPTS[0])
            inputs = dict(silent[a.clip_id].prompted.inputs)
            heard = loop.inputs(a)
            assert not torch.equal(inputs["input_features"], heard["input_features"])
            loop._inputs["silence"] = inputs
            incoming = loop.state(replace(a, clip_id="silence"), row.layer)[first:last]
            loop._states = {key: state for key, state in loop._states.items() if key[0] != "silence"}
        expected = loop.read(loop.patched(a, incoming, row.layer, range(first, last)))[0]
        np.testing.assert_allclose(row.masked_logits[0], expected, rtol=0, atol=1e-4 * abs(expected).max())
        change = expected - np.asarray(row.base_logits)
        assert row.moved == pytest.approx(change.std(), abs=1e-3), "root mean square about the mean"
        assert row.rank == 1 + sum(other >= row.moved for other in row.random_moved)
        apart = np.abs(np.subtract(row.random_start_s, row.start_s))
        assert 0 < len(apart) == len(row.random_moved) <= RANDOM_WINDOWS
        assert (apart > row.stop_s - row.start_s - 1e-3).all(), "no random window shares a position with the top one"
        own_map = made.time_records[(made.time_records.pair_id == row.pair_id) & (made.time_records.layer == row.layer)]
        matched = own_map[own_map.condition == "matched"].iloc[0]
        assert row.patched_effect == pytest.approx(effects(matched, EMOTIONS)[0][row.window], abs=1e-4)


def heard(first, frames, bands):
    """What a span asks of a clip: audio positions behind `first` others, in bands."""
    of = SimpleNamespace(
        clip_id="c", audio=(first, first + frames * bands), bands=(bands, frames), n_pos=first + frames * bands + 3,
        seconds_per_position=0.04,
    )  # fmt: skip
    return SimpleNamespace(prompted=of)


@pytest.mark.parametrize("align", ["truncate", "resample"])
@pytest.mark.parametrize("a_frames, b_frames", [(13, 20), (20, 13), (13, 13)])
@pytest.mark.parametrize("bands", [1, 3])
def test_windows_of_b_are_where_the_states_came_from(align, a_frames, b_frames, bands):
    a, b = heard(4, a_frames, bands), heard(6, b_frames, bands)
    both = min(a_frames, b_frames)
    frames = torch.arange(both if align == "truncate" else a_frames)
    source = frames.double() if align == "truncate" else torch.linspace(0, b_frames - 1, a_frames, dtype=torch.float64)
    span = in_bands(a.prompted, b.prompted, frames, source, 1.0)
    patch, pair = Patch(a, b, span.positions, span.source), SimpleNamespace(recipient="A", donor="B")
    for window in Span(a.prompted, patch).cut(4):
        clip, run, of_b, top = masked_side("donor", pair, patch, window)
        assert (clip, run, of_b.frames) == ("B", b, b_frames if align == "resample" else both)
        came_from = [round(one) for one in window.source.view(bands, -1)[0].tolist()]
        expected = torch.arange(min(came_from), max(came_from) + 1) + torch.arange(bands)[:, None] * b_frames
        assert top.positions.tolist() == expected.flatten().tolist()
        assert top.seconds == pytest.approx((0.04 * (min(came_from) - 6), 0.04 * (max(came_from) + 1 - 6)))
        assert masked_side("recipient", pair, patch, window).top is window


def test_a_folder_of_when_windows_were_masked_in_a_alone_still_opens(folder, tmp_path):
    old = shutil.copytree(folder, tmp_path / "run")
    for path in old.glob("time_necessity_*.csv"):
        table = pd.read_csv(path)
        table[table.side == "recipient"].drop(columns="side").to_csv(path, index=False)
    config = json.loads((old / "patching_config.json").read_text())
    config.pop("written_sha256", None)
    (old / "patching_config.json").write_text(json.dumps(config))
    read = open_result(PATCHING, old)
    assert set(read.necessity.side) == {"recipient"} and len(read.necessity) == 8


def test_a_shift_of_all_logits_is_no_movement():
    base = np.array([1.0, 2.0, 3.0])
    assert moved(base, base + 7) == pytest.approx(0) and moved(base, base + [0, 0, 3]) == pytest.approx(2**0.5)


def test_the_share_counts_pairs_whose_top_window_moves_more_than_the_mean_random_one():
    def row(pair, top, random, answer="b", side="recipient"):
        return {
            "kind": "k", "side": side, "mask": "mean", "pair_id": f"p{pair}", "recipient": f"c{pair}",
            "donor": f"d{pair}", "target": "a", "base_prediction": answer, "donor_prediction": "a",
            "moved": top, "random_moved": random, "rank": 1 + sum(other >= top for other in random),
        }  # fmt: skip

    rows = [row(0, 2.0, [1.0, 2.5]), row(1, 1.0, [1.0, 1.5]), row(2, 3.0, [0.0, 0.0], answer="a"), row(3, 1.0, [])]
    table = summarise_masks([*rows, row(0, 1.0, [1.0, 2.5], side="donor")], CLUSTERS)
    in_b = table[(table["side"] == "donor") & (table["mask"] == "mean")].set_index("pairs")
    assert in_b.n.to_dict() == {"reachable": 1, "all": 1} and in_b.share_more["all"] == 0
    table = table[(table["side"] == "recipient") & (table["mask"] == "mean")].set_index("pairs")
    assert table.n.to_dict() == {"reachable": 2, "all": 3}  # a pair without another window says nothing
    assert table.share_more.to_dict() == {"reachable": 1 / 2, "all": 2 / 3}
    assert table.rank_mean["all"] == pytest.approx((2 + 3 + 1) / 3) and "10 needed" in table.interval_method["all"]


def test_the_folder_holds_map_masks_and_picture_and_reads_back(folder, made):
    for kind in ("prosody", "semantic"):
        table = pd.read_csv(folder / f"time_map_{kind}.csv")
        assert list(table)[:9] == [
            "layer", "window", "start_s", "stop_s", "n", "mean", "low", "high", "p_adjusted",
        ]  # fmt: skip
        assert len(table) == 6 * WINDOWS
        assert (folder / f"time_map_{kind}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"time_necessity_{kind}.csv").exists()
    assert {"time_map", "necessity"} <= set(made.tables())
    assert "time_map_prosody" in made.figures()
    assert len(made.time_records) == 2 * 6 * len(made.pairs) and len(made.mask_records) == 4 * len(made.pairs)


def test_a_run_without_a_map_has_no_such_tables_and_a_lost_map_is_missed(folder, result, tmp_path):
    assert not {"time_map", "necessity"} & set(result.tables()) and result.time_map.empty
    with pytest.raises(InterpError, match="there is no time map to draw"):
        time_figure(result.time_map, "none")
    broken = shutil.copytree(folder, tmp_path / "run")
    (broken / "time_map_prosody.csv").unlink()
    with pytest.raises(InterpError, match=r"lacks? .*time_map_prosody\.csv"):
        open_result(PATCHING, broken)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"positions": "last"}, "cuts the recording into windows, but the run patches positions 'last'"),
        ({"windows": 4, "window_seconds": 0.2}, "either the number of windows or their length"),
        ({"maps": (), "windows": 4}, "--windows means nothing without --map time"),
        ({"maps": ("time", "time"), "windows": None}, "give each map once"),
        ({"windows": 0}, "too small"),
    ],
)
def test_what_no_map_can_be_made_of_is_refused_before_anything_runs(engine, timed, change, said):
    with pytest.raises(InterpError, match=said):
        PATCHING.prepare(engine, replace(timed, **change))


def test_requests_without_a_map_keep_their_key(plain, timed):
    assert replace(timed, maps=(), windows=None, controls=(), batch_size=plain.batch_size).key == plain.key
    assert timed.key != plain.key
