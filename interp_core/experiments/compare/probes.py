"""What a linear probe reads of the domain (codec, channel) out of each model, site by site, and after a transplant.

Bona fide and spoofed clips are probed apart: which synthesiser made a clip may go with the codec, and then a probe of
both would read the one off the other. Versions of one utterance stay on one side of every split.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp_core.experiments.compare.units import Units
from interp_core.maths.probes import ProbeScore, linear_probe, probe_difference

Features = Mapping[str, NDArray[np.float32]]
"""[n, width] by site."""
Step = Callable[[str], None]


def subsets(units: Units, domain: NDArray[np.str_], among: NDArray[np.bool_]) -> dict[str, NDArray[np.intp]]:
    """Rows to probe: of each class apart where clips have classes, all together where not; clips without a domain are
    left out."""
    known = (domain != "") & among
    if not known.any():
        return {}
    names = sorted(set(units.labels[known]))
    if not units.columns.label or len(names) < 2 or len(names) > 4:
        return {"all": np.flatnonzero(known)}
    return {str(name): np.flatnonzero(known & (units.labels == name)) for name in names}


def probe_sites(
    models: Mapping[str, Features],
    units: Units,
    domain: NDArray[np.str_],
    among: NDArray[np.bool_],
    *,
    draws: int,
    seed: int,
    step: Step = lambda note: None,
    notes: Mapping[tuple[str, str], str] | None = None,
    measured: str,
) -> pd.DataFrame:
    """ProbeScore every model's features at every site; differences are to the first model at the same site.

    Args:
        models: features by model and site; the first model is the base.
        domain: [n] what is to be named; among: [n] the clips that are used.
        draws: of the permutation test.
        notes: (model, site) -> what a reader has to know.
        measured: what the rows are for: `site` of two models, or `transplant`.
    """
    rows: list[dict[str, Any]] = []
    base = next(iter(models))
    found: dict[tuple[str, str], ProbeScore] = {}
    for subset, at in subsets(units, domain, among).items():
        labels, groups = domain[at].tolist(), units.groups[at]
        for model, features in models.items():
            for site, values in features.items():
                step(f"domain probe: {model}, {site}, {subset}")
                mine = models[base].get(site)
                if model != base and mine is not None and np.array_equal(values[at], mine[at]):
                    probe = found[site, subset]
                else:
                    probe = linear_probe(values[at], labels, groups, draws=draws, seed=seed)
                row = _row(probe, model, site, subset, measured, len(at))
                row["note"] = (notes or {}).get((model, site), "")
                if model == base:
                    found[site, subset] = probe
                elif (site, subset) in found:
                    gap, interval = probe_difference(found[site, subset], probe, labels, groups)
                    limits = {"difference_low": float(interval.low[0]), "difference_high": float(interval.high[0])}
                    row |= {"difference": gap, **limits}
                rows.append(row)
    return pd.DataFrame(rows)


def count_probes(models: Mapping[str, Sequence[str]], units: Units, domain: NDArray[np.str_]) -> int:
    """How many probes `probe_sites` will fit, given the sites of every model."""
    return len(subsets(units, domain, units.reported)) * sum(len(sites) for sites in models.values())


def _row(probe: ProbeScore, model: str, site: str, subset: str, measured: str, n: int) -> dict[str, Any]:
    return {
        "measured": measured, "model": model, "site": site, "clips": subset, "accuracy": probe.accuracy,
        "low": float(probe.interval.low[0]), "high": float(probe.interval.high[0]), "chance": probe.chance,
        "p": np.nan if probe.p is None else probe.p, "difference": np.nan, "difference_low": np.nan,
        "difference_high": np.nan, "n": n, "n_groups": probe.n_groups, "n_classes": len(probe.counts),
        "interval_method": probe.interval.method, "test": probe.test, "reason": probe.reason,
    }  # fmt: skip
