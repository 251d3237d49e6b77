"""The run folder of a run of probes: what goes into which file, and back.

probes.csv              one row a target and point
probes_clips.csv        one row a target and clip: its unit, its value
probes_predictions.npz  by number of the target, [points, clips] what a held-out probe says
probes.png
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp_core.errors import InterpError
from interp_core.experiments.figures import save_png
from interp_core.experiments.probes import tables
from interp_core.experiments.probes.run import ProbesResult
from interp_core.runs import RunWriter
from interp_core.storage import read_csv

TABLE, CLIPS, PREDICTIONS, FIGURE = "probes.csv", "probes_clips.csv", "probes_predictions.npz", "probes.png"
TEXTS = ("target", "site", "place", "unit", "test", "interval_method", "control_method", "reason")
NEEDED = (*TEXTS[:3], "layer", "n", "score", "chance", "control", "p_adjusted")


def write(writer: RunWriter, result: ProbesResult) -> None:
    """Write everything but the config."""
    writer.write_csv(TABLE, result.table)
    clips = pd.concat([rows.assign(target=name).astype({"value": str}) for name, rows in result.clips.items()])
    writer.write_csv(CLIPS, clips[["target", "clip_id", "unit", "value"]])
    npz = io.BytesIO()
    of = {str(number): result.predicted[name] for number, name in enumerate(tables.targets(result.table))}
    np.savez_compressed(npz, **of)  # type: ignore[arg-type]
    writer.write_bytes(PREDICTIONS, npz.getvalue())
    save_png(result.figure(), writer.path(FIGURE))


def read(folder: Path, config: Mapping[str, Any]) -> ProbesResult:
    """Read a finished run folder back."""
    table = read_csv(folder / TABLE, texts=TEXTS, needs=NEEDED)
    table[list(TEXTS)] = table[list(TEXTS)].fillna("")
    table["is_label"] = table["is_label"].astype(bool)
    told = read_csv(folder / CLIPS, texts=("target", "clip_id", "unit", "value"), needs=("target", "clip_id", "value"))
    predicted: dict[str, NDArray[Any]] = {}
    clips: dict[str, pd.DataFrame] = {}
    try:
        with np.load(folder / PREDICTIONS, allow_pickle=False) as kept:
            for number, name in enumerate(tables.targets(table)):
                rows = told[told["target"] == name].drop(columns="target").reset_index(drop=True)
                is_label = bool(tables.of_target(table, name)["is_label"].iloc[0])
                clips[name] = rows if is_label else rows.astype({"value": float})
                predicted[name] = kept[str(number)]
                if predicted[name].shape[1] not in (0, len(rows)):
                    raise InterpError(f"{folder / PREDICTIONS} is about other clips than {CLIPS}; run again.")
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, InterpError):
            raise
        raise InterpError(f"{folder / PREDICTIONS} cannot be read ({error}); restore it or run again.") from error
    return ProbesResult(config, table, predicted, clips)
