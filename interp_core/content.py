"""What a run was computed from, as its config says it, and in which of it other files are other ones.

A config keeps the SHA-256 of every file that decides: of the model's, the donor's, the manifest, and of each
recording. `then` and `now` are configs, or what `Engine.content` says of a request, which has the same entries.
"""

from collections.abc import Mapping
from typing import Any

from interp_core.digests import joined
from interp_core.errors import few

SIDES = {"model": "the model's files", "donor": "the donor's files"}
ADAPTERS = {"model": "adapter", "donor": "donor_adapter"}
"""The settings that say where the adapter of each lies; its files are among the model's."""
FILES, CLIPS, ALL_CLIPS = "files_sha256", "clips_sha256", "content_sha256"
MOST_NAMED = 20_000
"""Of more recordings a config keeps one digest in all."""
DIGITS = 16

Facts = Mapping[str, Any]


def clips_entry(digests: Mapping[str, str]) -> dict[str, Any]:
    """What a config says of its recordings: one digest in all, and the first digits of each by clip_id."""
    entry: dict[str, Any] = {ALL_CLIPS: joined(dict(digests))}
    if len(digests) <= MOST_NAMED:
        entry[CLIPS] = {clip_id: digest[-DIGITS:] for clip_id, digest in digests.items()}
    return entry


def changed(then: Facts, now: Facts) -> list[str]:
    """What was not the same, by name, as parts of a sentence; what either side does not know is passed over."""
    found = []
    for side, name in SIDES.items():
        before, after = (_entry(facts, side, FILES) for facts in (then, now))
        if before and after and (names := _apart(before, after)):
            found.append(f"{name} {few(names)}")
    before, after = (_entry(facts, "manifest", "sha256") for facts in (then, now))
    if before and after and before != after:
        found.append("the manifest with its labels")
    before, after = (_entry(facts, "manifest", ALL_CLIPS) for facts in (then, now))
    if before and after and before != after:
        named = [_entry(facts, "manifest", CLIPS) for facts in (then, now)]
        names = _apart(*named) if all(named) else []
        found.append(f"the recordings {few(names)}" if names else "the recordings")
    return found


def unknown(config: Facts) -> list[str]:
    """What a config keeps no digest of, because an earlier version wrote it."""
    found = [] if _entry(config, "model", FILES) else ["the model's settings and processor"]
    return found if _entry(config, "manifest", ALL_CLIPS) else [*found, "the recordings"]


def key_parts(now: Facts) -> list[str]:
    """What stands for all files in the key of a run."""
    models = [joined(_entry(now, side, FILES) or {}) for side in SIDES]
    return [*models, *(str(_entry(now, "manifest", name) or "") for name in ("sha256", ALL_CLIPS))]


def without_content(config: Facts, like: Facts) -> dict[str, Any]:
    """A config without its digests, and without the places of files whose digests both this one and `like` know."""
    found = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    for side, place, known in (("model", "id", FILES), ("donor", "id", FILES), ("manifest", "path", ALL_CLIPS)):
        entry = found.get(side)
        if not isinstance(entry, dict):
            continue
        if _entry(config, side, known) and _entry(like, side, known):
            entry.pop(place, None)
            entry.pop("weights_sha256", None)
            if isinstance(settings := found.get("settings"), dict):
                settings.pop(ADAPTERS.get(side, ""), None)
        for name in (FILES, CLIPS, ALL_CLIPS):
            entry.pop(name, None)
        if side == "manifest":
            entry.pop("sha256", None)
    return found


def _entry(facts: Facts, side: str, name: str) -> Any:
    value = facts.get(side)
    return value.get(name) if isinstance(value, Mapping) else None


def _apart(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
