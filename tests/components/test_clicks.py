"""What a clicked point carries is read, and a point that carries nothing means no change."""

import pytest

from components.charts.clicks import clicked_cell, clicked_number, clicked_text


def test_a_number_a_name_and_a_cell_are_read():
    assert clicked_number([[7, "text"]]) == 7
    assert clicked_number([[-1.0]]) == -1
    assert clicked_text([["clip-7"]]) == "clip-7"
    assert clicked_cell([[1, 2, "L1H2"]]) == (1, 2)


@pytest.mark.parametrize("read", [clicked_number, clicked_text, clicked_cell])
@pytest.mark.parametrize("points", [[], [[]], [[None]], [[], []]])
def test_nothing_carried_means_no_change(read, points):
    assert read(points) is None


def test_each_reader_takes_only_what_it_reads():
    assert clicked_number([["happy"]]) is None
    assert clicked_text([[3]]) is None
    assert clicked_cell([["a", "b"], [4], [0.5, 1], [1, "b"]]) is None


def test_the_first_point_that_carries_what_is_asked_counts():
    assert clicked_number([[], ["happy"], [4], [5]]) == 4
    assert clicked_cell([[], [1], [0, 1]]) == (0, 1)
