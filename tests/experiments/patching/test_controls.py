"""The controls' draws against brute force over all clips: who may be drawn, and that nothing else decides who is."""

import random
from pathlib import Path

import pytest

from interp_core.data.clips import Clip
from interp_core.data.pairs import PROSODY, SEMANTIC, build_pairs
from interp_core.experiments.patching.controls import no_conflict_pairs, random_donors, seed_of

LABELS = ("neutral", "happy", "sad")


def clip(clip_id, **labels):
    return Clip(clip_id, Path(clip_id), labels, clip_id)


def corpus(speakers=("s1", "s2")):
    """Texts x voices x speakers; one text has no meaning noted, and one clip no voice."""
    clips = []
    for speaker in speakers:
        for text in range(5):
            for voice in (*LABELS, "bored"):
                labels = {"text_id": f"t{text}", "speaker": speaker, "prosody_label": voice}
                if text < 4:
                    labels["semantic_label"] = LABELS[text % 3]
                clips.append(clip(f"{speaker}-{text}-{voice}", **labels))
    return [*clips, clip("unlabelled", text_id="t0", speaker="s1", semantic_label="happy")]


CLIPS = corpus()
PAIRS = build_pairs(CLIPS, [PROSODY, SEMANTIC], labels=LABELS, max_pairs=40, seed=1).pairs


def allowed(pair):
    """By the words of the specification: not A, not B, and known not to be labelled with the target."""
    fitting = {
        c.clip_id
        for c in CLIPS
        if c.clip_id not in (pair.recipient.clip_id, pair.donor.clip_id)
        and pair.column in c.labels
        and c.labels[pair.column] != pair.target
    }
    own = {c.clip_id for c in CLIPS if c.labels["speaker"] == pair.recipient.labels["speaker"]}
    crosses = pair.donor.clip_id not in own
    return (fitting - own if crosses else fitting & own) or fitting


def test_a_random_donor_is_neither_clip_nor_labelled_with_the_target_and_of_the_recipients_speaker():
    assert len(PAIRS) == 80
    for seed in range(5):
        drawn = random_donors(PAIRS, CLIPS, seed)
        assert set(drawn) == {pair.pair_id for pair in PAIRS}
        wrong = {p.pair_id: drawn[p.pair_id].clip_id for p in PAIRS if drawn[p.pair_id].clip_id not in allowed(p)}
        assert wrong == {}


def test_every_clip_that_may_be_drawn_is_drawn_by_some_seed():
    pair = PAIRS[0]
    drawn = {random_donors([pair], CLIPS, seed)[pair.pair_id].clip_id for seed in range(400)}
    assert drawn == allowed(pair)


def test_other_speakers_donate_where_the_own_has_none_that_fits():
    a, b = clip("a", speaker="s1", prosody_label="sad"), clip("b", speaker="s1", prosody_label="happy")
    pair = build_pairs(
        [
            clip("a", text_id="t", speaker="s1", prosody_label="sad"),
            clip("b", text_id="t", speaker="s1", prosody_label="happy"),
        ],
        [PROSODY],
        labels=["happy"],
    ).pairs[0]
    other = clip("c", speaker="s2", prosody_label="angry")
    assert random_donors([pair], [a, b, other], 0) == {pair.pair_id: other}
    assert random_donors([pair], [a, b], 0) == {}, "nobody is left, so the pair has no random donor"
    assert random_donors([pair], [a, b, clip("d", speaker="s2", prosody_label="happy")], 0) == {}
    assert random_donors([pair], [a, b, clip("e", speaker="s2")], 0) == {}, "a clip without the label may be anything"


def test_a_pair_across_speakers_draws_across_speakers_and_from_the_own_where_no_other_fits():
    a = clip("a", speaker="s1", text_id="t", prosody_label="sad")
    b = clip("b", speaker="s2", text_id="t", prosody_label="happy")
    pair = build_pairs([a, b], [PROSODY], labels=["happy"]).pairs[0]
    mine, other = clip("c", speaker="s1", prosody_label="sad"), clip("d", speaker="s3", prosody_label="sad")
    for seed in range(20):
        assert random_donors([pair], [a, b, mine, other], seed) == {pair.pair_id: other}
    assert random_donors([pair], [a, b, mine], 0) == {pair.pair_id: mine}


def test_draws_hang_on_the_seed_and_the_pair_alone():
    drawn = random_donors(PAIRS, CLIPS, 3)
    shuffled = random.Random(0).sample(CLIPS, len(CLIPS))
    assert random_donors(PAIRS, shuffled, 3) == drawn
    some = PAIRS[5:50:3]
    assert random_donors(some, CLIPS, 3) == {pair.pair_id: drawn[pair.pair_id] for pair in some}
    assert random_donors(PAIRS, CLIPS, 4) != drawn


def agreeing():
    """All ordered pairs by brute force: voice and words say the same in both clips and across them."""
    return {
        (a.clip_id, b.clip_id)
        for a in CLIPS
        for b in CLIPS
        if a is not b
        and a.labels.get("prosody_label") in LABELS
        and a.labels.get("prosody_label") == a.labels.get("semantic_label")
        and b.labels.get("prosody_label") == b.labels.get("semantic_label") == a.labels["prosody_label"]
    }


def test_no_conflict_pairs_are_those_in_which_all_four_labels_are_one():
    found = no_conflict_pairs(CLIPS, LABELS, 10_000, 0)
    names = [(p.recipient.clip_id, p.donor.clip_id) for p in found]
    assert len(names) == len(set(names)) and set(names) == agreeing() and len(names) == 16
    assert {p.target for p in found} == set(LABELS)
    assert all(p.target == p.donor.labels["semantic_label"] for p in found)
    assert [p.pair_id for p in found] == [f"no-conflict-{i:04d}" for i in range(16)]
    only_sad = no_conflict_pairs(CLIPS, ["sad", "angry"], 10_000, 0)
    assert {p.target for p in only_sad} == {"sad"} and len(only_sad) == 2
    assert no_conflict_pairs(CLIPS, ["bored"], 10, 0) == ()


@pytest.mark.parametrize("most", [0, 1, 7, 16])
def test_no_conflict_pairs_stop_at_the_number_asked_for_and_ignore_the_order_of_the_clips(most):
    found = no_conflict_pairs(CLIPS, LABELS, most, 5)
    assert len(found) == most
    assert {(p.recipient.clip_id, p.donor.clip_id) for p in found} <= agreeing()
    assert no_conflict_pairs(random.Random(1).sample(CLIPS, len(CLIPS)), LABELS, most, 5) == found


def test_another_seed_draws_other_no_conflict_pairs_and_all_of_them_come_up():
    def drawn(seed):
        return frozenset((p.recipient.clip_id, p.donor.clip_id) for p in no_conflict_pairs(CLIPS, LABELS, 4, seed))

    by_seed = [drawn(seed) for seed in range(60)]
    assert len(set(by_seed)) > 50
    assert frozenset().union(*by_seed) == agreeing()


def test_seeds_keep_names_apart():
    seeds = {seed_of(s, *names) for s in (0, 1) for names in (("a", "b"), ("b", "a"), ("a",), ("noise", "p-0001"))}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, "a") == seed_of(1, "a")
