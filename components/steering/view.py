"""The Steering page's view of a run: which strength moves half, the dose at one place, and one clip by hand.

A click on a cell or a dose asks the model about the one clip alone.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import edited_answer, form, server, state
from components.charts import clicks, heatmap
from components.export import Drawn, facts
from components.guard import readable_errors
from components.patching.answers import prompt_names
from components.shown import Shown
from components.steering import charts as steering_charts
from components.steering import live
from components.widgets import choosing, halves
from components.words import md, option
from interp_core.errors import InterpError
from interp_core.experiments.answers import head_labels
from interp_core.experiments.steering.experiment import check_subject, usual_prompts
from interp_core.experiments.steering.limits import LIMITS
from interp_core.experiments.steering.request import SteerRequest
from interp_core.experiments.steering.run import SteeringResult
from interp_core.experiments.steering.tables import best_layer, moved_by
from interp_core.experiments.steering.vectors import FILE
from interp_core.models.bundled import demo_of
from interp_core.models.subject import Subject


def suits(subject: Subject, usual: SteerRequest) -> None:
    """InterpError for a model that has no states to add to, or no answer that could move."""
    check_subject(subject)
    if subject.takes == "pictures":
        raise InterpError(f"{subject.name} sees pictures; run it on the command line: python -m interp_core steer …")
    _labels(subject, usual)


def offers(subject: Subject, usual: SteerRequest) -> form.Offers:
    """The model's answers, the columns of the clips, and the positions that the model has."""
    columns = sorted({name for clip in server.engine().manifest(usual).clips for name in clip.labels})
    return {
        "targets": _labels(subject, usual),
        "task": columns,
        "units": columns,
        "positions": [one for one in ("audio", "last") if one in subject.spans],
    }


def _labels(subject: Subject, usual: SteerRequest) -> tuple[str, ...]:
    """The answers of the model."""
    demo = demo_of(usual.model)
    wanted = usual.labels or (demo.labels if demo is not None else ())
    values = {value for clip in server.engine().manifest(usual).clips for value in clip.labels.values()}
    prompt = (usual.prompts or usual_prompts(subject, usual))[0]
    return head_labels(subject, wanted, prompt, {*values}, ()).labels


def explore(shown: Shown, asked: SteerRequest, subject: Subject) -> Drawn:
    """Draw the run and everything that can be clicked in it."""
    result: SteeringResult = shown.result
    left, right = halves("steering", (1.15, 1))
    with left:
        controls = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
        plots = st.container()
        with controls:
            label, layer = _choose(result)
            st.download_button(
                "Vectors", result.vectors.to_bytes, file_name=FILE, mime="application/octet-stream", on_click="ignore",
                icon=":material/download:", help="The vectors and class means of every layer, as safetensors: "
                "`steer --vector FILE` adds them to other clips.",
            )  # fmt: skip
    with right, readable_errors():
        alpha = live.draw(shown, asked, subject, label, layer)
    with plots:
        figure = _plots(result, label, layer, alpha)
    clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
    with left, readable_errors():
        _harm(result, label, layer)
        edited_answer.of_run(result.answers, "label", "st_run_words", clips)
        _numbers(result)
        with st.expander("What steering can show, and what it cannot", icon=":material/info:"):
            st.markdown(LIMITS)
    ringed = f"; ringed: alpha {alpha:g}" if alpha in set(result.dose["alpha"]) else ""
    title = f"Vector of {label} behind layer {layer}{ringed}"
    return Drawn(figure, title, facts(shown, result.config["settings"]["positions"]), f"{label}-L{layer}")


def _choose(result: SteeringResult) -> tuple[str, int]:
    labels, layers = steering_charts.rows_of(result.smallest)
    names = [option(label) for label in labels]
    reached = result.smallest.sort_values(["alpha", "moved_rate"], ascending=[True, False])
    first = str(reached.iloc[0]["label"])
    chosen = st.selectbox(
        "Vector of", names, index=labels.index(first), key=state.ST_LABEL, bind=state.BOUND, width=180
    )
    label = labels[names.index(chosen)] if chosen in names else first
    texts = [str(layer) for layer in layers]
    usual = texts.index(str(best_layer(result.dose, label)))
    state.follow(state.ST_LAYER, texts[usual])
    at = st.selectbox("Added behind layer", texts, index=usual, key=state.ST_LAYER, bind=state.BOUND, width=150)
    return label, int(at) if at in texts else layers[usual]


def _plots(result: SteeringResult, label: str, layer: int, alpha: float) -> go.Figure:
    table, alphas = result.smallest, result.config["settings"]["alphas"]
    labels, layers = steering_charts.rows_of(table)

    def on_cell(cell: tuple[int, int]) -> None:
        state.take(**{state.ST_LABEL: option(labels[cell[0]]), state.ST_LAYER: str(layers[cell[1]])})

    for remark in result.remarks():
        st.caption(f"{md(remark[:1].upper() + remark[1:])}.")
    heatmap.show(
        steering_charts.halves(table, alphas, (label, layer)), key=state.ST_MAP, on_cell=on_cell,
        alt="Smallest strength that moves half of the clips, by label and layer.",
    )  # fmt: skip
    st.markdown(_reading(result, label, layer))
    figure = steering_charts.dose(result.dose, label, layer, alpha)
    steps = sorted(alphas)

    def clicked(place: int) -> None:
        if 0 <= place < len(steps):
            choosing(state.ST_ALPHA)(f"{steps[place]:g}")

    clicks.show(
        figure, key=state.ST_DOSE, on_click=clicked,
        alt=f"Share of clips that the vector of {label} moves behind layer {layer}, by strength, beside its controls.",
    )  # fmt: skip
    return figure


def _reading(result: SteeringResult, label: str, layer: int) -> str:
    """The selected cell in a sentence."""
    row = result.smallest[(result.smallest["label"] == label) & (result.smallest["layer"] == layer)].iloc[0]
    n, moved = int(row["eligible"]), row["moved_rate"]
    if not n:
        return f"Every clip is answered **{md(label)}** by itself: there is nothing to move."
    beside = (
        "" if row["random_rate"] != row["random_rate"] else f"; random vectors as long {_percent(row['random_rate'])}"
    )
    if row["alpha"] == row["alpha"]:
        text = f"Behind layer {layer}, **{row['alpha']:g} times** the vector of **{md(label)}** moves {_percent(moved)}"
    else:
        text = (
            f"Behind layer {layer} no strength of the vector of **{md(label)}** moves half: at most {_percent(moved)}"
        )
    return f"{text} of {n} clips that are answered otherwise{beside}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _harm(result: SteeringResult, label: str, layer: int) -> None:
    """What else the vector does: accuracy by question and label column, and what stays on the answers."""
    settings = result.config["settings"]
    control = float(settings["control_alpha"])
    names = [name[9:] for name in map(str, result.dose.columns) if _is_accuracy(name)]
    asked = prompt_names(str(result.config["model"]["id"]), tuple(settings["prompts"]))
    st.markdown(f"**What else it does**, at alpha {control:g} behind layer {layer:d}")
    head = "".join(f"right in {md(name)} | " for name in names)
    lines = [f"| question | {head}on the answers | any change |", "|---" * (len(names) + 3) + "|"]
    for prompt, name in enumerate(asked):
        here = moved_by(result.dose, "vector", prompt)
        rows = here[(here["label"] == label) & (here["layer"] == layer) & (here["alpha"] == control)]
        if not len(rows):
            continue
        row, before = rows.iloc[0], moved_by(result.dose, "base", prompt).iloc[0]
        cells = "".join(f"{_share(before, column)} → {_share(row, column)} | " for column in names)
        mass = f"{_percent(before['label_mass_mean'])} → {_percent(row['label_mass_mean'])}"
        lines.append(f"| {md(name)} | {cells}{mass} | {_percent(row['changed_rate'])} |")
    st.markdown("\n".join(lines))
    n = int(moved_by(result.dose, "base")["n"].iloc[0])
    questions = "; ".join(
        f"{md(name)}: “{md(text)}”" for name, text in zip(asked, settings["prompts"], strict=True) if text
    )
    st.caption(f"n = {n} clips; the vector was fitted under the first question alone. {questions}")


def _is_accuracy(name: str) -> bool:
    return (
        name.startswith("accuracy_")
        and not name.startswith("accuracy_change_")
        and not name.endswith(("_low", "_high"))
    )


def _share(row: pd.Series, column: str) -> str:
    value = row[f"accuracy_{column}"]
    return "–" if value != value else _percent(value)


def _numbers(result: SteeringResult) -> None:
    with st.expander("The numbers, and how they were computed", icon=":material/table:"):
        here = moved_by(result.dose, "vector")
        methods = here["interval_method"].dropna().unique()[:2]
        checks = ", ".join(f"{check['check']} off by {check['max_difference']:.1g}" for check in result.checks())
        lines = [f"Intervals: {method}." for method in methods]
        lines += [f"Checks before the run: {checks}."] if checks else []
        lines += [f"Route: {result.report['route']}."] if "route" in result.report else []
        told = result.config["settings"]["told"]
        lines.append(f"The prompt alone says “{told}” before the question.")
        st.markdown("\n".join(f"- {md(line)}" for line in lines))
        st.dataframe(result.dose, hide_index=True, height=260, alt="The table of doses.")
