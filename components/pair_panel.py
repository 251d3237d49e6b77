"""One pair on the patching page: both recordings, its label logits at the selected layer, and a patch by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import streamlit as st

from components import charts, clip_audio, state
from components.ab_player import Region, ab_player
from components.results import Shown
from components.words import md
from interp_core.data.pairs import Pair
from interp_core.experiments.flips import summarise
from interp_core.experiments.positions import time_window
from interp_core.models.subject import Subject
from interp_core.request import PatchRequest, request_from

DOSES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CHART_CONFIG = {"displaylogo": False, "toImageButtonOptions": {"format": "svg", "filename": "patchbay"}}


@dataclass(frozen=True)
class Look:
    """What is looked at: everything that the selection widgets returned in this run of the fragment."""

    kind: str
    prompt: int
    prompt_name: str
    view: str
    measure: str
    strength: float
    layer: int
    pair_id: str


def draw(shown: Shown, request: PatchRequest, subject: Subject, look: Look) -> None:
    """The selected pair: both recordings, and its label logits at the selected layer."""
    made = _run_request(shown, request)
    pair = state.pair_of(shown.index.lines[look.pair_id], state.clips_by_id(made))
    verdict = st.container()
    region = _player(pair, subject, made.settings.positions)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        alpha = st.slider(
            "Strength by hand",
            0.0,
            1.0,
            1.0,
            0.05,
            key=state.ALPHA,
            bind=state.BOUND,
            help="Patches this pair now: (1 - alpha) · A + alpha · B.",
        )
        inside = region is not None and st.toggle("only the marked region", key="only_region")
    alpha = round(alpha, 2)
    positions = f"{region[0]:.2f}-{region[1]:.2f}" if inside and region else None
    kept = shown.index.outcome(look.pair_id, look.kind, look.prompt, alpha, look.layer) if positions is None else None
    if kept is None:
        swept = _by_hand(shown, made, pair, look, (alpha,), positions)
        outcome = swept.iloc[list(swept.index).index(look.layer)]
    else:
        outcome = kept
    with verdict:
        _verdict(outcome, look, f"alpha {alpha:g}" + (f", {positions} s" if positions else "") if kept is None else "")
    _logits(shown, outcome)
    _pair_dose(shown, made, pair, look, positions)


def _run_request(shown: Shown, request: PatchRequest) -> PatchRequest:
    """The settings that the run on show was made with, on the model and clips that are open now."""
    made = request_from(shown.result.config)
    manifest = request.manifest if shown.source != "shipped" else None
    return replace(
        made,
        model=request.model,
        device=request.device,
        dtype=request.dtype,
        manifest=manifest,
        part=request.part,
        probe=request.probe,
    )


def _player(pair: Pair, subject: Subject, positions: str) -> Region | None:
    def label(clip: Any) -> str:
        said = [clip.label(column) for column in ("prosody_label", "semantic_label")]
        named = [f"{what} {value}" for what, value in zip(("voice", "words"), said, strict=True) if value]
        return " · ".join([clip.clip_id, *named])

    a, b = (clip_audio.player_clip(clip, label(clip), subject.sample_rate) for clip in (pair.recipient, pair.donor))
    return ab_player(a, b, key=state.PLAYER, window=time_window(positions)).region


def _verdict(outcome: pd.Series, look: Look, by_hand: str) -> None:
    where = "the embeddings" if look.layer == -1 else f"layer {look.layer}"
    flips = outcome["base_prediction"] != outcome["target"] == outcome["patched_prediction"]
    if flips:
        said = "the answer flips to the target"
    elif outcome["base_prediction"] == outcome["target"]:
        said = "A already answers the target"
    elif outcome["patched_prediction"] != outcome["base_prediction"]:
        said = "the answer changes, but not to the target"
    else:
        said = "the answer stays"
    st.markdown(
        f"A :blue-badge[{md(outcome['base_prediction'])}] → with B at {where} "
        f":violet-badge[{md(outcome['patched_prediction'])}] · B :orange-badge[{md(outcome['donor_prediction'])}]  \n"
        f"**{said}** ({md(outcome['target'])}){' by hand: ' + md(by_hand) if by_hand else ''}"
    )


def _logits(shown: Shown, outcome: pd.Series) -> None:
    scale = st.segmented_control(
        "Scale",
        ["logit", "probability"],
        default="logit",
        required=True,
        key=state.SCALE,
        bind=state.BOUND,
        label_visibility="collapsed",
    )
    figure = charts.label_logits(
        shown.result.labels,
        outcome["base_logits"],
        outcome["patched_logits"],
        outcome["donor_logits"],
        outcome["target"],
        scale="probability" if scale == "probability" else "logit",
    )
    st.plotly_chart(
        figure,
        key="logits",
        config=CHART_CONFIG,
        alt=f"Label logits: A answers {outcome['base_prediction']}, patched {outcome['patched_prediction']}, "
        f"B {outcome['donor_prediction']}; target {outcome['target']}.",
    )


def _by_hand(
    shown: Shown, made: PatchRequest, pair: Pair, look: Look, alphas: tuple[float, ...], positions: str | None
) -> pd.DataFrame:
    """Records of this pair, swept now, by layer."""
    if positions:
        made = replace(made, settings=replace(made.settings, positions=positions))
    with st.spinner("Patching this pair …"):
        return _swept(
            made.key, shown.weights_hash, pair.recipient.digest, pair.donor.digest, look.prompt, alphas, made, pair
        )


@st.cache_data(max_entries=512, show_spinner=False)
def _swept(
    key: str,
    weights: str,
    a: str,
    b: str,
    prompt: int,
    alphas: tuple[float, ...],
    _request: PatchRequest,
    _pair: Pair,
) -> pd.DataFrame:
    return state.engine().patch_pair(_request, _pair, prompt=prompt, alphas=alphas).set_index("layer")


def _pair_dose(shown: Shown, made: PatchRequest, pair: Pair, look: Look, positions: str | None) -> None:
    """The dose-response of this pair at the selected layer, on demand."""
    fold = st.expander("Dose-response of this pair", icon=":material/show_chart:", key="dose", on_change="rerun")
    if not fold.open:
        return
    with fold:
        records = _by_hand(shown, made, pair, look, DOSES, positions).reset_index()
        records = records[records["layer"] == look.layer]
        clusters = {clip.clip_id: clip.clip_id for clip in (pair.recipient, pair.donor)}
        metrics = summarise(records, shown.result.labels, clusters, draws=1)
        figure = charts.dose_response(metrics, look.layer, value="delta_logprob_target_mean", controls=())
        st.plotly_chart(
            figure,
            key="pair_dose",
            config=CHART_CONFIG,
            alt=f"Change of the target's log-probability of pair {look.pair_id} against the strength alpha.",
        )
        turned = records[records["patched_prediction"] == pair.target]["alpha"]
        if pair.target == records["base_prediction"].iloc[0]:
            st.caption("A answers the target by itself.")
        elif len(turned):
            st.caption(f"From alpha {turned.min():g} on the answer is {md(pair.target)}.")
        else:
            st.caption(f"At no strength the answer is {md(pair.target)}.")
