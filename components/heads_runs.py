"""Which heads run the page shows: computed by this server, kept in the runs folder, or shipped with the demo."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import streamlit as st

from components import state
from interp_core.doors.heads import HeadsRequest, open_heads, request_from
from interp_core.errors import InterpError
from interp_core.experiments.heads import HeadsResult

CONFIG = "heads_config.json"


@dataclass(frozen=True, eq=False)
class ShownHeads:
    """The run on show.

    Attributes:
        key: names the result.
        source: a job of this server, a folder of earlier runs, or the demo's own.
        differences: settings in which it is not what is asked for now, in words.
    """

    key: str
    result: HeadsResult
    source: Literal["job", "folder", "shipped"]
    differences: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For a list of runs."""
        config = self.result.config
        made = str(config.get("finished") or config.get("created") or "now")[:16].replace("T", " ")
        model = Path(str(config["model"]["id"])).name
        return f"{model}: {config['settings']['label']}, {len(self.result.clips)} clips, {made}"


def current(asked: HeadsRequest) -> ShownHeads | None:
    """The run to show for a request; the demo's own where nothing else is there."""
    job = state.engine().jobs.get(asked.key)
    if job is not None and job.result is not None:
        return ShownHeads(f"job {job.key}", job.result, "job")
    folder = state.runs_folder()
    for config in sorted(folder.glob(f"heads-*-{asked.key}/{CONFIG}")) if folder else []:
        if kept := _opened(config.parent, "folder"):
            return kept
    saved = shipped(asked.model)
    if saved is None or asked.manifest is not None:
        return None
    return ShownHeads(saved.key, saved.result, saved.source, differences(asked, saved.result))


def shipped(model: str) -> ShownHeads | None:
    """The heads run that ships with a bundled model, if one does."""
    demo = state.engine().demo(model)
    folder = None if demo is None else demo.folder / "run-heads"
    return _opened(folder, "shipped") if folder is not None and folder.is_dir() else None


def others(than: ShownHeads) -> list[ShownHeads]:
    """Further runs whose maps have the same shape: of jobs and in the runs folder."""
    found = [
        ShownHeads(f"job {job.key}", job.result, "job")
        for job in state.engine().jobs.jobs()
        if isinstance(job.result, HeadsResult)
    ]
    folder = state.runs_folder()
    for config in sorted(folder.glob(f"heads-*/{CONFIG}")) if folder else []:
        kept = _opened(config.parent, "folder")
        if kept is not None:
            found.append(kept)
    if saved := shipped(str(than.result.config["model"]["id"])):
        found.append(saved)
    geometry, seen = than.result.config["geometry"], {_identity(than)}
    alike = []
    for one in found:
        if _same(one.result.config["geometry"], geometry) and _identity(one) not in seen:
            seen.add(_identity(one))
            alike.append(one)
    return alike


def _identity(shown: ShownHeads) -> str:
    config = shown.result.config
    return json.dumps(
        [config["model"]["weights_sha256"], config["manifest"]["sha256"], config["settings"]], default=str
    )


def _same(one: object, other: object) -> bool:
    return json.dumps(one, default=list) == json.dumps(other, default=list)


def differences(asked: HeadsRequest, result: HeadsResult) -> tuple[str, ...]:
    """In which settings a run is not what was asked."""
    made = request_from(result.config).settings
    ignored = {"batch_size", "prompt", "ablate"}  # they do not decide what the map shows
    names = [name for name in type(made).__dataclass_fields__ if name not in ignored]
    pairs = [(name, getattr(asked.settings, name), getattr(made, name)) for name in names]
    return tuple(f"{name}: {now} asked, {then} in this run" for name, now, then in pairs if now != then)


def _opened(folder: Path, source: Literal["folder", "shipped"]) -> ShownHeads | None:
    config = folder / CONFIG
    try:
        if not json.loads(config.read_text("utf-8")).get("finished"):
            return None
        key = f"{folder} {config.stat().st_mtime_ns}"
        return ShownHeads(key, _read(key, str(folder)), source)
    except (OSError, ValueError, InterpError):
        return None


@st.cache_resource(max_entries=8, show_spinner="Reading the run …")
def _read(key: str, folder: str) -> HeadsResult:
    return open_heads(Path(folder))
