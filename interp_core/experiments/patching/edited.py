"""Pairs of a clip and its own edited copy, and what the edits did to the sounds; their effect: `edit_doses`.

Every chosen clip is A, its edited copy B, and the target is the model's own answer to B: nothing about the pair differs
but what the edit changed. Where B is answered as A is, no flip is possible, and what can be reported is the change of
A's logits; both are counted, and neither is left out.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from interp_core.data.candidates import PairKind
from interp_core.data.clips import Acoustics, Clip
from interp_core.data.edit_measures import QUANTITIES, measured, percent
from interp_core.data.edits import EDIT_SIGN, BadEdit, edited, parse_edit
from interp_core.data.pairs import Pair, PairSet, limits_of
from interp_core.errors import InterpError, few
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.run import base_predictions
from interp_core.jobs import Progress, silent
from interp_core.prepared import once
from interp_core.trace.store import CleanStore


def edit_pairs(
    store: CleanStore,
    clips: Sequence[Clip],
    kinds: Sequence[PairKind],
    found: PatchRequest,
    progress: Progress = silent,
) -> PairSet:
    """The pairs of the kinds that are edits, of the same clips for all of them, as far as each may have so many.

    Args:
        kinds: all of the run; those that are no edits are passed over.
        progress: told how many copies were answered, and may raise to cancel.
    Raises:
        InterpError: edits that cannot be made on some of the clips; all of them.
    """
    limits = limits_of(kinds, found.max_pairs)
    order = sorted(clips, key=lambda clip: hashlib.sha256(f"{found.seed}|edit|{clip.clip_id}".encode()).digest())
    edits = [kind for kind in kinds if kind.edit]
    copies = {
        kind: [(clip, edited(clip, parse_edit(kind.edit))) for clip in order[: limits[kind.name]]] for kind in edits
    }
    _check(store, [copy for both in copies.values() for _, copy in both])
    total, done = sum(map(len, copies.values())), 0
    pairs: list[Pair] = []
    reports: dict[str, Any] = {}
    for kind, both in copies.items():
        of_kind, stays = [], 0
        for number, (a, b) in enumerate(both):
            own, target = (answer_to(store, clip, found) for clip in (a, b))
            stays += own == target
            name = f"{kind.name}-{number:04d}"
            of_kind.append(Pair(name, kind.name, a, b, target, column_with(clips, target)))
            done += 1
            progress(done, total, "answers to edited clips")
        pairs += of_kind
        reports[kind.name] = {
            "edit": kind.edit,
            "target": "the model's own answer to the edited copy under the first question",
            "candidates": len(clips),
            "kept": len(of_kind),
            "clips_without_value": {},
            "violations": {"count": 0},
            "targets_outside_labels": {},
            "clips_used": len(of_kind),
            "targets": dict(Counter(pair.target for pair in of_kind)),
            "answer_stays": stays,
        }
    report = {"seed": found.seed, "clips": len(clips), "labels": list(found.labels), "kinds": reports}
    return PairSet(tuple(pairs), tuple(edits), report)


def answer_to(store: CleanStore, clip: Clip, found: PatchRequest) -> str:
    """What the model answers to a clip, unedited, under the first question; kept, so that it is asked once."""
    asked = (store.subject.key, clip.digest, found.prompts[0], found.labels, found.several_tokens)

    def ask() -> str:
        return str(next(base_predictions(store, [clip], found))["prediction"])

    return once(("answer", *asked), lambda: store.kept(("answer", *asked), ask))


def column_with(clips: Sequence[Clip], target: str) -> str:
    """The column of labels in which some clip has the target, so that a random donor can be one without it."""
    columns = dict.fromkeys(column for clip in clips for column in clip.labels if column != "text")
    return next((column for column in columns if any(clip.label(column) == target for clip in clips)), "")


def _check(store: CleanStore, copies: Sequence[Clip]) -> None:
    """Make every edit once. Errors: InterpError with all that cannot be made."""
    faults: dict[tuple[str, str], list[str]] = {}
    for copy in copies:
        try:
            store.kept(("edit can be made", copy.digest), partial(_can_be_made, store, copy))
        except BadEdit as error:
            faults.setdefault((copy.edit, str(error.__cause__ or error)), []).append(copy.recording_id)
    if faults:
        said = [
            f"{EDIT_SIGN}{edit} on {few(names)} ({len(names)} of {len(copies)} copies): {reason}"
            for (edit, reason), names in faults.items()
        ]
        raise InterpError(f"some edits cannot be made: {' '.join(said)}")


def _can_be_made(store: CleanStore, copy: Clip) -> bool:
    return len(store.samples(copy)) > 0


def measure_edit(store: CleanStore, copy: Clip, acoustics: Mapping[str, Acoustics]) -> dict[str, Any]:
    """What the edit of a copy did, measured; see `measured`. `acoustics` by clip_id, of the copy and its original."""
    original, rate = copy.original, store.subject.sample_rate
    assert original is not None, "an edited copy has an original"

    def measure() -> dict[str, Any]:
        own, made = store.samples(original), store.samples(copy)
        before, after = acoustics[original.clip_id], acoustics[copy.clip_id]
        return measured(parse_edit(copy.edit), own, made, rate, before, after)

    return store.kept(("edit measured", copy.digest, rate), measure)


def edit_table(pairs: Sequence[Pair], store: CleanStore, acoustics: Mapping[str, Acoustics]) -> pd.DataFrame:
    """One row an edited copy among the pairs' clips: kind, recording, and what `measured` gives."""
    rows = [
        {"kind": pair.kind, "recording": clip.recording_id} | measure_edit(store, clip, acoustics)
        for pair in pairs
        for clip in (pair.recipient, pair.donor)
        if clip.edit
    ]
    return pd.DataFrame(rows).drop_duplicates(["kind", "recording", "edit"]) if rows else pd.DataFrame()


def moved(edits: pd.DataFrame) -> pd.DataFrame:
    """One row an edit: the median change of every quantity over its clips, and in how many others were moved too."""
    rows = []
    for edit, of_edit in edits.groupby("edit", sort=False):
        row: dict[str, Any] = {"edit": edit, "clips": len(of_edit), "also moved": "; ".join(_which(of_edit))}
        for quantity, (name, _) in QUANTITIES.items():
            known = of_edit[f"{quantity}_change"].dropna()
            row[name] = float(known.median()) if len(known) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _which(of_edit: pd.DataFrame) -> list[str]:
    """What else an edit moved, and in how many clips."""
    said = [part for text in of_edit["also_moved"].fillna("") for part in str(text).split("; ") if part]
    names = Counter(name for part in said for name, _ in QUANTITIES.values() if part.startswith(f"{name} "))
    return [f"{name} in {count} of {len(of_edit)}" for name, count in names.most_common()]


def said_of(edits: pd.DataFrame) -> Iterator[str]:
    """What every edit did, a sentence each."""
    if edits.empty:
        return
    for _, row in moved(edits).iterrows():
        changes = [f"{name} {percent(row[name])}" for name, _ in QUANTITIES.values() if row[name] == row[name]]
        which = f"; over 5 % though not meant: {row['also moved']}" if row["also moved"] else "; nothing else over 5 %"
        yield f"{EDIT_SIGN}{row['edit']}: median over {row['clips']} clips {', '.join(changes)}{which}"
