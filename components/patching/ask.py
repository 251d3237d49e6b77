"""What the pages Patching and Pairs ask in the sidebar: which pairs, which question, which answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from components import defaults, form, models, server
from components.guard import show
from interp_core.errors import InterpError
from interp_core.experiments.patching.experiment import resolve
from interp_core.experiments.patching.request import DEFAULT_MAX_PAIRS, PatchRequest
from interp_core.request import Request

BY_HAND, BY_LABELS, QUESTION = ("pairs",), ("kinds", "max_pairs"), ("prompts", "labels")
IN_SIDEBAR = (*BY_HAND, *BY_LABELS, *QUESTION)


def draw(base: Request) -> PatchRequest:
    """Draw the sections and return what is asked; what a model can be asked is known once it is open."""
    usual = defaults.usual(defaults.with_common(PatchRequest(), base))
    subject = models.opened(base)
    if subject is None or (subject.needs_probe and not base.probe and not _has_own_probe(base)):
        return usual
    try:
        usual = fill(usual)
    except InterpError:
        return usual  # what is wrong with it stops the page, which says so
    with st.sidebar:
        with st.expander("Pairs", icon=":material/compare_arrows:"):
            pairs = form.fields(usual, BY_HAND, beside=1)
            if pairs.request.pairs:
                st.caption("They are all of the run; emptied, pairs are built from labels again.")
                pairs = replace(pairs, request=replace(pairs.request, kinds="", max_pairs=DEFAULT_MAX_PAIRS))
            else:
                pairs = form.fields(usual, BY_LABELS, beside=1)
        with st.expander("Question", icon=":material/quiz:"):
            if subject.asks:
                asked = form.fields(pairs.request, QUESTION, beside=1)
            else:
                st.caption("This model is asked nothing: it hears the recording and names one of its classes.")
                asked = form.fields(pairs.request, ("labels",), beside=1)
        faults = [*pairs.faults, *asked.faults]
        request = asked.request
        if fault := _too_many(request.max_pairs):
            faults.append(fault)
            request = replace(request, max_pairs=usual.max_pairs)
        for fault in faults:
            show(fault)
    return request


def fill(request: PatchRequest) -> PatchRequest:
    """With everything that a request leaves open: a demo's own words, the model's, or the default ones."""
    return resolve(server.engine(), request)


def _has_own_probe(base: Request) -> bool:
    demo = server.engine().demo(base.model)
    return demo is not None and bool(demo.probe)


def _too_many(limit: int | Mapping[str, int]) -> str:
    most = server.most_pairs()
    asked = limit if isinstance(limit, int) else max(limit.values())
    if asked <= most:
        return ""
    return f"{asked} pairs a kind are more than the {most} that this server takes (PATCHBAY_MAX_PAIRS)."
