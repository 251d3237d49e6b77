"""The PNG of patches within subspaces: the whole state, the subspace, random ones of the same rank, by layer."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from interp_core.errors import InterpError
from interp_core.experiments.figures import quiet, style
from interp_core.experiments.patching.figures import LAYERS, layer_ticks
from interp_core.looks import SUBSPACES

PANELS = {
    "flip_to_target_rate_reachable": "Flips to target (% of reachable pairs)",
    "delta_logprob_target_mean": "Target log-probability, change (nats)",
}


def subspace_figure(rows: pd.DataFrame, title: str) -> Figure:
    """Flips and change of the target's log-probability; the band of random subspaces is lowest to highest draw.

    Args:
        rows: of `summarise_subspace` for one kind of pair.
        title: shown above; taken as text, never as markup.
    Raises:
        InterpError: no rows.
    """
    if rows.empty:
        raise InterpError("there are no subspaces to draw; run the patching with --subspace mean-difference.")
    figure = Figure(figsize=(12, 5.2), dpi=150, layout="constrained", facecolor="white")
    first = rows.iloc[0]
    figure.suptitle(
        f"{title}: {int(first['rank'])} directions exchanged, n = {int(rows['n'].max())} pairs "
        f"({int(rows['reachable_count'].max())} reachable)",
        fontsize=11, parse_math=False,
    )  # fmt: skip
    for axes, (measure, label) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        quiet(axes)
        for condition, look in SUBSPACES.items():
            curve = rows[rows["condition"] == condition].sort_values("layer")
            x, y = curve["layer"].to_numpy(float), curve[measure].to_numpy(float)
            low, high = (curve[f"{measure}_{end}"].to_numpy(float) for end in ("low", "high"))
            axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
            band = f"{int(first['draws'])} draws, lowest to highest" if condition == "random" else "95 % interval"
            shown = f"{look.name} ({band if (low == low).any() else 'too few for an interval'})"
            axes.plot(x, y, markersize=4, label=shown, **style(look))
        layer_ticks(axes, sorted(map(int, rows["layer"].unique())))
        axes.set_xlabel(LAYERS)
        axes.set_ylabel(label)
        if measure.startswith("flip"):
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.axhline(0, color="#444444", linewidth=0.8, zorder=1)
        axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    return figure
