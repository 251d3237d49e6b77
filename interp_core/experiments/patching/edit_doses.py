"""The effect of edited donors against the dose: of the patch at a layer, and of the edit on the whole model.

Where B is answered as A is, no flip is possible, and what can be reported is the change of A's logits; both are
counted, and neither is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp_core.data.clips import Clip
from interp_core.data.columns import choose_cluster_column, cluster_map
from interp_core.data.edits import parse_edit
from interp_core.data.pairs import PairSet
from interp_core.maths.arrays import Floats
from interp_core.maths.stats import FEWEST_FOR_INTERVAL, ratio_intervals

ANSWERS = ("all", "turns", "stays")
"""Which pairs a row of doses is about: all, those in which B's own answer is another than A's, the others."""
SHARES = ("flip_rate", "whole_flip_rate")
MEANS = ("change", "whole_change")
DOSE_COLUMNS = [
    *["kind", "edit", "curve", "dose", "prompt", "alpha", "layer", "answers", "n", "n_pairs"],
    *[f"{name}{end}" for name in (*SHARES, *MEANS, "recovered") for end in ("", "_low", "_high")],
    *["n_clusters", "interval_method"],
]


def dose_table(
    records: pd.DataFrame,
    pairs: PairSet,
    clips: Sequence[Clip],
) -> pd.DataFrame:
    """The effect of a patch at every layer, and of the whole model, by edit.

    A pair's effect is the change of A's label logits along the whole-model change, B's own logits minus A's, both with
    their mean over the labels taken off (a shift that is common to all labels changes no answer):
    <patched - A, B - A> / |B - A|, in nats, 0 where B - A is 0. The whole-model effect is |B - A|, so that a patch
    which carries all that the edit did has both alike.

    Args:
        records: of the run; matched ones count.
        clips: of the manifest, for the units.
    Returns:
        DOSE_COLUMNS, one row a kind, prompt, strength, layer and member of ANSWERS. `flip_rate`: of the n pairs, those
        that answer B's answer after the patch and did not before; `whole_flip_rate`: those in which B's own answer is
        not A's. `recovered`: change over whole change, of sums. 95 % intervals by the unit of the clips (`n_clusters`),
        NaN under 10 of them; rates have Wilson's.
    """
    edits = {kind.name: parse_edit(kind.edit) for kind in pairs.kinds if kind.edit}
    matched = records[(records["condition"] == "matched") & records["kind"].isin(list(edits))]
    if matched.empty:
        return pd.DataFrame(columns=DOSE_COLUMNS)
    column = choose_cluster_column(clips)
    units = cluster_map(clips, column)
    tables = []
    for (name, *_), group in matched.groupby(["kind", "prompt", "alpha"], sort=False):
        edit = edits[str(name)]
        table = _doses(group, units, column)
        table["edit"], table["curve"], table["dose"] = edit.text, edit.curve, edit.dose
        for key in ("kind", "prompt", "alpha"):
            table[key] = group[key].iloc[0]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)[DOSE_COLUMNS]


def _doses(group: pd.DataFrame, units: Mapping[str, str], column: str) -> pd.DataFrame:
    group = group.sort_values(["layer", "pair_id"], kind="stable")
    layers = np.sort(group["layer"].unique())
    first = group[group["layer"] == layers[0]]
    n = len(first)

    def logits(name: str, rows: pd.DataFrame) -> Floats:
        values = np.array(rows[name].tolist(), np.float64)
        return values - values.mean(axis=1, keepdims=True)

    base, whole = logits("base_logits", first), logits("donor_logits", first) - logits("base_logits", first)
    patched = logits("patched_logits", group).reshape(len(layers), n, -1)
    size = np.linalg.norm(whole, axis=1)
    along = np.einsum("lnk,nk->nl", patched - base, whole)
    along = np.divide(along, size[:, None], out=np.zeros_like(along), where=size[:, None] > 0)
    turned = (first["donor_prediction"] != first["base_prediction"]).to_numpy()
    same = (group["patched_prediction"] == group["donor_prediction"]).to_numpy().reshape(len(layers), n).T
    of_pairs = [units.get(clip_id, f"clip {clip_id}") for clip_id in first["recipient"]]
    every = np.ones((n, len(layers)))
    tables = []
    for answers, keep in zip(ANSWERS, (np.ones(n, bool), turned, ~turned), strict=True):
        support = every * keep[:, None]
        count = int(keep.sum())
        clusters = len({of_pairs[i] for i in np.flatnonzero(keep)})
        few_units = f"no interval: {clusters} {column} clusters, {FEWEST_FOR_INTERVAL} needed"
        said = (
            f"cluster-robust with t over {column}, rates Wilson with effective n"
            if clusters >= FEWEST_FOR_INTERVAL
            else few_units
        )
        table = pd.DataFrame({"layer": layers, "answers": answers, "n": count, "n_pairs": n, "n_clusters": clusters})
        table["interval_method"] = said
        wholes = turned[:, None] * every, size[:, None] * every
        for name, top, bottom in (
            ("flip_rate", turned[:, None] & same, support),
            ("whole_flip_rate", wholes[0], support),
            ("change", along, support),
            ("whole_change", wholes[1], support),
            ("recovered", along, wholes[1] * support),
        ):
            value, low, high = _with_interval(top * support, bottom, of_pairs, name in SHARES)
            table[name], table[f"{name}_low"], table[f"{name}_high"] = value, low, high
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _with_interval(
    top: Floats, bottom: Floats, clusters: Sequence[str], is_rate: bool
) -> tuple[Floats, Floats, Floats]:
    """[n_layers] of a ratio of sums over pairs, and its ends."""
    totals, parts = bottom.sum(axis=0), top.sum(axis=0)
    value = np.divide(parts, totals, out=np.full(len(totals), np.nan), where=totals > 0)
    found = ratio_intervals(top, clusters, bottom, rates=is_rate)
    return value, found.low, found.high


def curves_of(doses: pd.DataFrame) -> tuple[str, ...]:
    """The edits of which there are two doses or more, by `Edit.curve`."""
    if doses.empty:
        return ()
    counts = doses.groupby("curve", sort=False)["dose"].nunique()
    return tuple(str(curve) for curve in counts[counts > 1].index)


def best_layer(doses: pd.DataFrame) -> int:
    """The last layer at which the patch still carries nine tenths of the most that it carries anywhere."""
    here = doses[(doses["answers"] == "all") & (doses["prompt"] == 0)]
    means = here.groupby("layer")["change"].mean().sort_index()
    return int(means[means >= 0.9 * means.max()].index[-1])


def doses_said(doses: pd.DataFrame) -> Iterator[str]:
    """How many pairs of each edit have a B that is answered as A is, and what there is to say of them."""
    if doses.empty:
        return
    layer = best_layer(doses)
    here = doses[(doses["prompt"] == 0) & (doses["alpha"] == doses["alpha"].max()) & (doses["layer"] == layer)]
    for name, rows in here.groupby("kind", sort=False):
        of = {row["answers"]: row for _, row in rows.iterrows()}
        where = "the embeddings" if layer == -1 else f"layer {layer}"
        total, stays = of["all"], of["stays"]
        yield (
            f"{name}: the answer to B is another in {total['whole_flip_rate'] * total['n']:.0f} of {total['n']} pairs; "
            f"at {where} the patch carries {_nats(total)} of the logits' change"
            + (
                f", where the answer stays {_nats(stays)} ({stays['n']} pair{'s' * (stays['n'] > 1)})"
                if stays["n"]
                else ""
            )
        )


def _nats(row: Mapping[str, Any]) -> str:
    return f"{row['change']:.2f} of {row['whole_change']:.2f} nats"
