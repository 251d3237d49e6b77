"""The demos that ship with Patchbay: a folder below assets with a demo.json each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class Demo:
    """One bundled demo: a trained model, its clips, and the settings under which it answers."""

    name: str
    title: str
    description: str
    folder: Path
    labels: tuple[str, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    """(name, text) of each prompt; the first is the default."""
    model: str = "model"
    """The model's folder or file, below the demo's."""
    pages: tuple[str, ...] = ()
    """The experiments that it was made for, the first being where it is best seen; empty for all."""
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Everything that its demo.json says."""

    @property
    def model_dir(self) -> Path:
        return self.folder / self.model

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    @property
    def run(self) -> Path | None:
        """The saved run that the dashboard opens first, if one ships."""
        folder = self.folder / "run"
        return folder if folder.is_dir() else None


@cache
def demos() -> dict[str, Demo]:
    """Return the bundled demos by name."""
    found = {}
    for file in sorted(ASSETS.glob("*/demo.json")):
        about: dict[str, Any] = json.loads(file.read_text("utf-8"))
        found[file.parent.name] = Demo(
            name=file.parent.name,
            title=about["title"],
            description=about["description"],
            folder=file.parent,
            labels=tuple(about.get("labels", ())),
            prompts=tuple((p["name"], p["text"]) for p in about.get("prompts", ())),
            model=about.get("model", "model"),
            pages=tuple(about.get("pages", ())),
            about=about,
        )
    return found
