"""Figures of a neuron ablation: tables in, plotly figures out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components.charts.parts import (
    FONT_PX,
    add_band,
    line_of,
    mark_at,
    new_figure,
    numbers_fit,
    reference_line,
    ring_at,
    whiskers,
)
from interp_core.looks import ERASED, GREY, NEURONS, Look

MEASURES: Mapping[str, str] = {
    "head_ood": "Head out of domain",
    "head_id": "Head in domain",
    "domain_probe": "Domain probe, frozen",
    "task_probe": "Task probe, frozen",
    "domain_refit": "Domain probe, refitted",
    "task_refit": "Task probe, refitted",
}


BEHIND = 1.3
"""How far behind the last dose, on the axis of `position`, erased concepts stand."""


def position(k: float) -> float:
    """Where a dose stands on the axis: its logarithm, with room for 0."""
    return float(np.log2(k + 1))


NONE = pd.DataFrame()


def dose_response(
    curve: pd.DataFrame,
    report: Mapping[str, Any],
    measure: str,
    selected: int | None = None,
    erasure: pd.DataFrame = NONE,
) -> go.Figure:
    """A measure against the number of neurons that are ablated, K; the line is the unedited model.

    Bands: 95 % intervals of the ranked sets, 95 % of the draws of the random ones. Every point carries its K. Behind
    the last dose stands, with the same limits, what erasing a concept does, where a run erased one.
    """
    title = MEASURES[measure] + (" (accuracy)" if measure.startswith("head") else " (balanced accuracy)")
    figure = new_figure(title)
    for name in ("random", "matched", "domain", "task"):
        rows = curve[(curve["set"] == name) & curve[measure].notna()].sort_values("k")
        if not len(rows):
            continue
        look, x = NEURONS[name], rows["k"].map(position).to_numpy()
        if name != "matched":
            add_band(figure, x, rows[f"{measure}_low"].to_numpy(), rows[f"{measure}_high"].to_numpy(), look)
        counted = f" ({int(rows['draws'].max())} draws)" if name in ("random", "matched") else ""
        counted += " (planted shortcut)" if name == "domain" and report.get("planted") else ""
        figure.add_scatter(
            x=x,
            y=rows[measure],
            mode="lines+markers",
            name=look.name + counted,
            line=line_of(look),
            marker={"color": look.colour, "symbol": look.marker, "size": 9 if look.strong else 7},
            cliponaxis=False,
            customdata=[
                [int(k), _hover(row, measure, look)] for k, (_, row) in zip(rows["k"], rows.iterrows(), strict=True)
            ],
            hovertemplate="%{customdata[1]}<extra></extra>",
        )
    if measure in report["base"]:
        base = report["base"][measure]
        reference_line(figure, base)
        figure.add_annotation(
            x=0 if len(erasure) else 1, xref="paper", xanchor="left" if len(erasure) else "right", y=base,
            yanchor="bottom", showarrow=False, text=f"K = 0: {base:.3f}", font={"size": FONT_PX - 1},
        )  # fmt: skip
    _erased(figure, erasure, report, measure)
    tables = [curve, erasure] if len(erasure) else [curve]
    drawn = pd.concat([table[f"{measure}{end}"] for table in tables for end in ("", "_low", "_high")]).dropna()
    if len(drawn):
        figure.update_yaxes(range=_room(drawn), tickformat=".2f")
    doses = report["doses"]
    places, names = [position(k) for k in doses], list(map(str, doses))
    if len(erasure):
        places, names = [*places, places[-1] + BEHIND], [*names, "erased"]
        figure.update_layout(height=figure.layout.height + 80)  # three more lines of the legend
    figure.update_xaxes(
        title_text="neurons ablated, K (logarithmic)", tickvals=places, ticktext=names,
        range=[-0.25, places[-1] + (0.5 if len(erasure) else 0.25)],
    )  # fmt: skip
    numbers_fit(figure)
    if selected is not None:
        select_dose(figure, selected)
    return figure


def select_dose(figure: go.Figure, k: int) -> None:
    """Mark a dose in a figure of `dose_response`."""
    mark_at(figure, position(k), f"K = {k}")


def _erased(figure: go.Figure, erasure: pd.DataFrame, report: Mapping[str, Any], measure: str) -> None:
    """A point with whiskers for each concept that was erased, beside each other behind the last dose."""
    rows = erasure[erasure[measure].notna()] if len(erasure) else erasure
    for _, row in rows.iterrows():
        look, (value, low, high) = ERASED[row["set"]], (row[f"{measure}{end}"] for end in ("", "_low", "_high"))
        at = position(report["doses"][-1]) + BEHIND + 0.22 * (list(ERASED).index(row["set"]) - 1)
        counted = f" ({int(row['draws'])} draws)" if row["set"] == "random" else ""
        figure.add_scatter(
            x=[at], y=[value], mode="markers", name=f"{look.name}, rank {int(row['rank'])}{counted}",
            marker={"color": look.colour, "symbol": look.marker, "size": 11 if look.strong else 8},
            error_y=whiskers(*(np.array([part]) for part in (value, low, high))), cliponaxis=False,
            customdata=[[-1, _hover(row.rename({"rank": "k"}), measure, look).replace("K = ", "rank ", 1)]],
            hovertemplate="%{customdata[1]}<extra></extra>",
        )  # fmt: skip


def _room(values: pd.Series, least: float = 0.08) -> list[float]:
    """Limits of an axis: a little beyond the values, and never so near that rounding looks like change."""
    low, high = float(values.min()), float(values.max())
    spare = max(0.06 * (high - low), (least - (high - low)) / 2, 0.01)
    return [low - spare, high + spare]


def _hover(row: pd.Series, measure: str, look: Look) -> str:
    lines = [f"<b>{look.name}</b>, K = {int(row['k'])}", f"{MEASURES[measure]}: {row[measure]:.3f}"]
    low, high = row[f"{measure}_low"], row[f"{measure}_high"]
    if low == low:
        what = "95 % of draws" if row["draws"] > 1 else "95 % interval"
        lines.append(f"{what} {low:.3f} to {high:.3f}")
    if row["k"]:
        lines.append(f"against K = 0: {row[f'{measure}_change']:+z.3f}")
    return "<br>".join(lines)


def trade_off(curve: pd.DataFrame, report: Mapping[str, Any], selected: int | None) -> go.Figure:
    """Accuracy of the head out of domain against in domain, a point a dose: up is better out of domain."""
    figure = new_figure("head out of domain (accuracy)")
    drawn = ("random", "task", "domain")
    for name in drawn:
        rows, look = curve[curve["set"] == name].sort_values("k"), NEURONS[name]
        figure.add_scatter(
            x=rows["head_id"],
            y=rows["head_ood"],
            mode="lines+markers+text" if name != "random" else "lines+markers",
            name=look.name,
            text=[str(int(k)) if k else "" for k in rows["k"]],
            textposition="top center",
            textfont={"size": FONT_PX - 2},
            line={**line_of(look), "width": 1.5},
            marker={"color": look.colour, "symbol": look.marker, "size": 8},
            cliponaxis=False,
            customdata=[[int(k)] for k in rows["k"]],
            hovertemplate=f"<b>{look.name}</b>, K = %{{customdata[0]}}<br>in domain %{{x:.3f}}<br>out of domain "
            "%{y:.3f}<extra></extra>",
        )
    base = report["base"]
    figure.add_scatter(
        x=[base["head_id"]], y=[base["head_ood"]], mode="markers", name="unedited", hoverinfo="skip",
        marker={"symbol": "star", "size": 15, "color": GREY},
    )  # fmt: skip
    for _, row in curve[(curve["k"] == selected) & curve["set"].isin(drawn)].iterrows():
        ring_at(figure, row["head_id"], row["head_ood"], NEURONS[row["set"]].colour)
    rows = curve[curve["set"] != "matched"]
    figure.update_xaxes(
        title_text="head in domain (accuracy)", showgrid=True, range=_room(rows["head_id"]), tickformat=".2f"
    )
    figure.update_yaxes(range=_room(rows["head_ood"]), tickformat=".2f")
    figure.update_layout(height=360)
    numbers_fit(figure)
    return figure
