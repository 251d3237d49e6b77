"""Text from elsewhere in every place where Streamlit reads markdown."""

from __future__ import annotations

import streamlit as st

from components.words import md
from tests.browser.hostile import TEXTS

shown = [md(text) for text in TEXTS]
with st.container(key="texts"):
    for text in shown:
        st.markdown(text)
        st.caption(f"a {text} b")
        st.error(text)
        st.button(text, key=f"button {text}")
        st.checkbox(text, key=f"box {text}")
        st.progress(0.5, text=text)
        st.subheader(text, anchor=False)
        with st.expander(text, expanded=True):
            st.markdown(f"- {text}\n- {text}")
st.segmented_control("Choose", TEXTS, format_func=md, key="choice")
st.select_slider("Slide", TEXTS, format_func=md, key="slide")
