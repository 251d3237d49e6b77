"""Pairs: counts against a brute-force listing, balanced seeded draws, the speaker rule, reasons for what is left out.

The brute force here walks over every ordered pair of clips and applies the rules one by one.
"""

import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from interp_core.data.clips import Clip
from interp_core.data.pairs import (
    PROSODY,
    SEMANTIC,
    Pair,
    PairKind,
    PairSet,
    build_pairs,
    parse_kinds,
)
from interp_core.errors import InterpError

GENERAL = PairKind("text_id~speaker", "text_id", "speaker", "speaker")
KINDS = (PROSODY, SEMANTIC, GENERAL)
EMOTIONS = ("happy", "neutral", "sad")


def clip(clip_id: str, **labels: str | None) -> Clip:
    return Clip(clip_id, Path(f"{clip_id}.wav"), {name: value for name, value in labels.items() if value}, clip_id)


def random_clips(rng: np.random.Generator, n: int, *, holes: float = 0.1, speakers: int = 3) -> list[Clip]:
    """Clips with few texts, labels and speakers, some values missing, and semantic labels that may contradict."""

    def pick(values: Sequence[str]) -> str | None:
        return None if rng.random() < holes else str(rng.choice(values))

    return [
        clip(
            f"c{i:03d}",
            text_id=pick([f"t{j}" for j in range(5)]),
            prosody_label=pick(EMOTIONS),
            semantic_label=pick(EMOTIONS),
            speaker=pick([f"s{j}" for j in range(speakers)]) if speakers else None,
        )
        for i in range(n)
    ]


def rules(a: Clip, b: Clip, kind: PairKind) -> str:
    """Which rule an ordered pair breaks first, or "candidate"."""
    for column in kind.columns:
        if a.label(column) is None or b.label(column) is None:
            return "value missing"
    if a.label(kind.same) != b.label(kind.same) or a.label(kind.differ) == b.label(kind.differ):
        return "not a pair"
    if kind.also_differ and a.label(kind.also_differ) == b.label(kind.also_differ):
        return "not a pair"
    if kind.agree and None not in (x := {a.label(kind.agree), b.label(kind.agree)}) and len(x) == 2:
        return "violation"
    return "candidate"


def brute(clips: Sequence[Clip], kind: PairKind, rule: str = "candidate") -> list[tuple[Clip, Clip]]:
    return [(a, b) for a, b in itertools.permutations(clips, 2) if rules(a, b, kind) == rule]


def one_speaker(a: Clip, b: Clip) -> bool:
    return a.label("speaker") is not None and a.label("speaker") == b.label("speaker")


def names(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(pair.recipient.clip_id, pair.donor.clip_id) for pair in pairs]


def some_pairs(clips: Sequence[Clip], kind: PairKind, **settings: object) -> PairSet | None:
    """build_pairs, or None where a table happens to have no pair of the kind at all."""
    try:
        return build_pairs(clips, [kind], **settings)  # type: ignore[arg-type]
    except InterpError:
        assert not brute(clips, kind)
        return None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_with_room_for_all_the_pairs_are_exactly_those_of_the_brute_force(kind: PairKind) -> None:
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        clips = random_clips(rng, int(rng.integers(2, 25)), holes=float(rng.choice([0, 0.1, 0.4])))
        if (found := some_pairs(clips, kind, max_pairs=10**6)) is None:
            continue
        expected = brute(clips, kind)
        seen += len(expected)
        assert sorted(names(found.pairs)) == sorted((a.clip_id, b.clip_id) for a, b in expected)
        report = found.report["kinds"][kind.name]
        assert report["candidates"] == report["kept"] == len(expected)
        assert report["violations"]["count"] == len(brute(clips, kind, "violation"))
        listed = [(a.clip_id, b.clip_id) for a, b in brute(clips, kind, "violation")]
        assert sorted(map(tuple, report["violations"]["listed"])) == sorted(listed)
        assert all(pair.target == pair.donor.label(kind.differ) and pair.column == kind.differ for pair in found.pairs)
        strata = {(row["recipient"], row["donor"]): row["candidates"] for row in report["strata"]}
        assert strata == Counter((a.labels[kind.differ], b.labels[kind.differ]) for a, b in expected)
        for column in kind.columns:
            without = report["clips_without_value"].get(column, 0)
            assert without == sum(c.label(column) is None for c in clips)
    assert seen > 300


@pytest.mark.parametrize("kind", (PROSODY, SEMANTIC), ids=lambda kind: kind.name)
def test_within_speaker_counts_and_relaxed_pairs_equal_the_brute_force(kind: PairKind) -> None:
    relaxed_in_all = 0
    for seed in range(40):
        rng = np.random.default_rng(1000 + seed)
        clips = random_clips(rng, 24)
        most = int(rng.integers(1, 60))
        if (found := some_pairs(clips, kind, max_pairs=most)) is None:
            continue
        report = found.report["kinds"][kind.name]
        expected = brute(clips, kind)
        within = Counter((a.labels[kind.differ], b.labels[kind.differ]) for a, b in expected if one_speaker(a, b))
        assert report["candidates_within_speaker"] == within.total()
        assert report["kept"] == min(most, len(expected)) == len(set(names(found.pairs)))
        drawn_within: Counter[tuple[str, str]] = Counter()
        for pair in found.pairs:
            assert rules(pair.recipient, pair.donor, kind) == "candidate"
            stratum = (pair.recipient.labels[kind.differ], pair.target)
            drawn_within[stratum] += one_speaker(pair.recipient, pair.donor)
        for row in report["strata"]:
            stratum = (row["recipient"], row["donor"])
            assert row["within_speaker"] == within[stratum]
            assert drawn_within[stratum] == min(row["kept"], within[stratum])  # across speakers only where too few
            assert row["relaxed"] == row["kept"] - drawn_within[stratum]
        assert report["relaxed"] == sum(not one_speaker(p.recipient, p.donor) for p in found.pairs)
        relaxed_in_all += report["relaxed"]
    assert relaxed_in_all > 50


def test_targets_outside_the_labels_are_left_out_and_counted() -> None:
    for seed in range(20):
        clips = random_clips(np.random.default_rng(seed), 24)
        found = build_pairs(clips, [PROSODY], labels=["sad", "happy", "angry"], max_pairs=10**6)
        expected = brute(clips, PROSODY)
        assert sorted(names(found.pairs)) == sorted(
            (a.clip_id, b.clip_id) for a, b in expected if b.labels["prosody_label"] != "neutral"
        )
        n_neutral = sum(b.labels["prosody_label"] == "neutral" for _, b in expected)
        outside = {"neutral": n_neutral} if n_neutral else {}
        assert found.report["kinds"]["prosody"]["targets_outside_labels"] == outside
        assert any(pair.recipient.label("prosody_label") == "neutral" for pair in found.pairs)


def full_corpus(speakers: int = 3, texts: int = 6, takes: int = 1) -> list[Clip]:
    """Every speaker says every text in every prosody; a text's words have one semantic label."""
    return [
        clip(f"{s}-{t}-{p}-{k}", text_id=f"t{t}", prosody_label=p, semantic_label=EMOTIONS[t % 3], speaker=f"s{s}")
        for s, t, p, k in itertools.product(range(speakers), range(texts), EMOTIONS, range(takes))
    ]


def test_strata_get_equal_shares_and_small_ones_give_the_rest_to_the_others() -> None:
    even = build_pairs(full_corpus(), [PROSODY], max_pairs=30)
    kept = Counter((p.recipient.labels["prosody_label"], p.target) for p in even.pairs)
    assert len(kept) == 6 and set(kept.values()) == {5}
    # One text has a sad clip, so the four strata with 'sad' hold 1 pair each and the other two share what is left.
    clips = [c for c in full_corpus(1) if c.labels["prosody_label"] != "sad" or c.labels["text_id"] == "t0"]
    uneven = build_pairs(clips, [PROSODY], max_pairs=14)
    kept = Counter((p.recipient.labels["prosody_label"], p.target) for p in uneven.pairs)
    assert sorted(kept.values()) == [1, 1, 1, 1, 5, 5]
    odd = build_pairs(full_corpus(), [PROSODY], max_pairs=32)
    kept = Counter((p.recipient.labels["prosody_label"], p.target) for p in odd.pairs)
    assert sorted(kept.values()) == [5, 5, 5, 5, 6, 6]


def test_the_first_pairs_already_cover_the_strata_and_a_larger_draw_begins_with_the_smaller() -> None:
    clips = full_corpus()
    large = build_pairs(clips, KINDS, max_pairs=60)
    small = build_pairs(clips, KINDS, max_pairs=7)
    for kind in KINDS:
        assert names(large.of(kind.name))[:7] == names(small.of(kind.name))
    assert len({(p.recipient.labels["prosody_label"], p.target) for p in large.of("prosody")[:6]}) == 6
    assert [p.pair_id for p in small.of("semantic")] == [f"semantic-{i:04d}" for i in range(7)]


def test_a_seed_fixes_the_draw_whatever_the_order_of_the_clips_and_the_other_kinds() -> None:
    clips = full_corpus()
    shuffled = [clips[i] for i in np.random.default_rng(5).permutation(len(clips))]
    base = build_pairs(clips, KINDS, max_pairs=20, seed=1)
    assert build_pairs(shuffled, KINDS, max_pairs=20, seed=1) == base
    assert build_pairs(clips, [SEMANTIC], max_pairs=20, seed=1).pairs == base.of("semantic")
    other = build_pairs(clips, KINDS, max_pairs=20, seed=2)
    assert all(set(names(other.of(k.name))) != set(names(base.of(k.name))) for k in KINDS)


def test_the_draw_is_the_same_on_every_machine_and_in_every_release() -> None:
    found = build_pairs(full_corpus(), [PROSODY, SEMANTIC], max_pairs=3)
    assert names(found.pairs) == [  # written down once: a change here changes every user's pairs, so mean it
        ("1-1-neutral-0", "1-1-sad-0"),
        ("0-0-sad-0", "0-0-neutral-0"),
        ("1-4-happy-0", "1-4-sad-0"),
        ("2-0-happy-0", "2-2-happy-0"),
        ("1-5-neutral-0", "1-0-neutral-0"),
        ("2-0-neutral-0", "2-1-neutral-0"),
    ]


def test_a_pair_is_drawn_as_often_as_any_other_of_its_stratum() -> None:
    clips = full_corpus(speakers=2, texts=3)
    stratum = [
        (a.clip_id, b.clip_id)
        for a, b in brute(clips, PROSODY)
        if one_speaker(a, b) and (a.labels["prosody_label"], b.labels["prosody_label"]) == ("happy", "sad")
    ]
    draws = 600
    counts: Counter[tuple[str, str]] = Counter()
    for seed in range(draws):
        pairs = build_pairs(clips, [PROSODY], max_pairs=6, seed=seed).pairs
        counts.update(n for p, n in zip(pairs, names(pairs), strict=True) if n in stratum)
    assert len(stratum) == 6 and counts.total() == draws  # one pair of the stratum a draw
    expected = draws / len(stratum)
    chi_square = sum((counts[pair] - expected) ** 2 / expected for pair in stratum)
    assert chi_square < 20.5  # 5 degrees of freedom, p = .001


def test_ranks_that_are_drawn_without_a_permutation_are_distinct_uniform_and_begin_alike() -> None:
    from interp_core.data.pairs import _distinct_ranks

    ranks = _distinct_ranks(10**12, 5000, seed=3)
    assert len(set(ranks.tolist())) == 5000 and ranks.min() >= 0 and ranks.max() < 10**12
    assert np.array_equal(_distinct_ranks(10**12, 10, seed=3), ranks[:10])
    quarters = np.histogram(ranks, bins=4, range=(0, 10**12))[0]
    assert ((quarters - 1250) ** 2 / 1250).sum() < 16.3  # 3 degrees of freedom, p = .001
    many = _distinct_ranks(1_000_001, 100_000, seed=3)  # about 5,000 repeats on the way
    assert len(np.unique(many)) == 100_000


def test_pairs_stay_within_a_speaker_where_there_are_enough_and_relaxing_can_be_refused() -> None:
    clips = full_corpus(speakers=3, texts=6)  # 18 pairs within a speaker in each of 6 strata
    assert build_pairs(clips, [PROSODY], max_pairs=108).report["kinds"]["prosody"]["relaxed"] == 0
    more = build_pairs(clips, [PROSODY], max_pairs=114)
    assert more.report["kinds"]["prosody"]["relaxed"] == 6
    assert all(row["relaxed"] == 1 for row in more.report["kinds"]["prosody"]["strata"])
    strict = build_pairs(clips, [PROSODY], max_pairs=114, relax_speaker=False)
    assert len(strict.pairs) == 108 and all(one_speaker(p.recipient, p.donor) for p in strict.pairs)


def test_a_clip_without_speaker_counts_as_another_speaker_and_no_speakers_means_no_rule() -> None:
    a, b = clip("a", text_id="t", prosody_label="sad"), clip("b", text_id="t", prosody_label="happy")
    report = build_pairs([a, b], [PROSODY]).report["kinds"]["prosody"]
    assert (report["kept"], report["relaxed"], report["candidates_within_speaker"]) == (2, 0, None)
    assert report["speaker_rule"] == "none: no clip has a speaker"
    third = clip("c", text_id="t2", prosody_label="sad", speaker="s")
    report = build_pairs([a, b, third], [PROSODY]).report["kinds"]["prosody"]
    assert (report["kept"], report["relaxed"], report["candidates_within_speaker"]) == (2, 2, 0)
    with pytest.raises(InterpError, match="its 2 candidates are all across speakers"):
        build_pairs([a, b, third], [PROSODY], relax_speaker=False)


def test_a_kind_about_speakers_is_free_of_the_speaker_rule() -> None:
    report = build_pairs(full_corpus(), [GENERAL]).report["kinds"][GENERAL.name]
    assert report["speaker_rule"] == "none: the kind itself is about speakers" and report["relaxed"] == 0


def test_skipped_groups_say_why_each_gives_no_pair() -> None:
    clips = [
        clip("a1", text_id="alone", prosody_label="sad"),
        clip("b1", text_id="equal", prosody_label="sad"),
        clip("b2", text_id="equal", prosody_label="sad"),
        clip("c1", text_id="clash", prosody_label="sad", semantic_label="sad"),
        clip("c2", text_id="clash", prosody_label="happy", semantic_label="happy"),
        clip("d1", text_id="other", prosody_label="calm"),
        clip("d2", text_id="other", prosody_label="bored"),
        clip("e1", text_id="good", prosody_label="sad"),
        clip("e2", text_id="good", prosody_label="happy"),
        clip("f1", prosody_label="happy"),
        clip("f2", text_id="good"),
    ]
    report = build_pairs(clips, [PROSODY], labels=["sad", "happy"]).report["kinds"]["prosody"]
    assert {row["group"]: row["reason"] for row in report["skipped_groups"]["listed"]} == {
        "alone": "only one clip",
        "equal": "all clips have the same prosody_label",
        "clash": "clips that differ in prosody_label disagree in semantic_label",
        "other": "no target is among the labels",
    }
    assert report["skipped_groups"]["count"] == 4 and report["kept"] == 2
    assert report["clips_without_value"] == {"text_id": 1, "prosody_label": 1}
    assert report["targets_outside_labels"] == {"bored": 1, "calm": 1}
    assert report["violations"] == {"count": 2, "listed": [["c1", "c2"], ["c2", "c1"]]}
    same_text = [clip(x, text_id="t", prosody_label="sad", semantic_label=x) for x in "xy"]
    with pytest.raises(InterpError, match="clips that differ in semantic_label have the same text_id"):
        build_pairs(same_text, [SEMANTIC])


def test_a_missing_column_is_an_error_that_names_the_columns_there() -> None:
    clips = [clip("a", text_id="t", label="x"), clip("b", text_id="t", label="y")]
    with pytest.raises(InterpError) as caught:
        build_pairs(clips, [PROSODY])
    assert str(caught.value) == (
        "pairs of kind 'prosody' need the column 'prosody_label', in which no clip has a value; "
        "columns with values: label, text_id."
    )
    assert len(build_pairs(clips, parse_kinds("same=text_id,differ=label")).pairs) == 2


def test_a_kind_without_any_pair_is_an_error_that_says_why() -> None:
    clips = [
        clip("a", text_id="t1", prosody_label="sad"),
        clip("b", text_id="t2", prosody_label="happy"),
        clip("c", text_id="t3", prosody_label="sad"),
        clip("d", text_id="t3", prosody_label="sad"),
        clip("e", prosody_label="sad"),
    ]
    with pytest.raises(InterpError) as caught:
        build_pairs(clips, [PROSODY])
    assert str(caught.value) == (
        "no pair of kind 'prosody' (same text_id, different prosody_label): of 3 groups of one text_id: 2 with the "
        "reason 'only one clip', 1 with the reason 'all clips have the same prosody_label'; 1 clips have no text_id."
    )
    with pytest.raises(InterpError, match="targets that are not among the labels: happy, neutral, sad"):
        build_pairs(full_corpus(), [PROSODY], labels=["Happy", "Sad"])


def test_settings_that_cannot_be_met_are_refused() -> None:
    clips = full_corpus()
    with pytest.raises(InterpError, match="max_pairs=0 for kind 'prosody'"):
        build_pairs(clips, [PROSODY], max_pairs=0)
    with pytest.raises(InterpError, match="max_pairs names 'semantics'; the kinds are prosody, semantic"):
        build_pairs(clips, [PROSODY, SEMANTIC], max_pairs={"semantics": 3})
    with pytest.raises(InterpError, match="the clip_id '0-0-happy-0' is there more than once"):
        build_pairs([*clips, clips[0]], [PROSODY])
    with pytest.raises(InterpError, match="no kind of pair was given"):
        build_pairs(clips, [])
    many = [clip(f"c{i}", text_id="t", code=f"v{i}") for i in range(3200)]
    with pytest.raises(InterpError, match="column 'code' has 3200 values over 3200 clips, too many to stratify by"):
        build_pairs(many, parse_kinds("same=text_id,differ=code"))


def test_max_pairs_can_be_set_a_kind_and_is_100_elsewhere() -> None:
    found = build_pairs(full_corpus(takes=2), [PROSODY, SEMANTIC], max_pairs={"semantic": 9})
    assert (len(found.of("prosody")), len(found.of("semantic"))) == (100, 9)


def test_the_report_goes_through_json_unchanged() -> None:
    report = build_pairs(random_clips(np.random.default_rng(0), 30), KINDS, labels=["sad"] + ["s0", "s1"]).report
    assert json.loads(json.dumps(report)) == report


@pytest.mark.slow
def test_twenty_thousand_clips_with_two_hundred_million_candidates_are_paired_in_seconds() -> None:
    rng = np.random.default_rng(0)
    clips = [
        clip(
            f"c{i:05d}",
            text_id=f"t{rng.integers(2000)}",
            prosody_label=f"p{rng.integers(5)}",
            semantic_label=f"m{rng.integers(5)}",
            speaker=f"s{rng.integers(200)}",
        )
        for i in range(20_000)
    ]
    start = time.perf_counter()
    found = build_pairs(clips, [PROSODY, SEMANTIC], max_pairs=200)
    assert time.perf_counter() - start < 20
    assert all(rules(p.recipient, p.donor, SEMANTIC) == "candidate" for p in found.of("semantic"))
    # An independent count: ordered pairs of one prosody less those of one semantic label or one text, added back once.
    keys = [("prosody_label",), ("prosody_label", "semantic_label"), ("prosody_label", "text_id")]
    keys.append(("prosody_label", "semantic_label", "text_id"))
    squares = [sum(n * n for n in Counter(tuple(c.labels[k] for k in key) for c in clips).values()) for key in keys]
    count = found.report["kinds"]["semantic"]["candidates"]
    assert count == squares[0] - squares[1] - squares[2] + squares[3] and count > 50_000_000
