"""Draws what each way to sweep takes: passes and peak memory beside each other, a row of panels for each table."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

OURS, OTHERS = "#2563eb", "#9ca3af"


def draw(path: Path, tables: Mapping[str, Mapping[str, tuple[float, int | None]]], clock: str) -> None:
    """Write a picture of some tables.

    Args:
        path: of the picture, in any format that matplotlib writes.
        tables: title -> way -> (clean passes a pair, peak memory in bytes or None).
        clock: by which passes are counted: CPU or wall.
    """
    most = sum(len(ways) for ways in tables.values())
    figure = Figure(figsize=(11, 0.34 * most + 1.0 * len(tables)), layout="constrained")
    heights = [len(ways) for ways in tables.values()]
    panels = figure.subplots(len(tables), 2, squeeze=False, height_ratios=heights, sharey="row")
    for (passes, memory), (title, ways) in zip(panels, tables.items(), strict=True):
        names = sorted(ways, key=lambda name: ways[name][0], reverse=True)
        colours = [OURS if name.startswith("Patchbay") else OTHERS for name in names]
        peaks = [(ways[name][1] or 0) / 2**20 for name in names]
        bars = passes.barh(names, [ways[name][0] for name in names], color=colours)
        passes.bar_label(bars, fmt="{:.1f}", padding=3, fontsize=8)
        bars = memory.barh(names, peaks, color=colours)
        told = [
            "not known" if ways[name][1] is None else f"{peak:.0f}" for name, peak in zip(names, peaks, strict=True)
        ]
        memory.bar_label(bars, told, padding=3, fontsize=8)
        passes.set_title(title, loc="left", fontsize=10)
        passes.set_xlabel(f"clean passes of the decoder, {clock} time")
        memory.set_xlabel("peak memory, MB")
        for panel in (passes, memory):
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(labelsize=8)
            panel.margins(x=0.12)
    figure.savefig(path, dpi=110)
