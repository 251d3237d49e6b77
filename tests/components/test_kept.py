"""Kept figures: drawn once a key, and never changed by what a page marks in its own copy."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from components.charts.kept import kept_figure
from components.charts.parts import presented
from components.patching import charts
from tests.components.metrics_frames import metrics_frame

REACHABLE = "flip_to_target_rate_reachable"


def draw_of(metrics: pd.DataFrame, drawings: list[int]) -> go.Figure:
    drawings.append(1)
    return charts.flip_curve(metrics)


def test_a_selection_marked_in_a_kept_figure_is_the_figure_drawn_with_it():
    metrics, drawings = metrics_frame(), []
    for layer in (-1, 3, 5):
        figure = kept_figure(("selections",), lambda: draw_of(metrics, drawings))
        charts.select_layer(figure, metrics, REACHABLE, layer)
        whole = charts.flip_curve(metrics, selected_layer=layer)
        assert figure.to_dict() == whole.to_dict()
        assert presented(figure).to_dict() == presented(whole).to_dict()
    assert len(drawings) == 1


def test_another_key_is_drawn_anew_and_an_earlier_copy_stays_as_it_was():
    metrics, drawings = metrics_frame(), []
    first = kept_figure(("of one run",), lambda: draw_of(metrics, drawings))
    before = first.to_dict()
    kept_figure(("of another run",), lambda: draw_of(metrics.iloc[:1], drawings))
    second = kept_figure(("of one run",), lambda: draw_of(metrics, drawings))
    second.data[0].x = [1, 2, 3]
    second.layout.xaxis.title.text = "changed"
    assert len(drawings) == 2
    assert first.to_dict() == before == kept_figure(("of one run",), go.Figure).to_dict()
