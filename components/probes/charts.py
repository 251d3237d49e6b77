"""Figures of a run of probes: tables in, plotly figures out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from components.charts import heatmap
from components.charts.parts import (
    add_band,
    layer_axis,
    line_of,
    new_figure,
    rate_axis,
    reference_line,
    ring_at,
)
from components.charts.words import plain
from components.words import layer_text
from interp_core.experiments.probes import tables
from interp_core.experiments.probes.lens import Nearest
from interp_core.experiments.wording import p_said
from interp_core.looks import PROBES, Look, look_of_probe
from interp_core.maths.stats import SIGNIFICANT

MOST_NUMBERS = 6
"""Layers up to which a cell of the overview is wide enough for its number and its mark."""
TICKS, LENS_PX = 8, 400
LEAST_R2 = -0.5
"""Of the axis: a probe that is far worse than the mean says no more than one that is worse."""


def overview(table: pd.DataFrame, at: str, selected: tuple[str, int] | None) -> go.Figure:
    """Every target by layer at one site and place, on one scale: 0 is chance, 1 is everything read.

    Args:
        at: site and place, as `curve_of` names them. selected: (target, layer).
    """
    rows = table[curve_of(table) == at]
    names, layers = tables.targets(rows), sorted(int(layer) for layer in rows["layer"].unique())
    values, written = np.full((2, len(names), len(layers)), np.nan)
    hover = [["" for _ in layers] for _ in names]
    marks = {}
    for row in rows.to_dict("records"):
        told = {str(key): value for key, value in row.items()}
        i, j = names.index(told["target"]), layers.index(told["layer"])
        values[i, j], written[i, j] = tables.share(told), told["score"]
        hover[i][j] = told["reason"] or "\n".join(filter(None, [tables.score_of(told), *_beside(told)]))
        if told["p_adjusted"] < SIGNIFICANT:
            marks[i, j] = "✱"
    kinds = {name: bool(tables.of_target(rows, name)["is_label"].iloc[0]) for name in names}
    chosen = (names.index(selected[0]), layers.index(selected[1])) if selected and selected[0] in names else None
    figure = heatmap.heatmap(
        values, [tables.name_of(name, kinds[name]) for name in names], [layer_text(layer) for layer in layers],
        title="What is read of it (✱ beyond chance)", unit="0 chance, 1 all of it", column_title="layer",
        limits=(0, 1), written=written, hover=hover, selected=chosen, marks=marks, numbers=len(layers) <= MOST_NUMBERS,
    )  # fmt: skip
    return figure.update_layout(margin={"l": 30 + 8 * max(len(tables.name_of(name, kinds[name])) for name in names)})


def curve_of(table: pd.DataFrame) -> pd.Series:
    """Site and place of every row, as the figures call them."""
    return table["site"] + ", " + table["place"]


def look_at(at: str) -> Look:
    """How a site and place, as `curve_of` names them, are drawn."""
    site, _, place = at.partition(", ")
    return look_of_probe(site, place)


def curve(table: pd.DataFrame, target: str, at: str, layer: int) -> go.Figure:
    """One target by layer, at every site and place, with the control task and chance; the selected one has its band.

    Args:
        at: the selected site and place. layer: the selected one; every point carries its own.
    """
    rows = tables.of_target(table, target)
    first = rows.iloc[0]
    is_label = bool(first["is_label"])
    figure = new_figure("balanced accuracy, held out" if is_label else "R2, held out")
    reference_line(figure, float(first["chance"]))
    every = list(dict.fromkeys(curve_of(rows)))
    for name in [*(one for one in every if one != at), at]:
        part = rows[curve_of(rows) == name].sort_values("layer")
        if len(part):
            _add(figure, part, look_at(name), chosen=name == at)
    chosen = rows[curve_of(rows) == at].sort_values("layer")
    if chosen["control"].notna().any():
        look = PROBES["control"]
        figure.add_scatter(
            x=chosen["layer"], y=_shown(chosen, "control"), mode="lines+markers", name=look.name, line=line_of(look),
            marker={"color": look.colour, "symbol": look.marker, "size": 8}, cliponaxis=False,
            hovertemplate="control task: %{y:.2f}<extra></extra>",
            customdata=[[int(one)] for one in chosen["layer"]],
        )  # fmt: skip
    for _, row in rows[(rows["p_adjusted"] < SIGNIFICANT) & (curve_of(rows) == at)].iterrows():
        figure.add_annotation(
            x=row["layer"], y=row["score"], yshift=17, text="<b>✱</b>", showarrow=False, font={"size": 13}
        )
    here = chosen[chosen["layer"] == layer]
    if len(here):
        ring_at(figure, layer, float(here["score"].iloc[0]), look_at(at).colour)
    layer_axis(figure, rows["layer"])
    if is_label:
        rate_axis(figure)
    else:
        figure.update_yaxes(range=[min(-0.08, _least(rows)), 1.12], tickformat=".1f")
    legend = {"y": 1.02, "x": 0, "font": {"size": 13}}
    return figure.update_layout(height=380, margin={"t": 84, "b": 56}, legend=legend)


def _shown(rows: pd.DataFrame, column: str) -> np.ndarray:
    return np.maximum(rows[column].to_numpy(float), LEAST_R2)


def _least(rows: pd.DataFrame) -> float:
    lowest = np.nanmin(np.concatenate([_shown(rows, "score"), _shown(rows, "control"), [0.0]]))
    return float(max(lowest, LEAST_R2)) - 0.05


def _add(figure: go.Figure, rows: pd.DataFrame, look: Look, *, chosen: bool) -> None:
    x = rows["layer"].to_numpy()
    if chosen:
        low, high = (_shown(rows, f"score_{end}") for end in ("low", "high"))
        add_band(figure, x, low, high, look)
    said = [
        tables.layer_name(int(row["layer"])) + "<br>" + "<br>".join([tables.score_of(row), *_beside(row)])
        for row in ({str(key): value for key, value in one.items()} for one in rows.to_dict("records"))
    ]
    figure.add_scatter(
        x=x, y=_shown(rows, "score"), mode="lines+markers", cliponaxis=False, line=line_of(look),
        name=f"{look.name} (n = {int(rows['n'].iloc[0])})",
        marker={"color": look.colour, "symbol": look.marker, "size": 10 if chosen else 7},
        customdata=[[int(layer)] for layer in x], text=said,
        hovertemplate=f"<b>{look.name}</b><br>%{{text}}<extra></extra>", opacity=1.0 if chosen else 0.75,
    )  # fmt: skip


def _beside(row: Mapping[str, Any]) -> list[str]:
    said = [tables.beside_of(row)] if tables.beside_of(row) else []
    if row["p_adjusted"] == row["p_adjusted"]:
        said.append(f"adjusted {p_said(row['p_adjusted'])}")
    return [*said, f"n = {row['n']}"]


def _seconds_across(matrix: np.ndarray, *, edges: np.ndarray, **settings: Any) -> go.Figure:
    """A heatmap of many narrow columns, each from one second to another."""
    figure = heatmap.heatmap(matrix, numbers=False, **settings)
    at = np.unique(np.linspace(0, len(edges) - 1, TICKS).round().astype(int))
    figure.update_xaxes(tickvals=at - 0.5, ticktext=[f"{edges[one]:.1f}" for one in at], tickangle=0)
    figure.update_traces(xgap=0, selector={"type": "heatmap"})
    return figure.update_layout(height=min(figure.layout.height, LENS_PX))


def lens_map(made: Nearest, word: str | None, cell: tuple[int, int] | None) -> go.Figure:
    """Layers upwards, time across: the answer that is nearest, or one answer's share among the answers.

    Args:
        word: the answer; None for whichever is nearest. cell: (row, column) that is selected.
    """
    shares, nearest = made.shares, made.nearest
    names = [layer_text(layer) for layer in made.layers]
    columns = [f"{edge:.2f}" for edge in made.edges[:-1]]
    hover = [
        [
            f"nearest answer: {made.labels[nearest[i, j]]} ({shares[i, j, nearest[i, j]]:.2f} among the answers)\n"
            f"all answers together: {made.answers[i, j].sum():.2g} of all words\n"
            f"likeliest word: {made.words[i][j].strip() or 'blank'} ({made.sure[i, j]:.2f})"
            for j in range(len(columns))
        ]
        for i in range(len(names))
    ]
    drawn = partial(
        _seconds_across, edges=made.edges, row_names=names, column_names=columns, column_title="seconds",
        row_title="layer", hover=hover, selected=cell, upwards=True,
    )  # fmt: skip
    if word is not None:
        at = made.labels.index(word)
        title = f"How near each position is to {word}"
        return drawn(shares[..., at], title=title, unit="share among the answers", limits=(0, 1))
    count = len(made.labels)
    best = np.take_along_axis(shares, nearest[..., None], -1)[..., 0]
    figure = drawn(
        nearest.astype(float), title="The answer that each position is nearest to", unit="", limits=(-0.5, count - 0.5),
        written=best,
    )  # fmt: skip
    colours = sample_colorscale("Cividis", [i / max(1, count - 1) for i in range(count)])
    steps = [(edge / count, colour) for i, colour in enumerate(colours) for edge in (i, i + 1)]
    bar = {"tickvals": list(range(count)), "ticktext": [plain(label) for label in made.labels]}
    return figure.update_traces(colorscale=steps, colorbar=bar, selector={"type": "heatmap"})
