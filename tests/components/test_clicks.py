"""A click is read in either form that Streamlit gives, and no selection means no change."""

import pytest

from components.charts.clicks import clicked_cell, clicked_number, clicked_text


def point(*carried, mapped=False):
    """A selected point: Streamlit hands a row of plain numbers over as a mapping, and a mixed one as a list."""
    row = {str(i): value for i, value in enumerate(carried)} if mapped else list(carried)
    return {"x": 3, "y": 0.5, "customdata": row}


@pytest.mark.parametrize("mapped", [False, True])
def test_a_number_a_name_and_a_cell_are_read_from_either_form(mapped):
    assert clicked_number([point(7, "text", mapped=mapped)]) == 7
    assert clicked_number([point(-1.0, mapped=mapped)]) == -1
    assert clicked_text([point("clip-7", mapped=mapped)]) == "clip-7"
    assert clicked_cell([point(1, 2, mapped=mapped)]) == (1, 2)


@pytest.mark.parametrize("read", [clicked_number, clicked_text, clicked_cell])
@pytest.mark.parametrize(
    "points", [[], [{}], [{"x": 3}], [{"customdata": None}], [{"customdata": []}], [{"customdata": {}}]]
)
def test_nothing_selected_or_nothing_carried_means_no_change(read, points):
    assert read(points) is None


def test_each_reader_takes_only_what_it_reads():
    assert clicked_number([point("happy")]) is None
    assert clicked_text([point(3)]) is None and clicked_text([{"customdata": "text"}]) is None
    assert clicked_cell([point("a", "b"), point(4), point(0.5, 1), point(1, "b")]) is None


def test_the_first_point_that_carries_what_is_asked_counts():
    """A ring or a reference line over the point is selected with it and carries nothing."""
    assert clicked_number([{"x": 3}, point("happy"), point(4), point(5)]) == 4
    assert clicked_cell([{"x": 1, "y": 2}, point(1), point(0, 1)]) == (0, 1)
