"""The candidates of one kind of pair: what two clips must share and differ in, counted without listing them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_core.data.clips import Clip
from interp_core.data.relabel import advice, some
from interp_core.data.texts import TEXT_ID
from interp_core.errors import InterpError, Unanswered

LISTED = 1000  # violations and skipped groups named in the report; their counts are always exact
MAX_CELLS = 10_000_000  # clips times label values; above it the counting tables would take hundreds of megabytes
ONE_SPEAKER = "one speaker"


@dataclass(frozen=True)
class PairKind:
    """What two clips share and in what they differ.

    Attributes:
        name: also part of file names.
        same: column in which both clips have one value.
        differ: column in which their values differ; the donor's value is the pair's target.
        target_column: the column of the target: `differ`.
        agree: column in which the values must not contradict each other; a pair that has both and they disagree is a
            violation: left out, counted and listed.
        also_differ: a further column in which the values must differ.
        edit: of pairs of a clip and its own edited copy what is done to the sound; they share no column.
    """

    name: str
    same: str
    differ: str
    target_column: str
    agree: str | None = None
    also_differ: str | None = None
    edit: str = ""

    def __post_init__(self) -> None:
        if self.same == self.differ:
            raise InterpError(f"kind {self.name!r}: same and differ are both {self.same!r}; give two columns.")
        if self.target_column != self.differ:
            raise InterpError(
                f"kind {self.name!r}: target_column={self.target_column!r} must be the column that differs, "
                f"{self.differ!r}."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns without whose values a clip cannot be paired."""
        return tuple(column for column in (self.same, self.differ, self.also_differ) if column)


class Candidates:
    """The ordered pairs of one kind, counted but not listed.

    Columns become integer codes; how many donors of each label a clip has under a set of rules is then a sum of
    counts of clips that share codes with it (inclusion and exclusion), and a pair is found from its rank by those.

    Attributes:
        clips: the n clips that have every needed value, in order of clip_id.
        group, label, other, agree, speaker: int [n] codes of `same`, `differ`, `also_differ`, `agree` and the speaker;
            -1 = no value (never in the first two).
        values: the label that each code of `label` stands for, sorted.
        valid: int [n, n_labels], for recipient A and label d the donors of label d that satisfy every rule but the
            speaker's; valid_within: those of A's own speaker (all of them where the speaker rule does not apply).
    """

    def __init__(self, clips: Sequence[Clip], kind: PairKind, labels: Sequence[str] | None) -> None:
        self.kind, self.labels = kind, tuple(labels or ())
        present = sorted({column for clip in clips for column in clip.labels})
        absent = [column for column in kind.columns if column not in present]
        if absent:
            texts = " (a column text, what is said, will do for text_id)" if TEXT_ID in absent else ""
            raise InterpError(
                f"pairs of kind {kind.name!r} need the column {' and '.join(map(repr, absent))}, in which no clip has "
                f"a value; columns with values: {', '.join(present) or 'none'}{texts}."
            )
        self.missing = Counter(column for clip in clips for column in kind.columns if clip.label(column) is None)
        self.clips = [clip for clip in clips if all(clip.label(column) is not None for column in kind.columns)]
        self.groups, self.group = self._codes(kind.same)
        self.values, self.label = self._codes(kind.differ)
        if len(self.clips) * len(self.values) > MAX_CELLS:
            raise InterpError(
                f"column {kind.differ!r} has {len(self.values)} values over {len(self.clips)} clips, too many to "
                "stratify by; choose another column or pass --max-clips."
            )
        self.other = self._codes(kind.also_differ)[1]
        self.agree = self._codes(kind.agree)[1]
        self.speaker = self._codes("speaker")[1]
        if "speaker" in (kind.same, kind.differ, kind.also_differ):
            self.speaker_rule = "none: the kind itself is about speakers"
        elif (self.speaker < 0).all():
            self.speaker_rule = "none: no clip has a speaker"
        else:
            self.speaker_rule = ONE_SPEAKER

        everyone = np.ones(len(self.clips), dtype=bool)
        self.differing = self._sharing(everyone, self.group)
        self.apart = self._apart(everyone, self.group)
        self.violations = self._violating(everyone, self.group)
        agreeing = self.apart - self.violations
        is_label = np.array([labels is None or value in labels for value in self.values], dtype=bool)
        self.outside = {
            value: int(agreeing[:, code].sum())
            for code, value in enumerate(self.values)
            if not is_label[code] and agreeing[:, code].any()
        }
        self.agreeing = agreeing
        self.valid = agreeing * is_label
        self.valid_within = self.valid
        if self.speaker_rule == ONE_SPEAKER:
            keys, known = (self.group, self.speaker), self.speaker >= 0
            self.valid_within = (self._apart(known, *keys) - self._violating(known, *keys)) * is_label

    def _codes(self, column: str | None) -> tuple[list[str], np.ndarray]:
        """The column's sorted values and each clip's code; all -1 for no column."""
        values = sorted({value for clip in self.clips if column and (value := clip.label(column)) is not None})
        code = {value: i for i, value in enumerate(values)}
        found = (clip.label(column) if column else None for clip in self.clips)
        return values, np.array([-1 if value is None else code[value] for value in found], dtype=np.int64)

    def _sharing(self, among: np.ndarray, *keys: np.ndarray) -> np.ndarray:
        """Int [n, n_labels]: the clips of each label that share every key with a clip, both being `among` (bool [n]).

        A clip's own label counts 0: labels have to differ.
        """
        result = np.zeros((len(self.clips), len(self.values)), dtype=np.int32)
        if among.any():
            shared = np.unique(np.stack(keys, axis=1)[among], axis=0, return_inverse=True)[1].reshape(-1)
            table = np.zeros((shared.max() + 1, len(self.values)), dtype=np.int32)
            np.add.at(table, (shared, self.label[among]), 1)
            result[among] = table[shared]
        result[np.arange(len(self.clips)), self.label] = 0
        return result

    def _apart(self, among: np.ndarray, *keys: np.ndarray) -> np.ndarray:
        """As `_sharing`, of which those with another value in `also_differ`."""
        sharing = self._sharing(among, *keys)
        return sharing if self.kind.also_differ is None else sharing - self._sharing(among, *keys, self.other)

    def _violating(self, among: np.ndarray, *keys: np.ndarray) -> np.ndarray:
        """As `_apart`, of which those where both have a value in `agree` and the two disagree."""
        known = among & (self.agree >= 0)
        return self._apart(known, *keys) - self._apart(known, *keys, self.agree)

    def by_stratum(self, counts: np.ndarray) -> np.ndarray:
        """Sum int [n, n_labels] over recipients: int [recipient label, donor label]."""
        total = np.zeros((len(self.values), len(self.values)), dtype=np.int64)
        np.add.at(total, self.label, counts)
        return total

    def allowed_donors(self, recipient: int, donors: np.ndarray, violating: bool = False) -> np.ndarray:
        """Which of `donors` (clip positions, labels differing from the recipient's) satisfy all but the speaker rule;
        or, `violating`, all but `agree`, which they break."""
        fits = self.group[donors] == self.group[recipient]
        if self.kind.also_differ is not None:
            fits &= self.other[donors] != self.other[recipient]
        agree, own = self.agree[donors], self.agree[recipient]
        disagree = (agree >= 0) & (own >= 0) & (agree != own)
        return fits & (disagree if violating else ~disagree)

    def pairs_of(
        self, recipient_label: int, donor_label: int, ranks: np.ndarray, within: bool
    ) -> list[tuple[int, int]]:
        """Pairs by rank among a stratum's pairs within one speaker, or, not `within`, among the rest of them."""
        counts = self.valid_within if within else self.valid - self.valid_within
        recipients = np.flatnonzero(self.label == recipient_label)
        donors = np.flatnonzero(self.label == donor_label)
        ends = np.cumsum(counts[recipients, donor_label])
        found = []
        for rank in ranks:
            at = int(np.searchsorted(ends, rank, side="right"))
            a = int(recipients[at])
            fits = self.allowed_donors(a, donors)
            if self.speaker_rule == ONE_SPEAKER:
                own = (self.speaker[donors] == self.speaker[a]) & (self.speaker[a] >= 0)
                fits &= own if within else ~own
            start = int(ends[at - 1]) if at else 0
            found.append((a, int(donors[np.flatnonzero(fits)[rank - start]])))
        return found

    def left_out(self) -> dict[str, Any]:
        """What did not become a candidate, and why; the counts are exact, the lists hold the first LISTED."""
        skipped = self._skipped_groups()
        listed: list[list[str]] = []
        everyone = np.arange(len(self.clips))
        for a in np.flatnonzero(self.violations.sum(axis=1)):
            donors = everyone[self.label != self.label[a]]
            bad = donors[self.allowed_donors(int(a), donors, violating=True)][: LISTED - len(listed)]
            listed += [[self.clips[a].clip_id, self.clips[b].clip_id] for b in bad]
            if len(listed) >= LISTED:
                break
        return {
            "skipped_groups": {
                "count": len(skipped),
                "reasons": dict(Counter(reason for _, reason in skipped)),
                "listed": [{"group": group, "reason": reason} for group, reason in skipped[:LISTED]],
            },
            "clips_without_value": dict(self.missing),
            "clips_without_agree_value": int((self.agree < 0).sum()) if self.kind.agree else 0,
            "violations": {"count": int(self.violations.sum()), "listed": listed},
            "targets_outside_labels": self.outside,
        }

    def _skipped_groups(self) -> list[tuple[str, str]]:
        """(value of `same`, reason) of every group of clips that gives no candidate."""
        size = np.bincount(self.group, minlength=len(self.groups))
        left = [
            np.bincount(self.group, weights=counts.sum(axis=1), minlength=len(self.groups))
            for counts in (self.differing, self.apart, self.agreeing, self.valid)
        ]
        reasons = (
            f"all clips have the same {self.kind.differ}",
            f"clips that differ in {self.kind.differ} have the same {self.kind.also_differ}",
            f"clips that differ in {self.kind.differ} disagree in {self.kind.agree}",
            "no target is among the labels",
        )
        skipped = []
        for g in np.flatnonzero(left[-1] == 0):
            first = next(reason for counts, reason in zip(left, reasons, strict=True) if counts[g] == 0)
            skipped.append((self.groups[g], "only one clip" if size[g] == 1 else first))
        return skipped

    def refusal(self) -> InterpError:
        """Why a kind has no pair to draw; with both sides where its clips' labels are no answers."""
        outside = () if self.valid.any() else tuple(self.outside)
        return Unanswered(self.why_none(), outside, self.labels) if outside else InterpError(self.why_none())

    def why_none(self) -> str:
        """Why a kind has no pair to draw, as a sentence."""
        kind = self.kind
        if across := int(self.valid.sum()):
            why = [f"its {across} candidates are all across speakers; allow those or add clips"]
        else:
            counts = Counter(reason for _, reason in self._skipped_groups())
            why = [f"{n} with the reason '{reason}'" for reason, n in counts.most_common()]
            why = [f"of {len(self.groups)} groups of one {kind.same}: {', '.join(why)}"] if why else []
            why += [f"{n} clips have no {column}" for column, n in self.missing.items()]
            if self.outside:
                why.append(
                    f"targets that are not among the labels: {some(list(self.outside))} (the model answers "
                    f"{some(self.labels)}); {advice(list(self.outside), self.labels)}"
                )
        return f"no pair of kind {kind.name!r} (same {kind.same}, different {kind.differ}): {'; '.join(why)}."
