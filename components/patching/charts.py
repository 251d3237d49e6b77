"""Figures of a patching run: tables in, plotly figures out. No Streamlit here, so they draw the same in an export.

On screen they are shown with `theme="streamlit"`, which brings the page's background, grid and text colours in light
and in dark; every colour that means something is set here. A file needs `parts.for_export`: Streamlit's own template
holds placeholder colours.

What they have in common: no meaning by colour alone (each series has its own dash and marker and, where there is room,
its name beside it); counts and 95 % intervals at every point; gaps where a layer was not computed; fixed axes, because
a click selects a layer and must not zoom. Every point carries its layer (or alpha) as `customdata[0]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from components.charts.parts import (
    FONT_PX,
    add_series,
    annotate,
    demand_one_group,
    layer_axis,
    lens_runs,
    line_of,
    mark_layer,
    mark_significant,
    name_right_ends,
    new_figure,
    rate_axis,
    reference_line,
    ring,
)
from components.charts.words import COUNT_OF, TITLES, layer_name, layers_text, plain, row_reading
from components.words import share
from interp_core.experiments.patching.one_pair import target_probabilities
from interp_core.looks import ANY_CHANGE, GREY, KNOCKOUT, LENS, PATCHING, RUNS, Look

HAND_CONTROLS = tuple(PATCHING[name] for name in ("random", "noise", "no-conflict", "prefix"))
"""Whose dashes and markers the other questions of a pair by hand take."""

# ---- curves over layers --------------------------------------------------------------------------------------------


def flip_curve(
    metrics: pd.DataFrame,
    *,
    selected_layer: int | None = None,
    rate: str = "flip_to_target_rate_reachable",
    controls: Sequence[str] = ("random", "noise", "no-conflict"),
    flow: Sequence[str] = ("question", "last"),
    lens: pd.DataFrame | None = None,
) -> go.Figure:
    """How often a patch at each layer turns the answer, with its controls and the information flow on the same axes.

    Args:
        metrics: the metrics table (SPEC 1) of one kind, prompt and alpha.
        selected_layer: gets a line and a ring.
        rate: a rate column; its count and interval columns are found by name.
        controls: conditions drawn grey and dashed, named at their right end; those not in the table are left out.
        flow: conditions drawn as information-flow curves.
        lens: logit lens table at the readout of the clean runs of A (base) and B (donor): layer, run, n and
            `target_rate`, which is drawn on the same axis.
    """
    fig = _condition_curves(metrics, rate, selected_layer, controls, flow, lens)
    rate_axis(fig)
    return fig


def delta_curve(
    metrics: pd.DataFrame,
    column: str = "delta_logprob_target_mean",
    *,
    selected_layer: int | None = None,
    controls: Sequence[str] = ("random", "noise", "no-conflict"),
    flow: Sequence[str] = ("question", "last"),
) -> go.Figure:
    """How far a patch at each layer moves the target's score, in the style of `flip_curve`; zero is "no effect"."""
    fig = _condition_curves(metrics, column, selected_layer, controls, flow)
    reference_line(fig, 0.0)
    if column == "recovered":
        reference_line(fig, 1.0)
    return fig


def knockout_curve(
    knockout: pd.DataFrame, *, value: str = "changed_rate", selected_layer: int | None = None
) -> go.Figure:
    """What happens when the audio may not be read in a window of layers (the necessity test).

    Args:
        knockout: columns readers (who may not read it: "last" or "text"), layer_from, layer_to (inclusive), n and
            `value`, of one kind; `<value>_low` and `<value>_high` where they are there. A point stands in the middle
            of its window and carries the window's first layer.
    """
    demand_one_group(knockout)
    fig = new_figure(TITLES.get(value, value))
    for readers, rows in knockout.groupby("readers", sort=False):
        look = KNOCKOUT[str(readers)]
        rows = rows.assign(middle=(rows["layer_from"] + rows["layer_to"]) / 2).sort_values("middle")
        trace = add_series(fig, rows, "middle", value, look, count="n", band=True, whole_steps=False)
        trace.customdata = [[int(row["layer_from"]), _window_hover(look, row, value)] for _, row in rows.iterrows()]
    layer_axis(fig, pd.concat([knockout["layer_from"], knockout["layer_to"]]))
    widths = (knockout["layer_to"] - knockout["layer_from"] + 1).unique()
    fig.update_xaxes(title_text=f"middle of a window of {' or '.join(map(str, widths))} layers")
    if value.endswith("_rate"):
        rate_axis(fig)
    else:
        reference_line(fig, 0.0)
    mark_layer(fig, selected_layer)
    return fig


def _window_hover(look: Look, row: pd.Series, value: str) -> str:
    span = layers_text(int(row["layer_from"]), int(row["layer_to"]))
    return f"<b>{look.name}</b>, {span}<br>{row_reading(row, value)}"


def _condition_curves(
    metrics: pd.DataFrame,
    column: str,
    selected_layer: int | None,
    controls: Sequence[str],
    flow: Sequence[str],
    lens: pd.DataFrame | None = None,
) -> go.Figure:
    """The matched curve with its band, marks and ring; the others behind it, named at their right ends."""
    demand_one_group(metrics)
    fig = new_figure(TITLES.get(column, column))
    count = COUNT_OF.get(column, "n")
    rows_of = {str(condition): rows for condition, rows in metrics.groupby("condition", sort=False)}
    beside = []
    for condition in (*controls, *flow):
        if condition in rows_of:
            shown, look = measure_of(condition, column)
            beside.append(add_series(fig, rows_of[condition], "layer", shown, look, count=COUNT_OF.get(shown, "n")))
    for run, rows in lens_runs(lens):
        beside.append(add_series(fig, rows, "layer", "target_rate", LENS[run], count="n"))
    if "matched" in rows_of:
        matched = rows_of["matched"].sort_values("layer")
        add_series(fig, matched, "layer", column, PATCHING["matched"], count=count, band=True)
        mark_significant(fig, matched, column)
        if count in ("reachable_count", "eligible_count") and not matched[count].any():
            annotate(fig, [_nothing_counted(matched)])
    layer_axis(fig, metrics["layer"])
    name_right_ends(fig, beside)
    select_layer(fig, metrics, column, selected_layer)
    return fig


def _nothing_counted(matched: pd.DataFrame) -> dict[str, Any]:
    """What stands where the curve would be if any pair counted: why none does, and what the eligible ones do."""
    rate, n = "flip_to_target_rate_eligible", matched["eligible_count"].max()
    words = "No pair is eligible:<br>every A answers the target already."
    if n:
        most = max(matched.to_dict("records"), key=lambda row: row[rate])
        flips = f"Of the {int(n)} eligible pairs none flips"
        if most[rate]:
            flips = f"At most {share(most, rate, 'eligible_count')} of the eligible flip"
        words = f"No pair is reachable<br>(A without the target, B with it).<br>{flips}<br>to the target at any layer."
    middle = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.6, "showarrow": False, "font": {"size": FONT_PX}}
    return {**middle, "text": words, "name": "nothing counted"}


def select_layer(fig: go.Figure, metrics: pd.DataFrame, column: str, layer: int | None) -> None:
    """Mark a layer in a figure of `flip_curve` or `delta_curve` that was drawn without one."""
    ring(fig, metrics[metrics["condition"] == "matched"], column, layer)
    mark_layer(fig, layer)


def measure_of(condition: str, column: str) -> tuple[str, Look]:
    """What is drawn of a condition where the others show `column`, and how.

    A no-conflict pair has no target to move to: its recipient should give the donor's answer already, so a flip to the
    target would be counted over the few pairs that the model gets wrong. What it shows is how often any answer changes.
    """
    if condition == "no-conflict" and column.startswith("flip_to_target_rate"):
        return "flip_from_base_rate", ANY_CHANGE
    return column, PATCHING[condition]


def hand_curve(
    records: pd.DataFrame,
    labels: Sequence[str],
    others: Mapping[str, pd.DataFrame],
    *,
    selected_layer: int | None = None,
) -> go.Figure:
    """One pair's probability of its target, among the labels, after a patch at each layer; filled where it wins.

    Args:
        records: of `patch_by_hand`, one strength.
        labels: the labels that the logits are of.
        others: name of another question -> records of the same two clips under it, drawn grey as controls.
    """
    fig = new_figure("probability of the target")
    for (name, rows), marker in zip(others.items(), HAND_CONTROLS, strict=False):
        look = Look(f"asked {plain(name)}, toward {plain(rows['target'].iloc[0])}", GREY, marker.dash, marker.marker)
        _probability(fig, rows, labels, look)
    _probability(fig, records, labels, PATCHING["matched"])
    for run, words, place in (("base", "A as it is", "top left"), ("donor", "B as it is", "top right")):
        value = target_probabilities(records, labels, run)[0]
        fig.add_hline(
            y=value, line={"color": RUNS[run].colour, "width": 1.5, "dash": "dot"}, annotation_text=words,
            annotation_position=place, annotation_font={"size": FONT_PX}, name=words,
        )  # fmt: skip
    shown = records.assign(value=target_probabilities(records, labels, "patched"))
    ring(fig, shown, "value", selected_layer)
    layer_axis(fig, records["layer"])
    mark_layer(fig, selected_layer)
    rate_axis(fig)
    return fig


def words_curve(moved: pd.DataFrame, *, selected_layer: int | None = None) -> go.Figure:
    """Whose words answers have after a patch at each layer: those of one pair, or the means of a run.

    Args:
        moved: one row a layer: layer, moved, kept (shares, NaN where there is no such word). Of one pair of_b and of_a,
            how many such words there are; of a run n and n_kept, the pairs that have any, and moved_low and moved_high.
    """
    fig = new_figure("share of the words that differ")
    for column, run, words, pairs, said in (
        ("moved", "donor", "of_b", "n", "B's own words, in A's answer"),
        ("kept", "base", "of_a", "n_kept", "A's own words, still there"),
    ):
        many = f" (of {int(moved[words].iloc[0])})" if words in moved else ""
        rows = moved.drop(columns=["of_a", "of_b", "n", "n_kept"], errors="ignore")
        rows = rows.assign(n=moved[pairs]) if pairs in moved else rows
        add_series(fig, rows, "layer", column, replace(RUNS[run], name=f"{said}{many}"), count="n", band=True)
    layer_axis(fig, moved["layer"])
    rate_axis(fig)
    mark_layer(fig, selected_layer)
    return fig


def _probability(fig: go.Figure, records: pd.DataFrame, labels: Sequence[str], look: Look) -> None:
    values = target_probabilities(records, labels, "patched")
    wins = (records["patched_prediction"] == records["target"]).tolist()
    said = [
        f"<b>{look.name}</b>, {layer_name(layer)}<br>{plain(target)}: {value:.3f}<br>answers {plain(answer)}"
        for layer, target, value, answer in zip(
            records["layer"], records["target"], values, records["patched_prediction"], strict=True
        )
    ]
    fig.add_scatter(
        x=records["layer"], y=values, mode="lines+markers", name=look.name, cliponaxis=False, line=line_of(look),
        marker={
            "color": look.colour, "size": 10 if look.strong else 7, "line": {"color": look.colour, "width": 1.5},
            "symbol": [look.marker if win else f"{look.marker}-open" for win in wins],
        },
        customdata=list(map(list, zip(records["layer"].tolist(), said, strict=True))),
        hovertemplate="%{customdata[1]}<extra></extra>",
    )  # fmt: skip


# ---- other figures -------------------------------------------------------------------------------------------------


def dose_response(
    metrics: pd.DataFrame,
    layer: int,
    *,
    value: str = "flip_to_target_rate_reachable",
    controls: Sequence[str] = ("random", "noise", "no-conflict"),
) -> go.Figure:
    """The effect at one layer against the strength alpha: 0 leaves A as it is, 1 puts B in its place.

    Args:
        metrics: the metrics table of one kind and prompt, with every alpha of the run.
    """
    here = metrics[metrics["layer"] == layer]
    demand_one_group(here, ("kind", "prompt"))
    fig = new_figure(TITLES.get(value, value))
    beside = []
    for condition in (*controls, "matched"):
        rows, matched = here[here["condition"] == condition], condition == "matched"
        if len(rows):
            shown, look = measure_of(condition, value)
            count = COUNT_OF.get(shown, "n")
            trace = add_series(fig, rows, "alpha", shown, look, count=count, band=matched, whole_steps=False)
            beside += [] if matched else [trace]
    alphas = sorted(here["alpha"].unique())
    fig.update_xaxes(title_text=f"strength alpha of the patch at {layers_text(layer, layer)}", tickvals=alphas)
    name_right_ends(fig, beside)
    if "rate" in value:
        rate_axis(fig)
    else:
        reference_line(fig, 0.0)
    return fig
