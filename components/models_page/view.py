"""The models page: a search over what is at hand and over every type, and the type that is selected."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from components import state
from components.guard import readable_errors
from components.models_page import rows as models
from components.models_page.rows import AtHand, Row
from components.widgets import OF_LINES, choice, picking_table
from components.words import md
from interp_core.experiments import EXPERIMENTS
from interp_core.experiments.fitting import example
from interp_core.models.families import GROUPS

FOUND_FOR_S = 300
"""How long what was found on the disk is shown before it is searched again."""
MOST_AT_HAND = 30
COLUMNS = {
    "type": st.column_config.TextColumn("type", width=185, help="The `model_type` of its config.json."),
    "kind": st.column_config.TextColumn("kind", width=130),
    "sites": st.column_config.NumberColumn("sites", width=55, help="How many kinds of site it has."),
    "experiments": st.column_config.TextColumn("experiments", width=345),
    "checked on": st.column_config.TextColumn("checked on", width=150),
}


def draw() -> None:
    """Draw the search, what is at hand, the table of types with the selected one, and what cannot be opened."""
    titles = _titles()
    text, groups, runs = _filters(titles)
    with readable_errors():
        _at_hand(text, groups, runs, titles)
    with readable_errors():
        _types(text, groups, runs, titles)
    if not groups and not runs:
        _cannot(text)


def _titles() -> dict[str, str]:
    """Command -> the name of its page."""
    pages = st.session_state.get(state.PAGES, {})
    return {name: pages[name].title if name in pages else name.capitalize() for name in EXPERIMENTS}


def _filters(titles: dict[str, str]) -> tuple[str, list[str], list[str]]:
    left, middle, right = st.columns([1.4, 1, 1], vertical_alignment="bottom")
    text = left.text_input(
        "Search", key=state.MODELS_TEXT, bind=state.BOUND, placeholder="whisper, cross_out, real weights …",
        icon=":material/search:", help="Words that all have to stand in a line: a name, a site, a readout, a folder.",
    )  # fmt: skip
    groups = middle.multiselect("Kind", GROUPS, key=state.MODELS_GROUP, bind=state.BOUND, placeholder="all")
    runs = right.multiselect(
        "Runs", list(titles), key=state.MODELS_RUNS, bind=state.BOUND, placeholder="any experiment",
        help="Types on which all of these experiments run, by their commands.",
    )  # fmt: skip
    return text or "", groups, runs


# ---- at hand ---------------------------------------------------------------------------------------------------------


def _at_hand(text: str, groups: Sequence[str], runs: Sequence[str], titles: dict[str, str]) -> None:
    heading = st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom")
    heading.subheader("At hand", anchor=False)
    if heading.button("Look again", icon=":material/refresh:", type="tertiary", help="Search the folders anew."):
        _found.clear()
    below, faults = _found(tuple(map(str, models.searched())))
    kept = models.matching(models.every(), groups=groups, runs=runs, text="")
    families = {row.family.name: row for row in kept}
    shown = [
        one
        for one in (*models.shipped(), *below)
        if models.has(one.words, text) and (not (groups or runs) or (one.family and one.family.name in families))
    ]
    by_name = {row.family.name: row for row in models.every()}
    for one in shown[:MOST_AT_HAND]:
        _line(one, by_name.get(one.family.name) if one.family else None, titles)
    if len(shown) > MOST_AT_HAND:
        st.caption(f"{len(shown) - MOST_AT_HAND} more; search to see them.")
    if not shown:
        st.caption("None of the models at hand has these words." if text or groups or runs else "No model is at hand.")
    for fault in faults:
        st.warning(md(fault))
    where = ", ".join(md(root.name or root) for root in models.searched()) or "nowhere"
    st.caption(
        f"Found by config.json and weights, or best.pt, below {where}; a model is opened when a page of it is. A path, "
        "a checkpoint file or a hub id can also be typed under *Model* in the sidebar of any page.",
        help="  \n".join(md(root) for root in models.searched()) or None,
    )


@st.cache_data(ttl=FOUND_FOR_S, show_spinner="Looking for models …")
def _found(_roots: tuple[str, ...]) -> tuple[list[AtHand], list[str]]:
    return models.models_at_hand()


def _line(one: AtHand, row: Row | None, titles: dict[str, str]) -> None:
    """One model with a link to every page that it can be looked at on."""
    pages = st.session_state.get(state.PAGES, {})
    left, right = st.columns([1, 2.1], vertical_alignment="center")
    kind = f" · {md(one.family.name)}" if one.family else ""
    left.markdown(f"**{md(one.title)}**{kind}  \n{md(one.about)}")
    with right.container(horizontal=True, gap=None):
        for command in row.suited if row is not None else EXPERIMENTS:
            if (page := pages.get(command)) is not None:
                st.page_link(page, label=md(titles[command]), query_params={state.MODEL: one.name})


# ---- types -----------------------------------------------------------------------------------------------------------


def _types(text: str, groups: Sequence[str], runs: Sequence[str], titles: dict[str, str]) -> None:
    every = models.every()
    kept = models.matching(every, groups=groups, runs=runs, text=text)
    st.subheader("Types that open", anchor=False)
    real = sum(bool(row.records) for row in kept)
    names = [row.family.name for row in kept]

    def pick(name: str) -> None:
        state.link_type(name)

    linked = state.linked_type()
    chosen = next((row for row in kept if row.family.name == linked), kept[0] if kept else None)
    picking_table(
        models.table(kept, titles), names, pick, key=state.MODELS_TABLE, column_config=COLUMNS, height=320,
        caption=f"{len(kept)} of {len(every)} types; {real} of them checked on real weights. The same list as "
        "`python -m interp_core models`. Click a line.",
        now=chosen.family.name if chosen else None, what="type", keys=OF_LINES,
        empty="No type has these words; take one out, or clear the filters.",
    )  # fmt: skip
    if chosen is not None:
        with st.container(border=True):
            _selected(chosen, titles)


def _selected(row: Row, titles: dict[str, str]) -> None:
    one = row.family
    st.markdown(f"**{md(one.name)}** · {md(one.group)}")
    left, right = st.columns([3, 2], gap="medium")
    alike = [other.family for other in models.every() if one.types and other.family.types == one.types]
    parts = ", ".join(f"{md(other.name)}" for other in alike)
    behind = f"; behind the blocks {md(', '.join(one.behind))}" if one.behind else ""
    facts = {
        "Opens": md(one.opens),
        "Sites": md(", ".join(one.inside)) + behind,
        "Positions see": "what is before them" if one.causal else "each other",
        "Readout": md(one.readout),
        "Routes of a sweep": md(", ".join(one.methods)),
        "Parts": parts if len(alike) > 1 else "one list of blocks",
        "Checked": md(_checked(row)),
    }
    left.markdown("\n".join(f"- **{what}**: {text}" for what, text in facts.items()))
    refused = {name: f": no, it {md(lack)}" if lack else "" for name, lack in row.lacks.items()}
    right.markdown("**Experiments**\n" + "\n".join(f"- {md(titles[name])}{why}" for name, why in refused.items()))
    if one.subject.takes == "pictures":
        right.caption("Pictures: on the command line; the pages play sound.")
    if st.session_state.get(state.MODELS_COMMAND) not in row.suited:
        st.session_state.pop(state.MODELS_COMMAND, None)
    command = choice("Command line of", row.suited, key=state.MODELS_COMMAND, format_func=lambda name: titles[name])
    st.code(example(one, command), language="bash", wrap_lines=True)


def _checked(row: Row) -> str:
    if row.records:
        return f"on real weights: {', '.join(map(str, row.records))}; and on {row.family.checked}"
    return f"on no published checkpoint yet; on {row.family.checked}"


def _cannot(text: str) -> None:
    if not (lacking := models.cannot(text)):
        return
    st.subheader("Types that do not open", anchor=False)
    st.caption("They hear, and a part that every model here needs is missing or is not understood.")
    st.markdown("\n".join(f"- **{md(', '.join(names))}**: {md(lack)}" for lack, names in lacking.items()))
