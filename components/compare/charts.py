"""Figures of a comparison: tables in, plotly figures out.

Base blue circles, donor vermillion squares, transplant purple diamonds, as everywhere; what belongs to both is green.
Every interval and count that there is stands at its point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.stats import norm

from components.charts.parts import FONT_PX, new_figure, reference_line, ring_at, whiskers
from components.charts.words import plain
from interp_core.errors import InterpError
from interp_core.experiments.wording import p_said
from interp_core.looks import COMPARED, GREEN, GREY, Look
from interp_core.maths.scores import error_curve

RATE_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def look_of(model: str) -> Look:
    """Base and donor have a look of their own, every transplant the third."""
    return COMPARED.get(model, COMPARED["transplant"])


def point_name(point: str) -> str:
    """`resid_post.L3` as `layer 3`, a stage by its name."""
    return f"layer {point.removeprefix('resid_post.L')}" if point.startswith("resid_post.L") else point


def axis_name(point: str) -> str:
    """As short as an axis needs it."""
    return point.removeprefix("resid_post.L")


def diagonal(rows: pd.DataFrame, estimate: str, *, selected: str | None = None) -> go.Figure:
    """CKA of every point with its counterpart, 95 % intervals by deleting groups.

    Args:
        rows: the rows of `cka.csv` of one representation whose two points are one, in the order of the forward pass.
        estimate: `unbiased` or `plain`; selected: the point that gets a ring.
    """
    fig = new_figure(f"{estimate} linear CKA, base and donor")
    x = list(range(len(rows)))
    values = rows[estimate].to_numpy(float)
    low, high = rows[f"{estimate}_low"].to_numpy(float), rows[f"{estimate}_high"].to_numpy(float)
    texts = [_cka_text(row, estimate) for row in rows.to_dict("records")]
    n = int(rows["n"].iloc[0]) if len(rows) else 0
    fig.add_scatter(
        x=x, y=[v if math.isfinite(v) else None for v in values], mode="lines+markers",
        name=f"{estimate} CKA (n = {n} clips)", connectgaps=False, cliponaxis=False,
        error_y=whiskers(values, low, high), line={"color": GREEN, "width": 2},
        marker={"color": GREEN, "size": 9}, customdata=[[i] for i in x], text=texts,
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    _ring(fig, x, values, list(rows["base_point"]), selected, GREEN)
    reference_line(fig, 1.0)
    _point_axis(fig, list(rows["base_point"]))
    known = np.concatenate([values, low, high])
    lowest = float(np.nanmin(known)) if np.isfinite(known).any() else 0.0
    fig.update_yaxes(range=[min(-0.03, lowest - 0.03), 1.06])
    fig.update_layout(height=330)
    return fig


def effect(
    rows: pd.DataFrame, points: Sequence[str], value: str, title: str, *, selected: str | None = None
) -> go.Figure:
    """What the donor's activation does at each point alone; hollow where it must do nothing by the weights.

    Args:
        rows: rows of the summary with one site each, as `sites`.
        points: all points, in the order of the forward pass.
        value: a column, with `_low` and `_high` where there are any.
    """
    fig, colour = new_figure(title), look_of("transplant").colour
    by_site = {row["sites"]: row for row in rows.to_dict("records")}
    here = [(i, by_site[point]) for i, point in enumerate(points) if point in by_site]
    x, values = [i for i, _ in here], np.array([row[value] for _, row in here], float)
    low, high = (np.array([row.get(f"{value}_{end}", np.nan) for _, row in here], float) for end in ("low", "high"))
    null = [bool(row["null"]) for _, row in here]
    fig.add_scatter(
        x=x, y=values, mode="lines+markers", name="donor's activation there, alone", cliponaxis=False,
        error_y=whiskers(values, low, high), line={"color": colour, "width": 2, "dash": "dot"},
        marker={
            "color": colour, "size": 11, "symbol": ["diamond-open" if hollow else "diamond" for hollow in null],
            "line": {"color": colour, "width": 2},
        },
        customdata=[[i] for i in x], text=[_effect_text(row, value) for _, row in here],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    if any(null):
        fig.add_scatter(
            x=[None], y=[None], mode="markers", name="hollow: null by construction", hoverinfo="skip",
            marker={"symbol": "diamond-open", "size": 11, "color": colour, "line": {"width": 2}},
        )  # fmt: skip
    _ring(fig, x, values, [points[i] for i in x], selected, colour)
    reference_line(fig, 0.0)
    _point_axis(fig, points)
    fig.update_layout(height=330)
    return fig


def measures(rows: pd.DataFrame, measure: str, *, selected: str | None = None) -> go.Figure:
    """A measure of every model with its interval, one line each; the base as a line through all."""
    fig = new_figure("")
    names = [plain(name) for name in rows["model"]]
    for look, picked in _by_look(rows["model"]):
        some = rows.iloc[picked]
        values = some[measure].to_numpy(float)
        low, high = (
            some.get(f"{measure}_{end}", pd.Series(np.nan, some.index)).to_numpy(float) for end in ("low", "high")
        )
        null = [bool(text) for text in some["null"]]
        fig.add_scatter(
            x=values, y=[names[i] for i in picked], mode="markers", cliponaxis=False, showlegend=False,
            error_x=whiskers(values, low, high),
            marker={
                "color": look.colour, "size": 11, "line": {"color": look.colour, "width": 2},
                "symbol": [f"{look.marker}-open" if hollow else look.marker for hollow in null],
            },
            customdata=[[i] for i in picked], text=[_measure_text(row, measure) for row in some.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    base = rows.loc[rows["model"] == "base", measure]
    if len(base):
        line = {"color": look_of("base").colour, "width": 1.5, "dash": "dash"}
        fig.add_vline(x=float(base.iloc[0]), line=line, layer="below")
    if selected in list(rows["model"]):
        at = names[list(rows["model"]).index(selected)]
        value = float(rows.loc[rows["model"] == selected, measure].iloc[0])
        ring_at(fig, value, at, GREY)
    fig.update_yaxes(categoryorder="array", categoryarray=names[::-1], title_text="", automargin=True)
    title = {"eer": "EER", "min_dcf": "minDCF", "accuracy": "accuracy"}.get(measure, measure)
    fig.update_xaxes(title_text=title, showgrid=True, tickformat=".0%" if measure in ("eer", "accuracy") else "")
    fig.update_layout(height=120 + 26 * len(rows), margin={"l": 180, "r": 30, "t": 20, "b": 56})
    return fig


def det(scores: pd.DataFrame, models: Sequence[str], positive: str) -> go.Figure:
    """Detection error trade-off on normal-deviate axes: false rejects against false accepts, with the EER's line."""
    fig = new_figure("bona fide rejected (FRR)")
    for model in models:
        rows, look = scores[scores["model"] == model], look_of(model)
        try:
            curve = error_curve(rows["score"].to_numpy(float), (rows["label"] == positive).to_numpy())
        except InterpError:
            continue
        far, frr = curve.det()
        n = (rows["label"] == positive).sum()
        fig.add_scatter(
            x=far, y=frr, mode="lines+markers" if len(far) < 40 else "lines", name=f"{plain(model)}",
            line={"color": look.colour, "dash": look.dash, "width": 2.5, "shape": "hv"},
            marker={"symbol": look.marker, "size": 6, "color": look.colour},
            text=[f"FAR {norm.cdf(a):.1%}, FRR {norm.cdf(r):.1%}" for a, r in zip(far, frr, strict=True)],
            hovertemplate=f"<b>{plain(model)}</b><br>%{{text}}<br>{n} bona fide, {len(rows) - n} spoofs<extra></extra>",
        )  # fmt: skip
    ends = norm.ppf([0.004, 0.996])
    fig.add_scatter(
        x=ends, y=ends, mode="lines", name="FAR = FRR (the EER)", hoverinfo="skip",
        line={"color": GREY, "width": 1.5, "dash": "longdash"},
    )  # fmt: skip
    ticks = {
        "tickvals": [float(norm.ppf(rate)) for rate in RATE_TICKS],
        "ticktext": [f"{100 * rate:g}" for rate in RATE_TICKS],
    }
    reach = {"range": [float(norm.ppf(rate)) for rate in (0.008, 0.992)], "showgrid": True}
    fig.update_xaxes(title_text="spoofs accepted (FAR, %)", **ticks, **reach)
    fig.update_yaxes(title_text="bona fide rejected (FRR, %)", **ticks, **reach)
    fig.update_layout(height=460)
    return fig


def probes(rows: pd.DataFrame, subset: str) -> go.Figure:
    """Balanced accuracy of the domain probe at every site of both models, against chance.

    Args:
        rows: `probe.csv`, measured at sites.
    """
    fig = new_figure("domain probe, balanced accuracy")
    here = rows[rows["clips"] == subset]
    points = list(dict.fromkeys(here["site"]))
    for model in ("base", "donor"):
        some, look = here[here["model"] == model], look_of(model)
        values = some["accuracy"].to_numpy(float)
        x = [points.index(site) + (-0.08 if model == "base" else 0.08) for site in some["site"]]
        counted = f" (n = {int(some['n'].iloc[0])} clips)" if len(some) else ""
        fig.add_scatter(
            x=x, y=values, mode="lines+markers", name=f"{model}{counted}",
            error_y=whiskers(values, some["low"].to_numpy(float), some["high"].to_numpy(float)), cliponaxis=False,
            line={"color": look.colour, "dash": look.dash, "width": 2},
            marker={"color": look.colour, "symbol": look.marker, "size": 9},
            text=[_probe_text(row) for row in some.to_dict("records")], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    if len(here):
        chance = float(here["chance"].iloc[0])
        fig.add_hline(
            y=chance, line={"color": GREY, "width": 1.5, "dash": "dash"}, layer="below",
            annotation={"text": f"chance, {chance:.2f}", "font": {"size": FONT_PX - 1}, "xanchor": "left"},
            annotation_position="bottom left",
        )  # fmt: skip
    _point_axis(fig, points)
    fig.update_yaxes(range=[-0.03, 1.06])
    fig.update_layout(height=380)
    return fig


def _by_look(models: pd.Series) -> list[tuple[Look, list[int]]]:
    groups: dict[Look, list[int]] = {}
    for i, model in enumerate(models):
        groups.setdefault(look_of(str(model)), []).append(i)
    return list(groups.items())


def _ring(
    fig: go.Figure, x: Sequence[int], values: np.ndarray, points: Sequence[str], selected: str | None, colour: str
) -> None:
    if selected in points:
        at = list(points).index(str(selected))
        ring_at(fig, x[at], values[at], colour)


def _point_axis(fig: go.Figure, points: Sequence[str]) -> None:
    step = max(1, math.ceil(len(points) / 20))
    staged = any(not point.startswith("resid_post") for point in points)
    at = [i for i, point in enumerate(points) if i % step == 0 or not point.startswith("resid_post")]
    fig.update_xaxes(
        range=[-0.5, len(points) - 0.5], tickvals=at, ticktext=[axis_name(points[i]) for i in at],
        title_text="layer, then stages behind the layers", tickangle=-40 if staged else 0,
    )  # fmt: skip


def _cka_text(row: Mapping, estimate: str) -> str:
    if row["reason"] or not math.isfinite(row[estimate]):
        return f"<b>{point_name(row['base_point'])}</b><br>no value: {plain(row['reason'])}"
    between = _between(row, estimate, f"n = {int(row['n'])}")
    return f"<b>{point_name(row['base_point'])}</b><br>{row[estimate]:.4f}<br>{between}"


def _between(row: Mapping, column: str, counted: str) -> str:
    low, high = row.get(f"{column}_low", np.nan), row.get(f"{column}_high", np.nan)
    if low == low and high == high:
        return f"95 % interval {low:.3f} to {high:.3f}; {counted}"
    return f"{plain(row.get('interval_method') or 'no interval')}; {counted}"


def _effect_text(row: Mapping, value: str) -> str:
    lines = [f"<b>{plain(row['model'])}</b>", f"{row[value]:.4g}", _between(row, value, f"n = {int(row['n'])}")]
    return "<br>".join([*lines, *(["null by construction"] if row["null"] else [])])


def _measure_text(row: Mapping, measure: str) -> str:
    lines = [f"<b>{plain(row['model'])}</b>", f"{row[measure]:.2%}", _between(row, measure, f"n = {int(row['n'])}")]
    gap = row.get(f"{measure}_difference", np.nan)
    if gap == gap:
        low, high = row.get(f"{measure}_difference_low", np.nan), row.get(f"{measure}_difference_high", np.nan)
        between = f" (95 % interval {low:+z.2%} to {high:+z.2%})" if low == low else ""
        lines.append(f"difference {gap:+z.2%}{between}")
    return "<br>".join([*lines, *([plain(row["null"])] if row["null"] else [])])


def _probe_text(row: Mapping) -> str:
    if row["reason"]:
        return f"<b>{plain(row['model'])}, {point_name(row['site'])}</b><br>no probe: {plain(row['reason'])}"
    lines = [
        f"<b>{plain(row['model'])}, {point_name(row['site'])}</b>",
        f"{row['accuracy']:.3f}, chance {row['chance']:.3f}",
    ]
    if row["low"] == row["low"]:
        lines.append(f"95 % interval {row['low']:.3f} to {row['high']:.3f}")
    counted = f"n = {int(row['n'])} clips in {int(row['n_groups'])} groups"
    lines.append(counted + (f"; {p_said(row['p'])}" if row["p"] == row["p"] else ""))
    return "<br>".join([*lines, *([plain(row["note"])] if row["note"] else [])])
