"""The models that are at hand, and the types that can be opened, as the lines of tables.

The list of types is that of the command `models`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from components import server
from interp_core.errors import InterpError
from interp_core.experiments.fitting import lacks
from interp_core.models import bundled
from interp_core.models.families import Family, families, lacking, of_records
from interp_core.models.found import family_at, find_models
from interp_core.models.verified import Verified, verified
from interp_core.request import short_name

MOST_FOLDERS = 20_000
"""How many folders below one that may be read are looked into."""
REAL, DEMO, RANDOM = "real weights", "a trained demo", "random weights only"


@dataclass(frozen=True)
class Row:
    """A type.

    Attributes:
        family: its entry. records: of checkpoints of it with their published weights.
        lacks: command of each experiment -> why models of the type cannot be asked it, None where they can.
    """

    family: Family
    records: tuple[Verified, ...]
    lacks: dict[str, str | None]

    @property
    def suited(self) -> tuple[str, ...]:
        """The commands that run on it."""
        return tuple(name for name, lack in self.lacks.items() if lack is None)

    @property
    def checked(self) -> str:
        """On what, in two or three words."""
        return REAL if self.records else DEMO if self.family.trained else RANDOM

    @property
    def words(self) -> str:
        """All that a search looks through."""
        one = self.family
        said = (one.name, one.group, *one.types, one.opens, *one.sites, one.readout, one.trained, *self.suited)
        return " ".join([*said, self.checked, *map(str, self.records)]).casefold()


@dataclass(frozen=True)
class AtHand:
    """A model that can be opened now: what --model takes, what to call it, and its type where files say it."""

    name: str
    title: str
    about: str
    family: Family | None
    bundled: bool

    @property
    def words(self) -> str:
        """All that a search looks through."""
        return " ".join([self.name, self.title, self.about, self.family.name if self.family else ""]).casefold()


@cache
def every() -> tuple[Row, ...]:
    """Every type; they do not change while the server runs."""
    known, records = families(), list(verified())
    return tuple(Row(one, tuple(of_records(one, records, known)), lacks(one)) for one in known)


def matching(rows: Iterable[Row], *, groups: Collection[str], runs: Collection[str], text: str) -> list[Row]:
    """The rows of some kinds, on which all of some experiments run, in which all words of a text stand."""
    return [
        row
        for row in rows
        if (not groups or row.family.group in groups) and set(runs) <= set(row.suited) and has(row.words, text)
    ]


def has(words: str, text: str) -> bool:
    """Whether all words of a text stand in what a search looks through."""
    return all(word in words for word in text.casefold().split())


def table(rows: Sequence[Row], titles: dict[str, str]) -> pd.DataFrame:
    """The rows for the screen.

    Args:
        titles: command -> what a person calls the experiment.
    """
    return pd.DataFrame(
        {
            "type": [row.family.name for row in rows],
            "kind": [row.family.group for row in rows],
            "sites": [len(row.family.sites) for row in rows],
            "experiments": [", ".join(titles[name] for name in row.suited) for row in rows],
            "checked on": [row.checked for row in rows],
        }
    )


def cannot(text: str) -> dict[str, list[str]]:
    """What is in the way -> the types that cannot be opened for it, those in which all words of a text stand."""
    found = {lack: [one for one in names if has(f"{one} {lack}".casefold(), text)] for lack, names in lacking().items()}
    return {lack: names for lack, names in found.items() if names}


def shipped() -> list[AtHand]:
    """The bundled models."""
    known = [row.family for row in every()]
    return [
        AtHand(demo.name, demo.name, demo.title, family_at(demo.model_dir, known), bundled=True)
        for demo in bundled.demos().values()
    ]


def models_at_hand() -> tuple[list[AtHand], list[str]]:
    """The model folders below what may be read, but for what ships; and why not all folders were looked into."""
    models: dict[Path, AtHand] = {}
    faults = []
    for root in searched():
        try:
            for one in find_models(root, MOST_FOLDERS):
                if not one.path.is_relative_to(bundled.ASSETS):
                    models[one.path] = AtHand(
                        str(one.path), short_name(str(one.path)), str(one.path.parent), one.family, bundled=False
                    )
        except InterpError as error:
            faults.append(str(error))
    return [models[path] for path in sorted(models)], faults


def searched() -> list[Path]:
    """The folders that are searched: those that may be read, none inside another."""
    kept = {server.data_folder(), bundled.ASSETS.resolve()}
    roots = [root for root in dict.fromkeys(server.roots()) if root not in kept]
    return [root for root in roots if not any(root != other and root.is_relative_to(other) for other in roots)]
