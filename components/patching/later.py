"""Later layers' states in earlier layers: the map over the run's clips where it has one, that of one clip on demand.

Both maps share their selected cell, a source and a target; a click on either chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from scipy.special import softmax

from components import server, state
from components.charts import heatmap
from components.guard import readable_errors
from components.patching.results import Indexed
from components.player import clip_audio
from components.widgets import choice, folded
from components.words import layer_text, md, option
from interp_core.data.clips import Clip
from interp_core.experiments.patching.back_map import changes
from interp_core.experiments.patching.clip_chunks import source_of
from interp_core.experiments.patching.conflict_figures import grid_of
from interp_core.experiments.patching.experiment import later_by_hand
from interp_core.experiments.patching.limits import BACK_LIMITS
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.subject import Subject

MEASURES = {
    "accuracy": ("accuracy_change", "points", 100.0),
    "log-probability": ("logprob_change", "nats", 1.0),
    "probability": ("probability_change", "of 1", 1.0),
    "logit": ("logit_change", "nats", 1.0),
}
EXPLAINED = (
    "A later layer's state (source) at the run's positions of the clip, put where an earlier layer (target) left its "
    "own. On the diagonal a state replaces itself, which is exactly null and checked in every clip."
)


def over_clips(index: Indexed, prompt: int, clips: Mapping[str, Clip]) -> None:
    """The mean map of a question over clips, and the clips at the selected cell; nothing of a run without it."""
    table = index.result.conflict.back_map
    if table.empty:
        return
    table = table[table["prompt"] == prompt]
    fold = folded("Later layers in earlier ones, over clips", ":material/undo:", key=state.FOLD_LATER)
    if not fold.open or table.empty:
        return
    with fold, readable_errors():
        columns = list(dict.fromkeys(table["column"]))
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            names = [option(source_of(column)) for column in columns]
            who = choice("Right is", names, key=state.BACK_COLUMN, help="Which label column is the right answer.")
            measure = st.selectbox("Change of", list(MEASURES), key=state.BACK_MEASURE, bind=state.BOUND, width=170)
            column = columns[names.index(who) if who in names else 0]
            rows = table[table["column"] == column]
            source, target = _choose(rows)
        value, unit, times = MEASURES[measure]
        layers, grid = grid_of(rows, value)
        by_cell = rows.set_index(["source", "target"])
        heatmap.show(
            _map(
                grid * times, layers, (source, target), unit,
                f"{measure} of the {who} label, mean over {int(rows['n'].max())} clips",
                [[_told(by_cell, s, t, value, times) for s in layers] for t in layers],
                ".0f" if measure == "accuracy" else ".2f",
            ),
            key=state.BACK_MAP,
            alt=f"Change of {measure} of the {who} label by source and target layer.",
            on_cell=lambda cell: _pick(layers[cell[1]], layers[cell[0]]),
        )  # fmt: skip
        _cell_text(by_cell.loc[(source, target)], source, target, value, times, unit, who)
        _clips_at(index, prompt, column, (source, target), clips)
        with st.popover("What this map does not show", icon=":material/info:"):
            st.markdown(BACK_LIMITS)


def of_clip(made: PatchRequest, subject: Subject, index: Indexed, clip: Clip, prompt: int) -> None:
    """The map of one clip in a fold that computes it when it is opened, and its answers at the selected cell; nothing
    of a model whose layers merge positions."""
    if subject.merges_after or subject.whole_only:
        return
    fold = folded("Later layers of A in its earlier ones", ":material/undo:", key=state.FOLD_LATER_HERE)
    if not fold.open:
        return
    with fold, readable_errors():
        kept = [r for r in index.result.conflict.back_records if (r["clip_id"], r["prompt"]) == (clip.clip_id, prompt)]
        if kept:
            record = kept[0]
        else:
            with st.spinner("Putting later layers' states into earlier ones …"):
                record = _by_hand(server.engine().key_of(made), clip.digest, prompt, made, clip)
        labels, cells = list(index.result.labels), [tuple(cell) for cell in record["cells"]]
        column = next(iter(record["labels"]), "")
        shown = {**record, "labels": {column: record["labels"].get(column, record["base_prediction"])}}
        label = shown["labels"][column]
        found = changes(shown, labels, column)
        assert found is not None, "the record has a label in this column"
        rows = pd.DataFrame(cells, columns=["source", "target"]).assign(logprob_change=found["logprob"])
        source, target = _cell(rows)
        layers, grid = grid_of(rows, "logprob_change")
        said = f"A's {source_of(column)} label" if column else "A's own answer"
        heatmap.show(
            _map(grid, layers, (source, target), "nats", f"log-probability of {label}, {said}", None, ".2f"),
            key=state.BACK_OF_CLIP,
            alt=f"Change of the log-probability of {label} by source and target layer.",
            on_cell=lambda cell: _pick(layers[cell[1]], layers[cell[0]]),
        )
        before = np.asarray(record["base_logits"])
        after = np.asarray(record["patched_logits"][cells.index((source, target))])
        _answers(labels, before, after, source, target)
        st.caption(f"n = 1 clip ({md(clip.clip_id)}), so no interval.", help=EXPLAINED)


def _choose(rows: pd.DataFrame) -> tuple[int, int]:
    """The selected cell, by a list or by a click."""
    cells = _off_diagonal(rows)
    names = [_name(*cell) for cell in cells]
    first = _name(*_best(rows))
    state.follow(state.BACK_CELL, first)
    if st.session_state.get(state.BACK_CELL, first) not in names:
        st.session_state[state.BACK_CELL] = first
    chosen = st.selectbox(
        f"Cell, of {len(names)}: click one", names, index=names.index(first), key=state.BACK_CELL, bind=state.BOUND,
        width=190,
    )  # fmt: skip
    return cells[names.index(chosen)]


def _cell(rows: pd.DataFrame) -> tuple[int, int]:
    """The cell that is selected, else the one with the largest gain."""
    by_name = {_name(*cell): cell for cell in _off_diagonal(rows)}
    return by_name.get(st.session_state.get(state.BACK_CELL, ""), _best(rows))


def _off_diagonal(rows: pd.DataFrame) -> list[tuple[int, int]]:
    pairs = zip(rows["source"], rows["target"], strict=True)
    return [(int(source), int(target)) for source, target in pairs if source > target]


def _best(rows: pd.DataFrame) -> tuple[int, int]:
    off = rows[rows["source"] > rows["target"]]
    order = [name for name in ("accuracy_change", "logprob_change") if name in off]
    row = off.sort_values(order, ascending=False, kind="stable").iloc[0]
    return int(row["source"]), int(row["target"])


def _pick(source: int, target: int) -> None:
    """Before the rerun: this cell; the diagonal and the empty half are no choice."""
    if source > target:
        st.session_state[state.BACK_CELL] = _name(source, target)


def _name(source: int, target: int) -> str:
    return f"{layer_text(source)} into {layer_text(target)}"


def _map(
    grid: np.ndarray, layers: Sequence[int], cell: tuple[int, int], unit: str, title: str,
    hover: Sequence[Sequence[str]] | None, number: str,
) -> go.Figure:  # fmt: skip
    names = [layer_text(layer) for layer in layers]
    return heatmap.heatmap(
        grid + 0.0, names, names, title=title, unit=unit, scale="diverging", number=number, upwards=True,
        row_title="put into layer (target)", column_title="state of layer (source)", hover=hover,
        selected=(layers.index(cell[1]), layers.index(cell[0])),
        outlined=[(at, at) for at in range(len(layers))],
    )  # fmt: skip


def _told(by_cell: pd.DataFrame, source: int, target: int, value: str, times: float) -> str:
    if source < target:
        return "an earlier state in a later layer is not patched here"
    if source == target:
        return "its own state: null, checked"
    row: Any = by_cell.loc[(source, target)]
    low, high = (row[f"{value}_{end}"] * times for end in ("low", "high"))
    return f"95 % {low:+z.2f} to {high:+z.2f}" if low == low else "no interval: too few units"


def _cell_text(
    row: pd.Series, source: int, target: int, value: str, times: float, unit: str, who: str
) -> None:  # fmt: skip
    low, high = (row[f"{value}_{end}"] * times for end in ("low", "high"))
    held = f", 95 % interval {low:+z.1f} to {high:+z.1f}" if low == low else ""
    restored = "–" if not row["wrong_count"] else f"{100 * row['restored_rate']:.0f} % of {int(row['wrong_count'])}"
    broken = "–" if not row["right_count"] else f"{100 * row['broken_rate']:.0f} % of {int(row['right_count'])}"
    st.markdown(
        f"**Layer {layer_text(source)}'s state in layer {layer_text(target)}**: right for the {md(who)} in "
        f"{100 * row['accuracy_base']:.0f} % of {int(row['n'])} clips before, {100 * row['accuracy_patched']:.0f} % "
        f"after; here {row[value] * times:+z.2f} {unit}{held}. Restored: {restored} wrong ones; broken: {broken} right "
        "ones."
    )
    st.caption(
        f"{md(row['interval_method'])}, {int(row['n_clusters'])} units. No cell is tested: the best of many is too "
        "good by selection.", help=EXPLAINED,
    )  # fmt: skip


def _clips_at(
    index: Indexed, prompt: int, column: str, cell: tuple[int, int], clips: Mapping[str, Clip]
) -> None:  # fmt: skip
    """Every clip's answer before and after, those that change first."""
    labels = list(index.result.labels)
    rows = []
    for record in index.result.conflict.back_records:
        label = record["labels"].get(column)
        if record["prompt"] != prompt or label is None:
            continue
        logits = record["patched_logits"][[tuple(each) for each in record["cells"]].index(cell)]
        at = labels.index(label)
        rows.append(
            {
                source_of(column): label,
                "before": record["base_prediction"],
                "after": labels[int(np.argmax(logits))],
                "its p": f"{softmax(record['base_logits'])[at]:.2f} → {softmax(logits)[at]:.2f}",
                "clip": record["clip_id"],
            }
        )
    table = pd.DataFrame(rows)
    moved = table["before"] != table["after"]
    table = table.assign(moved=moved).sort_values("moved", ascending=False, kind="stable").drop(columns="moved")
    table.insert(0, "hear", clip_audio.urls(table["clip"], clips))
    st.caption(f"{int(moved.sum())} of {len(table)} clips change their answer in this cell; they stand first.")
    st.dataframe(
        table, hide_index=True, height=250, column_config=clip_audio.hear(), key=state.BACK_TABLE,
        alt="Clips at the selected cell: answers before and after, and the probability of the label.",
    )  # fmt: skip


def _answers(labels: Sequence[str], before: np.ndarray, after: np.ndarray, source: int, target: int) -> None:
    """One clip's answers before and after, label by label."""
    old, new = labels[int(before.argmax())], labels[int(after.argmax())]
    said = f"stays **{md(old)}**" if old == new else f"turns from **{md(old)}** to **{md(new)}**"
    st.markdown(f"Layer {layer_text(source)}'s state in layer {layer_text(target)}: A's answer {said}.")
    table = pd.DataFrame(
        {"answer": labels, "before": softmax(before).round(3), "after": softmax(after).round(3),
         "logit before": before.round(2), "logit after": after.round(2)}
    )  # fmt: skip
    st.dataframe(table, hide_index=True, alt="A's answers before and after, as probabilities among them and as logits.")


@st.cache_data(max_entries=64, show_spinner=False)
def _by_hand(key: str, digest: str, prompt: int, _request: PatchRequest, _clip: Clip) -> dict[str, Any]:
    return later_by_hand(server.engine(), _request, _clip, prompt=prompt)
