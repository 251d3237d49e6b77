"""A heatmap alone: which cell was clicked stands below it."""

import numpy as np
import streamlit as st

from components.charts import heatmap

KEY, CELL = "map", "cell"
at = st.session_state.get(CELL, (0, 0))
figure = heatmap.heatmap(
    np.linspace(0, 1, 6).reshape(2, 3), ["r0", "r1"], ["c0", "c1", "c2"], title="t", unit="u", selected=at
)


def chosen(cell: heatmap.Cell) -> None:
    st.session_state[CELL] = cell


heatmap.show(figure, key=KEY, alt="a map", on_cell=chosen)
st.text(f"cell {at[0]} {at[1]}")
