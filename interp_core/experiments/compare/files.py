"""The run folder of a comparison: what goes into which file, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp_core.experiments.compare.run import Comparison
from interp_core.experiments.figures import save_png
from interp_core.runs import RunWriter
from interp_core.storage import read_csv, read_json

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


def write(writer: RunWriter, made: Comparison) -> None:
    """Write what a finished comparison found."""
    for name, file in TABLES.items():
        table = getattr(made, name)
        if len(table):
            writer.write_csv(file, table)
    writer.write_json("identical_parts.json", made.parts)
    writer.write_json("findings.json", made.findings)
    writer.write_json("sanity_check_self_patch.json", made.findings["checks"])
    save_png(made.figure(), writer.path("cka_heatmap.png"))


def read(folder: Path, config: Mapping[str, Any]) -> Comparison:
    """Read a finished run folder back."""
    tables = {}
    for name, file in TABLES.items():
        absent = name in MAY_BE_ABSENT and not (folder / file).exists()
        tables[name] = pd.DataFrame() if absent else read_csv(folder / file, texts=TEXTS)
    return Comparison(
        config=config,
        parts=read_json(folder / "identical_parts.json"),
        findings=read_json(folder / "findings.json"),
        **tables,
    )
