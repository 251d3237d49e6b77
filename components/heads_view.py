"""The heads page's view of a run: the map, the selected head, its clips, and what the model does without it.

All of it is one fragment: a click on the map reruns this and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from scipy.stats import spearmanr

from components import charts, clip_audio, heads_charts, heads_runs, heatmap, jobs_panel, state
from components.ab_player import ab_player
from components.guard import readable_errors
from components.heads_runs import ShownHeads
from components.heads_words import EXPLAINED, LIMITS, command, head_sentence, provenance
from components.words import md
from interp_core.data.clips import Clip
from interp_core.doors.heads import HeadEffect, HeadsRequest, patch_head, request_from
from interp_core.errors import InterpError
from interp_core.experiments.heads import HeadsResult
from interp_core.experiments.heads_ablate import KINDS
from interp_core.maths.fisher import class_plane
from interp_core.models.subject import Subject

CHART_CONFIG: Any = dict(heatmap.CHART_CONFIG)
EFFECTS = {"Without it: accuracy": "change", "Without it: log-probability": "logprob_change"}


@st.fragment
def explore(shown: ShownHeads, asked: HeadsRequest, subject: Subject) -> None:
    """Draw the run and everything that can be clicked in it."""
    with readable_errors():
        result = shown.result
        clips = {clip.clip_id: clip for clip in state.engine().manifest(asked).clips}
        left, right = st.columns([1.15, 1], gap="medium")
        with left:
            controls, place = st.container(), st.container()
            with controls, st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
                view, kind = _choose_view(result)
                layer, head = _choose_head(result)
            with place, readable_errors():
                _map(result, view, kind, (layer, head))
        row = _row(result, layer, head)
        with right, readable_errors():
            st.markdown(head_sentence(result, row))
            _clips(shown, asked, subject, clips, layer, head)
        with left, readable_errors():
            _depth(result, layer)
            st.caption(provenance(shown, subject))
            _compare(shown, (layer, head))
            _further(shown)


# ---- selection -------------------------------------------------------------------------------------------------------


def _choose_view(result: HeadsResult) -> tuple[str, str]:
    views = [view for view in heads_charts.VIEWS if not view.startswith("Without") or len(result.ablation)]
    if not result.points("head")["probe_accuracy"].notna().any():
        views.remove("Probe")
    view = st.selectbox(
        "Colours show",
        views,
        key=state.HEADS_VIEW,
        bind=state.BOUND,
        width=260,
        help="\n\n".join(f"{name}: {text}" for name, text in heads_charts.VIEWS.items() if name in views),
    )
    kind = ""
    if view in EFFECTS:
        kinds = list(result.ablation["kind"].unique())
        kind = st.selectbox("Replaced by", kinds, key=state.HEADS_KIND, bind=state.BOUND, width=130)
    return view or views[0], kind or ""


def _choose_head(result: HeadsResult) -> tuple[int, int]:
    heads = result.points("head")
    names = [str(name) for name in heads["name"]]
    best = int(heads["fisher_f"].to_numpy().argmax())
    chosen = st.selectbox(
        f"Head, of {len(names)}: click one", names, index=best, key=state.HEADS_AT, bind=state.BOUND, width=170
    )
    at = names.index(chosen) if chosen in names else best
    return int(heads["layer"][at]), int(heads["head"][at])


def _row(result: HeadsResult, layer: int, head: int) -> pd.Series:
    heads = result.points("head")
    return heads[(heads["layer"] == layer) & (heads["head"] == head)].iloc[0]


def _select(result: HeadsResult, cell: tuple[int, int]) -> None:
    heads = result.points("head")
    here = heads[(heads["layer"] == cell[0]) & (heads["head"] == cell[1])]
    if len(here):
        st.session_state[state.HEADS_AT] = str(here["name"].iloc[0])


# ---- the map ---------------------------------------------------------------------------------------------------------


def _map(result: HeadsResult, view: str, kind: str, selected: tuple[int, int]) -> None:
    heads = result.points("head")
    values = {"Fisher F": "fisher_f", "Probe": "probe_accuracy"}
    if view in EFFECTS:
        effect = result.ablation[result.ablation["kind"] == kind]
        numbers = heads.merge(effect, on=["layer", "head"], how="left")[EFFECTS[view]].to_numpy()
        note = f" replaced by {kind}"
    else:
        numbers, note = heads[values[view]].to_numpy(), ""
    sure = int((heads["p_adjusted"] < heads_charts.SIGNIFICANT).sum())
    figure = heads_charts.head_map(heads, numbers, view, selected, f"{note}: {sure} separate the classes beyond chance")
    heatmap.show(
        figure,
        key=state.HEADS_MAP,
        alt=f"Map of {len(heads)} heads, {view}; {sure} with adjusted p below .05.",
        on_cell=lambda cell: _select(result, cell),
    )
    tested = heads["p_adjusted"].notna().any()
    why = "" if tested else f" {md(result.notes['head']['p'])}."
    st.caption(f"{heads_charts.MARK} adjusted p < .05 over all heads.{why} Blocks run downwards, as the model runs.")
    if len(result.ablation):
        _used(result, kind, selected)


def _used(result: HeadsResult, kind: str, selected: tuple[int, int]) -> None:
    heads, kinds = result.points("head"), list(result.ablation["kind"].unique())
    effect = result.ablation[result.ablation["kind"] == (kind or kinds[0])]
    both = heads.merge(effect, on=["layer", "head"])
    rho = spearmanr(both["fisher_f"], -both["logprob_change"]).statistic
    with st.expander("Do the heads that separate also matter?", icon=":material/scatter_plot:", expanded=False):
        figure = heads_charts.used_scatter(heads, effect, "logprob_change", selected)
        heatmap.show(
            figure,
            key=state.HEADS_USED,
            alt=f"Fisher F of each head against the effect of its ablation; rank correlation {rho:.2f}.",
            on_cell=lambda cell: _select(result, cell),
        )
        st.markdown(
            f"Each head replaced by {md(kind or kinds[0])}: change of the true class's log-probability. Rank "
            f"correlation of F with the harm done: **{rho:.2f}** over {len(both)} heads. A head can separate the "
            "classes and not be used, or be used for something that its mean over time does not show."
        )


def _depth(result: HeadsResult, layer: int) -> None:
    blocks, outputs = result.points("block"), result.points("stage")
    staged = result.vectors.geometry.staged
    st.markdown(f"**Blocks and {'stages' if staged else 'layers'}**, with 95 % intervals")
    st.plotly_chart(
        heads_charts.depth_curve(blocks, outputs, layer, staged=staged),
        theme="streamlit",
        key="heads_depth",
        config=CHART_CONFIG,
        alt="Normalised Fisher ratio of every block and stage output, with intervals.",
    )
    interval = result.notes["block"]["interval"]
    st.caption(f"Filled: adjusted p < .05. {md(interval[0].upper() + interval[1:])}.")


# ---- the selected head -----------------------------------------------------------------------------------------------


def _clips(
    shown: ShownHeads, asked: HeadsRequest, subject: Subject, clips: dict[str, Clip], layer: int, head: int
) -> None:
    result = shown.result
    ids, labels = list(result.clips["clip_id"]), list(result.clips["label"])
    missing = [clip_id for clip_id in ids if clip_id not in clips]
    if missing:
        raise InterpError(f"the run's clip {missing[0]!r} is not in the manifest; choose the one that it was run on.")
    point = result.vectors.geometry.head_of(layer, head)
    plane = class_plane(result.vectors.of(point), labels)
    slot = st.container()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        first, second = ids[0], next(i for i, label in zip(ids, labels, strict=True) if label != labels[0])
        a = st.selectbox("A", ids, index=ids.index(first), key=state.HEADS_A, bind=state.BOUND)
        b = st.selectbox("B", ids, index=ids.index(second), key=state.HEADS_B, bind=state.BOUND)
        side = st.segmented_control(
            "A click picks", ["A", "B"], default="A", required=True, key=state.HEADS_SIDE, bind=state.BOUND
        )
    a, b = a or first, b or second
    picked = state.HEADS_B if side == "B" else state.HEADS_A

    def clicked() -> None:
        points = st.session_state[state.HEADS_PLANE].selection.points
        carried = points[0].get("customdata") if points else None
        clip = carried.get("0") if isinstance(carried, dict) else carried[0] if carried else None
        if clip in ids:
            st.session_state[picked] = clip

    with slot:
        st.markdown(f"**Class means** of head {md(point.name)}, {point_width(result, layer, head)} numbers wide")
        st.plotly_chart(
            heads_charts.class_scatter(plane, labels, ids, a, b),
            theme="streamlit",
            key=state.HEADS_PLANE,
            on_select=clicked,
            selection_mode="points",
            config=CHART_CONFIG,
            alt=f"Clips and class means of head {point.name}; A is {a}, B is {b}.",
        )
    of = dict(zip(ids, labels, strict=True))
    sounds = [clip_audio.player_clip(clips[i], f"{i} · {of[i]}", subject.sample_rate) for i in (a, b)]
    ab_player(*sounds, key=state.PLAYER)
    if subject.needs_probe:
        st.info("The model has no classifier; name a label column under *Probe* in the sidebar to ablate and patch.")
        return
    without, patched = st.tabs(["Without this head", "B's head into A"])
    with without, readable_errors():
        _without(shown, asked, layer, head)
    with patched, readable_errors():
        _patched(shown, asked, clips[a], clips[b], of, layer, head)


def point_width(result: HeadsResult, layer: int, head: int) -> int:
    """Numbers in a head's vector."""
    return int(_row(result, layer, head)["width"])


def _run_request(shown: ShownHeads, asked: HeadsRequest) -> HeadsRequest:
    """The settings of the run on show, on the model and clips that are open now."""
    return replace(asked, settings=replace(request_from(shown.result.config).settings, ablate=()))


def _without(shown: ShownHeads, asked: HeadsRequest, layer: int, head: int) -> None:
    """What the answers become when the head is replaced: kept numbers of the run, or a job."""
    made, kept = _run_request(shown, asked), shown.result.ablation
    rows = kept[(kept["layer"] == layer) & (kept["head"] == head)] if len(kept) else kept
    missing = tuple(kind for kind in KINDS if not len(rows) or kind not in set(rows["kind"]))
    if missing:
        effect = HeadEffect(
            made.model, made.manifest, made.device, made.dtype, made.max_clips, made.skip_bad, None, made.part,
            made.probe, heads=((layer, head),), kinds=missing, settings=made.settings,
        )  # fmt: skip
        job = state.engine().jobs.get(effect.key)
        if job is not None and job.result is not None:
            rows = pd.concat([rows, job.result], ignore_index=True)
        elif job is not None and job.active:
            jobs_panel.watch(job)
        else:
            if job is not None and job.error:
                st.error(md(job.error))
            st.caption(f"Replaced by {', '.join(missing)}: every clip is answered again without this head.")
            if st.button("Ablate this head", key="heads_ablate_one", icon=":material/content_cut:"):
                state.engine().start(effect)
                st.rerun()
    if not len(rows):
        return
    first = rows.iloc[0]
    st.markdown(
        f"With the head the model is right on **{100 * first['base_accuracy']:.0f} %** of {first['n']} clips. "
        "Without it:"
    )
    for name, title in (("change", "Δ accuracy"), ("logprob_change", "Δ log-probability of the true class, nats")):
        st.plotly_chart(
            heads_charts.effect_bars(rows, name, title),
            theme="streamlit",
            key=f"heads_effect_{name}",
            config=CHART_CONFIG,
            alt=f"{title} when the head is replaced: "
            + ", ".join(f"{r['kind']} {r[name]:+.3f}" for r in rows.to_dict("records")),
        )
    changed = ", ".join(f"{row['kind']} {row['changed']}" for row in rows.to_dict("records"))
    st.caption(f"Answers that change, of {first['n']}: {changed}. {md(first['interval_method'])}.")


def _patched(
    shown: ShownHeads, asked: HeadsRequest, a: Clip, b: Clip, of: dict[str, str], layer: int, head: int
) -> None:
    """B's head in A's run: the label logits before, after, and of B."""
    if a.clip_id == b.clip_id:
        st.caption("Choose two clips.")
        return
    made = _run_request(shown, asked)
    with st.spinner("Patching this head …"):
        table = _patch(made.key, a.digest, b.digest, layer, head, made, a, b)
    target = of[b.clip_id]
    before, after = (table["label"][int(np.argmax(table[run]))] for run in ("base", "patched"))
    moved = table["patched"] - table["base"]
    word = "flips to " + md(after) if before != after else f"stays {md(before)}"
    st.markdown(f"The answer **{word}**; the largest change of a logit is {moved.abs().max():.3f}.")
    st.plotly_chart(
        charts.label_logits(
            list(table["label"]), list(table["base"]), list(table["patched"]), list(table["donor"]), target
        ),
        theme="streamlit",
        key="heads_patch",
        config=CHART_CONFIG,
        alt=f"Label logits of A, of A with B's head, and of B: A answers {before}, patched {after}.",
    )


@st.cache_data(max_entries=512, show_spinner=False)
def _patch(key: str, a: str, b: str, layer: int, head: int, _request: HeadsRequest, _a: Clip, _b: Clip) -> pd.DataFrame:
    return patch_head(state.engine(), _request, _a, _b, (layer, head))


# ---- two maps, numbers, words ----------------------------------------------------------------------------------------


def _compare(shown: ShownHeads, selected: tuple[int, int]) -> None:
    fold = st.expander("Compare with another map", icon=":material/difference:", key="heads_compare", on_change="rerun")
    if not fold.open:
        return
    with fold:
        others = heads_runs.others(shown)
        if not others:
            st.caption("No other run of a model of this geometry is there. Change the settings or the model, and run.")
            return
        names = [f"{one.name} ({number})" for number, one in enumerate(others, 1)]
        chosen = st.selectbox("The other map", names, key=state.HEADS_OTHER)
        other = others[names.index(chosen) if chosen in names else 0].result
        heads, theirs = shown.result.points("head"), other.points("head")
        rho = spearmanr(heads["fisher_f"], theirs["fisher_f"]).statistic
        heatmap.show(
            heads_charts.difference_map(heads, theirs, selected),
            key=state.HEADS_DIFFERENCE,
            alt=f"Difference of two maps; rank correlation {rho:.2f}.",
            on_cell=lambda cell: _select(shown.result, cell),
        )
        sure = [set(np.flatnonzero(rows["p_adjusted"] < heads_charts.SIGNIFICANT)) for rows in (heads, theirs)]
        st.markdown(
            f"Rank correlation of the two maps: **{rho:.2f}** over {len(heads)} heads. Beyond chance in both: "
            f"{len(sure[0] & sure[1])}; in this one only: {len(sure[0] - sure[1])}; in the other only: "
            f"{len(sure[1] - sure[0])}."
        )


def _further(shown: ShownHeads) -> None:
    result = shown.result
    with st.expander("Numbers behind the map", icon=":material/table:"):
        st.dataframe(result.table, hide_index=True, alt="Every head, block and stage with its numbers.")
        for name, rows in (("fisher", result.table), ("ablation", result.ablation)):
            if len(rows):
                data = rows.to_csv(index=False).encode()
                st.download_button(
                    f"{name}.csv", data, f"{name}.csv", "text/csv", on_click="ignore", key=f"heads-{name}"
                )
        st.caption("The command that repeats the run on show.")
        st.code(command(request_from(result.config)), language="bash", wrap_lines=True)
    with st.expander("How this was computed", icon=":material/fact_check:"):
        st.markdown(EXPLAINED)
        for granularity, notes in result.notes.items():
            st.caption(f"{granularity.replace('_', ' ')}: " + "; ".join(f"{k}: {md(v)}" for k, v in notes.items()))
    with st.expander("What a Fisher ratio does not prove", icon=":material/info:"):
        st.markdown(LIMITS)
