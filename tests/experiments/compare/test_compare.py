"""Two models side by side: planted differences are found where they are, and null transplants are exactly null."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import WavLMForSequenceClassification

from interp_core.data.manifest import read_manifest
from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments.compare import patch as compare_patch
from interp_core.experiments.compare.passes import answer, batches
from interp_core.experiments.compare.patch import Transplanter, check_edits
from interp_core.experiments.compare.transplants import Transplant
from interp_core.maths.scores import bootstrap_over_speakers, detection
from interp_core.models.countermeasure.checkpoint import load_countermeasure
from interp_core.sites import Site
from tests.experiments.compare_cases import QUICK, asked, compared
from tests.families.encoders import save_wavlm
from tests.spoof_pairs import N_LAYERS, save_pair, write_spoof_corpus

BLOCK = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def manifest(folder):
    return write_spoof_corpus(folder / "clips")


@pytest.fixture(scope="module")
def frozen(folder, manifest):
    question = asked(*save_pair(folder, "frozen"), manifest)
    return question, compared(question)


@pytest.fixture(scope="module")
def tuned(folder, manifest):
    question = asked(*save_pair(folder, "tuned", block=BLOCK), manifest)
    return question, compared(question)


@pytest.fixture(scope="module")
def planted(folder, manifest):
    """Two classifiers without a mix of layers that differ in one block alone."""
    base = save_wavlm(folder / "wavlm", n_layers=N_LAYERS)
    model = WavLMForSequenceClassification.from_pretrained(base)
    with torch.no_grad():
        for weight in model.wavlm.encoder.layers[BLOCK].parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(folder / "other")
    for file in base.glob("preprocessor_config.json"):
        (folder / "other" / file.name).write_text(file.read_text())
    question = asked(base, folder / "other", manifest, replace(QUICK, patch=("each", "cumulative")))
    return question, compared(question)


def logits_of(made, model):
    rows = made.scores[made.scores["model"] == model]
    return rows[[f"logit_{label}" for label in made.labels]].to_numpy()


def diagonal(made, representation="time mean", column="plain"):
    rows = made.cka[
        (made.cka["representation"] == representation) & (made.cka["base_point"] == made.cka["donor_point"])
    ]
    return rows[column].to_numpy()


def summary(made, model):
    return made.summary[made.summary["model"] == model].iloc[0]


# ---- a planted block -------------------------------------------------------------------------------------------------


def test_one_changed_block_is_where_cka_leaves_one_and_the_reported_onset(planted):
    _, made = planted
    for representation in ("time mean", "one frame a clip"):
        for column in ("plain", "unbiased"):
            along = diagonal(made, representation, column)[:N_LAYERS]
            assert along[:BLOCK] == pytest.approx(np.ones(BLOCK), abs=1e-9)
            assert (along[BLOCK:] < 1 - 1e-6).all()
    assert made.findings["onset"] == BLOCK


def test_patches_before_the_changed_block_are_exactly_null_and_from_it_on_give_the_donors_answer(planted):
    question, made = planted
    base, donor = logits_of(made, "base"), logits_of(made, "donor")
    assert np.abs(base - donor).max() > 1e-2
    for layer in range(N_LAYERS):
        patched = logits_of(made, f"layer {layer}")
        if layer < BLOCK:
            assert (patched == base).all()
            assert made.parts["null_by_construction"][f"layer {layer}"]
        else:
            assert patched == pytest.approx(donor, abs=1e-5)
            assert f"layer {layer}" not in made.parts["null_by_construction"]
    assert [site.layer for site in sorted(question.null, key=lambda s: s.layer)] == list(range(BLOCK))
    assert made.parts["identical_in_words"] == ["stem", "layers 0 to 1", f"layer {BLOCK + 1}", "readout"]


def test_cumulative_patches_hold_every_layer_up_to_theirs(planted):
    _, made = planted
    assert summary(made, "layers 0 to 3")["sites"] == " ".join(f"resid_post.L{layer}" for layer in range(4))
    assert logits_of(made, "layers 0 to 3") == pytest.approx(logits_of(made, "donor"), abs=1e-5)


# ---- countermeasures -------------------------------------------------------------------------------------------------


def test_on_a_shared_backbone_layer_patches_are_called_null_before_anything_runs_and_are_exactly_zero_when_run(frozen):
    question, made = frozen
    transplants = {transplant.name: transplant for transplant in question.transplants([0.0] * N_LAYERS)}
    null = {name for name, transplant in transplants.items() if transplant.null}
    assert null >= {f"layer {layer}" for layer in range(N_LAYERS)}
    assert not null & {"mixed", "pooled", "projection", "logits", "layer weights"}
    assert any("every layer" in note for note in question.notes)
    for layer in range(N_LAYERS):
        assert summary(made, f"layer {layer}")["logit_change_max"] == 0.0
    for name in ("mixed", "layer weights", "projection"):
        assert summary(made, name)["score_change_mean"] > 1e-4
    assert made.findings["onset"] is None and made.findings["most_divergent"] is None
    assert made.findings["rank_correlation"]["rho"] is None and made.findings["rank_correlation"]["reason"]


def test_null_arms_can_be_left_out(frozen, folder, manifest):
    question, _ = frozen
    left = asked(*save_pair(folder, "frozen"), manifest, replace(QUICK, skip_null=True)).transplants([0.0] * N_LAYERS)
    kept = {transplant.name for transplant in question.transplants([0.0] * N_LAYERS) if not transplant.null}
    assert {transplant.name for transplant in left} == kept and kept


def test_the_donors_projection_goes_through_the_bases_head_and_its_logits_are_its_scores(tuned, folder, manifest):
    _, made = tuned
    base, donor = (load_countermeasure(folder / f"tuned-{side}.pt") for side in ("erm", "dann"))
    question = tuned[0]
    waves = [question.base.samples(clip) for clip in read_manifest(manifest).clips]
    with torch.inference_mode():
        representation = donor.net(**donor.inputs(waves))["repr"]
        by_hand = base.net.task_head(representation).numpy()
    assert logits_of(made, "projection") == pytest.approx(by_hand, abs=1e-5)
    assert (logits_of(made, "logits") == logits_of(made, "donor")).all()
    assert (logits_of(made, "reverse: logits") == logits_of(made, "base")).all()


def test_the_donors_layer_weights_are_its_mix_of_the_bases_layers_and_the_base_gets_its_own_back(tuned, folder):
    question, made = tuned
    base, donor = (load_countermeasure(folder / f"tuned-{side}.pt") for side in ("erm", "dann"))
    own = question.base.subject.hf.backbone.layer_pooling.weights
    assert torch.equal(own, base.net.backbone.layer_pooling.weights)
    base.net.backbone.layer_pooling.weights.data = donor.net.backbone.layer_pooling.weights.data
    waves = [question.base.samples(clip) for clip in question.clips]
    with torch.inference_mode():
        by_hand = base.net(**base.inputs(waves))["task_logits"].numpy()
    assert logits_of(made, "layer weights") == pytest.approx(by_hand, abs=1e-5)


def test_patching_every_mixed_layer_is_patching_the_mix_where_the_weights_agree(folder, manifest):
    settings = replace(QUICK, patch=("cumulative",), weights=False, reverse=False, stages=("mixed",))
    made = compared(asked(*save_pair(folder, "block"), manifest, settings))
    assert logits_of(made, f"layers 0 to {N_LAYERS - 1}") == pytest.approx(logits_of(made, "mixed"), abs=1e-5)
    assert logits_of(made, "mixed") == pytest.approx(logits_of(made, "donor"), abs=1e-5)


def test_sites_are_chosen_on_one_half_of_the_speakers_and_reported_on_the_other(tuned):
    question, made = tuned
    units = question.units
    assert not set(units.speakers[units.chosen_on]) & set(units.speakers[units.reported])
    for half in (units.chosen_on, units.reported):
        assert set(units.labels[half]) == {"bonafide", "spoof"}
    chosen = made.summary[made.summary["chosen"].str.startswith("2 most divergent")].iloc[0]
    least = np.argsort(-np.array(made.findings["divergence"]))[:2]
    assert chosen["sites"] == " ".join(f"resid_post.L{layer}" for layer in sorted(least))


def test_error_rates_are_those_of_the_scores_of_the_reporting_half(tuned):
    question, made = tuned
    units = question.units
    scores = made.scores.pivot(index="clip_id", columns="model", values="score").loc[
        [c.clip_id for c in question.clips]
    ]
    here, truth = units.reported, units.labels == "bonafide"
    for model in ("base", "donor", "mixed", "layer 3"):
        row, values = summary(made, model), scores[model].to_numpy()
        expected = detection(values[here], truth[here])
        assert (row["eer"], row["min_dcf"], row["eer_challenge"]) == (
            expected.eer, expected.min_dcf, expected.eer_challenge,
        )  # fmt: skip
        assert row["eer_chosen_on"] == detection(values[~here], truth[~here]).eer
        assert row["score_change_mean"] == pytest.approx(np.abs(values - scores["base"])[here].mean())
        correct = (values[here] > 0) == truth[here]
        assert row["accuracy"] == pytest.approx(correct.mean())
    assert summary(made, "donor")["recovered"] == 1 and summary(made, "base")["recovered"] == 0


def test_a_breakdown_pools_bona_fide_over_attacks_and_keeps_codecs_apart(tuned):
    _, made = tuned
    rows = made.breakdown[(made.breakdown["model"] == "base") & (made.breakdown["by"] == "attack")]
    assert set(rows["value"]) == {"A0", "A1"} and (rows["n_bonafide"] == made.summary["n"][0] / 2).all()


def test_intervals_are_the_paired_bootstrap_over_speakers(folder, manifest):
    many = write_spoof_corpus(folder / "many", speakers=20, utterances=1, codecs=("NONE",))
    settings = replace(QUICK, patch=("none",), stages=("mixed",), weights=False, reverse=False)
    question = asked(*save_pair(folder, "tuned", block=BLOCK), many, settings)
    made = compared(question)
    units, here = question.units, question.units.reported
    scores = [
        made.scores[made.scores["model"] == model]["score"].to_numpy()[here] for model in ("base", "donor", "mixed")
    ]
    expected = bootstrap_over_speakers(
        np.stack(scores), units.is_positive[here], units.speakers[here].tolist(), seed=settings.seed
    )
    row = summary(made, "mixed")
    assert (row["eer_difference_low"], row["eer_difference_high"]) == (
        expected.difference_interval.low[2], expected.difference_interval.high[2],
    )  # fmt: skip
    assert "10 bona fide and 10 spoof speakers" in row["interval_method"]


def test_the_bona_fide_index_turns_scores_over(folder, manifest):
    paths = save_pair(folder, "frozen")
    settings = replace(QUICK, patch=("none",), stages=(), weights=False)
    usual, turned = (compared(asked(*paths, manifest, replace(settings, bonafide_index=index))) for index in (0, 1))
    a, b = (made.scores[made.scores["model"] == "base"]["score"].to_numpy() for made in (usual, turned))
    assert a == pytest.approx(-b)
    assert usual.labels == ("bonafide", "spoof") and turned.labels == ("spoof", "bonafide")
    with pytest.raises(InterpError, match="bona fide index 2"):
        asked(*paths, manifest, replace(settings, bonafide_index=2))


# ---- the checks, and what is refused ---------------------------------------------------------------------------------


def test_a_site_whose_edit_is_off_fails_the_checks(tuned, monkeypatch):
    question, _ = tuned
    first = next(batches(question.base, question.donor, question.clips, "", question.planned[:1]))
    worker = Transplanter(question.base.subject, question.donor.subject, question.task, {})
    sites = [Site("mixed"), Site("logits")]
    report = check_edits(worker, first, sites)
    assert report["passed"] and len(report["checks"]) == 3
    honest = compare_patch.edits_of
    monkeypatch.setattr(
        compare_patch,
        "edits_of",
        lambda *args: {site: lambda value, edit=edit: 1.01 * edit(value) for site, edit in honest(*args).items()},
    )
    with pytest.raises(CheckFailed, match="self-patch at mixed") as failed:
        check_edits(worker, first, sites)
    assert not failed.value.report["self_patch"]["passed"]


def test_clean_answers_are_the_models_own_and_do_not_hang_on_what_was_transplanted(tuned):
    question, made = tuned
    first = next(batches(question.base, question.donor, question.clips, "", question.planned[:1]))
    again = answer(first.base, question.task.labels).numpy()
    assert (again == logits_of(made, "base")[list(first.rows)]).all()


def test_models_of_two_shapes_are_refused_with_what_differs(folder, manifest):
    base, _ = save_pair(folder, "frozen")
    other = save_wavlm(folder / "small", n_layers=3)
    with pytest.raises(InterpError, match=r"not of one shape: layers 4 and 3"):
        asked(base, other, manifest)


def test_settings_that_the_model_does_not_have_are_refused_before_anything_runs(folder, manifest):
    paths = save_pair(folder, "frozen")
    for settings, said in (
        (replace(QUICK, patch=("0,9",)), "layer 9 is outside the model's 4 layers"),
        (replace(QUICK, patch=("some",)), "none of auto:3"),
        (replace(QUICK, stages=("middle",)), "no stage 'middle'"),
        (replace(QUICK, maps=("magic",)), "--transplants 'magic' is none of mean, ridge, procrustes"),
        (replace(QUICK, domain="channel"), "no clip has a column 'channel'"),
    ):
        with pytest.raises(InterpError, match=said):
            settings.check()
            asked(*paths, manifest, settings)


def test_arms_say_what_they_need_at_inference():
    giving, mapped = Transplant("donor", (Site("mixed"),)), Transplant("ridge", (Site("mixed"),))
    assert (giving.forwards, giving.needs_donor) == (2, True)
    assert (mapped.forwards, mapped.needs_donor, mapped.name) == (1, False, "mixed by ridge")
