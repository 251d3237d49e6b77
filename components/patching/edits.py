"""Donors that are A with its sound edited: the effect against the dose, and what the edits did to the sounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components.charts.parts import add_series, new_figure, rate_axis, reference_line
from components.charts.words import layers_text
from components.patching.results import Indexed
from components.words import layer_title, md
from interp_core.data.edit_measures import ALLOWED, QUANTITIES, percent
from interp_core.data.edits import KNOBS
from interp_core.experiments.patching.edit_doses import curves_of
from interp_core.experiments.patching.edit_figures import PANELS, doses_at
from interp_core.experiments.patching.edited import moved
from interp_core.looks import EDITED

VIEW = "Dose of an edit"
"""A view of runs that hold several doses of one edit."""
MEASURES = tuple(PANELS)[::-1]
FORMS = {"f0_median_hz": "{:.0f} Hz", "rate": "{:.2f}", "level_db": "{:.1f} dB", "spectral_centroid_hz": "{:.0f} Hz"}
SHOWN = {"f0": "f0_median_hz", "rate": "rate", "level": "level_db", "centroid": "spectral_centroid_hz"}


def has_curve(index: Indexed) -> bool:
    """Whether the run has two doses or more of an edit."""
    return bool(curves_of(index.result.edit_doses))


def dose_curve(doses: pd.DataFrame, kind: str, prompt: int, alpha: float, layer: int, measure: str) -> go.Figure:
    """The effect of the patch at a layer, and that of the edit on the whole model, against the dose.

    Args:
        doses: of `dose_table`. kind: of the selected pair; of another edit than those with several doses the first of
            these is drawn. measure: of `MEASURES`.
    """
    curves = curves_of(doses)
    own = doses.loc[doses["kind"] == kind, "curve"]
    curve = own.iloc[0] if len(own) and own.iloc[0] in curves else curves[0]
    rows = doses_at(doses, curve, layer, prompt=prompt, alpha=alpha)
    effect, whole, title = PANELS[measure]
    fig = new_figure(title.replace(" (% of pairs)", ", of all pairs"))
    add_series(fig, rows, "dose", effect, EDITED["patch"], count="n", band=True, whole_steps=False)
    # On top, as its dashes leave room to see the other where the patch carries all of it.
    add_series(fig, rows, "dose", whole, EDITED["whole"], count="n", band=True, whole_steps=False)
    where = layers_text(layer, layer)
    knob = KNOBS[curve.partition(" ")[0]].title
    fig.update_xaxes(title_text=f"{knob} · patched at {where}", tickvals=sorted(rows["dose"].unique()))
    if measure == "flips":
        rate_axis(fig)
    else:
        reference_line(fig, 0.0)
    return fig


def dose_said(doses: pd.DataFrame, kind: str, prompt: int, alpha: float, layer: int) -> str:
    """The selected kind in a sentence: of how many pairs the answer stays, and how far the logits moved there."""
    here = doses[(doses["kind"] == kind) & (doses["prompt"] == prompt) & (doses["layer"] == layer)]
    of = {row["answers"]: row for _, row in here[here["alpha"] == alpha].iterrows()}
    if not of:
        return ""
    total, stays = of["all"], of["stays"]
    turned = round(total["whole_flip_rate"] * total["n"])
    said = f"{layer_title(layer)}, edit **{md(total['edit'])}**: B's own answer is another than A's in {turned} of "
    moves = f"{total['change']:.2f} of {total['whole_change']:.2f} nats"
    said += f"{int(total['n'])} pairs; the patch moves the logits by {moves}"
    if stays["n"]:
        said += (
            f". In {int(stays['n'])} pairs the answer stays, so there is nothing to flip; there the patch moves A's "
        )
        said += f"logits by {stays['change']:.2f} of {stays['whole_change']:.2f} nats"
    return f"{said}. Interval: {md(total['interval_method'])}."


def say(index: Indexed, kind: str, prompt: int, alpha: float, layer: int) -> None:
    """Under the curve, of a kind of pair that is an edit."""
    doses = index.result.edit_doses
    if len(doses) and (said := dose_said(doses, kind, prompt, alpha, layer)):
        st.markdown(said)


def over_pairs(index: Indexed) -> None:
    """What the edits of the run did to the sounds."""
    edits = index.result.edits
    if edits.empty:
        return
    with st.expander("What the edits did to the sounds", icon=":material/graphic_eq:"):
        table = moved(edits)
        for name, _ in QUANTITIES.values():
            table[name] = [percent(value) if value == value else "–" for value in table[name]]
        st.dataframe(
            table,
            hide_index=True,
            alt=f"Median change of {', '.join(name for name, _ in QUANTITIES.values())} by edit.",
        )
        st.caption(
            f"Medians over clips, measured on what came out. *Also moved*: in how many clips the edit "
            f"changed by over {100 * ALLOWED:.0f} % what it is not meant to; its effect may then be one of that. "
            "All clips: `edits.csv` of the run folder."
        )


def measured_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """One edited clip: what was measured of A and of the copy, and by how much it changed.

    Args:
        found: of `measured`.
    """
    rows = []
    for quantity, (name, _) in QUANTITIES.items():
        column = SHOWN[quantity]
        before, after = (_written(found[f"{column}_{side}"], FORMS[column]) for side in ("before", "after"))
        change = found[f"{quantity}_change"]
        aimed = quantity in KNOBS[found["knob"]].aims
        far = math.isnan(change) or abs(change) > ALLOWED
        note = "" if not far else "as meant" if aimed else "not meant"
        rows.append((name, before, after, "–" if math.isnan(change) else percent(change), note))
    return pd.DataFrame(rows, columns=["", "A", "B, edited", "change", "by over 5 %"])


def _written(value: float, form: str) -> str:
    if math.isnan(value):
        return "none"
    return "silent" if math.isinf(value) else form.format(value)
