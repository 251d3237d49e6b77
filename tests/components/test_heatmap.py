"""The clickable heatmap: where cells lie, what they say, and which one a click means."""

import numpy as np
import pytest

from components.charts.heatmap import heatmap

MATRIX = np.array([[1.0, 0.5, np.nan], [0.25, 0.75, 0.0]])
ROWS, COLUMNS = ["layer 0", "<b>1</b>"], ["a", "b", "c"]


def drawn(**settings):
    return heatmap(MATRIX, ROWS, COLUMNS, title="CKA", unit="similarity", **settings)


def trace(figure, name):
    return next(part for part in figure.data if part.name == name)


def test_every_cell_carries_its_row_and_column_where_its_colour_lies():
    figure = drawn()
    colours, cells = figure.data[0], trace(figure, "cells")
    assert [list(cell) for cell in cells.customdata] == [[r, c] for r in range(2) for c in range(3)]
    for x, y, (row, column) in zip(cells.x, cells.y, cells.customdata, strict=True):
        assert (colours.x[column], colours.y[row]) == (x, y)
        value = MATRIX[row, column]
        assert colours.z[row][column] == value or np.isnan(value)


def test_numbers_stand_in_small_matrices_only_and_a_gap_is_a_dash_and_never_a_number():
    numbers = trace(drawn(marks={(0, 1): "✱"}), "numbers")
    assert list(numbers.text) == ["1.00", "0.50✱", "–", "0.25", "0.75", "0.00"]
    names = [str(i) for i in range(20)]
    wide = heatmap(np.eye(20), names, names, title="", unit="")
    assert [part.name for part in wide.data if part.name == "numbers"] == []
    assert "no value" in trace(drawn(), "cells").text[2]


def test_names_are_text_and_never_markup_and_the_hover_says_what_it_is_given():
    figure = drawn(hover=[["95 % interval 0.9 to 1", "", "constant"], ["", "", ""]])
    said = trace(figure, "cells").text
    assert "95 % interval 0.9 to 1" in said[0] and "constant" in said[2]
    assert "&lt;b&gt;1&lt;/b&gt;" in said[3] and "&lt;b&gt;1&lt;/b&gt;" in figure.layout.yaxis.ticktext[1]


def test_colour_limits_are_as_given_and_symmetric_about_zero_where_signs_matter():
    given, own, signed = drawn(limits=(-1, 1)), drawn(), drawn(scale="diverging")
    assert (given.data[0].zmin, given.data[0].zmax) == (-1, 1)
    assert (own.data[0].zmin, own.data[0].zmax) == (0, 1)
    assert signed.data[0].zmin == -signed.data[0].zmax == -1


def test_frames_lie_around_their_cells_and_axes_do_not_zoom():
    figure = drawn(selected=(1, 2), outlined=[(0, 0)], upwards=True)
    frames = [(s.x0, s.x1, s.y0, s.y1) for s in figure.layout.shapes]
    assert frames == [(-0.48, 0.48, -0.48, 0.48), (1.52, 2.48, 0.52, 1.48), (1.52, 2.48, 0.52, 1.48)]
    _, under, over = figure.layout.shapes  # dark on light, so that it is seen on every colour of the scale
    assert (under.line.color, over.line.color) == ("#FFFFFF", "#000000") and under.line.width > over.line.width
    assert figure.layout.xaxis.fixedrange and figure.layout.yaxis.fixedrange
    assert list(figure.layout.yaxis.range) == [-0.5, 1.5]
    assert list(drawn().layout.yaxis.range) == [1.5, -0.5]


def test_names_or_hover_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 rows and 2 columns"):
        heatmap(MATRIX, ROWS, COLUMNS[:2], title="", unit="")
    with pytest.raises(ValueError, match="one text a cell"):
        drawn(hover=[["", ""]])


def test_emb_stands_a_line_lower_where_layers_are_close():
    names = ["emb", *map(str, range(12))]
    figure = heatmap(np.zeros((2, 13)), ["a", "b"], names, title="t", unit="u")
    assert list(figure.layout.xaxis.ticktext) == ["<br>emb", *names[1:]]
    few = heatmap(np.zeros((2, 3)), ["a", "b"], names[:3], title="t", unit="u")
    assert list(few.layout.xaxis.ticktext) == names[:3]
