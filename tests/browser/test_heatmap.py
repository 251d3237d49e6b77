"""A click anywhere in a cell of a heatmap reaches Python, which plotly's own heatmap clicks do not."""

from pathlib import Path

import pytest

from tests.browser.drive import point_position, wait_for, wait_idle

HERE = Path(__file__).resolve().parent
SAID = "text => [...document.querySelectorAll('[data-testid=\"stText\"]')].some(e => e.innerText === text)"


@pytest.mark.parametrize(
    ("key", "columns", "clicks"),
    [
        ("map", 3, [(1, 2, 0, 0), (0, 1, 80, 0), (1, 0, -60, 15)]),
        # Cells of some 9 by 50 pixels: every corner of one is nearer to its middle than to that of another.
        ("narrow", 60, [(0, 20, 0, 0), (1, 20, 3, 18), (0, 21, -3, -18), (1, 59, 3, -18), (1, 0, -3, 18)]),
    ],
)
def test_clicks_in_the_middle_and_near_the_edges_of_a_cell_select_it(open_page, serve, key, columns, clicks):
    page = open_page(serve(HERE / "heatmap_app.py"))
    for row, column, aside, below in clicks:
        wait_idle(page, timeout=60)
        wait_for(page, f"() => document.querySelectorAll('.st-key-{key} .js-plotly-plot').length === 1")
        x, y = point_position(page, key, 1, columns * row + column)
        page.mouse.move(x + aside / 2, y + below / 2 + 2)
        page.mouse.move(x + aside, y + below)
        page.mouse.down()
        page.mouse.up()
        wait_for(page, SAID, f"{key} {row} {column}")
    assert page.console_errors == []
