"""Two models side by side: where do they differ, and does the donor's activation, put into the base, change the answer?

The same clips go through both models once for CKA of all pairs of points and for the features that probes read, and
then once more with every transplant. Sites are chosen on one half of the speakers and results reported on the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp_core.experiments.compare_arms import Arm
from interp_core.experiments.compare_ask import Question, parts_report
from interp_core.experiments.compare_clean import CleanPass, Progress, cka_table, clean_pass
from interp_core.experiments.compare_measures import SWEEPS, breakdown_table, summary_table
from interp_core.experiments.compare_pass import batches, points_of
from interp_core.experiments.compare_patch import (
    Memory,
    Patched,
    Sink,
    Transplanter,
    check_edits,
    fitted_maps,
    transplant_pass,
)
from interp_core.experiments.compare_probes import count_probes, probe_sites
from interp_core.experiments.compare_report import findings, scores_table
from interp_core.experiments.compare_units import Units, values_of
from interp_core.sites import Site

BY_CONSTRUCTION = "donor's value by construction"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison found; the tables are those of its run folder.

    Attributes:
        parts: `identical_parts.json`: what is alike, and what must therefore be null.
        cka: every pair of points, by representation.
        scores: one row a model and clip: its logits, its score, whose half it is in.
        summary: one row a model. probes: one row a model, site and class. breakdown: one row a model and codec or
            attack. findings: onset, most divergent layer, rank correlation, checks.
        clips: what is known about every clip, by clip_id.
    """

    config: Mapping[str, Any]
    parts: Mapping[str, Any]
    cka: pd.DataFrame
    scores: pd.DataFrame
    summary: pd.DataFrame
    probes: pd.DataFrame
    breakdown: pd.DataFrame
    findings: Mapping[str, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.findings["labels"])


def run_comparison(
    question: Question,
    config: Mapping[str, Any],
    *,
    sink: Sink | None = None,
    progress: Progress = lambda done, total, note: None,
) -> Comparison:
    """Run a comparison.

    Args:
        config: what the run folder says about it; handed on.
        sink: keeps the logits of every transplant as they come.
        progress: called with (done, total, what); may raise to cancel.
    Raises:
        CheckFailed: an edit does not do what it must, before the transplants.
    """
    q, settings = question, question.settings
    base, donor = q.base.subject, q.donor.subject
    points = points_of(base)
    clean = clean_pass(q.base, q.donor, q.clips, q.units, q.task, points, q.planned, settings, progress)
    arms = q.arms(clean.divergence[: base.n_layers].tolist())
    worker = Transplanter(base, donor, q.task, fitted_maps(clean.maps, settings.maps))
    checks = {"passed": True, "checks": []}
    if settings.checks and arms:
        first = next(batches(q.base, q.donor, q.clips, q.task.prompt, q.planned[:1]))
        checks = check_edits(worker, first, list(dict.fromkeys(s for a in arms if not a.reverse for s in a.sites)))
    domain = values_of(q.clips, q.units.columns.domain)
    read = _read_by_head(points)
    probed = _probed(arms) if any(domain) else []
    patched = transplant_pass(
        q.base, q.donor, q.clips, worker, arms, q.planned, read=read, read_of=probed, kept=clean.kept,
        sink=sink or Memory(), progress=progress,
    )  # fmt: skip
    logits = {**clean.logits, **patched.logits}
    labels = q.task.labels.labels
    summary = summary_table(logits, arms, q.units, labels, seed=settings.seed)
    probes = _probes(q, clean, patched, arms, read, domain, progress) if any(domain) else pd.DataFrame()
    return Comparison(
        config=config,
        parts=parts_report(q, arms),
        cka=cka_table(clean),
        scores=scores_table(q, logits),
        summary=_with_probes(summary, probes),
        probes=probes,
        breakdown=breakdown_table(logits, arms, q.units, labels, domain, values_of(q.clips, q.units.columns.attack)),
        findings=findings(q, clean, summary, str(read), checks),
    )


def _read_by_head(points: Sequence[Site]) -> Site:
    """Where what the head reads stands: the last stage before the logits, or the last layer."""
    return [site for site in points if site.kind != "logits"][-1]


def _probed(arms: Sequence[Arm]) -> list[str]:
    """The arms whose representation is probed: chosen ones into the base that can change it, and not the answer."""
    return [
        arm.name
        for arm in arms
        if not arm.reverse and not arm.null and not arm.chosen.startswith(SWEEPS) and arm.sites != (Site("logits"),)
    ]


def _probes(
    q: Question,
    clean: CleanPass,
    patched: Patched,
    arms: Sequence[Arm],
    read: Site,
    domain: NDArray[np.str_],
    progress: Progress,
) -> pd.DataFrame:
    """Probes of both models at every point over all kept clips, and of every transplant over the reporting half."""
    kept, settings = clean.kept, q.settings
    units, of_kept = _only(q.units, kept), domain[kept]
    sites = [str(site) for site in clean.points if site.kind != "logits"]
    pair = {name: {site: clean.features[name][site] for site in sites} for name in ("base", "donor")}
    after = {"base": {str(read): clean.features["base"][str(read)]}}
    after["donor"] = {str(read): clean.features["donor"][str(read)]}
    after |= {name: {str(read): values} for name, values in patched.read.items()}
    total = count_probes({name: list(held) for name, held in pair.items()}, units, of_kept) + count_probes(
        {name: list(held) for name, held in after.items()}, units, of_kept
    )
    done = 0

    def step(note: str) -> None:
        nonlocal done
        progress(min(done, total), total, note)
        done += 1

    everybody = np.ones(len(kept), bool)
    made_so = {(arm.name, str(read)): BY_CONSTRUCTION for arm in arms if arm.mode == "donor" and read in arm.sites} | {
        ("base", site): "the same in both models" for site in sites if site in {str(s) for s in q.null}
    }
    draws, seed = settings.probe_draws, settings.seed
    tables = [
        probe_sites(pair, units, of_kept, everybody, draws=draws, seed=seed, step=step, notes=made_so, measured="site"),
        probe_sites(
            after, units, of_kept, units.reported, draws=draws, seed=seed, step=step, notes=made_so,
            measured="transplant",
        ),
    ]  # fmt: skip
    return pd.concat([table for table in tables if len(table)] or [pd.DataFrame()], ignore_index=True)


def _only(units: Units, rows: NDArray[np.intp]) -> Units:
    return Units(
        units.columns, units.labels[rows], units.positive, units.speakers[rows], units.groups[rows],
        units.chosen_on[rows], units.reported[rows], units.split,
    )  # fmt: skip


def _with_probes(summary: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """The summary with the domain probe behind each transplant, one pair of columns a class."""
    if not len(probes):
        return summary
    after = probes[probes["measured"] == "transplant"]
    for subset, rows in after.groupby("clips", sort=False):
        named = rows.set_index("model")
        for column in ("accuracy", "difference", "difference_low", "difference_high"):
            summary[f"probe_{subset}_{column}"] = summary["model"].map(named[column])
        summary[f"probe_{subset}_chance"] = summary["model"].map(named["chance"])
        summary["probe_note"] = summary["model"].map(named["note"])
    return summary
