"""The sidebar: which model, which clips; memory, cache and jobs. What a page asks beyond that it draws below."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from components import corpus, jobs_panel, keys, left_behind, models, server, state
from components.clips import owner
from components.guard import readable_errors, stop
from components.widgets import choice
from components.words import md, option
from interp_core.models import bundled
from interp_core.models.subject import Subject
from interp_core.request import Request

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "int4")


def draw(folded: bool = False) -> Request:
    """Draw what every page asks, and return it; `folded` on a page that reads none of it, where it only must not go."""
    with st.sidebar, st.expander("Model and clips", icon=":material/graphic_eq:") if folded else st.container():
        request = _model()
        request = _readout(request, models.opened(request))
        return _clips(request)


def draw_jobs() -> None:
    """The lower part, drawn behind the page: a job that the page starts is then already in it."""
    with st.sidebar, readable_errors():
        keys.draw()
        st.toggle(
            "Presenter mode",
            key=state.PRESENT,
            bind=state.BOUND,
            help="Larger type and thicker lines, and the chart above the player, for an audience. The link keeps it.",
        )
        left_behind.draw()
        jobs_panel.panel()


def _model() -> Request:
    demos = bundled.demos()

    def named() -> None:
        state.approve(st.session_state.get(state.MODEL))
        state.note_choice()
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
        stop()
    if demo := demos.get(chosen):
        st.caption(md(demo.description))
    adapter = st.text_input(
        "Adapter",
        "",
        key=state.ADAPTER,
        bind=state.BOUND,
        on_change=lambda: state.approve((st.session_state.get(state.ADAPTER) or "").strip()),
        placeholder="a LoRA folder, or nothing",
        help="A folder that peft wrote (adapter_config.json and its weights), merged into the model's weights: LoRA, "
        "rsLoRA or DoRA. `none` leaves out an adapter that lies beside the weights.",
    )
    left, right = st.columns(2)
    device = left.selectbox(
        "Device", DEVICES, key=state.DEVICE, bind=state.BOUND, accept_new_options=True, help="or cuda:1, …"
    )
    dtype = right.selectbox(
        "Precision",
        DTYPES,
        key=state.DTYPE,
        bind=state.BOUND,
        help="auto: float32 on a CPU, bfloat16 on a GPU; "
        "int8 and int4: an audio LLM's weights by the package bitsandbytes",
    )
    longest = server.clip_limits().max_seconds
    adapter = (adapter or "").strip()
    return Request(chosen, adapter=adapter, device=device or "auto", dtype=dtype or "auto", max_seconds=longest)


def _readout(request: Request, subject: Subject | None) -> Request:
    """What only an open model can say that it has: several lists of blocks, no classifier."""
    if subject is None:
        return request
    if subject.parts:
        part = choice(
            "Blocks",
            subject.parts,
            key=state.PART,
            format_func=option,
            help="encoder: positions are time. decoder: positions are the prompt's tokens, and cross-attention reads "
            "the audio.",
        )
        request = replace(request, part=part if part != subject.parts[0] else "")
    if subject.needs_probe:
        demo = server.engine().demo(request.model)
        usual = demo.probe if demo is not None else ""
        column = st.text_input(
            "Probe",
            usual,
            key=state.PROBE,
            bind=state.BOUND,
            placeholder="a label column",
            help="This checkpoint has no classifier. A logistic probe of the last layer, fitted to this label of the "
            "clips (to those of the split train, where there is one), becomes its readout.",
        )
        column = (column or "").strip()
        request = replace(request, probe="" if column == usual else column)
    return request


def _use_own() -> None:
    if chosen := st.session_state[state.OWN_CLIPS]:
        st.session_state[state.CLIPS] = chosen
        state.forget_reader()


def _clips(request: Request) -> Request:
    own = bundled.demos().get(request.model)
    with st.expander("Clips", icon=":material/library_music:", expanded=own is None):
        manifest = st.text_input(
            "Manifest",
            "",
            key=state.CLIPS,
            bind=state.BOUND,
            on_change=state.forget_reader,
            placeholder="the bundled clips" if own else "clips.csv, or a corpus's folder",
            help="CSV or Parquet with clip_id, path and label columns, or the folder of a corpus (RAVDESS, ESC-50, "
            "TinySOL, VocalSound, ASVspoof, Camelyon17, a folder a class), inside a folder that the server may read.",
        )
        found = corpus.choose(replace(request, manifest=(manifest or "").strip() or None))
        place = st.container()
        if mine := {str(one.manifest): one.name for one in owner.visible()}:
            st.selectbox(
                "Own recordings",
                list(mine),
                index=None,
                key=state.OWN_CLIPS,
                format_func=lambda path: mine[path],
                placeholder="a collection of this browser",
                on_change=_use_own,
            )
        skip = st.checkbox("Leave out clips that cannot be used", key=state.SKIP_BAD, bind=state.BOUND)
        found = replace(found, skip_bad=skip)
        with place:
            corpus.look(found)
    return found
