"""The clips of a sweep as a table, what is measured on them, and what each was answered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from interp_core.experiments.neurons.scores import NeuronSet

HEADS, PROBES, REFITS = ("head_ood", "head_id"), ("domain_probe", "task_probe"), ("domain_refit", "task_refit")
MEASURES = (*HEADS, *PROBES, *REFITS)
MOST_DRAWS = 100
"""Of a sort of random set, where no number is given."""


@dataclass(frozen=True, eq=False)
class Table:
    """The clips of a sweep, a row each: features at the site, answers, labels and what they belong to.

    Attributes:
        features: [n, width] float32.
        answers: [n] number of the label that the unedited model answers.
        labels: the head's labels.
        ids, task, domain, units: [n] text; "" in task or domain: no such label.
        train, id, ood: rows of the splits.
    """

    features: Tensor
    answers: NDArray[np.intp]
    labels: tuple[str, ...]
    ids: NDArray
    task: NDArray
    domain: NDArray
    units: NDArray
    train: NDArray[np.intp]
    id: NDArray[np.intp]
    ood: NDArray[np.intp]

    def column(self, name: str) -> NDArray:
        """The labels that a probe or a measure with this beginning is of: domain or task."""
        return self.domain if name.startswith("domain") else self.task


def answers_table(
    table: Table, sets: Sequence[NeuronSet], rows: dict[str, NDArray[np.intp]], answered: dict[str, NDArray[np.intp]]
) -> pd.DataFrame:
    """What every measured clip is answered, ranked sets only."""
    labels = np.asarray(table.labels)
    parts = []
    for i, chosen in enumerate(sets):
        if chosen.name not in ("domain", "task"):
            continue
        for name in HEADS:
            at = rows[name]
            parts.append(
                pd.DataFrame(
                    {
                        "set": chosen.name,
                        "k": chosen.k,
                        "split": name.removeprefix("head_"),
                        "clip_id": table.ids[at],
                        "task": table.task[at],
                        "domain": table.domain[at],
                        "base": labels[table.answers[at]],
                        "answer": labels[answered[name][i]],
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
