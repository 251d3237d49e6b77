"""A click anywhere in a cell of a heatmap reaches Python, which plotly's own heatmap clicks do not."""

from pathlib import Path

from tests.browser.drive import point_position, wait_for, wait_idle

HERE = Path(__file__).resolve().parent
SAID = "text => [...document.querySelectorAll('[data-testid=\"stText\"]')].some(e => e.innerText === text)"


def test_clicks_in_the_middle_and_near_the_edge_of_a_wide_cell_select_it(open_page, serve):
    page = open_page(serve(HERE / "heatmap_app.py"))
    for row, column, aside in [(1, 2, 0), (0, 1, 80), (1, 0, -60)]:
        wait_idle(page, timeout=60)
        wait_for(page, "() => document.querySelectorAll('.st-key-map .js-plotly-plot').length === 1")
        x, y = point_position(page, "map", 1, 3 * row + column)
        page.mouse.move(x + aside - 4, y - 3)
        page.mouse.move(x + aside, y)
        page.mouse.down()
        page.mouse.up()
        wait_for(page, SAID, f"cell {row} {column}")
    assert page.console_errors == []
