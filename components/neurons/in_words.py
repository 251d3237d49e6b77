"""The selected clip's answer in words with the neurons and without them."""

from __future__ import annotations

import streamlit as st

from components import defaults, edited_answer, server, state
from components.shown import Shown
from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.experiments.neurons.by_hand import answer_without
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.words import best_neurons
from interp_core.experiments.wording import Written
from interp_core.models.subject import Subject

REPLACED = {
    "mean": "replaced by their means over the training clips",
    "zero": "replaced by zero",
    "resample": "replaced by their values in the training clip that the run drew for this clip",
    "flip": "multiplied by -1",
}


def draw(shown: Shown, asked: AblateRequest, subject: Subject, clip: Clip, ranked: str, k: int) -> None:
    """The fold, for the K neurons that are best for the domain or for the task."""
    request = defaults.with_common(shown.request, asked)
    kind, site = shown.result.report["kind"], shown.result.report["site"]
    neurons = best_neurons(shown.result.scores, ranked, k)
    edited_answer.fold(
        subject,
        (state.NEU_WORDS, state.NEU_TOKENS, state.NEU_DURING),
        title="The clip's answer in words",
        edited=f"without {k} neurons of {site}",
        about=f"The {k} neurons of {site} that are best for the {ranked} are {REPLACED[kind]}, where the recording is.",
        help="Off: they are replaced over the recording alone. On: at every word that is written, too.",
        write=lambda n, during: _written(
            (shown.key, server.engine().key_of(request)), clip.digest, neurons, n, during, request, clip
        ),
    )  # fmt: skip


@st.cache_data(max_entries=256, show_spinner=False)
def _written(
    key: tuple[str, str],
    clip: str,
    neurons: tuple[int, ...],
    n_tokens: int,
    during: During,
    _request: AblateRequest,
    _clip: Clip,
) -> tuple[Written, Written]:
    """`key` and the digest name the run, the model and the clip."""
    return answer_without(server.engine(), _request, _clip, neurons, n_tokens=n_tokens, during=during)
