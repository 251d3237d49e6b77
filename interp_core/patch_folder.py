"""A patching run and its folder: what goes into which file, and back."""

from pathlib import Path
from typing import Any

import pandas as pd

from interp_core import figures
from interp_core.experiments.patching import PatchingResult
from interp_core.experiments.plan import Chunk, Plan
from interp_core.runs import Run, RunWriter


class FolderSink:
    """Chunks go to the record files of a run folder, and finished ones come back from there."""

    def __init__(self, writer: RunWriter, made: Plan) -> None:
        self._writer = writer
        self._done: dict[int, list[dict[str, Any]]] = {}
        for kind in {chunk.kind for chunk in made.chunks}:
            for control in (False, True):
                expected = made.expected(kind, control)
                if expected:
                    _, rows = writer.resume_records(self._name(kind, control), expected)
                    for row in rows:
                        self._done.setdefault(row["chunk"], []).append(row)

    @staticmethod
    def _name(kind: str, control: bool) -> str:
        return f"{'control' if control else 'patching'}_records_{kind}.jsonl"

    def done(self, chunk: Chunk) -> list[dict[str, Any]] | None:
        return self._done.get(chunk.number)

    def keep(self, chunk: Chunk, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._writer.append(self._name(chunk.kind, chunk.control), records)


def result_of(run: Run) -> PatchingResult:
    """Turn an opened run folder into a result."""
    empty = pd.DataFrame()
    return PatchingResult(
        config=run.config,
        pairs=run.pairs,
        records=run.records,
        metrics=run.metrics,
        reports=run.reports,
        lens=empty if run.lens is None else run.lens,
        knockout=empty if run.knockout is None else run.knockout,
    )


def write_result(writer: RunWriter, result: PatchingResult) -> None:
    """Write what a finished run adds to its records: metrics, curves, reports, information flow."""
    for name, report in result.reports.items():
        writer.write_json(f"{name}.json", report)
    model = Path(str(result.config["model"]["id"])).name
    for kind in dict.fromkeys(line["kind"] for line in result.pairs):
        of_kind = result.metrics[result.metrics.kind == kind]
        matched = of_kind[of_kind.condition == "matched"]
        writer.write_csv(f"patching_metrics_{kind}.csv", matched)
        writer.write_csv(f"control_metrics_{kind}.csv", of_kind[of_kind.condition != "matched"])
        shown = of_kind[(of_kind.prompt == 0) & (of_kind.alpha == matched.alpha.iloc[0])]
        title = f"{model}: {kind} pairs, {result.config['settings']['site']}"
        figures.flip_rate_curve(shown, writer.path(f"flip_rate_curve_{kind}.png"), title)
        figures.delta_logit_curve(shown, writer.path(f"delta_logit_curve_{kind}.png"), title)
    if len(result.lens):
        writer.write_csv("logit_lens.csv", result.lens)
    if len(result.knockout):
        writer.write_csv("knockout.csv", result.knockout)
