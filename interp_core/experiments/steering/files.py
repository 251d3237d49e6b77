"""The run folder of a steering run: what goes into which file, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp_core.errors import InterpError
from interp_core.experiments.edited_words import TABLE, read_answers
from interp_core.experiments.figures import save_png
from interp_core.experiments.steering.run import CHECKS, RECORDS, SteeringResult
from interp_core.experiments.steering.vectors import FILE, load_vectors
from interp_core.runs import RunWriter
from interp_core.storage import read_csv, read_json, read_records

DOSE, FIGURE = "steering_dose.csv", "steering_dose.png"
NEEDED = ("prompt", "condition", "label", "layer", "alpha", "n", "eligible", "moved_rate")


def write(writer: RunWriter, made: SteeringResult) -> None:
    """Write the vectors, the doses, the checks and the figure; the records are there already."""
    writer.write_bytes(FILE, made.vectors.to_bytes())
    writer.write_csv(DOSE, made.dose)
    writer.write_json(CHECKS, made.report)
    if len(made.answers):
        writer.write_csv(TABLE, made.answers)
    save_png(made.figure(), writer.path(FIGURE))


def read(folder: Path, config: Mapping[str, Any]) -> SteeringResult:
    """Read a finished run folder back."""
    records = pd.DataFrame(read_records(folder / RECORDS, finished=True))
    if not len(records):
        raise InterpError(f"{folder / RECORDS} holds no record; restore it or run again.")
    dose = read_csv(folder / DOSE, texts=("condition", "label"), needs=NEEDED)
    answers = read_answers(folder, config)
    vectors, report = load_vectors(folder / FILE), read_json(folder / CHECKS)
    return SteeringResult(config, dose, records, vectors, report, answers)
