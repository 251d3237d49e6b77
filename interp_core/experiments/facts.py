"""What a run's config says of itself, for a person: model, machine and clips, settings, the line under a figure."""

from collections.abc import Iterable, Mapping
from typing import Any

from interp_core.options import declared, in_words
from interp_core.request import IN_OTHER_PLACES, Request, short_name

DIGITS_OF_A_HASH = 12


def facts_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What a config says about the model, the machine and the clips; plain text."""
    found: dict[str, str] = {}
    for side in ("model", "donor"):
        about = config.get(side)
        if isinstance(about, Mapping):
            layers = about.get("n_layers")
            found[side] = str(about.get("id", ""))
            found[f"weights of the {side}"] = str(about.get("weights_sha256", ""))[:DIGITS_OF_A_HASH]
            found[f"kind of {side}"] = f"{about.get('type', '')}{f', {layers} layers' if layers else ''}"
    found |= {name: str(config[name]) for name in ("device", "dtype") if config.get(name)}
    clips = config.get("manifest")
    if isinstance(clips, Mapping):
        path = clips.get("path") or "those that ship with the model"
        found["clips"] = f"{clips.get('clips', '?')}, {path}"
        found["hash of the clips"] = str(clips.get("sha256", ""))[:DIGITS_OF_A_HASH]
    skipped = config.get("skipped_rows")
    if skipped:
        found["rows left out"] = str(len(skipped))
    found |= {name: str(config[name])[:19].replace("T", " ") for name in ("created", "finished") if config.get(name)}
    versions = config.get("versions")
    if isinstance(versions, Mapping):
        found |= {f"version of {name}": str(version) for name, version in versions.items()}
    return found


def settings_of(request: Request) -> dict[str, str]:
    """Every setting that says something, the experiment's own first."""
    given = {one.name for one in declared(type(request)) if getattr(request, one.name) not in (None, "", ())}
    common = {one.name for one in declared(Request)}
    return in_words(request, given - common) | in_words(request, (given & common) - {*IN_OTHER_PLACES})


def made_at(config: Mapping[str, Any]) -> str:
    """When the run was made, to the minute; "" where that is not known."""
    return str(config.get("finished") or config.get("created") or "")[:16].replace("T", " ")


def signature(config: Mapping[str, Any], *settings: str) -> str:
    """The last lines of a figure's title: settings, seed, the models with their weights, the date; "" is left out."""
    models = [
        f"{short_name(str(about['id']))}, weights {str(about.get('weights_sha256', ''))[:DIGITS_OF_A_HASH]}"
        for side in ("model", "donor")
        if isinstance(about := config.get(side), Mapping)
    ]
    lines = [[*settings, f"seed {config['settings']['seed']}"], [*models, made_at(config)[:10]]]
    return "\n".join(" · ".join(filter(None, line)) for line in lines)


def before_semicolon(methods: Iterable[Any]) -> str:
    """The first of some methods that is one, without what stands behind it of p and of single columns; "" for none."""
    told = (str(method).partition(";")[0] for method in methods if isinstance(method, str))
    return next((method for method in told if method and not method.startswith("no interval")), "")
