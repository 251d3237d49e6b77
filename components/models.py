"""The model that a page is about: opened when this visitor asked for it, refused in a sentence when he did not."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from components import jobs_panel, server, state, visitors
from components.clips import owner
from components.guard import show, stop
from components.words import md
from interp_core.engine import opening_key
from interp_core.models.subject import Subject
from interp_core.request import Request, short_name

PATIENCE_S = 1.5
"""What opens within this needs no progress."""


def opened(request: Request) -> Subject | None:
    """The model of a request if it is open already and this visitor asked for it; nothing is opened for it."""
    asked = state.may_open(request.model) and state.may_open(request.adapter)
    return server.engine().opened(request) if asked else None


def require_approval(name: str, what: str = "a model") -> None:
    """Stop the page unless the visitor asked for the model or adapter, or it ships: a link alone must not load one."""
    if state.may_open(name):
        return
    st.warning(f"This link names {what} that does not ship with Patchbay. Open it only if you trust it.")
    st.code(name, language=None)
    st.button(
        f"Open this {md(what.split()[-1])}", key=f"open-{name}", on_click=state.approve, args=(name,), type="primary"
    )
    stop()


def require(request: Request, *, answers: bool = True, donor: bool = True) -> Subject:
    """The open model of a request. Where it is not open, it is opened as a job, which the page shows in its place.

    Args:
        answers: whether the page needs a model that answers something.
        donor: whether a request that names a second model needs that one open too.
    """
    owner.refuse_foreign(request.manifest)
    sides = [*zip(request.models, request.adapters, strict=True)]
    for model, adapter in sides if donor and all(request.models) else sides[:1]:
        one = replace(request, model=model, adapter=adapter)
        require_approval(model)
        require_approval(adapter, "an adapter")
        if server.engine().ready(one) is None:
            _open(one)
    subject = server.engine().subject(request)
    if answers and subject.needs_probe:
        st.info(
            f"{md(short_name(request.model))} has no classifier, so it answers nothing by itself. Name a label column "
            "under *Probe* in the sidebar: a logistic probe of the last layer becomes its readout."
        )
        stop()
    return subject


def _open(request: Request) -> None:
    """Start opening a model, wait a little, and stop the page with its progress or with what went wrong."""
    openings, key = server.engine().openings, opening_key(request)
    job = openings.get(key)
    active = job is not None and job.active  # looked at once: a job that is being stopped must not be begun again
    if job is not None and not active and job.status in ("failed", "cancelled"):
        if job.error:
            show(job.error)
        else:
            st.info(f"{md(job.title)} was stopped.")
        st.button("Try again", on_click=openings.forget, args=(key,), key=f"again-{key}", icon=":material/refresh:")
        stop()
    if job is not None and active:
        visitors.asked(job)
    else:
        job = visitors.asked(server.engine().opening(request))
    with st.spinner("Opening the model …"):
        job.wait(PATIENCE_S)
    if job.active:
        jobs_panel.watch(job)
        stop()
    st.rerun()  # the sidebar can now say what this model has to choose from
