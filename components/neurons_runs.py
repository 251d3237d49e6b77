"""Which run the pages Neurons and Sign flip show: computed by this server, kept in the runs folder, or shipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from components import jobs_panel, state
from components.guard import show
from components.words import md
from interp_core.errors import InterpError
from interp_core.request import Asked, PatchRequest
from interp_core.runs import CONFIG_FILES

Source = Literal["job", "folder", "shipped"]


@dataclass(frozen=True, eq=False)
class ShownRun:
    """The run on show; `differences` are settings in which it is not what is asked for now, in words."""

    key: str
    result: Any
    source: Source
    folder: Path | None
    differences: tuple[str, ...] = ()


def common(request: PatchRequest) -> dict[str, Any]:
    """What the sidebar decides for every experiment."""
    names = ("model", "manifest", "device", "dtype", "max_clips", "skip_bad", "part", "probe")
    return {name: getattr(request, name) for name in names}


def current(asked: Asked, read: Callable[[Path], Any]) -> ShownRun | None:
    """The run to show for a request; the demo's own where nothing else is there."""
    job = state.engine().jobs.get(asked.key)
    if job is not None and job.result is not None:
        return ShownRun(f"job {job.key}", job.result, "job", None)
    folder, name = state.runs_folder(), CONFIG_FILES[asked.command]
    for config in sorted(folder.glob(f"{asked.command}-*-{asked.key}/{name}")) if folder else []:
        if kept := _opened(config, "folder", read):
            return kept
    demo = state.engine().demo(asked.model)
    if demo is None or asked.manifest is not None:
        return None
    shipped = _opened(demo.folder / f"run-{asked.command}" / name, "shipped", read)
    if shipped is None:
        return None
    differences = _differences(asked, shipped.result.config["settings"])
    return ShownRun(shipped.key, shipped.result, "shipped", shipped.folder, differences)


def started(
    request: PatchRequest,
    asked: Asked,
    pressed: bool,
    prepare: Callable[..., Any],
    read: Callable[[Path], Any],
    demo: str,
) -> ShownRun | None:
    """Start what is asked if it was pressed, say how far it is, and return the run to show, if there is one.

    Args:
        request: of the sidebar.
        asked: of the form.
        pressed: whether it is to be started.
        prepare: checks it on the engine before it is.
        read: of a run folder.
        demo: the bundled model to offer where nothing is there.
    """
    if pressed:
        try:
            with st.spinner("Checking the model, the clips and the settings …"):
                prepare(state.engine(), asked)
            state.engine().start(asked, state.runs_folder())
        except InterpError as error:
            show(error)
    job = state.engine().jobs.get(asked.key)
    if job is not None and job.active:
        jobs_panel.watch(job)
    elif job is not None and job.error:
        st.error(md(job.error))
    shown = current(asked, read)
    if shown is None and (job is None or not job.active):
        st.info("Nothing has been computed for these settings yet: open *Settings and run*, and press Run.")
        offer_demo(request, demo)
    if shown is not None and shown.differences:
        st.info("Not what is set now: " + "; ".join(map(md, shown.differences)) + ". Run it to see that.")
    return shown


def _differences(asked: Any, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that are asked for and are others in a run; what is left open is found by the run."""
    wanted = {**vars(asked), **vars(getattr(asked, "sweep", None) or getattr(asked, "settings", None))}
    found = []
    for name, then in settings.items():
        now = wanted.get(name)
        open_ = now in ("", None, ()) or name in ("batch_size", "draws")
        if not open_ and list(now if isinstance(now, tuple) else [now]) != (then if isinstance(then, list) else [then]):
            found.append(f"{name}: {now} asked, {then} in this run")
    return tuple(found)


def _opened(config: Path, source: Source, read: Callable[[Path], Any]) -> ShownRun | None:
    try:
        if not json.loads(config.read_text("utf-8")).get("finished"):
            return None
        key = f"{config.parent} {config.stat().st_mtime_ns}"
        return ShownRun(key, _read(key, str(config.parent), read), source, config.parent)
    except (OSError, ValueError, InterpError):
        return None


@st.cache_resource(max_entries=8, show_spinner="Reading the run …")
def _read(key: str, folder: str, _read_result: Callable[[Path], Any]) -> Any:
    return _read_result(Path(folder))


def provenance(shown: ShownRun, weights: str) -> str:
    """Where the run on show comes from, in a line of markdown."""
    config = shown.result.config
    made = str(config.get("finished") or config.get("created") or "")[:16].replace("T", " ")
    model = md(Path(str(config["model"]["id"])).name)
    origin = {
        "job": "Computed by this server",
        "folder": f"From the run folder {md(shown.folder.name if shown.folder else '')}",
        "shipped": f"Saved run that ships with {model}, made by the command line",
    }[shown.source]
    same = config["model"]["weights_sha256"] == weights
    checked = "weights checked" if same else f"made with other weights ({config['model']['weights_sha256'][:12]})"
    return f"{origin}{f' on {made}' if made else ''} · {config['manifest']['clips']} clips · {checked}"


def offer_demo(request: PatchRequest, name: str) -> None:
    """A model that suits the page, where another one is chosen."""
    if request.model == name or state.engine().demo(name) is None:
        return

    def choose() -> None:
        state.forget_choices()
        st.session_state[state.MODEL] = name

    st.button(f"Look at {name} instead", on_click=choose, icon=":material/graphic_eq:")
