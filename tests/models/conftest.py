"""Encoder subjects and audio LLMs, each written and opened once a session."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.load import open_model
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from tests.conftest import our_hooks
from tests.families.audio_llms import FAMILIES
from tests.families.encoders import save_wavlm
from tests.families.subjects import CASES, Opened, open_case
from tests.tiny import RATE, tone
from tests.trace.naive import PROMPT

AUDIO_LLM_CLIPS = {"short": (0.5, 200), "middle": (0.8, 350), "long": (1.3, 500), "twin": (0.8, 650)}
"""Seconds and Hz; `middle` and `twin` take the same number of positions."""

Open = Callable[[str], Opened]
OpenFamily = Callable[[str], AudioLLM]
Runs = dict[str, CleanRun]


@pytest.fixture(scope="session")
def open_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Open a case by name, with its clips' clean runs; equal calls share one. Read only."""
    torch.set_num_threads(1)
    made: dict[str, Opened] = {}

    def opened(name: str) -> Opened:
        if name not in made:
            case = CASES[name]
            # The parts of one Whisper are written and opened on their own: they share nothing here.
            made[name] = open_case(case, case.write(tmp_path_factory.mktemp("encoder") / "model"))
        return made[name]

    yield opened
    for one in made.values():
        assert our_hooks(one.subject) == [], "a test left a hook behind"


@pytest.fixture(params=CASES)
def one(request: pytest.FixtureRequest, open_once: Open) -> Opened:
    """Each case in turn."""
    return open_once(request.param)


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenFamily]:
    """OpenFamily a family's tiny folder, once a session."""
    torch.set_num_threads(1)
    made: dict[str, AudioLLM] = {}

    def subject(family: str) -> AudioLLM:
        if family not in made:
            folder = FAMILIES[family](tmp_path_factory.mktemp(family) / "model")
            found = open_model(str(folder), device="cpu")
            assert isinstance(found, AudioLLM)
            made[family] = found
        return made[family]

    yield subject
    for subject_ in made.values():
        assert our_hooks(subject_) == [], "a test left a hook behind"


@pytest.fixture(scope="session")
def runs_of_family(opened: OpenFamily) -> Callable[[str], Runs]:
    made: dict[str, Runs] = {}

    def runs(family: str) -> Runs:
        if family not in made:
            subject = opened(family)
            stems = {
                name: prompt_clip(subject, clip_for(subject, *about), PROMPT, name)
                for name, about in AUDIO_LLM_CLIPS.items()
            }
            made[family] = {name: clean_runs(subject, [stem], subject.kinds)[0] for name, stem in stems.items()}
        return made[family]

    return runs


def clip_for(subject: AudioLLM, seconds: float, hertz: float) -> np.ndarray:
    """A clip of so many seconds at the rate that the model hears; `tone` makes one at 16 kHz."""
    return tone(seconds * subject.sample_rate / RATE, hertz)


@pytest.fixture(scope="session")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny WavLM's folder; read only."""
    return save_wavlm(tmp_path_factory.mktemp("wavlm") / "model")


@pytest.fixture
def folder(wavlm: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(wavlm, tmp_path / "model"))


def refused(name: str | Path, adapter: str | Path = "") -> str:
    """What is said of a model that does not open: one sentence or a few, in a line."""
    with pytest.raises(InterpError) as error:
        open_model(str(name), device="cpu", adapter=str(adapter))
    message = str(error.value)
    assert "\n" not in message and 20 < len(message) < 600
    return message
