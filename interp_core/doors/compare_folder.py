"""The run folder of a comparison: what goes into which file, and back."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from interp_core.errors import InterpError
from interp_core.experiments.compare import Comparison
from interp_core.experiments.compare_ask import Question
from interp_core.experiments.compare_clean import TIME_MEAN
from interp_core.runs import RunWriter, open_run
from interp_core.storage import read_json, replace_file

RECORDS = "compare_records_logits.jsonl"
TABLES = {
    "cka": "cka.csv",
    "scores": "patched_scores.csv",
    "summary": "summary.csv",
    "probes": "probe.csv",
    "breakdown": "breakdown.csv",
}
MAY_BE_ABSENT = ("probes", "breakdown")
TEXTS = frozenset({
    *("representation", "base_point", "donor_point", "reason", "interval_method", "model", "clip_id", "label", "half"),
    *("answer", "mode", "sites", "chosen", "null", "needs_donor", "notes", "measured", "site", "clips", "test", "note"),
    *("by", "value", "probe_note"),
})  # fmt: skip


class RecordSink:
    """Logits of finished batches go to a record file, and come back from there when a run goes on."""

    def __init__(self, writer: RunWriter, question: Question) -> None:
        self._writer = writer
        self._question = question
        self._done: dict[int, list[dict[str, Any]]] | None = None

    def expect(self, arms: int) -> None:
        """Read what an earlier run finished; the first pass chooses the layers and so the number of transplants."""
        expected = {number: len(rows) * arms for number, rows in enumerate(self._question.planned)}
        _, rows = self._writer.resume_records(RECORDS, expected)
        self._done = {}
        for row in rows:
            self._done.setdefault(row["chunk"], []).append(row)

    def done(self, chunk: int) -> list[dict[str, Any]] | None:
        assert self._done is not None, "expect comes first"
        return self._done.get(chunk)

    def keep(self, chunk: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._writer.append(RECORDS, records) if records else records


def write_comparison(writer: RunWriter, made: Comparison) -> None:
    """Write what a finished comparison found."""
    for name, file in TABLES.items():
        table = getattr(made, name)
        if len(table):
            writer.write_csv(file, table)
    writer.write_json("identical_parts.json", made.parts)
    writer.write_json("findings.json", made.findings)
    writer.write_json("sanity_check_self_patch.json", made.findings["checks"])
    title = f"{_name(made.config['model']['id'])} and {_name(made.config['donor']['id'])}"
    figure = cka_figure(made.cka, title)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    replace_file(writer.path("cka_heatmap.png"), png.getvalue())


def read_comparison(folder: Path) -> Comparison:
    """Read a run folder back into the result that it was written from.

    Raises:
        InterpError: no folder of a finished comparison.
    """
    run = open_run(folder)
    if run.command != "compare" or not run.finished:
        what = f"a run of {run.command!r}" if run.command != "compare" else "a comparison that is not finished"
        raise InterpError(f"{folder} holds {what}; give the folder of a finished comparison.")
    tables = {}
    for name, file in TABLES.items():
        path = run.path / file
        if not path.exists() and name in MAY_BE_ABSENT:
            tables[name] = pd.DataFrame()
            continue
        tables[name] = _read(path)
    return Comparison(
        config=run.config,
        parts=read_json(run.path / "identical_parts.json"),
        findings=read_json(run.path / "findings.json"),
        **tables,
    )


def _read(path: Path) -> pd.DataFrame:
    """A table as it was written: texts as texts, an empty one as "", other empty fields as NaN."""
    try:
        table = pd.read_csv(
            path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""], float_precision="round_trip"
        )
    except (OSError, ValueError) as error:
        raise InterpError(f"{path} cannot be read as CSV ({error}); restore it or run again.") from error
    texts = [column for column in table if column in TEXTS]
    return table.assign(**{column: table[column].fillna("").astype(object) for column in texts})


def matrix_of(cka: pd.DataFrame, representation: str, column: str) -> tuple[np.ndarray, list[str], list[str]]:
    """[base points, donor points] of one representation, with the points' names."""
    rows = cka[cka["representation"] == representation]
    base = list(dict.fromkeys(rows["base_point"]))
    donor = list(dict.fromkeys(rows["donor_point"]))
    return rows[column].to_numpy(float).reshape(len(base), len(donor)), base, donor


def point_names(points: Sequence[str]) -> list[str]:
    """`resid_post.L3` as `3`; a stage by its name."""
    return [point.removeprefix("resid_post.L") for point in points]


def cka_figure(cka: pd.DataFrame, title: str) -> Figure:
    """The unbiased CKA of all pairs of points, time means; a cell without a value stays white with a dash."""
    values, base, donor = matrix_of(cka, TIME_MEAN, "unbiased")
    size = 2.4 + 0.42 * max(values.shape)
    figure = Figure(figsize=(size + 1.2, size), dpi=150, layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(values, vmin=0, vmax=1, cmap="cividis", origin="lower")
    figure.colorbar(picture, ax=axes, label="unbiased linear CKA (1: alike)", shrink=0.85)
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            axes.text(column, row, "–", ha="center", va="center", color="#7A7A7A")
        elif max(values.shape) <= 18:
            ink = "white" if value < 0.5 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=7)
    axes.set_xticks(range(len(donor)), point_names(donor), rotation=90 if len(donor) > 12 else 45, fontsize=8)
    axes.set_yticks(range(len(base)), point_names(base), fontsize=8)
    axes.set_xlabel("donor: layer, or stage behind the layers")
    axes.set_ylabel("base")
    n = int(cka["n"].iloc[0])
    axes.set_title(f"{title}\ntime means, n = {n} clips", fontsize=10, parse_math=False)
    return figure


def _name(model: object) -> str:
    path = Path(str(model))
    return "/".join(path.parts[-3:]) if path.suffix else path.name
