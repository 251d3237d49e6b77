"""Another map of heads beside the one on show."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st
from scipy.stats import spearmanr

from components import state
from components.charts import heatmap
from components.charts.clicks import Cell
from components.heads import charts as heads_charts
from components.runs.rows import Row
from components.runs.typed import every_with_typed
from components.shown import Shown
from components.widgets import folded
from interp_core.errors import InterpError
from interp_core.maths.stats import SIGNIFICANT


def compare(shown: Shown, selected: Cell, on_cell: Callable[[Cell], None]) -> None:
    """Another map beside that of the run on show, on demand; a click on a cell is a click on the map."""
    fold = folded("Compare with another map", ":material/difference:", key=state.FOLD_COMPARE)
    if not fold.open:
        return
    with fold:
        others = _others(shown, every_with_typed(st.container()))
        if not others:
            st.caption("No other run of a model of this geometry is there. Change the settings or the model, and run.")
            return
        names = [f"{_name(one)} ({number})" for number, one in enumerate(others, 1)]
        chosen = st.selectbox("The other map", names, key=state.HEADS_OTHER, bind=state.BOUND)
        other = others[names.index(chosen) if chosen in names else 0].result
        heads, theirs = shown.result.points("head"), other.points("head")
        rho = spearmanr(heads["fisher_f"], theirs["fisher_f"]).statistic
        heatmap.show(
            heads_charts.difference_map(heads, theirs, selected),
            key=state.HEADS_DIFFERENCE,
            alt=f"Difference of two maps; rank correlation {rho:z.2f}.",
            on_cell=on_cell,
        )
        sure = [set(np.flatnonzero(rows["p_adjusted"] < SIGNIFICANT)) for rows in (heads, theirs)]
        st.markdown(
            f"Rank correlation of the two maps: **{rho:z.2f}** over {len(heads)} heads. Beyond chance in both: "
            f"{len(sure[0] & sure[1])}; in this one only: {len(sure[0] - sure[1])}; in the other only: "
            f"{len(sure[1] - sure[0])}."
        )


def _others(than: Shown, every: Sequence[Row]) -> list[Shown]:
    """Further runs whose maps have the same shape; what cannot be read is passed over, and a line of the page Runs."""
    geometry, seen, alike = than.config["geometry"], {_identity(than.config)}, []
    for row in every:
        if row.command != than.command or row.state != "finished" or not _same(row.config.get("geometry"), geometry):
            continue
        if (name := _identity(row.config)) not in seen:
            seen.add(name)
            with contextlib.suppress(InterpError):
                alike.append(row.opened())
    return alike


def _identity(config: Mapping[str, Any]) -> str:
    return json.dumps(
        [config["model"]["weights_sha256"], config["manifest"]["sha256"], config["settings"]], default=str
    )


def _same(one: object, other: object) -> bool:
    return json.dumps(one, default=list) == json.dumps(other, default=list)


def _name(shown: Shown) -> str:
    return (
        f"{shown.result.model_name}: {shown.config['settings']['label']}, {len(shown.result.clips)} clips, {shown.made}"
    )
