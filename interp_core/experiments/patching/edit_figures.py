"""The PNG of edited donors: what the patch and the whole model do against the dose of an edit."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from interp_core.data.edits import KNOBS
from interp_core.experiments.figures import Figure, quiet, style
from interp_core.experiments.patching.edit_doses import best_layer, curves_of
from interp_core.looks import EDITED, GREY

PANELS: Mapping[str, tuple[str, str, str]] = {  # the effect of the patch, that of the whole model, the axis
    "flips": ("flip_rate", "whole_flip_rate", "Answer turns to B's (% of pairs)"),
    "logits": ("change", "whole_change", "Logits change along B's own change (nats)"),
}


def edit_figures(doses: pd.DataFrame, model: str) -> dict[str, Figure]:
    """A figure an edit that was given in several doses, by the name of its file.

    Args:
        doses: of `dose_table`; the first question at the greatest strength is drawn, at `best_layer`.
        model: for the title; taken as text, never as markup.
    """
    found = {}
    for curve in curves_of(doses):
        layer = best_layer(doses)
        rows = doses_at(doses, curve, layer)
        figure = Figure(figsize=(9, 4), dpi=150, layout="constrained", facecolor="white")
        where = "the embeddings" if layer == -1 else f"layer {layer}"
        most, units = int(rows["n_pairs"].max()), int(rows["n_clusters"].max())
        about = f"{model}: clips and their edited copies, patched at {where} (n = {most} a dose, {units} units)"
        figure.suptitle(about, fontsize=10, parse_math=False)
        for axes, (effect, whole, label) in zip(figure.subplots(1, 2), PANELS.values(), strict=True):
            _panel(axes, rows, effect, whole, label)
            axes.set_xlabel(f"Edit: {KNOBS[curve.partition(' ')[0]].title}", fontsize=9)
        found[f"edit_doses_{curve.replace(' ', '~')}"] = figure
    return found


def doses_at(
    doses: pd.DataFrame, curve: str, layer: int, *, prompt: int = 0, alpha: float | None = None
) -> pd.DataFrame:
    """The rows of one edit at one layer, all pairs, doses ascending; at the greatest strength unless one is given."""
    alpha = float(doses["alpha"].max()) if alpha is None else alpha
    here = (doses["curve"] == curve) & (doses["layer"] == layer) & (doses["answers"] == "all")
    return doses[here & (doses["prompt"] == prompt) & (doses["alpha"] == alpha)].sort_values("dose")


def _panel(axes: Axes, rows: pd.DataFrame, effect: str, whole: str, label: str) -> None:
    quiet(axes)
    for look, column in ((EDITED["patch"], effect), (EDITED["whole"], whole)):
        axes.plot(rows["dose"], rows[column], label=look.name, **style(look))
        axes.fill_between(rows["dose"], rows[f"{column}_low"], rows[f"{column}_high"], color=look.colour, alpha=0.15)
    axes.set_ylabel(label, fontsize=9)
    if effect == "flip_rate":
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.set_xticks(sorted(rows["dose"].unique()))
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
