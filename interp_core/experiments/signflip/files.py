"""The run folder of a sign-flip run: what goes into which file, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_core.experiments.figures import save_png
from interp_core.experiments.signflip.run import SignflipResult
from interp_core.runs import RunWriter
from interp_core.storage import read_csv, read_json

TABLES = {
    "top": "attribution_top.csv",
    "changes": "proxy_changes.csv",
    "effects": "prediction_effects.csv",
    "links": "acoustic_links.csv",
}


def write(writer: RunWriter, made: SignflipResult) -> None:
    """Write the tables, the report and the figure."""
    for name, file in TABLES.items():
        writer.write_csv(file, getattr(made, name))
    writer.write_csv("signflip_clips.csv", made.clips)
    writer.write_json("signflip_report.json", made.report)
    save_png(made.figure(), writer.path("proxy_curve.png"))


def read(folder: Path, config: Mapping[str, Any]) -> SignflipResult:
    """Read a finished run folder back."""
    frames = {name: read_csv(folder / file) for name, file in TABLES.items()}
    clips = read_csv(folder / "signflip_clips.csv", texts=("clip_id", "label", "base", "answer"))
    return SignflipResult(config, clips=clips, report=read_json(folder / "signflip_report.json"), **frames)
