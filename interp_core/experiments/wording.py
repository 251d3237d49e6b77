"""Two answers in words beside each other: which words differ, and whose words a third answer has; p values as texts."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher
from importlib.util import find_spec
from typing import Literal

from interp_core.errors import InterpError
from interp_core.trace.generate import Written as Written  # pages show these

Origin = Literal["both", "A", "B", "neither"]
"""Of a word of an edited answer: of the words that A's and B's share, of A's own, of B's own, or of neither."""
NO_JIWER = "the word error rate takes the package jiwer, which is not installed: pip install jiwer, or .[words]"


def p_said(p: float) -> str:
    """A p value as it is written everywhere: `p = 0.012`, and `p < 0.001` where three places would show none."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def compared(text: str) -> list[str]:
    """The words of a text as they are compared: without case, and without punctuation at their ends.

    Between blanks; one that is nothing but punctuation stays as it is. `" The dog, barks."` -> the, dog, barks.
    """
    return [word.strip(string.punctuation).casefold() or word for word in text.split()]


def shared(one: Sequence[str], other: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Which words of either stand in both, in one order: [n_one], [n_other].

    Source: Ratcliff and Obershelp 1988, "Pattern matching: the gestalt approach", as in the standard library's difflib.
    """
    in_one, in_other = [False] * len(one), [False] * len(other)
    for i, j, size in _blocks(one, other):
        in_one[i : i + size] = [True] * size
        in_other[j : j + size] = [True] * size
    return in_one, in_other


def _blocks(one: Sequence[str], other: Sequence[str]) -> list[Match]:
    return SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()


@dataclass(frozen=True)
class Moved:
    """Whose words an edited answer has, where A's and B's clean answers differ.

    Attributes:
        moved: of the words of B's answer that do not stand in A's, the share that stands in the edited one: 0 for A's
            own answer, 1 for B's; None where B's answer has no such word.
        kept: of the words of A's answer that do not stand in B's, the share that is still there: 1 for A's own answer,
            0 for B's. An answer that is neither's has 0 of both: it was damaged and not moved.
        of_b, of_a: how many such words there are.
    """

    moved: float | None
    kept: float | None
    of_b: int
    of_a: int


def words_moved(a: str, b: str, edited: str) -> Moved:
    """See `Moved`; which words differ, and which of them are in the edited answer, is told by `shared`."""
    one, other, new = compared(a), compared(b), compared(edited)
    in_both, in_both_of_b = shared(one, other)
    # The edited answer stands in each other's place, so that A's own answer comes out as A's and B's as B's.
    _, there_of_b = shared(new, other)
    there_of_a, _ = shared(one, new)
    ours = [there for there, both in zip(there_of_a, in_both, strict=True) if not both]
    theirs = [there for there, both in zip(there_of_b, in_both_of_b, strict=True) if not both]
    return Moved(_share(theirs), _share(ours), len(theirs), len(ours))


def marked(text: str, other: str) -> list[tuple[str, bool]]:
    """The words of a text as they stand, each with whether it differs from another text there."""
    there, _ = shared(compared(text), compared(other))
    return [(word, not both) for word, both in zip(text.split(), there, strict=True)]


def whose(a: str, b: str, edited: str) -> list[tuple[str, Origin]]:
    """The words of an edited answer as they stand, each with whose it is, by the same comparison as `words_moved`.

    One that stands for an own word of A and for one of B counts as B's.
    """
    one, other, new = compared(a), compared(b), compared(edited)
    in_both, in_both_of_b = shared(one, other)
    found: list[Origin] = ["neither"] * len(new)
    for i, j, size in _blocks(one, new):
        for step in range(size):
            found[j + step] = "both" if in_both[i + step] else "A"
    for i, j, size in _blocks(new, other):
        for step in range(size):
            found[i + step] = "both" if in_both_of_b[j + step] else "B"
    return list(zip(edited.split(), found, strict=True))


def counts_errors() -> bool:
    """Whether the word error rate can be computed here."""
    return find_spec("jiwer") is not None


def word_error_rate(said: str, text: str) -> float | None:
    """Insertions, deletions and substitutions that turn a text into what was said, per word of the text.

    Args:
        said: a transcript. text: what it should be; words are compared as in `compared`.
    Returns:
        0 or more, and over 1 where much is added; None for a text without a word.
    Raises:
        InterpError: the package jiwer is not installed.
    """
    if not counts_errors():
        raise InterpError(f"{NO_JIWER}.")
    import jiwer

    reference, hypothesis = " ".join(compared(text)), " ".join(compared(said))
    return float(jiwer.wer(reference, hypothesis)) if reference else None


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
