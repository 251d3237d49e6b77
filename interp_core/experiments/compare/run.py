"""Two models side by side: where do they differ, and does the donor's activation, put into the base, change the answer?

The same clips go through both models once for CKA of all pairs of points and for the features that probes read, and
then once more with every transplant. Sites are chosen on one half of the speakers and results reported on the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from interp_core.experiments.compare.clean import CleanPass, cka_table, clean_pass
from interp_core.experiments.compare.erase import fitted_erasers
from interp_core.experiments.compare.figures import cka_figure, point_names
from interp_core.experiments.compare.limits import LIMITS
from interp_core.experiments.compare.measures import SWEEPS, breakdown_table, summary_table
from interp_core.experiments.compare.passes import batches, points_of
from interp_core.experiments.compare.patch import (
    Map,
    Patched,
    Transplanter,
    check_edits,
    fitted_maps,
    transplant_pass,
)
from interp_core.experiments.compare.plan import ComparePlan, checked_sites, parts_report
from interp_core.experiments.compare.probes import count_probes, probe_sites
from interp_core.experiments.compare.report import findings, scores_table
from interp_core.experiments.compare.transplants import Transplant
from interp_core.experiments.compare.units import Units, values_of
from interp_core.experiments.facts import before_semicolon
from interp_core.experiments.figures import sign
from interp_core.experiments.result import Result
from interp_core.jobs import Progress, silent
from interp_core.request import short_name
from interp_core.sinks import Sink
from interp_core.sites import Site

BY_CONSTRUCTION = "donor's value by construction"


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """What a comparison found; the tables are those of its run folder.

    Attributes:
        parts: `identical_parts.json`: what is alike, and what must therefore be null.
        cka: every pair of points, by representation.
        scores: one row a model and clip: its logits, its score, whose half it is in.
        summary: one row a model. probes: one row a model, site and class. breakdown: one row a model and codec or
            attack. findings: onset, most divergent layer, rank correlation, checks.
    """

    parts: Mapping[str, Any]
    cka: pd.DataFrame
    scores: pd.DataFrame
    summary: pd.DataFrame
    probes: pd.DataFrame
    breakdown: pd.DataFrame
    findings: Mapping[str, Any]

    @property
    def metrics(self) -> pd.DataFrame:
        """One row a model."""
        return self.summary

    def tables(self) -> dict[str, pd.DataFrame]:
        return {
            "summary": self.summary, "cka": self.cka, "scores": self.scores, "probes": self.probes,
            "breakdown": self.breakdown,
        }  # fmt: skip

    def checks(self) -> Sequence[Mapping[str, Any]]:
        return self.findings.get("checks", {}).get("checks", ())

    def remarks(self) -> Sequence[str]:
        return self.parts["notes"]

    limits = LIMITS
    profile_x = "point of the models"

    def profile(self) -> pd.DataFrame:
        same = self.cka[self.cka["base_point"] == self.cka["donor_point"]]
        places = point_names(same["base_point"].tolist())
        series = [f"unbiased CKA with the counterpart, {name}" for name in same["representation"]]
        return pd.DataFrame({"series": series, "x": places, "value": same["unbiased"].to_numpy()})

    def figure(self) -> Figure:
        base, donor = (short_name(str(self.config[side]["id"])) for side in ("model", "donor"))
        return sign(cka_figure(self.cka, f"{base} and {donor}"), self.signature())

    @property
    def counted(self) -> str:
        return f"n = {self.config['clips_compared']} clips"

    @property
    def method(self) -> str:
        return "; ".join(filter(None, ["linear CKA", before_semicolon(self.cka["interval_method"])]))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.findings["labels"])


def run_comparison(
    plan: ComparePlan,
    config: Mapping[str, Any],
    *,
    sink: Sink,
    progress: Progress = silent,
) -> Comparison:
    """Run a comparison.

    Args:
        config: what the run folder says about it; handed on.
        sink: keeps what every batch of either pass showed as it comes; a batch that it has is not run again.
        progress: called with (done, total, what); may raise to cancel.
    Raises:
        CheckFailed: an edit does not do what it must, before the transplants.
    """
    q, settings = plan, plan.settings
    base, donor = q.base.subject, q.donor.subject
    points = points_of(base)
    clean = clean_pass(q.base, q.donor, q.clips, q.units, q.task, points, q.planned, settings, sink, progress)
    transplants = q.transplants(clean.divergence[: base.n_layers].tolist())
    maps: dict[tuple[str, Site], Map] = dict(fitted_maps(clean.maps, settings.maps))
    about: dict[str, Any] = {}
    if settings.erase:
        erasers, about["erased"] = fitted_erasers(settings, base, q.units, q.clips, clean)
        maps |= erasers
    worker = Transplanter(base, donor, q.task, maps)
    checks = {"passed": True, "checks": []}
    if settings.checks and transplants:
        first = next(batches(q.base, q.donor, q.clips, q.task.prompt, q.planned[:1]))
        checks = check_edits(worker, first, checked_sites(transplants))
    domain = values_of(q.clips, q.units.columns.domain)
    read = _read_by_head(points)
    probed = probed_transplants(transplants) if any(domain) else []
    patched = transplant_pass(
        q.base, q.donor, q.clips, worker, transplants, q.planned, read=read, read_of=probed, kept=clean.kept,
        clean=clean.logits, reported=q.units.reported, sink=sink, progress=progress,
    )  # fmt: skip
    logits = {**clean.logits, **patched.logits}
    labels = q.task.labels.labels
    summary = summary_table(logits, transplants, q.units, labels, seed=settings.seed)
    probes = _probes(q, clean, patched, transplants, read, domain, progress) if any(domain) else pd.DataFrame()
    return Comparison(
        config=config,
        parts=parts_report(q, transplants),
        cka=cka_table(clean),
        scores=scores_table(q, logits),
        summary=_with_probes(summary, probes),
        probes=probes,
        breakdown=breakdown_table(
            logits, transplants, q.units, labels, domain, values_of(q.clips, q.units.columns.attack)
        ),
        findings={**findings(q, clean, summary, str(read), checks), **about},
    )


def _read_by_head(points: Sequence[Site]) -> Site:
    """Where what the head reads stands: the last stage before the logits, or the last layer."""
    return [site for site in points if site.kind != "logits"][-1]


def probed_transplants(transplants: Sequence[Transplant]) -> list[str]:
    """Those whose representation is probed: chosen ones into the base that can change it, and not the answer."""
    return [
        transplant.name
        for transplant in transplants
        if not transplant.reverse
        and not transplant.null
        and not transplant.chosen.startswith(SWEEPS)
        and transplant.sites != (Site("logits"),)
    ]


def _probes(
    q: ComparePlan,
    clean: CleanPass,
    patched: Patched,
    transplants: Sequence[Transplant],
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
    made_so = {
        (transplant.name, str(read)): BY_CONSTRUCTION
        for transplant in transplants
        if transplant.mode == "donor" and read in transplant.sites
    } | {("base", site): "the same in both models" for site in sites if site in {str(s) for s in q.null}}
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
