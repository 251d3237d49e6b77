"""The sidebar: which model, which clips, which question; memory, cache and jobs."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from components import jobs_panel, state
from components.guard import readable_errors, show
from components.settings import pair_limit, pair_limit_text, question
from components.words import md
from interp_core.errors import InterpError
from interp_core.models import bundled
from interp_core.models.subject import Subject
from interp_core.request import PatchRequest


def draw() -> PatchRequest:
    """Draw the sidebar and return what is asked; where a setting is wrong, it says so and the default stands."""
    with st.sidebar:
        request = _model()
        subject = state.opened(request)
        for section in (_pairs, _question):
            try:
                request = section(request, subject)
            except InterpError as error:
                show(error)
    return request


def draw_jobs() -> None:
    """The lower part, drawn behind the page: a job that the page starts is then already in it."""
    with st.sidebar, readable_errors():
        jobs_panel.panel()


def _model() -> PatchRequest:
    demos = bundled.demos()

    def named() -> None:
        state.approve(st.session_state.get(state.MODEL))
        state.forget_choices()

    chosen = st.selectbox(
        "Model",
        list(demos),
        key=state.MODEL,
        bind=state.BOUND,
        accept_new_options=True,
        on_change=named,
        placeholder="a bundled name, a folder or file, a hub id",
        help="A bundled demo; or type a folder in the Hugging Face layout, a checkpoint file of a known kind "
        "(countermeasure, msclap, ResNet) or a hub id (owner/model). `python -m interp_core models` lists all that "
        "can be opened. Code that ships inside a model folder is never run.",
    )
    if not chosen:
        st.stop()
    if demo := demos.get(chosen):
        st.caption(md(demo.description))
    default = state.default_request(chosen)
    left, right = st.columns(2)
    device = left.selectbox(
        "Device", state.DEVICES, key=state.DEVICE, bind=state.BOUND, accept_new_options=True, help="or cuda:1, …"
    )
    dtype = right.selectbox(
        "Precision", state.DTYPES, key=state.DTYPE, bind=state.BOUND, help="auto: float32 on a CPU, bfloat16 on a GPU"
    )
    return _readout(replace(default, device=device or "auto", dtype=dtype))


def _readout(request: PatchRequest) -> PatchRequest:
    """What only an open model can say that it has: several lists of blocks, no classifier."""
    subject = state.opened(request)
    if subject is None:
        return request
    if subject.parts:
        part = st.segmented_control(
            "Blocks",
            subject.parts,
            default=subject.parts[0],
            required=True,
            key=state.PART,
            bind=state.BOUND,
            help="encoder: positions are time. decoder: positions are the prompt's tokens, and cross-attention reads "
            "the audio.",
        )
        request = replace(request, part=part if part != subject.parts[0] else "")
    if subject.needs_probe:
        column = st.text_input(
            "Probe",
            request.probe,
            key=state.PROBE,
            bind=state.BOUND,
            placeholder="a label column",
            help="This checkpoint has no classifier. A logistic probe of the last layer, fitted to this label of the "
            "clips (to those of the split train, where there is one), becomes its readout.",
        )
        request = replace(request, probe=(column or "").strip())
    return request


def _pairs(request: PatchRequest, subject: Subject | None) -> PatchRequest:
    own = bundled.demos().get(request.model)
    with st.expander("Clips and pairs", icon=":material/library_music:", expanded=own is None):
        manifest = st.text_input(
            "Manifest",
            "",
            key=state.CLIPS,
            bind=state.BOUND,
            placeholder="the bundled clips" if own else "clips.csv",
            help="CSV or Parquet with clip_id, path and label columns, inside a folder that the server may read.",
        )
        state.refill(state.KINDS, request.kinds)
        kinds = st.text_input(
            "Kinds of pair",
            request.kinds,
            key=state.KINDS,
            bind=state.BOUND,
            help="prosody: same words, another voice. semantic: same voice, other words. Or same=COLUMN,differ=COLUMN.",
        )
        most = st.text_input(
            "Most pairs a kind", pair_limit_text(request.max_pairs), key=state.MAX_PAIRS, bind=state.BOUND
        )
        skip = st.checkbox(
            "Leave out clips that cannot be used", request.skip_bad, key=state.SKIP_BAD, bind=state.BOUND
        )
        return replace(
            request,
            manifest=(manifest or "").strip() or None,
            kinds=(kinds or "").strip() or request.kinds,
            max_pairs=pair_limit(most) if most else request.max_pairs,
            skip_bad=skip,
        )


def _question(request: PatchRequest, subject: Subject | None) -> PatchRequest:
    if subject is None and request.model not in bundled.demos():
        return request  # what it can be asked is known once it is open
    with st.expander("Question", icon=":material/quiz:"):
        return question(request, subject)
