"""What an edit does to the answers in words of a run's clips: a record a clip and edit, and the table of them.

The clip as it is and all its edits are written in one batch; see `generate`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp_core.choices import During
from interp_core.data.clips import Clip
from interp_core.experiments.wording import compared, counts_errors, shared, word_error_rate
from interp_core.models.subject import Subject
from interp_core.sinks import Records
from interp_core.storage import read_records
from interp_core.trace.generate import Row, Written, generate

TEXT = "text"
"""The column of a manifest that holds what is said in a recording."""
RECORDS, TABLE = "answers_records.jsonl", "answers.csv"


def edited_answers(
    subject: Subject, clip: Clip, rows: Sequence[tuple[Mapping[str, Any], Row]], n_tokens: int, during: During
) -> Records:
    """One record an edit of a clip.

    Args:
        rows: of each edit, what it is called and the clip under it.
    Returns:
        clip_id, what the edit is called, during; `answer` as the clip is and `answer_edited`; changed; `words` of the
        clip's own answer, and `kept`, the share of them that is still there (None without a word); tokens of the edited
        answer and whether either came to its end; of a transcript, where the text is known, both word error rates.
    """
    own, *edited = generate(subject, [Row(rows[0][1].prompted), *(row for _, row in rows)], n_tokens, during=during)
    return [
        {"clip_id": clip.clip_id, **about, "during": during, **_measured(subject, clip, own, after)}
        for (about, _), after in zip(rows, edited, strict=True)
    ]


def _measured(subject: Subject, clip: Clip, own: Written, after: Written) -> dict[str, Any]:
    words = compared(own.text)
    there, _ = shared(words, compared(after.text))
    found = {
        "answer": own.text,
        "answer_edited": after.text,
        "changed": after.tokens != own.tokens,
        "words": len(words),
        "kept": round(sum(there) / len(words), 4) if words else None,
        "n_tokens": len(after.tokens),
        "ended": own.ended,
        "ended_edited": after.ended,
    }
    text = clip.label(TEXT)
    if subject.transcribes and counts_errors() and text is not None:
        found |= {"wer": word_error_rate(own.text, text), "wer_edited": word_error_rate(after.text, text)}
    return found


def read_answers(folder: Path, config: Mapping[str, Any]) -> pd.DataFrame:
    """The answers that a run kept in its folder, empty where it wrote none.

    From the records and not from the table for people, in which an empty answer and a missing one look alike.
    """
    spoken = config.get("settings", {}).get("words", 0)
    return pd.DataFrame(read_records(folder / RECORDS, finished=True) if spoken else [])


def left_out(subject: Subject, clips: Sequence[Clip]) -> tuple[str, ...]:
    """What is left out for want of a package, before a run; else nothing."""
    if not subject.transcribes or counts_errors() or not any(clip.label(TEXT) for clip in clips):
        return ()
    return ("word error rates are left out: the package jiwer is not installed (pip install jiwer)",)


def said_of(table: pd.DataFrame, what: str) -> Iterator[str]:
    """How many answers change, a sentence.

    Args:
        what: the column that says which edit it was.
    """
    for name, rows in table.groupby(what, sort=False) if len(table) else ():
        n, kept = rows["clip_id"].nunique(), rows["kept"].mean()
        share = "" if kept != kept else f", {kept:.0%} of the words of the clips' own answers are still there"
        yield f"in words, {what} {name}: {rows['changed'].mean():.0%} of {len(rows)} texts of {n} clips change{share}"
