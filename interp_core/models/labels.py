"""The answers that are compared, and where each stands among the logits: a token of a vocabulary, or a class."""

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp_core.errors import InterpError


@dataclass(frozen=True)
class LabelTokens:
    """Labels and each one's index among the logits (the id of its first answer token, or its class).

    `report` says how they were found.
    """

    labels: tuple[str, ...]
    ids: tuple[int, ...]
    report: dict[str, Any]

    def read(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the label logits [rows, n_labels] and the log of their probability among all logits [rows]."""
        at = logits[:, torch.tensor(self.ids, device=logits.device)]
        return at, at.logsumexp(-1) - logits.logsumexp(-1)


def first_tokens(
    tokenizer: Any,
    labels: Sequence[str],
    text: str,
    written: Callable[[str], str] = str,
    *,
    several_tokens: str = "refuse",
) -> LabelTokens:
    """Find the token that starts each label behind a text.

    The id is read off in context: the text is tokenised with and without the label behind it, so that merges across
    the boundary and leading spaces come out as the model would write them.

    Args:
        tokenizer: the library's.
        labels: the answer words, two or more.
        text: what the model has been given so far, rendered.
        written: how a label stands behind the text.
        several_tokens: "refuse" a label of several tokens, or let its "first" token stand for it.
    Raises:
        InterpError: fewer than two labels, an empty or repeated one, one of several tokens (unless "first"), or two
            that start with the same token; all of them in one message.
    """
    if len(labels) < 2:
        raise InterpError(f"{len(labels)} label(s) given: {', '.join(labels)}; a decision needs two or more.")
    before = tokenizer(text, add_special_tokens=False).input_ids
    rows, faults, by_first = [], [], defaultdict(list)
    for label in labels:
        if not label.strip():
            faults.append("an empty label; write a word")
            continue
        whole = tokenizer(text + written(label), add_special_tokens=False).input_ids
        shared = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
        ids = whole[shared:]
        variants = {
            name: tokenizer(variant, add_special_tokens=False).input_ids
            for name, variant in {"plain": label, "leading space": " " + label}.items()
        }
        rows.append(
            {
                "label": label,
                "ids_in_context": ids,
                "tokens_in_context": tokenizer.convert_ids_to_tokens(ids),
                "first_id": ids[0],
                "several_tokens": len(ids) > 1,
                "merged_with_the_prompt": shared < len(before),
                "variants": {
                    name: {"ids": v, "tokens": tokenizer.convert_ids_to_tokens(v)} for name, v in variants.items()
                },
            }
        )
        by_first[ids[0]].append(label)
        if len(ids) > 1 and several_tokens == "refuse":
            pieces = " + ".join(repr(t) for t in rows[-1]["tokens_in_context"])
            faults.append(f"label {label!r} is {len(ids)} tokens ({pieces}) but only the first is compared")
    clashes = [words for words in by_first.values() if len(words) > 1]
    faults += [f"labels {' and '.join(map(repr, words))} start with the same token" for words in clashes]
    if faults:
        raise InterpError(
            f"the labels cannot be told apart by one token each: {'; '.join(faults)}. Choose other words"
            + (", or let first tokens stand for the words (--multi-token first)." if not clashes else ".")
        )
    report = {"labels": rows, "clashes": clashes, "several_tokens": several_tokens}
    return LabelTokens(tuple(labels), tuple(row["first_id"] for row in rows), report)


def class_labels(classes: Sequence[str], labels: Sequence[str]) -> LabelTokens:
    """Find labels among the classes of a classifier.

    Raises:
        InterpError: fewer than two labels, one that is given twice, or that is no class; all in one message.
    """
    faults = [] if len(labels) > 1 else [f"{len(labels)} label(s) given, a decision needs two or more"]
    faults += [f"{label!r} is given twice" for label in dict.fromkeys(labels) if list(labels).count(label) > 1]
    for label in labels:
        if label not in classes:
            near = difflib.get_close_matches(label, classes, 1)
            faults.append(f"{label!r} is no class" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if faults:
        shown = ", ".join(classes[:30]) + (", …" if len(classes) > 30 else "")
        raise InterpError(f"{'; '.join(faults)}. The model's classes: {shown or 'none'}.")
    ids = tuple(classes.index(label) for label in labels)
    rows = [{"label": label, "class": i} for label, i in zip(labels, ids, strict=True)]
    return LabelTokens(tuple(labels), ids, {"labels": rows, "classes": list(classes)})
