"""The selected clip's answer in words at alpha 0 and at the selected alpha."""

from __future__ import annotations

from typing import Any

import streamlit as st

from components import edited_answer, server, state
from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.experiments.steering.by_hand import answer_steered
from interp_core.experiments.steering.request import SteerRequest
from interp_core.experiments.steering.vectors import SteeringVectors
from interp_core.experiments.wording import Written
from interp_core.models.subject import Subject


def draw(
    named: tuple[Any, ...],
    request: SteerRequest,
    vectors: SteeringVectors,
    subject: Subject,
    clip: Clip,
    *,
    label: str,
    layer: int,
    alpha: float,
    prompt: int,
) -> None:
    """The fold; `named` names the run, the model, the clip, label, layer and question."""
    place = "at the recording's positions" if request.positions == "audio" else "at the last position"
    edited_answer.fold(
        subject,
        (state.ST_WORDS, state.ST_TOKENS, state.ST_DURING),
        title="The clip's answer in words",
        edited=f"alpha {alpha:g}, {label} behind layer {layer}",
        about=f"{alpha:g} times the vector of {label} is added behind layer {layer}, {place}; alpha 0 is the answer as "
        "it is.",
        help=f"Off: the vector is added {place} alone. On: at every word that is written, too.",
        write=lambda n, during: _written(
            named, alpha, n, during, request, vectors, clip, label, layer, prompt
        ),
    )  # fmt: skip


@st.cache_data(max_entries=256, show_spinner=False)
def _written(
    named: tuple[Any, ...],
    alpha: float,
    n_tokens: int,
    during: During,
    _request: SteerRequest,
    _vectors: SteeringVectors,
    _clip: Clip,
    _label: str,
    _layer: int,
    _prompt: int,
) -> tuple[Written, Written]:
    return answer_steered(
        server.engine(), _request, _vectors, _clip, label=_label, layer=_layer, alpha=alpha, n_tokens=n_tokens,
        prompt=_prompt, during=during,
    )  # fmt: skip
