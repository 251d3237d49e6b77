"""Other models that a model is made of: the base of an adapter, the two towers of what was saved as a projector alone,
the model that makes codes of sound for another.

A folder names them by path or hub id, or all models of its type have the same. They are looked for as a path, below the
folder and beside it, then in the hub's cache; for a model that came from the hub, in the cache alone: what somebody
uploaded must not choose among the folders of this machine.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download

from interp_core.models.source import is_hub_id

NAMED = dict.fromkeys(("ultravox", "UltravoxModel"), ("text_model_id", "audio_model_id"))
"""Model type, or the class that a config may name alone -> the entries of the config that name other models."""
_KIMI = ("kimi_audio", "moonshot_kimia", "MoonshotKimiaForCausalLM")
UNSAID = dict.fromkeys(_KIMI, {"audio_tokenizer": "THUDM/glm-4-voice-tokenizer"})
"""The same where published code names a model that no config does: what an entry stands for that says nothing."""
INSIDE = dict.fromkeys(_KIMI, {"whisper": "whisper-large-v3"})
"""The same -> models in a folder inside the model's own, whatever it is fetched from."""
CONFIG = "config.json"


def named_bases(folder: Path) -> dict[str, str]:
    """The entries of a folder's config that name other models, and what they say, or stand for; {} for most models."""
    config, told = _told(folder)
    entries = next((NAMED[name] for name in told if name in NAMED), ())
    unsaid = next((UNSAID[name] for name in told if name in UNSAID), {})
    said = {entry: config.get(entry) for entry in entries} | {e: config.get(e) or other for e, other in unsaid.items()}
    return {entry: name for entry, name in said.items() if isinstance(name, str) and _is_said(name)}


def _told(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A folder's config, and the model type and classes that it names; nothing where it cannot be read."""
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}, ()
    if not isinstance(config, dict):
        return {}, ()
    classes = config.get("architectures")
    return config, tuple(map(str, (config.get("model_type"), *(classes if isinstance(classes, list) else ()))))


def bases_of(name: str, folder: Path) -> dict[str, Path]:
    """Those models that a folder names and that are on this machine, by the entry that names them.

    Args:
        name: the model as it was typed.
        folder: where it lies; of an adapter's base, where that lies.
    """
    cached = Path(constants.HF_HUB_CACHE).resolve() in folder.resolve().parents
    here = not cached and Path(name).expanduser().exists()
    found = {
        entry: (local_base_of(str(folder), said) if here else None) or _in_the_cache(said)
        for entry, said in named_bases(folder).items()
    }
    return {entry: base for entry, base in found.items() if base is not None} | _inside(folder)


def _inside(folder: Path) -> dict[str, Path]:
    """The models in folders inside a model's own that are parts of it and are there."""
    parts = next((INSIDE[one] for one in _told(folder)[1] if one in INSIDE), {})
    return {part: folder / place for part, place in parts.items() if (folder / place / CONFIG).is_file()}


def find_base(name: str, said: str) -> Path | None:
    """Where the model lies that `name` calls `said`; None where it is not on this machine."""
    return local_base_of(name, said) or _in_the_cache(said)


def local_base_of(name: str, said: Any) -> Path | None:
    """The same among the folders of this machine, for a model that is a folder here."""
    try:
        folder = Path(name).expanduser()
        if not folder.is_dir() or not _is_said(said):
            return None
        return next((place for place in _places(folder, said) if (place / CONFIG).is_file()), None)
    except (OSError, ValueError, RuntimeError):
        return None


def local_bases(name: str) -> list[Path]:
    """Every folder of this machine that is a part of a model folder: that its config names, or that lies inside."""
    try:
        folder = Path(name).expanduser()
        found = [*(local_base_of(name, said) for said in named_bases(folder).values()), *_inside(folder).values()]
    except (OSError, ValueError, RuntimeError):
        return []
    return [base for base in found if base is not None]


def shown(text: str) -> str:
    """A name for a message, cut where it is long."""
    return repr(text) if len(text) <= 200 else f"{text[:80]!r}... ({len(text)} letters)"


def _is_said(said: Any) -> bool:
    return isinstance(said, str) and bool(said.strip())


def _places(folder: Path, said: str) -> Iterator[Path]:
    yield folder / said  # an absolute path stands for itself
    yield Path(said).expanduser()
    yield folder / Path(said).name
    yield folder.resolve().parent / Path(said).name


def _in_the_cache(said: str) -> Path | None:
    try:
        return Path(snapshot_download(said, local_files_only=True)) if is_hub_id(said) else None
    except (OSError, ValueError):
        return None
