"""The first page: what Patchbay is, and ways to begin."""

import streamlit as st

from components.start import view

st.title("Patchbay", anchor=False)
st.markdown(
    "Pick a model and two recordings, click a layer, and see whether the answer of one follows the other when that "
    "layer's activations are swapped. Both recordings play beside the curve, and every number comes with its interval."
)
view.draw()
