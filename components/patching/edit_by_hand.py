"""One clip and its own edited copy: choose what is changed and by how much, hear both, and see every layer's answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from components import server, state, toolbar
from components.guard import readable_errors
from components.patching import by_hand, edits
from components.patching.pairs import PATCHING_PAGE
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.words import layer_title, md
from interp_core.data.clips import Clip
from interp_core.data.edit_measures import ALLOWED
from interp_core.data.edits import CODECS, EDIT_SIGN, KNOBS, USUAL_COMPRESSION, Edit, edited, parse_edit
from interp_core.data.pairs import parse_kinds
from interp_core.errors import InterpError
from interp_core.experiments.patching.edited import measure_edit
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.subject import Subject

SLIDERS = {  # least, most, usual, step: what is worth hearing; the command takes more
    "pitch": (-12.0, 12.0, 4.0, 0.5),
    "rate": (0.5, 2.0, 1.2, 0.05),
    "level": (-40.0, 20.0, -6.0, 1.0),
    "flat": (0.0, 1.0, 1.0, 0.1),
    "noise": (-10.0, 40.0, 10.0, 1.0),
    "pink": (-10.0, 40.0, 10.0, 1.0),
}
WHAT = {
    "pitch": "in semitones; formants move along",
    "rate": "at its own pitch",
    "level": "in dB",
    "flat": "F0 flattened to its median; 0 is the vocoder alone",
    "noise": "white noise, by signal-to-noise ratio",
    "pink": "pink noise, the same",
    "band": "what is left, in Hz",
    "codec": "there and back",
    "silence": "nothing but zeros",
}


@st.fragment
def draw(asked: PatchRequest, subject: Subject) -> None:
    """Choose A and the edit, hear A and its copy, see what the edit did and what its states do."""
    with readable_errors():
        clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
        bar = st.container(horizontal=True, vertical_alignment="center", gap="small")
        left, right = st.columns([1, 1.3], gap="medium")
        try:
            with left:
                a = clips[st.selectbox("A, whose answer is changed", list(clips), key=state.HAND_A, bind=state.BOUND)]
                edit = _choose(subject.sample_rate)
                b = edited(a, edit)
                names = (a.clip_id, f"B: {edit.text}")
                sounds = [
                    clip_audio.player_clip(clip, name, subject.sample_rate)
                    for clip, name in zip((a, b), names, strict=True)
                ]
                ab_player(sounds[0], sounds[1], key=state.PLAYER)
                _measured(asked, subject, a, b)
            with right:
                swept = by_hand.curve(asked, subject, a, b)
                _moved(swept.at)
                by_hand.logits(swept)
        except InterpError:
            with bar:  # the step back is wanted most where a step led to what cannot be made
                st.space("stretch")
                toolbar.draw(asked.key)
            raise
        with bar:
            by_hand.keep(asked, a, b)
            _every_clip(asked, edit)
            st.space("stretch")
            toolbar.draw(asked.key)
            by_hand.exported(swept, subject, a, b)


def _choose(rate: int) -> Edit:
    """The edit, by its knob and dose."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        about = "\n".join(f"- **{md(one)}**: {md(said)}" for one, said in WHAT.items())
        knob = st.selectbox(
            "What is changed", list(KNOBS), key=state.EDIT_KNOB, bind=state.BOUND, help=about, width=150
        )
        knob = knob or "pitch"
        if knob == "silence":
            return parse_edit(knob)
        if knob == "band":
            top = float(min(12_000, rate // 2 - 100))
            usual = (300.0, min(3400.0, top))
            low, high = st.slider(
                "What is left, Hz", 0.0, top, usual, 50.0, key=state.edit_dose(knob), bind=state.BOUND
            )  # in the link twice, once an end
            if low >= high:
                raise InterpError(f"a band from {low:g} to {high:g} Hz holds nothing; draw its ends apart.")
            return parse_edit(f"band={low:g}-{high:g}")
        if knob == "codec":
            codec = st.selectbox("Codec", list(CODECS), key=state.EDIT_CODEC, bind=state.BOUND, width=110)
            if codec == "mulaw":
                return parse_edit("codec=mulaw")
            squeezed = st.slider(
                "Compression", 0.0, 0.95, USUAL_COMPRESSION, 0.05, key=state.edit_dose(knob), bind=state.BOUND
            )
            return parse_edit(f"codec={codec}:{round(squeezed, 2):g}")
        least, most, first, step = SLIDERS[knob]
        dose = st.slider(
            f"By how much, {md(KNOBS[knob].unit)}",
            least,
            most,
            first,
            step,
            key=state.edit_dose(knob),
            bind=state.BOUND,
        )
        return parse_edit(f"{knob}={round(dose, 2):g}")


def _measured(asked: PatchRequest, subject: Subject, a: Clip, b: Clip) -> None:
    """What the edit did, measured on what came out."""
    engine = server.engine()
    found = measure_edit(engine.store(asked), b, engine.acoustics([a, b], subject.sample_rate))
    st.dataframe(
        edits.measured_table(found), hide_index=True, height="content", alt=f"What {b.edit} did to {a.clip_id}."
    )
    if found["also_moved"]:
        st.caption(f"Not meant, and moved by over 5 %: {md(found['also_moved'])}. An effect may be one of that.")
    if abs(found["level_change"]) > ALLOWED:
        st.caption("The player matches both levels: switch *Match level* off to hear the change.")
    if found["peak_after"] > 1:
        st.caption(
            f"Its peak is {found['peak_after']:.2f} of full scale. The model hears it as it is; loudspeakers cut "
            "it off there."
        )


def _moved(at: pd.Series) -> None:
    """The change of A's logits by the whole model and by the patch, which is there also where the answer stays."""
    base, donor, patched = (np.array(at[f"{run}_logits"]) for run in ("base", "donor", "patched"))
    whole, part = (value - base - (value - base).mean() for value in (donor, patched))
    size = float(np.linalg.norm(whole))
    along = float(part @ whole) / size if size else 0.0
    st.caption(
        f"The edit moves the model's logits by {size:.2f} nats (all labels, a shift of all taken out); the patch at "
        f"{layer_title(at['layer']).lower()} carries {along:z.2f} of them."
    )


def _every_clip(asked: PatchRequest, edit: Edit) -> None:
    """The same edit of every clip as a kind of pair, which the page Patching runs on; several are a curve of doses."""
    kept = [f"{EDIT_SIGN}{kind.edit}" for kind in parse_kinds(asked.kinds) if kind.edit] if asked.kinds else []
    text, setting = f"{EDIT_SIGN}{edit.text}", state.setting(asked.command, "kinds")

    def add() -> None:
        st.session_state[setting] = ",".join((*kept, text))

    pressed = st.button(
        "Edit every clip so" if text not in kept else "Every clip is edited so",
        key="edit_every_clip",
        icon=":material/library_add:" if text not in kept else ":material/check:",
        on_click=add,
        disabled=text in kept or bool(asked.pairs),
        help="Empty *Pairs by hand* in the sidebar first: they are all of a run."
        if asked.pairs
        else f"Sets *Kinds of pair* in the sidebar to this edit of every clip; further doses add up to a curve. Now: "
        f"{md(', '.join(kept)) or 'none'}.",
    )
    if kept and not asked.pairs:
        st.page_link(
            str(PATCHING_PAGE), label=f"**Patch with {len(kept)} edit{'s' * (len(kept) > 1)}**", icon=":material/cable:"
        )
    if pressed:
        st.rerun()  # the sidebar has it too
