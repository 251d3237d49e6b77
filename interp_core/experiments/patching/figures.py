"""The PNG figures of a run folder: what moves the answer at which layer, with intervals, n and the controls beside it.

Every curve has its own marker besides its colour, and all but the matched one their own dashes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, PercentFormatter

from interp_core.errors import InterpError
from interp_core.experiments.figures import Figure, quiet, style
from interp_core.looks import ANY_CHANGE, GREY, PATCHING, STRENGTHS, Look
from interp_core.maths.stats import SIGNIFICANT

LAYERS = "Layer (emb = embeddings before layer 0)"
HEADLINES = {  # the first that is defined is drawn: its count column and its words
    "flip_to_target_rate_reachable": ("reachable_count", "Flips to target (% of reachable pairs)"),
    "flip_to_target_rate_eligible": ("eligible_count", "Flips to target (% of eligible pairs; none is reachable)"),
    "flip_to_target_rate": ("n", "Flips to target (% of all pairs; none is eligible)"),
}


def flip_rate_figure(metrics: pd.DataFrame, title: str, names: Sequence[str] = ()) -> Figure:
    """Flip rate to the target against the layer, one panel a prompt.

    The rate is that over reachable pairs; where no matched pair is reachable that over eligible pairs, and where none
    is eligible that over all pairs: the axis says which. Every strength has its matched curve with a 95 % band; the
    other conditions are drawn at their greatest strength. The no-conflict control has no target to move to: it shows
    how often the answer changes at all. A filled marker is a layer where matched and random donors flip differently
    often, adjusted p < .05.

    Args:
        metrics: rows of `flips.summarise` for one pair kind.
        title: shown above; taken as text, never as markup.
        names: of the prompts, in their order, over the panels where there are several; their numbers without.
    Raises:
        InterpError: no rows, or rows of several kinds.
    """
    _check(metrics)
    figure, rows = _canvas(metrics, title, n_rows=1)
    for prompt, axes in rows[0].items():
        label = _flip_rates(axes, metrics, prompt)
        _legend(axes, _panel_name(prompt, names) if len(rows[0]) > 1 else "")
    next(iter(rows[0].values())).set_ylabel(label)
    return figure


def flip_rate_panel(axes: Axes, metrics: pd.DataFrame, prompt: int) -> None:
    """One panel of `flip_rate_figure` into axes of another figure; metrics and errors as there."""
    _check(metrics)
    quiet(axes)
    layer_ticks(axes, sorted(map(int, metrics["layer"].unique())))
    axes.set_xlabel(LAYERS)
    axes.set_ylabel(_flip_rates(axes, metrics, prompt), fontsize=8)
    _legend(axes)


def _flip_rates(axes: Axes, metrics: pd.DataFrame, prompt: int) -> str:
    """The curves of one prompt; what their axis is called."""
    matched = metrics[metrics["condition"] == "matched"]
    rate = next((name for name in HEADLINES if matched[name].notna().any()), "flip_to_target_rate")
    count, label = HEADLINES[rate]
    _curves(axes, metrics[metrics["prompt"] == prompt], rate, count)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return label


def delta_logit_figure(metrics: pd.DataFrame, title: str, names: Sequence[str] = ()) -> Figure:
    """Change of the target's logit and of its log-probability against the layer: patched minus base, in nats.

    A shift common to all labels moves the upper row and cancels in the lower one. Means over all pairs; panels,
    conditions, strengths, band, markers and errors as in `flip_rate_figure`.
    """
    _check(metrics)
    figure, rows = _canvas(metrics, title, n_rows=2)
    values = [
        ("delta_logit_target_mean", "Target logit, change (nats)"),
        ("delta_logprob_target_mean", "Target log-probability\namong the labels, change (nats)"),
    ]
    for line, (name, label) in zip(rows, values, strict=True):
        for prompt, axes in line.items():
            axes.axhline(0, color="#444444", linewidth=0.8, zorder=1)
            _curves(axes, metrics[metrics["prompt"] == prompt], name, "n")
        next(iter(line.values())).set_ylabel(label)
    for prompt, axes in rows[0].items():
        _legend(axes, _panel_name(prompt, names) if len(rows[0]) > 1 else "")
    return figure


def _check(metrics: pd.DataFrame) -> None:
    if not len(metrics):
        raise InterpError("there are no metrics to draw; run the sweep on at least one pair.")
    kinds = metrics["kind"].unique()
    if len(kinds) > 1:
        raise InterpError(f"one figure shows one pair kind, not {', '.join(map(str, kinds))}; draw each on its own.")


def _canvas(metrics: pd.DataFrame, title: str, n_rows: int) -> tuple[Figure, list[dict[int, Axes]]]:
    """A figure with a column a prompt, and its axes as prompt -> axes for each row."""
    prompts = sorted(metrics["prompt"].unique())
    figure = Figure(figsize=(1.4 + 5.6 * len(prompts), 1.7 + 3.5 * n_rows), dpi=150, layout="constrained")
    grid = figure.subplots(n_rows, len(prompts), sharex=True, sharey="row", squeeze=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    for column in range(len(prompts)):
        grid[-1, column].set_xlabel(LAYERS)
        for axes in grid[:, column]:
            quiet(axes)
            layer_ticks(axes, sorted(map(int, metrics["layer"].unique())))
    return figure, [dict(zip(prompts, line, strict=True)) for line in grid]


def layer_ticks(axes: Axes, layers: list[int]) -> None:
    """The swept layers as ticks, thinned to at most 15 by whole steps; -1 is written emb."""
    blocks, embeddings = [layer for layer in layers if layer >= 0], [layer for layer in layers if layer < 0]
    step = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if len(blocks) <= 14 * step)
    shown = blocks[::step] if step == 1 or not embeddings else blocks[step::step]  # no 0 crowding emb
    shown = embeddings + shown
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.set_xticklabels(["emb" if layer == -1 else str(layer) for layer in shown], fontsize=9)


def _curves(axes: Axes, metrics: pd.DataFrame, name: str, count: str) -> None:
    """Every condition of one prompt: matched at each strength with its band, the rest at the greatest strength."""
    top = metrics["alpha"].max()
    alphas = sorted(metrics["alpha"].unique(), reverse=True)
    others = [name for name in metrics["condition"].unique() if name not in PATCHING]
    for condition in [*PATCHING, *others]:
        look = PATCHING.get(condition, Look(condition, GREY, "dash", "hexagon"))
        rows = metrics[metrics["condition"] == condition]
        for alpha in sorted(rows["alpha"].unique(), reverse=True):
            if condition != "matched" and alpha != rows["alpha"].max():
                continue
            curve = rows[rows["alpha"] == alpha].sort_values("layer")
            shown, counted = name, count
            if condition == "no-conflict" and name.startswith("flip"):
                shown, counted, look = "flip_from_base_rate", "n", ANY_CHANGE
            label = look.name + (f", alpha {alpha:g}" if len(alphas) > 1 or alpha != 1 else "")
            weaker = replace(look, colour=STRENGTHS[alphas.index(alpha) % len(STRENGTHS)], dash="dashdot")
            _curve(axes, curve, shown, f"{label} (n = {_range(curve[counted])})", look if alpha == top else weaker)


def _curve(axes: Axes, curve: pd.DataFrame, name: str, label: str, look: Look) -> None:
    """One line over layers; the band and the markers of significance for matched rows only."""
    layers, values = curve["layer"].to_numpy(float), curve[name].to_numpy(float)
    matched = (curve["condition"] == "matched").all()
    if matched:
        low, high = curve[f"{name}_low"].to_numpy(float), curve[f"{name}_high"].to_numpy(float)
        axes.fill_between(layers, low, high, color=look.colour, alpha=0.18, linewidth=0, zorder=2)
        interval = "95 % interval" if np.isfinite(low).any() else "too few for an interval"
        label += f"\n{_range(curve['n_clusters'])} clusters, {interval}"
    significant = matched & (curve["p_adjusted"].to_numpy(float) < SIGNIFICANT)
    line = Line2D(layers, values, linewidth=2.0 if look.strong else 1.3, markersize=5, label=label, **style(look))
    line.set(markerfacecolor="white", zorder=4 if matched else 3)
    axes.add_line(line)
    if significant.any():
        filled = Line2D(layers[significant], values[significant], markersize=5, **style(look) | {"linestyle": ""})
        filled.set(label="filled: flips differ from\nrandom, adjusted p < .05", zorder=5)
        axes.add_line(filled)
    axes.autoscale_view()


def _range(counts: pd.Series) -> str:
    """A count over layers: one number where all agree."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _panel_name(prompt: int, names: Sequence[str]) -> str:
    return names[prompt] if prompt < len(names) else f"prompt {prompt}"


def _legend(axes: Axes, name: str = "") -> None:
    """Above the panel, so that it hides no curve, under the prompt's name; each entry once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    legend = axes.legend(
        list(once.values()), list(once), fontsize=8, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1)
    )
    if name:
        legend.set_title(name, prop=FontProperties(size=10, weight="bold"))
        legend.get_title().set_parse_math(False)
        legend.set_alignment("left")
    for text in legend.get_texts():
        text.set_parse_math(False)
