"""A comparison of two models as a person asks for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from interp_core.experiments.compare.bundled import counterpart
from interp_core.options import Need, option
from interp_core.request import Request, model_named

MapMode = Literal["mean", "ridge", "procrustes"]
MAPS: tuple[MapMode, ...] = get_args(MapMode)
GIGABYTE = 1 << 30
OF_DOMAIN = Need("domain", but=("none",))
OF_DONOR = tuple(Need(name) for name in ("patch", "stages", "weights"))


def _read_gigabytes(text: str) -> int:
    return round(float(text) * GIGABYTE)


def _write_gigabytes(count: int) -> str:
    return repr(count / GIGABYTE)


@dataclass(frozen=True, repr=False)
class CompareRequest(Request):
    """Two models side by side; `model` is the base. `pilot` compares so many clips only, spread over the manifest."""

    donor: str = option(
        "", "the other model; a bundled model names its own, and with --donor-adapter it is the same model"
    )
    donor_adapter: str = option(
        "", "as --adapter, for the donor: alone, the donor is the model with this adapter in it"
    )
    patch: tuple[str, ...] = option(
        ("auto:3", "each"),
        "layers that get the donor's activations: auto:K (least alike by CKA), each, cumulative, 0,5,11, or none; "
        "repeat for several",
        repeat=True,
        none="none",
        label="Layers that get the donor's activations",
        wide=True,
    )
    stages: tuple[str, ...] = option(
        ("all",), "stages that get them: all, none, or a list of mixed,pooled,projection,logits", none="none",
        label="Stages that get them",
    )  # fmt: skip
    maps: tuple[MapMode, ...] = option(
        MAPS, "donor-free transplants, fitted on half of the clips, or none", flag="transplants", none="none",
        label="Donor-free transplants",
    )  # fmt: skip
    map_at: tuple[str, ...] = option(
        (), "their stages; all but the logits unless given", flag="transplant-at", needs=(Need("maps"),)
    )
    erase: tuple[str, ...] = option(
        (), "layers and stages of the base at which the domain is erased (LEACE), like 5,pooled, beside a random "
        "subspace of the same rank; or none", none="none", label="Erase the domain at", placeholder="none", rare=True,
    )  # fmt: skip
    erase_label: str = option(
        "", "the column whose classes are erased; the domain unless given", label="Column that is erased",
        placeholder="the domain", rare=True, needs=(Need("erase"),),
    )  # fmt: skip
    weights: bool = option(
        True, "transplant the donor's layer weights too, where layers are mixed", label="Layer weights", rare=True
    )
    reverse: bool = option(
        True, "transplants from the base into the donor too", label="The other way round too", needs=OF_DONOR
    )
    skip_null: bool = option(
        False, "leave out what must change nothing by the weights, instead of showing that it does",
        label="Leave out what must be null", needs=(*OF_DONOR, Need("maps")),
    )  # fmt: skip
    label: str = option(
        "", "the manifest column of the class; found by itself, or none", flag="label-column", label="Class column",
        placeholder="found by itself",
    )  # fmt: skip
    speaker: str = option(
        "", "the column of what was sampled; found by itself, or none", flag="speaker-column", label="Speaker column",
        placeholder="found by itself", rare=True,
    )  # fmt: skip
    group: str = option(
        "", "the column of related clips, such as versions of an utterance; found by itself, or none",
        flag="group-column", label="Related clips share", placeholder="found by itself",
        rare=True,
    )  # fmt: skip
    domain: str = option(
        "", "the column that the probe names: codec, channel; found by itself, or none", flag="domain-column",
        label="Domain column", placeholder="found by itself",
    )  # fmt: skip
    attack: str = option(
        "", "the column of the kind of spoof; found by itself, or none", flag="attack-column", label="Attack column",
        placeholder="found by itself", rare=True,
    )  # fmt: skip
    bonafide_index: int | None = option(
        None, "which logit is bona fide: 0 in the thesis code, 1 in the baselines; what the model says unless given",
        none="auto", least=0, label="Bona fide is logit",
    )  # fmt: skip
    labels: tuple[str, ...] = option(
        (), "the answer words of a model that is asked in words, like yes,no; the five emotions unless given"
    )
    prompt: str = option(
        "", "the question of a model that is asked in words; its own, or the default one, unless given"
    )
    probe_draws: int = option(
        199,
        "shuffles of the probes' permutation tests; 0 for none",
        least=0,
        label="Probe shuffles",
        rare=True,
        needs=(OF_DOMAIN,),
    )
    probe_clips: int = option(
        2000,
        "the most clips that a probe is fitted on",
        least=1,
        label="Most clips for a probe",
        rare=True,
        needs=(OF_DOMAIN,),
    )
    cka_bytes: int = option(
        GIGABYTE, "the most memory that CKA takes, in GB", flag="cka-gb", read=_read_gigabytes, write=_write_gigabytes,
        decides=False,
    )  # fmt: skip
    checks: bool = option(True, "check the edits before the transplants", decides=False)

    command: ClassVar[str] = "compare"
    config_file: ClassVar[str] = "compare_config.json"
    about: ClassVar[str] = "compare two models of one shape: CKA of all layers, transplants from the donor, EER, probes"
    demo: ClassVar[str] = "demo-spoof-erm"

    @property
    def title(self) -> str:
        _, donor = self.models
        other = model_named(donor, self.donor_adapter) if self.donor or self.donor_adapter else "its counterpart"
        return f"compare {model_named(self.model, self.adapter)} with {other}"

    @property
    def models(self) -> tuple[str, ...]:
        """A donor that is not named is the same model where it gets an adapter, else a bundled model's counterpart."""
        return self.model, self.donor or (self.model if self.donor_adapter else counterpart(self.model))

    @property
    def adapters(self) -> tuple[str, ...]:
        return self.adapter, self.donor_adapter

    def conflicts(self) -> list[str]:
        return ["erase: give each layer and stage once"] if len(set(self.erase)) < len(self.erase) else []

    @classmethod
    def facts_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"donor": config["donor"]["id"]}

    @classmethod
    def upgraded(cls, saved: dict[str, Any]) -> dict[str, Any]:
        for name in ("stages", "patch"):  # `none` was kept as a word
            if tuple(saved.get(name, ())) == ("none",):
                saved[name] = []
        return saved
