"""Listening on the patching page: pairs one after the other, a marked window, the blind test, and sound in tables."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from components import server as running
from components import state, visitors
from components.patching import blind, blind_answers
from components.patching.blind_answers import Answer
from interp_core.experiments.patching.experiment import pairs_of, patch_by_hand, window_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.maths.stats import guessing_p
from tests.pages.conftest import by_key, faults, in_link, tell, told, trigger, words
from tests.pages.test_patching import logits_on_page, saved  # noqa: F401 - the same saved run
from tests.pages.tiny_demo import MAX_PAIRS, NAME, PROMPTS


@pytest.fixture
def place(saved):  # noqa: F811
    """Where most pairs flip: the link to it, which they are, and one that is none of them."""
    rows = saved.records[(saved.records.condition == "matched") & (saved.records.alpha == 1)]
    flip = (rows.base_prediction != rows.target) & (rows.patched_prediction == rows.target)
    kind, prompt, layer = rows[flip].groupby(["kind", "prompt", "layer"]).size().idxmax()
    here = (rows.kind == kind) & (rows.prompt == prompt) & (rows.layer == layer)
    listed = rows[here & flip].pair_id.tolist()
    assert 2 <= len(listed) < MAX_PAIRS, "otherwise nothing would be tested"
    link = {"kind": kind, "prompt": list(PROMPTS)[prompt], "layer": "emb" if layer == -1 else str(layer)}
    return link, listed, rows[here & ~flip].pair_id.iloc[0]


def selected(at):
    return at.selectbox(key=state.PAIR).value


# ---- one after the other ---------------------------------------------------------------------------------------------


def test_the_player_goes_through_the_pairs_that_flip_and_the_selection_follows(open_app, place):
    link, listed, _ = place
    at = open_app(**link, pair=listed[0])
    where = "the embeddings" if link["layer"] == "emb" else f"layer {link['layer']}"
    said = {"title": f"Pairs that flip at {where}", "short": "that flip", "at": 0, "of": len(listed)}
    assert told(at, "player")["playlist"] == said
    before = told(at, "player")["identity"]
    at = trigger(at, "player", "step", 1)
    assert faults(at) == [] and selected(at) == in_link(at, "pair") == listed[1]
    assert told(at, "player")["playlist"]["at"] == 1
    assert told(at, "player")["identity"] != before
    at = trigger(at, "player", "step", -1)
    assert selected(at) == listed[0]
    assert selected(trigger(at, "player", "step", -1)) == listed[0], "there is none before the first"


def test_a_step_that_is_none_moves_nothing(open_app, place):
    link, listed, _ = place
    at = open_app(**link, pair=listed[0])
    for nonsense in (0, 2, "1", None, {"by": 1}, [1]):
        at = trigger(at, "player", "step", nonsense)
        assert faults(at) == [] and selected(at) == listed[0], nonsense


def test_from_a_pair_that_does_not_flip_it_goes_to_the_first_that_does(open_app, place):
    link, listed, other = place
    at = open_app(**link, pair=other)
    assert told(at, "player")["playlist"]["at"] == -1
    assert selected(trigger(at, "player", "step", 1)) == listed[0]


# ---- the window ------------------------------------------------------------------------------------------------------


def drag(at, start, end, *, clips=None, count=[0]):  # noqa: B006 - counts over the whole test, as the player does
    count[0] += 1
    identity = told(at, "player")["identity"] if clips is None else clips
    return tell(at, "player", region={"clips": identity, "start": start, "end": end, "told": count[0]})


def test_a_dragged_region_is_the_window_of_patch_just_this_in_seconds_and_positions(open_app):
    at = open_app(pair="prosody-0002", layer="1")
    whole = logits_on_page(at)["A after the patch"]
    assert told(at, "player")["keepsRegion"] and told(at, "player")["region"] is None
    at = drag(at, 0.2, 0.55)
    assert faults(at) == [] and in_link(at, "window") == "0.20-0.55"
    assert told(at, "player")["region"] == {"start": 0.2, "end": 0.55}
    assert logits_on_page(at)["A after the patch"] == pytest.approx(whole), "marked is not yet patched"

    at = at.toggle(key=state.ONLY_WINDOW).set_value(True).run()
    asked = PatchRequest(NAME, max_pairs=MAX_PAIRS, positions="0.20-0.55")
    pair = next(p for p in pairs_of(running.engine(), asked).pairs if p.pair_id == "prosody-0002")
    swept = patch_by_hand(running.engine(), asked, pair)
    wanted = swept[swept.layer == 1].iloc[0].patched_logits
    assert logits_on_page(at)["A after the patch"] == pytest.approx(wanted, abs=1e-4)
    assert wanted != pytest.approx(whole, abs=1e-3), "otherwise nothing would be tested"
    found = window_by_hand(running.engine(), asked, pair)
    assert f"positions {found.first} to {found.stop - 1} of A's {found.of}" in words(at)
    assert "take B's states" in words(at) and "0.20-0.55 s" in words(at)
    hatched = told(at, "player")["window"]
    assert (hatched["start"], hatched["end"]) == pytest.approx(found.seconds)

    at = at.button(key="clear-window").click().run()
    assert in_link(at, "window") is None and in_link(at, "only_window") is None
    assert told(at, "player")["region"] is None and told(at, "player")["window"] is None
    assert logits_on_page(at)["A after the patch"] == pytest.approx(whole)


def test_a_link_shows_its_window_and_another_pair_begins_without_one(open_app):
    at = open_app(pair="prosody-0002", layer="1", window="0.20-0.55", only_window="true")
    assert faults(at) == [] and told(at, "player")["region"] == {"start": 0.2, "end": 0.55}
    assert "take B's states" in words(at)
    at = at.button(key="pair-after").click().run()
    assert selected(at) == "prosody-0003" and told(at, "player")["region"] is None
    assert "take B's states" not in words(at) and in_link(at, "window") is None


def test_escape_in_the_player_clears_the_window_also_where_a_link_brought_it(open_app):
    at = open_app(pair="prosody-0002", window="0.20-0.55")
    at = drag(at, None, None)
    assert faults(at) == [] and in_link(at, "window") is None


def test_a_region_of_other_clips_or_none_at_all_is_not_taken(open_app):
    at = open_app(pair="prosody-0002", window="0.20-0.55")
    at = drag(at, 0.1, 0.3, clips="of the pair before")
    assert in_link(at, "window") == "0.20-0.55"
    for value in ("0.1-0.3", 7, [0.1, 0.3], {"start": 0.1}):
        at = tell(at, "player", region=value)
        assert faults(at) == [] and in_link(at, "window") == "0.20-0.55"


@pytest.mark.parametrize(
    "typed, said",
    [
        ("0.5", "is not start-end in seconds"),
        ("0.8-0.2", "is not start-end in seconds"),
        ("<b>0-1</b>", "is not start-end in seconds"),
        ("1e3-1e4", "is not start-end in seconds"),
        ("77-78", "lies behind the end"),
    ],
)
def test_a_window_that_means_nothing_is_one_sentence_and_the_pair_stays(open_app, typed, said):
    at = open_app(pair="prosody-0002", window=typed, only_window="true")
    (fault,) = faults(at)
    assert said in fault.replace("\\", "") and "\n" not in fault
    assert "by hand" not in words(at) and len(logits_on_page(at)) == 3


# ---- the blind test --------------------------------------------------------------------------------------------------


def kept():
    """Every answer that lies on the disk."""
    files = sorted(running.data_folder().glob(f"{blind_answers.FOLDER}/*.jsonl"))
    return [Answer(**json.loads(line)) for file in files for line in file.read_text().splitlines()]


def open_blind(open_app, **parameters):
    at = open_app(**parameters)
    at.session_state["blind"] = True
    return at.run()


def press(at, letter):
    return at.button(key=f"blind-{letter}").click().run()


def sounds(at):
    return [np.frombuffer(base64.b64decode(one), "<i2").astype(float) for one in told(at, "blind_player")["sounds"]]


def test_x_sounds_like_the_one_that_it_is_and_all_three_have_one_level_and_length(open_app):
    for _ in range(6):
        at = open_blind(open_app, pair="prosody-0002")
        a, b, x = sounds(at)
        trial = at.session_state[state.BLIND_TRIAL]
        same, other = (a, b) if trial.x_is_a else (b, a)
        assert np.abs(same - x).max() <= 1 and np.abs(other - x).max() > 100
        levels = [np.sqrt(np.mean(one[: int(0.4 * 16000)] ** 2)) for one in (same, x)]
        assert levels[0] == pytest.approx(levels[1], rel=1e-3)
        assert len(a) == len(b) == len(x)
        raw = told(at, "blind_player")["sounds"]
        assert len(set(raw)) == 3, "X is not A or B to the letter"


def test_nothing_that_the_page_is_sent_says_which_one_x_is(open_app, monkeypatch):
    sent = []
    for truth in (0, 1):
        monkeypatch.setattr(blind.secrets, "randbelow", lambda _, truth=truth: truth)
        monkeypatch.setattr(blind.secrets, "token_hex", lambda _: "0123456789abcdef")
        at = open_blind(open_app, pair="prosody-0002")
        assert at.session_state[state.BLIND_TRIAL].x_is_a is bool(truth)
        data = told(at, "blind_player")
        assert sorted(data) == ["rate", "sounds", "trial"]
        text = [line for line in words(at).splitlines() if not line.startswith(("Memory", "Cache"))]
        labels = [(button.label, button.proto.id, button.help) for button in at.button if "lind" in button.proto.id]
        sent.append((data["trial"], data["rate"], [len(one) for one in data["sounds"]], labels, text,
                     dict(at.query_params)))  # fmt: skip
    assert sent[0] == sent[1]


def test_answers_are_counted_over_pairs_with_their_exact_p_and_a_second_press_counts_once(open_app):
    at = open_blind(open_app, pair="prosody-0002")
    assert "No answer yet" in words(at) and "Level-matched by RMS" in words(at)
    right = 0
    for number in range(1, 6):
        truth = "A" if at.session_state[state.BLIND_TRIAL].x_is_a else "B"
        answer = truth if number != 3 else "AB".replace(truth, "")
        right += answer == truth
        name = at.session_state[state.BLIND_TRIAL].name
        at = press(at, answer)
        assert faults(at) == [] and f"X was {truth} in prosody-000{2 if number < 3 else 3}" in words(at)
        assert at.session_state[state.BLIND_TRIAL].name != name
        if number == 2:
            at = at.button(key="pair-after").click().run()
    assert f"**{right} of 5 right**, p = {guessing_p(right, 5):.3f}" in words(at)
    assert "This pair: 2 of 3" in words(at)
    table = blind.table(kept())
    assert list(table) == ["listener", "pair", "order", "answer", "right", "time"]
    assert table["listener"].str.fullmatch("listener [0-9a-f]{6}").all() and table["listener"].nunique() == 1
    assert table["pair"].tolist() == ["prosody-0002"] * 2 + ["prosody-0003"] * 3
    assert [order[2] == answer for order, answer in zip(table["order"], table["answer"], strict=True)] == list(
        table["right"]
    )
    assert pd.to_datetime(table["time"], utc=True).notna().all()

    at.session_state[state.BLIND_TRIAL] = replace(at.session_state[state.BLIND_TRIAL], name="another by now")
    at = press(at, "A")
    assert len(kept()) == 5, "an answer to a trial that is over"
    at = at.button(key="blind-over").click().run()
    assert "No answer yet" in words(at)
    assert kept() == [] and list(blind.table([])) == ["listener", "pair", "order", "answer", "right", "time"]


def test_an_answer_of_another_session_is_not_this_ones(open_app):
    at = press(open_blind(open_app, pair="prosody-0002"), "A")
    assert faults(at) == [] and len(kept()) == 1
    assert "No answer yet" in words(open_blind(open_app, pair="prosody-0002"))


def test_a_visitors_answers_outlive_the_page_and_every_listener_has_a_count_and_a_name(open_app, monkeypatch):
    monkeypatch.setattr(visitors, "visitor", lambda: "f" * 64)
    press(open_blind(open_app, pair="prosody-0002"), "A")
    at = open_blind(open_app, pair="prosody-0002")  # the page anew, in the same browser
    assert "of 1 right" in words(at)
    at = at.text_input(key=state.BLIND_WHO).set_value(" Ana\u202e ").run()
    assert "No answer yet" in words(at)
    at = press(at, "B")
    assert "of 1 right" in words(at) and faults(at) == []
    assert blind.table(kept())["listener"].tolist() == ["listener ffffff", "Ana"]
    at.button(key="blind-over").click().run()
    assert blind.table(kept())["listener"].tolist() == ["listener ffffff"]
    monkeypatch.setenv("PATCHBAY_DATA", "/proc/nowhere")  # where nothing can be written the session has them
    at = press(open_blind(open_app, pair="prosody-0002"), "A")
    assert "of 1 right" in words(at)


# ---- sound in tables -------------------------------------------------------------------------------------------------


def test_the_pairs_at_a_layer_are_heard_in_their_rows(open_app):
    at = open_app(layer="1", flips="all")
    table = by_key(at, "dataframe", "flip_table")
    shown = table.value
    clips = {clip.clip_id: clip for clip in running.engine().manifest(PatchRequest(NAME)).clips}
    for side in "AB":
        assert shown[f"hear {side}"].tolist() == [f"/audio/{clips[one].digest}.wav" for one in shown[side]]
        assert json.loads(table.proto.columns)[f"hear {side}"]["type_config"]["type"] == "audio"
