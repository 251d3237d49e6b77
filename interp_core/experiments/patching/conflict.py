"""What a patching run can add of its clips alone: later layers in earlier ones, and prompts that state an answer.

Here are their part of a run, of its result and of its folder; what they compute is in `back_map` and `stated`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from interp_core.errors import InterpError
from interp_core.experiments.checks import CheckReport
from interp_core.experiments.figures import Figure
from interp_core.experiments.patching import back_map, stated
from interp_core.experiments.patching.back_map import BACK, checked_back, run_back_chunk, summarise_back
from interp_core.experiments.patching.chunks import Step
from interp_core.experiments.patching.clip_chunks import ClipChunk, clip_chunks, clips_of_pairs
from interp_core.experiments.patching.conflict_figures import back_figure, stated_figure
from interp_core.experiments.patching.limits import BACK_LIMITS, STATED_LIMITS
from interp_core.experiments.patching.plan import Plan
from interp_core.experiments.patching.stated import (
    run_stated_chunk,
    run_stated_layers,
    stated_chunks,
    summarise_stated,
    summarise_stated_layers,
    words_column,
)
from interp_core.runs import RunWriter
from interp_core.sinks import Records, Sink, recorded
from interp_core.storage import read_csv, read_records
from interp_core.trace.store import CleanStore

NEEDS = {
    "back_map": ("prompt", "column", "source", "target", "accuracy_change"),
    "stated_shares": ("prompt", "items", "source", "share"),
    "stated_layers": ("prompt", "span", "layer", "items", "source", "share"),
}
"""The tables, each a CSV of its name, and the columns without which it is none."""


@dataclass(frozen=True, eq=False, repr=False)
class Conflict:
    """Tables; each is empty where it was not asked for.

    Attributes:
        back_map: see `summarise_back`; back_records: see `run_back_chunk`.
        stated_shares, stated_layers: see `summarise_stated` and `summarise_stated_layers`.
        stated_records, stated_layer_records: see `run_stated_chunk` and `run_stated_layers`.
    """

    back_map: pd.DataFrame = field(default_factory=pd.DataFrame)
    back_records: Records = field(default_factory=list)
    stated_shares: pd.DataFrame = field(default_factory=pd.DataFrame)
    stated_layers: pd.DataFrame = field(default_factory=pd.DataFrame)
    stated_records: Records = field(default_factory=list)
    stated_layer_records: Records = field(default_factory=list)

    def tables(self) -> dict[str, pd.DataFrame]:
        return {name: table for name in NEEDS if len(table := getattr(self, name))}

    def figures(self, prompts: Sequence[str], title: str) -> dict[str, Figure]:
        """Args: prompts: what the questions are called, in order. title: of the run."""
        found: dict[str, Figure] = {}
        if len(self.back_map):
            first = self.back_map[self.back_map["prompt"] == 0]
            found["back_map"] = back_figure(first, f"{title}: later layers' states in earlier layers, first question")
        if len(self.stated_shares):
            said = f"{title}: whom the answers follow when the prompt states one"
            found["stated"] = stated_figure(self.stated_shares, self.stated_layers, prompts, said)
        return found

    def limits(self) -> str:
        """What the tables that are there do not show, in markdown."""
        back, told = BACK_LIMITS if len(self.back_map) else "", STATED_LIMITS if len(self.stated_shares) else ""
        return back.lstrip("\n") + told.lstrip("\n")

    def summary(self) -> Iterator[str]:
        if len(self.back_map):
            yield from back_map.back_summary(self.back_map)
        if len(self.stated_shares):
            yield from stated.stated_summary(self.stated_shares)


def question_names(prompts: Sequence[str]) -> list[str]:
    """Questions by number; a run knows no other name of them."""
    return [f"question {number}" for number in range(1, len(prompts) + 1)]


def steps_of(plan: Plan) -> int:
    """How many clips are done, each chunk's counted."""
    return sum(len(chunk.clips) for chunk in (*_back_chunks(plan), *stated_chunks(plan)))


def checked(plan: Plan, store: CleanStore, report: CheckReport) -> CheckReport:
    """A run's checks, with those of what its clips are asked for."""
    return checked_back(plan, store, report) if BACK in plan.settings.maps else report


def cost_of(plan: Plan, store: CleanStore) -> float:
    """In clean forward passes."""
    passes = stated.cost_of_stated(plan, store)
    return passes + (back_map.cost_of_back(plan, store) if BACK in plan.settings.maps else 0.0)


def _back_chunks(plan: Plan) -> list[ClipChunk]:
    return clip_chunks(plan) if BACK in plan.settings.maps else []


def records_of(plan: Plan, store: CleanStore, sink: Sink, step: Step) -> dict[str, Records]:
    """Compute all chunks of clips, in a shard those of its own, as fields of `Conflict`."""
    n_labels, back, told = len(plan.settings.labels), _back_chunks(plan), stated_chunks(plan)
    # A clip's layers have a record a label and span; how many spans its prompts share is known when it is asked.
    spans = len(stated.spans_of(plan, store, told[0].clips[0])) if told else 0
    work = [
        ("back_records", back_map.RECORDS, back, 1, run_back_chunk, "later layers in earlier ones"),
        ("stated_records", stated.RECORDS, told, 1 + n_labels, run_stated_chunk, "prompts that state an answer"),
        (
            *("stated_layer_records", stated.LAYER_RECORDS, told, n_labels * spans),
            *(run_stated_layers, "prompts that state an answer, by layer"),
        ),
    ]
    found: dict[str, Records] = {name: [] for name, *_ in work}
    for name, file, chunks, each, compute, said in work:
        if not chunks:
            continue
        sink.expect(file, {chunk.number: each * len(chunk.clips) for chunk in chunks})
        for chunk in chunks:
            done = len(chunk.clips) if name != "stated_layer_records" else 0
            if not sink.skips(chunk.group):
                found[name] += recorded(sink, file, chunk.number, partial(compute, plan, store, chunk))
            step(done, said)
    return found


def tables_of(
    plan: Plan, records: Mapping[str, Records], clusters: Mapping[str, str], column: str
) -> Conflict:  # fmt: skip
    """The tables that rest on the records of all chunks."""
    settings, labels = plan.settings, plan.settings.labels
    about: dict[str, Any] = {"cluster_column": column}
    found: dict[str, Any] = dict(records)
    if records["back_records"]:
        found["back_map"] = summarise_back(records["back_records"], labels, clusters, **about)
    if records["stated_records"]:
        words = words_column(settings, clips_of_pairs(plan))
        about["columns"] = [settings.stated, *([words] if words else [])]
        found["stated_shares"] = summarise_stated(records["stated_records"], clusters, **about)
        found["stated_layers"] = summarise_stated_layers(records["stated_layer_records"], labels, clusters, **about)
    return Conflict(**found)


def write(writer: RunWriter, conflict: Conflict) -> None:
    """Write the tables of a finished run; its records are there."""
    for name, table in conflict.tables().items():
        writer.write_csv(f"{name}.csv", table)


def read(folder: Path, config: Mapping[str, Any]) -> Conflict:
    """Read them back; of an unfinished run as far as they are there.

    Raises:
        InterpError: a file that the settings of a finished run make is missing, or is broken.
    """
    settings, finished = config.get("settings", {}), bool(config.get("finished"))
    needed = [back_map.RECORDS, "back_map.csv"] if BACK in settings.get("maps", ()) else []
    if settings.get("stated"):
        needed += [stated.RECORDS, stated.LAYER_RECORDS, "stated_shares.csv", "stated_layers.csv"]
    if finished and (missing := [name for name in needed if not (folder / name).exists()]):
        raise InterpError(f"{folder} lacks {', '.join(missing)}; restore it or run again.")
    found: dict[str, Any] = {
        name: read_csv(path, needs=needs) for name, needs in NEEDS.items() if (path := folder / f"{name}.csv").exists()
    }
    files = {"back_records": back_map.RECORDS, "stated_records": stated.RECORDS}
    files["stated_layer_records"] = stated.LAYER_RECORDS
    for name, file in files.items():
        if (folder / file).exists():
            found[name] = read_records(folder / file, finished)
    return Conflict(**found)
