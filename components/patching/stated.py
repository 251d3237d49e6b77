"""A prompt that states an answer: whom the answers follow, by question and by layer, and one clip on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import server, state
from components.charts import clicks
from components.charts.parts import FONT_PX, add_series, layer_axis, new_figure
from components.charts.words import plain
from components.guard import readable_errors
from components.patching.results import Indexed
from components.player import clip_audio
from components.widgets import choice, folded
from components.words import md, option
from interp_core.data.clips import Clip
from interp_core.experiments.patching.conflict_figures import look_of, shown_items, sources_of
from interp_core.experiments.patching.experiment import statement_by_hand
from interp_core.experiments.patching.limits import STATED_LIMITS
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.stated import DOMINANCE, SPANS, follows, stating
from interp_core.looks import GREY
from interp_core.models.subject import Subject

HATCHED = {"circle": "", "diamond": "/", "square": "-", "x": "."}
"""How a source's bars are told apart beside their colour, by the marker that its curve has."""
OVER = {"fillmode": "overlay", "fgcolor": "white", "size": 7}
AT = {"question": "question positions", "last": "last position"}


def over_clips(index: Indexed, prompt: int, clips: Mapping[str, Clip]) -> None:
    """Shares of a question with and without a statement, by layer, and the answers; nothing of a run without any."""
    shares = index.result.conflict.stated_shares
    if shares.empty:
        return
    shares = shares[shares["prompt"] == prompt]
    fold = folded("Voice, words, or what the prompt states", ":material/rule:", key=state.FOLD_STATED)
    if not fold.open or shares.empty:
        return
    with fold, readable_errors():
        settings = index.result.config["settings"]
        example = stating(str(settings["statement"]), index.result.labels[0], index.prompts[prompt])
        st.caption(f"Every answer is stated in turn, like this: “{md(example)}”")
        clicks.show(bars(shares), key=state.STATED_BARS, alt=_said(shares))
        st.markdown(md(_said(shares)))
        st.markdown(_ratio(shares))
        layers = index.result.conflict.stated_layers
        layers = layers[layers["prompt"] == prompt] if len(layers) else layers
        spans = [span for span in SPANS if len(layers) and (layers["span"] == span).any()]
        if spans:
            st.markdown("**By layer**: states of the run with the statement, in the run without it")
            names = [AT[span] for span in spans]
            chosen = choice("At", names, key=state.STATED_SPAN, label_visibility="collapsed")
            span = spans[names.index(chosen)] if chosen in names else spans[0]
            rows = layers[layers["span"] == span]
            clicks.show(curve(rows), key=state.STATED_CURVE, alt=f"Shares by layer at the {AT[span]}.")
        _table(index, prompt, clips)
        with st.popover("What these shares do not show", icon=":material/info:"):
            st.markdown(STATED_LIMITS)


def of_clip(made: PatchRequest, subject: Subject, clip: Clip, prompt: int) -> None:
    """What is answered about one clip when the prompt states each label, in a fold that asks when it is opened; nothing
    of a model that reads no prompt."""
    if not subject.asks or "question" not in subject.spans:
        return
    fold = folded("State an answer to A in the prompt", ":material/rule:", key=state.FOLD_STATED_HERE)
    if not fold.open:
        return
    with fold, readable_errors():
        with st.spinner("Asking with every statement …"):
            records = _by_hand(server.engine().key_of(made), clip.digest, prompt, made, clip)
        table = pd.DataFrame(
            {
                "the prompt states": [record["stated"] or "nothing" for record in records],
                "answer": [record["prediction"] for record in records],
                "follows it": [
                    "" if r["stated"] is None else "yes" if r["prediction"] == r["stated"] else "no" for r in records
                ],
            }
        )
        st.dataframe(table, hide_index=True, alt="A's answer for every statement in the prompt.")
        example = stating(made.statement, records[1]["stated"], made.prompts[prompt])
        st.caption(f"For example: “{md(example)}” n = 1 clip, so no interval.")


def bars(shares: pd.DataFrame) -> go.Figure:
    """Shares of each source without and with a statement, with intervals; the sources' names under their bars."""
    figure = new_figure("share of the answers")
    alone, told = shown_items(shares)
    counts = {items: int(shares.loc[_of(shares, items), "n"].max()) for items in (alone, told)}
    for source in sources_of(shares):
        look = look_of(source)
        rows = [shares[_of(shares, items) & (shares["source"] == source)] for items in (alone, told)]
        some = pd.concat(rows)
        names = [f"{items}<br>n = {counts[items]}" for items in some["items"]]
        figure.add_bar(
            x=names,
            y=some["share"],
            name=plain(look.name),
            marker={"color": look.colour, "pattern": {"shape": HATCHED[look.marker], **OVER}},
            error_y={
                "type": "data", "symmetric": False, "array": (some["high"] - some["share"]).clip(lower=0),
                "arrayminus": (some["share"] - some["low"]).clip(lower=0), "thickness": 2,
                "color": GREY,
            },
            hovertemplate=f"{plain(look.name)}: %{{y:.1%}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="group", height=340, font={"size": FONT_PX}, bargap=0.25)
    figure.update_yaxes(range=[0, 1], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure


def curve(rows: pd.DataFrame) -> go.Figure:
    """Shares by layer of the items with a statement in which the sources differ."""
    items = shown_items(rows)[1]
    figure = new_figure("share of the answers")
    some = rows[(rows["items"] == items) & (rows["source"] != DOMINANCE)]
    for source in sources_of(some):
        own = some[some["source"] == source].sort_values("layer")
        own = own.rename(columns={"share": "share_rate", "low": "share_rate_low", "high": "share_rate_high"})
        add_series(figure, own, "layer", "share_rate", look_of(source), count="n", band=True)
    layer_axis(figure, some["layer"])
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    figure.update_layout(height=330)
    return figure


def _of(shares: pd.DataFrame, items: str) -> pd.Series:
    return (shares["items"] == items) & (shares["source"] != DOMINANCE)


def _said(shares: pd.DataFrame) -> str:
    said = []
    for items in shown_items(shares):
        rows = shares[_of(shares, items)].set_index("source")["share"]
        shown = ", ".join(f"{name} {100 * rows[name]:.0f} %" for name in sources_of(shares) if name in rows)
        said.append(f"{items}: {shown}")
    return "; ".join(said) + "."


def _ratio(shares: pd.DataFrame) -> str:
    told = shown_items(shares)[1]
    row = shares[(shares["items"] == told) & (shares["source"] == DOMINANCE)].iloc[0]
    if not row["n"]:
        return f"**Text dominance** ({md(told)}): no answer follows the text or the voice."
    held = f", 95 % interval {row['low']:.2f} to {row['high']:.2f}" if row["low"] == row["low"] else ""
    return (
        f"**Text dominance** ({md(told)}): {row['share']:.2f} of {int(row['n'])} answers that follow text or voice"
        f"{held} ({md(row['interval_method'])})."
    )


def _table(index: Indexed, prompt: int, clips: Mapping[str, Clip]) -> None:
    """Clips and their answers under one statement, those that the statement turns first."""
    records = [record for record in index.result.conflict.stated_records if record["prompt"] == prompt]
    label = choice("The prompt states", list(index.result.labels), key=state.STATED_LABEL, format_func=option)
    without = {record["clip_id"]: record["prediction"] for record in records if record["stated"] is None}
    own = [record for record in records if record["stated"] == label]
    names = {"stated": "text"}
    table = pd.DataFrame(
        {
            "clip": [record["clip_id"] for record in own],
            "hear": clip_audio.urls([record["clip_id"] for record in own], clips),
            "voice": [record["voice"] for record in own],
            "words": [record["words"] or "" for record in own],
            "without it": [without[record["clip_id"]] for record in own],
            "with it": [record["prediction"] for record in own],
            "follows": [names.get(winner, winner) for winner in map(follows, own)],
        }
    )
    moved = table["without it"] != table["with it"]
    table = table.assign(moved=moved).sort_values("moved", ascending=False, kind="stable").drop(columns="moved")
    st.caption(
        f"{int(moved.sum())} of {len(table)} answers change when the prompt states {md(label)}; they stand first."
    )
    st.dataframe(
        table, hide_index=True, height=250, column_config=clip_audio.hear(), key=state.STATED_TABLE,
        alt="Clips, what voice and words are, and the answer without and with the statement.",
    )  # fmt: skip


@st.cache_data(max_entries=64, show_spinner=False)
def _by_hand(key: str, digest: str, prompt: int, _request: PatchRequest, _clip: Clip) -> list[dict[str, Any]]:
    return statement_by_hand(server.engine(), _request, _clip, prompt=prompt)
