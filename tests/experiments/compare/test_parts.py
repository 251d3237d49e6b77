"""The pieces of a comparison: maps fitted without the donor, halves and units, probes, passes over unequal clips."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge

from interp_core.choices import DEFAULT_PROMPT, EMOTIONS
from interp_core.data.clips import Clip
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.compare.clean import keep_some
from interp_core.experiments.compare.experiment import COMPARE
from interp_core.experiments.compare.measures import accuracies, rank_correlation
from interp_core.experiments.compare.passes import batches, frame_shares, one_frame, time_mean
from interp_core.experiments.compare.probes import probe_sites, subsets
from interp_core.experiments.compare.report import undefined_before_onset
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.transplants import RIDGE, FittedMap, parse_patch
from interp_core.experiments.compare.units import Columns, describe_clips
from interp_core.options import from_config, to_config
from interp_core.sites import Site
from interp_core.trace.hooks import captured
from tests.corpus import write_corpus
from tests.experiments.compare_cases import QUICK, asked, compared
from tests.spoof_pairs import save_pair, write_spoof_corpus
from tests.tiny import LABELS, save_qwen2_audio

ANY = Columns("", "", "", "", "")


# ---- maps ------------------------------------------------------------------------------------------------------------


def fitted(x, y, parts=3):
    made = FittedMap(x.shape[1])
    for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
        made.add(a, b)
    return made


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_maps_agree_with_scikit_learn_and_scipy_fitted_on_all_rows_at_once(offset):
    torch.manual_seed(0)
    x = torch.randn(200, 6).double() @ torch.randn(6, 6).double() + offset
    y = x @ torch.randn(6, 6).double() + torch.randn(200, 6) + 3
    made, new = fitted(x, y), torch.randn(5, 6).double() + offset
    centred_x, centred_y = x - x.mean(0), y - y.mean(0)
    assert made.made("mean")(new) == pytest.approx(new + (y - x).mean(0), abs=1e-8)
    penalty = RIDGE * float((centred_x**2).mean()) * len(x)
    ridge = Ridge(alpha=penalty).fit(centred_x, centred_y - centred_x)
    expected = new + torch.from_numpy(ridge.predict(new - x.mean(0))) + (y - x).mean(0)
    assert made.made("ridge")(new) == pytest.approx(expected, abs=1e-6)
    turn, _ = orthogonal_procrustes(centred_x, centred_y)
    expected = (new - x.mean(0)) @ torch.from_numpy(turn) + y.mean(0)
    assert made.made("procrustes")(new) == pytest.approx(expected, abs=1e-3)


def test_a_planted_rotation_is_found_and_directions_that_no_clip_shows_are_left_as_they_are():
    torch.manual_seed(1)
    turn, _ = torch.linalg.qr(torch.randn(4, 4).double())
    x = torch.zeros(50, 6).double()
    x[:, :4] = torch.randn(50, 4)
    y = x.clone()
    y[:, :4] = x[:, :4] @ turn
    move = fitted(x, y).made("procrustes")
    assert move(x) == pytest.approx(y, abs=1e-4)
    unseen = torch.zeros(1, 6).double()
    unseen[0, 5] = 1
    assert (move(unseen) - move(torch.zeros(1, 6).double())) == pytest.approx(unseen, abs=1e-9)


def test_equal_activations_give_maps_that_do_nothing():
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(2))
    for mode in ("mean", "ridge", "procrustes"):
        assert fitted(x, x).made(mode)(x) == pytest.approx(x, abs=1e-5)
    with pytest.raises(InterpError, match="no clip came"):
        FittedMap(3).made("mean")


def test_maps_are_fitted_on_the_choosing_half_and_act_without_the_donor(tmp_path):
    settings = replace(QUICK, patch=("none",), stages=(), maps=("mean",), map_at=("projection",), weights=False)
    question = asked(*save_pair(tmp_path, "tuned"), write_spoof_corpus(tmp_path / "clips", speakers=4), settings)
    made = compared(question)
    reads = {}
    for side, store in (("base", question.base), ("donor", question.donor)):
        waves = [store.samples(clip) for clip in question.clips]
        with torch.inference_mode():
            reads[side] = store.subject.hf(**store.subject.checkpoint.inputs(waves))["repr"].double()
    half = torch.from_numpy(question.units.chosen_on)
    assert half.any() and not half.all()
    shift = (reads["donor"] - reads["base"])[half].mean(0)
    with torch.inference_mode():
        expected = question.base.subject.hf.task_head((reads["base"] + shift).float())
    rows = made.scores[made.scores["model"] == "projection by mean"]
    assert rows[["logit_bonafide", "logit_spoof"]].to_numpy() == pytest.approx(expected.numpy(), abs=1e-4)


# ---- units -----------------------------------------------------------------------------------------------------------


def clip(number, **labels):
    return Clip(f"c{number}", None, {k: v for k, v in labels.items() if v}, f"{number:064x}")


def test_halves_share_no_speaker_and_have_every_class_and_few_speakers_make_no_halves():
    many = [clip(i, label="spoof" if i % 2 else "genuine", speaker=f"s{i % 2}{i % 12}") for i in range(60)]
    units = describe_clips(many, ANY, ("a", "b"))
    assert units.positive == "genuine" and units.columns.speaker == "speaker"
    assert not set(units.speakers[units.chosen_on]) & set(units.speakers[units.reported])
    for half in (units.chosen_on, units.reported):
        assert set(units.labels[half]) == {"genuine", "spoof"} and 0 < half.sum() < 60
    few = describe_clips([c for c in many if c.labels["speaker"] in ("s00", "s11")], ANY, ("a", "b"))
    assert few.chosen_on.all() and few.reported.all() and "no halves" in few.split


def test_a_speaker_heard_in_both_classes_stays_in_one_half():
    both = [clip(i, label=("bonafide", "spoof")[i % 2], speaker=f"s{i // 2 % 10}") for i in range(80)]
    units = describe_clips(both, ANY, ())
    assert not set(units.speakers[units.chosen_on]) & set(units.speakers[units.reported])
    assert units.reported.any() and units.chosen_on.any()


def test_without_two_classes_there_is_no_positive_one():
    three = [clip(i, label="abc"[i % 3], speaker=f"s{i}") for i in range(12)]
    assert not describe_clips(three, ANY, ("a", "b", "c")).scored
    gaps = [clip(i, label=["bonafide", "spoof", ""][i % 3], speaker=f"s{i}") for i in range(12)]
    assert not describe_clips(gaps, ANY, ()).scored
    two = [clip(i, label="xy"[i % 2], speaker=f"s{i}") for i in range(12)]
    assert describe_clips(two, ANY, ("x", "y")).positive == "x"


def test_whole_groups_are_kept_up_to_the_limit():
    clips = [clip(i, label="ab"[i % 2], speaker=f"s{i // 4}", utterance=f"u{i // 4}") for i in range(40)]
    units = describe_clips(clips, ANY, ())
    kept = keep_some(units, 14, 0)
    assert len(kept) == 12 and set(np.bincount(kept // 4)) <= {0, 4}
    assert list(keep_some(units, 40, 0)) == list(range(40))


# ---- measures --------------------------------------------------------------------------------------------------------


def test_layers_and_words_for_patches():
    assert parse_patch(["auto:2", "1,3"], 4, [0.1, 0.5, 0.2, 0.4]) == [
        ("2 most divergent by CKA", (1, 3)),
        ("by hand", (1, 3)),
    ]
    assert [layers for _, layers in parse_patch(["each"], 3, [0] * 3)] == [(0,), (1,), (2,)]
    assert [layers for _, layers in parse_patch(["cumulative"], 3, [0] * 3)] == [(0,), (0, 1), (0, 1, 2)]
    assert parse_patch(["auto:3"], 4, [np.nan, np.nan, 0.2, np.nan]) == [("1 most divergent by CKA", (2,))]
    assert parse_patch(["none"], 4, [0] * 4) == []


def test_rank_correlation_is_spearmans_or_says_why_there_is_none():
    found = rank_correlation([0.1, 0.2, 0.3, 0.4, np.nan], [1.0, 4.0, 9.0, 8.0, 2.0])
    assert found["rho"] == pytest.approx(0.8) and found["n"] == 4
    assert rank_correlation([0.1, 0.2, 0.3], [1, 2, 3])["reason"].startswith("3 layers")
    assert "the same at every layer" in rank_correlation([0.0] * 5, [1, 2, 3, 4, 5])["reason"]


def test_accuracy_intervals_draw_units_and_differences_are_paired():
    rng = np.random.default_rng(0)
    units = [f"u{i // 3}" for i in range(60)]
    base = (rng.random(60) < 0.7).astype(float)
    value, (low, high), (gap_low, gap_high), method = accuracies(np.stack([base, base]), units)
    assert value[0] == base.mean() and low[0] < value[0] < high[0] and "20 units" in method
    assert gap_low[1] == gap_high[1] == 0
    assert "no interval" in accuracies(base[None, :9], units[:9])[3]


def test_settings_survive_their_config():
    made = replace(QUICK, map_at=("mixed",), bonafide_index=1, labels=("a", "b"))
    assert from_config(CompareRequest, json.loads(json.dumps(to_config(made)))) == made
    with pytest.raises(InterpError, match="unknown settings 'shape'"):
        from_config(CompareRequest, {"shape": 1})
    with pytest.raises(InterpError, match="--batch-size 0 is too small"):
        CompareRequest("m", batch_size=0).check()


# ---- probes ----------------------------------------------------------------------------------------------------------


def test_probes_are_of_each_class_apart_and_a_planted_codec_is_read_where_it_was_put():
    clips = [
        clip(i, label=("bonafide", "spoof")[i // 45], utterance=f"u{i // 3}", speaker=f"s{i // 9}", codec="xyz"[i % 3])
        for i in range(90)
    ]
    units, domain = describe_clips(clips, ANY, ()), np.array(["xyz"[i % 3] for i in range(90)])
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((90, 8)).astype(np.float32)
    marked = clean + 3 * np.eye(8)[np.arange(90) % 3].astype(np.float32)
    models = {"base": {"a": marked, "b": clean}, "donor": {"a": clean, "b": clean}}
    everybody = np.ones(90, bool)
    table = probe_sites(models, units, domain, everybody, draws=0, seed=0, measured="site").set_index(
        ["model", "site", "clips"]
    )
    assert {name: len(rows) for name, rows in subsets(units, domain, everybody).items()} == {
        "bonafide": 45,
        "spoof": 45,
    }
    for name in ("bonafide", "spoof"):
        assert table.at[("base", "a", name), "accuracy"] > 0.9
        assert table.at[("donor", "a", name), "accuracy"] < 0.6
        assert table.at[("donor", "a", name), "difference_high"] < 0
        assert table.at[("donor", "b", name), "difference"] == 0
        assert table.at[("base", "a", name), "chance"] == pytest.approx(1 / 3)


@pytest.mark.slow
def test_a_transplant_is_probed_behind_its_edit_on_the_reporting_half(tmp_path):
    settings = replace(
        QUICK, domain="codec", patch=("none",), stages=("mixed", "projection"), reverse=False, weights=False
    )
    clips = write_spoof_corpus(tmp_path / "clips", speakers=8, utterances=1, codecs=("NONE", "C01"))
    question = asked(*save_pair(tmp_path, "tuned"), clips, settings)
    made = compared(question)
    after = made.probes[made.probes["measured"] == "transplant"].set_index(["model", "clips"])
    assert set(after["site"]) == {"projection"}
    for name in ("bonafide", "spoof"):
        given = after.loc[("projection", name)]
        assert given["accuracy"] == after.loc[("donor", name)]["accuracy"]  # the donor's own representation
        assert "by construction" in given["note"] and after.loc[("mixed", name)]["note"] == ""
        assert given["n"] == int((question.units.reported & (question.units.labels == name)).sum())
    assert f"probe_{name}_difference" in made.summary


# ---- the passes ------------------------------------------------------------------------------------------------------


def test_time_means_and_frames_are_of_the_recording_of_each_clip_in_a_padded_batch(tmp_path):
    folder = save_qwen2_audio(tmp_path / "model", n_layers=2)
    settings = CompareRequest(
        "m",
        patch=("each",),
        labels=tuple(LABELS),
        prompt="Which?",
        label="prosody_label",
        speaker="speaker",
        batch_size=3,
    )
    question = asked(folder, folder, write_corpus(tmp_path / "clips"), settings)
    subject, site = question.base.subject, Site("resid_post", 0)
    first = next(batches(question.base, question.donor, question.clips, "Which?", question.planned[:1]))
    with captured(subject, [site]) as seen, torch.inference_mode():
        first.base.forward()
    shares = frame_shares(question.clips, 3)
    means = time_mean(first.base, site, seen[site])
    frames = one_frame(first.base, site, seen[site], [shares[row] for row in first.rows])
    assert len({len(question.base.samples(question.clips[row])) for row in first.rows}) > 1
    for i, row in enumerate(first.rows):
        alone = question.base.run(question.clips[row], "Which?")
        start, stop = alone.prompted.audio
        state = alone.at("resid_post", 0)[start:stop]
        assert means[i] == pytest.approx(state.mean(0).numpy(), abs=1e-4)
        assert frames[i] == pytest.approx(state[int(shares[row] * (stop - start))].numpy(), abs=1e-4)


def test_two_audio_llms_are_compared_by_the_logits_of_their_answers(tmp_path):
    base, donor = (save_qwen2_audio(tmp_path / name, n_layers=3, seed=seed) for name, seed in (("a", 0), ("b", 1)))
    settings = CompareRequest(
        "m", patch=("each",), labels=tuple(LABELS), prompt="Which?", label="prosody_label", domain="none", batch_size=4
    )
    made = compared(asked(base, donor, write_corpus(tmp_path / "clips"), settings))
    by_model = made.scores.groupby("model")
    columns = [f"logit_{label}" for label in LABELS]
    last = by_model.get_group("layer 2")[columns].to_numpy()
    own, other = (by_model.get_group(name)[columns].to_numpy() for name in ("base", "donor"))
    assert np.abs(own - other).max() > 0.1 and np.abs(last - own).max() > 0.1
    assert "accuracy" in made.summary and "eer" not in made.summary
    assert made.summary.loc[made.summary["model"] == "layer 0", "needs_donor"].item() == "yes"


def test_two_audio_llms_are_asked_the_default_question_unless_somebody_asks_otherwise(tmp_path):
    base, donor = (save_qwen2_audio(tmp_path / name, n_layers=2, seed=seed) for name, seed in (("a", 0), ("b", 1)))
    plain = CompareRequest(str(base), str(write_corpus(tmp_path / "clips")), donor=str(donor), device="cpu")
    found = COMPARE.prepare(Engine(), plain).request
    assert (found.prompt, found.labels) == (DEFAULT_PROMPT, EMOTIONS)
    told = COMPARE.prepare(Engine(), replace(plain, prompt="Which?", labels=("happy", "sad"))).request
    assert (told.prompt, told.labels) == ("Which?", ("happy", "sad"))


@pytest.mark.parametrize(
    ("onset", "undefined", "said"),
    [
        (None, [], ""),
        (3, [4], ""),
        (None, [0, 2], " but layers 0, 2, where CKA is undefined"),
        (3, [1, 5], ", or before: CKA is undefined at layer 1"),
    ],
)
def test_an_onset_says_which_layers_before_it_have_no_cka(onset, undefined, said):
    assert undefined_before_onset({"onset": onset, "undefined": undefined}) == said


def test_findings_written_before_undefined_layers_were_kept_are_read():
    assert undefined_before_onset({"onset": None}) == ""
