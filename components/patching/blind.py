"""Can A and B be told apart by ear? A blind A/B/X test of the selected pair, counted over all pairs of a listener."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from components import export, state
from components.patching import blind_answers
from components.patching.blind_answers import Answer
from components.player import clip_audio
from components.player.blind_player import blind_player, decibels, level_gains
from components.widgets import folded
from components.words import md
from interp_core.data.collection import clean_name
from interp_core.data.pairs import Pair
from interp_core.experiments.wording import p_said
from interp_core.maths.stats import guessing_p
from interp_core.models.subject import Subject

COLUMNS = ("listener", "pair", "order", "answer", "right", "time")


@dataclass(frozen=True)
class Trial:
    """What is asked: is X clip A or clip B of a pair? `name` tells nothing; the secret never leaves the server."""

    pair: str
    name: str
    x_is_a: bool


def draw(pair: Pair, subject: Subject) -> None:
    """The test, where its fold is open: the player, the two answers, and what has been answered so far."""
    fold = folded("Blind test: is X A or B?", ":material/hearing:", key=state.FOLD_BLIND)
    if not fold.open:
        return
    with fold:
        listener = _listener()
        trial = _trial(pair)
        a, b = (clip_audio.player_clip(clip, "", subject.sample_rate) for clip in (pair.recipient, pair.donor))
        blind_player(a, b, trial.x_is_a, trial=trial.name, key=state.BLIND_PLAYER)
        with st.container(horizontal=True, gap="small"):
            for letter, key in (("A", "1"), ("B", "2")):
                given = (trial.name, letter, listener)
                st.button(f"X is {letter}", key=f"blind-{letter}", on_click=_answer, args=given, shortcut=key)
        last: Answer | None = st.session_state.get(state.BLIND_SAID)
        if last is not None:
            verdict = ":green-badge[right]" if last.right else ":red-badge[wrong]"
            st.markdown(f"{verdict} X was {md(last.order[-1])} in {md(last.pair)}. Now there is another X.")
        _tally([one for one in blind_answers.load() if one.listener == listener], pair.pair_id, listener)
        st.caption(_levels(level_gains(a.samples, b.samples)))


def _listener() -> str:
    """Who listens: as they name themselves, each with a count of their own."""
    unnamed = blind_answers.unnamed()
    named = st.text_input("Listener", key=state.BLIND_WHO, placeholder=unnamed, max_chars=40, width=260)
    return clean_name(named or "") or unnamed


def table(given: Sequence[Answer]) -> pd.DataFrame:
    """One row an answer, also where there is none."""
    return pd.DataFrame([asdict(one) for one in given], columns=list(COLUMNS))


def _trial(pair: Pair) -> Trial:
    """The open trial of this pair; another pair, or an answer, begins a new one."""
    trial: Trial | None = st.session_state.get(state.BLIND_TRIAL)
    if trial is None or trial.pair != pair.pair_id:
        trial = Trial(pair.pair_id, secrets.token_hex(8), bool(secrets.randbelow(2)))
        st.session_state[state.BLIND_TRIAL] = trial
    return trial


def _answer(name: str, letter: str, listener: str) -> None:
    """Count an answer to the trial of that name; a second press, when it is over, answers nothing."""
    trial: Trial | None = st.session_state.get(state.BLIND_TRIAL)
    if trial is None or trial.name != name:
        return
    truth = "A" if trial.x_is_a else "B"
    right = letter == truth
    time = datetime.now(UTC).isoformat(timespec="seconds")
    given = Answer(trial.pair, f"AB{truth}", letter, right, time, listener)
    blind_answers.add(given)
    st.session_state[state.BLIND_SAID] = given
    del st.session_state[state.BLIND_TRIAL]


def _tally(given: Sequence[Answer], pair_id: str, listener: str) -> None:
    right, n = sum(one.right for one in given), len(given)
    here = [one.right for one in given if one.pair == pair_id]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if n:
            shown = p_said(guessing_p(right, n))
            st.markdown(
                f"**{right} of {n} right**, {shown} (exact binomial, one-sided: as many or more by guessing). "
                f"This pair: {sum(here)} of {len(here)}.",
                width="stretch",
            )
        else:
            st.markdown("No answer yet.", width="stretch")
        st.download_button(
            "CSV",
            lambda: export.csv(table(blind_answers.load())),
            "blind-test.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
            key="blind-csv",
            disabled=not n,
        )
        st.button("Start over", key="blind-over", on_click=_start_over, args=(listener,), disabled=not n)
    st.caption(
        "Counted over all pairs of this listener and kept for this browser; the CSV has every listener of it. Fix the "
        "number of answers beforehand: p is too small where one goes on until it pleases."
    )


def _start_over(listener: str) -> None:
    blind_answers.forget(listener)
    st.session_state.pop(state.BLIND_SAID, None)
    st.session_state.pop(state.BLIND_TRIAL, None)


def _levels(gains: tuple[float, float]) -> str:
    """How the levels are matched, in a sentence."""
    louder = min(range(2), key=gains.__getitem__)
    if gains[louder] > 0.999:
        return "A and B have one level (RMS) by themselves, or one of them is silence; neither is turned down."
    return f"Level-matched by RMS: {'AB'[louder]} is turned down by {-decibels(gains[louder]):.1f} dB, X as what it is."
