"""The Probes page's view of a run: what is read of every layer, one target by layer, and the clips behind a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import defaults, form, server, state
from components.charts import clicks, heatmap
from components.export import Drawn, facts
from components.guard import readable_errors
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.probes import charts, lens
from components.shown import Shown
from components.widgets import OF_CLIPS, choosing, chosen_of, halves, picking_table, stepped
from components.words import layer_of, layer_text, layer_title, md, option
from interp_core.data.clips import Clip
from interp_core.experiments.probes import tables
from interp_core.experiments.probes.capture import UNITS_OF
from interp_core.experiments.probes.limits import LIMITS
from interp_core.experiments.probes.plan import points_of
from interp_core.experiments.probes.request import READ_AT, ProbesRequest
from interp_core.experiments.probes.run import ProbesResult
from interp_core.experiments.wording import p_said
from interp_core.models.subject import Subject

SITES = ("resid_post", "attn_out", "mlp_out")


def suits(subject: Subject, usual: ProbesRequest) -> None:
    """InterpError for a model whose layers cannot be read."""
    points_of(subject, replace(usual, layers=None, places=(), sites=("resid_post",)))


def offers(subject: Subject, usual: ProbesRequest) -> form.Offers:
    """The columns of the clips, and the sites and places that the model has."""
    columns = sorted({name for clip in server.engine().manifest(usual).clips for name in clip.labels})
    return {
        "columns": columns,
        "units": ["auto", "none", *columns],
        "sites": [one for one in SITES if one in subject.kinds],
        "places": [one for one in READ_AT if one == "mean" or "last" in subject.spans],
    }


def explore(shown: Shown, asked: ProbesRequest, subject: Subject) -> Drawn:
    """Draw the run and everything that can be clicked in it."""
    result: ProbesResult = shown.result
    left, right = halves("probes", (1.15, 1))
    with left, readable_errors():
        target, at, layer = _choose(result)
        figure = _plots(result, target, at, layer)
    with right, readable_errors():
        _clips(shown, asked, subject, target, at, layer)
    with left, readable_errors():
        _numbers(result, target)
        with st.expander("What a probe and a lens can show, and what they cannot", icon=":material/info:"):
            st.markdown(LIMITS)
    name = _name(result, target)
    title = f"{name}, read off {at}; marked: {layer_title(layer).lower()}"
    return Drawn(figure, title, facts(shown, at), f"{target}-{layer_text(layer)}")


def _name(result: ProbesResult, target: str) -> str:
    rows = tables.of_target(result.table, target)
    return tables.name_of(target, bool(rows["is_label"].iloc[0]))


def _choose(result: ProbesResult) -> tuple[str, str, int]:
    """Target, site and place, and layer; the best point of a target until another is chosen."""
    names = {option(_name(result, one)): one for one in tables.targets(result.table)}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        first = result.best.iloc[0]
        usual = list(names.values()).index(str(first["target"]))
        said = st.selectbox("Read", list(names), index=usual, key=state.PB_TARGET, bind=state.BOUND, width=145)
        target = names.get(said or "", str(first["target"]))
        best = result.best[result.best["target"] == target]
        row = best.iloc[0] if len(best) else tables.of_target(result.table, target).iloc[0]
        every = list(dict.fromkeys(charts.curve_of(result.table)))
        own = f"{row['site']}, {row['place']}"
        state.follow(state.PB_AT, own)
        at = st.selectbox("Where", every, index=every.index(own), key=state.PB_AT, bind=state.BOUND, width=145)
        at = at if at in every else own
        rows = tables.of_target(result.table, target)
        rows = rows[charts.curve_of(rows) == at]
        texts = [layer_text(int(one)) for one in sorted(rows["layer"])]
        top = rows.sort_values("score", ascending=False, kind="stable")["layer"].iloc[0]
        there = texts.index(layer_text(int(top)))
        layer = stepped(
            "Layer", texts, texts[there], key=state.PB_LAYER, helps=("one layer down", "one layer up"), name="pb",
            width=80,
        )  # fmt: skip
    return target, at, layer_of(layer)


def _plots(result: ProbesResult, target: str, at: str, layer: int) -> go.Figure:
    rows = result.table[charts.curve_of(result.table) == at]
    names, layers = tables.targets(rows), sorted(int(one) for one in rows["layer"].unique())

    def on_cell(cell: tuple[int, int]) -> None:
        named = {state.PB_TARGET: option(_name(result, names[cell[0]])), state.PB_LAYER: layer_text(layers[cell[1]])}
        state.take(**named, **{state.PB_AT: at})

    for remark in result.remarks():
        st.caption(f"{md(remark[:1].upper() + remark[1:])}.")
    heatmap.show(
        charts.overview(result.table, at, (target, layer)), key=state.PB_MAP, on_cell=on_cell,
        alt=f"What is read of {at}, by target and layer.",
    )  # fmt: skip
    st.markdown(_reading(result, target, at, layer))
    figure = charts.curve(result.table, target, at, layer)

    def on_point(one: int) -> None:
        st.session_state[state.PB_LAYER] = layer_text(one)

    clicks.show(
        figure, key=state.PB_CURVE, on_click=on_point,
        alt=f"Held-out score of {target} by layer, beside the control task and chance.",
    )  # fmt: skip
    return figure


def _row(result: ProbesResult, target: str, at: str, layer: int) -> Mapping[str, Any]:
    rows = tables.of_target(result.table, target)
    here = rows[(charts.curve_of(rows) == at) & (rows["layer"] == layer)].iloc[0]
    return {str(name): value for name, value in here.items()}


def _reading(result: ProbesResult, target: str, at: str, layer: int) -> str:
    """The selected point in a sentence."""
    row = _row(result, target, at, layer)
    name = md(_name(result, target))
    if row["reason"]:
        return f"**{name}** is not read: {md(row['reason'])}."
    where = "What enters layer 0" if layer < 0 else layer_title(layer)
    beside = f"; {md(tables.beside_of(row))}" if tables.beside_of(row) else ""
    p = row["p_adjusted"]
    sure = f"; adjusted {p_said(p)} over all {_points(result, target)} points" if p == p else ""
    chosen = f"; selectivity {row['selectivity']:z.2f}" if row["selectivity"] == row["selectivity"] else ""
    of = f", n = {int(row['n'])} clips" + (
        f" of {int(row['units'])} {md(row['unit'])}" if row["unit"] != "none" else ""
    )
    return f"{where}: **{name}** is read with {md(tables.score_of(row))}{beside}{chosen}{sure}{of}."


def _points(result: ProbesResult, target: str) -> int:
    return len(tables.of_target(result.table, target))


def _clips(shown: Shown, asked: ProbesRequest, subject: Subject, target: str, at: str, layer: int) -> None:
    """The clips behind a point, with sound, the worst read first; the chosen one in the player and the lens."""
    result: ProbesResult = shown.result
    clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
    site, _, place = at.partition(", ")
    read = result.at(target, site, place, layer)
    is_label = bool(_row(result, target, at, layer)["is_label"])
    table, ids = _table(read, clips, is_label, target)
    chosen = chosen_of(state.PB_CLIP, set(ids) & set(clips), ids)
    caption = ""
    if is_label and len(read):
        wrong = int((read["value"].astype(str) != read["read"].astype(str)).sum())
        caption = f"Each clip is read by a probe that was not fitted on its unit; {wrong} of {len(read)} are misread."
    elif len(read):
        caption = f"In {UNITS_OF[target]}; each clip is read by a probe that was not fitted on its unit."
    picking_table(
        table, ids, choosing(state.PB_CLIP), key=state.PB_CLIPS, height=240, column_config=clip_audio.hear(),
        caption=caption, now=chosen, keys=OF_CLIPS,
        empty="No clip of this run is read here.", alt="Clips, what they are and what the held-out probe reads.",
    )  # fmt: skip
    if chosen is None:
        return
    clip = clips[chosen]
    request = defaults.with_common(shown.request, asked)
    window = lens.window_of(request, subject, clip, shown.key)
    ab_player(
        clip_audio.player_clip(clip, clip.clip_id, subject.sample_rate), key=state.PB_PLAYER, window=window,
        window_label="selected position",
    )  # fmt: skip
    lens.draw(request, subject, clip, shown)


def _table(
    read: pd.DataFrame, clips: Mapping[str, Clip], is_label: bool, target: str
) -> tuple[pd.DataFrame, list[str]]:
    """What the table of clips shows, and the ids of its rows."""
    if not len(read):
        return pd.DataFrame(), []
    if is_label:
        wrong = read["value"].astype(str) != read["read"].astype(str)
        rows = read.assign(off=wrong).sort_values("off", ascending=False, kind="stable")
        shown = {"is": rows["value"].astype(str), "is read as": rows["read"].astype(str)}
    else:
        known = pd.to_numeric(read["read"], errors="coerce")
        rows = read.assign(off=(known - read["value"]).abs(), read=known).sort_values("off", ascending=False)
        shown = {"is": rows["value"].round(2), "is read as": rows["read"].round(2), "off by": rows["off"].round(2)}
    ids = [str(one) for one in rows["clip_id"]]
    return pd.DataFrame({"clip": ids, "hear": clip_audio.urls(ids, clips), **shown}), ids


def _numbers(result: ProbesResult, target: str) -> None:
    with st.expander("The numbers, and how they were computed", icon=":material/table:"):
        rows = tables.of_target(result.table, target)
        lines = [f"{said}: {one}." for said, column in (
            ("Intervals", "interval_method"), ("p", "test"), ("Control task", "control_method")
        ) for one in rows[column].unique()[:1] if one]  # fmt: skip
        st.markdown("\n".join(f"- {md(line)}" for line in lines))
        st.dataframe(result.table, hide_index=True, height=260, alt="The table of all probes.")
