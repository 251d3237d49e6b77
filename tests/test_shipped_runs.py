"""What ships with the demos is what today's code computes: a run of every experiment, a part of it made again.

Of records the first chunk of each condition is computed again, and all tables are, from the shipped records of the
other chunks. An experiment that keeps no records is run again with fewer layers or random draws, and what does not hang
on those is compared.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp_core.engine import Engine
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.experiment import open_result
from interp_core.models.bundled import ASSETS
from interp_core.runs import read_config
from interp_core.sinks import MemorySink

RELATIVE = 1e-6
"""Of what two float32 routes to a number may differ by, where another machine has other kernels or more threads: about
8 rounding steps of 1.2e-7. What is kept rounded may besides come out a step higher or lower in its last digit."""


@dataclass(frozen=True)
class Again:
    """A part of a shipped run: what is set otherwise, and of each table the columns by which its rows are found again.

    Attributes:
        without: how columns begin that hang on what is set otherwise. rows: those of each table that do not.
        step: of the last digit in which its records keep logits.
    """

    folder: str
    changes: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    rows: dict[str, str] = field(default_factory=dict)
    step: float = 0.0


OF_CURVE = ("kind", "prompt", "alpha", "condition", "layer")
AGAIN = {
    "patch": Again(
        "demo-emotion/run",
        {"checks": False, "flow": ("question", "last")},
        {"records": (*OF_CURVE, "pair_id"), "metrics": OF_CURVE},
        step=1e-5,
    ),
    "steer": Again(
        "demo-emotion/run-steer", {"checks": False}, {"records": (), "dose": (), "smallest_alpha": ()}, step=1e-4
    ),
    "compare": Again(
        "demo-spoof-erm/run-compare",
        {"checks": False, "domain": "none"},
        {"summary": (), "cka": (), "scores": ()},
        without=("probe_",),  # dozens of probes with nested C take a minute
    ),
    "heads": Again(
        "demo-emotion-wavlm/run-heads",
        {"ablate": ()},
        {"fisher": ("granularity", "layer", "head", "name"), "clips": ()},
    ),
    "ablate": Again(
        "demo-emotion-wavlm/run-ablate",
        {"draws": 1, "refits": 0},
        {"scores": (), "curve": ("set", "k"), "answers": ("set", "k", "split", "clip_id")},
        without=("domain_refit", "task_refit"),
        rows={"curve": "set in ('domain', 'task')"},
    ),
    "signflip": Again(
        "demo-emotion-wavlm/run-signflip",
        {"layers": (4,), "draws": 0},
        {
            "top": ("layer", "rank"), "changes": ("flipped", "measured", "proxy"),
            "links": ("layer", "proxy", "quantity"), "effects": ("flipped", "condition"),
            "clips": ("flipped", "clip_id"),
        },
        without=("random_mean", "random_low", "random_high", "p_random"),
    ),
    "probes": Again(
        "demo-emotion/run-probes",
        {"layers": (3,), "draws": 19, "controls": 0},
        {"probes": ("target", "site", "place", "layer")},
        without=("p_adjusted", "control", "selectivity", "control_method", "test"),
    ),
}  # fmt: skip


class ShippedSink(MemorySink):
    """Hands out the records of a shipped run, but for the first chunk of each condition: those are compared."""

    def __init__(self, folder: Path, step: float) -> None:
        super().__init__()
        self.folder, self.step, self.compared = folder, step, 0
        self.kept: dict[str, dict[int, list[dict[str, Any]]]] = {}
        self.again: dict[str, set[int]] = {}

    def expect(self, name, chunks):
        kept = self.kept[name] = {}
        for line in (self.folder / name).read_text("utf-8").splitlines():
            row = json.loads(line)
            row.pop("chunk_sha256")
            kept.setdefault(row.pop("chunk"), []).append(row)
        assert {number: len(rows) for number, rows in kept.items()} == dict(chunks), name
        first: dict[Any, int] = {}
        for number, rows in sorted(kept.items(), reverse=True):
            first |= {row.get("condition"): number for row in rows}
        self.again[name] = set(first.values())

    def records(self, name, chunk):
        return None if chunk in self.again[name] else self.kept[name][chunk]

    def keep_records(self, name, chunk, records):
        made = super().keep_records(name, chunk, records)
        self.compared += len(made)
        same(pd.DataFrame(made), pd.DataFrame(self.kept[name][chunk]), f"{name}, chunk {chunk}", step=self.step)
        return made


def same(made: pd.DataFrame, shipped: pd.DataFrame, where: str, without: tuple[str, ...] = (), step: float = 0) -> None:
    """Whether two tables of the same rows hold the same."""
    assert len(made) == len(shipped) and len(made), where
    for name in [one for one in shipped.columns if one in made.columns and not one.startswith(without or ("no such",))]:
        one, other = made[name].tolist(), shipped[name].tolist()
        one, other = _flat(one), _flat(other)
        if any(isinstance(value, float) for value in other):
            one, other = (np.asarray([np.nan if v is None else v for v in values], float) for values in (one, other))
            np.testing.assert_allclose(one, other, rtol=RELATIVE, atol=RELATIVE + step, err_msg=f"{where}: {name}")
        else:
            assert one == other, f"{where}: {name}"


def _flat(values: Any) -> list[Any]:
    """What lists hold, one behind the other, with the length of each; None for what is missing."""
    found: list[Any] = []
    for value in values:
        found += [len(value), *_flat(value)] if isinstance(value, list) else [None if value != value else value]
    return found


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as they are made, by assets/make/saved_runs.py
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("command", EXPERIMENTS)
def test_a_part_of_a_shipped_run_comes_out_as_it_ships(command):
    part, experiment = AGAIN[command], experiment_of(command)
    folder = ASSETS / part.folder
    shipped = open_result(experiment, folder)
    request = replace(
        experiment.request.from_config(read_config(folder)), device="cpu", dtype="float32", **part.changes
    )
    sink = ShippedSink(folder, part.step)
    made = experiment.compute(experiment.prepare(Engine(), request), sink, lambda *_: None)
    assert sink.compared or not sink.kept
    for name, keys in part.tables.items():
        here, there = made.tables()[name], shipped.tables()[name]
        if name in part.rows:
            here = here.query(part.rows[name])
        if keys:
            there = here[list(keys)].merge(there, on=list(keys), how="left", validate="one_to_one")
        same(here, there, name, part.without, part.step)


def test_tables_that_differ_are_seen():
    table = pd.DataFrame({"name": ["a", "b"], "value": [1.0, 2.0], "logits": [[0.5, 1.0], [2.0, 3.0]]})
    same(table, table, "the same")
    for name, values in (("name", ["a", "c"]), ("value", [1.0, 2.00001]), ("logits", [[0.5, 1.0], [2.0, 3.00001]])):
        with pytest.raises(AssertionError, match=name):
            same(table, table.assign(**{name: values}), "another")
