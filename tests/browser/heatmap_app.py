"""Heatmaps of wide and of narrow cells: which cell was clicked stands below each."""

import numpy as np
import streamlit as st

from components.charts import heatmap

WIDTHS = {"map": 3, "narrow": 60}
"""Key -> columns."""

for key, columns in WIDTHS.items():
    at = st.session_state.get(f"cell of {key}", (0, 0))
    values, names = np.linspace(0, 1, 2 * columns).reshape(2, columns), [f"c{i}" for i in range(columns)]
    figure = heatmap.heatmap(values, ["r0", "r1"], names, title="t", unit="u", selected=at)

    def chosen(cell: heatmap.Cell, key: str = key) -> None:
        st.session_state[f"cell of {key}"] = cell

    heatmap.show(figure, key=key, alt="a map", on_cell=chosen)
    st.text(f"{key} {at[0]} {at[1]}")
