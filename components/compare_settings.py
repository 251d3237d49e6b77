"""Which two models are compared, and how: widgets in, a request out."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from components import state
from components.words import md
from interp_core.doors.compare import CompareRequest, bundled_pairs, pairs_of
from interp_core.experiments.compare_arms import MAPS
from interp_core.experiments.compare_settings import CompareSettings
from interp_core.models import bundled
from interp_core.request import PatchRequest

PATCHES = ("auto:3", "each", "cumulative")
STAGES = ("mixed", "pooled", "projection", "logits")


def choose_models(request: PatchRequest) -> CompareRequest | None:
    """The sidebar's model and what it is compared with; None where nobody has said with what."""
    pairs = pairs_of(request.model)
    names = [pair.name for pair in pairs]

    def named() -> None:
        chosen = st.session_state[state.CMP_DONOR]
        if chosen not in names:
            state.approve(chosen)

    of_others = {pair.name for demo in bundled.demos() for pair in pairs_of(demo)} - set(names)
    if st.session_state.get(state.CMP_DONOR) in of_others:  # a pair of the model that was chosen before
        st.session_state[state.CMP_DONOR] = names[0] if names else None
    chosen = st.selectbox(
        "Donor",
        names,
        index=0 if names else None,
        key=state.CMP_DONOR,
        bind=state.BOUND,
        accept_new_options=True,
        on_change=named,
        placeholder="a second model: bundled name, checkpoint file, folder",
        help="The base is the model in the sidebar. A bundled pair brings its own base. Or type any second model of "
        "the same family: its activations of the same clips are put into the base.",
    )
    pair = next((pair for pair in pairs if pair.name == chosen), None)
    if pair is None and (not chosen or chosen in of_others):
        return None
    if pair is not None and pair.about:
        st.caption(md(pair.about))
    base, donor = (pair.base, pair.donor) if pair else (request.model, str(chosen).strip())
    return CompareRequest(
        base,
        manifest=request.manifest,
        device=request.device,
        dtype=request.dtype,
        max_clips=request.max_clips,
        skip_bad=request.skip_bad,
        part=request.part,
        probe=request.probe,
        donor=donor,
    )


def suggestion() -> str:
    """The bundled model that this page was made for; empty where none ships."""
    return next((pair.base for pair in bundled_pairs() if pair.base in bundled.demos()), "")


def form(request: CompareRequest) -> tuple[CompareRequest, bool]:
    """The form for how they are compared. Returns the request with it, and whether Run was pressed."""
    default = CompareSettings()
    with st.form("compare", border=False):
        patch = st.multiselect(
            "Layers that get the donor's activations",
            PATCHES,
            list(default.patch),
            key=state.CMP_PATCH,
            bind=state.BOUND,
            accept_new_options=True,
            help="auto:3 is the three least alike by CKA on the choosing half; each is one at a time; cumulative is "
            "layers 0 to l. Or type a set like 0,5,11.",
        )
        left, right = st.columns(2)
        stages = left.multiselect(
            "Stages that get them",
            STAGES,
            list(STAGES),
            key=state.CMP_STAGES,
            bind=state.BOUND,
            help="Sites behind the layers, as far as the model has them.",
        )
        maps = right.multiselect(
            "Donor-free transplants",
            MAPS,
            list(default.maps),
            key=state.CMP_MAPS,
            bind=state.BOUND,
            help="Fitted on the half on which sites are chosen; the donor does not run when they are used.",
        )
        label = left.text_input(
            "Class column", "", key=state.CMP_LABEL, bind=state.BOUND, placeholder="found by itself"
        )
        domain = right.text_input(
            "Domain column", "", key=state.CMP_DOMAIN, bind=state.BOUND, placeholder="codec, domain, or none"
        )
        index = left.selectbox(
            "Bona fide is logit",
            ("as the model says", "0", "1"),
            key=state.CMP_BONAFIDE,
            bind=state.BOUND,
            help="0 in the thesis code, 1 in the challenge's baselines.",
        )
        reverse = right.checkbox("The other way round too", default.reverse, key=state.CMP_REVERSE, bind=state.BOUND)
        skip = right.checkbox(
            "Leave out what must be null",
            default.skip_null,
            key=state.CMP_SKIP,
            bind=state.BOUND,
            help="Parts that both models hold alike make some transplants null. They run all the same, as a check, "
            "unless they are left out.",
        )
        pressed = st.form_submit_button("Compare", type="primary", icon=":material/play_arrow:")
    asked = replace(
        default,
        patch=tuple(patch) or ("none",),
        stages=_stages(tuple(stages)),
        maps=tuple(name for name in MAPS if name in maps),
        label=(label or "").strip(),
        domain=(domain or "").strip(),
        bonafide_index=int(index) if index in ("0", "1") else None,
        reverse=reverse,
        skip_null=skip,
    )
    asked.check()
    return replace(request, settings=asked), pressed


def require(model: str) -> None:
    """Stop the page unless the visitor asked for the model, or it ships: a link alone must not load one."""
    shipped = any(model in (pair.base, pair.donor) for pair in bundled_pairs())
    if shipped or state.may_open(model):
        return
    st.warning("This link names a model that does not ship with Patchbay. Open it only if you trust it.")
    st.code(model, language=None)
    st.button("Open this model", key=f"open-{model}", on_click=state.approve, args=(model,), type="primary")
    st.stop()


def _stages(chosen: tuple[str, ...]) -> tuple[str, ...]:
    return ("all",) if set(chosen) == set(STAGES) else chosen or ("none",)
