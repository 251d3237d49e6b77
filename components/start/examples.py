"""The worked examples of the start page: a view each, and the one line that says what to look at in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import streamlit as st

from components import page_style, state
from components.words import md
from interp_core.models import bundled


@dataclass(frozen=True)
class Example:
    """A view that is one click away.

    Attributes:
        name: in the URL.
        title, about: on the start page.
        page: the file below pages, without its ending.
        model: a bundled one.
        look: what to look at, shown above the page that it opens.
        view: further parameters of the page's URL.
    """

    name: str
    title: str
    about: str
    page: str
    model: str
    look: str
    icon: str
    view: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, str]:
        """The URL's parameters."""
        return {state.MODEL: self.model, state.EXAMPLE: self.name, **self.view}


EXAMPLES = (
    Example(
        "voice",
        "Patch a voice's emotion",
        "Two recordings of the same words in another voice. At which layer does the model's answer follow the voice?",
        "patching",
        "demo-emotion",
        "Click a layer on the curve: early layers of B turn the answer, late ones no longer do, because by then the "
        "emotion has been read out of the audio. Press play to hear A and B.",
        "cable",
        {state.KIND: "prosody"},
    ),
    Example(
        "moment",
        "Find the moment and the head",
        "Which part of the recording, and which of 48 attention heads, carry the voice's emotion into the answer?",
        "patching",
        "demo-emotion",
        "Each cell is a head: how far B's state in it moves A's answer to the target. Those with a sign were patched "
        "truly; click one to see where in the recording it attends. “Which moment carries it”, below, patches one "
        "window of the recording at a time.",
        "timeline",
        {state.RUN: str(bundled.ASSETS / "demo-emotion" / "run-maps"), state.VIEW: "Heads"},
    ),
    Example(
        "steer",
        "Turn an emotion up",
        "The direction of “angry” is added to a recording that it was not fitted on. How much of it moves the answer?",
        "steering",
        "demo-emotion",
        "Move the slider: the answer beside the recording moves at once, and random vectors as long, in grey, do not. "
        "Click another cell of the map: behind late layers no strength does anything.",
        "explore",
        {state.ST_LABEL: "angry", state.ST_LAYER: "2"},
    ),
    Example(
        "probes",
        "Read what a layer knows",
        "At which layer can a linear probe tell the voice's emotion, what the words mean, or how high the voice is?",
        "probes",
        "demo-emotion",
        "Change what is read: the voice's emotion stands in the audio positions from the first layer on, and reaches "
        "the last position, where the answer is read, layers later. The lens puts each moment into words.",
        "sensors",
        {state.PB_TARGET: "prosody_label"},
    ),
    Example(
        "heads",
        "Find the heads that carry it",
        "Every attention head of an encoder, by how well its output tells the emotions apart.",
        "heads",
        "demo-emotion-wavlm",
        "Each cell is one head; a strong one tells the emotions apart by itself. Click one to see the clips as it "
        "places them.",
        "grid_on",
    ),
    Example(
        "countermeasures",
        "Two countermeasures side by side",
        "One spoof detector was trained to forget the codec. Which of its layers changed?",
        "compare",
        "demo-spoof-erm",
        "Follow the similarity from layer to layer: where it falls, the two detectors part. Then put one's layer into "
        "the other.",
        "difference",
    ),
)


def say_what_to_look_at() -> None:
    """The line of the example that a link opened; nothing on other views."""
    name = st.query_params.get(state.EXAMPLE)
    for example in EXAMPLES:
        if example.name == name:
            with st.container(horizontal=True, vertical_alignment="center", key=page_style.NOTE):
                st.info(f"**Look at this.** {md(example.look)}", icon=":material/visibility:")
                st.button("Close", key="close_example", on_click=_close, icon=":material/close:", type="tertiary")


def _close() -> None:
    st.query_params.pop(state.EXAMPLE, None)
