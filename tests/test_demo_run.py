"""The run that ships with demo-emotion is what the engine computes, and shows what the data card says it shows."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.patching.results import Indexed
from interp_core.engine import Engine
from interp_core.experiments.experiment import open_result
from interp_core.experiments.patching.experiment import PATCHING, patch_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.result import PatchingResult
from interp_core.models.bundled import demos

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(cache_bytes=1 << 30)


@pytest.fixture(scope="module")
def shipped() -> PatchingResult:
    [folder] = [one for one in demos()["demo-emotion"].saved_runs if one.name == "run"]
    return open_result(PATCHING, folder)


def test_the_shipped_run_is_of_the_shipped_weights_and_clips(engine: Engine, shipped: PatchingResult):
    request = replace(PatchRequest.from_config(shipped.config), device="cpu", dtype="float32")
    assert engine.open("demo-emotion").weights_hash == shipped.config["model"]["weights_sha256"]
    assert engine.manifest(request).digest == shipped.config["manifest"]["sha256"]
    assert shipped.config["finished"] and shipped.reports["sanity_check_self_patch"]["passed"]


def test_pairs_of_the_shipped_run_come_out_the_same_when_they_are_computed_here(
    engine: Engine, shipped: PatchingResult
):
    request = replace(PatchRequest.from_config(shipped.config), device="cpu", dtype="float32")
    ready = PATCHING.prepare(engine, request)
    assert [pair.pair_id for pair in ready.plan.pairs.pairs] == [line["pair_id"] for line in shipped.pairs]
    matched = shipped.records[(shipped.records.condition == "matched") & (shipped.records.prompt == 0)]
    changed = 0
    for pair in [*ready.plan.pairs.of("prosody")[:2], *ready.plan.pairs.of("semantic")[:2]]:
        here = patch_by_hand(engine, request, pair)
        saved = matched[matched.pair_id == pair.pair_id]
        assert here.layer.tolist() == saved.layer.tolist()
        a, b = np.stack(here.patched_logits), np.stack(saved.patched_logits)
        np.testing.assert_allclose(a, b, atol=2e-3)
        changed += int((a.argmax(-1) != np.stack(here.base_logits).argmax(-1)).sum())
    assert changed > 0, "pairs in which nothing changes would agree whatever the engine does"


def test_the_same_pairs_dissociate_by_the_question(shipped: PatchingResult):
    names = [name for name, _ in demos()["demo-emotion"].prompts]
    rows = shipped.metrics[(shipped.metrics.condition == "matched") & (shipped.metrics.layer == 0)]
    rate = rows.set_index(["kind", "prompt"]).flip_to_target_rate_eligible
    voice, words = names.index("voice"), names.index("words")
    assert rate["prosody", voice] > 0.8 and rate["prosody", words] < 0.1
    assert rate["semantic", words] > 0.8 and rate["semantic", voice] < 0.1


def test_the_walk_of_the_readme_shows_what_it_promises(shipped: PatchingResult):
    readme = (ROOT / "README.md").read_text("utf-8")
    flips, stays = map(int, re.findall(r"[Cc]lick layer (\d+)", readme.split("## A lab demo")[1].split("## ")[0]))
    index = Indexed(shipped)
    pair = index.best_pair["prosody"]
    early, late = (index.outcome(pair, "prosody", 0, 1.0, layer) for layer in (flips, stays))
    assert early is not None and late is not None
    assert (early.base_prediction, early.donor_prediction) == ("surprised", "happy")
    assert early.patched_prediction == "happy" and late.patched_prediction == "surprised"
    curve = shipped.metrics[(shipped.metrics.condition == "matched") & (shipped.metrics.kind == "prosody")]
    rate = curve[curve.prompt == 0].set_index("layer").flip_to_target_rate_reachable
    assert rate[flips] == 1 and rate[stays] == 0
    asked = [name for name, _ in demos()["demo-emotion"].prompts].index("words")
    assert (curve[curve.prompt == asked].flip_to_target_rate == 0).all(), "under the words nothing flips"


def test_both_kinds_flip_more_often_than_with_a_random_donor(shipped: PatchingResult):
    default = shipped.metrics[(shipped.metrics.condition == "matched") & (shipped.metrics.prompt == 0)]
    for kind in ("prosody", "semantic"):
        rows = default[default.kind == kind]
        assert (rows.eligible_count > 0).all() and (rows.reachable_count >= 10).all()
        assert (rows.p_adjusted < 0.05).any()
