"""The mark of what is selected, taken off a figure: the chart that is left is the same whatever is selected."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from components.charts import parts
from components.charts.answers import label_logits
from components.charts.heatmap import heatmap
from components.charts.kept import kept_figure
from components.charts.marks import taken_off
from components.compare import charts as compare_charts
from components.patching import charts
from tests.components.metrics_frames import metrics_frame

REACHABLE = "flip_to_target_rate_reachable"


def test_without_its_mark_a_curve_is_the_curve_that_was_drawn_without_one():
    metrics = metrics_frame()
    plain, nothing = taken_off(charts.flip_curve(metrics))
    bare, mark = taken_off(charts.flip_curve(metrics, selected_layer=5))
    assert json.loads(bare.to_json()) == json.loads(plain.to_json())
    assert not any(nothing.values())
    value = metrics[(metrics["condition"] == "matched") & (metrics["layer"] == 5)][REACHABLE].iloc[0]
    assert [line["x"] for line in mark["lines"]] == [5]
    assert [(dot["x"], dot["y"], dot["symbol"]) for dot in mark["dots"]] == [(5, value, "circle-open")]
    assert [name["text"] for name in mark["names"]] == ["layer 5"]
    assert json.dumps(mark), "it goes to the browser as JSON"


def test_the_mark_of_a_kept_figure_is_that_of_one_drawn_anew():
    metrics = metrics_frame()
    kept = kept_figure(("taken off",), lambda: charts.flip_curve(metrics))
    charts.select_layer(kept, metrics, REACHABLE, 3)
    assert taken_off(kept)[1] == taken_off(charts.flip_curve(metrics, selected_layer=3))[1]


def test_for_an_audience_the_mark_grows_as_the_chart_does():
    figure = charts.flip_curve(metrics_frame(), selected_layer=5)
    small, large = taken_off(figure)[1], taken_off(parts.presented(figure))[1]
    assert large["names"][0]["size"] > small["names"][0]["size"]
    assert large["dots"][0]["size"] > small["dots"][0]["size"]


def test_the_frame_of_a_cell_is_taken_off_and_the_outlines_of_others_stay():
    values = np.array([[0.1, 0.9], [0.4, 0.2]])
    figure = heatmap(values, ["a", "b"], ["c", "d"], title="", unit="", selected=(1, 0), outlined=[(0, 0)])
    bare, mark = taken_off(figure)
    assert [(one["x0"], one["y0"]) for one in mark["frames"]] == [(-0.48, 0.52)] * 2  # black on white
    assert [(shape.x0, shape.y0) for shape in bare.layout.shapes] == [(-0.48, -0.48)]


def test_of_label_dots_those_after_the_patch_are_taken_off_with_the_ways_to_them():
    labels, base, donor = ["a", "b"], [3.0, 1.0], [0.0, 4.0]
    room = [[1.0, 2.0], [2.5, 0.5]]
    bare, marks = zip(
        *(taken_off(label_logits(labels, base, patched, donor, "b", room=room)) for patched in room), strict=True
    )
    assert bare[0].to_json() == bare[1].to_json()
    for mark, patched in zip(marks, room, strict=True):
        assert [dot["x"] for dot in mark["dots"]] == patched
        assert [(way["from"][0], way["to"][0]) for way in mark["ways"]] == list(zip(base, patched, strict=True))
        assert {dot["y"] for dot in mark["dots"]} == {"a", "<b>b ◂ target</b>"}
    assert [dot["symbol"].endswith("-open") for dot in marks[0]["dots"]] == [True, False], "filled where it wins"


def test_a_ring_at_a_name_stands_at_the_name():
    rows = pd.DataFrame({"model": ["base", "each 1"], "eer": [0.2, 0.1], "null": ["", ""], "n": [9, 9]})
    _, mark = taken_off(compare_charts.measures(rows, "eer", selected="each 1"))
    assert [(dot["x"], dot["y"]) for dot in mark["dots"]] == [(0.1, "each 1")]


def test_a_mark_goes_to_the_browser_as_json_whatever_its_numbers_are():
    figure = parts.new_figure("", height=100)
    parts.mark_at(figure, np.int64(3), "layer 3")
    parts.ring_at(figure, np.float64(3), np.float64(0.5), "#000000")
    _, mark = taken_off(figure)
    assert json.loads(json.dumps(mark, allow_nan=False)) == mark
    _, broken = taken_off(label_logits(["a", "b"], [1.0, 2.0], [np.nan, 3.0], [0.0, 1.0], "a"))
    assert [dot["y"] for dot in broken["dots"]] == ["b"] and len(broken["ways"]) == 1, "what is not finite has no place"
    assert json.dumps(broken, allow_nan=False)


def test_dots_that_move_say_their_number_and_a_ring_says_nothing():
    _, mark = taken_off(label_logits(["a", "b"], [1.0, 2.0], [1.25, 3.0], [0.0, 1.0], "a"))
    assert [dot["said"] for dot in mark["dots"]] == ["A after the patch, a: 1.250", "A after the patch, b: 3.000"]
    _, ring = taken_off(charts.flip_curve(metrics_frame(), selected_layer=5))
    assert [dot["said"] for dot in ring["dots"]] == [None]
