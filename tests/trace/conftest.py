"""Clean runs of the clips that the tests of tracing share."""

from collections.abc import Callable

import pytest

from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from tests.tiny import tone
from tests.trace.naive import PROMPT

CLIPS = {"short": (0.4, 200), "middle": (0.8, 350), "long": (1.2, 500), "twin": (0.8, 650)}
"""Seconds and Hz; `middle` and `twin` take the same number of positions."""

Runs = dict[str, CleanRun]
RunsOf = Callable[[AudioLLM], Runs]


@pytest.fixture(scope="session")
def runs_of() -> RunsOf:
    """Run each clip by itself on a model, with every kind of site kept; each model's runs are made once."""
    made: dict[int, Runs] = {}

    def runs(subject: AudioLLM) -> Runs:
        if id(subject) not in made:
            stems = {name: prompt_clip(subject, tone(*about), PROMPT, name) for name, about in CLIPS.items()}
            made[id(subject)] = {name: clean_runs(subject, [stem], subject.kinds)[0] for name, stem in stems.items()}
        return made[id(subject)]

    return runs


@pytest.fixture(scope="session")
def runs(tiny: AudioLLM, runs_of: RunsOf) -> Runs:
    return runs_of(tiny)
