"""The map of heads: estimates verified by patches, one planted head found, nothing found where there is nothing."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom, spearmanr

from interp_core.choices import EMOTIONS
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.patching import head_table
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.head_map import check_head_map, parts_of
from interp_core.experiments.patching.head_table import COLUMNS, Measured, Part, choose, named, summarise_heads
from interp_core.experiments.patching.head_words import headline
from interp_core.experiments.patching.request import PatchRequest
from interp_core.maths.stats import crossed_max_test
from interp_core.resuming import resumable
from interp_core.sites import ATTRIBUTED
from tests.corpus import write_corpus
from tests.experiments.patching.planted_heads import planted_request
from tests.experiments.plain_loop import PlainLoop

SAME = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def wanted(plain):
    return replace(plain, kinds="prosody", max_pairs=4, layers=(1,), maps=("heads",), top_heads=3)


@pytest.fixture(scope="module")
def prepared(engine, wanted):
    return PATCHING.prepare(engine, wanted)


@pytest.fixture(scope="module")
def made(engine, wanted, prepared):
    return run(PATCHING, engine, wanted, ready=prepared)


def test_every_head_is_estimated_and_the_largest_and_ten_others_are_verified(made, prepared):
    table, subject = made.heads_of("prosody"), prepared.store.subject
    heads = table[table.site == "head_out"]
    assert list(table.columns) == COLUMNS and list(table.n.unique()) == [4]
    assert len(heads) == subject.n_layers * subject.n_heads and not heads.duplicated(["layer", "head"]).any()
    assert dict(table.groupby("site").size()) == {"attn_out": 5, "head_out": 20, "mlp_act": 80, "mlp_out": 5}
    assert set(heads[heads.verified == "largest"].estimate_rank) == {1, 2, 3}
    others = heads[heads.verified == "random"]
    assert len(others) == 10 and (others.estimate_rank > 3).all() and (others.layer < 4).all()
    assert table[table.site != "head_out"].verified.eq("").all() and table[table.verified == ""].true_mean.isna().all()
    for layer, rows in table.groupby("layer"):
        total = rows.groupby("site").estimate_mean.sum()
        assert total["head_out"] == pytest.approx(total["attn_out"], abs=1e-5), layer
        assert total["mlp_act"] == pytest.approx(total["mlp_out"], abs=1e-5), layer


def test_the_truth_is_that_of_the_models_own_forward_with_one_hook(engine, wanted, prepared, made):
    slow = run(PATCHING, engine, replace(wanted, method="reference"))
    for name in ("true_mean", "random_donor_mean"):
        np.testing.assert_allclose(slow.head_map[name], made.head_map[name], **SAME)
    verified = made.head_map[made.head_map.verified != ""]
    assert verified.true_mean.abs().max() > 0.01, "control: there is something to agree about"
    # One head by plain torch: a hook on the projection's input, over the audio positions that both clips have.
    loop = PlainLoop(prepared.store.subject, wanted.prompts[0], EMOTIONS)
    row, changes = verified.iloc[0], []
    for pair in prepared.plan.pairs.pairs:
        changes.append(_by_plain_hook(loop, pair, int(row.layer), int(row["head"])))
    assert row.true_mean == pytest.approx(np.mean(changes), abs=1e-4)


def _by_plain_hook(loop, pair, layer, head):
    projection = loop.hf.model.language_model.layers[layer].self_attn.o_proj
    width, seen, target = projection.weight.shape[1] // 4, [], EMOTIONS.index(pair.target)

    def logprob(clip):
        return torch.as_tensor(np.array(loop.read(loop.forward(clip))[0])).double().log_softmax(-1)[target]

    handle = projection.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    logprob(pair.donor)
    handle.remove()
    base = logprob(pair.recipient)
    (a0, a1), (b0, b1) = loop.span(pair.recipient)[:2], loop.span(pair.donor)[:2]
    m = min(a1 - a0, b1 - b0)

    def patched(_module, args):
        new = args[0].clone()
        new[0, a0 : a0 + m, head * width : (head + 1) * width] = seen[0][
            0, b0 : b0 + m, head * width : (head + 1) * width
        ]
        return (new,)

    handle = projection.register_forward_pre_hook(patched)
    after = logprob(pair.recipient)
    handle.remove()
    return float(after - base)


def test_more_pairs_in_a_batch_and_other_sites_change_no_estimate(engine, wanted, made):
    other = run(PATCHING, engine, replace(wanted, batch_size=1, map_sites=("mlp_out",)))
    assert set(other.head_map.site) == {"head_out", "mlp_out"}
    kept = made.head_map[made.head_map.site.isin({"head_out", "mlp_out"})].reset_index(drop=True)
    for name in ("estimate_mean", "true_mean", "attention_readout"):
        np.testing.assert_allclose(other.head_map[name], kept[name], **SAME)


@pytest.mark.parametrize("site", ["resid_post", "resid_pre", "pooled"])
def test_the_map_is_refused_at_the_residual_stream_with_the_reason(wanted, site):
    with pytest.raises(InterpError, match=r"r = 0\.17 to 0\.31" if site != "pooled" else "attribution is made for"):
        replace(wanted, map_sites=(site,)).check()


def test_a_model_without_heads_to_patch_is_refused_in_a_sentence(wanted):
    class Without:
        name, kinds, d_head = "net", ("resid_pre", "resid_post", "mlp_out"), 4

    with pytest.raises(InterpError, match="net has no head_out .*leave --map heads out"):
        check_head_map(Without(), wanted)
    check_head_map(Without(), replace(wanted, maps=()))


def test_without_the_map_nothing_moves(wanted):
    usual = replace(wanted, maps=(), top_heads=10)
    assert usual.key == replace(usual, map_sites=()).key != replace(usual, maps=("heads",)).key
    assert "heads" not in usual.command_line() and "maps" not in usual.snippet()


# ---- what is found ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("planted"), texts=12)


@pytest.mark.parametrize("seed", range(4))
def test_the_one_head_that_carries_the_label_is_named_first(texts, tmp_path, seed):
    engine = Engine()
    request, planted = planted_request(tmp_path, texts, seed, engine)
    result = run(PATCHING, engine, request)
    (kind,) = result.kinds
    table, agreement = result.heads_of(kind), result.agreement_of(kind)
    first = named(table).iloc[0]
    assert (first.layer, first["head"]) == planted and first.estimate_rank == 1 and first.true_mean > 1
    assert headline(table, agreement).startswith(f"heads: L{planted[0]}H{planted[1]} (+")
    assert agreement.spearman > 0.8 and agreement.wrong_sign_rate < 0.2


@pytest.mark.slow
def test_with_shuffled_labels_hardly_any_run_names_a_head(texts, tmp_path):
    engine, runs, named_in = Engine(), 12, 0
    request, _ = planted_request(tmp_path, texts, 0, engine)
    clips = pd.read_csv(request.manifest)
    for shuffle in range(runs):
        rng = np.random.default_rng(shuffle)
        own = texts.with_name(f"shuffled-{shuffle}.csv")
        clips.assign(prosody_label=rng.permutation(clips.prosody_label)).to_csv(own, index=False)
        result = run(PATCHING, engine, replace(request, manifest=str(own)))
        named_in += bool(len(named(result.heads_of(result.kinds[0]))))
    assert named_in <= binom.ppf(0.999, runs, 0.05)


HEADS = 48


def made_up(rng, effect=0.0, pairs=48, units=12):
    """Effects of heads that share what is particular to a unit; estimates are the truth and a little noise."""
    recipients, donors, others = (rng.integers(0, units, pairs) for _ in range(3))
    names = [[f"u{unit}" for unit in side] for side in (recipients, donors, others)]
    of_unit = rng.normal(size=(2, units, HEADS))

    def changes(side):
        return of_unit[0][recipients] + of_unit[1][side] + rng.normal(size=(pairs, HEADS))

    truth, random_truth = changes(donors), changes(others)
    truth[:, 5] += effect
    estimates, of_random = (values + 0.1 * rng.normal(size=values.shape) for values in (truth, random_truth))
    chosen = choose(estimates.mean(0), 10, 0)
    heads = list(chosen)
    parts = [Part("head_out", i // 4, i % 4, 0, 1) for i in range(HEADS)]
    attention = np.full((pairs, 2, HEADS), np.nan)
    return Measured(parts, chosen, estimates, of_random, truth[:, heads], random_truth[:, heads], attention, *names)


def table_of(measured):
    return summarise_heads(measured, "k", 0, draws=20, flips=200, column="unit")[0]


def test_no_head_is_named_beyond_the_stated_rate_though_the_largest_were_picked_first():
    data = [made_up(np.random.default_rng(seed)) for seed in range(100)]
    named_in = sum(len(named(table_of(one))) > 0 for one in data)
    assert named_in <= binom.ppf(0.999, len(data), 0.05)
    assert len(named(table_of(made_up(np.random.default_rng(1), effect=3.0)))) == 1, "control: an effect is named"
    careless = 0  # control: the verified heads alone, against nothing, tested on the pairs by which they were picked
    for one in data:
        sides = {"recipient": one.recipients, "donor": one.donors}
        p = crossed_max_test(one.truth, sides, draws=200).adjusted_p
        careless += p is not None and bool((p < 0.05).any())
    assert careless > 0.05 * len(data)


def test_the_agreement_is_that_of_scipy_and_wrong_signs_are_counted_by_hand():
    measured = made_up(np.random.default_rng(3), effect=1.0)
    table, agreement = summarise_heads(measured, "k", 0, draws=200, flips=200, column="unit")
    heads = list(measured.chosen)
    estimates = measured.estimates[:, heads]
    means = spearmanr(estimates.mean(0), measured.truth.mean(0)).statistic
    assert agreement["spearman"] == pytest.approx(means)
    assert agreement["spearman_low"] <= means <= agreement["spearman_high"]
    within = [spearmanr(x, y).statistic for x, y in zip(estimates, measured.truth, strict=True)]
    assert agreement["spearman_pair_median"] == pytest.approx(np.median(within))
    random = [i for i, head in enumerate(heads) if measured.chosen[head] == "random"]
    alone = spearmanr(estimates[:, random].mean(0), measured.truth[:, random].mean(0)).statistic
    assert agreement["spearman_random"] == pytest.approx(alone)
    wrong = np.sign(estimates) != np.sign(measured.truth)
    assert agreement["wrong_sign_rate"] == pytest.approx(wrong.mean()) and agreement["n_signs"] == wrong.size
    rows = table[table.verified != ""].sort_values(["layer", "head"])
    order = np.argsort(heads)
    np.testing.assert_allclose(rows.wrong_sign_rate, wrong.mean(0)[order])
    np.testing.assert_allclose(rows.true_mean, measured.truth.mean(0)[order])
    assert 0 < wrong.mean() < 0.5, "control: some signs are wrong"


def test_few_units_give_no_interval_and_no_p_and_the_reason():
    few = made_up(np.random.default_rng(0), pairs=12, units=4)
    table, agreement = summarise_heads(few, "k", 0, draws=20, flips=50, column="speaker")
    verified = table[table.verified != ""]
    assert verified[["true_low", "true_high", "p_adjusted", "wrong_sign_low"]].isna().all().all()
    assert verified.interval_method.str.contains("no interval: 4 speaker clusters.*not testable").all()
    assert np.isnan(agreement["spearman_low"]) and "no head is named: not testable" in headline(
        table, pd.Series(agreement)
    )


def test_heads_that_nothing_reads_are_not_drawn_and_the_draw_hangs_on_the_seed_alone():
    means = np.r_[np.linspace(1, 2, 30), np.zeros(18)]
    one, other = choose(means, 5, 1), choose(means, 5, 2)
    assert one == choose(means, 5, 1) != other and len(one) == 15
    assert [head for head, why in one.items() if why == "largest"] == [29, 28, 27, 26, 25]
    assert max(one) < 30 and choose(means[:6], 5, 1).keys() == set(range(6))


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_folder_reads_back_what_was_computed_and_one_without_the_map_still_opens(
    engine, wanted, made, prepared, tmp_path
):
    out = tmp_path / "run"
    run(PATCHING, engine, wanted, ready=prepared, out=out)
    again = open_result(PATCHING, out)
    assert (out / "head_map_prosody.png").stat().st_size > 20_000
    pd.testing.assert_frame_equal(again.head_map, made.head_map, check_dtype=False)
    pd.testing.assert_frame_equal(again.head_agreement, made.head_agreement, check_dtype=False)
    assert list(PATCHING.summary(again)) == list(PATCHING.summary(made))
    assert {"head_map", "head_agreement"} <= set(again.tables()) and "head_map_prosody" in again.figures()
    old = _without_the_map(out, tmp_path / "old")
    opened = open_result(PATCHING, old)
    assert opened.head_map.empty and "head_map" not in opened.tables() and "head_map_prosody" not in opened.figures()
    assert len(list(PATCHING.summary(opened))) == 1


def _without_the_map(folder, to):
    """The folder as an earlier version wrote it: no files, no settings, no digests of the map."""
    shutil.copytree(folder, to)
    for path in to.glob("head_*"):
        path.unlink()
    config = json.loads((to / "patching_config.json").read_text())
    for name in ("maps", "top_heads", "map_sites"):
        del config["settings"][name]
        config["asked"].pop(name, None)
    config["written_sha256"] = {k: v for k, v in config["written_sha256"].items() if not k.startswith("head_")}
    (to / "patching_config.json").write_text(json.dumps(config))
    return to


def test_a_run_that_was_begun_before_there_were_maps_is_gone_on_with(engine, wanted, tmp_path):
    usual = replace(wanted, maps=(), top_heads=10)
    config = PATCHING.prepare(engine, usual).config
    old = tmp_path / "old"
    old.mkdir()
    before = {
        name: value for name, value in config["settings"].items() if name not in ("maps", "top_heads", "map_sites")
    }
    (old / "patching_config.json").write_text(json.dumps({**config, "settings": before}, default=str))
    assert resumable(old, config, "patching_config.json")
    with pytest.raises(InterpError, match="settings.top_heads"):
        resumable(
            old, PATCHING.prepare(engine, replace(usual, maps=("heads",), top_heads=4)).config, "patching_config.json"
        )


def test_the_cost_names_the_passes_of_the_map(engine, wanted):
    usual = PatchRequest(wanted.model)
    with_map = PATCHING.cost(PATCHING.prepare(engine, wanted)).forwards
    without = PATCHING.cost(PATCHING.prepare(engine, replace(wanted, maps=(), top_heads=usual.top_heads))).forwards
    more = PATCHING.cost(PATCHING.prepare(engine, replace(wanted, top_heads=9))).forwards
    assert without + 4 * 3 < with_map < more
    assert more - with_map < 4 * 2 * 6 * 1.2, "a head more is at most a pass with B and one with a random donor"


def test_parts_cut_each_layer_without_a_gap(prepared, engine, wanted):
    subject, clip = prepared.store.subject, prepared.plan.pairs.pairs[0].recipient
    parts = parts_of(subject, prepared.store.run(clip, wanted.prompts[0], ATTRIBUTED), ATTRIBUTED)
    for layer in range(subject.n_layers):
        blocks = [part for part in parts if part.site == "mlp_act" and part.layer == layer]
        assert len(blocks) == 16 and blocks[0].first == 0 and blocks[-1].stop == 96
        assert all(one.stop == other.first for one, other in zip(blocks, blocks[1:], strict=False))
    assert head_table.TOP == "largest"
