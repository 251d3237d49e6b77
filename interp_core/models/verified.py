"""What was checked on real weights: the records that `verify-model` wrote and somebody sent in, in docs/verified."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interp_core.errors import InterpError
from interp_core.storage import read_json

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "verified"
"""Beside the packages, so in a source checkout alone."""


@dataclass(frozen=True)
class Verified:
    """One checkpoint that passed: what it is called, its model type, where and when."""

    name: str
    model_type: str
    dtype: str
    device: str
    date: str
    sites: tuple[str, ...] = ()
    """Inside its blocks."""

    def __str__(self) -> str:
        return f"{self.name} ({self.dtype}, {self.date})"


def verified(folder: Path = FOLDER) -> Iterator[Verified]:
    """Yield the records that passed, by file name.

    Raises:
        InterpError: a record that cannot be read, or that says nothing of a model.
    """
    for path in sorted(folder.glob("*.json")):
        record = read_json(path)
        try:
            if record["passed"] is True:
                model = record["model"]
                words = (model["id"], model["type"], record["dtype"], record["device"], record["verified"])
                name, kind, dtype, device, date = map(str, words)
                yield Verified(name, kind, dtype, device, date, tuple(map(str, record.get("sites", ()))))
        except (KeyError, TypeError) as error:
            raise InterpError(f"{path} is no record of verify-model: {error} is missing or wrong.") from error
