"""What is on screen, drawn again for paper: matrices with their numbers and frames, bands, bars, names, log axes."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from components import export
from components.charts import heatmap, parts
from components.charts.paper import on_paper
from interp_core.looks import RUNS


def test_a_matrix_keeps_its_values_limits_numbers_names_and_the_selected_cell():
    values = np.array([[0.1, 0.9, np.nan], [0.4, 0.2, 0.3]])
    figure = heatmap.heatmap(
        values, ["one", "two"], ["a", "b", "c"], title="t", unit="share", row_title="rows", column_title="columns",
        limits=(0, 1), selected=(1, 2), upwards=True,
    )  # fmt: skip
    axes, bar = on_paper(figure, "title").axes
    (mesh,) = [one for one in axes.collections if hasattr(one, "get_array")]
    assert np.array_equal(mesh.get_array().filled(np.nan).ravel(), values.ravel(), equal_nan=True)
    assert mesh.get_clim() == (0, 1) and bar.get_ylabel() == "share"
    written = {(round(text.xy[0]), round(text.xy[1])): text.get_text() for text in axes.texts}
    assert written[1, 0] == "0.90" and written[2, 0] == "–" and written[0, 1] == "0.40" and len(written) == 6
    assert [one.get_text() for one in axes.get_yticklabels()] == ["one", "two"]
    assert {patch.get_xy() for patch in axes.patches} == {(1.52, 0.52)}, "the frame stands around row 1, column 2"
    assert axes.get_ylim() == (-0.5, 1.5)


def test_what_is_selected_is_marked_on_paper_too_and_the_point_within_the_ring_stays_in_view():
    figure = parts.new_figure("v")
    figure.add_scatter(x=[0, 1], y=[0.2, 0.4], mode="markers", name="curve", marker={"color": "#000000"})
    parts.mark_at(figure, 1, "layer 1")
    parts.ring_at(figure, 1, 0.4, RUNS["patched"].colour)
    (axes,) = on_paper(figure, "").axes
    ring = axes.lines[-2] if list(axes.lines[-1].get_xdata()) == [1, 1] else axes.lines[-1]
    assert list(ring.get_xdata()) == [1] and list(ring.get_ydata()) == [0.4] and ring.get_markerfacecolor() == "none"
    assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines), "a line across at the layer"
    assert "layer 1" in [text.get_text() for text in axes.texts]


def test_rows_that_run_downwards_do_so_on_paper():
    figure = heatmap.heatmap(np.eye(2), ["one", "two"], ["a", "b"], title="t", unit="u")
    assert on_paper(figure, "").axes[0].get_ylim() == (1.5, -0.5)


def test_a_band_is_an_area_between_its_ends_and_is_not_drawn_across_a_gap():
    rows = pd.DataFrame({"layer": [0, 1, 2, 3], "v": [0.2, 0.4, 0.5, 0.6]})
    rows["v_low"], rows["v_high"] = rows["v"] - 0.1, rows["v"] + 0.1
    rows.loc[1, ["v_low", "v_high"]] = np.nan
    figure = parts.new_figure("v")
    parts.add_series(figure, rows, "layer", "v", RUNS["patched"], count="n", band=True)
    (axes,) = on_paper(figure, "").axes
    areas = [np.unique(patch.get_xy()[:, 0]).tolist() for patch in axes.patches]
    assert areas == [[0.0], [2.0, 3.0]]
    line = next(line for line in axes.lines if len(line.get_xdata()) == 4)
    assert line.get_ydata() == pytest.approx(rows["v"])


def test_a_logarithmic_axis_has_its_ends_where_they_were():
    figure = go.Figure(go.Scatter(x=[1, 10, 100], y=[1, 2, 3], mode="lines", name="curve"))
    figure.update_xaxes(type="log", range=[0, 2])
    (axes,) = on_paper(figure, "").axes
    assert axes.get_xscale() == "log" and axes.get_xlim() == (1, 100)


def test_bars_stand_at_their_seconds_with_their_widths():
    figure = go.Figure(go.Bar(x=[0.5, 2.0], y=[1.0, -2.0], width=[1.0, 2.0], marker={"color": "#000000"}))
    (axes,) = on_paper(figure, "").axes
    assert [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches] == [(0, 1, 1), (1, 2, -2)]


def test_foreign_words_are_words_and_every_format_is_written_with_the_signature():
    figure = go.Figure(go.Scatter(x=[0, 1], y=["<b>$x$</b>", "&lt;i&gt;"], mode="markers", name="$\\bad$"))
    drawn = on_paper(figure, "$not maths")
    assert [one.get_text() for one in drawn.axes[0].get_yticklabels()] == ["$x$", "<i>"]
    for kind, begins in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        shown = export.Drawn(figure, "$not maths", lambda: "seed 42", "name")
        made = export.picture(export._on_paper(shown), kind)
        assert made.startswith(begins) and len(made) > 1000
    out = io.BytesIO()
    drawn.savefig(out, format="png")
