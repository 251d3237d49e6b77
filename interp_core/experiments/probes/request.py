"""A run of probes as a person asks for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from interp_core.options import Need, option
from interp_core.request import Request

ProbedSite = Literal["resid_post", "attn_out", "mlp_out"]
ReadAt = Literal["mean", "last"]
READ_AT: tuple[ReadAt, ...] = get_args(ReadAt)
Quantity = Literal["f0", "level", "rate", "centroid", "duration"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
USUAL_QUANTITIES: tuple[Quantity, ...] = ("f0", "level", "rate", "centroid")
EMB = -1
"""The layer that stands for what enters block 0."""


@dataclass(frozen=True, repr=False)
class ProbesRequest(Request):
    """At which layer and site a linear probe reads a label, or an acoustic quantity, of the clip."""

    columns: tuple[str, ...] = option(
        (), "label columns that are read; unless given every one with 2 to 20 values that come from units enough",
        label="Labels that are read", placeholder="all",
    )  # fmt: skip
    quantities: tuple[Quantity, ...] = option(
        USUAL_QUANTITIES,
        "what is measured on the sound and read, or none: the median F0, the level, the rate (centroid of the level's "
        "modulation), the spectral centroid, the duration",
        none="none", label="Quantities that are read", wide=True,
        words={"f0": "median F0", "level": "level", "rate": "modulation rate", "centroid": "spectral centroid",
               "duration": "duration"},
    )  # fmt: skip
    sites: tuple[ProbedSite, ...] = option(
        ("resid_post",), "where a probe reads: resid_post, attn_out, mlp_out", label="Sites"
    )
    layers: tuple[int, ...] | None = option(
        None, "the layers that are read: all, or a list like 0,4,8; -1 is what enters layer 0 (--layers=-1,0,4)",
        none="all", label="Layers",
    )  # fmt: skip
    places: tuple[ReadAt, ...] = option(
        (),
        "what of a layer is read: the mean over the recording's positions, the last position; all that the model has "
        "unless given",
        label="Read at", words={"mean": "mean over the recording", "last": "last position"},
    )  # fmt: skip
    units: str = option(
        "auto", "the column that related clips share, auto or none: folds, shuffles, intervals and control tasks keep "
        "them together", label="Related clips share",
    )  # fmt: skip
    clips: Literal["held-out", "all"] = option(
        "held-out", "whether clips of the split train count where others have a split too", label="Clips",
        words={"held-out": "not those of split = train", "all": "all"},
    )  # fmt: skip
    draws: int = option(999, "shuffles of labels and values", least=19, label="Shuffles")
    controls: int = option(3, "control tasks of random labels, or 0 for none", least=0, label="Control tasks")
    folds: int = option(5, "folds of the cross-validation, at most", least=2, label="Folds", rare=True)
    strength: float = option(
        0.1, "C of every logistic probe, for features of spread 1", least=1e-6, most=1e6, label="C of the probes",
        rare=True,
    )  # fmt: skip
    ridge: float = option(
        0.1, "penalty of every ridge probe, in shares of the features' mean eigenvalue", least=1e-6, most=1e6,
        label="Ridge of the probes", rare=True, needs=(Need("quantities"),),
    )  # fmt: skip
    prompt: str = option("", "the question, of a model that is asked one; its own unless given")

    command: ClassVar[str] = "probes"
    config_file: ClassVar[str] = "probes_config.json"
    about: ClassVar[str] = (
        "at which layer and site a linear probe reads a label, or F0, level, rate and centroid, of the clip"
    )
    unused: ClassVar[Mapping[str, str]] = {"probe": "the states of the blocks are read, and no answer is"}

    @property
    def held_out(self) -> bool:
        return self.clips == "held-out"

    def conflicts(self) -> list[str]:
        found = []
        if not self.sites:
            found.append("no site was given; give resid_post, attn_out or mlp_out")
        if self.layers is not None and not self.layers:
            found.append("no layer was given; give all or a list like -1,0,4")
        if EMB in (self.layers or ()) and "resid_post" not in self.sites:
            found.append("layer -1, what enters layer 0, is read at resid_post alone; add that site or leave -1 out")
        for name in ("columns", "quantities", "sites", "layers", "places"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                found.append(f"--{name}: give each once")
        return found
