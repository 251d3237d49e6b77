"""Two clips by hand: any clip as A, any as B, no label needed. The target is what the model answers for B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from matplotlib.figure import Figure

from components import export, server, state, toolbar
from components.charts import clicks
from components.charts.answers import label_logits
from components.guard import readable_errors
from components.patching import charts
from components.patching.answers import prompt_names
from components.patching.pairs import PATCHING_PAGE
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.widgets import OF_SELECTION, choice, folded, stepped
from components.words import layer_of, layer_text, layer_title, md, option
from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.example import Sound
from interp_core.experiments.facts import signature
from interp_core.experiments.patching.by_hand import pair_text
from interp_core.experiments.patching.experiment import pair_by_hand, patch_by_hand
from interp_core.experiments.patching.one_pair import hand_figure
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.subject import Subject
from interp_core.request import short_name


@dataclass(frozen=True)
class Swept:
    """Two clips patched at every layer.

    Attributes:
        records: one row a layer. labels: of their logits. layer: the one that is looked at.
        others: name of another question with the same labels -> its records.
    """

    asked: PatchRequest
    records: pd.DataFrame
    labels: tuple[str, ...]
    layer: int
    others: Mapping[str, pd.DataFrame]

    @property
    def at(self) -> pd.Series:
        """The record of the layer."""
        return self.records[self.records["layer"] == self.layer].iloc[0]


@st.fragment
def draw(asked: PatchRequest, subject: Subject) -> None:
    """Choose A and B, hear both, and see every layer's answer at once."""
    with readable_errors():
        clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
        if len(clips) < 2:
            raise InterpError(f"two clips by hand need two clips, and the manifest holds {len(clips)}; add one.")
        bar = st.container(horizontal=True, vertical_alignment="center", gap="small")
        a, b, swept = _both(asked, subject, clips, state.PLAYER)
        with bar:
            keep(asked, a, b)
            st.space("stretch")
            toolbar.draw(asked.key)
            exported(swept, subject, a, b)


def fold(asked: PatchRequest, subject: Subject, clips: dict[str, Clip], sidebar: PatchRequest) -> None:
    """The same on the page of runs: any two clips, not only the pairs that a run was made of.

    Args:
        asked: the settings of the run on show, or of the next one where there is none.
        sidebar: those of the next one, which a pair that is kept is for.
    """
    opened = folded("Two clips by hand", ":material/touch_app:", key=state.FOLD_HAND)
    if opened.open and len(clips) > 1:
        with opened, readable_errors():
            st.caption(f"Any clip as A, any as B, with these settings; {_needed(asked)}.")
            a, b, swept = _both(asked, subject, clips, "hand_player", keys=None)
            with st.container(horizontal=True):
                keep(sidebar, a, b, here=True)
                exported(swept, subject, a, b)


def _needed(asked: PatchRequest) -> str:
    """Of the clips."""
    if asked.class_mean is None:
        return "no label needed"
    return f"the donor is {md(asked.donor_said)}, so B has to be answered with a label of its own"


def _both(
    asked: PatchRequest,
    subject: Subject,
    clips: dict[str, Clip],
    player: str,
    keys: tuple[str, str] | None = OF_SELECTION,
) -> tuple[Clip, Clip, Swept]:
    left, right = st.columns([1, 1.3], gap="medium")
    with left:
        a, b = _choose(
            clips, "B, whose states are patched in" if asked.class_mean is None else "B, who says the target"
        )
        audio = [clip_audio.player_clip(clip, clip.clip_id, subject.sample_rate) for clip in (a, b)]
        ab_player(audio[0], audio[1], key=player)
    with right:
        swept = curve(asked, subject, a, b, keys)
    with left:
        logits(swept)
    return a, b, swept


def _choose(clips: dict[str, Clip], of_b: str) -> tuple[Clip, Clip]:
    ids = list(clips)

    def swap() -> None:
        one, other = st.session_state[state.HAND_A], st.session_state[state.HAND_B]
        st.session_state[state.HAND_A], st.session_state[state.HAND_B] = other, one

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        a = st.selectbox("A, whose answer is changed", ids, key=state.HAND_A, bind=state.BOUND)
        st.button("⇄", key="swap", on_click=swap, help="A becomes B and B becomes A")
        b = st.selectbox(of_b, ids, index=1, key=state.HAND_B, bind=state.BOUND)
    return clips[a], clips[b]


def keep(asked: PatchRequest, a: Clip, b: Clip, *, here: bool = False) -> None:
    """The pair into the set of pairs by hand, which the page Patching runs on; `here` on that page itself."""
    text = pair_text(a.clip_id, b.clip_id)
    kept, setting = asked.pairs, state.setting(asked.command, "pairs")

    def add() -> None:
        st.session_state[setting] = "\n".join((*kept, text))

    pressed = st.button(
        "Kept" if text in kept else "Keep this pair",
        key="keep_pair",
        icon=":material/check:" if text in kept else ":material/add:",
        on_click=add,
        disabled=text in kept or a is b,
        help="Adds it to *Pairs by hand* in the sidebar. What is kept there is what a run works on.",
    )
    if kept and not here:
        st.page_link(
            str(PATCHING_PAGE),
            label=f"**Patch the {len(kept):d} kept**",
            icon=":material/cable:",
        )
    if pressed:
        st.rerun()  # the sidebar lists it too


def _with_all_questions(asked: PatchRequest) -> PatchRequest:
    """With the further questions of a demo, which are the controls of the first."""
    demo = server.engine().demo(asked.model)
    further = tuple(text for _, text in demo.prompts) if demo else ()
    return replace(asked, pairs=(), prompts=tuple(dict.fromkeys((*asked.prompts, *further))))


def curve(
    asked: PatchRequest, subject: Subject, a: Clip, b: Clip, keys: tuple[str, str] | None = OF_SELECTION
) -> Swept:
    """Draw the sweep over all layers, and choose one; `keys` step through them."""
    asked = _with_all_questions(asked)
    names = [option(name) for name in prompt_names(asked.model, asked.prompts)]
    number = 0
    if len(names) > 1:
        number = names.index(choice("Question", names, key=state.HAND_PROMPT))
    with st.spinner("Patching every layer …"):
        key = server.engine().key_of(asked)
        swept = [_swept(key, a.digest, b.digest, n, asked, a, b) for n in range(len(names))]
    records, labels = swept[number], _labels(subject, asked, number)
    layers = records["layer"].tolist()
    flips = records[records["patched_prediction"] == records["target"]]["layer"].tolist()
    first = records.iloc[0]
    st.markdown(_verdict(first, layers, flips, asked.donor_said))
    slot = st.container()
    layer = _choose_layer(layers, flips, keys)
    others = {names[n]: table for n, table in enumerate(swept) if n != number and _labels(subject, asked, n) == labels}
    with slot:
        said = f"Probability of {first['target']} after a patch at each layer; {len(flips)} layers flip."
        _show(charts.hand_curve(records, labels, others, selected_layer=layer), layers, said)
    if others:
        st.caption(
            "Grey: the same two clips under the other questions, each toward what B answers to it. Questions and "
            "answers are set in the sidebar."
        )
    return Swept(asked, records, labels, layer, others)


def exported(swept: Swept, subject: Subject, a: Clip, b: Clip) -> None:
    """What is seen, as one figure for paper."""

    def draw() -> Figure:
        sounds = [
            Sound(clip.clip_id, clip_audio.player_clip(clip, clip.clip_id, clip_audio.RATE).samples, clip_audio.RATE)
            for clip in (a, b)
        ]
        asked, at = swept.asked, swept.at
        made = {
            "model": {"id": asked.model, "weights_sha256": subject.weights_hash},
            "settings": {"seed": asked.seed},
            "created": date.today().isoformat(),
        }
        where = f"{asked.positions} positions" if asked.positions else ""
        donor = "" if asked.class_mean is None else asked.donor_said
        about = signature(made, str(at["site"]), where, donor, "n = 1 pair, no interval", f"route {at['method']}")
        return hand_figure(swept.records, swept.labels, swept.layer, (sounds[0], sounds[1]), about, swept.others)

    export.paper(export.file_name(short_name(swept.asked.model), a.clip_id, b.clip_id), draw)


def logits(swept: Swept) -> None:
    """Every label's logit at the chosen layer."""
    at = swept.at
    st.markdown(f"**{layer_title(at['layer'])}**: the answer is **{md(at['patched_prediction'])}**.")
    clicks.show(
        label_logits(
            swept.labels, at["base_logits"], at["patched_logits"], at["donor_logits"], at["target"],
            room=swept.records["patched_logits"].tolist(),
        ),
        key="hand_logits",
        alt=f"Label logits of A, of A after the patch, and of B: A answers {at['base_prediction']}, "
        f"B {at['donor_prediction']}.",
    )  # fmt: skip


def _labels(subject: Subject, asked: PatchRequest, prompt: int) -> tuple[str, ...]:
    return subject.labels(asked.labels, asked.prompts[prompt], several_tokens=asked.several_tokens).labels


def _verdict(first: pd.Series, layers: Sequence[int], flips: Sequence[int], donor: str) -> str:
    answers = f"A :blue-badge[{md(first['base_prediction'])}] · B :orange-badge[{md(first['donor_prediction'])}]  \n"
    if first["base_prediction"] == first["target"]:
        return f"{answers}Both are answered alike, so there is nothing to flip: choose another B, or other answers."
    if not flips:
        return f"{answers}**At no layer {md(donor)} turns A's answer into {md(first['target'])}.**"
    where = ", ".join(map(layer_text, flips))
    return f"{answers}**The answer flips to {md(first['target'])} at {len(flips)} of {len(layers)} layers**: {where}."


def _choose_layer(layers: Sequence[int], flips: Sequence[int], keys: tuple[str, str] | None) -> int:
    texts, helps = [layer_text(layer) for layer in layers], ("one layer down", "one layer up")
    usual = layer_text((flips or layers)[-1])
    return layer_of(stepped("Layer", texts, usual, key=state.HAND_LAYER, helps=helps, name="hand", keys=keys))


def _show(figure: go.Figure, layers: Sequence[int], alt: str) -> None:
    def clicked(layer: int) -> None:
        if layer in layers:
            st.session_state[state.HAND_LAYER] = layer_text(layer)

    clicks.show(figure, key=state.HAND_CURVE, on_click=clicked, alt=alt)


@st.cache_data(max_entries=512, show_spinner=False)
def _swept(key: str, a: str, b: str, prompt: int, _asked: PatchRequest, _a: Clip, _b: Clip) -> pd.DataFrame:
    """Records by layer; `key` and the digests name what they come from: a class mean, of which clips it is."""
    pair = pair_by_hand(server.engine(), _asked, _a, _b, prompt=prompt)
    return patch_by_hand(server.engine(), _asked, pair, prompt=prompt, alphas=(1.0,))
