"""What is asked unless somebody changes it: the settings of the run that ships with a demo, else those declared."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from components import shown
from interp_core.request import Request

Q = TypeVar("Q", bound=Request)
COMMON = (
    "model", "adapter", "manifest", "corpus", "part", "probe", "device", "dtype", "max_clips", "max_seconds",
    "skip_bad",
)  # fmt: skip
"""What the sidebar decides for every experiment."""
OF_A_DONOR = ("donor", "donor_adapter")


def with_common(request: Q, base: Request) -> Q:
    """A request about the model and the clips that the sidebar names."""
    return replace(request, **{name: getattr(base, name) for name in COMMON})


def usual(asked: Q) -> Q:
    """The usual settings for the models and clips of a request.

    A demo's own clips bring the settings of the run that ships with them; other clips have other columns and labels.
    """
    saved = shown.shipped(asked)
    if saved is None:
        return asked
    made = with_common(saved.request, asked)
    return replace(made, **{name: value for name in OF_A_DONOR if (value := getattr(asked, name, ""))})
