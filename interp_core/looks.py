"""How every condition is told apart: one name, colour, dash and marker, in a run folder's figures and on the pages.

Never by colour alone: within one figure no two looks share a marker. BLUE is the recipient A and what an edit makes of
its answer, VERMILLION is the donor B and nothing else; controls are grey.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Dash = Literal["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
Marker = Literal[
    "circle", "square", "x", "triangle-up", "cross", "diamond", "triangle-down", "hexagon", "star-diamond",
]  # fmt: skip

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # of Okabe and Ito's palette
OCHRE, GREY = "#A87900", "#7A7A7A"
CATEGORIES = (GREEN, PURPLE, OCHRE, GREY)  # for what has no look of its own, such as the classes of a corpus


@dataclass(frozen=True)
class Look:
    """How one condition is called and drawn.

    Attributes:
        name: as legends have it.
        colour: #RRGGBB, 3:1 or more against white and against the dark theme's #171614.
        dash, marker: in words; a figure library's own signs for them stand where it draws.
        strong: drawn thicker, as what a figure is about.
    """

    name: str
    colour: str
    dash: Dash = "solid"
    marker: Marker = "circle"
    strong: bool = False


PATCHING: Mapping[str, Look] = {
    "matched": Look("patched from B", BLUE, strong=True),
    "random": Look("random donor", GREY, "dash", "square"),
    "noise": Look("matched noise", GREY, "dot", "x"),
    "no-conflict": Look("no-conflict donor", GREY, "longdashdot", "triangle-up"),
    "prefix": Look("prefix positions", GREY, "longdash", "cross"),
    "question": Look("question positions", GREEN, "dashdot", "diamond"),
    "last": Look("last position", PURPLE, "longdash", "triangle-down"),
}
STRENGTHS = (BLUE, "#5BA3D0", "#9CC9E5", "#003F63")
"""What is patched from B at the greatest strength, and at weaker ones."""
ANY_CHANGE = replace(PATCHING["no-conflict"], name="no conflict, any change")
"""Of the pairs without a conflict where a curve counts every change of the answer: they have no target to move to."""
SUBSPACES: Mapping[str, Look] = {  # how much of B is exchanged
    "whole": replace(PATCHING["matched"], name="whole state"),
    "subspace": Look("subspace of class means", PURPLE, "dash", "diamond", strong=True),
    "random": Look("random subspaces", GREY, "dot", "x"),
}
LENS: Mapping[str, Look] = {
    "base": Look("logit lens, A", BLUE, "dot", "hexagon"),
    "donor": Look("logit lens, B", VERMILLION, "dash", "star-diamond"),
}
EDITED: Mapping[str, Look] = {  # donors that are A with its sound edited
    "patch": Look("patched from B", BLUE, strong=True),
    "whole": Look("the whole model: B as it is", VERMILLION, "dash", "square"),
}
KNOCKOUT: Mapping[str, Look] = {
    "last": Look("the last position cannot read the audio", PURPLE, "dash", "triangle-down"),
    "text": Look("no text position can read the audio", GREEN, "solid", "diamond", strong=True),
}
RUNS: Mapping[str, Look] = {  # of one pair
    "base": Look("A as it is", BLUE),
    "donor": Look("B", VERMILLION, "dash", "square"),
    "patched": Look("A after the patch", BLUE, "dot", "diamond"),
}
COMPARED: Mapping[str, Look] = {  # two models: the base is what is changed, as A is, and the donor gives, as B does
    "base": Look("base", BLUE),
    "donor": Look("donor", VERMILLION, "dash", "square"),
    "transplant": Look("the donor's states or weights in the base", PURPLE, "dot", "diamond"),
}
NEURONS: Mapping[str, Look] = {
    "domain": Look("best for the domain", GREEN, strong=True),
    "task": Look("best for the task", PURPLE, "dash", "square", strong=True),
    "random": Look("random", GREY, "dot", "x"),
    "matched": Look("random of like weight", GREY, "dashdot", "diamond"),
}
ERASED: Mapping[str, Look] = {  # a concept taken out of all neurons at once
    "domain": Look("domain erased", GREEN, "solid", "star-diamond", strong=True),
    "task": Look("task erased", PURPLE, "dash", "hexagon", strong=True),
    "random": Look("random subspace erased", GREY, "dot", "triangle-up"),
}
FLIPPED: Mapping[str, Look] = {
    "ranked": Look("neurons of the target", GREEN, strong=True),
    "random": Look("random neurons", GREY, "dot", "x"),
}
VERIFIED: Mapping[str, Look] = {  # heads of a map of estimates
    "largest": Look("largest estimates", PURPLE, marker="square", strong=True),
    "random": Look("random others", GREY, marker="diamond"),
}
STEERING: Mapping[str, Look] = {
    "vector": Look("vector of the label", GREEN, strong=True),
    "random": Look("random, as long", GREY, "dot", "x"),
    "shuffled": Look("shuffled labels", GREY, "dash", "square"),
    "shuffled_long": Look("shuffled, as long", GREY, "longdash", "triangle-up"),
    "layer": Look("another layer, as long", GREY, "dashdot", "diamond"),
    "prompt": Look("the prompt alone", PURPLE, "longdash", "triangle-down"),
}
STATED: Mapping[str, Look] = {  # whom an answer follows; labels of another column than voice and words look like words
    "voice": Look("voice", GREEN, strong=True),
    "words": Look("words", PURPLE, "dash", "diamond"),
    "text": Look("the prompt's text", OCHRE, "dashdot", "square", strong=True),
    "none": Look("none of them", GREY, "dot", "x"),
}
PROBES: Mapping[str, Look] = {  # by site and what of it is read
    "resid_post, mean": Look("resid_post, mean over the recording", GREEN, strong=True),
    "resid_post, last": Look("resid_post, last position", PURPLE, "dash", "square", strong=True),
    "attn_out, mean": Look("attn_out, mean over the recording", GREEN, "dot", "triangle-up"),
    "attn_out, last": Look("attn_out, last position", PURPLE, "dot", "triangle-down"),
    "mlp_out, mean": Look("mlp_out, mean over the recording", GREEN, "dashdot", "diamond"),
    "mlp_out, last": Look("mlp_out, last position", PURPLE, "dashdot", "cross"),
    "control": Look("control task", GREY, "dash", "x"),
}
HEADS: Mapping[str, Look] = {
    "block": Look("block, between attention and MLP", GREEN),
    "stage": Look("stage or layer output", PURPLE, "dash", "square"),
}
SIDE_BY_SIDE: Mapping[str, Look] = {  # two runs of one experiment
    "one": Look("run 1", GREEN, strong=True),
    "other": Look("run 2", PURPLE, "dash", "square", strong=True),
}


def look_of_probe(site: str, place: str) -> Look:
    """How the probes at a site and place are drawn."""
    return PROBES[f"{site}, {place}"]
