"""Every model that can be opened: what is at hand, what each type has and can be asked, and what it was checked on."""

import streamlit as st

from components.models_page import view

st.title("Models", anchor=False)
st.markdown(
    "What opens, which experiments run on it, and whether its numbers were held to the library's own forward on a "
    "published checkpoint or on random weights alone. Random weights cannot show what only a trained model has; the "
    "checks before every run do."
)
view.draw()
