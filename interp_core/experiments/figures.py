"""What the PNG figures of all experiments have in common: looks in matplotlib's signs, quiet axes, one way to a file.

Drawn with matplotlib's objects and without pyplot, whose global state is not safe in threads.
"""

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.figure
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from interp_core.looks import Dash, Look, Marker
from interp_core.storage import replace_file

LINES: Mapping[Dash, Any] = {
    "solid": "-",
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 3, 1, 3)),
}
MARKERS: Mapping[Marker, str] = {
    "circle": "o",
    "square": "s",
    "x": "x",
    "triangle-up": "^",
    "cross": "P",
    "diamond": "D",
    "triangle-down": "v",
    "hexagon": "h",
    "star-diamond": "*",
}

LETTERS_AN_INCH = 19
"""Of the small lines below a figure."""


class Figure(matplotlib.figure.Figure):
    """Matplotlib's, which shows itself in a notebook: there only a figure of pyplot's does so by itself."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=min(self.dpi, 100))
        return buffer.getvalue()


def style(look: Look) -> dict[str, Any]:
    """Colour, dash and marker as keywords of a line."""
    return {"color": look.colour, "linestyle": LINES[look.dash], "marker": MARKERS[look.marker]}


def quiet(axes: Axes) -> None:
    """Faint lines across for reading values, and no frame at the top and the right."""
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def sign(figure: matplotlib.figure.Figure, text: str) -> matplotlib.figure.Figure:
    """The figure with small lines below it that say what it was made from; taken as text, never as markup."""
    most = int(figure.get_figwidth() * LETTERS_AN_INCH)
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, most)]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=6.5, color="#555555").set_parse_math(False)
    return figure


def save_png(figure: matplotlib.figure.Figure, path: Path) -> None:
    """Write the file in one step; InterpError where the folder cannot be written."""
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)  # savefig would draw it twice, first to lay it out
    replace_file(path, png.getvalue())
