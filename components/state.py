"""The owner of every session key and URL name: what is selected, the engine that all sessions share, the run on show.

A name below is at once a widget's key and its name in the URL (`bind="query-params"`), so a link reproduces a view. A
bound widget reads the URL when it is called, and no earlier: use its return value, never `st.session_state` before it.
Streamlit drops a URL value that is none of a widget's options; free text is checked here or by the engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from components.results import Shown, differences
from components.words import md
from interp_core.data.clips import Clip, ClipLimits
from interp_core.data.pairs import Pair
from interp_core.engine import Engine, default_cache_bytes
from interp_core.errors import InterpError
from interp_core.experiments.patching import PatchingResult
from interp_core.experiments.plan import PatchSettings
from interp_core.jobs import Job
from interp_core.models import bundled
from interp_core.models.subject import Subject
from interp_core.request import PatchRequest, request_from

log = logging.getLogger("patchbay")

BOUND: Any = "query-params"

# What is asked of which model about which clips: the sidebar.
MODEL, DEVICE, DTYPE, PART, PROBE = "model", "device", "dtype", "part", "probe"
CLIPS, KINDS, MAX_PAIRS, SKIP_BAD = "clips", "kinds", "pairs", "skip_bad"
PROMPTS, LABELS, SEED = "prompts", "labels", "seed"
# How it is patched: the form on the patching page.
SITE, HEAD, POSITIONS, ALIGN, ALPHAS = "site", "head", "positions", "align", "alphas"
CONTROLS, FLOW, METHOD = "controls", "flow", "method"
# What is looked at.
VIEW, KIND, PROMPT, MEASURE, STRENGTH = "view", "kind", "prompt", "measure", "strength"
LAYER, PAIR, ALPHA, ONLY_FLIPS, SCALE = "layer", "pair", "alpha", "flips", "scale"
TEXTS_OF_A_MODEL = (PROBE, CLIPS, KINDS, PROMPTS, LABELS, HEAD)
CHOICES_OF_A_MODEL = (PART, SITE, POSITIONS, CONTROLS, FLOW, KIND, PROMPT, LAYER, PAIR)
# The heads page: settings, what is looked at, and keys without a name in the URL.
HEADS_LABEL, HEADS_PER_CLASS, HEADS_GROUPS, HEADS_HELD_OUT = "heads_label", "heads_n", "heads_groups", "heads_held_out"
HEADS_DRAWS, HEADS_PROBES, HEADS_ABLATE, HEADS_SEED = "heads_draws", "heads_probes", "heads_ablate", "heads_seed"
HEADS_VIEW, HEADS_KIND, HEADS_AT, HEADS_SIDE = "heads_view", "heads_kind", "heads_at", "heads_side"
HEADS_A, HEADS_B = "heads_a", "heads_b"
HEADS_MAP, HEADS_USED, HEADS_PLANE = "heads_map", "heads_used", "heads_plane"
HEADS_OTHER, HEADS_DIFFERENCE = "heads_other", "heads_difference"
# The compare page: settings, what is looked at, and keys without a name in the URL.
CMP_DONOR, CMP_PATCH, CMP_STAGES, CMP_MAPS = "donor", "cmp_patch", "cmp_stages", "cmp_maps"
CMP_LABEL, CMP_DOMAIN, CMP_BONAFIDE = "cmp_label", "cmp_domain", "cmp_bonafide"
CMP_REVERSE, CMP_SKIP = "cmp_reverse", "cmp_skip_null"
CMP_REP, CMP_ESTIMATE, CMP_POINT, CMP_ARM = "cmp_by", "cmp_estimate", "cmp_at", "cmp_transplant"
CMP_VIEW, CMP_CLIP = "cmp_view", "cmp_clip"
CMP_MAP, CMP_DIAGONAL, CMP_EFFECT, CMP_RATES = "cmp_map", "cmp_diagonal", "cmp_effect", "cmp_rates"
CMP_TABLE, CMP_CLIPS, CMP_PLAYER, CMP_BESIDE = "cmp_table", "cmp_clips", "cmp_player", "cmp_beside"
CMP_MEASURE, CMP_SWEEPS, CMP_CLASS, CMP_BREAK = "cmp_measure", "cmp_sweeps", "cmp_class", "cmp_break"
# The pages Neurons and Sign flip: settings, what is looked at, and keys without a name in the URL.
NEU_SITE, NEU_TASK, NEU_DOMAIN, NEU_KIND, NEU_SCORE = "neu_site", "neu_task", "neu_domain", "neu_kind", "neu_score"
NEU_TRAIN, NEU_ID, NEU_OOD, NEU_DRAWS, NEU_REFITS = "neu_train", "neu_id", "neu_ood", "neu_draws", "neu_refits"
NEU_MEASURE, NEU_K, NEU_SET, NEU_CLIP, NEU_SEED = "neu_measure", "neu_k", "neu_set", "neu_clip", "neu_seed"
NEU_CURVE, NEU_TRADE, NEU_TABLE, NEU_CLIPS, NEU_PLAYER = (
    "neu_curve",
    "neu_trade",
    "neu_table",
    "neu_clips",
    "neu_player",
)
SF_TARGET, SF_TOPK, SF_FRAMES, SF_KIND, SF_REDUCE = "sf_target", "sf_topk", "sf_frames", "sf_kind", "sf_reduce"
SF_DRAWS, SF_SEED, SF_PROXY, SF_FLIPPED, SF_AT, SF_CLIP = (
    "sf_draws",
    "sf_seed",
    "sf_proxy",
    "sf_layer",
    "sf_at",
    "sf_clip",
)
SF_MATRIX, SF_CURVE, SF_CLIPS, SF_PLAYER, SF_ONLY = "sf_matrix", "sf_curve", "sf_clips", "sf_player", "sf_only"
# Keys without a name in the URL.
PLAYER, CURVE, FLIP_TABLE, PAIR_TABLE = "player", "curve", "flip_table", "pair_table"
APPROVED, WAS_ACTIVE, REQUEST = "approved_models", "jobs_were_active", "request"
PAGE, SHARED = "page", "shared_between_pages"

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")


# ---- what the server was started with ------------------------------------------------------------------------------


def roots() -> list[Path]:
    """Folders that manifests and their clips must lie in: PATCHBAY_ROOTS, or the current folder and the assets."""
    named = os.environ.get("PATCHBAY_ROOTS")
    chosen = [Path(part) for part in named.split(os.pathsep) if part] if named else [Path.cwd()]
    return [path.expanduser().resolve() for path in (*chosen, bundled.ASSETS)]


def most_pairs() -> int:
    """The most pairs of a kind that the dashboard takes: PATCHBAY_MAX_PAIRS."""
    return int(_number("PATCHBAY_MAX_PAIRS", 1000))


def clip_limits() -> ClipLimits:
    """The longest clip that the dashboard takes: PATCHBAY_MAX_SECONDS."""
    return ClipLimits(max_seconds=_number("PATCHBAY_MAX_SECONDS", ClipLimits().max_seconds))


def runs_folder() -> Path | None:
    """Where runs are kept, PATCHBAY_RUNS or ./runs; None where nothing can be written."""
    folder = Path(os.environ.get("PATCHBAY_RUNS", "runs")).expanduser().resolve()
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
    return Engine(cache_bytes=default_cache_bytes(), roots=roots(), limits=clip_limits())


def warm_up() -> None:
    """Open the first bundled model and what it shows, so that the first visitor need not wait; for a thread."""
    try:
        for name in bundled.demos():
            engine().open(name)
            if saved := saved_run(name):
                saved.index  # noqa: B018 - laid out and kept
            engine().manifest(PatchRequest(name))
            return
    except InterpError as error:
        log.warning("warming up: %s", error)


# ---- the selection ---------------------------------------------------------------------------------------------------


def shared(widget: Callable[..., Any], label: str, options: Sequence[str], *, key: str, **settings: Any) -> Any:
    """Call a widget that stands on several pages: what was selected on one is selected on the next.

    Streamlit tells apart the widgets of two pages also where they have one key, so the value is carried over here.
    """
    kept: dict[str, tuple[Any, Any]] = st.session_state.setdefault(SHARED, {})
    here = st.session_state.get(PAGE)
    page, value = kept.get(key, (here, None))
    if page != here and value in options:
        st.session_state[key] = value
    chosen = widget(label, options, key=key, bind=BOUND, **settings)
    kept[key] = here, chosen
    return chosen


def select_kind_with(pair_of_kind: Mapping[str, str]) -> Callable[[], None]:
    """For a kind's `on_change`: another kind has other pairs, so one of its own is selected."""

    def changed() -> None:
        pair = pair_of_kind.get(st.session_state[KIND])
        if pair is not None:
            st.session_state[PAIR] = pair

    return changed


# ---- models ----------------------------------------------------------------------------------------------------------


def may_open(name: str) -> bool:
    """Whether this visitor asked for the model: a link alone must not make the server load or fetch one."""
    return name in bundled.demos() or name in st.session_state.get(APPROVED, ())


def approve(name: str | None) -> None:
    """Note that the visitor named the model, or pressed the button to open it."""
    if name:
        st.session_state[APPROVED] = {*st.session_state.get(APPROVED, ()), name}


def opened(request: PatchRequest) -> Subject | None:
    """The model of a request if it is open already and this visitor asked for it; nothing is opened for it."""
    return engine().opened(request) if may_open(request.model) else None


def forget_choices() -> None:
    """Forget what was chosen for another model: its words, sites and pairs may mean nothing to this one."""
    for key in CHOICES_OF_A_MODEL:
        st.session_state.pop(key, None)
    for key in TEXTS_OF_A_MODEL:
        st.session_state[key] = ""  # a value that is gone would come back from the URL


def refill(key: str, default: str) -> None:
    """Call before a text widget: what was emptied is the default again."""
    if st.session_state.get(key) == "":
        st.session_state[key] = default


def require_model(request: PatchRequest, *, answers: bool = True) -> Subject:
    """Open the model of a request, or stop the page with a sentence that says what to do; `answers` says that the page
    needs a model that answers something."""
    if not may_open(request.model):
        st.warning("This link names a model that does not ship with Patchbay. Open it only if you trust it.")
        st.code(request.model, language=None)
        st.button("Open this model", on_click=approve, args=(request.model,), type="primary")
        st.stop()
    known = engine().opened(request) is not None
    with st.spinner("Fitting the probe …" if known and request.probe else "Opening the model …"):
        subject = engine().subject(request) if known else engine().open(request.model, request.device, request.dtype)
    if not known:
        st.rerun()  # the sidebar can now say what this model has to choose from
    if answers and subject.needs_probe:
        st.info(
            f"{md(Path(request.model).name)} has no classifier, so it answers nothing by itself. Name a label column "
            "under *Probe* in the sidebar: a logistic probe of the last layer becomes its readout."
        )
        st.stop()
    return subject


# ---- requests --------------------------------------------------------------------------------------------------------


def default_request(model: str) -> PatchRequest:
    """What is asked of a model unless somebody changes it: for a demo the settings of the run that ships with it."""
    if saved := saved_run(model):
        made = request_from(saved.result.config)
        return replace(made, model=model, manifest=None, device="auto", dtype="auto")  # of this machine
    demo, settings = engine().demo(model), PatchSettings()
    asked = PatchRequest(model, settings=settings)
    if demo is None:
        return asked
    settings = replace(
        settings,
        labels=demo.labels or settings.labels,
        prompts=tuple(text for _, text in demo.prompts) or settings.prompts,
        site=demo.about.get("site", settings.site),
        positions=demo.about.get("positions", settings.positions),
    )
    return replace(
        asked,
        demo_prompts=not demo.prompts,
        kinds=demo.about.get("kinds", asked.kinds),
        probe=demo.about.get("probe", ""),
        settings=settings,
    )


def prompt_names(model: str, prompts: tuple[str, ...]) -> list[str]:
    """A short name for each prompt: the bundled ones have names, others are counted."""
    demo = engine().demo(model)
    known = {text: name for name, text in demo.prompts} if demo else {}
    return [known.get(text, f"question {number}") for number, text in enumerate(prompts, 1)]


def short_of(names: list[str], chosen: str | None) -> int:
    """The number of a chosen prompt name; 0 where it is none of them."""
    return names.index(chosen) if chosen in names else 0


# ---- the run on show -------------------------------------------------------------------------------------------------


def job_of(request: PatchRequest) -> Job[PatchingResult] | None:
    """The job of exactly this request, in whatever state."""
    return engine().jobs.get(engine().resolve(request).key)


def current_result(request: PatchRequest) -> Shown | None:
    """The run to show for a request: computed by this server, kept in the runs folder, or shipped with the demo."""
    asked = engine().resolve(request)
    job = engine().jobs.get(asked.key)
    if job is not None and job.result is not None:
        return Shown(f"job {job.key}", job.result, "job", _kept(asked), ())
    if folder := _kept(asked):
        return _opened(folder, "folder", asked)
    saved = saved_run(request.model)
    own_clips = request.manifest is None
    return replace(saved, differences=differences(asked, saved.result.config)) if saved and own_clips else None


def saved_run(model: str) -> Shown | None:
    """The run that ships with a bundled model, if it is whole."""
    demo = engine().demo(model)
    if demo is None or demo.run is None:
        return None
    try:
        return _opened(demo.run, "shipped", None)
    except InterpError as error:
        log.warning("the run that ships with %s: %s", model, error)
        return None


def _kept(asked: PatchRequest) -> Path | None:
    """The finished run of this request in the runs folder: the engine names folders after the request's key."""
    folder = runs_folder()
    found = sorted(folder.glob(f"*-{asked.key}/patching_config.json")) if folder else []
    return found[0].parent if found and _finished(found[0]) else None


def _finished(config: Path) -> bool:
    try:
        return bool(json.loads(config.read_text("utf-8")).get("finished"))
    except (OSError, ValueError, AttributeError):
        return False


def _opened(folder: Path, source: Any, asked: PatchRequest | None) -> Shown | None:
    config = folder / "patching_config.json"
    if not _finished(config):
        return None
    key = f"{folder} {config.stat().st_mtime_ns}"
    result = _read_run(key, str(folder))
    return Shown(key, result, source, folder, differences(asked, result.config) if asked else ())


@st.cache_resource(max_entries=8, show_spinner="Reading the run …")
def _read_run(key: str, folder: str) -> PatchingResult:
    return engine().open_run(Path(folder))


# ---- clips and pairs -------------------------------------------------------------------------------------------------


def clips_by_id(request: PatchRequest) -> dict[str, Clip]:
    """The clips of a request."""
    with st.spinner("Reading the clips …"):
        return {clip.clip_id: clip for clip in engine().manifest(request).clips}


def pair_of(line: Mapping[str, Any], clips: Mapping[str, Clip]) -> Pair:
    """The pair that a line of a run's pair list describes, with the clips as they are now."""
    missing = [line[side] for side in ("recipient", "donor") if line[side] not in clips]
    if missing:
        raise InterpError(
            f"the run's clip {missing[0]!r} is not in the manifest; choose the manifest that it was run on."
        )
    a, b = clips[line["recipient"]], clips[line["donor"]]
    return Pair(line["pair_id"], line["kind"], a, b, line["target"], line["column"])


def base_job_key(request: PatchRequest, digest: str) -> str:
    """Names the job that asks a model about every clip of a manifest."""
    named = [request.model, request.device, request.dtype, digest, request.settings.prompts, request.settings.labels]
    return "base-" + hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


def base_answers(request: PatchRequest, shown: Shown | None) -> pd.DataFrame | None:
    """What the model answers unedited, one row a clip and prompt (clip_id, prompt, prediction), as far as it is known.

    From the job that asked about every clip, else from the run on show, which knows the clips of its pairs.
    """
    asked = engine().resolve(request)
    job = engine().jobs.get(base_job_key(asked, engine().manifest(request).digest))
    if job is not None and job.result is not None:
        return job.result[["clip_id", "prompt", "prediction"]]
    if shown is None or shown.result.prompts != asked.settings.prompts:
        return None
    return _answers_of(shown.key, shown.result)


@st.cache_data(max_entries=8, show_spinner=False)
def _answers_of(key: str, _result: PatchingResult) -> pd.DataFrame:
    records = _result.records[_result.records["condition"] == "matched"]
    sides = [
        records[["recipient", "prompt", "base_prediction"]].set_axis(["clip_id", "prompt", "prediction"], axis=1),
        records[["donor", "prompt", "donor_prediction"]].set_axis(["clip_id", "prompt", "prediction"], axis=1),
    ]
    return pd.concat(sides, ignore_index=True).dropna().drop_duplicates(["clip_id", "prompt"])
