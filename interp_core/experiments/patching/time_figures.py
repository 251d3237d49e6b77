"""The PNG of a time map: layers upwards, windows along time, what is significant marked."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from interp_core.errors import InterpError
from interp_core.maths.stats import SIGNIFICANT

LOOK = "RdBu_r"


def time_figure(table: pd.DataFrame, title: str) -> Figure:
    """Mean change of the target's log-probability when B is patched into one window of A at one layer.

    Args:
        table: rows of `summarise_time` for one kind of pair.
        title: shown above; taken as text, never as markup.
    Raises:
        InterpError: no rows.
    """
    if table.empty:
        raise InterpError("there is no time map to draw; run the patching with --map time.")
    table = table.sort_values(["layer", "window"])
    layers, windows = np.sort(table["layer"].unique()), np.sort(table["window"].unique())
    values = table["mean"].to_numpy(float).reshape(len(layers), len(windows))
    figure = Figure(figsize=(7.5, 1.9 + 0.3 * len(layers)), dpi=150, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    reach = float(np.abs(values).max()) or 1.0
    drawn = axes.imshow(values, aspect="auto", origin="lower", cmap=LOOK, vmin=-reach, vmax=reach)
    first = table[table["layer"] == layers[0]]
    names = [f"{start:.2f}–{stop:.2f}" for start, stop in zip(first["start_s"], first["stop_s"], strict=True)]
    axes.set_xticks(range(len(windows)), names, fontsize=7, rotation=45 if len(windows) > 8 else 0)
    step = max(1, len(layers) // 16)
    axes.set_yticks(range(0, len(layers), step), ["emb" if la == -1 else str(la) for la in layers[::step]], fontsize=8)
    axes.set(xlabel="Window of A, s (mean over pairs; pairs aligned by fraction of the span)", ylabel="Layer")
    marked = np.argwhere(table["p_adjusted"].to_numpy(float).reshape(values.shape) < SIGNIFICANT)
    for row, column in marked:
        ink = "white" if abs(values[row, column]) > 0.6 * reach else "black"
        axes.text(column, row, "✱", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(drawn, ax=axes)
    bar.set_label("Target log-probability, change (nats)", fontsize=8)
    tested = table["p_adjusted"].notna().any()
    said = "✱ differs from a random donor, adjusted p < .05" if tested else "not tested against a random donor"
    about = f"n = {int(table['n'].max())} pairs, {int(table['n_clusters'].max())} clusters; {said}"
    axes.set_title(f"{title}\n{about}", fontsize=9, parse_math=False)
    return figure
