"""Which bundled models are meant to be compared with which."""

from dataclasses import dataclass
from pathlib import Path

from interp_core.models.bundled import SIDES, demos


@dataclass(frozen=True)
class BundledPair:
    """Two bundled models that are meant to be compared; `base` and `donor` are what `open_model` takes."""

    name: str
    base: str
    donor: str
    about: str = ""


def bundled_pairs() -> tuple[BundledPair, ...]:
    """The pairs that the bundled demos name, the first of each demo being its default.

    A demo's `compare` lists them: {name, base, donor, about}. Base and donor are names of demos, or files or folders
    below the demo's own folder.
    """
    found = []
    for demo in demos().values():
        for pair in demo.comparisons:
            base, donor = (demo.named(str(pair[side])) for side in SIDES)
            found.append(BundledPair(str(pair.get("name", "")), base, donor, str(pair.get("about", ""))))
    return tuple(found)


def pairs_of(model: str) -> tuple[BundledPair, ...]:
    """The bundled pairs that a bundled model belongs to, its demo's own first; of others it is the base in turn."""
    demo = demos().get(model)
    if demo is None:
        return ()

    def belongs(part: str) -> bool:
        return part == model or Path(part).is_relative_to(demo.folder)

    pairs = bundled_pairs()
    turned = [BundledPair(f"{p.name}, turned round", p.donor, p.base, p.about) for p in pairs if belongs(p.donor)]
    return (*(pair for pair in pairs if belongs(pair.base)), *turned)


def counterpart(model: str) -> str:
    """The donor that a bundled model is compared with unless somebody says otherwise; empty where there is none."""
    return next((pair.donor for pair in pairs_of(model) if pair.base == model), "")
