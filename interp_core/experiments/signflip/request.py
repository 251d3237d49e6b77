"""A sign-flip run as a person asks for it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from interp_core.choices import NeuronEdit
from interp_core.options import option
from interp_core.request import Request


@dataclass(frozen=True, repr=False)
class SignflipRequest(Request):
    """Neurons that a head attributes to a class, edited at one layer and measured behind it."""

    target: str = option("", "the label whose neurons are edited; the first unless given", label="Neurons of")
    topk: int | None = option(
        None, "how many neurons of a layer; 50, or an eighth of a narrower one, unless given", least=1, label="How many"
    )
    kind: NeuronEdit = option("flip", "what is done to them", label="Edit")
    frames: Literal["max", "all"] = option(
        "max", "at each neuron's loudest frame, or at all of them", label="At",
        words={"max": "loudest frame", "all": "all frames"},
    )  # fmt: skip
    reduce: Literal["sum_abs", "abs_sum"] = option(
        "sum_abs", "attribution over time; in abs_sum moments of unlike sign cancel", label="Attribution over time",
        words={"sum_abs": "sum of |gradient × activation|", "abs_sum": "|sum of gradient × activation|"}, wide=True,
    )  # fmt: skip
    layers: tuple[int, ...] | None = option(
        None, "which layers are edited: all, or a list like 0,4,8", none="all", label="Edited layers", rare=True
    )
    draws: int = option(
        20, "random sets of neurons of about the same activation; 0 for none", least=0, label="Random draws"
    )
    task: str = option("", "the label column that accuracy is counted against", label="Task", rare=True)
    units: str = option(
        "", "the column that is never divided between attribution and measuring", label="Units", rare=True
    )
    labels: tuple[str, ...] = option(
        (), "the head's labels in the order of its classes, where the task column names them otherwise"
    )
    prompt: str = option("", "the question of a model that is asked in words")
    batch_size: int = option(64, "edited copies of a clip in one pass", least=1, decides=False)

    command: ClassVar[str] = "signflip"
    config_file: ClassVar[str] = "signflip_config.json"
    about: ClassVar[str] = (
        "flip the neurons that matter for a class, and measure energy, zero crossings and modulation behind them"
    )
    demo: ClassVar[str] = "demo-emotion-wavlm"
