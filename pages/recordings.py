"""Own recordings: dropped or spoken, labelled in a table, and patched."""

import streamlit as st

from components.clips import view

st.title("Your recordings", anchor=False)
st.markdown(
    "Drop files or speak into the microphone. Everything is kept as 16-bit WAV in a folder of this server, which only "
    "this browser sees unless you share it, and which the command line takes as `--manifest`."
)
view.draw()
