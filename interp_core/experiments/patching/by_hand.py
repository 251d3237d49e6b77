"""Pairs that somebody put together: any clip as A, any as B, no label needed. The target is the model's answer to B.

A set of them is a setting of the run, one text a pair, so that the command, the config and the link carry it whole.
"""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from interp_core.data.candidates import PairKind
from interp_core.data.clips import Clip
from interp_core.data.edits import clip_named
from interp_core.data.pairs import THE_ANSWER, Pair, PairSet
from interp_core.errors import InterpError, few
from interp_core.experiments.patching.request import PAIR_SIGN, PatchRequest
from interp_core.experiments.patching.run import base_predictions
from interp_core.prepared import once
from interp_core.trace.store import CleanStore

BY_HAND = PairKind("by-hand", "", THE_ANSWER, THE_ANSWER)
"""The kind of a pair that somebody put together: nothing is the same by design, and the answers may differ."""
MOST_NAMED = 20


def pair_text(recipient: str, donor: str) -> str:
    """Two clip_ids as the setting has them: `A <- B`."""
    return f"{recipient}{PAIR_SIGN}{donor}"


def pair_of(store: CleanStore, recipient: Clip, donor: Clip, found: PatchRequest, *, prompt: int = 0) -> Pair:
    """Two clips as a pair whose target is what the model answers for the donor, unedited.

    Args:
        found: a resolved request; of its questions the one that `prompt` counts is asked.
    """
    asked = replace(found, prompts=(found.prompts[prompt],))

    def ask() -> str:
        (answer,) = base_predictions(store, [donor], asked)
        return str(answer["prediction"])

    settings = (asked.prompts, found.labels, found.several_tokens)
    target = once(("answer to B", store.subject.key, donor.digest, *settings), ask)
    name = pair_text(recipient.clip_id, donor.clip_id)
    return Pair(name, BY_HAND.name, recipient, donor, target, _column_of(donor, target))


def pair_set(store: CleanStore, clips: Sequence[Clip], found: PatchRequest) -> PairSet:
    """The pairs of `found.pairs`, in their order, with the report of how they were chosen.

    Raises:
        InterpError: texts that name no two clips; all of them.
    """
    sides = _sides(found.pairs, {clip.clip_id: clip for clip in clips})
    pairs = tuple(pair_of(store, a, b, found) for a, b in sides)
    kind = {
        "target": "the model's own answer to B under the first question",
        "candidates": len(pairs),
        "kept": len(pairs),
        "clips_without_value": {},
        "violations": {"count": 0},
        "targets_outside_labels": {},
        "clips_used": len({clip.recording_id for both in sides for clip in both}),
        "targets": dict(Counter(pair.target for pair in pairs)),
    }
    report = {"seed": found.seed, "clips": len(clips), "labels": list(found.labels), "kinds": {BY_HAND.name: kind}}
    return PairSet(pairs, (BY_HAND,), report)


def _sides(texts: Sequence[str], by_id: Mapping[str, Clip]) -> list[tuple[Clip, Clip]]:
    """A and B of each text, of which each may be an edited copy; a clip_id may hold the sign itself."""
    sides: list[tuple[Clip, Clip]] = []
    faults = []
    for text in texts:
        cuts = [at for at in range(len(text)) if text.startswith(PAIR_SIGN, at)]
        both = [(text[:at].strip(), text[at + len(PAIR_SIGN) :].strip()) for at in cuts]
        clips = [(clip_named(a, by_id), clip_named(b, by_id)) for a, b in both]
        known = [(a, b) for a, b in clips if a is not None and b is not None]
        if len(known) == 1 and known[0][0] != known[0][1]:
            sides.append(known[0])
        elif known:
            faults.append(f"{text!r} is one clip twice")
        else:
            unknown = [name for name in both[0] if clip_named(name, by_id) is None]
            near = [match for name in unknown for match in difflib.get_close_matches(name, by_id, 1)]
            hint = f" (near: {few(near, 2)})" if near else ""
            faults.append(f"{text!r} names {' and '.join(map(repr, unknown))}, no clip of the manifest{hint}")
    if faults:
        more = f" and {len(faults) - MOST_NAMED} more" * (len(faults) > MOST_NAMED)
        named = "; ".join(faults[:MOST_NAMED])
        raise InterpError(f"--pair: {named}{more}; give clips by their clip_id, like 'A{PAIR_SIGN}B'.")
    return sides


def _column_of(donor: Clip, target: str) -> str:
    """The label column that says of the donor what the model answers; "" where none does."""
    return next((column for column, value in donor.labels.items() if value == target and column != "text"), "")
