"""A neuron ablation as a person asks for it. Its command is `ablate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from interp_core.choices import During, NeuronEdit
from interp_core.errors import InterpError
from interp_core.experiments.word_options import during_option, word_clips_option, words_option
from interp_core.options import Need, option
from interp_core.request import Request

KS = (0, 4, 8, 16, 32, 64, 128, 256)
OF_DOSES = Need("ks")


@dataclass(frozen=True, repr=False)
class AblateRequest(Request):
    """Neurons that carry a domain, edited K at a time. `pilot` takes so many clips of each split."""

    at: str = option(
        "", "the site: pooled, projection, resid_post:LAYER, head_out:LAYER:HEAD, …; the pooled features unless given",
        label="Site",
    )  # fmt: skip
    task: str = option("", "the label column that the head answers", label="Task")
    domain: str = option("", "the label column of the shortcut: codec, speaker, center, …", label="Domain")
    train: str = option(
        "", "clips to rank neurons on: values of `split`, or COLUMN=VALUE, by commas", label="Train",
        placeholder="split=train",
    )  # fmt: skip
    id: str = option("", "clips to measure on in domain, likewise", label="In domain", placeholder="split=id_val")
    ood: str = option("", "clips to measure on out of domain, likewise", label="Out of domain", placeholder="split=ood")
    units: str = option(
        "", "the column that was really sampled (slide, patient, speaker): intervals draw it", label="Units", rare=True
    )
    labels: tuple[str, ...] = option((), "the head's labels in the order of its classes, like normal,tumor")
    prompt: str = option("", "the question of a model that is asked in words")
    ks: tuple[int, ...] = option(
        KS,
        "how many neurons, like 0,4,8,16; those beyond the width are left out",
        least=0,
        label="Doses K",
        wide=True,
        rare=True,
    )
    kind: NeuronEdit = option(
        "mean",
        "what takes a neuron's place: its mean over training clips, 0, its value in a training clip, its negative",
        label="Replaced by",
        needs=(OF_DOSES,),
    )
    score: Literal["coef", "univariate"] = option(
        "coef", "how neurons are ranked: weight in a probe of all neurons, or each neuron by itself", label="Ranked by"
    )
    draws: int | None = option(
        None, "random draws; 100 where only the head is behind the site, else 10, unless given", least=1,
        label="Random draws",
    )  # fmt: skip
    refits: int = option(
        5,
        "random draws whose probes are fitted again; 0: no probe is",
        least=0,
        label="Draws fitted again",
        rare=True,
        needs=(OF_DOSES,),
    )
    erase: bool = option(
        False,
        "beside neurons, erase all that is linear of the domain at the site (LEACE, fitted on the training clips), of "
        "the task, and random subspaces of the domain's rank",
        label="Erase the domain too",
    )
    words: int = words_option(
        "Every measured clip as it is, without the neurons best for the domain and without those best for the task, at "
        "the K of the verdict",
    )
    word_clips: int = word_clips_option()
    during: During = during_option()
    epoch: str = option("", "--model is a folder of checkpoints: a number, all, best-id, or peak-ood (which peeks)")

    command: ClassVar[str] = "ablate"
    config_file: ClassVar[str] = "ablation_config.json"
    about: ClassVar[str] = (
        "ablate the neurons that carry a domain, K at a time, with the task's and random ones as controls"
    )
    demo: ClassVar[str] = "demo-shortcut"

    @property
    def corpus_choices(self) -> Mapping[str, Any] | None:
        """Centres of Camelyon17 that are named as train and ood (`center=0,center=3`), for its reader, which then makes
        the three splits; None where its official split stands."""
        if not (self.corpus and self.train.startswith("center=") and self.ood.startswith("center=")):
            return None
        found = {"train": _centres(self.train), "ood": _centres(self.ood)}
        return found | ({"id_val": _centres(self.id)} if self.id else {})

    def conflicts(self) -> list[str]:
        return [] if self.ks else ["--ks: give numbers of neurons of 0 or more"]


def _centres(text: str) -> list[int]:
    try:
        return [int(part.partition("=")[2]) for part in text.split(",")]
    except ValueError as error:
        raise InterpError(f"{text!r} names no centres; write center=0,center=3.") from error
