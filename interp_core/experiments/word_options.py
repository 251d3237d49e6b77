"""The settings of answers in words that the requests of several experiments have, word for word. Torch-free."""

from typing import Any

from interp_core.options import Need, option


def words_option(which: str) -> Any:
    """How long the answers in words are; `which` says, in a sentence without its full stop, of which edits they are."""
    return option(
        0,
        "also let the model write its answers in words, up to so many tokens (40 is a sentence or two); 0 for none. "
        + which,
        least=0, most=1000, label="Answer in words, tokens", rare=True,
    )  # fmt: skip


def word_clips_option() -> Any:
    """Of how many clips the answers are written."""
    return option(
        0, "clips whose answers are written in words; 0 for all", least=0, label="Clips in words", rare=True,
        needs=(Need("words"),),
    )  # fmt: skip


def during_option() -> Any:
    """Where the edit holds while an answer is written; of type `During`."""
    return option(
        "prefill",
        "where the edit holds while the model writes: over the prompt alone (prefill), or at every position that is "
        "written too (all)",
        label="The edit holds", words={"prefill": "over the prompt", "all": "while it writes, too"}, rare=True,
        needs=(Need("words"),),
    )  # fmt: skip
