"""Which model is compared with the sidebar's: a bundled pair, or any second model of its family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from components import defaults, models, state
from components.words import md
from interp_core.experiments.compare.bundled import BundledPair, pairs_of
from interp_core.experiments.compare.experiment import resolve
from interp_core.experiments.compare.request import CompareRequest
from interp_core.models import bundled
from interp_core.request import Request, short_name


def ask(base: Request) -> CompareRequest | None:
    """The sidebar's model and its donor, under the usual settings; None where nobody has said which donor."""
    pairs = pairs_of(base.model)
    names = [pair.name for pair in pairs]
    all_pairs = [*pairs, *(pair for demo in bundled.demos() for pair in pairs_of(demo))]
    titles = {pair.name: _title(pair) for pair in reversed(all_pairs)}
    name_of = {title: name for name, title in titles.items()}  # a link has the title of what was chosen

    def named() -> None:
        chosen = name_of.get(st.session_state[key], st.session_state[key])
        if chosen not in names:
            state.approve(chosen)

    key = state.setting(CompareRequest.command, "donor")
    of_others = {pair.name for pair in all_pairs} - set(names)
    if (
        name_of.get(st.session_state.get(key, ""), st.session_state.get(key)) in of_others
    ):  # a pair of the model that was chosen before
        st.session_state[key] = names[0] if names else None
    choice, merged, about = st.columns([0.4, 0.4, 0.6], vertical_alignment="bottom", gap="medium")
    chosen = choice.selectbox(
        "Donor",
        names,
        index=0 if names else None,
        key=key,
        bind=state.BOUND,
        accept_new_options=True,
        format_func=lambda name: titles.get(name, name),
        on_change=named,
        placeholder="a second model: bundled name, checkpoint file, folder",
        help="The base is the model in the sidebar. A bundled pair brings its own base. Or type any second model of "
        "the same family: its activations of the same clips are put into the base.",
    )
    adapter = _adapter(merged)
    chosen = name_of.get(chosen or "", chosen)
    pair = next((pair for pair in pairs if pair.name == chosen), None)
    named_one = pair is not None or (chosen and chosen not in of_others)
    if not named_one and not adapter:
        st.info(
            f"{md(base.model)} has no bundled counterpart: name a second model of its family above, or an adapter for "
            "this one."
        )
        return None
    if pair is not None and pair.about:
        about.caption(md(pair.about))
    first, second = (pair.base, pair.donor) if pair else (base.model, str(chosen).strip() if named_one else "")
    models.require_approval(second)
    models.require_approval(adapter, "an adapter")
    asked = CompareRequest(donor=second, donor_adapter=adapter)
    return defaults.usual(defaults.with_common(asked, replace(base, model=first)))


def _adapter(place: DeltaGenerator) -> str:
    """What is merged into the donor; where no donor is named, that is the sidebar's model with this adapter in it."""
    key = state.setting(CompareRequest.command, "donor_adapter")
    typed = place.text_input(
        "Adapter of the donor",
        "",
        key=key,
        bind=state.BOUND,
        on_change=lambda: state.approve((st.session_state.get(key) or "").strip()),
        placeholder="a LoRA folder, or nothing",
        help="Merged into the donor's weights. With no donor named, the donor is the base with this adapter in it.",
    )
    return (typed or "").strip()


def _title(pair: BundledPair) -> str:
    """A pair by its donor, which may be a file of a demo, and its own name."""
    demo = bundled.demo_of(pair.donor)
    inside = "" if demo is None or pair.donor == demo.name else f" {Path(pair.donor).relative_to(demo.folder).parent}"
    return f"{demo.name if demo is not None else short_name(pair.donor)}{inside} ({pair.name})"


def fill(request: CompareRequest) -> CompareRequest:
    """With a bundled model's counterpart and clips, and what a demo is asked."""
    return resolve(request)
