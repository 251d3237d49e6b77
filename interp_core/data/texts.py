"""What a `text_id` stands for where only the `text` is there: equal texts are one."""

from collections.abc import Iterable, Mapping

TEXT, TEXT_ID = "text", "text_id"
SAID = "There is no text_id: a text is one that is the same but for case and blanks."


def ids_of_texts(rows: Iterable[Mapping[str, str]]) -> list[str] | None:
    """The text_id of each row by its text, "" for a row without; None where none is needed or none can be made.

    Args:
        rows: columns -> values; where one of them has a text_id, those that are there count alone.
    """
    rows = list(rows)
    if any(row.get(TEXT_ID, "").strip() for row in rows):
        return None
    ids = [" ".join(row.get(TEXT, "").split()).casefold() for row in rows]
    return ids if any(ids) else None
