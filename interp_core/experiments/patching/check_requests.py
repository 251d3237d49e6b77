"""What `check` and `verify-model` are asked: the model, the clips and their pairs as a patching run names them, and of
its other settings those that their checks heed. All others are refused, with a setting that is new tomorrow.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from interp_core.experiments.patching.request import PatchRequest
from interp_core.options import declared
from interp_core.request import Request

OF_PAIRS = ("kinds", "max_pairs", "pairs", "prompts", "labels", "positions", "align", "several_tokens")
"""Which pairs are checked, under which questions, and where they are exchanged."""


def _without(heeded: Collection[str], why: str) -> dict[str, str]:
    known = {*(one.name for one in declared(Request)), *heeded}
    return {one.name: why for one in declared(PatchRequest) if one.name not in known}


@dataclass(frozen=True, repr=False)
class CheckRequest(PatchRequest):
    """Of `check`: the site, the layers and the strength of a run, too."""

    unused: ClassVar[Mapping[str, str]] = _without(
        (*OF_PAIRS, "donor_state", "site", "layers", "alphas"), "`check` looks at the first pairs of a run alone"
    )

    def as_run(self, **more: Any) -> PatchRequest:
        """The run whose pairs are checked, with further settings of it."""
        return PatchRequest(**{**{one.name: getattr(self, one.name) for one in fields(self)}, **more})


@dataclass(frozen=True, repr=False)
class VerifyRequest(CheckRequest):
    """Of `verify-model`, which takes every site, three layers and both routes by itself."""

    unused: ClassVar[Mapping[str, str]] = {
        **_without(OF_PAIRS, "`verify-model` checks every site, at layers of its own, by all routes"),
        "batch_size": "pairs are checked one by one",
    }
