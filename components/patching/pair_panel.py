"""One pair on the patching page: both recordings, its label logits at the selected layer, and a patch by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import streamlit as st
from matplotlib.figure import Figure
from streamlit.delta_generator import DeltaGenerator

from components import defaults, server, state
from components.charts import clicks
from components.charts.answers import label_logits
from components.charts.words import shortened
from components.patching import blind, charts, in_words, later, stated, time_map, time_window
from components.patching.answers import clips_by_id, pair_of
from components.patching.results import Indexed, indexed
from components.player import clip_audio
from components.player.ab_player import Playlist, Region, ab_player
from components.shown import Shown
from components.widgets import choice, choosing, folded
from components.words import answer_badge, md
from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.errors import InterpError
from interp_core.experiments.example import Sound
from interp_core.experiments.patching.experiment import patch_by_hand
from interp_core.experiments.patching.metrics import summarise
from interp_core.experiments.patching.one_pair import CurvePoint, flipped, pair_figure
from interp_core.experiments.patching.positions import time_window as seconds_of
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.subject import Subject

NAME_LETTERS = 16  # of a clip, so that its labels still have room above its picture
NEW_LINE = "\n"
DOSES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


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
    head: tuple[int, int] | None = None


def draw(
    shown: Shown,
    request: PatchRequest,
    subject: Subject,
    look: Look,
    *,
    verdict: DeltaGenerator,
    player: DeltaGenerator,
) -> None:
    """The selected pair: both recordings, and its label logits at the selected layer.

    Args:
        verdict, player: where the answers and the recordings stand; the rest is drawn here.
    """
    made, index = run_request(shown, request), indexed(shown)
    pair = pair_of(index.lines[look.pair_id], clips_by_id(made))
    state.keep_window_with(look.pair_id)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
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
        window = time_window.choose()
    alpha = round(alpha, 2)
    replaced = time_window.read(window, made, pair, look.prompt) if window else None
    positions = window.positions if window and window.alone and replaced else None
    with player:
        hatched = replaced.seconds if positions and replaced else seconds_of(made.positions)
        _player(pair, subject, hatched, window.seconds if window else None, _flips(index, look), look.pair_id)
    blind.draw(pair, subject)
    kept = index.outcome(look.pair_id, look.kind, look.prompt, alpha, look.layer) if positions is None else None
    if kept is None:
        swept = _by_hand(made, pair, look, (alpha,), positions)
        outcome, every_layer = swept.iloc[list(swept.index).index(look.layer)], swept["patched_logits"].tolist()
    else:
        outcome, every_layer = kept, index.patched_logits(look.pair_id, look.kind, look.prompt, alpha)
    with verdict:
        how = f"alpha {alpha:g}" + (f", {positions} s" if positions else "")
        _verdict(outcome, look, index.donor, how if kept is None else "")
    _logits(shown, outcome, every_layer)
    time_map.of_pair(
        made, index, pair, prompt=look.prompt, alpha=alpha, layer=look.layer, marked=window.positions if window else ""
    )
    later.of_clip(made, subject, index, pair.recipient, look.prompt)
    stated.of_clip(made, subject, pair.recipient, look.prompt)
    _pair_dose(shown, made, pair, look, positions)
    asked = replace(made, positions=positions) if positions else made
    in_words.draw(asked, pair, subject, index.layers, look.layer, look.prompt, alpha)


def on_paper(shown: Shown, request: PatchRequest, look: Look, row: pd.Series) -> Callable[[], Figure] | None:
    """The selected pair as one figure, drawn when it is asked for; None where its clips are not there now.

    Args:
        row: what became of the pair at the place.
    """
    place = CurvePoint(look.kind, look.prompt, look.strength, look.layer)
    try:
        pair = pair_of(indexed(shown).lines[look.pair_id], clips_by_id(run_request(shown, request)))
    except InterpError:  # said where the pair is shown
        return None

    def drawn() -> Figure:
        a, b = (
            Sound(clip.clip_id, clip_audio.player_clip(clip, clip.clip_id, clip_audio.RATE).samples, clip_audio.RATE)
            for clip in (pair.recipient, pair.donor)
        )
        return pair_figure(shown.config, row, shown.result.metrics, place, a, b)

    return drawn


def clips_of(shown: Shown, request: PatchRequest) -> dict[str, Clip]:
    """The clips of the run on show as they are now; none where they cannot be read, which the pair's panel says."""
    try:
        return clips_by_id(run_request(shown, request))
    except InterpError:
        return {}


def run_request(shown: Shown, request: PatchRequest) -> PatchRequest:
    """The settings that the run on show was made with, on the model and clips that are open now."""
    return defaults.with_common(shown.request, request)


def _flips(index: Indexed, look: Look) -> Playlist:
    """The pairs that flip at the layer, to be heard one after the other."""
    rows = index.at_layer(look.kind, look.prompt, look.strength, look.layer)
    title = f"Pairs that flip at {'the embeddings' if look.layer == -1 else f'layer {look.layer:d}'}"
    return Playlist(title, "that flip", rows.index[flipped(rows)].tolist(), choosing(state.PAIR))


def _player(
    pair: Pair, subject: Subject, hatched: Region | None, marked: Region | None, flips: Playlist, pair_id: str
) -> None:
    def label(clip: Any) -> str:
        said = [clip.label(column) for column in ("prosody_label", "semantic_label")]
        named = [f"{what} {value}" for what, value in zip(("voice", "words"), said, strict=True) if value]
        return " · ".join([shortened(clip.clip_id, NAME_LETTERS), *named])

    a, b = (clip_audio.player_clip(clip, label(clip), subject.sample_rate) for clip in (pair.recipient, pair.donor))
    ab_player(
        a, b, key=state.PLAYER, window=hatched, region=marked, on_region=time_window.marked, playlist=flips,
        selected=pair_id,
    )  # fmt: skip


def _verdict(outcome: pd.Series, look: Look, donor: str, by_hand: str) -> None:
    where = "the embeddings" if look.layer == -1 else f"layer {look.layer:d}"
    flips = outcome["base_prediction"] != outcome["target"] == outcome["patched_prediction"]
    if flips:
        said = "the answer flips to the target"
    elif outcome["base_prediction"] == outcome["target"]:
        said = "A already answers the target"
    elif outcome["patched_prediction"] != outcome["base_prediction"]:
        said = "the answer changes, but not to the target"
    else:
        said = "the answer stays"
    target = md(outcome["target"]) if said.endswith("target") else f"target {md(outcome['target'])}"
    of_a, of_b, patched = (outcome[f"{run}_prediction"] for run in ("base", "donor", "patched"))
    st.markdown(
        f"A :blue-badge[{md(of_a)}] → with {md(donor)} at {where} {answer_badge(patched, of_a, of_b)} "
        f"· B :orange-badge[{md(of_b)}]"
        f"{' · ' if state.presenting() else f'  {NEW_LINE}'}"
        f"**{said}** ({target}){' by hand: ' + md(by_hand) if by_hand else ''}"
    )


def _logits(shown: Shown, outcome: pd.Series, every_layer: Sequence[Sequence[float]]) -> None:
    scale = choice("Scale", ["logit", "probability"], key=state.SCALE, label_visibility="collapsed")
    figure = label_logits(
        shown.result.labels,
        outcome["base_logits"],
        outcome["patched_logits"],
        outcome["donor_logits"],
        outcome["target"],
        scale="probability" if scale == "probability" else "logit",
        room=every_layer,
    )
    clicks.show(
        figure,
        key="logits",
        alt=f"Label logits of A, of A after the patch, and of B: A answers {outcome['base_prediction']}, "
        f"B {outcome['donor_prediction']}; target {outcome['target']}.",
    )


def _by_hand(
    made: PatchRequest, pair: Pair, look: Look, alphas: tuple[float, ...], positions: str | None
) -> pd.DataFrame:
    """Records of this pair, swept now, by layer."""
    if positions:
        made = replace(made, positions=positions)
    with st.spinner("Patching this pair …"):
        return _swept(
            server.engine().key_of(made), pair.recipient.digest, pair.donor.digest, look.prompt, alphas, made, pair
        )


@st.cache_data(max_entries=512, show_spinner=False)
def _swept(
    key: str,
    a: str,
    b: str,
    prompt: int,
    alphas: tuple[float, ...],
    _request: PatchRequest,
    _pair: Pair,
) -> pd.DataFrame:
    return patch_by_hand(server.engine(), _request, _pair, prompt=prompt, alphas=alphas).set_index("layer")


def _pair_dose(shown: Shown, made: PatchRequest, pair: Pair, look: Look, positions: str | None) -> None:
    """The dose-response of this pair at the selected layer, on demand."""
    fold = folded("Dose-response of this pair", ":material/show_chart:", key=state.FOLD_DOSE)
    if not fold.open:
        return
    with fold:
        records = _by_hand(made, pair, look, DOSES, positions).reset_index()
        records = records[records["layer"] == look.layer]
        clusters = {clip.clip_id: clip.clip_id for clip in (pair.recipient, pair.donor)}
        metrics = summarise(records, shown.result.labels, clusters, draws=1)
        figure = charts.dose_response(metrics, look.layer, value="delta_logprob_target_mean", controls=())
        clicks.show(
            figure,
            key="pair_dose",
            alt=f"Change of the target's log-probability of pair {look.pair_id} against the strength alpha.",
        )
        turned = records[records["patched_prediction"] == pair.target]["alpha"]
        if pair.target == records["base_prediction"].iloc[0]:
            st.caption("A answers the target by itself.")
        elif len(turned):
            st.caption(f"From alpha {turned.min():g} on the answer is {md(pair.target)}.")
        else:
            st.caption(f"At no strength the answer is {md(pair.target)}.")
