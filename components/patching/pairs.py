"""The pairs page's parts: the table of pairs with sound in its rows, one pair in full, and all clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from components import server, shown, state
from components.patching import answers as answers_view
from components.patching import explain
from components.patching.results import indexed
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.widgets import choosing, list_steps, picking_table, steps_row
from components.words import md, option
from interp_core.data.candidates import PairKind
from interp_core.data.clips import Acoustics, Clip
from interp_core.data.pairs import Pair, PairSet
from interp_core.experiments.patching.by_hand import BY_HAND
from interp_core.experiments.patching.experiment import pairs_of
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.subject import Subject

TABLE_HEIGHT, ROW_HEIGHT = 330, 35
PATCHING_PAGE = Path(__file__).resolve().parents[2] / "pages" / "patching.py"
Answers = Mapping[tuple[str, int], str]


def answers_of(table: pd.DataFrame | None) -> Answers:
    """(clip_id, prompt) -> the model's own answer."""
    if table is None:
        return {}
    return dict(zip(zip(table["clip_id"], table["prompt"], strict=True), table["prediction"], strict=True))


def built(asked: PatchRequest, subject: Subject) -> None:
    """The pairs that follow from the labels: the table, one in full, and how they were built."""
    with st.spinner("Reading the clips and building the pairs …"):
        clips, made = server.engine().manifest(asked).clips, pairs_of(server.engine(), asked)
    run = shown.current(asked)
    if run is not None and shown.changed_since(run, asked):
        run = None  # it knows the answers to other recordings
    names = answers_view.prompt_names(asked.model, asked.prompts)
    known = answers_of(answers_view.base_answers(asked, run))

    best = indexed(run).best_pair if run else {kind.name: made.of(kind.name)[0].pair_id for kind in made.kinds}
    kind = choose_kind(made, best)
    pairs = filtered(made.of(kind.name), kind)
    table(pairs, known, names[0], 0)
    pair = choose_pair(pairs, best.get(kind.name))
    if pair is not None:
        detail(pair, kind, subject, known, names)
    with st.expander("How often the model is right by itself", icon=":material/percent:"):
        explain.base_accuracy(run, names)
        answers_view.ask_about_every_clip(asked)
    with st.expander(f"All {len(clips)} clips", icon=":material/library_music:"):
        all_clips(clips, known, names)
    with st.expander("How the pairs were built", icon=":material/fact_check:"):
        st.json(made.report, expanded=2)


def choose_kind(made: PairSet, best: Mapping[str, str]) -> PairKind:
    """Which kind of pair is listed; `best` is the pair to select first of each kind."""
    names = [kind.name for kind in made.kinds]
    name = state.shared(
        st.segmented_control,
        "Pairs",
        names,
        default=names[0],
        required=True,
        format_func=option,
        key=state.KIND,
        on_change=state.select_kind_with(best),
        help="prosody: same words, another voice. semantic: same voice, other words.",
    )
    return next((kind for kind in made.kinds if kind.name == name), made.kinds[0])


def filtered(pairs: Sequence[Pair], kind: PairKind) -> list[Pair]:
    """The pairs that pass the filters; the filters are drawn here."""
    columns = [(f"{kind.differ} of A", "recipient", kind.differ), (f"{kind.differ} of B", "donor", kind.differ)]
    if any(pair.recipient.label("speaker") for pair in pairs):
        columns.append(("speaker of A", "recipient", "speaker"))
    left = list(pairs)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        for title, side, column in columns:
            values = sorted({label for pair in pairs if (label := getattr(pair, side).label(column))})
            if not values:
                continue
            chosen = st.multiselect(md(title), values, key=f"filter-{kind.name}-{title}", placeholder="all", width=200)
            if chosen:
                left = [pair for pair in left if getattr(pair, side).label(column) in chosen]
        text = st.text_input(
            "Text or name", key=f"filter-{kind.name}-text", placeholder="search", type="search", width=200
        )
    if text:
        wanted = text.casefold()
        left = [p for p in left if any(wanted in _searched(clip) for clip in (p.recipient, p.donor))]
    return left


def _searched(clip: Clip) -> str:
    return " ".join([clip.clip_id, clip.label("text") or ""]).casefold()


def table(pairs: Sequence[Pair], answers: Answers, question: str, prompt: int) -> None:
    """The pairs with both recordings in the row; a row that is clicked becomes the selected pair."""
    ids = [pair.pair_id for pair in pairs]

    def side(name: str) -> dict[str, list[str | None]]:
        letter, clips = "A" if name == "recipient" else "B", [getattr(pair, name) for pair in pairs]
        columns: dict[str, list[str | None]] = {f"hear {letter}": [clip_audio.url(clip) for clip in clips]}
        columns[letter] = [clip.clip_id for clip in clips]
        for title, column in (("voice", "prosody_label"), ("words", "semantic_label")):
            if any(clip.label(column) for clip in clips):
                columns[f"{letter} {title}"] = [clip.label(column) for clip in clips]
        if answers:
            columns[f"{letter} answer"] = [answers.get((clip.clip_id, prompt)) for clip in clips]
        return columns

    rows = {"pair": ids, **side("recipient"), **side("donor"), "target": [pair.target for pair in pairs]}
    picking_table(
        pd.DataFrame(rows),
        ids,
        choosing(state.PAIR),
        key=state.PAIR_TABLE,
        height=min(TABLE_HEIGHT, ROW_HEIGHT * (len(ids) + 1) + 3),
        column_config={
            **clip_audio.hear("hear A"),
            **clip_audio.hear("hear B"),
            "A answer": st.column_config.TextColumn(help=f"unedited, asked: {question}"),
            "B answer": st.column_config.TextColumn(help=f"unedited, asked: {question}"),
        },
        alt=f"{len(ids)} pairs with both recordings, their labels and the target.",
    )


def choose_pair(pairs: Sequence[Pair], default: str | None) -> Pair | None:
    """The selected pair; the box and the table's rows set the same selection."""
    ids = [pair.pair_id for pair in pairs]
    if not ids:
        st.info("No pair passes the filters.")
        return None
    at = ids.index(default) if default in ids else 0
    with steps_row(state.PAIR, vertical_alignment="bottom", width="content"):
        chosen = state.shared(st.selectbox, f"Pair, of {len(ids)}", ids, key=state.PAIR, index=at, width=320)
        list_steps(ids, chosen, choosing(state.PAIR), key=state.PAIR_TABLE, what="pair")
    return next((pair for pair in pairs if pair.pair_id == chosen), pairs[0])


def why(pair: Pair, kind: PairKind) -> str:
    """Why this pair was built, in a sentence of markdown."""
    a, b = pair.recipient, pair.donor
    spoken = list(dict.fromkeys(text for clip in (a, b) if (text := clip.label("text"))))
    quoted = " / ".join(f"“{md(text)}”" for text in spoken)
    if kind.edit:
        own = f"the model's own answer to the edited copy, which is not always what the {md(kind.edit)} sounds like"
        return f"{quoted}  \nB is A with its sound edited: **{md(kind.edit)}**. Target: **{md(pair.target)}**, {own}."
    if kind is BY_HAND:
        return f"{quoted}  \nPut together by hand. Target: **{md(pair.target)}**, the model's own answer to B."
    said = [f"same {md(kind.same)} **{md(a.label(kind.same))}**"]
    if kind.also_differ:
        said.append(f"{md(kind.also_differ)} {md(a.label(kind.also_differ))} against {md(b.label(kind.also_differ))}")
    said.append(f"{md(kind.differ)} **{md(a.label(kind.differ))}** in A and **{md(b.label(kind.differ))}** in B")
    if kind.agree and a.label(kind.agree):
        said.append(f"both {md(kind.agree)} {md(a.label(kind.agree))}")
    if a.label("speaker") and a.label("speaker") == b.label("speaker"):
        said.append(f"one speaker, {md(a.label('speaker'))}")
    return f"{quoted}  \nBuilt because: {'; '.join(said)}. Target: **{md(pair.target)}**."


def detail(pair: Pair, kind: PairKind, subject: Subject, answers: Answers, names: Sequence[str]) -> None:
    """One pair in full: both recordings under one playhead, what is known of each, and the way to patch it."""
    left, right = st.columns([1.25, 1], gap="medium")
    with left:
        clips = [
            clip_audio.player_clip(clip, clip.clip_id, subject.sample_rate) for clip in (pair.recipient, pair.donor)
        ]
        ab_player(clips[0], clips[1], key=state.PLAYER)
    with right:
        st.markdown(why(pair, kind))
        measured = server.engine().acoustics([pair.recipient, pair.donor], subject.sample_rate)
        rows = _facts(pair, measured, answers, names)
        st.dataframe(
            pd.DataFrame(rows, columns=["", "A", "B"]),
            hide_index=True,
            height="content",
            alt="Labels, answers and acoustics of both recordings.",
        )
        st.page_link(
            str(PATCHING_PAGE),
            label="**Patch this pair**",
            icon=":material/cable:",
            query_params={state.KIND: option(pair.kind), state.PAIR: pair.pair_id},
        )


def _facts(
    pair: Pair, measured: Mapping[str, Acoustics], answers: Answers, names: Sequence[str]
) -> list[tuple[str, str, str]]:
    a, b = pair.recipient, pair.donor
    columns = [column for column in dict.fromkeys((*a.labels, *b.labels)) if column != "text"]
    rows = [(column, a.label(column) or "–", b.label(column) or "–") for column in columns]
    for number, name in enumerate(names):
        said = [answers.get((clip.clip_id, number)) for clip in (a, b)]
        if any(said):
            rows.append((f"answer, asked {name}", said[0] or "–", said[1] or "–"))
    shown = {
        "duration": ("duration_s", "{:.2f} s"),
        "F0, median": ("f0_median_hz", "{:.0f} Hz"),
        "RMS": ("rms", "{:.3f}"),
        "zero crossings": ("zero_crossing_rate", "{:.3f}"),
        "spectral centroid": ("spectral_centroid_hz", "{:.0f} Hz"),
    }
    for title, (name, form) in shown.items():
        values = [getattr(measured[clip.clip_id], name) for clip in (a, b)]
        measures = ["unvoiced" if math.isnan(value) else form.format(value) for value in values]
        rows.append((title, measures[0], measures[1]))
    return rows


def all_clips(clips: Sequence[Clip], answers: Answers, names: Sequence[str]) -> None:
    """Every clip of the manifest with its sound, its labels and the model's own answers."""
    columns = list(dict.fromkeys(column for clip in clips for column in clip.labels))
    table = pd.DataFrame({"hear": [clip_audio.url(clip) for clip in clips], "clip": [clip.clip_id for clip in clips]})
    for column in columns:
        table[column] = [clip.label(column) for clip in clips]
    for number, name in enumerate(names):
        if answers:
            table[f"answer, {name}"] = [answers.get((clip.clip_id, number)) for clip in clips]
    st.dataframe(
        table,
        hide_index=True,
        height=400,
        column_config=clip_audio.hear(),
        alt=f"All {len(clips)} clips.",
    )
