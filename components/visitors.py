"""Who is asking: told apart by log-in, else by a cookie, else by session; and whose jobs they may stop.

The cookie is random, means nothing elsewhere and is set with the page, so that a reload does not make one a stranger to
one's own jobs.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, TypeVar

import streamlit as st

from components import server, state
from interp_core.jobs import Job

COOKIE = "patchbay_visitor"
T = TypeVar("T")


def visitor() -> str:
    """The name under which this visitor's jobs are known; it tells nobody else who it is."""
    if getattr(st.user, "is_logged_in", False):
        known = f"user {st.user.get('iss', '')} {st.user.get('sub') or st.user.get('email', '')}"
    elif cookie := dict(st.context.cookies).get(COOKIE):
        known = f"cookie {cookie}"
    else:
        known = st.session_state.setdefault(state.VISITOR, f"session {secrets.token_hex(16)}")
    return hashlib.sha256(known.encode()).hexdigest()


def asked(job: Job[T]) -> Job[T]:
    """Note that this visitor asked for a job; to be called for every job that a page starts."""
    job.asked_by.add(visitor())
    return job


def may_cancel(job: Job[Any]) -> bool:
    """Whether this visitor asked for the job, or the server lets everybody stop every job."""
    return server.anyone_cancels() or visitor() in job.asked_by


def cancel(job: Job[Any]) -> None:
    """Stop a job if this visitor may; for callbacks."""
    if may_cancel(job):
        job.cancel()


def require_login() -> None:
    """Stop the page before a visitor who has not logged in, where the server has a way to (`[auth]` in its secrets)."""
    if not server.has_login() or getattr(st.user, "is_logged_in", False):
        return
    st.title("Patchbay", anchor=False)
    st.markdown("This server asks who you are.")
    st.button("Log in", on_click=st.login, type="primary", icon=":material/login:")
    st.stop()
