"""Which column of the clips says what: the task, the domain, the units that were really sampled."""

from collections.abc import Sequence

from interp_core.data.clips import Clip
from interp_core.errors import InterpError

TASKS = ("label", "prosody_label", "key", "class")
DOMAINS = ("domain", "codec", "center", "speaker")
UNITS = ("slide", "patient")
FEWEST_TEXTS = 10  # text_id values below which speakers are the units


def choose_cluster_column(clips: Sequence[Clip]) -> str:
    """The column whose values are resampled: text_id, or speaker where text_id has fewer than 10 values.

    Without a speaker column it stays text_id; "clip_id" where the clips have neither.
    """
    texts = {clip.label("text_id") for clip in clips} - {None}
    if len(texts) < FEWEST_TEXTS and any(clip.label("speaker") is not None for clip in clips):
        return "speaker"
    return "text_id" if texts else "clip_id"


def cluster_map(clips: Sequence[Clip], column: str) -> dict[str, str]:
    """clip_id -> its value in `column`; a clip without a value is a cluster of its own, with its edited copies."""
    named = {clip.clip_id: (clip.label(column), clip.recording_id) for clip in clips}
    return {clip_id: f"clip {own}" if value is None else value for clip_id, (value, own) in named.items()}


def column_of(clips: Sequence[Clip], asked: str, usual: Sequence[str], what: str) -> str:
    """The label column that is asked for, or the first usual one with two values or more."""
    known = {name for clip in clips for name in clip.labels}
    if asked:
        if asked not in known:
            raise InterpError(f"no clip has a column {asked!r} for the {what}; the columns are {listed(known)}.")
        return asked
    for name in usual:
        if len({clip.label(name) for clip in clips} - {None}) > 1:
            return name
    raise InterpError(f"no column is known to be the {what}; name one (--{what}): {listed(known)}.")


def units_of(clips: Sequence[Clip]) -> str:
    """The column of what was really sampled: slide or patient where there is one, else text or speaker."""
    known = {name for clip in clips for name in clip.labels}
    return next((name for name in UNITS if name in known), choose_cluster_column(clips))


def listed(names: Sequence[str] | set[str]) -> str:
    """Names for a message, sorted."""
    return ", ".join(sorted(map(str, names))) or "none"
