"""The script behind every page: settings of the page, navigation, sidebar, and the boundary at which errors end.

It is not app.py, and lies in another folder than it, because a `pages` folder beside the main script would make the
first visitor's deep link bypass the navigation.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from components import sidebar, state
from components.guard import readable_errors

ROOT = Path(__file__).resolve().parent.parent
SIDEBAR_PX = 260


def main() -> None:
    """Draw the page that the URL names."""
    st.set_page_config(page_icon=str(ROOT / "assets" / "favicon.png"), layout="wide", initial_sidebar_state=SIDEBAR_PX)
    st.logo(str(ROOT / "assets" / "favicon.svg"), size="large")
    pages = ROOT / "pages"
    page = st.navigation(
        [
            st.Page(pages / "patching.py", title="Patching", icon=":material/cable:", default=True),
            st.Page(pages / "pairs.py", title="Pairs", icon=":material/compare_arrows:", url_path="pairs"),
            st.Page(pages / "compare.py", title="Compare", icon=":material/difference:", url_path="compare"),
            st.Page(pages / "neurons.py", title="Neurons", icon=":material/scatter_plot:", url_path="neurons"),
            st.Page(pages / "signflip.py", title="Sign flip", icon=":material/flip:", url_path="signflip"),
            st.Page(pages / "heads.py", title="Heads", icon=":material/grid_on:", url_path="heads"),
        ]
    )
    with readable_errors():
        st.session_state[state.PAGE] = page.url_path
        st.session_state[state.REQUEST] = sidebar.draw()
        page.run()
    sidebar.draw_jobs()


main()
