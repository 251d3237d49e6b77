"""Interventions on speech and audio models: Patchbay's engine, from Python. See `interp_core.api`.

Everything public is named here, the requests of all experiments by the registry; it is imported when it is asked for,
so that `import interp_core` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp_core.api import default_engine as default_engine
    from interp_core.api import open_model as open_model
    from interp_core.api import open_run as open_run
    from interp_core.api import run as run
    from interp_core.engine import Engine as Engine
    from interp_core.errors import CheckFailed as CheckFailed
    from interp_core.errors import InterpError as InterpError
    from interp_core.experiments import *  # noqa: F403

_PLACES = {
    "CheckFailed": "interp_core.errors",
    "Engine": "interp_core.engine",
    "InterpError": "interp_core.errors",
    "default_engine": "interp_core.api",
    "open_model": "interp_core.api",
    "open_run": "interp_core.api",
    "run": "interp_core.api",
}


def _requests() -> dict[str, type]:
    """The requests of all experiments by the name of their class."""
    registry = import_module("interp_core.experiments").EXPERIMENTS
    return {registered.request.__name__: registered.request for registered in registry.values()}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name == "__all__":
        return sorted([*_PLACES, *_requests()])
    if name.endswith("Request") and name in (known := _requests()):
        return known[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES, *_requests()])
