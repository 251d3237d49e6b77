"""Every run in memory and on disk, of every experiment: look at it, go on with it, lay two over each other."""

import streamlit as st

from components.runs import view


def page() -> None:
    """Draw the list and the run that is selected in it."""
    st.title("Runs", anchor=False)
    st.markdown(
        "Every run of every experiment: those of this server, those in its runs folder, and those that ship with the "
        "demos. Click a line; lay another run of the same experiment over it."
    )
    view.draw()


page()
