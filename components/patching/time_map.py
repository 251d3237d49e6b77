"""Which moment carries it: the time map of the selected pair, made on demand, and that of all pairs where a run has it.

A click on a cell chooses its layer and marks its window: the logits of the pair are then those of that cell, and both
recordings play that window.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import export, server, state
from components.charts import clicks, heatmap
from components.charts.parts import FONT_PX
from components.guard import readable_errors
from components.patching.results import Indexed
from components.widgets import choice, folded
from components.words import layer_text, layer_title, md
from interp_core.data.pairs import Pair
from interp_core.experiments.facts import signature
from interp_core.experiments.patching.experiment import map_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.time_map import pair_map
from interp_core.experiments.wording import p_said
from interp_core.looks import GREY, RUNS
from interp_core.maths.stats import SIGNIFICANT

UNIT = "target log-probability, change (nats)"
THIS, LARGEST = "this layer", "largest over layers"
EXPLAINED = """
Each cell: the patch in that window alone, at that layer alone, and by how much the target's log-probability among the
answers changes. Click a cell: the logits above are then its own, and both recordings play its window.

What it cannot show: a window that moves nothing alone may matter together with others, and an effect at one place does
not mean that the information is only there. Attributions of single positions are not shown in its place: on
demo-emotion they agreed with true patches at r = 0.17 to 0.31 in the first half of the layers.

Sources: maps of position and layer, Meng et al. 2022, arXiv:2202.05262; one place alone or several together, Zhang &
Nanda 2023, arXiv:2309.16042; enough is not needed, Heimersheim & Nanda 2024, arXiv:2404.15255.
"""


def of_pair(
    made: PatchRequest, index: Indexed, pair: Pair, *, prompt: int, alpha: float, layer: int, marked: str
) -> None:
    """The map of one pair at a strength, in a fold that computes it when it is opened.

    Args:
        layer, marked: what is selected: a layer, and the time window as it is typed.
    """
    fold = folded("Which moment carries it", ":material/timeline:", key=state.FOLD_TIME)
    if not fold.open:
        return
    with fold, readable_errors():
        records = index.time_records(pair.pair_id) if (prompt, alpha) == (0, index.alphas[0]) else []
        if not records:
            with st.spinner("Patching every window of this pair …"):
                records = _mapped(
                    server.engine().key_of(made), pair.recipient.digest, pair.donor.digest, prompt, alpha, made, pair
                )
        values = pair_map(records, index.result.labels)
        layers = [int(record["layer"]) for record in records]
        windows = [(float(start), float(stop)) for start, stop in records[0]["windows"]]
        named = [_named(window) for window in windows]
        column = named.index(marked) if marked in named else None
        row = layers.index(layer) if layer in layers else 0
        which = choice("Strip", [THIS, LARGEST], key=state.TIME_STRIP, label_visibility="collapsed")
        best = values.argmax(axis=0) if which == LARGEST else np.full(len(windows), row)

        def chosen(cell: tuple[int, int]) -> None:
            _choose(layers[cell[0]], named[cell[1]])

        clicks.show(
            _strip(windows, values[best, range(len(windows))], [layers[at] for at in best], column),
            key=state.TIME_CURVE,
            alt=f"Change of the target's log-probability by window of A, {which}.",
            on_click=lambda number: chosen((int(best[number]), number)),
        )
        figure = heatmap.heatmap(
            values.round(1) + 0.0, [layer_text(one) for one in layers], [f"{start:.1f}" for start, _ in windows],
            title=f"Pair {pair.pair_id}, alpha {alpha:g}", unit=UNIT, scale="diverging", number=".1f",
            row_title="layer", column_title="window of A, from second", upwards=True,
            selected=None if column is None else (row, column),
            hover=[[_cell(*each) for each in zip(line, windows, strict=True)] for line in values],
        )  # fmt: skip
        heatmap.show(
            figure,
            key=state.TIME_MAP,
            alt="Change of the target's log-probability by layer and window.",
            on_cell=chosen,
        )
        at_row, at_column = np.unravel_index(int(values.argmax()), values.shape)
        start, stop = windows[at_column]
        st.caption(
            f"Largest: {values.max():+z.2f} nats, {start:.2f} to {stop:.2f} s at "
            f"{layer_title(layers[at_row]).lower()}; n = 1 pair, so no interval.",
            help=EXPLAINED,
        )
        drawn = export.Drawn(
            figure, f"Which moment carries it: pair {pair.pair_id}, alpha {alpha:g}",
            partial(signature, index.result.config, f"question {prompt + 1}", "n = 1 pair, no interval"),
            export.file_name(index.result.model_name, "time-map", pair.pair_id),
        )  # fmt: skip
        export.chart(drawn, key=state.TIME_MAP)


def over_pairs(index: Indexed, kind: str, pair_id: str) -> None:
    """The mean map of a kind of pair, and the masks of its top windows, where the run has them."""
    table = index.time_map(kind)
    if table.empty:
        return
    with st.expander("Which moment carries it, over all pairs", icon=":material/timeline:"):
        layers, cells = sorted(table["layer"].unique()), int(table["window"].max()) + 1
        table = table.sort_values(["layer", "window"])

        def grid(column: str) -> np.ndarray:
            return table[column].to_numpy(float).reshape(len(layers), cells)

        p, low, high = grid("p_adjusted"), grid("low"), grid("high")
        hover = [[_interval(low[i, j], high[i, j], p[i, j]) for j in range(cells)] for i in range(len(layers))]
        own = index.time_records(pair_id)
        here = table[table["layer"] == layers[0]]
        n = int(table["n"].max())

        def chosen(cell: tuple[int, int]) -> None:
            windows = own[0]["windows"] if own else []
            if len(windows) == cells:
                _choose(int(layers[cell[0]]), _named(windows[cell[1]]))
            else:
                st.session_state[state.LAYER] = layer_text(int(layers[cell[0]]))

        figure = heatmap.heatmap(
            grid("mean"), [layer_text(int(one)) for one in layers], [f"{start:.2f}" for start in here["start_s"]],
            title=f"Mean over {n} {kind} pairs, aligned by fraction of the span", unit=UNIT, scale="diverging",
            row_title="layer", column_title="window of A, from second (mean over pairs)", upwards=True, hover=hover,
            marks={(i, j): "✱" for i, j in np.argwhere(p < SIGNIFICANT).tolist()},
        )  # fmt: skip
        heatmap.show(
            figure, key=state.TIME_PAIRS, alt=f"Mean change by layer and window over {n} pairs.", on_cell=chosen
        )
        st.caption(
            f"n = {n} pairs; ✱ differs from a random donor, adjusted p < .05 over all cells. First question, first "
            f"strength. {md(table['interval_method'].iloc[0])}."
        )
        drawn = export.Drawn(
            figure, f"Which moment carries it, over {kind} pairs",
            partial(index.result.signature, "✱ adjusted p < .05 over all cells", n=f"n = {n} pairs"),
            export.file_name(index.result.model_name, "time-map", kind),
        )  # fmt: skip
        export.chart(drawn, key=state.TIME_PAIRS)
        _masks(index.necessity(kind))


def _masks(table: pd.DataFrame) -> None:
    table = table[table["n"] > 0] if len(table) else table
    if table.empty:
        return
    in_b = "donor" in set(table["side"])
    where = "in A, and in B where its states came from" if in_b else "in A"
    st.markdown(f"**Is the window needed?** The top window masked at its layer, {where}, beside random windows")
    # What most people ask for on top: reachable pairs, then all.
    table = table.sort_values("pairs", key=lambda pairs: pairs != "reachable", kind="stable")
    shown = pd.DataFrame(
        {
            "masked": [
                f"{'A' if side == 'recipient' else 'B'}, by {'its mean' if mask == 'mean' else mask}"
                for side, mask in zip(table["side"], table["mask"], strict=True)
            ],
            "pairs": [f"{n} {pairs}" for n, pairs in zip(table["n"], table["pairs"], strict=True)],
            "moves more": [
                f"{100 * share:.0f} %" + (f" ({100 * low:.0f}-{100 * high:.0f})" if low == low else "")
                for share, low, high in zip(table["share_more"], table["low"], table["high"], strict=True)
            ],
            "top, random": [
                f"{top:.2f}, {random:.2f}"
                for top, random in zip(table["top_moved_mean"], table["random_moved_mean"], strict=True)
            ],
            "rank": [
                f"{rank:.1f} of {of + 1:.0f}"
                for rank, of in zip(table["rank_mean"], table["random_windows"], strict=True)
            ],
        }
    )
    st.dataframe(shown, hide_index=True, alt="How far masking the top window moves the answer.")
    st.caption(
        "Moves more: pairs whose answer the top window moves more than random ones on average, with a 95 % interval; "
        "moved: root mean square change of the answers' logits, nats; rank: of the top window, mean over pairs. Where "
        "top and random are close in A, the patch shows what the window can bring, not that A's own answer needs it "
        f"there{'; in B, whether its own answer needs the window that brings it to A' if in_b else ''}."
    )


def _strip(
    windows: Sequence[tuple[float, float]], values: np.ndarray, layers: Sequence[int], selected: int | None
) -> go.Figure:
    """Bars along A's time, one a window; a frame around the selected one."""
    edge = ["#000000" if number == selected else GREY for number in range(len(windows))]
    figure = go.Figure(
        go.Bar(
            x=[(start + stop) / 2 for start, stop in windows],
            y=values,
            width=[stop - start for start, stop in windows],
            marker={
                "color": RUNS["patched"].colour,
                "line": {"color": edge, "width": [3 if number == selected else 1 for number in range(len(windows))]},
            },
            customdata=[[number] for number in range(len(windows))],
            text=[
                f"{start:.2f} to {stop:.2f} s<br>{layer_title(layer)}: {value:+z.2f} nats"
                for (start, stop), layer, value in zip(windows, layers, values, strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
            textposition="none",
        )
    )
    figure.update_xaxes(title_text="second of A", range=[0, windows[-1][1]], fixedrange=True)
    figure.update_yaxes(title_text="change (nats)", fixedrange=True, zeroline=True)
    figure.update_layout(
        height=190, margin={"l": 60, "r": 20, "t": 10, "b": 45}, font={"size": FONT_PX}, showlegend=False, bargap=0
    )
    return figure


def _cell(value: float, window: tuple[float, float]) -> str:
    return f"{value:+z.3f} nats, {window[0]:.2f} to {window[1]:.2f} s"


def _interval(low: float, high: float, p: float) -> str:
    said = f"95 % {low:+z.2f} to {high:+z.2f}" if low == low else "no interval: too few clusters"
    return f"{said}\n{p_said(p)}, adjusted" if p == p else said


def _named(window: Sequence[float]) -> str:
    """A window as the text field takes it, fine enough for any model's positions."""
    return f"{float(window[0]):.4g}-{float(window[1]):.4g}"


def _choose(layer: int, window: str) -> None:
    """Before the rerun: this layer, and this window patched alone."""
    st.session_state[state.LAYER] = layer_text(layer)
    state.mark_window(window)
    st.session_state[state.ONLY_WINDOW] = True


@st.cache_data(max_entries=128, show_spinner=False)
def _mapped(
    key: str, a: str, b: str, prompt: int, alpha: float, _request: PatchRequest, _pair: Pair
) -> list[dict[Any, Any]]:
    return list(map_by_hand(server.engine(), _request, _pair, prompt=prompt, alpha=alpha))
