"""Every chart on one page, from hand-made tables, for test_charts.py."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from components.charts import clicks
from components.charts.answers import label_logits
from components.charts.parts import for_export
from components.charts.words import alt_text
from components.patching import charts
from tests.components.metrics_frames import knockout_frame, lens_frame, metrics_frame, with_holes

st.set_page_config(layout="wide")
st.session_state.setdefault("layer", 3)


def choose(layer: int) -> None:
    st.session_state["layer"] = layer


def show(figure, key: str, alt: str = "A chart.", **settings) -> None:
    clicks.show(figure, key=key, alt=alt, **settings)


metrics, layer = metrics_frame(), st.session_state["layer"]
st.text(f"layer={layer}")
flip = charts.flip_curve(metrics, selected_layer=layer)
show(flip, "flip", on_click=choose, alt=alt_text(metrics))
st.button("next", on_click=choose, args=(layer + 1,))
left, right = st.columns(2)
with left:
    show(charts.flip_curve(with_holes(metrics), flow=(), selected_layer=5), "holes")
    show(charts.delta_curve(metrics, selected_layer=layer), "delta")
    alphas = pd.concat([metrics_frame(alpha=alpha) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)])
    show(charts.dose_response(alphas, 3), "dose")
    show(charts.knockout_curve(knockout_frame(), selected_layer=layer), "knockout")
with right:
    labels = ["neutral", "happy", "sad", "angry", "surprised"]
    show(
        label_logits(labels, [4.1, 1.0, 2.2, 0.3, -0.5], [2.0, 3.4, 1.1, 0.9, 0.2], [0.4, 5.1, 0, 1.5, 2], "happy"),
        "labels",
    )
    show(charts.delta_curve(metrics, "recovered", selected_layer=layer), "recovered")
    show(charts.flip_curve(metrics_frame(48), lens=lens_frame(48), selected_layer=20), "many")
title = "demo-emotion · prosody pairs\nseed 42"
st.plotly_chart(for_export(flip, title), theme=None, key="export")
