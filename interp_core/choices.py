"""Words that settings and the code below them share, without torch, so that a request can declare its choices."""

from typing import Literal, get_args

Method = Literal["fast", "wavefront", "reference"]
"""Routes of a layer sweep; `fast` takes the cheapest that is exact."""
METHODS: tuple[Method, ...] = get_args(Method)
NeuronEdit = Literal["mean", "zero", "resample", "flip"]
"""What takes a neuron's place: its mean, nothing, its value in another clip, its negative."""
HeadEdit = Literal["zero", "mean", "resample"]
HEAD_EDITS: tuple[HeadEdit, ...] = get_args(HeadEdit)
During = Literal["prefill", "all"]
"""Where an edit holds while a model writes: over the prompt alone, or at every position that is written too."""

EMOTIONS = ("neutral", "happy", "sad", "angry", "surprised")
DEFAULT_PROMPT = (
    "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised."
)
