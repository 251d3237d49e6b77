"""What leaves the page: tables, figures, and the command that repeats the run."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import charts
from components.results import Shown
from interp_core import figures
from interp_core.experiments.plan import PatchSettings
from interp_core.request import PatchRequest, request_from

FORMATS: Mapping[str, str] = {"png": "image/png", "svg": "image/svg+xml"}


def command(request: PatchRequest, out: str = "runs/again") -> str:
    """The command line that runs a request, as one line for a POSIX shell; settings at their default are left out."""
    s, default = request.settings, PatchSettings()
    said: list[tuple[str, Any, Any]] = [
        ("--model", request.model, None),
        ("--manifest", request.manifest, None),
        ("--device", request.device, "auto"),
        ("--dtype", request.dtype, "auto"),
        ("--kinds", request.kinds, PatchRequest.kinds),
        ("--max-pairs", _pair_limit(request.max_pairs), _pair_limit(PatchRequest.max_pairs)),
        ("--max-clips", request.max_clips, None),
        ("--pilot", request.pilot, None),
        ("--part", request.part, ""),
        ("--probe", request.probe, ""),
        ("--site", s.site if s.head is None else f"{s.site}:{s.head}", None),
        ("--layers", None if s.layers is None else ",".join(map(str, s.layers)), None),
        ("--positions", s.positions, default.positions),
        ("--align", s.align, default.align),
        ("--alpha", _list([f"{alpha:g}" for alpha in s.alphas]), "1"),
        ("--labels", ",".join(s.labels), ",".join(default.labels)),
        *(("--prompt", prompt, None) for prompt in s.prompts),
        ("--controls", _list(s.controls), _list(default.controls)),
        ("--flow", _list(s.flow), _list(default.flow)),
        ("--method", s.method, default.method),
        ("--batch-size", s.batch_size, default.batch_size),
        ("--multi-token", s.several_tokens, default.several_tokens),
        ("--seed", s.seed, default.seed),
    ]
    # `--name=value`, because a value may begin with a dash.
    options = [f"{name}={value}" for name, value, usual in said if value is not None and value != usual]
    flags = [flag for flag, on in (("--skip-bad", request.skip_bad), ("--no-checks", not s.checks)) if on]
    return " ".join(["python -m interp_core patch", *map(shlex.quote, options), *flags, f"--out={shlex.quote(out)}"])


def _list(values: Any) -> str:
    return ",".join(values) or "none"


def _pair_limit(limit: int | Mapping[str, int]) -> str:
    return str(limit) if isinstance(limit, int) else ",".join(f"{name}={count}" for name, count in limit.items())


def csv(table: pd.DataFrame) -> bytes:
    """A table as CSV, floats as they are, missing values empty."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def html(figure: go.Figure, title: str) -> bytes:
    """An interactive figure in one file that needs no network."""
    page = charts.for_export(figure, title).to_html(include_plotlyjs=True, full_html=True)
    return page.encode()


def picture(metrics: pd.DataFrame, title: str, *, delta: bool, file_format: str) -> bytes:
    """The figure of a run folder, for paper: every question a panel, every strength a curve."""
    drawn = (figures.delta_logit_figure if delta else figures.flip_rate_figure)(metrics, title)
    out = io.BytesIO()
    drawn.savefig(out, format=file_format)
    return out.getvalue()


def file_name(*parts: str) -> str:
    """Parts joined into a name that every file system takes."""
    return "-".join(re.sub(r"[^\w.~-]+", "_", part).strip("_") for part in parts if part)


def title(shown: Shown, kind: str, what: str) -> str:
    """What an exported figure says about itself, in lines that fit a narrow figure."""
    config = shown.result.config
    made = str(config.get("finished") or config.get("created") or "")[:10]
    n = sum(line["kind"] == kind for line in shown.result.pairs)
    settings = config["settings"]
    model = f"{Path(str(config['model']['id'])).name}, weights {str(config['model']['weights_sha256'])[:12]}"
    return "\n".join(
        [
            f"{what} · {kind} pairs (n = {n})",
            f"{settings['site']}, {settings['positions']} positions · seed {settings['seed']}",
            " · ".join(part for part in (model, made) if part),
        ]
    )


def menu(shown: Shown, kind: str, prompt: int, prompt_name: str, view: str, figure: go.Figure) -> None:
    """The downloads for what is on screen. Files are made when they are asked for."""
    result = shown.result
    heading = title(shown, kind, "Logit change" if view == "Logit change" else "Flip rate")
    asked = title(shown, kind, f"{view} · question: {prompt_name}")
    base = file_name(Path(str(result.config["model"]["id"])).name, kind, prompt_name)
    of_kind = result.metrics[result.metrics["kind"] == kind]
    delta = view == "Logit change"
    with st.popover("Export", icon=":material/download:"):
        st.caption("Figure: PNG and SVG show all questions of the run; HTML is this one, interactive.")
        with st.container(horizontal=True):
            for kind_of_file, mime in FORMATS.items():
                _button(
                    kind_of_file.upper(),
                    partial(picture, of_kind, heading, delta=delta, file_format=kind_of_file),
                    f"{base}-{'delta_logit' if delta else 'flip_rate'}.{kind_of_file}",
                    mime,
                )
            _button(
                "HTML",
                lambda: html(figure, asked),
                f"{base}-{file_name(view)}.html",
                "text/html",
            )
        st.caption("Tables of the whole run, as in its folder.")
        with st.container(horizontal=True):
            _button("Metrics CSV", lambda: csv(result.metrics), f"{base}-metrics.csv", "text/csv")
            _button("Records CSV", lambda: csv(result.records), f"{base}-records.csv", "text/csv")
        st.caption("The command that repeats the run on show.")
        st.code(command(request_from(result.config)), language="bash", wrap_lines=True)
        if shown.folder is not None and shown.source == "folder":
            st.caption("Its folder:")
            st.code(str(shown.folder), language=None, wrap_lines=True)


def _button(label: str, data: Callable[[], bytes], name: str, mime: str) -> None:
    st.download_button(label, data, name, mime, on_click="ignore", key=f"export-{label}")
