"""Which comparison the page shows: computed by this server, kept in the runs folder, or shipped with the demo."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import streamlit as st

from components import state
from interp_core.data.clips import Clip
from interp_core.doors.compare import CompareRequest, Ready, cost, prepare, request_from_config
from interp_core.doors.compare_folder import read_comparison
from interp_core.errors import InterpError
from interp_core.experiments.compare import Comparison
from interp_core.models import bundled

CONFIG = "compare_config.json"
IGNORED = frozenset({"batch_size", "checks", "cka_bytes", "bonafide_index"})  # filled in, or not about what is shown


@dataclass(frozen=True, eq=False)
class ShownComparison:
    """The comparison on show.

    Attributes:
        key: names the result.
        source: a job of this server, a folder of earlier runs, or the demo's own.
        folder: where its files lie, if anywhere.
        differences: settings in which it is not what is asked for now, in words.
    """

    key: str
    result: Comparison
    source: Literal["job", "folder", "shipped"]
    folder: Path | None = None
    differences: tuple[str, ...] = ()

    def clips(self, known: dict[str, Clip], model: str) -> pd.DataFrame:
        """One row a clip that is still there: its score in the base and in a model, and how far it moved."""
        scores = self.result.scores
        wide = scores[scores["model"].isin(["base", "donor", model])].pivot(
            index="clip_id", columns="model", values="score"
        )
        facts = scores[scores["model"] == "base"].set_index("clip_id")[["label", "half"]]
        table = facts.join(wide).assign(moved=wide[model] - wide["base"])
        table = table.assign(size=table["moved"].abs()).sort_values("size", ascending=False, kind="stable")
        shown = list(dict.fromkeys(["moved", "base", model, "donor", "label", "half"]))
        return table[shown][[clip_id in known for clip_id in table.index]]


def current(asked: CompareRequest) -> ShownComparison | None:
    """The run to show for a resolved request; the demo's own where nothing else is there."""
    job = state.engine().jobs.get(asked.key)
    folder = kept_folder(asked)
    if job is not None and job.result is not None:
        return ShownComparison(f"job {job.key}", job.result, "job", folder)
    if folder is not None and (kept := _opened(folder, "folder")):
        return kept
    saved = shipped(asked)
    return None if saved is None else replace(saved, differences=differences(asked, saved.result))


def kept_folder(asked: CompareRequest) -> Path | None:
    """The folder of this very request below the runs folder, finished or not."""
    folder = state.runs_folder()
    found = sorted(folder.glob(f"compare-*-{asked.key}/{CONFIG}")) if folder else []
    return found[0].parent if found else None


def shipped(asked: CompareRequest) -> ShownComparison | None:
    """The comparison that ships with a demo, of just these two models and its own clips."""
    for demo in bundled.demos().values():
        if str(demo.manifest) != asked.manifest:
            continue
        for config in sorted(demo.folder.glob(f"run-compare*/{CONFIG}")):
            saved = _opened(config.parent, "shipped")
            if saved is not None and _models(saved.result.config) == (_tail(asked.model), _tail(asked.donor)):
                return saved
    return None


def differences(asked: CompareRequest, result: Comparison) -> tuple[str, ...]:
    """In which settings a run is not what was asked."""
    made = request_from_config(result.config)
    names = [name for name in type(made.settings).__dataclass_fields__ if name not in IGNORED]
    pairs = [(name, getattr(asked.settings, name), getattr(made.settings, name)) for name in names]
    pairs += [(name, getattr(asked, name), getattr(made, name)) for name in ("max_clips", "pilot")]
    return tuple(f"{name}: {_said(now)} asked, {_said(then)} in this run" for name, now, then in pairs if now != then)


@st.cache_resource(max_entries=8, show_spinner="Opening both models and reading the clips …")
def prepared(key: str, _asked: CompareRequest) -> tuple[Ready, str]:
    """Both models opened and checked, and what the run will cost; `key` names the request."""
    ready = prepare(state.engine(), _asked)
    return ready, str(cost(ready.question))


def _models(config: Any) -> tuple[str, str]:
    return _tail(str(config["model"]["id"])), _tail(str(config["donor"]["id"]))


def _tail(model: str) -> str:
    """A bundled name, or the end of a path below a demo: the same wherever the repository lies."""
    path = Path(model)
    for demo in bundled.demos().values():
        if path.is_relative_to(demo.folder):
            return str(path.relative_to(demo.folder.parent))
    parts = path.parts
    if "assets" in parts:
        return str(Path(*parts[len(parts) - parts[::-1].index("assets") :]))
    return model


def _opened(folder: Path, source: Literal["folder", "shipped"]) -> ShownComparison | None:
    config = folder / CONFIG
    try:
        if not json.loads(config.read_text("utf-8")).get("finished"):
            return None
        key = f"{folder} {config.stat().st_mtime_ns}"
        return ShownComparison(key, _read(key, str(folder)), source, folder)
    except (OSError, ValueError, InterpError):
        return None


@st.cache_resource(max_entries=8, show_spinner="Reading the run …")
def _read(key: str, folder: str) -> Comparison:
    return read_comparison(Path(folder))


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value) or "found by itself"
