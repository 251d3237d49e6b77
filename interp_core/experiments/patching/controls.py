"""What a patch effect is compared with: other donors, noise, and pairs in which nothing should change."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair


def seed_of(seed: int, *names: str) -> int:
    """Derive a seed that depends on names alone, so that leaving out one pair does not change the next one's draw."""
    return int.from_bytes(hashlib.sha256("|".join([str(seed), *names]).encode()).digest()[:7], "big")


def random_donors(pairs: Sequence[Pair], clips: Sequence[Clip], seed: int) -> dict[str, Clip]:
    """Draw for each pair a donor that has no reason to pull A toward the target.

    It is neither A nor B, and its label in the pair's column is not the target (a clip without that label is left
    out); it may be A's own, so that the label need not change as it does from A to B. For a pair by hand whose
    target no column says, it is any other clip. Where B is of A's speaker it is drawn among that speaker's clips, where
    B is of another one among the others' clips, as far as one fits.

    Returns:
        pair_id -> clip; a pair for which no clip fits is missing.
    """
    chosen = {}
    ordered = sorted(clips, key=lambda clip: clip.clip_id)
    for pair in pairs:
        ids = {pair.recipient.clip_id, pair.donor.clip_id}
        others = [clip for clip in ordered if clip.clip_id not in ids]
        fitting = [c for c in others if not pair.column or c.label(pair.column) not in (None, pair.target)]
        speaker = pair.recipient.label("speaker")
        one_speaker = pair.donor.label("speaker") == speaker
        near = [c for c in fitting if speaker is not None and (c.label("speaker") == speaker) == one_speaker]
        if pool := near or fitting:
            rng = np.random.default_rng(seed_of(seed, "random donor", pair.pair_id))
            chosen[pair.pair_id] = pool[int(rng.integers(len(pool)))]
    return chosen


def no_conflict_pairs(clips: Sequence[Clip], labels: Sequence[str], most: int, seed: int) -> tuple[Pair, ...]:
    """Build pairs in which voice and words agree in both clips and between them: the instability floor.

    The recipient's semantic and prosody label are one, the donor is another clip with the same two labels, so
    whatever flips here flips because activations were exchanged at all.
    """
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.clip_id):
        label = clip.label("prosody_label")
        if label is not None and label == clip.label("semantic_label") and label in labels:
            groups[label].append(clip)
    candidates = [(a, b, label) for label, group in groups.items() for a in group for b in group if a is not b]
    order = np.random.default_rng(seed_of(seed, "no-conflict")).permutation(len(candidates))
    return tuple(
        Pair(f"no-conflict-{i:04d}", "no-conflict", a, b, label, "prosody_label")
        for i, (a, b, label) in enumerate(candidates[at] for at in sorted(order[:most]))
    )
