"""One clip by hand on the Steering page: any recording at hand, a strength that acts at once, and the player."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from components import defaults, export, server, state
from components.charts import clicks
from components.clips import owner
from components.patching.answers import prompt_names
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.shown import Shown
from components.steering import charts as steering_charts
from components.steering import in_words
from components.widgets import OF_CLIPS, choice, choosing, chosen_of, picking_table, stepped
from components.words import answer_badge, md, option
from interp_core.data.clips import Clip
from interp_core.experiments.facts import signature
from interp_core.experiments.steering.by_hand import ByHand, doses, steer_by_hand
from interp_core.experiments.steering.request import SteerRequest
from interp_core.experiments.steering.run import SteeringResult
from interp_core.experiments.steering.vectors import SteeringVectors
from interp_core.models.subject import Subject

OF_THE_RUN = "held-out clips"


def draw(shown: Shown, asked: SteerRequest, subject: Subject, label: str, layer: int) -> float:
    """Choose a clip and a strength, hear the one and see the other; the strength."""
    result: SteeringResult = shown.result
    settings = result.config["settings"]
    source = _source()
    clips = _clips(asked, source)
    chosen = _choose(result, clips, source, label, layer)
    steps = [f"{one:g}" for one in doses(settings["alphas"])]
    helps = ("weaker", "stronger")
    first = f"{float(settings['control_alpha']):g}"
    names = [option(name) for name in prompt_names(str(result.config["model"]["id"]), tuple(settings["prompts"]))]
    prompt = 0
    if len(names) > 1:
        prompt = names.index(choice("Question", names, key=state.ST_PROMPT, label_visibility="collapsed"))
    alpha = float(stepped("Strength alpha", steps, first, key=state.ST_ALPHA, helps=helps, name="st"))
    if chosen is None:
        st.info("There is no clip here that can be steered: choose another source of clips.")
        return alpha
    with st.spinner("Steering …"):
        request = defaults.with_common(shown.request, asked)
        named = (shown.key, subject.key, chosen.digest, label, layer, prompt)
        made = _steered(named, request, result.vectors, chosen, label, layer, prompt)
    st.markdown(_verdict(made, chosen, label, alpha))
    clicks.show(
        steering_charts.clip_answers(made, label, alpha), key=state.ST_ANSWERS,
        alt=f"Probability of every answer, as it is and with {alpha:g} times the vector of {label}.",
    )  # fmt: skip
    ab_player(clip_audio.player_clip(chosen, chosen.clip_id, subject.sample_rate), key=state.ST_PLAYER)
    curve = steering_charts.clip_curve(made, label, alpha)
    clicks.show(
        curve, key=state.ST_LIVE,
        alt=f"Probability of {label} by strength, beside {len(made.random)} random vectors.",
    )  # fmt: skip
    title = f"{chosen.clip_id}: the vector of {label} behind layer {layer}, by strength"
    asked_as = [f"question {names[prompt]}"] if len(names) > 1 else []
    signed = partial(signature, shown.config, *asked_as, f"n = 1 clip, {len(made.random)} random vectors, no interval")
    name = export.file_name(result.model_name, "steering", chosen.clip_id, label)
    export.chart(export.Drawn(curve, title, signed, name), key=state.ST_LIVE)
    in_words.draw(named, request, result.vectors, subject, chosen, label=label, layer=layer, alpha=alpha, prompt=prompt)
    return alpha


def _source() -> str:
    """Whose clips are steered: those of the run, or a collection of own recordings; its name."""
    own = {option(one.name): str(one.manifest) for one in owner.visible() if len(one.table())}
    asked = st.session_state.get(state.ST_OF) or st.query_params.get(state.ST_OF, "")
    if asked not in ("", OF_THE_RUN, *own):
        st.warning(
            f"The link asks for clips of {md(asked)}, which are recordings of somebody else: only the browser that "
            "made them sees them. Below are clips of the run."
        )
    if not own:
        return OF_THE_RUN
    chosen = st.selectbox("Clips", [OF_THE_RUN, *own], key=state.ST_OF, bind=state.BOUND, width=230)
    return own.get(chosen or "", OF_THE_RUN)


def _clips(asked: SteerRequest, source: str) -> Mapping[str, Clip]:
    request = asked
    if source != OF_THE_RUN:
        owner.refuse_foreign(source)
        request = replace(asked, manifest=source, corpus="", max_clips=None, map_labels=(), skip_bad=True)
    return {clip.clip_id: clip for clip in server.engine().manifest(request).clips}


def _choose(result: SteeringResult, clips: Mapping[str, Clip], source: str, label: str, layer: int) -> Clip | None:
    """The clip to steer, from a table with sound; of the run the held-out ones, with what becomes of them."""
    ids = list(clips)
    rows: dict[str, Any] = {}
    if source == OF_THE_RUN:
        base = result.records[(result.records["condition"] == "base") & (result.records["prompt"] == 0)]
        own = {row["clip_id"]: row["answer"][0] for row in base.to_dict("records")}
        ids = [clip_id for clip_id in own if clip_id in clips]
        here = result.records[(result.records["condition"] == "vector") & (result.records["prompt"] == 0)]
        here = here[(here["label"] == label) & (here["layer"] == layer)].set_index("clip_id")
        least = {clip_id: _least(here.loc[clip_id], label, own[clip_id]) for clip_id in ids}
        ids.sort(key=lambda clip_id: float(least[clip_id]) if least[clip_id] not in ("", "–") else math.inf)
        rows = {
            "true": [clips[one].label(result.config["settings"]["task"]) or "" for one in ids],
            "as it is": [own[one] for one in ids],
            "moves at": [least[one] for one in ids],
        }
    table = pd.DataFrame({"clip": ids, "hear": clip_audio.urls(ids, clips), **rows})
    chosen = chosen_of(state.ST_CLIP, ids, ids)
    picking_table(
        table, ids, choosing(state.ST_CLIP), key=state.ST_CLIPS, height=180, column_config=clip_audio.hear(),
        caption="Click a clip to steer and hear it.", now=chosen, keys=OF_CLIPS,
        empty="There is no clip.", alt="Clips that can be steered, and the strength at which each moves.",
    )  # fmt: skip
    return clips[chosen] if chosen is not None else None


def _least(row: Any, label: str, own: str) -> str:
    """The smallest strength of the run that moves a clip; – where none does, "" where there is nothing to move."""
    if own == label:
        return ""
    moved = [alpha for alpha, answer in zip(row["alpha"], row["answer"], strict=True) if answer == label]
    return f"{min(moved):g}" if moved else "–"


def _verdict(made: ByHand, clip: Clip, label: str, alpha: float) -> str:
    answer, random = made.answer(alpha), made.random_answers(alpha)
    changed = sum(one == label for one in random)
    said = (
        f"**{md(clip.clip_id)}**: :blue-badge[{md(made.base)}] → {answer_badge(answer, made.base)} at alpha {alpha:g}"
    )
    beside = f"of {len(random)} random vectors at alpha {made.nearest(alpha):g}, {changed} give {md(label)}"
    mass = made.mass[made.alphas.index(alpha)]
    low = f"; only {100 * mass:.0f} % of the probability is on the answers" if mass < 0.5 else ""
    return f"{said}; {beside}{low}."


@st.cache_data(max_entries=256, show_spinner=False)
def _steered(
    named: tuple[Any, ...],
    _request: SteerRequest,
    _vectors: SteeringVectors,
    _clip: Clip,
    label: str,
    layer: int,
    prompt: int,
) -> ByHand:
    """`named` names the run, the model and the clip that it comes from."""
    return steer_by_hand(server.engine(), _request, _vectors, _clip, label=label, layer=layer, prompt=prompt)
