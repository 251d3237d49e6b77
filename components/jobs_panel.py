"""Jobs as every session sees them: progress, remaining time, cancel. Asked about here alone, and only while one is
active.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from components import server, state, visitors
from components.guard import readable_errors
from components.shown import waits
from components.widgets import run_link
from components.words import md, nbytes, seconds
from interp_core.engine import device_memory
from interp_core.experiments.result import Result
from interp_core.jobs import Job
from interp_core.request import model_named

POLL_SECONDS = 2.0  # each poll takes its time from the job that it asks about
STOPPING_SECONDS = 1.5
"""How long a page waits, once somebody has pressed Cancel, for the job to end, so that it says so at once."""
KEPT_IN_VIEW = 3

_MARK = {"done": ":material/check:", "failed": ":material/error:", "cancelled": ":material/block:"}


def panel() -> None:
    """The sidebar's view of jobs and memory."""
    _polled(_panel, any(job.active for job in server.jobs()))


def _polled(body: Callable[[], None], active: bool) -> None:
    """The one place that draws a part of a page again and again."""
    st.fragment(body, run_every=POLL_SECONDS if active else None)()


def _panel() -> None:
    with readable_errors():
        jobs = server.jobs()
        if jobs:
            st.subheader("Jobs")
        active = [job for job in jobs if job.active]
        for job in active:
            progress(job, "side")
        for job in [job for job in jobs if not job.active][:KEPT_IN_VIEW]:
            _finished(job)
        computed_on()
        memory()
        open_models()
    _rerun_when_all_ended(bool(active))


def progress(job: Job[Any], place: str) -> None:
    """One active job: what it does, how far it is, how long it will take, and the button for who may stop it."""
    left = job.remaining_seconds()
    if job.cancel_requested:
        when = "stopping …"
    elif job.status == "queued":
        when = "waiting for its turn"
    else:
        when = "estimating …" if left is None else f"about {seconds(left)} left"
    share = job.done / job.total if job.total else 0.0
    steps = f"{job.done:d} of {job.total:d} · {when}" if job.total else f"{md(job.note)} …" if job.note else when
    st.progress(min(share, 1.0), text=f"{md(job.title)}  \n{steps}")
    mine = visitors.may_cancel(job)
    st.button(
        "Cancel",
        key=f"cancel-{place}-{job.key}",
        on_click=visitors.cancel,
        args=(job,),
        disabled=job.cancel_requested or not mine,
        icon=":material/stop:",
        help=(f"Now: {md(job.note)}" if job.note else None) if mine else "Somebody else asked for it.",
    )


def _finished(job: Job[Any]) -> None:
    ended = {"done": "done in", "failed": "failed after", "cancelled": "cancelled after"}[job.status]
    st.caption(f"{_MARK[job.status]} {md(job.title)}: {ended} {seconds(job.elapsed_seconds())}")
    if job.error:
        st.caption(md(job.error))
    _link(job)


def _link(job: Job[Any]) -> None:
    """From a finished job to its result, and from one that was stopped to where it goes on."""
    pages = st.session_state.get(state.PAGES, {})
    if job.place is None or not job.place.is_dir():
        return
    if job.status == "done" and isinstance(job.result, Result):
        page, label, icon = pages.get(job.result.config["command"]), "Look at it", ":material/visibility:"
    elif waits(job.place):
        page, label, icon = pages.get("runs"), "Go on with it", ":material/resume:"
    else:
        return
    if page is not None:
        run_link(page, label, icon, job.place)


def computed_on() -> None:
    """Where runs go, if not into this process."""
    cluster = server.cluster()
    if cluster is None:
        return
    workers = "as many workers as fit" if cluster.workers is None else f"{cluster.workers:d} workers"
    st.caption(
        f":material/hub: Runs are computed on {md(str(cluster))}: {workers}",
        help="PATCHBAY_CLUSTER of the server. Each worker opens the model for a run of its own; curves are drawn once "
        "all of them are done. What cannot be dealt to workers is computed in the server, as clicks are.",
    )


def memory() -> None:
    """Memory of the process and the devices, and what the cache of clean runs holds."""
    used, cache = device_memory(), server.engine().cache.stats()
    places = [f"{md(name)} {nbytes(count)}" for name, count in used.items()]
    rate = "" if cache.hit_rate is None else f" · {100 * cache.hit_rate:.0f} % hits"
    st.caption(
        f"Memory: {' · '.join(places)}",
        help="The cache keeps clean runs of clips; the least recently used go first. PATCHBAY_CACHE_GB bounds it.",
    )
    st.caption(f"Cache: {nbytes(cache.nbytes)} of {nbytes(cache.max_bytes)}{rate}")


def open_models() -> None:
    """What is open, and what it takes."""
    models = server.engine().models
    listed = models.opened()
    if not listed:
        return
    held = sum(one.nbytes for one in listed)
    with st.expander(f"Open models: {nbytes(held)} of {nbytes(models.max_bytes)}", icon=":material/memory:"):
        for one in listed:
            st.caption(
                f"{md(model_named(one.name, one.adapter))} · {md(one.device)} · {md(one.dtype)} · {nbytes(one.nbytes)}"
            )
        st.caption("The least recently used go first; PATCHBAY_MODELS_GB bounds them.")


def _rerun_when_all_ended(active: bool) -> None:
    """Once, when the last active job has ended: the page shows its result, and polling stops."""
    was = st.session_state.get(state.WAS_ACTIVE, False)
    st.session_state[state.WAS_ACTIVE] = active
    if was and not active:
        st.rerun()


def watch(job: Job[Any], so_far: Callable[[Job[Any]], None] = lambda job: None) -> None:
    """One job in the page itself, where its result will be; `so_far` draws below it what it has come to."""

    def body() -> None:
        with readable_errors():
            if job.cancel_requested:
                job.wait(STOPPING_SECONDS)
            if job.active:
                progress(job, "page")
                so_far(job)
                return
        st.rerun()  # whatever else is still running

    _polled(body, active=True)
