"""What has been answered in blind tests: kept by visitor, below the folder of own recordings, so that a reload or a
restart loses nothing; in the session alone where nothing can be written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

from components import server, state, visitors
from interp_core.storage import dump_line, replace_file

FOLDER = ".blind"
MOST = 10_000
"""Answers of a visitor that are kept, the latest ones."""


@dataclass(frozen=True)
class Answer:
    """One trial, answered.

    Attributes:
        order: what A, B and X were: ABA or ABB.
        answer: what X was taken for, A or B. time: UTC, to the second.
        listener: who answered, as they named themselves, else a name for the browser that means nothing elsewhere.
    """

    pair: str
    order: str
    answer: str
    right: bool
    time: str
    listener: str


def unnamed() -> str:
    """The listener of this browser, until somebody gives a name."""
    return f"listener {visitors.visitor()[:6]}"


def load() -> list[Answer]:
    """Everything that this visitor has answered, the first first."""
    file = _file()
    if file is None:
        return list(st.session_state.get(state.BLIND_ANSWERS, ()))
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [answer for line in lines if (answer := _read(line)) is not None]


def add(answer: Answer) -> None:
    """Keep one more."""
    _write([*load(), answer])


def forget(listener: str) -> None:
    """Drop what a listener has answered."""
    _write([one for one in load() if one.listener != listener])


def _write(answers: Sequence[Answer]) -> None:
    file = _file()
    if file is None:
        st.session_state[state.BLIND_ANSWERS] = list(answers)
        return
    file.parent.mkdir(exist_ok=True)
    replace_file(file, "".join(f"{dump_line(asdict(one))}\n" for one in answers[-MOST:]).encode())


def _file() -> Path | None:
    folder = server.data_folder()
    return None if folder is None else folder / FOLDER / f"{visitors.visitor()}.jsonl"


def _read(line: str) -> Answer | None:
    try:
        row = json.loads(line)
        texts = {name: str(row[name]) for name in ("pair", "order", "answer", "time", "listener")}
        return Answer(right=row["right"] is True, **texts)
    except (ValueError, KeyError, TypeError):  # cut short, or of another version
        return None
