"""The settings of a run as widgets: text from a person or a link in, a checked request out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import streamlit as st

from components import state
from components.words import md
from interp_core.engine import MOST_ANSWERS
from interp_core.errors import InterpError
from interp_core.experiments.controls import CONTROLS
from interp_core.experiments.plan import FLOWS, METHODS, fitting
from interp_core.experiments.positions import Align
from interp_core.models.labels import EMOTIONS
from interp_core.models.subject import Subject
from interp_core.request import PatchRequest
from interp_core.sites import Kind

SITES: tuple[Kind, ...] = ("resid_post", "attn_out", "mlp_out", "head_out", "cross_out", "cross_head_out")
POSITIONS = ("audio", "question", "last", "all")
ALIGNS: tuple[Align, ...] = ("truncate", "resample")


def numbers(text: str, name: str) -> tuple[float, ...]:
    """`1, 0.5` as numbers. Errors: InterpError for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InterpError(f"{name} {text!r} is no list of numbers like 1, 0.5, 0.25.") from error


def words(text: str) -> tuple[str, ...]:
    """`happy, sad` as words, without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def pair_limit(text: str) -> int | dict[str, int]:
    """`100` or `prosody=100, semantic=50`. Errors: InterpError, also beyond what the server allows."""
    parts = [part.partition("=") for part in text.split(",")]
    try:
        limits = {name.strip(): int(count) for name, sign, count in parts if sign}
        limit: int | dict[str, int] = limits if len(limits) == len(parts) else int(text)
    except ValueError as error:
        raise InterpError(f"{text!r} pairs: give a number like 100, or prosody=100, semantic=50.") from error
    most = state.most_pairs()
    if max(limit.values() if isinstance(limit, dict) else [limit]) > most:
        raise InterpError(f"{text} pairs a kind are more than the {most} that this server takes (PATCHBAY_MAX_PAIRS).")
    return limit


def pair_limit_text(limit: int | Mapping[str, int]) -> str:
    """What `pair_limit` reads back."""
    return str(limit) if isinstance(limit, int) else ", ".join(f"{name}={count}" for name, count in limit.items())


def question(request: PatchRequest, subject: Subject | None) -> PatchRequest:
    """The widgets for what is asked of the model: the questions and the words that it may answer."""
    default, prompts = request.settings, request.settings.prompts
    own = subject.default_prompts if subject is not None and request.demo_prompts else ()
    if subject is not None and not subject.asks:
        st.caption("This model is asked nothing: it hears the recording and names one of its classes.")
        prompts = ("",)
    else:
        state.refill(state.PROMPTS, "\n".join(own or prompts))
        typed = st.text_area(
            "Questions, one a line",
            "\n".join(own or prompts),
            key=state.PROMPTS,
            bind=state.BOUND,
            height=150,
            help="Each is run on the same pairs: the same patch under another question is a control.",
        )
        prompts = tuple(line.strip() for line in (typed or "").splitlines() if line.strip()) or own or prompts
    answers = subject.answers if subject is not None and default.labels == EMOTIONS else ()
    few = answers if len(answers) <= MOST_ANSWERS else ()
    usual = few or (() if answers else default.labels)
    state.refill(state.LABELS, ", ".join(usual))
    labels = words(
        st.text_input(
            "Answers",
            ", ".join(usual),
            key=state.LABELS,
            bind=state.BOUND,
            placeholder="those of its classes that the clips name",
            help="Only these compete: words at the first answer token, each one token of its own, or classes.",
        )
        or ""
    )
    seed = st.number_input("Seed", 0, 2**31 - 1, default.seed, key=state.SEED, bind=state.BOUND)
    settings = replace(default, prompts=prompts, labels=labels or EMOTIONS, seed=int(seed))
    return replace(request, demo_prompts=False, settings=settings)


def patching_form(request: PatchRequest, subject: Subject) -> tuple[PatchRequest, bool]:
    """The form for how it is patched. Returns the request with it, and whether Run was pressed."""
    default = request.settings
    sites = [site for site in SITES if site in subject.kinds]
    spans = [span for span in POSITIONS if span in subject.spans]
    fit_controls, fit_flows = fitting(subject)
    usual = subject.default_site if default.site == "resid_post" else default.site
    with st.form("patching", border=False):
        left, right = st.columns(2)
        with left:
            site = st.selectbox(
                "Site",
                sites,
                index=sites.index(usual),
                key=state.SITE,
                bind=state.BOUND,
                help="resid_post is the residual stream behind a block; the others are what attention, the MLP or the "
                "heads add to it. All positions of an encoder's residual stream give B's answer by construction.",
            )
            head = st.text_input(
                "Head",
                "" if default.head is None else str(default.head),
                key=state.HEAD,
                bind=state.BOUND,
                placeholder="all heads",
                help="Only for sites of heads: one head, counted from 0.",
            )
            alphas = st.text_input(
                "Strengths alpha",
                ", ".join(f"{alpha:g}" for alpha in default.alphas),
                key=state.ALPHAS,
                bind=state.BOUND,
                help="(1 - alpha) · A + alpha · B. Several give a dose-response curve; controls run at the first.",
            )
        with right:
            positions = st.selectbox(
                "Positions",
                list(dict.fromkeys((*spans, default.positions))),
                index=list(dict.fromkeys((*spans, default.positions))).index(default.positions),
                key=state.POSITIONS,
                bind=state.BOUND,
                accept_new_options=True,
                help="Which positions of A are replaced. Type 0.5-1.2 for a window in seconds.",
            )
            align = st.selectbox(
                "Where A and B differ in length",
                ALIGNS,
                index=ALIGNS.index(default.align),
                key=state.ALIGN,
                bind=state.BOUND,
                help="truncate replaces as far as both reach; resample stretches B over all of A.",
            )
            method = st.selectbox(
                "Method",
                METHODS,
                index=METHODS.index(default.method),
                key=state.METHOD,
                bind=state.BOUND,
                help="fast takes the cheapest route that is exact for this model; reference is one forward a layer.",
            )
        controls = _several("Controls", fit_controls, default.controls, state.CONTROLS)
        flow = _several("Information flow", fit_flows, default.flow, state.FLOW)
        asked = st.form_submit_button("Run on all pairs", type="primary", icon=":material/play_arrow:")
    chosen = replace(
        default,
        site=site,
        head=_head(head or ""),
        positions=positions or default.positions,
        align=align,
        alphas=numbers(alphas or "1", "strengths"),
        controls=tuple(c for c in CONTROLS if c in controls),
        flow=tuple(f for f in FLOWS if f in flow),
        method=method,
    )
    chosen.check()
    return replace(request, settings=chosen), asked


def _several(label: str, options: Sequence[str], default: Sequence[str], key: str) -> list[str]:
    if not options:
        return []
    return st.multiselect(label, options, [o for o in default if o in options], key=key, bind=state.BOUND)


def _head(text: str) -> int | None:
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InterpError(f"head {text!r} is no number; count heads from 0, or leave it empty for all.") from error


def summary(request: PatchRequest) -> str:
    """The settings of a run in one line of markdown."""
    s = request.settings
    site = f"{s.site} head {s.head}" if s.head is not None else s.site
    alphas = ", ".join(f"{alpha:g}" for alpha in s.alphas)
    return (
        f"{md(site)} · {md(s.positions)} positions · alpha {alphas} · {len(s.prompts)} questions · {md(request.kinds)}"
    )
