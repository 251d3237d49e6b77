"""Two runs of one experiment, laid over each other: where they were asked differently, and by how much they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from components.shown import Shown
from interp_core.options import settings_apart

ONE, OTHER, DIFFERENCE = "run 1", "run 2", "run 1 − run 2"
DIGITS_OF_A_HASH = 12


@dataclass(frozen=True, eq=False)
class Compared:
    """One series of two runs.

    Attributes:
        points: x, run 1, run 2 and their difference; NaN where a run has no value. In order of x where x is a number,
            else in the order of run 1.
        textual: whether x is a name.
    """

    points: pd.DataFrame
    textual: bool

    @property
    def both(self) -> pd.DataFrame:
        """The points that both runs have."""
        return self.points.dropna(subset=[DIFFERENCE]).reset_index(drop=True)

    def only(self, run: str) -> int:
        """How many points only this run has."""
        other = OTHER if run == ONE else ONE
        return int((self.points[run].notna() & self.points[other].isna()).sum())


def series_in_both(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """The series that two profiles share, in the order of the first."""
    theirs = set(other["series"])
    return [str(name) for name in pd.unique(one["series"]) if name in theirs]


def compare(one: pd.DataFrame, other: pd.DataFrame, series: str) -> Compared:
    """Lay a series of two profiles over each other, point by point.

    Args:
        one, other: series, x and value, one row a point, as `Result.profile` gives them.
    """
    sides = [profile[profile["series"] == series].dropna(subset=["value"]) for profile in (one, other)]
    textual = not all(is_numeric_dtype(side["x"]) for side in sides if len(side))
    if textual:
        sides = [side.assign(x=side["x"].astype(str)) for side in sides]
    values = []
    for side in sides:
        nth = side.groupby("x", sort=False).cumcount()  # an x that comes twice is two points
        values.append(dict(zip(zip(side["x"], nth, strict=True), side["value"].astype(float), strict=True)))
    here, there = values
    keys = list(dict.fromkeys([*here, *there]))
    if not textual:
        keys.sort()
    points = pd.DataFrame(
        {
            "x": [x for x, _ in keys],
            ONE: [here.get(key, float("nan")) for key in keys],
            OTHER: [there.get(key, float("nan")) for key in keys],
        }
    )
    points[DIFFERENCE] = points[ONE] - points[OTHER]
    return Compared(points, textual)


def apart(one: Shown, other: Shown) -> pd.DataFrame:
    """What was not the same in two runs: settings, model, weights, device, dtype, clips, versions; one row each.

    Raises:
        InterpError: a config of another version.
    """
    rows = [*settings_apart(one.request, other.request)]
    told = {name for name, *_ in rows}
    for name, path in FACTS:
        here, there = (_at(run.config, path) for run in (one, other))
        if here != there and name not in told:
            rows.append((name, _said(name, here), _said(name, there)))
    versions = [run.config.get("versions") or {} for run in (one, other)]
    for package in dict.fromkeys([*versions[0], *versions[1]]):
        here, there = (str(known.get(package, "not said")) for known in versions)
        if here != there:
            rows.append((f"version of {package}", here, there))
    return pd.DataFrame(rows, columns=["setting", ONE, OTHER], dtype=str)


FACTS: tuple[tuple[str, Sequence[str]], ...] = (
    ("model", ("model", "id")),
    ("weights", ("model", "weights_sha256")),
    ("donor", ("donor", "id")),
    ("weights of the donor", ("donor", "weights_sha256")),
    ("device", ("device",)),
    ("dtype", ("dtype",)),
    ("clips", ("manifest", "clips")),
    ("hash of the clips", ("manifest", "sha256")),
)
"""What a config says beside the settings."""


def _at(config: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = config
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _said(name: str, value: Any) -> str:
    text = "not said" if value is None else str(value)
    return text[:DIGITS_OF_A_HASH] if name.startswith(("weights", "hash")) else text


def in_words(compared: Compared, x_title: str) -> str:
    """What the comparison shows, in a sentence or three; plain text."""
    both = compared.both
    if both.empty:
        return "The two runs share no point of this series."
    at = int(both[DIFFERENCE].abs().to_numpy().argmax())
    largest, mean = both.iloc[at], both[DIFFERENCE].mean()
    sentences = [
        f"{len(both)} point{'s' * (len(both) != 1)} in both; run 1 is on average {abs(mean):.3g} "
        f"{'above' if mean > 0 else 'below'} run 2, and furthest from it at {place(largest['x'], x_title)} "
        f"({largest[DIFFERENCE]:+.3g})."
    ]
    if not both[DIFFERENCE].any():
        sentences = [f"{len(both)} point{'s' * (len(both) != 1)} in both, and the two runs agree in every one."]
    left_out = [f"{count} that only {run} has" for run in (ONE, OTHER) if (count := compared.only(run))]
    if left_out:
        sentences.append(f"Left out of the differences: {' and '.join(left_out)}.")
    return " ".join(sentences)


def place(x: Any, x_title: str) -> str:
    """A point for a person: `layer 3`, `the embeddings`, `S0 B1 H2`."""
    if isinstance(x, str):
        return x
    if x_title == "layer" and x == -1:
        return "the embeddings"
    return f"{x_title} {x:g}" if x_title.endswith("layer") else f"{x_title} = {x:g}"
