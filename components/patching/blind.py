"""Can A and B be told apart by ear? A blind A/B/X test of the selected pair, counted over all pairs of this session."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from components import export, state
from components.player import clip_audio
from components.player.blind_player import blind_player, decibels, level_gains
from components.widgets import folded
from components.words import md
from interp_core.data.pairs import Pair
from interp_core.maths.stats import guessing_p
from interp_core.models.subject import Subject

COLUMNS = ("pair", "order", "answer", "right", "time")


@dataclass(frozen=True)
class Trial:
    """What is asked: is X clip A or clip B of a pair? `name` tells nothing; the secret never leaves the server."""

    pair: str
    name: str
    x_is_a: bool


@dataclass(frozen=True)
class Answer:
    """One trial, answered.

    Attributes:
        order: what A, B and X were: ABA or ABB.
        answer: what X was taken for, A or B. time: UTC, to the second.
    """

    pair: str
    order: str
    answer: str
    right: bool
    time: str


def draw(pair: Pair, subject: Subject) -> None:
    """The test, where its fold is open: the player, the two answers, and what has been answered so far."""
    fold = folded("Blind test: is X A or B?", ":material/hearing:", key=state.FOLD_BLIND)
    if not fold.open:
        return
    with fold:
        trial = _trial(pair)
        a, b = (clip_audio.player_clip(clip, "", subject.sample_rate) for clip in (pair.recipient, pair.donor))
        blind_player(a, b, trial.x_is_a, trial=trial.name, key=state.BLIND_PLAYER)
        with st.container(horizontal=True, gap="small"):
            for letter, key in (("A", "1"), ("B", "2")):
                st.button(
                    f"X is {letter}", key=f"blind-{letter}", on_click=_answer, args=(trial.name, letter), shortcut=key
                )
        last: Answer | None = st.session_state.get(state.BLIND_SAID)
        if last is not None:
            verdict = ":green-badge[right]" if last.right else ":red-badge[wrong]"
            st.markdown(f"{verdict} X was {md(last.order[-1])} in {md(last.pair)}. Now there is another X.")
        _tally(answers(), pair.pair_id)
        st.caption(_levels(level_gains(a.samples, b.samples)))


def answers() -> list[Answer]:
    """What this visitor has answered in this session, the first first."""
    return st.session_state.setdefault(state.BLIND_ANSWERS, [])


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


def _answer(name: str, letter: str) -> None:
    """Count an answer to the trial of that name; a second press, when it is over, answers nothing."""
    trial: Trial | None = st.session_state.get(state.BLIND_TRIAL)
    if trial is None or trial.name != name:
        return
    truth = "A" if trial.x_is_a else "B"
    right = letter == truth
    time = datetime.now(UTC).isoformat(timespec="seconds")
    answers().append(Answer(trial.pair, f"AB{truth}", letter, right, time))
    st.session_state[state.BLIND_SAID] = answers()[-1]
    del st.session_state[state.BLIND_TRIAL]


def _tally(given: Sequence[Answer], pair_id: str) -> None:
    right, n = sum(one.right for one in given), len(given)
    here = [one.right for one in given if one.pair == pair_id]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if n:
            p = guessing_p(right, n)
            shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
            st.markdown(
                f"**{right} of {n} right**, {shown} (exact binomial, one-sided: as many or more by guessing). "
                f"This pair: {sum(here)} of {len(here)}.",
                width="stretch",
            )
        else:
            st.markdown("No answer yet.", width="stretch")
        st.download_button(
            "CSV",
            lambda: export.csv(table(answers())),
            "blind-test.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
            key="blind-csv",
            disabled=not n,
        )
        st.button("Start over", key="blind-over", on_click=_start_over, disabled=not n)
    st.caption(
        "Counted over all pairs until this page is closed. Fix the number of answers beforehand: p is too small where "
        "one goes on until it pleases."
    )


def _start_over() -> None:
    answers().clear()
    st.session_state.pop(state.BLIND_SAID, None)
    st.session_state.pop(state.BLIND_TRIAL, None)


def _levels(gains: tuple[float, float]) -> str:
    """How the levels are matched, in a sentence."""
    louder = min(range(2), key=gains.__getitem__)
    if gains[louder] > 0.999:
        return "A and B have one level (RMS) by themselves, or one of them is silence; neither is turned down."
    return f"Level-matched by RMS: {'AB'[louder]} is turned down by {-decibels(gains[louder]):.1f} dB, X as what it is."
