"""A concept erased at the site: not some neurons, but every direction in which it can be read, and none besides.

LEACE of the domain, fitted on the training clips' features, goes over every position of the recording of the clips that
are measured on; being affine, it erases the same from a clip's mean. Beside it that of the task, which must hurt, and
random subspaces of the domain's rank, which must not do as much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp_core.experiments.downstream import Downstream
from interp_core.experiments.neurons.measures import Bools, Floats, balance, measured
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.scores import LinearProbe
from interp_core.experiments.neurons.table import HEADS, MEASURES, MOST_DRAWS, PROBES, Table
from interp_core.maths.subspaces import Eraser, fit_leace, random_eraser

CONCEPTS = ("domain", "task")
ENDS = ("", "_low", "_high", "_change", "_change_low", "_change_high")


@dataclass(frozen=True, eq=False)
class Erasers:
    """Of the domain, of the task, and random ones of the domain's rank, in this order.

    Attributes:
        maps: all of them. about: ranks, clips that they were fitted on, draws.
    """

    maps: tuple[Eraser, ...]
    about: Mapping[str, Any]

    @classmethod
    def fit(cls, table: Table, settings: AblateRequest) -> "Erasers":
        """Fit on the training clips that have the label.

        Raises:
            InterpError: classes whose clips have one mean.
        """
        fitted, about = {}, {}
        for name in CONCEPTS:
            at = table.train[table.column(name)[table.train] != ""]
            fitted[name] = fit_leace(table.features[at], table.column(name)[at], shrink=True)
            about[name] = {"rank": fitted[name].rank, "clips": len(at)}
        draws, mean = MOST_DRAWS if settings.draws is None else settings.draws, fitted["domain"].mean
        random = [random_eraser(mean, fitted["domain"].rank, settings.seed, "erasure", draw) for draw in range(draws)]
        return cls((*fitted.values(), *random), {**about, "draws": draws})

    def answered(self, rest: Downstream, rows: Mapping[str, NDArray[np.intp]]) -> dict[str, NDArray[np.intp]]:
        """What the model answers with each of them in its forward pass: [maps, clips] by measure of the head."""
        return {name: rest.mapped(rows[name], self.maps) for name in HEADS}


def erasure_table(
    erasers: Erasers,
    table: Table,
    answered: Mapping[str, NDArray[np.intp]],
    base: Mapping[str, NDArray[np.bool_]],
    rows: Mapping[str, NDArray[np.intp]],
    probes: Mapping[str, LinearProbe],
    standard: tuple[Floats, Floats],
    settings: AblateRequest,
) -> pd.DataFrame:
    """The measures of the sweep under erasure: one row a set, columns as of the curve.

    Args:
        answered: of `Erasers.answered`.
        base: whether the unedited model, or a probe of it, is right about each clip, by measure.
        rows: clips of each measure. probes: as fitted on unedited features.
        standard: what is taken off a feature, and what it is then multiplied by, before a probe sees it.
    Returns:
        Ranked sets with 95 % intervals over units; of random subspaces the mean and 2.5 and 97.5 percentiles over
        draws. Of probes fitted again only so many draws as `settings.refits`.
    """
    centre, scale = standard
    right: dict[str, Bools] = {}
    for name in HEADS:
        truth = np.asarray([table.labels.index(label) for label in table.task[rows[name]]], np.intp)
        right[name] = answered[name] == truth
    edited = [(one(table.features.double()).numpy() - centre) * scale for one in erasers.maps]
    for name in PROBES:
        if name not in base:
            continue
        labels, at = table.column(name), rows[name]
        probe = probes[name.partition("_")[0]]
        right[name] = np.stack([probe.right(z[at], labels[at]) for z in edited])
        if (again := name.replace("probe", "refit")) in base:
            train = table.train[labels[table.train] != ""]
            some = edited[: len(CONCEPTS) + settings.refits]
            right[again] = np.stack([LinearProbe(z[train], labels[train]).right(z[at], labels[at]) for z in some])
    made: list[dict[str, Any]] = [
        {"set": name, "rank": erasers.about[name]["rank"], "clips": erasers.about[name]["clips"], "draws": 1}
        for name in CONCEPTS
    ]
    made.append({**made[0], "set": "random", "draws": erasers.about["draws"]})
    for name in MEASURES:
        found = None if name not in right else _of(name, base[name], right[name], rows, table)
        for place, row in enumerate(made):
            values = (float("nan"),) * len(ENDS) if found is None else found[place]
            row |= {f"{name}{end}": value for end, value in zip(ENDS, values, strict=True)}
    return pd.DataFrame(made)


def _of(
    name: str, base: NDArray[np.bool_], right: Bools, rows: Mapping[str, NDArray[np.intp]], table: Table
) -> Sequence[tuple[float, ...]]:
    """Value, limits, change and its limits of the two erasures, and of random subspaces."""
    at = rows[name.replace("refit", "probe")]
    weights = np.full(len(at), 1 / len(at)) if name in HEADS else balance(table.column(name)[at])
    of = measured(np.vstack([base[None], right[: len(CONCEPTS)]]), weights, table.units[at])
    limits = (of.value, of.low, of.high, of.change, of.change_low, of.change_high)
    found = [tuple(float(part[place]) for part in limits) for place in range(1, len(CONCEPTS) + 1)]
    drawn = right[len(CONCEPTS) :] @ (weights / weights.sum())
    unedited, band, mean = float(of.value[0]), np.percentile(drawn, [2.5, 97.5]), float(drawn.mean())
    found.append((mean, *band.tolist(), mean - unedited, *(band - unedited).tolist()))
    return found


def erasure_sentence(table: pd.DataFrame, report: Mapping[str, Any]) -> str:
    """What erasing the domain did, beside the task's and random subspaces."""
    rows: Mapping[str, Mapping[Any, Any]] = {row["set"]: row for row in table.to_dict("records")}

    def change(measure: str, name: str, limits: bool = False) -> str:
        low, high = rows[name][f"{measure}_change_low"], rows[name][f"{measure}_change_high"]
        said = f"{rows[name][f'{measure}_change']:+z.3f}"
        return f"{said} (95 % {low:+z.3f} to {high:+z.3f})" if limits and low == low else said

    said = f"the domain erased (LEACE, rank {rows['domain']['rank']:d}): head out of domain "
    said += f"{change('head_ood', 'domain', True)}, in domain {change('head_id', 'domain', True)}"
    if "domain_probe" not in report["refused"]:
        probe = "domain_refit" if "domain_refit" in report["base"] else "domain_probe"
        name = "refitted domain probe" if probe == "domain_refit" else "domain probe"
        said += f", {name} {change(probe, 'domain')} to {rows['domain'][probe]:.3f}"
    return (
        f"{said}; out of domain, the task erased {change('head_ood', 'task')}, {rows['random']['draws']:d} random "
        f"subspaces of the domain's rank {change('head_ood', 'random')}"
    )
