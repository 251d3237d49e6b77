"""Figures of a heads run: tables in, plotly figures out; nothing is computed here but logarithms and axes.

The map has a row a block and a column a head, as the config says how many there are; a cell that the model does not
have stays empty. Every head's point carries its row and column as `customdata`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from components.charts.heatmap import heatmap
from components.charts.parts import (
    FONT_PX,
    line_of,
    log_ticks,
    mark_at,
    new_figure,
    ring_at,
    thinned,
    whiskers,
)
from components.charts.words import plain
from interp_core.experiments.wording import p_said
from interp_core.looks import BLUE, CATEGORIES, GREEN, GREY, HEADS, VERMILLION
from interp_core.maths.fisher import ClassPlane
from interp_core.maths.stats import SIGNIFICANT

MARK = "•"
LETTERS_OF_AXIS = 56  # side by side below the curve over depth, in the narrowest page
VIEWS = {
    "Fisher F": "Normalised Fisher ratio; 1 is what labels without meaning give. Colours on a log scale.",
    "Probe": "Held-out balanced accuracy of a linear probe on the head alone.",
    "Without it: accuracy": "Accuracy of the model's answers without the head, minus its accuracy with it.",
    "Without it: log-probability": "Change of the true class's log-probability without the head, in nats.",
}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down", "hexagon", "pentagon")


def head_map(
    heads: pd.DataFrame, values: ArrayLike, view: str, selected: tuple[int, int] | None, note: str = ""
) -> go.Figure:
    """Every head of the model.

    Args:
        heads: the rows of `HeadsResult.points("head")`.
        values: one a row of `heads`, in the view's unit.
        selected: (layer, head).
        note: added to the title.
    """
    logarithmic, numbers = view == "Fisher F", np.asarray(values, dtype=float)
    shown = np.log10(np.maximum(numbers, 1e-3)) if logarithmic else numbers
    sure = heads[heads["p_adjusted"] < SIGNIFICANT]
    units = {"Fisher F": "F (N − C)/(C − 1)", "Probe": "accuracy", "Without it: accuracy": "Δ accuracy"}
    figure = _of_heads(
        heads,
        shown,
        [reading(row, view, value) for row, value in zip(heads.to_dict("records"), numbers.tolist(), strict=True)],
        selected,
        title=f"{len(heads)} heads{note}",
        unit=units.get(view, "Δ log-probability (nats)"),
        scale="diverging" if view.startswith("Without") else "sequential",
        number=".3g" if logarithmic else ".2f",
        written=numbers,
        marks={(int(layer), int(head)): MARK for layer, head in zip(sure["layer"], sure["head"], strict=True)},
    )
    if logarithmic:
        _log_bar(figure, shown)
    # One look wherever a cell has its number: the map of a real model has too many.
    figure.update_traces(selector={"name": "cells"}, hovertemplate="%{text}<extra></extra>")
    return figure


def _of_heads(
    heads: pd.DataFrame,
    values: np.ndarray,
    said: Sequence[str],
    selected: tuple[int, int] | None,
    *,
    written: np.ndarray | None = None,
    **settings: Any,
) -> go.Figure:
    """A heatmap with one value, one text and one number written a row of `heads`; cells that the model does not have
    stay empty."""
    shape = int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1
    grid, told = np.full(shape, np.nan), np.full(shape, np.nan)
    there, hover = np.zeros(shape, bool), np.full(shape, "", object)
    at = heads["layer"].to_numpy(), heads["head"].to_numpy()
    grid[at], told[at], there[at], hover[at] = values, values if written is None else written, True, said
    figure = heatmap(
        grid, block_names(heads), [str(head) for head in range(shape[1])], row_title="block", column_title="head",
        written=told, hover=hover.tolist(), selected=selected, **settings,
    )  # fmt: skip
    _only(figure, there)
    return figure


def reading(row: dict, view: str, value: float) -> str:
    """One head's number in words."""
    lines = {
        "Fisher F": f"F = {value:.2f} times chance{_interval(row, 'fisher_f')}",
        "Probe": f"probe accuracy {value:.2f}",
    }
    said = [lines.get(view, f"{value:+z.3f}")]
    if math.isfinite(row["p_adjusted"]):
        said.append(f"adjusted {p_said(row['p_adjusted'])}" + (f" {MARK}" if row["p_adjusted"] < SIGNIFICANT else ""))
    return "\n".join(said)


def _interval(row: dict, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else ""


def block_names(heads: pd.DataFrame) -> list[str]:
    """`S2 B4` or `L4` of each block, in the order of the forward pass."""
    return [str(name).rpartition(" ")[0] for name in heads.drop_duplicates("layer").sort_values("layer")["name"]]


def _only(figure: go.Figure, there: np.ndarray) -> None:
    """Take away the marks and clicks of cells that the model does not have, and the number that hover repeats."""
    cells = next(trace for trace in figure.data if trace.name == "cells")
    kept = [i for i, (row, column) in enumerate(cells.customdata) if there[row, column]]
    texts = []
    for i in kept:
        head, _, *rest = cells.text[i].split("<br>")
        texts.append("<br>".join([head, *rest]))
    cells.update(
        x=[cells.x[i] for i in kept],
        y=[cells.y[i] for i in kept],
        customdata=[cells.customdata[i] for i in kept],
        text=texts,
    )
    for trace in figure.data:
        if trace.name == "numbers":
            fine = [i for i, text in enumerate(trace.text) if text != "–"]
            colours = [trace.textfont.color[i] for i in fine]
            trace.update(x=[trace.x[i] for i in fine], y=[trace.y[i] for i in fine], text=[trace.text[i] for i in fine])
            trace.textfont.color = colours


def _log_bar(figure: go.Figure, grid: np.ndarray) -> None:
    """The colour bar in the numbers themselves, not in their logarithms."""
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    ticks = [v for v in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= math.log10(v) <= high]
    figure.update_traces(
        selector={"type": "heatmap"},
        colorbar={"tickvals": [math.log10(v) for v in ticks], "ticktext": [f"{v:g}" for v in ticks]},
    )


def depth_curve(blocks: pd.DataFrame, outputs: pd.DataFrame, selected: int | None) -> go.Figure:
    """Blocks and stage outputs over depth, with intervals; the dotted line is chance."""
    figure = new_figure("F (N − C)/(C − 1)")
    for rows, look in ((blocks, HEADS["block"]), (outputs, HEADS["stage"])):
        x, y = rows["layer"].to_numpy(), rows["fisher_f"].to_numpy()
        low, high = rows["fisher_f_low"].to_numpy(), rows["fisher_f_high"].to_numpy()
        sure = (rows["p_adjusted"] < SIGNIFICANT).to_numpy()
        texts = [
            f"<b>{plain(row['name'])}</b> {plain(look.name)}<br>"
            + plain(reading(row, "Fisher F", row["fisher_f"])).replace("\n", "<br>")
            + _probe_words(row)
            for row in rows.to_dict("records")
        ]
        figure.add_scatter(
            x=x, y=y, mode="lines+markers", name=look.name, error_y={**whiskers(y, low, high), "color": look.colour},
            line={**line_of(look), "width": 2.5},
            marker={
                "color": look.colour, "size": 10, "symbol": [look.marker if s else f"{look.marker}-open" for s in sure],
                "line": {"color": look.colour, "width": 2},
            },
            text=texts, hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    names = [str(name) for name in blocks["name"]]
    figure.add_hline(y=1, line={"color": GREY, "dash": "dot"})
    figure.add_annotation(  # on a log axis an annotation stands at the logarithm
        x=0, xref="paper", y=0, text="1: labels without meaning", showarrow=False, xanchor="left", yanchor="bottom",
        font={"size": FONT_PX},
    )  # fmt: skip
    known = pd.concat([rows["fisher_f"] for rows in (blocks, outputs)])
    known = known[(known > 0) & np.isfinite(known)]
    figure.update_yaxes(**(log_ticks(min(known.min(), 1.0), max(known.max(), 1.0)) if len(known) else {"type": "log"}))
    written = thinned(names, LETTERS_OF_AXIS)
    figure.update_xaxes(tickvals=written, ticktext=[names[i] for i in written], title_text="", tickangle=0)
    if selected is not None:
        mark_at(figure, selected)
    figure.update_layout(height=300, margin={"l": 64, "r": 20, "t": 40, "b": 40})
    return figure


def _probe_words(row: dict) -> str:
    if not math.isfinite(row["probe_accuracy"]):
        return ""
    return f"<br>probe accuracy {row['probe_accuracy']:.2f}"


def class_scatter(
    plane: ClassPlane, labels: Sequence[str], clip_ids: Sequence[str], a: str | None, b: str | None
) -> go.Figure:
    """Clips and class means of one head, along the two directions in which the means differ most."""
    figure = new_figure("")
    for number, name in enumerate(plane.names):
        here = [i for i, label in enumerate(labels) if label == name]
        colour, symbol = CATEGORIES[number % len(CATEGORIES)], SYMBOLS[number % len(SYMBOLS)]
        figure.add_scatter(
            x=plane.clips[here, 0], y=plane.clips[here, 1], mode="markers", name=f"{plain(name)} ({len(here)})",
            legendgroup=name,
            marker={"color": colour, "symbol": symbol, "size": 9, "opacity": 0.9},
            customdata=[[clip_ids[i]] for i in here],
            text=[f"{plain(clip_ids[i])}<br>{plain(name)}" for i in here],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
        figure.add_annotation(  # not the marker's own text, whose colour would be the class's: hard to read
            x=plane.means[number, 0], y=plane.means[number, 1], text=f"<b>{plain(name)}</b>", showarrow=False,
            yshift=18, font={"size": FONT_PX},
        )  # fmt: skip
        figure.add_scatter(
            x=[plane.means[number, 0]], y=[plane.means[number, 1]], mode="markers", legendgroup=name, showlegend=False,
            marker={"color": colour, "symbol": symbol, "size": 17, "line": {"color": "#808080", "width": 2}},
            hovertemplate=f"mean of {plain(name)}<extra></extra>",
        )  # fmt: skip
    for letter, clip in (("A", a), ("B", b)):
        if clip is not None and clip in clip_ids:
            at = list(clip_ids).index(clip)
            figure.add_annotation(
                x=plane.clips[at, 0], y=plane.clips[at, 1], text=f"<b>{letter}</b>", showarrow=True, arrowwidth=2,
                arrowcolor=BLUE if letter == "A" else VERMILLION, ax=18, ay=-22, font={"size": FONT_PX + 2},
            )  # fmt: skip
    share = f"; plane: {100 * plane.shown:.0f} % of the spread" if math.isfinite(plane.shown) else ""
    figure.update_xaxes(title_text=f"first direction{share}", showticklabels=False)
    figure.update_yaxes(title_text="second direction", showticklabels=False, title_standoff=4)
    figure.update_layout(height=400, margin={"l": 40, "r": 16, "t": 20, "b": 44}, legend={"font": {"size": FONT_PX}})
    return figure


def effect_bars(rows: pd.DataFrame, column: str, title: str) -> go.Figure:
    """What becomes of the answers without one head: a bar a kind of ablation, with its interval."""
    figure = new_figure("")
    for number, row in enumerate(rows.to_dict("records")):
        low, high, value = row[f"{column}_low"], row[f"{column}_high"], row[column]
        bars, known = whiskers(np.array([value]), np.array([low]), np.array([high])), math.isfinite(low)
        colour = CATEGORIES[number % 3]
        figure.add_bar(
            x=[value], y=[f"{row['kind']} {value:+z.3f}"], orientation="h", name=row["kind"], showlegend=False,
            marker={"color": colour, "pattern": {"shape": ("", "/", ".")[number % 3]}},
            error_x={**bars, "color": GREY, "thickness": 2},
            hovertemplate=f"{row['kind']}: {value:+z.3f}"
            + (f" [{low:+z.3f}, {high:+z.3f}]" if known else "") + f"<br>{row['changed']} of {row['n']} answers change"
            "<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1.5})
    figure.update_xaxes(title_text=title)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=80 + 34 * len(rows), margin={"l": 130, "r": 16, "t": 6, "b": 44}, bargap=0.35)
    return figure


def used_scatter(heads: pd.DataFrame, effect: pd.DataFrame, column: str, selected: tuple[int, int]) -> go.Figure:
    """Does what separates the classes also matter? Each head's Fisher F against the effect of taking it away."""
    both = heads.merge(effect, on=["layer", "head"], suffixes=("", "_effect"))
    figure = new_figure("Δ without the head")
    for sure, name, symbol in ((True, "beyond chance", "circle"), (False, "not beyond chance", "circle-open")):
        rows = both[(both["p_adjusted"] < SIGNIFICANT) == sure]
        figure.add_scatter(
            x=rows["fisher_f"], y=rows[column], mode="markers", name=f"{name} ({len(rows)})",
            marker={"color": GREEN if sure else GREY, "symbol": symbol, "size": 9, "line": {"width": 1.5}},
            customdata=[[int(r), int(h)] for r, h in zip(rows["layer"], rows["head"], strict=True)],
            text=[f"{plain(n)}<br>F {f:.2f}, effect {e:+z.3f}" for n, f, e in zip(
                rows["name"], rows["fisher_f"], rows[column], strict=True)],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    for _, here in both[(both["layer"] == selected[0]) & (both["head"] == selected[1])].iterrows():
        ring_at(figure, here["fisher_f"], here[column], GREY)
    figure.add_hline(y=0, line={"color": GREY, "dash": "dot"})
    known = both.loc[both["fisher_f"] > 0, "fisher_f"]
    ticks = log_ticks(known.min(), known.max()) if len(known) else {"type": "log"}
    figure.update_xaxes(**ticks, title_text="F (N − C)/(C − 1), log scale")
    figure.update_layout(height=330, margin={"l": 70, "r": 16, "t": 40, "b": 48})
    return figure


def difference_map(heads: pd.DataFrame, other: pd.DataFrame, selected: tuple[int, int] | None) -> go.Figure:
    """log10 of one map's F over another's, head by head; blue where this one is lower."""
    ratio = np.log10(heads["fisher_f"].to_numpy().clip(1e-3) / other["fisher_f"].to_numpy().clip(1e-3))
    both = zip(heads["fisher_f"], other["fisher_f"], strict=True)
    said = [f"this map: F = {mine:.2f}\nthe other: F = {theirs:.2f}" for mine, theirs in both]
    return _of_heads(
        heads, ratio, said, selected, scale="diverging", title="This map against the other",
        unit="log10 of F this / F other",
    )  # fmt: skip
