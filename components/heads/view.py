"""The heads page's view of a run: the map, the selected head, its clips, and what the model does without it.

A click on the map reruns this and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from scipy.stats import spearmanr

from components import defaults, edited_answer, export, form, jobs_panel, server, state, visitors
from components.charts import clicks, heatmap
from components.charts.answers import label_logits
from components.charts.clicks import clicked_text
from components.charts.words import shortened
from components.export import Drawn, facts
from components.guard import readable_errors, show
from components.heads import charts as heads_charts
from components.heads import in_words, other
from components.heads.words import EXPLAINED, head_sentence
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.shown import Shown
from components.widgets import OF_CLIPS, choice, halves, step_button, stepped, steps_row
from components.words import md
from interp_core.choices import HEAD_EDITS
from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.facts import signature
from interp_core.experiments.heads.experiment import HeadEffect, patch_head, start_effect
from interp_core.experiments.heads.limits import LIMITS
from interp_core.experiments.heads.points import geometry_of
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.heads.run import HeadsResult
from interp_core.maths.fisher import class_plane
from interp_core.maths.stats import SIGNIFICANT
from interp_core.models.subject import Subject

EFFECTS = {"Without it: accuracy": "change", "Without it: log-probability": "logprob_change"}


MOST_CLASSES = 60
PREFERRED = ("label", "prosody_label", "category", "class")


def suits(subject: Subject, usual: HeadsRequest) -> None:
    """InterpError for a model that has no heads to look at."""
    geometry_of(subject)


def fill(request: HeadsRequest) -> HeadsRequest:
    """With classes that the clips have, where they have no column of the usual name.

    Raises:
        InterpError: no column tells classes apart.
    """
    columns = class_columns(server.engine().manifest(request).clips)
    if not columns:
        raise InterpError("no column of the manifest has two classes or more of two clips each; add a label column.")
    if request.label in columns:
        return request
    return replace(request, label=next((name for name in PREFERRED if name in columns), columns[0]))


def offers(subject: Subject, usual: HeadsRequest) -> form.Offers:
    """The columns of the clips."""
    clips = server.engine().manifest(usual).clips
    names = sorted({name for clip in clips for name in clip.labels})
    return {"label": class_columns(clips), "groups": ["auto", "none", *names]}


def class_columns(clips: Sequence[Clip]) -> list[str]:
    """Columns whose values can be classes: two or more, of two clips each, and not one a clip."""
    found = []
    for name in sorted({name for clip in clips for name in clip.labels}):
        values = [clip.label(name) for clip in clips if clip.label(name) is not None]
        counts = {value: values.count(value) for value in set(values)}
        if 2 <= len(counts) <= MOST_CLASSES and min(counts.values()) >= 2:
            found.append(name)
    return found


def explore(shown: Shown, asked: HeadsRequest, subject: Subject) -> Drawn:
    """Draw the run and everything that can be clicked in it."""
    result: HeadsResult = shown.result
    clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
    left, right = halves("heads", (1.15, 1))
    with left:
        controls, place = st.container(), st.container()
        with controls, st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            view, kind = _choose_view(result)
            layer, head = _choose_head(result)
        with place:
            figure = _map(result, view, kind, (layer, head))
    row = _row(result, layer, head)
    with right, readable_errors():
        st.markdown(head_sentence(result, row))
        _clips(shown, asked, subject, clips, layer, head)
    with left, readable_errors():
        _depth(result, layer)
        other.compare(shown, (layer, head), lambda cell: _select(result, cell))
        edited_answer.of_run(result.words, "head", "heads_run_words", clips)
        _further(shown)
    replaced = f", replaced by {kind}" if kind else ""
    title = f"{view}{replaced} of {len(result.points('head'))} heads; framed: {row['name']}"
    return Drawn(figure, title, facts(shown), f"{view}-{row['name']}")


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
        width=190,
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
    chosen = stepped(
        f"Head, of {len(names)}: click one", names, names[best], key=state.HEADS_AT,
        helps=("previous head", "next head"), name="heads", width=170,
    )  # fmt: skip
    at = names.index(chosen)
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


def _map(result: HeadsResult, view: str, kind: str, selected: tuple[int, int]) -> go.Figure:
    heads = result.points("head")
    values = {"Fisher F": "fisher_f", "Probe": "probe_accuracy"}
    if view in EFFECTS:
        effect = result.ablation[result.ablation["kind"] == kind]
        numbers = heads.merge(effect, on=["layer", "head"], how="left")[EFFECTS[view]].to_numpy()
        note = f" replaced by {kind}"
    else:
        numbers, note = heads[values[view]].to_numpy(), ""
    sure = int((heads["p_adjusted"] < SIGNIFICANT).sum())
    # Of an effect the mark says nothing: what is tested is the separation.
    note += f"{', marked' if note else ''}: {sure} separate the classes beyond chance"
    figure = heads_charts.head_map(heads, numbers, view, selected, note)
    heatmap.show(
        figure,
        key=state.HEADS_MAP,
        alt=f"Map of {len(heads)} heads, {view}; {sure} with adjusted p below .05.",
        on_cell=lambda cell: _select(result, cell),
    )
    tested = heads["p_adjusted"].notna().any()
    why = "" if tested else f" {md(result.notes['head']['p'])}."
    of = "Fisher's F has an adjusted p < .05 over all heads; of what is shown this is no test"
    of = of if view in EFFECTS else "adjusted p < .05 over all heads"
    st.caption(f"{heads_charts.MARK} {of}.{why} Blocks run downwards, as the model runs.")
    if len(result.ablation):
        _used(result, kind, selected)
    return figure


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
            alt=f"Fisher F of each head against the effect of its ablation; rank correlation {rho:z.2f}.",
            on_cell=lambda cell: _select(result, cell),
        )
        st.markdown(
            f"Each head replaced by {md(kind or kinds[0])}: change of the true class's log-probability. Rank "
            f"correlation of F with the harm done: **{rho:z.2f}** over {len(both)} heads. A head can separate the "
            "classes and not be used, or be used for something that its mean over time does not show."
        )


def _depth(result: HeadsResult, layer: int) -> None:
    blocks, outputs = result.points("block"), result.points("stage")
    staged = result.vectors.geometry.staged
    st.markdown(f"**Blocks and {'stages' if staged else 'layers'}**, with 95 % intervals")
    clicks.show(
        heads_charts.depth_curve(blocks, outputs, layer),
        key="heads_depth",
        alt="Normalised Fisher ratio of every block and stage output, with intervals.",
    )
    interval = result.notes["block"]["interval"]
    st.caption(f"Filled: adjusted p < .05. {md(interval[0].upper() + interval[1:])}.")


# ---- the selected head -----------------------------------------------------------------------------------------------


def _clips(shown: Shown, asked: HeadsRequest, subject: Subject, clips: dict[str, Clip], layer: int, head: int) -> None:
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
        a = st.selectbox("A", ids, index=ids.index(first), key=state.HEADS_A, bind=state.BOUND, width=135)
        b = st.selectbox("B", ids, index=ids.index(second), key=state.HEADS_B, bind=state.BOUND, width=135)
        side = choice("A click picks", ["A", "B"], key=state.HEADS_SIDE)
        a, b = a or first, b or second
        picked, now = (state.HEADS_B, b) if side == "B" else (state.HEADS_A, a)

        def step(by: int) -> None:
            st.session_state[picked] = ids[(ids.index(now) + by) % len(ids)]

        with steps_row("heads-clip", width="content"):
            for by in (-1, 1):
                step_button(by, step, "heads-clip", OF_CLIPS, (f"previous clip as {side}", f"next clip as {side}"))

    def clicked(clip: str) -> None:
        if clip in ids:
            st.session_state[picked] = clip

    with slot:
        st.markdown(f"**Class means** of head {md(point.name)}, {point_width(result, layer, head)} numbers wide")
        scatter = heads_charts.class_scatter(plane, labels, ids, a, b)
        clicks.show(
            scatter,
            key=state.HEADS_PLANE,
            on_click=clicked,
            read=clicked_text,
            alt=f"Clips and class means of head {point.name}; A is {a}, B is {b}.",
        )
        title = f"Clips and class means in head {point.name}, along the two directions in which the means differ most"
        signed = partial(signature, shown.config, f"A {a}", f"B {b}", f"n = {len(ids)} clips")
        name = export.file_name(result.model_name, "plane", point.name)
        export.chart(Drawn(scatter, title, signed, name), key=state.HEADS_PLANE)
    of = dict(zip(ids, labels, strict=True))
    sounds = [clip_audio.player_clip(clips[i], f"{shortened(i, 16)} · {of[i]}", subject.sample_rate) for i in (a, b)]
    ab_player(*sounds, key=state.PLAYER)
    if subject.needs_probe:
        st.info("The model has no classifier; name a label column under *Probe* in the sidebar to ablate and patch.")
        return
    without, patched = st.tabs(["Without this head", "B's head into A"])
    in_words.draw(_run_request(shown, asked), subject, clips[a], (layer, head), point.name)
    with without, readable_errors():
        _without(shown, asked, layer, head)
    with patched, readable_errors():
        _patched(shown, asked, clips[a], clips[b], of, layer, head)


def point_width(result: HeadsResult, layer: int, head: int) -> int:
    """Numbers in a head's vector."""
    return int(_row(result, layer, head)["width"])


def _run_request(shown: Shown, asked: HeadsRequest) -> HeadsRequest:
    """The settings of the run on show, on the model and clips that are open now, with the sidebar's probe."""
    probe = st.session_state[state.REQUEST].probe
    return replace(defaults.with_common(shown.request, asked), ablate=(), probe=probe or asked.probe)


def _without(shown: Shown, asked: HeadsRequest, layer: int, head: int) -> None:
    """What the answers become when the head is replaced: kept numbers of the run, or a job."""
    made, kept = _run_request(shown, asked), shown.result.ablation
    rows = kept[(kept["layer"] == layer) & (kept["head"] == head)] if len(kept) else kept
    missing = tuple(kind for kind in HEAD_EDITS if not len(rows) or kind not in set(rows["kind"]))
    if missing:
        effect = HeadEffect(made, ((layer, head),), missing)
        job = server.engine().jobs.get(effect.key_in(server.engine()))
        if job is not None and job.result is not None:
            rows = pd.concat([rows, job.result], ignore_index=True)
        elif job is not None and job.active:
            jobs_panel.watch(job)
        else:
            if job is not None and job.error:
                show(job.error)
            st.caption(f"Replaced by {', '.join(missing)}: every clip is answered again without this head.")
            if st.button("Ablate this head", key="heads_ablate_one", icon=":material/content_cut:"):
                visitors.asked(start_effect(server.engine(), effect))
                st.rerun()
    if not len(rows):
        return
    first = rows.iloc[0]
    st.markdown(
        f"With the head the model is right on **{100 * first['base_accuracy']:.0f} %** of {md(first['n'])} clips. "
        "Without it:"
    )
    for name, title in (("change", "Δ accuracy"), ("logprob_change", "Δ log-probability of the true class, nats")):
        clicks.show(
            heads_charts.effect_bars(rows, name, title),
            key=f"heads_effect_{name}",
            alt=f"{title} when the head is replaced: "
            + ", ".join(f"{r['kind']} {r[name]:+z.3f}" for r in rows.to_dict("records")),
        )
    changed = ", ".join(f"{md(row['kind'])} {md(row['changed'])}" for row in rows.to_dict("records"))
    methods = "; ".join(
        f"{', '.join(map(md, part['kind']))}: {md(method)}"
        for method, part in rows.groupby("interval_method", sort=False)
    )
    st.caption(f"Answers that change, of {md(first['n'])}: {changed}. {methods}.")


def _patched(shown: Shown, asked: HeadsRequest, a: Clip, b: Clip, of: dict[str, str], layer: int, head: int) -> None:
    """B's head in A's run: the label logits before, after, and of B."""
    if a.clip_id == b.clip_id:
        st.caption("Choose two clips.")
        return
    made = _run_request(shown, asked)
    with st.spinner("Patching this head …"):
        table = _patch(server.engine().key_of(made), a.digest, b.digest, layer, head, made, a, b)
    target = of[b.clip_id]
    before, after = (table["label"][int(np.argmax(table[run]))] for run in ("base", "patched"))
    moved = table["patched"] - table["base"]
    word = "flips to " + md(after) if before != after else f"stays {md(before)}"
    st.markdown(f"The answer **{word}**; the largest change of a logit is {moved.abs().max():.3f}.")
    clicks.show(
        label_logits(list(table["label"]), list(table["base"]), list(table["patched"]), list(table["donor"]), target),
        key="heads_patch",
        alt=f"Label logits of A, of A with B's head, and of B: A answers {before}, patched {after}.",
    )


@st.cache_data(max_entries=512, show_spinner=False)
def _patch(key: str, a: str, b: str, layer: int, head: int, _request: HeadsRequest, _a: Clip, _b: Clip) -> pd.DataFrame:
    return patch_head(server.engine(), _request, _a, _b, (layer, head))


# ---- numbers, words -----------------------------------------------------------------------------------------------


def _further(shown: Shown) -> None:
    result = shown.result
    with st.expander("Numbers behind the map", icon=":material/table:"):
        st.dataframe(result.table, hide_index=True, alt="Every head, block and stage with its numbers.")
    with st.expander("How this was computed", icon=":material/fact_check:"):
        st.markdown(EXPLAINED)
        for granularity, notes in result.notes.items():
            st.caption(
                f"{md(granularity.replace('_', ' '))}: " + "; ".join(f"{md(k)}: {md(v)}" for k, v in notes.items())
            )
    with st.expander("What a Fisher ratio does not prove", icon=":material/info:"):
        st.markdown(LIMITS)
