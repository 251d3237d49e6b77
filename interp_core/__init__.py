"""Interventions on speech and audio models: Patchbay's engine, from Python. See `interp_core.api`.

Everything public is named here; it is imported when it is asked for, so that `import interp_core` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_core.api import default_engine, open_model, open_run, run
    from interp_core.engine import Engine
    from interp_core.errors import CheckFailed, InterpError
    from interp_core.experiments.compare.request import CompareRequest
    from interp_core.experiments.heads.request import HeadsRequest
    from interp_core.experiments.neurons.request import AblateRequest
    from interp_core.experiments.patching.request import PatchRequest
    from interp_core.experiments.probes.request import ProbesRequest
    from interp_core.experiments.signflip.request import SignflipRequest
    from interp_core.experiments.steering.request import SteerRequest

_PLACES = {
    "AblateRequest": "interp_core.experiments.neurons.request",
    "CheckFailed": "interp_core.errors",
    "CompareRequest": "interp_core.experiments.compare.request",
    "Engine": "interp_core.engine",
    "HeadsRequest": "interp_core.experiments.heads.request",
    "InterpError": "interp_core.errors",
    "PatchRequest": "interp_core.experiments.patching.request",
    "ProbesRequest": "interp_core.experiments.probes.request",
    "SignflipRequest": "interp_core.experiments.signflip.request",
    "SteerRequest": "interp_core.experiments.steering.request",
    "default_engine": "interp_core.api",
    "open_model": "interp_core.api",
    "open_run": "interp_core.api",
    "run": "interp_core.api",
}
__all__ = [
    "AblateRequest",
    "CheckFailed",
    "CompareRequest",
    "Engine",
    "HeadsRequest",
    "InterpError",
    "PatchRequest",
    "ProbesRequest",
    "SignflipRequest",
    "SteerRequest",
    "default_engine",
    "open_model",
    "open_run",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
