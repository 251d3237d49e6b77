"""Pairs of clips: which recipient A gets the activations of which donor B, toward which label, and how they were drawn.

Ordered pairs, so (A, B) and (B, A) are two. A *stratum* is one combination of recipient label and donor label; pairs
are drawn from the strata in turn until `max_pairs` is reached. Counts are exact and draws are uniform within a stratum
without the candidates ever being listed: 20,000 clips have hundreds of millions of them. Every draw is seeded by its
kind and stratum, so a further kind, other strata, a larger `max_pairs` or another order of the clips leave it alone.
"""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_core.data.candidates import ONE_SPEAKER, Candidates, PairKind
from interp_core.data.clips import Acoustics, Clip
from interp_core.data.edits import EDIT_SIGN, Edit, parse_edit
from interp_core.errors import InterpError

DEFAULT_MAX_PAIRS = 100


PROSODY = PairKind("prosody", "text_id", "prosody_label", "prosody_label", agree="semantic_label")
SEMANTIC = PairKind("semantic", "prosody_label", "semantic_label", "semantic_label", also_differ="text_id")
NAMED_KINDS = {kind.name: kind for kind in (PROSODY, SEMANTIC)}
WAYS = f"prosody, semantic, same=COLUMN,differ=COLUMN or {EDIT_SIGN}KNOB=DOSE"
THE_ANSWER = "the answer"
"""In the place of a column of labels, where the target of a pair is what the model answers to B."""


@dataclass(frozen=True)
class Pair:
    """Recipient A, donor B, and the label `target` of B in `column` that B should pull A toward."""

    pair_id: str
    kind: str
    recipient: Clip
    donor: Clip
    target: str
    column: str


@dataclass(frozen=True)
class PairSet:
    """The pairs of a run, kind after kind, and the JSON-ready report of how they were chosen.

    Within a kind they stand in draw order: the first N are spread over the strata like all of them.
    """

    pairs: tuple[Pair, ...]
    kinds: tuple[PairKind, ...]
    report: dict[str, Any]

    def of(self, kind_name: str) -> tuple[Pair, ...]:
        """The pairs of one kind, in draw order."""
        return tuple(pair for pair in self.pairs if pair.kind == kind_name)


def parse_kinds(text: str) -> tuple[PairKind, ...]:
    """Read a setting such as "prosody,semantic", "same=text_id,differ=speaker", "edit:pitch=+4" or a mixture of them.

    Raises:
        InterpError: no kind, an unknown name, `same=` without `differ=` right after it, an edit that cannot be read,
            one kind twice.
    """
    kinds: list[PairKind] = []
    same: str | None = None
    for part in (part.strip() for part in text.split(",")):
        key, _, column = (piece.strip() for piece in part.partition("="))
        if same is not None and not (key == "differ" and column):
            break
        if part.startswith(EDIT_SIGN):
            kinds.append(kind_of_edit(parse_edit(part.removeprefix(EDIT_SIGN))))
        elif key == "same" and column:
            same = column
        elif key == "differ" and column and same is not None:
            name = re.sub(r"[^\w.~-]", "_", f"{same}~{column}")
            kinds.append(PairKind(name, same, column, column))
            same = None
        elif part in NAMED_KINDS:
            kinds.append(NAMED_KINDS[part])
        else:
            near = difflib.get_close_matches(part, NAMED_KINDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"give {WAYS}."
            raise InterpError(f"unknown kind of pair {part!r} in {text!r}; {hint}")
    if same is not None:
        raise InterpError(f"same={same} in {text!r} needs differ=COLUMN right after it.")
    _check_unique([kind.name for kind in kinds], "the kind of pair")
    return tuple(kinds)


def kind_of_edit(edit: Edit) -> PairKind:
    """The kind of pair of clips and their own edited copies; `edit~pitch~4` is its name, also in files and links."""
    name = f"edit~{re.sub(r'[=:]', '~', edit.text.replace('+', ''))}"
    return PairKind(name, "", THE_ANSWER, THE_ANSWER, edit=edit.text)


def build_pairs(
    clips: Sequence[Clip],
    kinds: Sequence[PairKind],
    *,
    labels: Sequence[str] | None = None,
    max_pairs: int | Mapping[str, int] = DEFAULT_MAX_PAIRS,
    seed: int = 42,
    relax_speaker: bool = True,
) -> PairSet:
    """Draw pairs of every kind, spread evenly over the strata.

    Each stratum has an equal share of `max_pairs`; what one cannot fill goes to the others. Where clips have a
    `speaker`, both clips are one speaker's; only a stratum with too few such pairs for its share is filled up with
    pairs across speakers, which are counted as relaxed. (A kind that compares speakers is free of this rule.)

    Args:
        clips: in any order; their order does not matter.
        kinds: what to pair by.
        labels: the words that can be answered; pairs with another target are left out and counted. None: all are kept.
        max_pairs: the most pairs a kind, or by kind name (100 for a kind that is not named).
        seed: of every draw.
        relax_speaker: False keeps to one speaker even where a stratum then has too few.
    Returns:
        The pairs, and the report: a kind's candidates (ordered pairs that satisfy every rule but the speaker's), kept
        and relaxed pairs, strata, skipped groups and clips with the reason, violations, targets outside the labels.
    Raises:
        InterpError: no clip has a needed column, a kind has no pair (with the reasons), a clip_id twice, max_pairs
            under 1 or for an unknown kind, too many label values to stratify by.
    """
    if not kinds:
        raise InterpError(f"no kind of pair was given; give {WAYS}.")
    _check_unique([kind.name for kind in kinds], "the kind of pair")
    _check_unique([clip.clip_id for clip in clips], "the clip_id")
    limits = limits_of(kinds, max_pairs)
    ordered = sorted(clips, key=lambda clip: clip.clip_id)
    pairs: list[Pair] = []
    reports: dict[str, Any] = {}
    for kind in kinds:
        candidates = Candidates(ordered, kind, labels)
        drawn, reports[kind.name] = _draw(candidates, limits[kind.name], seed, relax_speaker)
        for i, (a, b) in enumerate(drawn):
            target = b.labels[kind.target_column]
            pairs.append(Pair(f"{kind.name}-{i:04d}", kind.name, a, b, target, kind.target_column))
    report = {
        "seed": seed,
        "clips": len(clips),
        "labels": None if labels is None else list(labels),
        "relax_speaker": relax_speaker,
        "kinds": reports,
    }
    return PairSet(tuple(pairs), tuple(kinds), report)


def acoustic_differences(pairs: Sequence[Pair], acoustics_by_clip: Mapping[str, Acoustics]) -> dict[str, Any]:
    """How the donors of each kind sound different from their recipients.

    Args:
        pairs: of any kinds.
        acoustics_by_clip: by clip_id, for every clip in `pairs`.
    Returns:
        JSON-ready: by kind, for duration_s (s), f0_median_hz (Hz) and rms (full scale = 1), the mean and standard
        deviation (n - 1) of donor minus recipient, the same of its absolute value, and n, the pairs in which both
        clips have the value (an unvoiced clip has no F0). None where n is too small.
    Raises:
        InterpError: clips without acoustics.
    """
    missing = sorted({c.clip_id for p in pairs for c in (p.recipient, p.donor)} - set(acoustics_by_clip))
    if missing:
        raise InterpError(
            f"no acoustics for {len(missing)} clips of the pairs, {missing[0]!r} first; measure them too."
        )
    result: dict[str, Any] = {}
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        chosen = [pair for pair in pairs if pair.kind == kind]
        result[kind] = {"pairs": len(chosen)}
        for name in ("duration_s", "f0_median_hz", "rms"):
            difference = np.array(
                [
                    getattr(acoustics_by_clip[pair.donor.clip_id], name)
                    - getattr(acoustics_by_clip[pair.recipient.clip_id], name)
                    for pair in chosen
                ]
            )
            difference = difference[np.isfinite(difference)]
            summary: dict[str, float | int | None] = {"n": len(difference)}
            for prefix, values in (("", difference), ("abs_", np.abs(difference))):
                summary[f"{prefix}mean"] = float(values.mean()) if len(values) else None
                summary[f"{prefix}sd"] = float(values.std(ddof=1)) if len(values) > 1 else None
            result[kind][name] = summary
    return result


def _draw(
    candidates: Candidates, most: int, seed: int, relax_speaker: bool
) -> tuple[list[tuple[Clip, Clip]], dict[str, Any]]:
    """The pairs of one kind in draw order, and the kind's report."""
    c, kind = candidates, candidates.kind
    by_speaker = c.speaker_rule == ONE_SPEAKER
    every, within = c.by_stratum(c.valid), c.by_stratum(c.valid_within)
    capacity = every if relax_speaker else within
    if not capacity.any():
        raise c.refusal()
    strata = [(int(r), int(d)) for r, d in np.argwhere(capacity > 0)]
    strata.sort(key=lambda s: _seed_of(seed, kind.name, "order", c.values[s[0]], c.values[s[1]]))
    share = _shares([int(capacity[s]) for s in strata], most)

    columns: list[list[tuple[int, int]]] = []  # a stratum's pairs, those within one speaker first
    rows: list[dict[str, Any]] = []
    for (r, d), kept in zip(strata, share, strict=True):
        if not kept:
            continue
        n_within = min(kept, int(within[r, d]))
        stratum: list[tuple[int, int]] = []
        for inside, total, wanted in (
            (True, within[r, d], n_within),
            (False, every[r, d] - within[r, d], kept - n_within),
        ):
            stream = _seed_of(seed, kind.name, "within" if inside else "across", c.values[r], c.values[d])
            stratum += c.pairs_of(r, d, _distinct_ranks(int(total), wanted, stream), inside)
        columns.append(stratum)
        row = {"recipient": c.values[r], "donor": c.values[d], "candidates": int(every[r, d]), "kept": kept}
        rows.append(row | {"within_speaker": int(within[r, d]) if by_speaker else None, "relaxed": kept - n_within})
    drawn = [stratum[i] for i in range(max(share)) for stratum in columns if i < len(stratum)]
    report = {
        "same": kind.same,
        "differ": kind.differ,
        "also_differ": kind.also_differ,
        "agree": kind.agree,
        "target_column": kind.target_column,
        "max_pairs": most,
        "candidates": int(every.sum()),
        "candidates_within_speaker": int(within.sum()) if by_speaker else None,
        "kept": len(drawn),
        "clips_used": len({clip for pair in drawn for clip in pair}),
        "speaker_rule": c.speaker_rule,
        "relaxed": sum(row["relaxed"] for row in rows),
        "strata": sorted(rows, key=lambda row: (row["recipient"], row["donor"])),
        "strata_not_drawn_from": int((every > 0).sum()) - len(rows),
        **c.left_out(),
    }
    return [(c.clips[a], c.clips[b]) for a, b in drawn], report


def _shares(capacities: Sequence[int], most: int) -> list[int]:
    """Deal `most` pairs to strata in turn, a stratum dropping out when it has no more."""
    shares = [0] * len(capacities)
    active = list(range(len(capacities)))
    while most and active:
        for i in active[:most]:
            shares[i] += 1
        most -= len(active[:most])
        active = [i for i in active if shares[i] < capacities[i]]
    return shares


def _distinct_ranks(total: int, wanted: int, seed: int) -> np.ndarray:
    """The first `wanted` of a seeded uniform order of 0..total-1; a larger `wanted` begins with the same ranks."""
    rng = np.random.default_rng(seed)
    if total <= 1_000_000:
        return rng.permutation(total)[:wanted]
    found: dict[int, None] = {}
    while len(found) < wanted:  # repeats are rare or the permutation above had been cheap
        found.update(dict.fromkeys(rng.integers(total, size=1024).tolist()))
    return np.array(list(found)[:wanted], dtype=np.int64)


def _seed_of(seed: int, *names: str) -> int:
    """A seed that depends on nothing but its arguments, on any machine."""
    return int.from_bytes(hashlib.sha256(repr((seed, *names)).encode()).digest()[:16], "big")


def limits_of(kinds: Sequence[PairKind], max_pairs: int | Mapping[str, int]) -> dict[str, int]:
    """The most pairs by kind name. Errors: InterpError for an unknown kind or less than one pair."""
    names = [kind.name for kind in kinds]
    if isinstance(max_pairs, int):
        limits = dict.fromkeys(names, max_pairs)
    else:
        unknown = [name for name in max_pairs if name not in names]
        if unknown:
            raise InterpError(f"max_pairs names {', '.join(map(repr, unknown))}; the kinds are {', '.join(names)}.")
        limits = {name: max_pairs.get(name, DEFAULT_MAX_PAIRS) for name in names}
    for name, most in limits.items():
        if most < 1:
            raise InterpError(f"max_pairs={most} for kind {name!r} leaves no pair; give 1 or more.")
    return limits


def _check_unique(names: Sequence[str], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InterpError(f"{what} {', '.join(map(repr, twice[:20]))} is there more than once; keep one of each.")
