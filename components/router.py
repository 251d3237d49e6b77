"""The script behind every page: settings of the page, navigation, sidebar, and the boundary at which errors end.

It is not app.py, and lies in another folder than it, because a `pages` folder beside the main script would make the
first visitor's deep link bypass the navigation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from components import experiment_page, page_style, shown, sidebar, state, visitors
from components.guard import readable_errors
from components.patching import ask
from components.start import examples
from interp_core.experiments import EXPERIMENTS
from interp_core.options import declared
from interp_core.request import Request

ROOT = Path(__file__).resolve().parent.parent
SIDEBAR_PX = 260


@dataclass(frozen=True)
class Entry:
    """A page of the navigation.

    Attributes:
        file: below pages, without its ending; also its URL, but for the first, which a bare address opens.
        command: of the experiment that it shows, if it shows one.
        ask: draws what the page asks in the sidebar beyond the model and the clips.
        reads: whether the page is about the model and the clips that the sidebar names.
    """

    file: str
    title: str
    icon: str
    command: str = ""
    ask: Callable[[Request], Request] = lambda base: base
    reads: bool = True


ENTRIES = (
    Entry("start", "Start", "home", reads=False),
    Entry("patching", "Patching", "cable", "patch", ask.draw),
    Entry("pairs", "Pairs", "compare_arrows", ask=ask.draw),
    Entry("compare", "Compare", "difference", "compare"),
    Entry("neurons", "Neurons", "scatter_plot", "ablate"),
    Entry("signflip", "Sign flip", "flip", "signflip"),
    Entry("probes", "Probes", "sensors", "probes"),
    Entry("steering", "Steering", "explore", "steer"),
    Entry("heads", "Heads", "grid_on", "heads"),
    Entry("recordings", "Recordings", "mic", reads=False),
    Entry("models", "Models", "category", reads=False),
    Entry("runs", "Runs", "folder_open", reads=False),
)


def pages() -> dict[StreamlitPage, Entry]:
    """Every page; an experiment that has none of its own gets the plain one."""
    made = {}
    for number, entry in enumerate(ENTRIES):
        file, icon = ROOT / "pages" / f"{entry.file}.py", f":material/{entry.icon}:"
        address = {"default": True} if number == 0 else {"url_path": entry.file}
        made[st.Page(file, title=entry.title, icon=icon, **address)] = entry
    for command in EXPERIMENTS.keys() - {entry.command for entry in ENTRIES}:
        entry = Entry(command, command.capitalize(), "science", command)
        page = experiment_page.plain_page(command)
        made[st.Page(page, title=entry.title, icon=":material/science:", url_path=command)] = entry
    return made


def main() -> None:
    """Draw the page that the URL names."""
    st.set_page_config(page_icon=str(ROOT / "assets" / "favicon.png"), layout="wide", initial_sidebar_state=SIDEBAR_PX)
    page_style.apply(presented=state.presenting())
    st.logo(str(ROOT / "assets" / "favicon.svg"), size="large")
    visitors.require_login()
    known = pages()
    page = st.navigation(list(known))
    entry = next(entry for one, entry in known.items() if one.url_path == page.url_path)
    if entry is ENTRIES[0] and (link := state.link_to_a_view()):  # a link from before there was a start page
        st.switch_page(
            next(one for one, other in known.items() if other.file == "patching"),
            query_params=link,
        )
    state.follow_link(page.url_path)
    with readable_errors():
        if entry.command:
            state.open_on(next(iter(shown.demos_with(entry.command)), None))
            state.note_link(entry.command, [one.name for one in declared(EXPERIMENTS[entry.command].request)])
        st.session_state[state.PAGE] = page.url_path
        st.session_state[state.PAGES] = {one.command or one.file: shows for shows, one in known.items()}
        st.session_state[state.REQUEST] = entry.ask(sidebar.draw(folded=not entry.reads))
        examples.say_what_to_look_at()
        page.run()
    sidebar.draw_jobs()


main()
