"""Figures of a patching run: tables in, plotly figures out. No Streamlit here, so they draw the same in an export.

On screen they are shown with `theme="streamlit"`, which brings the page's background, grid and text colours in light
and in dark; every colour that means something is set here. A file needs `for_export` (Streamlit's own template holds
placeholder colours).

What they have in common: no meaning by colour alone (each series has its own dash and marker and, where there is room,
its name beside it); counts and 95 % intervals at every point; gaps where a layer was not computed; fixed axes, because
a click selects a layer and must not zoom. Every point carries its layer (or alpha) as `customdata[0]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components.chart_parts import (
    BLUE,
    COLORWAY,
    FONT_PX,
    GREY,
    KNOCKOUT_LOOKS,
    LENS_LOOKS,
    LOOKS,
    NO_CONFLICT_CHANGE,
    PURPLE,
    VERMILLION,
    Look,
    add_series,
    demand_one_group,
    layer_axis,
    lens_runs,
    mark_layer,
    mark_significant,
    name_right_ends,
    new_figure,
    rate_axis,
    reference_line,
    ring,
)
from components.chart_words import COUNT_OF, TITLES, alt_text, layers_text, plain, row_reading

__all__ = [
    "alt_text",
    "clicked_layer",
    "delta_curve",
    "dose_response",
    "flip_curve",
    "for_export",
    "knockout_curve",
    "label_logits",
    "lens_curve",
]

# ---- curves over layers --------------------------------------------------------------------------------------------


def flip_curve(
    metrics: pd.DataFrame,
    *,
    selected_layer: int | None = None,
    rate: str = "flip_to_target_rate_reachable",
    controls: Sequence[str] = ("random", "noise", "no-conflict"),
    flow: Sequence[str] = ("question", "last"),
    lens: pd.DataFrame | None = None,
) -> go.Figure:
    """How often a patch at each layer turns the answer, with its controls and the information flow on the same axes.

    Args:
        metrics: the metrics table (SPEC 1) of one kind, prompt and alpha.
        selected_layer: gets a line and a ring.
        rate: a rate column; its count and interval columns are found by name.
        controls: conditions drawn grey and dashed, named at their right end; those not in the table are left out.
        flow: conditions drawn as information-flow curves.
        lens: logit lens table (`lens_curve`), whose `target_rate` is drawn on the same axis.
    """
    fig = _condition_curves(metrics, rate, selected_layer, controls, flow, lens)
    rate_axis(fig)
    return fig


def delta_curve(
    metrics: pd.DataFrame,
    column: str = "delta_logprob_target_mean",
    *,
    selected_layer: int | None = None,
    controls: Sequence[str] = ("random", "noise", "no-conflict"),
    flow: Sequence[str] = ("question", "last"),
) -> go.Figure:
    """How far a patch at each layer moves the target's score, in the style of `flip_curve`; zero is "no effect"."""
    fig = _condition_curves(metrics, column, selected_layer, controls, flow)
    reference_line(fig, 0.0)
    if column == "recovered":
        reference_line(fig, 1.0)
    return fig


def lens_curve(
    lens: pd.DataFrame, *, value: str = "target_logprob_mean", selected_layer: int | None = None
) -> go.Figure:
    """Logit lens at the readout of the clean runs of A (base) and B (donor).

    Args:
        lens: columns layer, run ("base" or "donor") and `value`, of one kind; `n`, `<value>_low`, `<value>_high` are
            used where they are there.
    """
    demand_one_group(lens)
    fig = new_figure(TITLES.get(value, value))
    for run, rows in lens_runs(lens):
        add_series(fig, rows, "layer", value, LENS_LOOKS[run], count="n", band=True)
    layer_axis(fig, lens["layer"])
    if value.endswith("_rate"):
        rate_axis(fig)
    mark_layer(fig, selected_layer)
    return fig


def knockout_curve(
    knockout: pd.DataFrame, *, value: str = "changed_rate", selected_layer: int | None = None
) -> go.Figure:
    """What happens when the audio may not be read in a window of layers (the necessity test).

    Args:
        knockout: columns readers (who may not read it: "last" or "text"), layer_from, layer_to (inclusive), n and
            `value`, of one kind; `<value>_low` and `<value>_high` where they are there. A point stands in the middle
            of its window and carries the window's first layer.
    """
    demand_one_group(knockout)
    fig = new_figure(TITLES.get(value, value))
    for readers, rows in knockout.groupby("readers", sort=False):
        look = KNOCKOUT_LOOKS[str(readers)]
        rows = rows.assign(middle=(rows["layer_from"] + rows["layer_to"]) / 2).sort_values("middle")
        trace = add_series(fig, rows, "middle", value, look, count="n", band=True, whole_steps=False)
        trace.customdata = [[int(row["layer_from"]), _window_hover(look, row, value)] for _, row in rows.iterrows()]
    layer_axis(fig, pd.concat([knockout["layer_from"], knockout["layer_to"]]))
    widths = (knockout["layer_to"] - knockout["layer_from"] + 1).unique()
    fig.update_xaxes(title_text=f"middle of a window of {' or '.join(map(str, widths))} layers")
    if value.endswith("_rate"):
        rate_axis(fig)
    else:
        reference_line(fig, 0.0)
    mark_layer(fig, selected_layer)
    return fig


def _window_hover(look: Look, row: pd.Series, value: str) -> str:
    span = layers_text(int(row["layer_from"]), int(row["layer_to"]))
    return f"<b>{look.name}</b>, {span}<br>{row_reading(row, value)}"


def _condition_curves(
    metrics: pd.DataFrame,
    column: str,
    selected_layer: int | None,
    controls: Sequence[str],
    flow: Sequence[str],
    lens: pd.DataFrame | None = None,
) -> go.Figure:
    """The matched curve with its band, marks and ring; the others behind it, named at their right ends."""
    demand_one_group(metrics)
    fig = new_figure(TITLES.get(column, column))
    count = COUNT_OF.get(column, "n")
    rows_of = {str(condition): rows for condition, rows in metrics.groupby("condition", sort=False)}
    beside = []
    for condition in (*controls, *flow):
        if condition in rows_of:
            shown, look = measure_of(condition, column)
            beside.append(add_series(fig, rows_of[condition], "layer", shown, look, count=COUNT_OF.get(shown, "n")))
    for run, rows in lens_runs(lens):
        beside.append(add_series(fig, rows, "layer", "target_rate", LENS_LOOKS[run], count="n"))
    if "matched" in rows_of:
        matched = rows_of["matched"].sort_values("layer")
        add_series(fig, matched, "layer", column, LOOKS["matched"], count=count, band=True)
        mark_significant(fig, matched, column)
        ring(fig, matched, column, selected_layer)
    layer_axis(fig, metrics["layer"])
    name_right_ends(fig, beside)
    mark_layer(fig, selected_layer)
    return fig


def measure_of(condition: str, column: str) -> tuple[str, Look]:
    """What is drawn of a condition where the others show `column`, and how.

    A no-conflict pair has no target to move to: its recipient should give the donor's answer already, so a flip to the
    target would be counted over the few pairs that the model gets wrong. What it shows is how often any answer changes.
    """
    if condition == "no-conflict" and column.startswith("flip_to_target_rate"):
        return "flip_from_base_rate", NO_CONFLICT_CHANGE
    return column, LOOKS[condition]


# ---- other figures -------------------------------------------------------------------------------------------------


def dose_response(
    metrics: pd.DataFrame,
    layer: int,
    *,
    value: str = "flip_to_target_rate_reachable",
    controls: Sequence[str] = ("random", "noise", "no-conflict"),
) -> go.Figure:
    """The effect at one layer against the strength alpha: 0 leaves A as it is, 1 puts B in its place.

    Args:
        metrics: the metrics table of one kind and prompt, with every alpha of the run.
    """
    here = metrics[metrics["layer"] == layer]
    demand_one_group(here, ("kind", "prompt"))
    fig = new_figure(TITLES.get(value, value))
    beside = []
    for condition in (*controls, "matched"):
        rows, matched = here[here["condition"] == condition], condition == "matched"
        if len(rows):
            shown, look = measure_of(condition, value)
            count = COUNT_OF.get(shown, "n")
            trace = add_series(fig, rows, "alpha", shown, look, count=count, band=matched, whole_steps=False)
            beside += [] if matched else [trace]
    alphas = sorted(here["alpha"].unique())
    fig.update_xaxes(title_text=f"strength alpha of the patch at {layers_text(layer, layer)}", tickvals=alphas)
    name_right_ends(fig, beside)
    if "rate" in value:
        rate_axis(fig)
    else:
        reference_line(fig, 0.0)
    return fig


def label_logits(
    labels: Sequence[str],
    base: Sequence[float],
    patched: Sequence[float],
    donor: Sequence[float],
    target: str,
    *,
    scale: Literal["logit", "probability"] = "logit",
) -> go.Figure:
    """One pair at one layer: every label's logit in A's run, after the patch, and in B's run.

    A dot a run and label, because a logit has no zero that means something; the label that wins a run has a filled dot,
    and the legend says it. `probability` is the softmax over these labels alone.
    """
    runs = {"A as it is": base, "A after the patch": patched, "B": donor}
    styles = {"A as it is": (BLUE, "circle"), "A after the patch": (PURPLE, "diamond"), "B": (VERMILLION, "square")}
    values = {name: _softmax(logits) if scale == "probability" else np.asarray(logits) for name, logits in runs.items()}
    names = [f"<b>{plain(label)} ◂ target</b>" if label == target else plain(label) for label in labels]
    fig = new_figure("")
    before, after = values["A as it is"], values["A after the patch"]
    for name, start, end in zip(names, before, after, strict=True):
        fig.add_scatter(
            x=[start, end], y=[name, name], mode="lines", line={"color": GREY, "width": 2}, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
    for run, numbers in values.items():
        color, symbol = styles[run]
        winner = int(np.argmax(numbers))
        fig.add_scatter(
            x=numbers,
            y=names,
            mode="markers",
            name=f"{run}: <b>{plain(labels[winner])}</b>",
            marker={
                "color": color,
                "opacity": 1,
                "size": [15 if i == winner else 11 for i in range(len(labels))],
                "symbol": [symbol if i == winner else f"{symbol}-open" for i in range(len(labels))],
                "line": {"color": color, "width": 2.5},
            },
            customdata=[[label] for label in labels],
            hovertemplate=f"{run}<br>%{{y}}: %{{x:.3f}}<extra></extra>",
        )
    title = "logit (nats)" if scale == "logit" else "probability among the labels"
    fig.update_xaxes(title_text=title, showgrid=True)
    if scale == "probability":
        fig.update_xaxes(range=[-0.03, 1.03])
    fig.update_yaxes(autorange="reversed", title_text="")
    fig.update_layout(height=150 + 42 * len(labels), hovermode="closest")
    return fig


def _softmax(logits: Sequence[float]) -> np.ndarray:
    shifted = np.exp(np.asarray(logits, dtype=float) - np.max(logits))
    return shifted / shifted.sum()


def clicked_layer(points: Sequence[Mapping[str, Any]]) -> int | None:
    """The layer of the first of Streamlit's selected points; None if none carries one.

    Nothing selected means that a point was clicked for the second time, which says nothing about the layer.
    """
    for point in points:
        carried = point.get("customdata")
        # Streamlit hands a row of plain numbers over as {"0": ..., "1": ...}, and a mixed one as a list.
        first = carried.get("0") if isinstance(carried, Mapping) else carried[0] if carried else None
        if isinstance(first, int | float):
            return int(first)
    return None


def for_export(fig: go.Figure, title: str) -> go.Figure:
    """A copy for a file: white paper, black text, and a title that says what the page around it would have said.

    Args:
        title: model, kind or pair, n, seed and date; plain text, lines split by newlines.
    """
    copy = go.Figure(fig)
    lines = "<br>".join(plain(line) for line in title.splitlines())
    extra = 24 * len(title.splitlines()) + 16
    copy.update_layout(
        template="plotly_white",
        colorway=list(COLORWAY),
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"color": "black", "size": FONT_PX},
        title={
            "text": lines, "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 14, "l": 12},
            "font": {"size": 16},
        },
        margin={"t": copy.layout.margin.t + extra},
        height=copy.layout.height + extra,
    )  # fmt: skip
    return copy
