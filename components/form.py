"""Declared settings as widgets, and back: what a person chose, or a link named, becomes a checked request.

A field's declaration says its label, help, choices and bounds; what only an open model or its clips know (columns,
sites, labels) is offered by the page. A value that is none is one sentence, and the default stands in its place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from components import state
from interp_core.errors import InterpError
from interp_core.options import Declared, declared
from interp_core.request import Request

Q = TypeVar("Q", bound=Request)
Offers = Mapping[str, Sequence[str]]
MOST = 10**9


class Open(tuple[str, ...]):
    """Choices beside which others may be typed."""


@dataclass(frozen=True)
class Filled(Generic[Q]):
    """What a form gave: the request, whether it is to run or only its cost to be said, and what is wrong with values
    whose default stands.
    """

    request: Q
    pressed: bool = False
    faults: tuple[str, ...] = ()
    weighed: bool = False


def draw(
    usual: Q, *, offers: Offers | None = None, skip: Collection[str] = (), run: str = "Run"
) -> tuple[Filled[Q], DeltaGenerator]:
    """Draw the settings of an experiment as one form; nothing of it counts before its button is pressed.

    Args:
        usual: the request with its default settings.
        offers: by field, values that the open model and its clips have. An `Open` list may be added to; a field with
            an empty one is not drawn: this model has no such choice, and the setting becomes empty.
        skip: fields that are asked for elsewhere.
        run: what its button says.
    Returns:
        What it gave, and the place above its buttons, where what it will take is said.
    """
    offers = offers or {}
    known = declared(type(usual))
    empty: dict[str, Any] = {one.name: () for one in known if one.several and not offers.get(one.name, True)}
    usual = replace(usual, **empty)
    common = {one.name for one in declared(Request)}
    asked = [one for one in known if one.about.label and one.name not in {*skip, *empty}]
    asked.sort(key=lambda one: one.name in common)  # an experiment's own come first
    in_view = [one.name for one in asked if not one.about.rare]
    rare = [one.name for one in asked if one.about.rare]
    with st.form(f"settings_{usual.command}", border=False):
        filled = fields(usual, in_view, offers)
        if rare:
            with st.expander("More settings", icon=":material/tune:"):
                more = fields(filled.request, rare, offers)
            filled = Filled(more.request, False, filled.faults + more.faults)
        above_buttons = st.container()
        with st.container(horizontal=True):
            pressed = st.form_submit_button(run, type="primary", icon=":material/play_arrow:")
            weighed = st.form_submit_button("What it will take", icon=":material/timer:")
    # The model and the clips are chosen for all pages; what of them counts for another one is no fault here.
    filled = replace(filled, request=filled.request.counting(keep=[one.name for one in asked]))
    try:
        filled.request.check()
    except InterpError as error:
        return Filled(usual, False, (*filled.faults, for_a_person(str(error), type(usual)))), above_buttons
    sound = not filled.faults
    return replace(filled, pressed=pressed and sound, weighed=weighed and sound), above_buttons


def fields(usual: Q, names: Iterable[str], offers: Offers | None = None, *, beside: int = 2) -> Filled[Q]:
    """Draw the widgets of some fields, `beside` each other in a row but for the wide ones."""
    known = {one.name: one for one in declared(type(usual))}
    values: dict[str, Any] = {}
    faults: list[str] = []
    columns: Sequence[DeltaGenerator] = ()
    narrow = 0
    for name in names:
        one = known[name]
        offered, key = (offers or {}).get(name), state.setting(usual.command, name)
        widget = _Widget(one, getattr(usual, name), offered, key, for_a_person(one.help, type(usual)))
        if state.is_another_model(widget.key, usual.model):
            st.session_state[widget.key] = widget.shown
        if one.about.wide:
            place, narrow = st.container(), 0
        else:
            columns = columns if narrow % beside else st.columns(beside)
            place, narrow = columns[narrow % beside], narrow + 1
        with place:
            try:
                values[name] = widget.ask()
            except InterpError as error:
                faults.append(for_a_person(str(error), type(usual)))
    return Filled(replace(usual, **values), False, tuple(faults))


def for_a_person(message: str, cls: type) -> str:
    """A message about options with the labels of their widgets in the place of their flags."""
    labels = {one.flag: one.about.label for one in declared(cls) if one.about.label}
    return re.sub(r"--[\w-]+", lambda flag: labels.get(flag[0], flag[0]), message)


class _Widget:
    """One field as a widget.

    Attributes:
        key: of the widget, and its name in the URL.
        shown: what the widget holds for the default.
    """

    def __init__(self, one: Declared, default: Any, offered: Sequence[str] | None, key: str, help: str) -> None:
        self.one, self.default, self.key, self.help = one, default, key, help
        self.open = isinstance(offered, Open)
        given = None if offered is None else tuple(offered)
        self.options = (
            given if not one.choices else tuple(c for c in one.choices if given is None or c in given)
        ) or ()
        if one.several and self.options:
            kept = [value for value in default or () if self.open or value in self.options]
            self.options = tuple(dict.fromkeys((*self.options, *kept)))
            self.shown: Any = kept
        elif self.options:
            if self.open and default:
                self.options = tuple(dict.fromkeys((*self.options, default)))
            self.shown = default if default in self.options else None
        elif one.kind is bool or (one.kind in (int, float) and not one.several):
            self.shown = default
        elif one.about.repeat:
            self.shown = "\n".join(default)
        elif one.several and default:
            self.shown = ", ".join(one.write((value,)) for value in default)
        else:
            self.shown = one.write(default)

    def ask(self) -> Any:
        """Draw it and return its value. Errors: InterpError for a text that is none."""
        one, about = self.one, self.one.about
        here: dict[str, Any] = {"key": self.key, "bind": state.BOUND, "help": _sentence(self.help)}
        if one.several and self.options:
            chosen = st.multiselect(
                about.label,
                self.options,
                self.shown,
                accept_new_options=self.open,
                placeholder=about.none or None,
                **here,
            )
            return tuple(chosen) if self.open else tuple(value for value in self.options if value in chosen)
        if self.options:
            at = self.options.index(self.shown) if self.shown in self.options else None
            empty = about.placeholder or "found by itself"
            value = st.selectbox(
                about.label, self.options, index=at, accept_new_options=self.open, placeholder=empty,
                format_func=lambda option: about.words.get(option, option), **here,
            )  # fmt: skip
            return value if value is not None else (self.default if at is not None else "")
        if one.kind is bool:
            return st.checkbox(about.label, self.shown, **here)
        if one.kind in (int, float) and not one.several:
            return self._number(here)
        return self._text(here)

    def _number(self, here: Mapping[str, Any]) -> Any:
        about, kind = self.one.about, self.one.kind
        least, most = (kind(bound) if bound is not None else None for bound in (about.least, about.most))
        value = st.number_input(
            about.label, least if least is not None else kind(-MOST), most if most is not None else kind(MOST),
            self.shown, placeholder=about.placeholder or about.none or "as usual", **here,
        )  # fmt: skip
        return value if value is not None or self.one.optional else self.default

    def _text(self, here: Mapping[str, Any]) -> Any:
        about = self.one.about
        state.refill(self.key, self.shown)
        if about.repeat:
            text = st.text_area(about.label, self.shown, height=150, placeholder=about.placeholder or None, **here)
            return tuple(line.strip() for line in (text or "").splitlines() if line.strip()) or self.default
        text = st.text_input(about.label, self.shown, placeholder=about.placeholder or None, **here)
        return self.one.read((text or "").strip())


def _sentence(help: str) -> str:
    return f"{help[:1].upper()}{help[1:]}."
