"""Jobs as every session sees them: progress, remaining time, cancel. Polled only while one is active."""

from __future__ import annotations

from typing import Any

import streamlit as st

from components import state
from components.guard import readable_errors
from components.words import md, nbytes, seconds
from interp_core.engine import device_memory
from interp_core.jobs import Job

POLL_SECONDS = 1.0
KEPT_IN_VIEW = 3

_MARK = {"done": ":material/check:", "failed": ":material/error:", "cancelled": ":material/block:"}


def panel() -> None:
    """The sidebar's view of jobs and memory."""
    active = any(job.active for job in state.engine().jobs.jobs())
    st.fragment(_panel, run_every=POLL_SECONDS if active else None)()


def _panel() -> None:
    with readable_errors():
        jobs = state.engine().jobs.jobs()
        if jobs:
            st.subheader("Jobs")
        active = [job for job in jobs if job.active]
        for job in active:
            progress(job, "side")
        for job in [job for job in jobs if not job.active][:KEPT_IN_VIEW]:
            _finished(job)
        memory()
    _rerun_when_all_ended(bool(active))


def progress(job: Job[Any], place: str) -> None:
    """One active job: what it does, how far it is, how long it will take, and the button to stop it."""
    left = job.remaining_seconds()
    if job.cancel_requested:
        when = "stopping …"
    elif job.status == "queued":
        when = "waiting for its turn"
    else:
        when = "estimating …" if left is None else f"about {seconds(left)} left"
    share = job.done / job.total if job.total else 0.0
    st.progress(min(share, 1.0), text=f"{md(job.title)}  \n{job.done} of {job.total or '…'} · {when}")
    st.button(
        "Cancel",
        key=f"cancel-{place}-{job.key}",
        on_click=job.cancel,
        disabled=job.cancel_requested,
        icon=":material/stop:",
        help=f"Now: {md(job.note)}" if job.note else None,
    )


def _finished(job: Job[Any]) -> None:
    ended = {"done": "done in", "failed": "failed after", "cancelled": "cancelled after"}[job.status]
    st.caption(f"{_MARK[job.status]} {md(job.title)}: {ended} {seconds(job.elapsed_seconds())}")
    if job.error:
        st.caption(md(job.error))


def memory() -> None:
    """Memory of the process and the devices, and what the cache of clean runs holds."""
    used, cache = device_memory(), state.engine().cache.stats()
    places = [f"{name} {nbytes(count)}" for name, count in used.items()]
    rate = "" if cache.hit_rate is None else f" · {100 * cache.hit_rate:.0f} % hits"
    st.caption(
        f"Memory: {' · '.join(places)}",
        help="The cache keeps clean runs of clips; the least recently used go first. PATCHBAY_CACHE_GB bounds it.",
    )
    st.caption(f"Cache: {nbytes(cache.nbytes)} of {nbytes(cache.max_bytes)}{rate}")


def _rerun_when_all_ended(active: bool) -> None:
    """Once, when the last active job has ended: the page shows its result, and polling stops."""
    was = st.session_state.get(state.WAS_ACTIVE, False)
    st.session_state[state.WAS_ACTIVE] = active
    if was and not active:
        st.rerun()


def watch(job: Job[Any]) -> None:
    """One job in the page itself, where its result will be."""

    def body() -> None:
        with readable_errors():
            if job.active:
                progress(job, "page")

    st.fragment(body, run_every=POLL_SECONDS)()
