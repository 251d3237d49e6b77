"""A heads run as a person asks for it."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from interp_core.choices import During, HeadEdit
from interp_core.experiments.word_options import during_option, word_clips_option, words_option
from interp_core.options import Need, option
from interp_core.request import Request

Probed = Literal["all", "wide", "none"]


@dataclass(frozen=True, repr=False)
class HeadsRequest(Request):
    """Which heads, blocks and stages separate the classes. `pilot` takes so many clips of each class."""

    probe: str = option(
        "", "a label column: fit a probe to it as the readout of a model without a classifier", needs=(Need("ablate"),)
    )
    label: str = option("label", "the column whose values are the classes", label="Classes")
    per_class: int | None = option(
        None, "clips of each class; as many as the smallest has unless given", least=1, label="Clips of each class"
    )
    classes: tuple[str, ...] = option((), "only these classes, like dog,rain", label="Only these classes", rare=True)
    groups: str = option(
        "auto", "the column that related clips share, auto or none: shuffles, intervals and folds keep them together",
        label="Related clips share",
    )  # fmt: skip
    clips: Literal["held-out", "all"] = option(
        "held-out", "whether clips of the split train count where others have a split too", label="Clips",
        words={"held-out": "not those of split = train", "all": "all"},
    )  # fmt: skip
    draws: int = option(999, "shuffles of the labels", least=19, label="Shuffles")
    probes: Probed = option("all", "which points get a probe; wide: blocks and stages only", label="Probes")
    ablate: tuple[HeadEdit, ...] = option(
        (), "what every head is replaced by in turn, or none; every clip is answered again once a head and kind",
        none="none", label="Ablate every head", wide=True,
    )  # fmt: skip
    words: int = words_option(
        "Every clip as it is, and with the output of each of the heads that separate the classes most at zero",
    )
    word_heads: int = option(
        3, "so many heads, those with the highest F, are taken out for it, each alone", least=1,
        label="Heads in words", rare=True, needs=(Need("words"),),
    )  # fmt: skip
    word_clips: int = word_clips_option()
    during: During = during_option()
    prompt: str = option("", "the question, of a model that is asked one; its own unless given")
    pt: bool = option(False, "write the vectors as a dict of torch tensors too", decides=False)

    command: ClassVar[str] = "heads"
    config_file: ClassVar[str] = "heads_config.json"
    about: ClassVar[str] = (
        "Fisher ratios of heads, blocks and stages: which separate the classes, does the model use them"
    )
    demo: ClassVar[str] = "demo-events"

    @property
    def held_out(self) -> bool:
        return self.clips == "held-out"

    @classmethod
    def upgraded(cls, saved: dict[str, Any]) -> dict[str, Any]:
        held_out = saved.pop("held_out", None)  # version 0.1
        return saved if held_out is None else {**saved, "clips": "held-out" if held_out else "all"}
