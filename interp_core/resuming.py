"""Whether a run can be gone on with: the same settings, of files that hold the same."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_core.content import changed, without_content
from interp_core.errors import InterpError
from interp_core.storage import plain, read_json

CONFIG_ENDING = "_config.json"
"""How the file ends that makes a folder a run folder; it holds an object with the `command` of the run."""
SETTINGS = "settings."
MAY_DIFFER = frozenset(
    {"created", "finished", "times", "versions", "resume", "asked", "rests_on", "choice", "written_sha256"}
)
"""Entries of a config that may be others in a run and its resumption."""


def resumable(folder: Path, new: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config of the run in a folder, with which one of the config `new` can go on; {} where there is none yet.

    Args:
        name: the config's file.
    Raises:
        InterpError: no folder, a run of another experiment, of other files, or of other settings (all of them listed).
    """
    if not folder.is_dir():
        raise InterpError(f"{folder} is no folder.")
    found = of_a_run(folder)
    if not found:
        return {}
    if name not in found:
        holds = f"a run of {found[0]}" if found[0].endswith(CONFIG_ENDING) else "records without their config"
        raise InterpError(f"{folder} holds {holds}, which {new['command']!r} cannot resume; choose another --out.")
    old = read_json(folder / name)
    if not isinstance(old, dict):
        raise InterpError(f"{folder / name} does not hold an object; choose another --out.")
    if found := changed(old, new):
        raise InterpError(
            f"{folder} was started with other files: {'; '.join(found)} changed since, and its numbers would be a "
            "mixture. Put them back, or start anew (another --out)."
        )
    if differ := settings_changed(old, new):
        raise InterpError(
            f"{folder} was started with other settings: {'; '.join(differ)}. Resume with its own "
            f"(--config {folder / name}) or choose another --out."
        )
    return old


def settings_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In which settings two configs differ, as parts of a sentence: `seed was 1, is 2`."""
    new = json.loads(json.dumps(plain(new)))
    before, after = _flat(without_content(old, new)), _flat(without_content(new, old))
    # A setting that there was not yet when the run began, and that asks for nothing or for what is usual, is none.
    asked = new.get("asked")
    given = asked if isinstance(asked, Mapping) else new.get(SETTINGS[:-1]) or {}
    keys_given = {f"{SETTINGS}{name}" for name in given}
    after = {
        key: value
        for key, value in after.items()
        if key in before or not key.startswith(SETTINGS) or (value and key in keys_given)
    }
    differ = [key for key in {**before, **after} if before.get(key, "absent") != after.get(key, "absent")]
    return [f"{key} was {before.get(key, 'absent')!r}, is {after.get(key, 'absent')!r}" for key in differ]


def of_a_run(folder: Path) -> list[str]:
    """The files that make a folder one of a run: configs, then records."""
    return [path.name for ending in (f"*{CONFIG_ENDING}", "*_records*.jsonl") for path in sorted(folder.glob(ending))]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys, without what may differ between a run and its resumption."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in MAY_DIFFER:
            continue
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
