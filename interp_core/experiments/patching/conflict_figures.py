"""On paper: the map of later layers in earlier ones, and whom the answers follow when a prompt states one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from interp_core.errors import InterpError
from interp_core.experiments.figures import Figure, quiet, style
from interp_core.experiments.patching.clip_chunks import source_of
from interp_core.experiments.patching.stated import AGAINST, ALL_DIFFER, ALONE, ALONE_APART, DOMINANCE, SPANS
from interp_core.looks import STATED, Look

LOOK = "PuOr_r"
MOST_WRITTEN = 14


def grid_of(rows: pd.DataFrame, value: str) -> tuple[list[int], np.ndarray]:
    """The layers of a map, and [n_layers (target), n_layers (source)] of a column; NaN under the diagonal."""
    layers = sorted({*rows["source"], *rows["target"]})
    grid = np.full((len(layers), len(layers)), np.nan)
    for row in rows[["source", "target", value]].itertuples(index=False):
        grid[layers.index(row[1]), layers.index(row[0])] = row[2]
    return [int(layer) for layer in layers], grid


def back_figure(table: pd.DataFrame, title: str) -> Figure:
    """Change of accuracy and of the label's log-probability, source layer by target layer, a row a label column.

    Args:
        table: of `summarise_back`, one prompt. title: taken as text, never as markup.
    Raises:
        InterpError: no rows.
    """
    if table.empty:
        raise InterpError("there is no map of later layers in earlier ones to draw; run with --map back.")
    columns = list(dict.fromkeys(table["column"]))
    n = len({*table["source"]})
    figure = Figure(
        figsize=(max(9.0, 3.4 + 0.75 * n), 0.9 + len(columns) * max(3.4, 1.4 + 0.34 * n)), dpi=130,
        layout="constrained", facecolor="white",
    )  # fmt: skip
    figure.suptitle(title, fontsize=10, parse_math=False)
    panels = figure.subplots(len(columns), 2, squeeze=False)
    for row, column in zip(panels, columns, strict=True):
        some = table[table["column"] == column]
        said = f"{source_of(column)} ({column}), n = {int(some['n'].max())} clips"
        base = float(some["accuracy_base"].iloc[0])
        _map(figure, row[0], some, "accuracy_change", f"{said}\naccuracy, change from {base:.2f}", 100.0, "points")
        _map(figure, row[1], some, "logprob_change", f"{said}\nits log-probability, change", 1.0, "nats")
    return figure


def _map(
    figure: Figure, axes: Axes, rows: pd.DataFrame, value: str, title: str, times: float, unit: str
) -> None:  # fmt: skip
    layers, grid = grid_of(rows, value)
    grid = grid * times
    reach = float(np.nanmax(np.abs(grid))) or 1.0
    image = axes.imshow(grid, cmap=LOOK, vmin=-reach, vmax=reach, aspect="auto", origin="lower")
    names = ["emb" if layer == -1 else str(layer) for layer in layers]
    axes.set_xticks(range(len(layers)), names, fontsize=8)
    axes.set_yticks(range(len(layers)), names, fontsize=8)
    axes.set(xlabel="state of layer (source)", ylabel="put into layer (target)")
    if len(layers) <= MOST_WRITTEN:
        for (row, column), number in np.ndenumerate(grid):
            if number == number:
                ink = "white" if abs(number) > 0.65 * reach else "black"
                text = f"{number + 0.0:.0f}" if unit == "points" else f"{number + 0.0:.1f}"
                axes.text(column, row, text.replace("-0.0", "0.0"), ha="center", va="center", fontsize=7, color=ink)
    axes.set_title(title, fontsize=9, parse_math=False)
    figure.colorbar(image, ax=axes, label=unit, fraction=0.05)


def sources_of(rows: pd.DataFrame) -> list[str]:
    """The sources of a table, none last."""
    found = [source for source in dict.fromkeys(rows["source"]) if source not in (DOMINANCE, "none")]
    return [*found, "none"]


def look_of(source: str) -> Look:
    """How a source is drawn, by its name in a table."""
    return STATED.get(source) or replace(STATED["words"], name=source)


def stated_figure(shares: pd.DataFrame, layers: pd.DataFrame, prompts: Sequence[str], title: str) -> Figure:
    """Shares of the answers by question, with and without a statement; below, by layer.

    Args:
        shares: of `summarise_stated`. layers: of `summarise_stated_layers`. prompts: names of the questions.
    Raises:
        InterpError: no rows.
    """
    if shares.empty:
        raise InterpError("no prompt stated an answer in this run; run with --stated COLUMN.")
    asked = [int(prompt) for prompt in dict.fromkeys(shares["prompt"])]
    spans = [span for span in SPANS if len(layers) and (layers["span"] == span).any()]
    rows = len(asked) if spans else 0
    figure = Figure(
        figsize=(max(8.0, 3.4 * len(asked)), 4.4 + 3.4 * rows), dpi=130, layout="constrained",
        facecolor="white",
    )  # fmt: skip
    figure.suptitle(title, fontsize=10, parse_math=False)
    parts: Any = figure.subfigures(2, 1, height_ratios=(4.0, 3.4 * rows)) if spans else [figure]
    panels = parts[0].subplots(1, len(asked), sharey=True, squeeze=False)[0]
    for axes, prompt in zip(panels, asked, strict=True):
        _bars(axes, shares[shares["prompt"] == prompt], prompts[prompt])
    handles, names = panels[0].get_legend_handles_labels()
    parts[0].legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    if spans:
        below = parts[1].subplots(rows, len(spans), sharey=True, squeeze=False)
        for line, prompt in zip(below, asked, strict=True):
            for axes, span in zip(line, spans, strict=True):
                own = layers[(layers["span"] == span) & (layers["prompt"] == prompt)]
                _layers(axes, own, span, prompts[prompt])
    return figure


def shown_items(rows: pd.DataFrame) -> tuple[str, str]:
    """The two sets of items that are drawn: without and with a statement, those in which all sources differ first."""
    found = set(rows.loc[rows["n"] > 0, "items"])
    return (ALONE_APART if ALONE_APART in found else ALONE), (ALL_DIFFER if ALL_DIFFER in found else AGAINST)


def _bars(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    sources = sources_of(rows)
    names = []
    for at, items in enumerate(shown_items(rows)):
        some = rows[rows["items"] == items].set_index("source")
        names.append(f"{items}\nn = {int(some['n'].drop(DOMINANCE, errors='ignore').max())}")
        for number, source in enumerate(sources):
            if source not in some.index:
                continue
            row, look = some.loc[source], look_of(source)
            x = at + 0.19 * (number - (len(sources) - 1) / 2)
            axes.bar(x, row["share"], 0.17, color=look.colour, label=look.name if at == 1 else None)
            if row["low"] == row["low"]:
                ends = [[row["share"] - row["low"]], [row["high"] - row["share"]]]
                axes.errorbar(x, row["share"], np.clip(ends, 0, None), fmt="none", ecolor="black", elinewidth=1)
            axes.text(x, -0.045, look.name[0].upper(), ha="center", va="top", fontsize=7)
    axes.set_xticks(range(2), names, fontsize=8)
    axes.tick_params(axis="x", pad=14, length=0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    ratio = rows[(rows["items"] == shown_items(rows)[1]) & (rows["source"] == DOMINANCE)]
    said = f"{ratio['share'].iloc[0]:.2f} (n = {int(ratio['n'].iloc[0])})" if len(ratio) and ratio["n"].iloc[0] else "–"
    axes.set_title(f"{name}\ntext dominance {said}", fontsize=9, parse_math=False)
    quiet(axes)


def _layers(axes: Axes, rows: pd.DataFrame, span: str, name: str) -> None:
    items = shown_items(rows)[1]
    some = rows[rows["items"] == items]
    layers = sorted(some["layer"].unique())
    for source in sources_of(some):
        curve, look = some[some["source"] == source].sort_values("layer"), look_of(source)
        at = [layers.index(layer) for layer in curve["layer"]]
        axes.plot(at, curve["share"], markersize=4, label=look.name, **style(look))
        if curve["low"].notna().any():
            axes.fill_between(at, curve["low"], curve["high"], color=look.colour, alpha=0.15, linewidth=0)
    step = max(1, len(layers) // 13)
    axes.set_xticks(range(0, len(layers), step), ["emb" if la == -1 else str(int(la)) for la in layers[::step]])
    axes.tick_params(labelsize=8)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("layer", fontsize=8)
    n = int(some.loc[some["source"] != DOMINANCE, "n"].max())
    places = "last position" if span == "last" else f"{span} positions"
    said = f"{name}, {items} (n = {n}): states of the run\nwith the statement at the {places}"
    axes.set_title(said, fontsize=9, parse_math=False)
    quiet(axes)
