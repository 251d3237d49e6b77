"""Figures of a steering run: tables in, plotly figures out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.special import softmax

from components.charts import heatmap
from components.charts.parts import add_band, line_of, mark_at, new_figure, rate_axis, reference_line, ring_at
from components.charts.words import plain
from interp_core.experiments.steering.by_hand import ByHand
from interp_core.experiments.steering.tables import HALF, moved_by
from interp_core.experiments.wording import p_said
from interp_core.looks import GREY, RUNS, STEERING, Look


def halves(table: pd.DataFrame, alphas: Sequence[float], selected: tuple[str, int] | None) -> go.Figure:
    """The smallest strength that moves half of the clips, label x layer; a gap where none does, whose hover says what
    the best one moves.

    Args:
        table: of `smallest_alpha`. selected: (label, layer).
    """
    labels, layers = rows_of(table)
    steps = sorted(alphas)
    place, written = np.full((2, len(labels), len(layers)), np.nan)
    hover = [["" for _ in layers] for _ in labels]
    for row in table.to_dict("records"):
        i, j = labels.index(row["label"]), layers.index(row["layer"])
        moved = "nothing to move" if row["moved_rate"] != row["moved_rate"] else f"{100 * row['moved_rate']:.0f} % move"
        beside = "" if row["random_rate"] != row["random_rate"] else f"; random {100 * row['random_rate']:.0f} %"
        hover[i][j] = f"{moved}, of n = {row['eligible']}{beside}"
        if row["alpha"] == row["alpha"]:
            place[i, j], written[i, j] = steps.index(row["alpha"]), row["alpha"]
        else:
            hover[i][j] = f"no strength of the run moves half: at most {hover[i][j]}"
    chosen = (labels.index(selected[0]), layers.index(selected[1])) if selected is not None else None
    figure = heatmap.heatmap(
        place, labels, [str(layer) for layer in layers],
        title="Smallest strength that moves half of the clips to the label (–: none does)",
        unit="alpha", row_title="", column_title="added behind layer", limits=(0, max(1, len(steps) - 1)),
        number="g", written=written, hover=hover, selected=chosen,
    )  # fmt: skip
    bar = {"tickvals": list(range(len(steps))), "ticktext": [f"{alpha:g}" for alpha in steps]}
    figure.update_traces(colorbar=bar, selector={"type": "heatmap"})
    figure.update_layout(margin={"l": 30 + 8 * max(map(len, labels))})
    return figure


def rows_of(table: pd.DataFrame) -> tuple[list[str], list[int]]:
    """Labels and layers of `smallest_alpha`, in their order."""
    return list(dict.fromkeys(table["label"])), sorted(int(layer) for layer in table["layer"].unique())


def dose(table: pd.DataFrame, label: str, layer: int, alpha: float | None) -> go.Figure:
    """The share of clips that each strength of a label's vector moves behind a layer, with its interval, and what the
    controls move; every point of the vector carries its place among the strengths.

    Args:
        table: of `dose_table`. alpha: what is selected.
    """
    figure = new_figure(f"clips moved to {plain(label)}")
    here = moved_by(table, "vector")
    steps = sorted(here["alpha"].unique())
    reference_line(figure, HALF)
    for condition in [name for name in STEERING if name not in ("vector", "prompt")]:
        rows = moved_by(table, condition)
        rows = rows[(rows["label"] == label) & (rows["layer"] == layer)].sort_values("alpha")
        if len(rows):
            _add(figure, rows, steps, STEERING[condition])
    told = moved_by(table, "prompt")
    told = told[told["label"] == label]
    if len(told):
        across = pd.concat([told] * len(steps)).assign(alpha=steps)
        _add(figure, across, steps, STEERING["prompt"])
    rows = here[(here["label"] == label) & (here["layer"] == layer)].sort_values("alpha")
    _add(figure, rows, steps, STEERING["vector"])
    chosen = rows[rows["alpha"] == alpha]
    if len(chosen):
        ring_at(figure, steps.index(alpha), float(chosen["moved_rate"].iloc[0]), STEERING["vector"].colour)
    rate_axis(figure)
    figure.update_xaxes(
        title_text=f"alpha, behind layer {layer}", tickvals=list(range(len(steps))),
        ticktext=[f"{step:g}" for step in steps], range=[-0.4, len(steps) - 0.6],
    )  # fmt: skip
    legend = {"y": 1.02, "x": 0, "font": {"size": 13}}
    return figure.update_layout(height=390, margin={"t": 96, "b": 50}, legend=legend)


def _add(figure: go.Figure, rows: pd.DataFrame, steps: Sequence[float], look: Look) -> None:
    x = np.array([steps.index(alpha) for alpha in rows["alpha"]])
    if look.strong:
        add_band(figure, x, rows["moved_rate_low"].to_numpy(float), rows["moved_rate_high"].to_numpy(float), look)
    n = f" (n = {int(rows['eligible'].max())})" if look.strong else ""
    figure.add_scatter(
        x=x, y=rows["moved_rate"], mode="lines+markers", name=f"{look.name}{n}", line=line_of(look), cliponaxis=False,
        marker={"color": look.colour, "symbol": look.marker, "size": 10 if look.strong else 8},
        customdata=[[int(place)] for place in x], text=[_hover(row) for _, row in rows.iterrows()],
        hovertemplate=f"<b>{look.name}</b><br>%{{text}}<extra></extra>",
    )  # fmt: skip


def _hover(row: pd.Series) -> str:
    lines = [f"{100 * row['moved_rate']:.0f} % of {int(row['eligible'])} clips move"]
    if row["moved_rate_low"] == row["moved_rate_low"]:
        lines[0] += f" ({100 * row['moved_rate_low']:.0f} to {100 * row['moved_rate_high']:.0f} %)"
    lines.append(f"{100 * row['changed_rate']:.0f} % of {int(row['n'])} answers change at all")
    lines.append(f"{100 * row['label_mass_mean']:.0f} % of the probability stays on the answers")
    if row["p_adjusted"] == row["p_adjusted"]:
        lines.append(f"adjusted {p_said(row['p_adjusted'])}, ranked among random vectors")
    return "<br>".join(lines)


def clip_curve(made: ByHand, label: str, alpha: float) -> go.Figure:
    """One clip: the label's probability among the answers at every strength, and under random vectors in grey."""
    at = made.labels.index(label)
    vector, random = STEERING["vector"], STEERING["random"]
    figure = new_figure(f"P({plain(label)}) among the answers")
    drawn = softmax(made.random, axis=-1)[..., at]  # [draws, m]
    gap = [None]
    figure.add_scatter(
        x=[x for _ in drawn for x in [*made.random_alphas, *gap]], y=[y for line in drawn for y in [*line, *gap]],
        mode="lines+markers", name=f"{len(drawn)} random vectors, as long",
        line={"color": random.colour, "width": 1, "dash": random.dash}, opacity=0.7,
        marker={"color": random.colour, "symbol": random.marker, "size": 5},
        hovertemplate="random, alpha %{x:g}: %{y:.2f}<extra></extra>",
    )  # fmt: skip
    values = softmax(made.logits, axis=-1)[:, at]
    wins = made.logits.argmax(-1) == at
    figure.add_scatter(
        x=made.alphas, y=values, mode="lines+markers", name=f"{vector.name} (filled: it is the answer)",
        line=line_of(vector), cliponaxis=False,
        marker={
            "color": vector.colour, "size": 9, "line": {"color": vector.colour, "width": 2},
            "symbol": [vector.marker if win else f"{vector.marker}-open" for win in wins],
        },
        hovertemplate="alpha %{x:g}: %{y:.2f}<extra></extra>",
    )  # fmt: skip
    mark_at(figure, alpha)
    ring_at(figure, alpha, float(values[made.alphas.index(alpha)]), vector.colour)
    rate_axis(figure)
    top = made.alphas[-1]
    figure.update_xaxes(title_text="alpha", range=[-0.03 * top, 1.03 * top], tickvals=list(made.random_alphas))
    legend = {"y": 1.02, "x": 0, "font": {"size": 13}}
    return figure.update_layout(height=300, margin={"t": 60, "b": 46}, legend=legend)


def clip_answers(made: ByHand, label: str, alpha: float) -> go.Figure:
    """One clip: every answer's probability as it is, steered, and under each random vector of the nearest strength."""
    figure = new_figure("")
    names = [f"<b>{plain(one)}</b>" if one == label else plain(one) for one in made.labels]
    base, steered = softmax(made.logits[0]), softmax(made.logits[made.alphas.index(alpha)])
    nearest = made.nearest(alpha)
    drawn = softmax(made.random[:, made.random_alphas.index(nearest)], axis=-1)
    random, own, vector = STEERING["random"], RUNS["base"], STEERING["vector"]
    figure.add_scatter(
        x=drawn.ravel(), y=names * len(drawn), mode="markers", name=f"random, alpha {nearest:g}",
        marker={"color": random.colour, "symbol": random.marker, "size": 7, "opacity": 0.6}, hoverinfo="skip",
    )  # fmt: skip
    for name, start, end in zip(names, base, steered, strict=True):
        figure.add_scatter(
            x=[start, end], y=[name, name], mode="lines", line={"color": GREY, "width": 2}, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
    for said, values, look in (("as it is", base, own), (f"steered, alpha {alpha:g}", steered, vector)):
        symbol = look.marker if look is own else "diamond"
        figure.add_scatter(
            x=values, y=names, mode="markers", name=f"{said}: <b>{plain(made.labels[int(values.argmax())])}</b>",
            marker={"color": look.colour, "symbol": symbol, "size": 12, "line": {"color": look.colour, "width": 2}},
            hovertemplate=f"{said}, %{{y}}: %{{x:.2f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="probability among the answers", range=[-0.03, 1.03], showgrid=True)
    figure.update_yaxes(autorange="reversed")
    legend = {"y": 1.02, "x": 0, "font": {"size": 13}}
    return figure.update_layout(height=130 + 34 * len(names), margin={"t": 60, "b": 46}, legend=legend)
