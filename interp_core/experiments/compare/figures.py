"""The PNG of a comparison: the CKA of every point of the base with every point of the donor."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from interp_core.experiments.compare.clean import TIME_MEAN
from interp_core.experiments.figures import Figure
from interp_core.looks import GREY


def matrix_of(cka: pd.DataFrame, representation: str, column: str) -> tuple[np.ndarray, list[str], list[str]]:
    """[base points, donor points] of one representation, with the points' names."""
    rows = cka[cka["representation"] == representation]
    base = list(dict.fromkeys(rows["base_point"]))
    donor = list(dict.fromkeys(rows["donor_point"]))
    return rows[column].to_numpy(float).reshape(len(base), len(donor)), base, donor


def point_names(points: Sequence[str]) -> list[str]:
    """`resid_post.L3` as `3`; a stage by its name."""
    return [point.removeprefix("resid_post.L") for point in points]


def cka_figure(cka: pd.DataFrame, title: str) -> Figure:
    """The unbiased CKA of all pairs of points, time means; a cell without a value stays white with a dash."""
    values, base, donor = matrix_of(cka, TIME_MEAN, "unbiased")
    size = 2.4 + 0.42 * max(values.shape)
    figure = Figure(figsize=(size + 1.2, size), dpi=150, layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(values, vmin=0, vmax=1, cmap="cividis", origin="lower")
    figure.colorbar(picture, ax=axes, label="unbiased linear CKA (1: alike)", shrink=0.85)
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            axes.text(column, row, "–", ha="center", va="center", color=GREY)
        elif max(values.shape) <= 18:
            ink = "white" if value < 0.5 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=7)
    axes.set_xticks(range(len(donor)), point_names(donor), rotation=90 if len(donor) > 12 else 45, fontsize=8)
    axes.set_yticks(range(len(base)), point_names(base), fontsize=8)
    axes.set_xlabel("donor: layer, or stage behind the layers")
    axes.set_ylabel("base")
    n = int(cka["n"].iloc[0])
    axes.set_title(f"{title}\ntime means, n = {n} clips", fontsize=10, parse_math=False)
    return figure
