"""The experiments that there are: one line each. What they import is imported when it is used, so that `--help` and the
forms need neither torch nor a model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp_core.errors import InterpError
from interp_core.experiments.compare.request import CompareRequest as CompareRequest
from interp_core.experiments.heads.request import HeadsRequest as HeadsRequest
from interp_core.experiments.neurons.request import AblateRequest as AblateRequest
from interp_core.experiments.patching.request import PatchRequest as PatchRequest
from interp_core.experiments.probes.request import ProbesRequest as ProbesRequest
from interp_core.experiments.signflip.request import SignflipRequest as SignflipRequest
from interp_core.experiments.steering.request import SteerRequest as SteerRequest
from interp_core.request import Request

if TYPE_CHECKING:
    from interp_core.experiments.experiment import Experiment


def _lazily(module: str, name: str) -> "Callable[[], Experiment[Any, Any, Any]]":
    return lambda: getattr(import_module(f"interp_core.experiments.{module}.experiment"), name)


@dataclass(frozen=True)
class Registered:
    """An experiment: what it is asked, and where it is."""

    request: type[Request]
    load: Callable[[], "Experiment[Any, Any, Any]"]


EXPERIMENTS: dict[str, Registered] = {
    "patch": Registered(PatchRequest, _lazily("patching", "PATCHING")),
    "compare": Registered(CompareRequest, _lazily("compare", "COMPARE")),
    "heads": Registered(HeadsRequest, _lazily("heads", "HEADS")),
    "ablate": Registered(AblateRequest, _lazily("neurons", "NEURONS")),
    "signflip": Registered(SignflipRequest, _lazily("signflip", "SIGNFLIP")),
    "probes": Registered(ProbesRequest, _lazily("probes", "PROBES")),
    "steer": Registered(SteerRequest, _lazily("steering", "STEERING")),
}


def experiment_of(command: str) -> "Experiment[Any, Any, Any]":
    """The experiment of a command. Errors: InterpError for a command that is none."""
    if command not in EXPERIMENTS:
        raise InterpError(f"no experiment is called {command!r} (known: {', '.join(EXPERIMENTS)}).")
    return EXPERIMENTS[command].load()
