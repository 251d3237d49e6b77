"""The tables of a sign-flip run: changes of proxies against random neurons, what they do to the answer, what is
acoustic about them at all."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from interp_core.data.clips import Acoustics

OUTPUT = -1
"""Stands for the output among measured layers."""

PROXIES = ("rms", "zcr", "centroid", "centroid_no_dc")
REAL = {
    "rms": "rms",
    "zcr": "zero_crossing_rate",
    "centroid": "spectral_centroid_hz",
    "centroid_no_dc": "spectral_centroid_hz",
}
"""The quantity of the recording that a proxy is named after."""


def constructed(kind: str, frames: str, proxy: str, in_place: bool, bands: int = 1) -> bool:
    """Whether a change is 0 whatever the model: a norm ignores signs, and a flip of whole dimensions is orthogonal."""
    if not in_place or kind != "flip":
        return False
    if proxy == "zcr_refit":
        return frames == "all"
    return proxy in ("rms", "centroid", "centroid_no_dc") and (bands == 1 or frames == "all")


def cluster_error(values: NDArray, units: NDArray) -> tuple[float, float, int]:
    """Mean, its standard error over units, and their number; NaN under two."""
    mean = float(values.mean())
    _, codes = np.unique(units, return_inverse=True)
    n = int(codes.max()) + 1
    if n < 2:
        return mean, float("nan"), n
    sums = np.zeros(n)
    np.add.at(sums, codes, values - mean)
    return mean, float(np.sqrt((sums**2).sum() * n / (n - 1)) / len(values)), n


def changes(table: pd.DataFrame, kind: str, frames: str, bands: int, read_as_is: int | None = None) -> pd.DataFrame:
    """Relative change of each proxy: mean and standard error over units, and what random sets do.

    Args:
        table: one row a (clip_id, unit, flipped, measured, proxy, draw): change, signed; draw 0 is the attributed set.
        kind, frames, bands: of the edit, see `constructed`.
        read_as_is: the layer whose output is the model's, with no norm or mix between; None where there is one.
    """
    rows = []
    for (flipped, measured, proxy), part in table.groupby(["flipped", "measured", "proxy"], sort=False):
        # At an output that is the edited layer's own, what is measured is still what was edited.
        in_place = flipped == measured or (int(str(measured)) == -1 and flipped == read_as_is)
        top = part[part["draw"] == 0]
        random = part[part["draw"] > 0]
        fine = top[np.isfinite(top["change"])]
        mean, error, n_units = cluster_error(fine["change"].to_numpy(), fine["unit"].to_numpy()) if len(fine) else (
            float("nan"), float("nan"), 0)  # fmt: skip
        drawn = random.groupby("draw")["change"].mean().to_numpy()
        drawn = drawn[np.isfinite(drawn)]
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (float("nan"), float("nan"))
        rows.append(
            {
                "flipped": int(str(flipped)),
                "measured": int(str(measured)),
                "proxy": proxy,
                "n": len(fine),
                "n_undefined": len(top) - len(fine),
                "n_units": n_units,
                "change": mean,
                "se": error,
                "signed_change": float(fine["signed"].mean()) if len(fine) else float("nan"),
                "random_mean": float(drawn.mean()) if len(drawn) else float("nan"),
                "random_low": float(low),
                "random_high": float(high),
                "p_random": float((1 + (drawn >= mean).sum()) / (1 + len(drawn))) if len(drawn) else float("nan"),
                "by_construction": constructed(kind, frames, str(proxy), in_place, bands),
            }
        )
    return pd.DataFrame(rows)


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """What the edit does to the answer: of the attributed neurons, and of random ones (mean over draws)."""
    rows = []
    for flipped, part in table.groupby("flipped", sort=False):
        for condition, draws in (("top", part[part["draw"] == 0]), ("random", part[part["draw"] > 0])):
            if not len(draws):
                continue
            change = draws["target_probability"] - draws["base_target_probability"]
            mean, error, n_units = cluster_error(change.to_numpy(), draws["unit"].to_numpy())
            known = draws[draws["label"] != ""]
            right = known["label"] == known["answer"]
            rows.append(
                {
                    "flipped": int(str(flipped)),
                    "condition": condition,
                    "n": draws["clip_id"].nunique(),
                    "n_units": n_units,
                    "target_probability_change": mean,
                    "target_probability_change_se": error,
                    "target_logit_change": float(draws["target_logit_change"].mean()),
                    "changed_rate": float((draws["base"] != draws["answer"]).mean()),
                    "base_accuracy": float((known["label"] == known["base"]).mean()) if len(known) else float("nan"),
                    "accuracy": float(right.mean()) if len(known) else float("nan"),
                    "accuracy_low": _percentile(known, right, 2.5),
                    "accuracy_high": _percentile(known, right, 97.5),
                }
            )
    return pd.DataFrame(rows)


def _percentile(known: pd.DataFrame, right: pd.Series, at: float) -> float:
    """Over random draws; NaN for a single one."""
    by_draw = right.groupby(known["draw"]).mean()
    return float(np.percentile(by_draw, at)) if len(by_draw) > 1 else float("nan")


def links(bases: pd.DataFrame, real: dict[str, Acoustics]) -> pd.DataFrame:
    """Spearman correlation over clips of each unedited proxy with what it is named after."""
    rows = []
    for layer, part in bases.groupby("layer", sort=False):
        for proxy in PROXIES:
            own = part[proxy].to_numpy()
            other = np.asarray([getattr(real[clip_id], REAL[proxy]) for clip_id in part["clip_id"]], float)
            fine = np.isfinite(own) & np.isfinite(other)
            varies = fine.sum() > 2 and own[fine].std() > 0 and other[fine].std() > 0
            r = float(stats.spearmanr(own[fine], other[fine]).statistic) if varies else float("nan")
            rows.append(
                {"layer": int(str(layer)), "proxy": proxy, "quantity": REAL[proxy], "n": int(fine.sum()), "rho": r}
            )
    return pd.DataFrame(rows)


def top(scores: Tensor, size: Tensor, sets: dict[int, list[tuple[int, ...]]]) -> pd.DataFrame:
    """The chosen neurons of every layer, the first set of each; scores and mean |activation| are [n_layers, width]."""
    rows = [
        {
            "layer": layer,
            "rank": rank,
            "neuron": neuron,
            "attribution": float(scores[layer, neuron]),
            "mean_abs_activation": float(size[layer, neuron]),
        }
        for layer, chosen in sets.items()
        for rank, neuron in enumerate(chosen[0], 1)
    ]
    return pd.DataFrame(rows)
