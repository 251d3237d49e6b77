"""The Neurons page's view of a run: doses, trade-off, verdict, the neurons, and the clips that changed.

A click on a dose reruns this and asks the model nothing.
"""

from __future__ import annotations

import math

import plotly.graph_objects as go
import streamlit as st

from components import edited_answer, form, server, state
from components.charts import clicks
from components.charts.kept import kept_figure
from components.export import Drawn, facts
from components.guard import readable_errors
from components.neurons import charts as neurons_charts
from components.neurons import in_words
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.shown import Shown
from components.widgets import OF_CLIPS, choice, choosing, chosen_of, folded, halves, picking_table, stepped
from components.words import answer_badge, md
from interp_core.errors import InterpError
from interp_core.experiments.neurons.erase import erasure_sentence
from interp_core.experiments.neurons.figures import PLANTED
from interp_core.experiments.neurons.limits import ERASURE_LIMITS, LIMITS
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.sweep import AblationResult
from interp_core.experiments.wording import p_said
from interp_core.models.subject import Subject
from interp_core.sites import STAGES

CHANGED = ("changed", "put right", "put wrong", "all")
VERDICTS = {"selective": ":green-badge[:material/check: selective]", "undecided": ":gray-badge[undecided]",
            "not selective": ":gray-badge[:material/close: not selective]"}  # fmt: skip


def suits(subject: Subject, usual: AblateRequest) -> None:
    """InterpError for a model of pictures, which the page has no way to show."""
    if subject.takes == "pictures":
        raise InterpError(
            f"{subject.name} sees pictures; run it on the command line: python -m interp_core ablate --corpus …"
        )


def offers(subject: Subject, usual: AblateRequest) -> form.Offers:
    """The sites of the open model, as `ablate --at` takes them, and the columns of the clips."""
    stages = [kind for kind in subject.stages if kind not in ("logits", "mixed")]
    stages.sort(key=lambda kind: (kind != "pooled", STAGES.index(kind)))
    inside = [kind for kind in ("resid_post", "mlp_act", "attn_out", "mlp_out", "head_out") if kind in subject.kinds]
    columns = sorted({name for clip in server.engine().manifest(usual).clips for name in clip.labels})
    return {
        "at": form.Open((*stages, *(f"{kind}:{layer}" for kind in inside for layer in range(subject.n_layers)))),
        "task": columns,
        "domain": columns,
        "units": columns,
    }


def explore(shown: Shown, asked: AblateRequest, subject: Subject) -> Drawn:
    """Draw the run and everything that can be clicked in it."""
    result: AblationResult = shown.result
    left, right = halves("neurons", (1.3, 1))
    with left:
        measure, k = _choose(result)
        plot = st.container()
    with right, readable_errors():
        _verdict(result)
        _clips(shown, asked, subject, k)
    with plot:
        figure = _dose(shown, measure, k)
    clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
    with left, readable_errors():
        _trade(result, k)
        _neurons(result)
        edited_answer.of_run(result.words, "set", "neu_run_words", clips)
        _computed(result)
        with st.expander("What the verdict means, and what it does not", icon=":material/info:"):
            st.markdown(LIMITS)
    report = result.report
    word = report["verdict"] + (f" ({PLANTED})" if report.get("planted") else "")
    title = f"{neurons_charts.MEASURES[measure]}: {word}; marked: K = {k}"
    return Drawn(figure, title, facts(shown, report["site"], report["kind"]), f"{measure}-K{k}")


def _choose(result: AblationResult) -> tuple[str, int]:
    names = [text for name, text in neurons_charts.MEASURES.items() if name in result.report["base"]]
    chosen = st.selectbox("Measure", names, key=state.NEU_MEASURE, bind=state.BOUND, width=220)
    measure = next((name for name, text in neurons_charts.MEASURES.items() if text == chosen), "head_ood")
    doses, fixed = [f"{k:d}" for k in result.report["doses"]], str(result.report["evidence"]["k"])
    helps = ("fewer neurons", "more neurons")
    return measure, int(stepped("Neurons ablated, K", doses, fixed, key=state.NEU_K, helps=helps, name="neu"))


def _dose(shown: Shown, measure: str, k: int) -> go.Figure:
    result: AblationResult = shown.result
    figure = kept_figure(
        (shown.key, measure),
        lambda: neurons_charts.dose_response(result.curve, result.report, measure, erasure=result.erasure),
    )
    neurons_charts.select_dose(figure, k)
    base = result.report["base"][measure]

    def clicked(dose: int) -> None:
        if dose in result.report["doses"]:
            st.session_state[state.NEU_K] = str(dose)

    clicks.show(
        figure, key=state.NEU_CURVE, on_click=clicked,
        alt=f"{neurons_charts.MEASURES[measure]} against the number of ablated neurons; unedited {base:.3f}.",
    )  # fmt: skip
    if len(result.erasure):
        said = erasure_sentence(result.erasure, result.report)
        st.markdown(f"{md(said[0].upper() + said[1:])}.")
        about, draws = result.report["erasure"], result.report["erasure"]["draws"]
        st.caption(
            f"Fitted on {about['domain']['clips']:d} training clips (task: {about['task']['clips']:d}), measured on "
            f"the others. Whiskers: 95 % intervals over units; of random subspaces 95 % of {draws:d} draws."
        )
        with st.expander("What erasing a concept does not show", icon=":material/info:"):
            st.markdown(ERASURE_LIMITS)
    for name, reason in result.report["refused"].items():
        st.caption(f":material/block: {md(neurons_charts.MEASURES[name])} is not measured: {md(reason)}.")
    return figure


def _trade(result: AblationResult, k: int) -> None:
    st.markdown("**In domain against out of domain**: numbers are K")
    clicks.show(
        neurons_charts.trade_off(result.curve, result.report, k), key=state.NEU_TRADE,
        alt="Accuracy out of domain against accuracy in domain, a point a dose.",
    )  # fmt: skip


def _verdict(result: AblationResult) -> None:
    report, evidence = result.report, result.report["evidence"]
    st.markdown(f"At K = {md(evidence['k'])}, fixed beforehand: {VERDICTS[report['verdict']]}  \n{md(report['why'])}.")
    if planted := report.get("planted"):
        st.markdown(f":gray-badge[:material/science: The shortcut was planted]: {md(planted)}.")
    rows = [
        ("domain probe, drop", evidence["domain_drop"], f"random at most {_number(evidence['random_drop'])}"),
        ("head out of domain, change", evidence["ood_change"], _interval(evidence["ood_low"], evidence["ood_high"])),
        ("the same, random of like weight", evidence["matched_change"], "mean over draws"),
        ("task probe, change", evidence["task_change"], "within 0.02 is allowed"),
    ]
    lines = [f"| {md(name)} | **{md(_number(value))}** | {md(beside)} |" for name, value, beside in rows]
    st.markdown("\n".join(["| change | value | beside |", "|---|---|---|", *lines]))


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:+z.3f}"


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None or math.isnan(low):
        return "no interval: too few units"
    return f"95 % {low:+z.3f} to {high:+z.3f}"


def _clips(shown: Shown, asked: AblateRequest, subject: Subject, k: int) -> None:
    """The clips whose answer changed at this dose; one that is clicked can be heard."""
    result: AblationResult = shown.result
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = choice("Without those best for", ["domain", "task"], key=state.NEU_SET)
        which = st.selectbox("Clips", CHANGED, key=state.NEU_CLIPS, bind=state.BOUND, width=130)
    rows = result.answers
    rows = rows[(rows["set"] == name) & (rows["k"] == k)]
    before, after = rows["base"] == rows["task"], rows["answer"] == rows["task"]
    moved = rows["base"] != rows["answer"]
    kept = {"changed": moved, "put right": ~before & after, "put wrong": before & ~after}.get(which or "", moved | True)
    listed = rows[kept].reset_index(drop=True)
    counted = (
        f"K = {k}: {int(moved.sum())} of {len(rows)} answers change, {int((~before & after).sum())} put right, "
        f"{int((before & ~after).sum())} put wrong. Click one to hear it."
    )
    if not moved.any():
        _first_that_changes(result, name, k)
    table = listed[["clip_id", "split", "task", "base", "answer", "domain"]].rename(
        columns={"clip_id": "clip", "task": "true", "base": "unedited", "answer": "without"}
    )
    ids = listed["clip_id"].tolist()
    clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
    table.insert(1, "hear", clip_audio.urls(ids, clips))
    chosen = chosen_of(state.NEU_CLIP, clips.keys() & set(rows["clip_id"]), ids)
    picking_table(
        table, ids, choosing(state.NEU_CLIP), key=state.NEU_TABLE, height=250, column_config=clip_audio.hear(),
        caption=counted, now=chosen, keys=OF_CLIPS,
        empty="No clip of this sort at this dose. Choose “all” to hear every clip, or take out more neurons.",
        alt="Clips whose answer changes when the neurons are ablated.",
    )  # fmt: skip
    if chosen is None:
        return
    row = rows[rows["clip_id"] == chosen].iloc[0]
    st.markdown(
        f"**{md(chosen)}**: truly {md(row['task'])}; unedited :blue-badge[{md(row['base'])}] → without the {k} neurons "
        f"{answer_badge(row['answer'], row['base'])}"
    )
    ab_player(clip_audio.player_clip(clips[chosen], chosen, subject.sample_rate), key=state.NEU_PLAYER)
    in_words.draw(shown, asked, subject, clips[chosen], name or "domain", k)


def _first_that_changes(result: AblationResult, name: str, k: int) -> None:
    """Where no answer changes at a dose, lead to the first dose at which any does."""
    rows = result.answers
    changed = rows[(rows["set"] == name) & (rows["base"] != rows["answer"])]
    if len(changed):
        first = int(changed["k"].min())
        st.button(
            f"Go to K = {first:d}, the first dose at which an answer changes", key="neu_first",
            on_click=choosing(state.NEU_K), args=(str(first),), icon=":material/arrow_forward:",
        )  # fmt: skip
    else:
        st.caption("No answer changes at any dose of this run.")


def _neurons(result: AblationResult) -> None:
    fold = folded("Top neurons", ":material/table:", key=state.FOLD_NEURONS)
    if not fold.open:  # tables that nobody sees would be sent and laid out at each click
        return
    with fold:
        table = result.scores.sort_values("domain_rank")
        st.dataframe(
            table[["neuron", "domain_rank", "domain_coef", "domain_univariate", "task_rank", "task_coef", "impact"]],
            hide_index=True,
            height=320,
            alt="Scores of every neuron for the domain and for the task.",
        )
        k = str(result.report["evidence"]["k"])
        shared = result.report["overlap"][k]
        agreement = result.report["score_agreement"]["domain"]
        st.caption(
            f"Of the {md(k)} best for the domain and for the task {md(shared['shared'])} are the same; chance gives "
            f"{shared['expected']:.1f} (hypergeometric {p_said(shared['p'])}). Both ways of scoring the domain agree "
            f"with a rank correlation of {md(_number(agreement))}."
        )


def _computed(result: AblationResult) -> None:
    report = result.report
    fold = folded("How this was computed, and the numbers", ":material/fact_check:", key=state.FOLD_NEU_COMPUTED)
    if not fold.open:
        return
    with fold:
        counts = "; ".join(
            f"{name} {part['clips']} clips of {part['units']} units" for name, part in report["counts"].items()
        )
        lines = [
            f"Site {report['site']}, {report['width']} neurons, {report['kind']} ablation; {report['ablations']} sets.",
            f"Route: {report['route']}.",
            f"Splits: {report['splits']}. {counts}.",
            *(f"{neurons_charts.MEASURES[name]}: {method}." for name, method in report["intervals"].items()),
            "Areas over log2(K + 1): "
            + ", ".join(f"{n} {v:+z.3f}" for n, v in report["areas"].items() if v is not None),
        ]
        st.markdown("\n".join(f"- {md(line)}" for line in lines))
        st.dataframe(result.curve, hide_index=True, alt="The sweep as a table.")
