"""Which experiments a kind of model can be asked, and a command to begin with. Each experiment says itself what it
needs (`Experiment.lacks`); the list of kinds is `models/families.py`.
"""

from typing import Any

from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.models.families import Family
from interp_core.options import declared

CLIPS = {"manifest": "clips.csv"}
PICTURES = {"manifest": "/data/camelyon17_v1.0", "corpus": "camelyon17"}


def lacks(family: Family) -> dict[str, str | None]:
    """Command of every experiment -> what models of the family lack for it, None where it runs."""
    return {name: experiment_of(name).lacks(family.inside, family.subject) for name in EXPERIMENTS}


def suited(family: Family) -> tuple[str, ...]:
    """The commands of the experiments that run on a family."""
    return tuple(name for name, lack in lacks(family).items() if lack is None)


def example(family: Family, command: str) -> str:
    """A command line that runs an experiment on a model of a family; its paths are made up."""
    name = family.like or family.name
    given: dict[str, Any] = {"model": f"/models/{name}", "part": family.part}
    given |= PICTURES if family.subject.takes == "pictures" else CLIPS
    request = EXPERIMENTS[command].request
    known = {one.name: one for one in declared(request)}
    if "donor" in known:
        given["donor"] = f"/models/another-{name}"
    probed = request(**given | {"probe": "label"})
    asked = probed if not (family.classifier or known["probe"].idle_in(probed)) else request(**given)
    return asked.command_line(f"runs/{command}")
