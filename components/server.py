"""What the server was started with, and the one engine that all sessions share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from interp_core.data.archive import Caps
from interp_core.data.clips import ClipLimits
from interp_core.engine import Engine, default_cache_bytes, default_model_bytes
from interp_core.errors import InterpError
from interp_core.experiments.cluster.run import Cluster, run_where_it_can
from interp_core.experiments.sharded import run_whole
from interp_core.jobs import Job
from interp_core.models import bundled

THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def roots() -> list[Path]:
    """Folders that manifests and their clips must lie in: PATCHBAY_ROOTS, or the current folder and the assets."""
    named = os.environ.get("PATCHBAY_ROOTS")
    chosen = [Path(part) for part in named.split(os.pathsep) if part] if named else [Path.cwd()]
    kept = [folder] if (folder := data_folder()) is not None else []
    return [path.expanduser().resolve() for path in (*chosen, bundled.ASSETS, *kept)]


def model_roots() -> list[Path] | None:
    """Folders that models must lie in: those of PATCHBAY_ROOTS where it is set, anywhere where it is not."""
    return roots() if os.environ.get("PATCHBAY_ROOTS") else None


def anyone_cancels() -> bool:
    """Whether a visitor may stop the jobs of others: PATCHBAY_CANCEL, own (the default) or all."""
    said = os.environ.get("PATCHBAY_CANCEL", "own")
    if said not in ("own", "all"):
        raise InterpError(f"PATCHBAY_CANCEL={said!r} is neither own nor all.")
    return said == "all"


def links_run() -> bool:
    """Whether a link whose run is not kept starts it, on a bundled model: PATCHBAY_LINKS, run (the default) or ask."""
    said = os.environ.get("PATCHBAY_LINKS", "run")
    if said not in ("run", "ask"):
        raise InterpError(f"PATCHBAY_LINKS={said!r} is neither run nor ask.")
    return said == "run"


def has_login() -> bool:
    """Whether the server's secrets say how to log in (`[auth]`, for `st.login`)."""
    try:
        return "auth" in st.secrets
    except StreamlitSecretNotFoundError:
        return False


def exposed() -> str:
    """What to know before others come, said when the server starts; "" where none can, or all have to log in."""
    address = st.get_option("server.address") or "every address of this machine"
    if address in THIS_MACHINE or has_login():
        return ""
    return (
        f"listening on {address}, and there is no log-in: whoever reaches the port can use this server, see its runs "
        "and load its models. README.md, On a shared server, says how to put one in front."
    )


def jobs() -> list[Job[Any]]:
    """Every job there is: models on their way (those that are open are listed as such), then experiments."""
    openings = [job for job in engine().openings.jobs() if job.status != "done"]
    return [*openings, *engine().jobs.jobs()]


def cluster() -> Cluster | None:
    """Where runs are computed if not in this process: PATCHBAY_CLUSTER, as the option --cluster; PATCHBAY_WORKERS."""
    address = os.environ.get("PATCHBAY_CLUSTER")
    if not address:
        return None
    said = os.environ.get("PATCHBAY_WORKERS")
    found = Cluster(address, int(_number("PATCHBAY_WORKERS", 1)) if said else None)
    found.check()
    return found


def runner() -> Callable[..., Any]:
    """What runs an experiment: this process, or the workers of the cluster."""
    found = cluster()
    return run_whole if found is None else partial(run_where_it_can, found)


def most_pairs() -> int:
    """The most pairs of a kind that the dashboard takes: PATCHBAY_MAX_PAIRS."""
    return int(_number("PATCHBAY_MAX_PAIRS", 1000))


def most_download_bytes() -> int:
    """The largest run folder that is handed out as one file: PATCHBAY_MAX_DOWNLOAD_MB."""
    return int(_number("PATCHBAY_MAX_DOWNLOAD_MB", 200) * 2**20)


def clip_limits() -> ClipLimits:
    """The longest clip that the dashboard takes: PATCHBAY_MAX_SECONDS."""
    return ClipLimits(max_seconds=_number("PATCHBAY_MAX_SECONDS", ClipLimits().max_seconds))


def caps() -> Caps:
    """What visitors may keep: PATCHBAY_MAX_FILES clips a collection, PATCHBAY_MAX_COLLECTIONS collections and
    PATCHBAY_MAX_VISITOR_MB a visitor, PATCHBAY_MAX_DATA_MB in all.
    """
    usual = Caps()
    return Caps(
        files=int(_number("PATCHBAY_MAX_FILES", usual.files)),
        nbytes=int(_number("PATCHBAY_MAX_DATA_MB", usual.nbytes / 2**20) * 2**20),
        collections=int(_number("PATCHBAY_MAX_COLLECTIONS", usual.collections)),
        visitor=int(_number("PATCHBAY_MAX_VISITOR_MB", usual.visitor / 2**20) * 2**20),
    )


def data_folder() -> Path | None:
    """Where own recordings are kept, PATCHBAY_DATA or ./recordings; None where nothing can be written."""
    return _writable(os.environ.get("PATCHBAY_DATA") or "recordings")


def runs_folder() -> Path | None:
    """Where runs are kept, PATCHBAY_RUNS or ./runs; None where nothing can be written."""
    return _writable(os.environ.get("PATCHBAY_RUNS") or "runs")


def _writable(name: str) -> Path | None:
    folder = Path(name).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _number(name: str, default: float) -> float:
    text = os.environ.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError as error:
        raise InterpError(f"{name}={text!r} is no number.") from error
    if value <= 0:
        raise InterpError(f"{name}={text!r} must be above 0.")
    return value


@st.cache_resource(show_spinner=False)
def engine() -> Engine:
    """The one engine of this process: its models, caches and jobs are shared by all sessions."""
    return Engine(
        cache_bytes=default_cache_bytes(),
        roots=roots(),
        limits=clip_limits(),
        model_bytes=default_model_bytes(),
        model_roots=model_roots(),
    )
