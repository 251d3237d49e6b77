"""Encoder subjects, each written and opened once a session."""

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.conftest import our_hooks
from tests.families.subjects import CASES, Opened, open_case

Open = Callable[[str], Opened]


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
