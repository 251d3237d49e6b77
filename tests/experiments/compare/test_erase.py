"""The domain erased in the base: as a plain hook would erase it, learned on one half alone, beside its control."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.compare.units import values_of
from interp_core.maths.subspaces import fit_leace
from interp_core.options import idle
from interp_core.sites import Site
from interp_core.trace.hooks import captured, edited
from tests.experiments.compare_cases import QUICK, asked, compared
from tests.spoof_pairs import save_pair, write_spoof_corpus

ERASING = replace(QUICK, patch=(), stages=(), weights=False, reverse=False, checks=False, erase=("0", "pooled"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("erase")
    manifest = write_spoof_corpus(folder / "spoof", speakers=4, utterances=2, codecs=("NONE", "C01"))
    models = save_pair(folder / "pair", "tuned")
    question = asked(*models, manifest, replace(ERASING, domain="codec"))
    return models, manifest, question, compared(question)


def test_a_layer_and_a_stage_are_erased_as_a_plain_hook_erases_them_on_clips_that_were_not_fitted(scene):
    _, _, question, made = scene
    reader, labels = ClipReader(question.base, question.task.prompt), question.task.labels
    subject, clips = question.base.subject, question.clips
    codec, choosing = values_of(clips, "codec"), question.units.chosen_on
    assert 0 < choosing.sum() < len(clips)
    for site, name in ((Site("resid_post", 0), "layer 0"), (Site("pooled"), "pooled")):
        means = []
        for row in range(len(clips)):
            batch = reader.batch(clips, (row,))
            with torch.inference_mode(), captured(subject, [site]) as seen:
                batch.forward()
            heard = batch.spans(site, seen[site].shape[1])[0].positions(seen[site].shape[1])
            means.append(seen[site][0][heard].double().mean(0).float())  # as wide as what is kept of a clip
        eraser = fit_leace(torch.stack(means)[choosing], codec[choosing], shrink=True)
        apart = 0.0
        for row in np.flatnonzero(~choosing)[:2]:
            batch = reader.batch(clips, (int(row),))

            def plain(value, batch=batch, site=site, eraser=eraser):
                heard, new = batch.spans(site, value.shape[1])[0].positions(value.shape[1]), value.clone()
                new[0, heard] = eraser(value[0, heard])
                return new

            with torch.inference_mode(), edited(subject, {site: plain}):
                expected = labels.read(batch.forward())[0][0]
            rows = made.scores[made.scores["clip_id"] == clips[row].clip_id].set_index("model")
            logits = [f"logit_{label}" for label in labels.labels]
            found = rows.loc[f"{name} by erasure", logits].to_numpy(float)
            np.testing.assert_allclose(found, expected.numpy(), atol=2e-4 * max(1.0, float(expected.abs().max())))
            apart = max(apart, np.abs(found - rows.loc["base", logits].to_numpy(float)).max())
        assert apart > 1e-4, "an edit that does nothing would agree as well"


def test_every_site_has_its_control_and_numbers_beside_the_other_models(scene):
    _, _, _, made = scene
    erased = made.findings["erased"]
    assert erased["column"] == "codec" and set(erased["sites"]) == {"resid_post.L0", "pooled"}
    assert all(about["rank"] == 1 and about["classes"] == 2 for about in erased["sites"].values())
    rows = made.summary[made.summary["mode"].isin(["erasure", "random erasure"])].set_index("model")
    assert list(rows.index) == [
        "layer 0 by erasure", "layer 0 by random erasure", "pooled by erasure", "pooled by random erasure",
    ]  # fmt: skip
    assert (rows["needs_donor"] == "no").all() and (rows["forwards_per_clip"] == 1).all()
    assert rows["eer"].notna().all() and rows["chosen"].str.contains("codec erased").all()
    assert {"pooled by erasure", "pooled by random erasure"} <= set(made.probes["model"])
    assert (rows["score_change_mean"] > 0).all()


def test_what_cannot_be_erased_is_refused_before_anything_runs(scene):
    models, manifest, _, _ = scene
    for change, said in (
        ({"erase": ("9",)}, "erase '9' is no layer"),
        ({"erase": ("logits",)}, "is no layer .* and no stage"),
        ({"domain": "none"}, "no column says the domain .* --erase-label"),
        ({"erase_label": "mood"}, "no clip has a column 'mood' to erase"),
        ({"erase_label": "speaker", "erase": ()}, None),
    ):
        settings = replace(ERASING, **{"domain": "codec", **change})
        if said is None:
            assert "--erase-label means nothing without --erase" in idle(settings)[0]
            continue
        with pytest.raises(InterpError, match=said):
            asked(*models, manifest, settings)
    assert replace(QUICK, erase=()).key == QUICK.key != replace(QUICK, erase=("0",)).key
