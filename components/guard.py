"""Errors on a page: what the caller can fix as its own sentence, everything else as a short one and in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import streamlit as st

from components.words import md
from interp_core.errors import InterpError

log = logging.getLogger("patchbay")


class Ended(Exception):
    """Nothing more is to be drawn on this page; what stands beside it still is."""


def stop() -> NoReturn:
    """End the page here. Streamlit's own stop would end the sidebar, which is drawn behind it, as well."""
    raise Ended


@contextmanager
def readable_errors() -> Iterator[None]:
    """Show what goes wrong inside as one sentence and go on behind it. Streamlit's own stop and rerun pass through."""
    try:
        yield
    except Ended:
        pass
    except InterpError as error:
        show(error)
    except Exception:
        log.exception("unexpected error on a page")
        st.error(
            "Something went wrong that Patchbay did not expect; the server's log says what.", icon=":material/error:"
        )


def show(error: InterpError | str) -> None:
    """What went wrong, word for word. A message of several lines keeps its first in view and folds the rest away."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    st.error(md(lines[0]) if lines else "Refused without a reason.", icon=":material/error:")
    if len(lines) > 1:
        with st.expander(f"{len(lines) - 1} more lines"):
            st.code("\n".join(lines[1:]), language=None)


def log_script_error(error: Exception) -> None:
    """For what escapes the pages (widget callbacks): into the log; the page shows Streamlit's short notice."""
    log.error("unexpected error in a script", exc_info=error)
