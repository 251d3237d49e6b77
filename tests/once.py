"""What several test files make alike, such as whole runs: made once a session, by the process that comes first."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` has filled in this session, here or in another of its processes; read only.

    Args:
        name: says all that it is made from. make: is given the folder, which is empty.
    """
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once" / name
    place.parent.mkdir(exist_ok=True)
    done = place.with_name(f"{name}.done")
    with FileLock(f"{place}.lock"):
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)  # of a process that failed on its way
            place.mkdir()
            make(place)
            done.touch()
    return place
