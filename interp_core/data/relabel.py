"""Labels read as a model's answers: by a mapping that is given, and where case and blanks alone differ."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from interp_core.data.clips import Clip
from interp_core.data.manifest import Manifest
from interp_core.errors import InterpError, few

NOT_LABELS = ("speaker", "text_id", "text")
"""Columns whose values are never read as something else."""
SHOWN = 12


def parse_mapping(parts: Sequence[str]) -> dict[str, str]:
    """`hap=happy` and the like as {"hap": "happy"}. Errors: InterpError names every part that is none, or is twice."""
    pairs = [tuple(side.strip() for side in part.rpartition("=")[::2]) for part in parts]
    faults = [repr(part) for part, (one, other) in zip(parts, pairs, strict=True) if not (one and other)]
    faults += [
        f"{one!r} is given more than once" for one, n in Counter(one for one, _ in pairs).items() if one and n > 1
    ]
    if faults:
        raise InterpError(f"--map-labels {', '.join(faults)}: give each label once, as LABEL=ANSWER, like hap=happy.")
    return {one: other for one, other in pairs}


def relabelled(manifest: Manifest, parts: Sequence[str]) -> Manifest:
    """The manifest with labels read as others, in every column that may hold labels, and a note that counts them.

    Args:
        parts: `LABEL=ANSWER` each.
    Raises:
        InterpError: parts that are none, or labels that no clip has.
    """
    if not parts:
        return manifest
    mapping = parse_mapping(parts)
    there = {value for clip in manifest.clips for name, value in clip.labels.items() if name not in NOT_LABELS}
    if absent := [one for one in mapping if one not in there]:
        raise InterpError(f"--map-labels: no clip has the label {some(absent)}; write it as the manifest does.")
    return _with(manifest, mapping, "read as asked")


def as_answers(manifest: Manifest, answers: Sequence[str]) -> Manifest:
    """The manifest with each label that is one answer but for case and blanks read as that answer, and a note."""
    known = {answer: folded(answer) for answer in answers}
    count = Counter(known.values())
    by_fold = {fold: answer for answer, fold in known.items() if count[fold] == 1}
    there = {value for clip in manifest.clips for name, value in clip.labels.items() if name not in NOT_LABELS}
    mapping = {value: by_fold[folded(value)] for value in sorted(there - set(answers)) if folded(value) in by_fold}
    return _with(manifest, mapping, "case and blanks alone differ") if mapping else manifest


def _with(manifest: Manifest, mapping: Mapping[str, str], why: str) -> Manifest:
    count: Counter[str] = Counter()
    clips = []
    for clip in manifest.clips:
        changed = {
            name: mapping[value] for name, value in clip.labels.items() if value in mapping and name not in NOT_LABELS
        }
        count.update(set(clip.labels[name] for name in changed))
        clips.append(replace(clip, labels={**clip.labels, **changed}) if changed else clip)
    said = some([f"{one} = {other} ({count[one]} clip{'s' * (count[one] != 1)})" for one, other in mapping.items()])
    return replace(manifest, clips=tuple(clips), notes=(*manifest.notes, f"Labels read as answers: {said}; {why}."))


def suggested(outside: Sequence[str], answers: Sequence[str]) -> dict[str, str]:
    """Label -> the one answer that it begins, or that begins it; what has none or several is left out."""
    found = {}
    for label in outside:
        near = [a for a in answers if min(len(a), len(label)) > 1 and _begins(folded(a), folded(label))]
        if len(near) == 1:
            found[label] = near[0]
    return found


def unanswered(clips: Sequence[Clip], column: str, answers: Sequence[str], so: str = "") -> str:
    """How many clips have a label that the model cannot answer, both sides, and what to do; "" where none has.

    Args:
        so: what becomes of them, as the rest of a sentence.
    """
    outside = both_sides(clips, column, answers)["labels"]
    if not outside:
        return ""
    count = sum(clip.label(column) in outside for clip in clips)
    left = f"{count} clips have a {column} that the model cannot answer ({some(outside)}; it answers {some(answers)})"
    return f"{left}{f' and {so}' * bool(so)}: {advice(outside, answers)}"


def both_sides(clips: Sequence[Clip], column: str, answers: Sequence[str]) -> dict[str, list[str]]:
    """The values of a column that are no answers, under `labels`, and the `answers`: what a mapping can be made of."""
    values = {value for clip in clips if (value := clip.label(column)) is not None}
    return {"labels": sorted(values - set(answers)), "answers": list(answers)}


def advice(outside: Sequence[str], answers: Sequence[str]) -> str:
    """How to have labels read as answers, as the rest of a sentence."""
    near = suggested(outside, answers) or {label: "ANSWER" for label in list(outside)[:1]}
    typed = shlex.quote(",".join(f"{label}={answer}" for label, answer in near.items()))
    return f"if they mean the same, read them so: --map-labels {typed}"


def some(names: Sequence[str]) -> str:
    """Names for a message, the first of many."""
    return few(names, SHOWN)


def folded(text: str) -> str:
    """A label without what case and blanks tell apart."""
    return "".join(text.casefold().split())


def _begins(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
