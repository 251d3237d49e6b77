"""The answer in words on the patching page: the engine's texts, marked by whose words they are."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from components import server as running
from components import state
from interp_core.experiments.heads.experiment import answer_without
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.neurons.by_hand import answer_without as answer_without_neurons
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.words import best_neurons
from interp_core.experiments.patching.experiment import answer_by_hand, pairs_of
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.steering.by_hand import answer_steered
from interp_core.experiments.steering.experiment import STEERING
from interp_core.experiments.steering.request import SteerRequest
from interp_core.experiments.wording import words_moved
from tests.corpus import write_corpus
from tests.families.encoders import save_wavlm
from tests.pages.conftest import OpenApp, by_key, click_point, faults, words
from tests.pages.tiny_demo import MAX_PAIRS, N_LAYERS, NAME
from tests.tiny import LABELS


def unfold(at, fold: str = state.WORDS):
    at.session_state[fold] = True
    return at.run()


def badged(at, badge: str) -> str:
    return next(one.value for one in at.markdown if one.value.startswith(badge)).replace("\\", "")


def test_the_fold_shows_three_texts_and_whose_words_they_have(open_app: OpenApp) -> None:
    at = open_app(pair="prosody-0002", layer="0")
    assert "What this does not show" not in words(at)
    at = unfold(at)
    assert faults(at) == [] and "What this does not show" in words(at) and "Holtzman" in words(at)
    request = PatchRequest(NAME, max_pairs=MAX_PAIRS)
    pair = next(p for p in pairs_of(running.engine(), request).pairs if p.pair_id == "prosody-0002")
    found = answer_by_hand(running.engine(), request, pair, n_tokens=40, layers=(0,))
    moved = words_moved(found.a.text, found.b.text, found.patched[0].text)
    assert moved.of_b and f"**{round(moved.moved * moved.of_b)} of the {moved.of_b} words" in words(at)
    for badge, text in ((":blue-badge[A]", found.a), (":orange-badge[B]", found.b), (":violet-", found.patched[0])):
        shown = badged(at, badge)
        assert ("cut off after 40 tokens" in shown) == (not text.ended)
        assert all(word in shown for word in re.findall("[A-Za-z]{3,}", text.text)) and len(text.text) > 9


def test_the_curve_over_layers_is_drawn_when_asked_for_and_a_click_selects_the_layer(open_app: OpenApp) -> None:
    at = unfold(open_app(pair="prosody-0002", layer="0"))
    at = at.toggle(key=state.WORDS_LAYERS).set_value(True).run()
    at = at.select_slider(key=state.WORDS_TOKENS).set_value(10).run()
    assert faults(at) == []
    request = PatchRequest(NAME, max_pairs=MAX_PAIRS)
    pair = next(p for p in pairs_of(running.engine(), request).pairs if p.pair_id == "prosody-0002")
    found = answer_by_hand(running.engine(), request, pair, n_tokens=10)
    table = next(one.value for one in at.dataframe if "A's answer after the patch" in one.value)
    assert table["layer"].tolist() == ["emb", *map(str, range(N_LAYERS))]
    for (layer, text), shown in zip(found.patched.items(), table.itertuples(index=False), strict=True):
        assert shown[2] == (text.text if text.ended else f"{text.text} …"), layer
        moved = words_moved(found.a.text, found.b.text, text.text).moved
        assert shown[1] == pytest.approx(moved, nan_ok=True)
    at = click_point(at, state.WORDS_CURVE, "A's own words", 3)
    assert faults(at) == [] and f"A with B at layer {2}" in words(at)
    assert by_key(at, "plotly_chart", state.WORDS_CURVE)


def test_a_run_that_wrote_answers_in_words_has_a_view_of_their_means(open_app: OpenApp) -> None:
    at = open_app(patch_max_pairs="2", patch_words="6", patch_controls="", patch_checks="false")
    assert "Answers in words" not in at.selectbox(key=state.VIEW).options
    at = next(button for button in at.button if button.label == "Run on all pairs").click().run()
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    at = at.run()
    at = at.selectbox(key=state.VIEW).set_value("Answers in words").run()
    assert faults(at) == [] and "Mean over 2 pairs; 95 % interval: no interval" in words(at)
    drawn = json.loads(by_key(at, "plotly_chart", state.CURVE).proto.spec)["data"]
    rows = job.result.words_moved.query("kind == 'prosody'")
    for trace, column in zip([one for one in drawn if one.get("customdata")], ("moved", "kept"), strict=True):
        found = [value if value is not None else float("nan") for value in numbers(trace["y"])]
        assert found == pytest.approx(rows[f"{column}_mean"].tolist(), nan_ok=True)
    at = click_point(at, state.CURVE, "A's own words", 1)
    assert faults(at) == [] and at.select_slider(key=state.LAYER).value == "0"


def numbers(values):
    if isinstance(values, dict):  # plotly's typed arrays
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()
    return values


def test_a_model_that_writes_nothing_says_so_in_one_sentence(open_app: OpenApp, server: Path) -> None:
    model, clips = save_wavlm(server / "model", n_layers=2, labels=LABELS), write_corpus(server / "corpus", texts=2)
    at = open_app(model=str(model), clips=str(clips), patch_kinds="prosody", patch_checks="false", patch_controls="")
    at = next(button for button in at.button if button.label == "Open this model").click().run()
    at = next(button for button in at.button if button.label == "Run on all pairs").click().run()
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    at = unfold(at.run())
    assert faults(at) == [] and "writes no text, so there is no answer in words" in words(at)


def test_a_heads_clip_is_answered_with_the_head_and_without(open_app: OpenApp) -> None:
    at = open_app(heads_label="prosody_label", heads_draws="19", heads_probes="none")
    at = at.switch_page(str(Path(__file__).resolve().parents[2] / "pages" / "heads.py")).run()
    at = next(button for button in at.button if button.label == "Run").click().run()
    (job,) = [job for job in running.engine().jobs.jobs() if job.title.startswith("heads")]
    assert job.wait(120) and job.error is None, job.error
    at = unfold(at.run(), state.HEADS_WORDS)
    assert faults(at) == []
    name, clip = at.selectbox(key=state.HEADS_AT).value, at.selectbox(key=state.HEADS_A).value
    head = tuple(map(int, re.findall(r"\d+", name)))
    request = job.result.config["settings"]
    for on, during in ((False, "prefill"), (True, "all")):
        at = at.toggle(key=state.HEADS_DURING).set_value(on).run()
        asked = HeadsRequest(NAME, label=request["label"], prompt=request["prompt"], probes="none", draws=19)
        found = {one.clip_id: one for one in running.engine().manifest(asked).clips}[clip]
        own, without = answer_without(running.engine(), asked, found, head, n_tokens=40, during=during)
        for badge, text in ((":blue-badge[A]", own), (":violet-badge[A without", without)):
            assert all(word in badged(at, badge) for word in re.findall("[A-Za-z]{3,}", text.text)), during
        assert ("stays the same" in words(at)) == (own == without)
        assert faults(at) == []


def test_a_clip_is_answered_with_the_neurons_of_a_run_and_without(open_app: OpenApp) -> None:
    at = open_app(
        ablate_at="resid_post:1", ablate_ks="0,8", ablate_draws="2", ablate_refits="0", neu_clips="all",
        ablate_words="5", ablate_word_clips="2",
    )  # fmt: skip
    at = at.switch_page(str(Path(__file__).resolve().parents[2] / "pages" / "neurons.py")).run()
    at = next(button for button in at.button if button.label == "Run").click().run()
    (job,) = [job for job in running.engine().jobs.jobs() if job.title.startswith("ablate")]
    assert job.wait(120) and job.error is None, job.error
    at = unfold(unfold(at.run(), "neu_run_words"), state.NEU_WORDS)
    assert faults(at) == [] and "of 2 texts of 2 clips change" in words(at)
    assert any(len(one.value) == 4 and "answer_edited" in one.value for one in at.dataframe)
    at = at.select_slider(key=state.NEU_K).set_value("8").run()
    result, clips = job.result, running.engine().manifest(AblateRequest(NAME)).clips
    settings = result.config["settings"]
    for on, during, ranked in ((False, "prefill", "domain"), (True, "all", "task")):
        at = at.toggle(key=state.NEU_DURING).set_value(on).run()
        at = at.segmented_control(key=state.NEU_SET).set_value(ranked).run() if ranked == "task" else at
        chosen = next(one.value for one in at.markdown if "**: truly " in one.value).split("**")[1].replace("\\", "")
        clip = {one.clip_id: one for one in clips}[chosen]
        asked = AblateRequest(NAME, at="resid_post:1", prompt=settings["prompt"], draws=2, refits=0, ks=(0, 8))
        own, without = answer_without_neurons(
            running.engine(), asked, clip, best_neurons(result.scores, ranked, 8), n_tokens=40, during=during
        )
        for badge, text in ((":blue-badge[A]", own), (":violet-badge[without 8 neurons", without)):
            assert all(word in badged(at, badge) for word in re.findall("[A-Za-z]{3,}", text.text)), during
        assert ("stays the same" in words(at)) == (own == without)
        assert faults(at) == [] and f"best for the {ranked}" in words(at)


def test_a_clip_is_answered_at_alpha_0_and_at_the_chosen_alpha(open_app: OpenApp) -> None:
    at = open_app(
        steer_layers="1", steer_alphas="1,4", steer_controls="", steer_checks="false", steer_units="text_id",
        steer_words="5", steer_word_clips="2",
    )  # fmt: skip
    at = at.switch_page(str(Path(__file__).resolve().parents[2] / "pages" / "steering.py")).run()
    at = next(button for button in at.button if button.label == "Run").click().run()
    (job,) = [job for job in running.engine().jobs.jobs() if job.title.startswith("steer")]
    assert job.wait(120) and job.error is None, job.error
    at = unfold(unfold(at.run(), "st_run_words"), state.ST_WORDS)
    assert faults(at) == [] and "of 2 texts of 2 clips change" in words(at)
    assert any("answer_edited" in one.value for one in at.dataframe)
    at = at.select_slider(key=state.ST_ALPHA).set_value("4").run()
    for on, during in ((False, "prefill"), (True, "all")):
        at = at.toggle(key=state.ST_DURING).set_value(on).run()
        said = next(one.value for one in at.markdown if "at alpha 4; of" in one.value)
        clips = {one.clip_id: one for one in running.engine().manifest(SteerRequest(NAME)).clips}
        clip = clips[said.split("**")[1].replace("\\", "")]
        asked = STEERING.prepare(running.engine(), SteerRequest(NAME, layers=(1,), units="text_id")).request
        label = at.selectbox(key=state.ST_LABEL).value
        own, steered = answer_steered(
            running.engine(), asked, job.result.vectors, clip, label=label, layer=1, alpha=4.0, n_tokens=40,
            during=during,
        )  # fmt: skip
        for badge, text in ((":blue-badge[A]", own), (":violet-badge[alpha 4", steered)):
            assert all(word in badged(at, badge) for word in re.findall("[A-Za-z]{3,}", text.text)), during
        assert ("stays the same" in words(at)) == (own == steered)
        assert faults(at) == [] and "alpha 0 is the answer as it is" in words(at)
