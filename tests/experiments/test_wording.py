"""Which words of two answers differ, and whose words a third one has."""

import pytest

from interp_core.experiments.wording import (
    Moved,
    compared,
    counts_errors,
    marked,
    whose,
    word_error_rate,
    words_moved,
)

A = "The speaker sounds sad, and slow."
B = "The speaker sounds very happy and fast!"


def test_words_are_compared_without_case_and_without_punctuation_at_their_ends():
    assert compared(" The dog, BARKS: don't - stop.") == ["the", "dog", "barks", "don't", "-", "stop"]
    assert compared("") == []


@pytest.mark.parametrize(
    "edited, moved, kept",
    [
        (A, 0.0, 1.0),
        (B, 1.0, 0.0),
        ("the SPEAKER sounds very happy and fast", 1.0, 0.0),
        ("The speaker sounds happy and slow.", 1 / 3, 1 / 2),  # very, happy, fast of B; sad, slow of A
        ("The speaker sounds sad and fast.", 1 / 3, 1 / 2),
        ("A dog is barking.", 0.0, 0.0),  # neither's
        ("", 0.0, 0.0),
    ],
)
def test_the_share_that_moved_is_of_bs_own_words_and_the_share_that_was_kept_of_as(edited, moved, kept):
    found = words_moved(A, B, edited)
    assert (found.moved, found.kept) == (pytest.approx(moved), pytest.approx(kept))
    assert (found.of_b, found.of_a) == (3, 2)
    back = words_moved(B, A, edited)  # the other way round, A's words are those that are moved to
    assert (back.moved, back.kept, back.of_b, back.of_a) == (pytest.approx(kept), pytest.approx(moved), 2, 3)


def test_a_share_of_no_words_is_none_and_not_zero():
    assert words_moved("so sad", "sad", "so sad") == Moved(None, 1.0, 0, 1)
    assert words_moved("sad", "sad", "happy") == Moved(None, None, 0, 0)


def test_a_word_that_both_have_elsewhere_is_not_taken_for_bs():
    found = words_moved("a b c d", "c d a b", "a b c d")
    assert found.moved == 0.0 and found.kept == 1.0


def test_the_words_that_differ_are_marked_as_they_stand():
    assert marked(A, B) == [
        *[("The", False), ("speaker", False), ("sounds", False)],
        *[("sad,", True), ("and", False), ("slow.", True)],
    ]
    assert [word for word, differs in marked(B, A) if differs] == ["very", "happy", "fast!"]


def edits(one, other):
    """Levenshtein's distance over words, by its recursion."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        new = [i]
        for j, with_this in enumerate(other, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (word != with_this)))
        row = new
    return row[-1]


@pytest.mark.skipif(not counts_errors(), reason="the package jiwer is not installed")
def test_the_word_error_rate_is_levenshteins_distance_a_word_of_the_text():
    for said, text in ((A, B), (B, A), ("", A), (A, A), ("one two three four", "one")):
        assert word_error_rate(said, text) == pytest.approx(edits(compared(said), compared(text)) / len(text.split()))
    assert word_error_rate("one two three four", "one") == 3.0
    assert word_error_rate("anything", " ") is None


def test_every_word_of_an_edited_answer_is_as_bs_and_the_others_as_the_shares_say():
    found = whose(A, B, "The speaker sounds happy and slow, today.")
    assert found == [
        *[("The", "both"), ("speaker", "both"), ("sounds", "both"), ("happy", "B"), ("and", "both"), ("slow,", "A")],
        ("today.", "neither"),
    ]
    for edited in (A, B, "", "Sad and happy, very fast and slow."):
        moved, origins = words_moved(A, B, edited), [origin for _, origin in whose(A, B, edited)]
        assert (origins.count("B"), origins.count("A")) == (
            pytest.approx(moved.moved * moved.of_b),
            pytest.approx(moved.kept * moved.of_a),
        )
