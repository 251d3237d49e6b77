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
    """One bundled demo: a trained model, its clips, and the settings under which it answers.

    Attributes:
        prompts: (name, text) of each; the first is the default.
        model: the model's folder or file, below the demo's.
        probe: the label column that its readout is fitted to; "" where it has a readout of its own.
        kinds, site, positions: of patching. task, domain, train, id, ood: of neuron ablations. "": what is usual.
        planted: what was put into it on purpose, for an experiment to find; a clause that follows a colon.
        comparisons: pairs of models that are meant to be compared, the default first: name, base, donor, about.
    """

    name: str
    title: str
    description: str
    folder: Path
    labels: tuple[str, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    model: str = "model"
    probe: str = ""
    kinds: str = ""
    site: str = ""
    positions: str = ""
    task: str = ""
    domain: str = ""
    train: str = ""
    id: str = ""
    ood: str = ""
    planted: str = ""
    comparisons: tuple[Mapping[str, str], ...] = field(default=(), compare=False)

    @property
    def model_dir(self) -> Path:
        return self.folder / self.model

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    def named(self, model: str) -> str:
        """What `open_model` takes for a model that `comparisons` name: a demo, or a file or folder below its own."""
        return model if model in demos() else str((self.folder / model).resolve())

    @property
    def saved_runs(self) -> tuple[Path, ...]:
        """The folders of the runs that ship with it."""
        return tuple(sorted(path for path in self.folder.glob("run*") if path.is_dir()))


SIDES = ("base", "donor")
"""Of a comparison."""
TEXTS = ("probe", "kinds", "site", "positions", "task", "domain", "train", "id", "ood", "planted")


@cache
def demos() -> dict[str, Demo]:
    """Return the bundled demos by name."""
    found = {}
    for file in sorted(ASSETS.glob("*/demo.json")):
        about: dict[str, Any] = json.loads(file.read_text("utf-8"))
        other = about.get("counterpart")
        alone = [{"name": f"{file.parent.name} and {other}", "base": file.parent.name, "donor": other}] if other else []
        found[file.parent.name] = Demo(
            name=file.parent.name,
            title=about["title"],
            description=about["description"],
            folder=file.parent,
            labels=tuple(about.get("labels", ())),
            prompts=tuple((p["name"], p["text"]) for p in about.get("prompts", ())),
            model=about.get("model", "model"),
            comparisons=tuple(about.get("compare", alone)),
            **{name: str(about.get(name, "")) for name in TEXTS},
        )
    return found


def shipped() -> frozenset[str]:
    """What `open_model` takes of all that ships: the demos, and what they name for comparisons beside themselves."""
    beside = (demo.named(str(pair[side])) for demo in demos().values() for pair in demo.comparisons for side in SIDES)
    return frozenset((*demos(), *beside))


def demo_of(model: str) -> Demo | None:
    """The demo that a model belongs to, by name or as a file or folder below the demo's own."""
    for demo in demos().values():
        if model == demo.name or Path(model).is_relative_to(demo.folder):
            return demo
    return None
