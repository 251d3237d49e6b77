"""A patching run and its folder: what goes into which file, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp_core.errors import InterpError
from interp_core.experiments.figures import save_png
from interp_core.experiments.patching import conflict
from interp_core.experiments.patching.necessity import SIDES, with_side
from interp_core.experiments.patching.result import PatchingResult
from interp_core.runs import RunWriter
from interp_core.storage import read_csv, read_json, read_lines, read_records

NONE = pd.DataFrame()
REPORTS = ("tokenization_report", "pair_construction_report", "sanity_check_self_patch", "sanity_check_audio_span")


def write(writer: RunWriter, result: PatchingResult) -> None:
    """Write what a finished run adds to its records: metrics, curves, reports, information flow."""
    for name, report in result.reports.items():
        writer.write_json(f"{name}.json", report)
    for kind in dict.fromkeys(line["kind"] for line in result.pairs):
        of_kind = result.metrics[result.metrics.kind == kind]
        writer.write_csv(f"patching_metrics_{kind}.csv", of_kind[of_kind.condition == "matched"])
        writer.write_csv(f"control_metrics_{kind}.csv", of_kind[of_kind.condition != "matched"])
        if len(result.answers):
            answers = result.answers[result.answers.kind == kind]
            writer.write_csv(f"answers_{kind}.csv", answers)
            writer.write_csv(f"words_moved_{kind}.csv", result.words_moved[result.words_moved.kind == kind])
        if len(result.heads_of(kind)):
            writer.write_csv(f"head_map_{kind}.csv", result.head_map[result.head_map["kind"] == kind])
        if len(result.time_map):
            of_time = result.time_map[result.time_map.kind == kind]
            writer.write_csv(f"time_map_{kind}.csv", of_time)
            writer.write_csv(f"time_necessity_{kind}.csv", result.necessity[result.necessity.kind == kind])
        if len(exchanged := result.subspace_of(kind)):
            writer.write_csv(f"subspace_{kind}.csv", exchanged)
    for name, figure in result.figures().items():
        save_png(figure, writer.path(f"{name}.png"))
    for name, table in (("edits", result.edits), ("edit_doses", result.edit_doses)):
        if len(table):
            writer.write_csv(f"{name}.csv", table)
    conflict.write(writer, result.conflict)
    if len(result.head_agreement):
        writer.write_csv("head_agreement.csv", result.head_agreement)
    if len(result.lens):
        writer.write_csv("logit_lens.csv", result.lens)
    if len(result.knockout):
        writer.write_csv("knockout.csv", result.knockout)


def read(folder: Path, config: Mapping[str, Any]) -> PatchingResult:
    """Read a run folder; one that is not finished is read as far as it is there.

    Raises:
        InterpError: a file that a finished run must have is missing, or one is broken. Only the last line of the
            records of an unfinished run may be cut short: it is left out.
    """
    finished = bool(config.get("finished"))
    present = sorted(path for path in folder.iterdir() if path.is_file())

    def named(*starts: str) -> list[Path]:
        return [path for start in starts for path in present if path.name.startswith(start)]

    pairs = {path: read_lines(path, finished) for path in named("pair_list_") if path.suffix == ".jsonl"}
    if finished:
        needed = ["pair_construction_report.json"]
        for path, listed in pairs.items():
            kind = path.stem.removeprefix("pair_list_")
            needed += [f"patching_records_{kind}.jsonl", f"patching_metrics_{kind}.csv"] if listed else []
            if listed and "time" in config.get("settings", {}).get("maps", ()):
                needed += [f"time_map_{kind}.csv", f"time_map_records_{kind}.jsonl", f"time_necessity_{kind}.csv"]
            if listed and config.get("settings", {}).get("subspace", "none") != "none":
                needed += [f"subspace_{kind}.csv", f"subspace_records_{kind}.jsonl"]
        missing = [name for name in needed if not (folder / name).exists()]
        if missing or not pairs:
            raise InterpError(f"{folder} lacks {', '.join(missing or ['pair_list_*.jsonl'])}; restore it or run again.")
    records = [row for path in named("patching_records_", "control_records_") for row in read_records(path, finished)]
    # From the records and not from the table for people, in which an empty answer and a missing one look alike.
    answers = [row for path in named("answers_records_") for row in read_records(path, finished)]
    metrics = []
    for path in named("patching_metrics_", "control_metrics_"):
        metrics.append(read_csv(path))
        if lacking := {"kind", "condition", "layer"} - set(metrics[-1].columns):
            raise InterpError(f"{path} lacks the columns {', '.join(sorted(lacking))}; restore it or run again.")
    # An empty table has no numbers, so columns of gaps would become texts beside it.
    metrics = [table for table in metrics if len(table)] or metrics
    time_map, necessity = (_together(named(start)) for start in ("time_map_", "time_necessity_"))
    if len(time_map) and (lacking := {"kind", "layer", "window", "mean"} - set(time_map.columns)):
        raise InterpError(f"{folder}: its time map lacks the columns {', '.join(sorted(lacking))}; run it again.")
    if len(necessity) and "side" not in necessity:  # written when windows were masked in the recipient alone
        necessity.insert(0, "side", SIDES[0])
    subspace = _together(named("subspace_"))
    if len(subspace) and (lacking := {"kind", "condition", "layer", "rank"} - set(subspace.columns)):
        raise InterpError(f"{folder}: its subspaces lack the columns {', '.join(sorted(lacking))}; run it again.")
    windows, masks, exchanged = (
        [row for path in named(start) for row in read_records(path, finished)]
        for start in ("time_map_records_", "time_necessity_records_", "subspace_records_")
    )
    return PatchingResult(
        config=config,
        records=pd.DataFrame(records),
        metrics=pd.concat(metrics, ignore_index=True) if metrics else pd.DataFrame(),
        pairs=[row for listed in pairs.values() for row in listed],
        reports={name: read_json(path) for name in REPORTS if (path := folder / f"{name}.json").exists()},
        lens=_optional(folder / "logit_lens.csv"),
        knockout=_optional(folder / "knockout.csv"),
        answers=pd.DataFrame(answers),
        words_moved=pd.concat(map(read_csv, moved), ignore_index=True) if (moved := named("words_moved_")) else NONE,
        **_head_map(folder, named("head_map_")),
        time_map=time_map,
        necessity=necessity,
        time_records=pd.DataFrame(windows),
        mask_records=pd.DataFrame(map(with_side, masks)),
        edits=_optional(folder / "edits.csv"),
        edit_doses=_optional(folder / "edit_doses.csv"),
        conflict=conflict.read(folder, config),
        subspace=subspace,
        subspace_records=pd.DataFrame(exchanged),
    )


def _head_map(folder: Path, present: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """The tables of the map of heads; none of a run without it."""
    paths = [path for path in present if path.suffix == ".csv"]
    if not paths:
        return {}
    maps = [read_csv(path, texts=("units", "verified"), needs=("site", "layer", "head", "verified")) for path in paths]
    agreement = read_csv(folder / "head_agreement.csv", needs=("kind", "prompt", "spearman"))
    return {"head_map": pd.concat(maps, ignore_index=True), "head_agreement": agreement}


def _together(paths: Sequence[Path]) -> pd.DataFrame:
    tables = [read_csv(path) for path in paths if path.suffix == ".csv"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _optional(path: Path) -> pd.DataFrame:
    return read_csv(path) if path.exists() else pd.DataFrame()
