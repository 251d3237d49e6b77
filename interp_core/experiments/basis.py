"""What the numbers of a run rest on: the clips that count, and what was left out, repeated, silent or mixed among them.

Said in one line wherever the numbers are: on the page, at the end of the command, in the run's config.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from interp_core.data.clips import Clip
from interp_core.data.current import MANY
from interp_core.data.manifest import SILENCE_DB, Manifest
from interp_core.data.relabel import folded, some, unanswered
from interp_core.digests import BY_PLACE

TITLE = "What these numbers rest on"


def of_clips(manifest: Manifest, used: Sequence[Clip]) -> list[str]:
    """Which clips count, and what they are.

    Args:
        used: those that the run works on.
    """
    said = [f"{len(used)} of {len(manifest.clips)} clips" if len(used) < len(manifest.clips) else f"{len(used)} clips"]
    if skipped := len(manifest.skipped):
        said.append(f"{skipped} row{'s' * (skipped > 1)} that cannot be used left out")
    names: dict[str, list[str]] = {}
    for clip in used:
        names.setdefault(clip.digest, []).append(clip.clip_id)
    if again := [" = ".join(same[:3]) for same in names.values() if len(same) > 1]:
        count = sum(len(same) - 1 for same in names.values())
        said.append(f"{count} recordings are repeated under another clip_id ({some(again)})")
    quiet = set(manifest.silent)
    if silent := [clip.clip_id for clip in used if clip.clip_id in quiet]:
        said.append(f"{len(silent)} are silent once mixed to mono, below {SILENCE_DB:g} dB ({some(silent)})")
    channels = Counter(clip.label("vocal_channel") for clip in used)
    if channels["song"] and channels["speech"]:
        said.append(f"song is mixed with speech ({channels['song']} and {channels['speech']} clips, vocal_channel)")
    if len(manifest.clips) > MANY:
        said.append(f"of more than {MANY:,} recordings changed files are looked for now and then, not at every look")
    if any(clip.digest.startswith(BY_PLACE) for clip in used):
        said.append("pictures are told apart by place, size and time, not by what they hold")
    return [*said, *(note.rstrip(".") for note in manifest.notes)]


def of_labels(clips: Sequence[Clip], column: str, answers: Sequence[str] = (), so: str = "") -> list[str]:
    """How many clips have no label, and how many one that the model cannot answer.

    Args:
        answers: of the model; none where labels are not held against them.
        so: what becomes of clips with a label that is no answer, as the rest of a sentence.
    """
    missing = sum(clip.label(column) is None for clip in clips)
    said = [f"{missing} clips have no {column}"] if missing else []
    values = {value for clip in clips if (value := clip.label(column)) is not None}
    by_fold: dict[str, list[str]] = {}
    for value in sorted(values):
        by_fold.setdefault(folded(value), []).append(value)
    if alike := [" and ".join(spelt) for spelt in by_fold.values() if len(spelt) > 1]:
        said.append(f"values of {column} that differ in case or blanks alone count as different ({some(alike)})")
    return [*said, *filter(None, [unanswered(clips, column, answers, so) if answers else ""])]


def of_pairs(report: Mapping[str, Any], clips: Sequence[Clip]) -> list[str]:
    """The pairs of each kind, and why others were not drawn; `report` is that of `build_pairs`."""
    said = []
    for name, kind in report["kinds"].items():
        said.append(f"{kind['kept']} of {kind['candidates']} candidate pairs of kind {name}")
        said += [f"{count} clips have no {column}" for column, count in kind["clips_without_value"].items()]
        if stays := kind.get("answer_stays"):
            so = "so that the change of A's logits is the effect, and no flip"
            said.append(f"in {stays} of kind {name} B is answered as A is, {so}")
        if wrong := kind["violations"]["count"]:
            said.append(f"{wrong} pairs of kind {name} contradict each other in {kind['agree']} and are left out")
        if lost := sum(kind["targets_outside_labels"].values()):
            so = f"are left out as donors, and with them {lost} candidate pairs"
            said.append(unanswered(clips, kind["target_column"], report["labels"], so))
    return list(dict.fromkeys(said))


def line(config: Mapping[str, Any]) -> str:
    """The line of a run, without its title; of an earlier version's run what its config tells."""
    said = config.get("rests_on")
    if not isinstance(said, list):
        skipped = len(config.get("skipped_rows") or ())
        said = [f"{config['manifest']['clips']} clips", *([f"{skipped} rows left out"] if skipped else [])]
        said.append("whether recordings are repeated, silent or without a label was not kept by this run")
    return "; ".join(map(str, said)) + "."
