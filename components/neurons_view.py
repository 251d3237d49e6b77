"""The Neurons page's view of a run: doses, trade-off, verdict, the neurons, and the clips that changed.

All of it is one fragment: a click on a dose reruns this and asks the model nothing.
"""

from __future__ import annotations

import math
import shlex

import streamlit as st

from components import clip_audio, export, heatmap, neurons_charts, state
from components.ab_player import ab_player
from components.guard import readable_errors
from components.neurons_runs import ShownRun, provenance
from components.words import md
from interp_core.doors.ablate import AblateRequest, AblationResult, request_from_config
from interp_core.models.subject import Subject

CHANGED = ("changed", "put right", "put wrong", "all")
VERDICTS = {"selective": ":green-badge[:material/check: selective]", "undecided": ":gray-badge[undecided]",
            "not selective": ":orange-badge[:material/close: not selective]"}  # fmt: skip
LIMITS = """
- *Selective* at a fixed K means: without these neurons the domain probe loses more than random neurons take from it,
  accuracy out of domain does not fall and beats random neurons of like weight, and the task probe stays.
- Frozen probes were fitted on unedited features. A refitted probe shows what is still there to be learned: a high one
  beside a low frozen one says that the domain is spread over more neurons than were taken.
- *Mean* ablation leaves a neuron's average in place; *zero* also shifts what follows; a *sign flip* destroys nothing
  that a refitted probe could not turn back.
- The domain probe is measured in domain, where several domains are; out of domain there may be only one.
- An interval draws again the units that were really sampled; under ten of them there is none, and no run is selective.
"""


@st.fragment
def explore(shown: ShownRun, asked: AblateRequest, subject: Subject) -> None:
    """Draw the run and everything that can be clicked in it."""
    with readable_errors():
        result: AblationResult = shown.result
        left, right = st.columns([1.3, 1], gap="medium")
        with left:
            measure, k = _choose(result)
            plot = st.container()
        with right, readable_errors():
            _verdict(result)
            _clips(shown, asked, subject, k)
        with plot, readable_errors():
            figure = _dose(result, measure, k)
        with left, readable_errors():
            _trade(result, k)
            st.caption(provenance(shown, subject.weights_hash))
            with st.container(horizontal=True):
                _export(shown, figure, measure)
            _neurons(result)
            _computed(result)
            with st.expander("What the verdict means, and what it does not", icon=":material/info:"):
                st.markdown(LIMITS)


def _choose(result: AblationResult) -> tuple[str, int]:
    names = [text for name, text in neurons_charts.MEASURES.items() if name in result.report["base"]]
    chosen = st.selectbox("Measure", names, key=state.NEU_MEASURE, bind=state.BOUND, width=220)
    measure = next((name for name, text in neurons_charts.MEASURES.items() if text == chosen), "head_ood")
    doses, fixed = [str(k) for k in result.report["doses"]], str(result.report["evidence"]["k"])

    def step(by: int) -> None:
        at = doses.index(st.session_state[state.NEU_K]) + by
        st.session_state[state.NEU_K] = doses[min(max(at, 0), len(doses) - 1)]

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button("‹", key="neu-fewer", on_click=step, args=(-1,), shortcut="j", help="fewer neurons")
        k = st.select_slider("Neurons ablated, K", doses, value=fixed, key=state.NEU_K, bind=state.BOUND)
        st.button("›", key="neu-more", on_click=step, args=(1,), shortcut="k", help="more neurons")
    return measure, int(k) if k in doses else int(fixed)


def _dose(result: AblationResult, measure: str, k: int):  # type: ignore[no-untyped-def]
    figure = neurons_charts.dose_response(result.curve, result.report, measure, k)
    base = result.report["base"][measure]

    def clicked() -> None:
        dose = neurons_charts.clicked_dose(st.session_state[state.NEU_CURVE].selection.points)
        if dose in result.report["doses"]:
            st.session_state[state.NEU_K] = str(dose)

    st.plotly_chart(
        figure, theme="streamlit", key=state.NEU_CURVE, on_select=clicked, selection_mode="points",
        config=heatmap.CHART_CONFIG,
        alt=f"{neurons_charts.MEASURES[measure]} against the number of ablated neurons; unedited {base:.3f}.",
    )  # fmt: skip
    for name, reason in result.report["refused"].items():
        st.caption(f":material/block: {md(neurons_charts.MEASURES[name])} is not measured: {md(reason)}.")
    return figure


def _trade(result: AblationResult, k: int) -> None:
    st.markdown("**In domain against out of domain**: numbers are K")
    st.plotly_chart(
        neurons_charts.trade_off(result.curve, result.report, k), theme="streamlit", key=state.NEU_TRADE,
        config=heatmap.CHART_CONFIG, alt="Accuracy out of domain against accuracy in domain, a point a dose.",
    )  # fmt: skip


def _verdict(result: AblationResult) -> None:
    report, evidence = result.report, result.report["evidence"]
    st.markdown(f"At K = {evidence['k']}, fixed beforehand: {VERDICTS[report['verdict']]}  \n{md(report['why'])}.")
    rows = [
        ("domain probe, drop", evidence["domain_drop"], f"random at most {_number(evidence['random_drop'])}"),
        ("head out of domain, change", evidence["ood_change"], _interval(evidence["ood_low"], evidence["ood_high"])),
        ("the same, random of like weight", evidence["matched_change"], "mean over draws"),
        ("task probe, change", evidence["task_change"], "within 0.02 is allowed"),
    ]
    lines = [f"| {name} | **{_number(value)}** | {beside} |" for name, value, beside in rows]
    st.markdown("\n".join(["| change | value | beside |", "|---|---|---|", *lines]))


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:+.3f}"


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None or math.isnan(low):
        return "no interval: too few units"
    return f"95 % {low:+.3f} to {high:+.3f}"


def _clips(shown: ShownRun, asked: AblateRequest, subject: Subject, k: int) -> None:
    """The clips whose answer changed at this dose; one that is clicked can be heard."""
    result: AblationResult = shown.result
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.segmented_control(
            "Without those best for", ["domain", "task"], default="domain", required=True, key=state.NEU_SET,
            bind=state.BOUND,
        )  # fmt: skip
        which = st.selectbox("Clips", CHANGED, key=state.NEU_CLIPS, bind=state.BOUND, width=130)
    rows = result.answers
    rows = rows[(rows["set"] == (name or "domain")) & (rows["k"] == k)]
    before, after = rows["base"] == rows["task"], rows["answer"] == rows["task"]
    moved = rows["base"] != rows["answer"]
    kept = {"changed": moved, "put right": ~before & after, "put wrong": before & ~after}.get(which or "", moved | True)
    listed = rows[kept].reset_index(drop=True)
    st.caption(
        f"K = {k}: {int(moved.sum())} of {len(rows)} answers change, {int((~before & after).sum())} put right, "
        f"{int((before & ~after).sum())} put wrong. Click one to hear it."
    )
    table = listed[["clip_id", "split", "task", "base", "answer", "domain"]].rename(
        columns={"clip_id": "clip", "task": "true", "base": "unedited", "answer": "without"}
    )
    ids = listed["clip_id"].tolist()

    def picked() -> None:
        chosen = st.session_state[state.NEU_TABLE].selection.rows
        if chosen and chosen[0] < len(ids):
            st.session_state[state.NEU_CLIP] = ids[chosen[0]]

    st.dataframe(
        table, hide_index=True, height=250, key=state.NEU_TABLE, on_select=picked, selection_mode="single-row",
        alt="Clips whose answer changes when the neurons are ablated.",
    )  # fmt: skip
    clips = {clip.clip_id: clip for clip in state.engine().manifest(asked).clips}
    chosen = st.session_state.get(state.NEU_CLIP)
    chosen = (
        chosen if chosen in clips and chosen in set(rows["clip_id"]) else next((i for i in ids if i in clips), None)
    )
    if chosen is None:
        st.caption("No clip of this sort at this dose.")
        return
    row = rows[rows["clip_id"] == chosen].iloc[0]
    st.markdown(
        f"**{md(chosen)}**: truly {md(row['task'])}; unedited :blue-badge[{md(row['base'])}] → without the {k} neurons "
        f":violet-badge[{md(row['answer'])}]"
    )
    ab_player(clip_audio.player_clip(clips[chosen], chosen, subject.sample_rate), key=state.NEU_PLAYER)


def _neurons(result: AblationResult) -> None:
    with st.expander("Top neurons", icon=":material/table:"):
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
            f"Of the {k} best for the domain and for the task {shared['shared']} are the same; chance gives "
            f"{shared['expected']:.1f} (hypergeometric p = {shared['p']:.3f}). Both ways of scoring the domain agree "
            f"with a rank correlation of {_number(agreement)}."
        )


def _computed(result: AblationResult) -> None:
    report = result.report
    with st.expander("How this was computed, and the numbers", icon=":material/fact_check:"):
        counts = "; ".join(
            f"{name} {part['clips']} clips of {part['units']} units" for name, part in report["counts"].items()
        )
        lines = [
            f"Site {report['site']}, {report['width']} neurons, {report['kind']} ablation; {report['ablations']} sets.",
            f"Route: {report['route']}.",
            f"Splits: {report['splits']}. {counts}.",
            *(f"{neurons_charts.MEASURES[name]}: {method}." for name, method in report["intervals"].items()),
            "Areas over log2(K + 1): "
            + ", ".join(f"{n} {v:+.3f}" for n, v in report["areas"].items() if v is not None),
        ]
        st.markdown("\n".join(f"- {md(line)}" for line in lines))
        st.dataframe(result.curve, hide_index=True, alt="The sweep as a table.")


def command(request: AblateRequest) -> str:
    """The command line that runs a request again; settings at their default are left out."""
    sweep, usual = request.sweep, AblateRequest("x").sweep
    said = [
        ("--model", request.model, None),
        ("--manifest", request.manifest, None),
        ("--at", request.at, ""),
        ("--task", request.task, ""),
        ("--domain", request.domain, ""),
        ("--train", request.train, ""),
        ("--id", request.id, ""),
        ("--ood", request.ood, ""),
        ("--units", request.units, ""),
        ("--labels", ",".join(request.labels), ""),
        ("--prompt", request.prompt, ""),
        ("--corpus", request.corpus, ""),
        ("--draws", request.draws, None),
        ("--ks", ",".join(map(str, sweep.ks)), ",".join(map(str, usual.ks))),
        ("--kind", sweep.kind, usual.kind),
        ("--score", sweep.score, usual.score),
        ("--refits", sweep.refits, usual.refits),
        ("--seed", sweep.seed, usual.seed),
    ]
    options = [f"{name}={value}" for name, value, default in said if value is not None and value != default]
    return " ".join(["python -m interp_core ablate", *map(shlex.quote, options), "--out=runs/again"])


def _export(shown: ShownRun, figure, measure: str) -> None:  # type: ignore[no-untyped-def]
    result: AblationResult = shown.result
    model = str(result.config["model"]["id"]).rsplit("/", 1)[-1]
    report = result.report
    title = f"{neurons_charts.MEASURES[measure]}: {report['verdict']}\n{model} · {report['site']} · {report['kind']}"
    with st.popover("Export", icon=":material/download:"):
        with st.container(horizontal=True):
            files = (
                ("HTML", lambda: export.html(figure, title), f"{model}-{measure}.html", "text/html"),
                ("Sweep CSV", lambda: export.csv(result.curve), f"{model}-ablation.csv", "text/csv"),
                ("Neurons CSV", lambda: export.csv(result.scores), f"{model}-neurons.csv", "text/csv"),
                ("Answers CSV", lambda: export.csv(result.answers), f"{model}-answers.csv", "text/csv"),
            )
            for label, data, name, mime in files:
                st.download_button(label, data, name, mime, on_click="ignore", key=f"neu-export-{label}")
        st.code(command(request_from_config(result.config)), language="bash", wrap_lines=True)
