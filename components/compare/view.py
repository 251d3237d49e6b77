"""The comparison on show: matrix, curves, transplants, error rates, probes, clips. Numbers come from the run; here they
are only placed: a click reruns this and nothing else, and asks no model.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import form, server, state
from components.charts import clicks, heatmap
from components.compare import charts as compare_charts
from components.compare import words as compare_words
from components.export import Drawn, facts
from components.guard import readable_errors
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.shown import Shown
from components.widgets import OF_CLIPS, OF_SELECTION, choice, choosing, halves, picking_table, stepped
from components.words import md, option
from interp_core.data.clips import Clip
from interp_core.experiments.compare.figures import matrix_of
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.run import Comparison
from interp_core.models.subject import Subject

TABS = ("Layer by layer", "Transplants", "All models", "How it was computed")
VIEWS = ("Error rates", "DET", "Domain probe", "By codec and attack")
MEASURES = {"eer": "EER", "min_dcf": "minDCF", "accuracy": "accuracy"}


def offers(subject: Subject, usual: CompareRequest) -> form.Offers:
    """Layers by their usual names, the stages of the open model, the columns of the clips."""
    columns = sorted({name for clip in server.engine().manifest(usual).clips for name in clip.labels})
    named = dict.fromkeys(("label", "speaker", "group", "domain", "attack"), form.Open((*columns, "none")))
    return {"patch": form.Open(("auto:3", "each", "cumulative")), "stages": ("all", *subject.stages), **named}


def explore(shown: Shown, asked: CompareRequest, subject: Subject) -> Drawn | None:
    """Draw the comparison and everything that can be clicked in it."""
    made: Comparison = shown.result
    with st.spinner("Reading the clips …"):
        clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
    transplants = _shown_transplants(made.summary)
    st.markdown(f"{compare_words.found(made)} {compare_words.best(transplants)}")
    compare_words.banner(made)
    layers, moved, listed, made_how = st.tabs(TABS, key=state.CMP_TAB, bind=state.BOUND)
    with layers:
        representation, estimate = _choose_matrix(made.cka)
        points = list(dict.fromkeys(made.cka["base_point"]))
        point = _choose_point(made, points, OF_SELECTION if layers.open else None)
        left, right = halves("compare_layers", (1.2, 1))
        with left:
            figure = _matrix(made.cka, representation, estimate, point, transplants)
        with right:
            _curves(made, representation, estimate, points, point)
        compare_words.at_point(made, point, representation)
        _patch_point(transplants, point)
    with moved:
        transplant = _choose_transplant(transplants, OF_SELECTION if moved.open else None)
        left, right = halves("compare_transplants", (1.25, 1))
        with left:
            view = choice("View", VIEWS, key=state.CMP_VIEW, label_visibility="collapsed")
            seen = _view(made, transplants, transplant, view)
        with right, readable_errors():
            _clips(made, clips, transplant, subject.sample_rate, OF_CLIPS if moved.open else None)
    with listed:
        _table(made.summary, transplants, transplant)
    with made_how:
        compare_words.notes(made)
        compare_words.computed(made)
        compare_words.limits()
    if moved.open:
        return seen and _of_transplants(shown, seen, transplant, view)
    if not layers.open:
        return None  # tables alone: what is exported is the run's figure
    where = compare_charts.point_name(point)
    title = f"{estimate} linear CKA, {representation}; framed: {where}"
    return Drawn(figure, title, facts(shown), f"cka-{representation}-{where}")


def _of_transplants(shown: Shown, figure: go.Figure, transplant: str, view: str) -> Drawn:
    title = f"{view}: base, donor and transplants" if view == "Error rates" else f"{view}: base, donor, {transplant}"
    return Drawn(figure, title, facts(shown), view)


# ---- selection -------------------------------------------------------------------------------------------------------


def _choose_matrix(cka: pd.DataFrame) -> tuple[str, str]:
    representations = list(dict.fromkeys(cka["representation"]))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        representation = choice(
            "Compared by", representations, key=state.CMP_REP, format_func=option,
            help="The mean over a clip's positions, or one position of each clip, drawn once.",
        )  # fmt: skip
        estimate = choice(
            "Estimate", ["unbiased", "plain"], key=state.CMP_ESTIMATE,
            help="The plain estimate calls unrelated layers alike where clips are few.",
        )  # fmt: skip
    return representation, estimate


def _choose_point(made: Comparison, points: list[str], keys: tuple[str, str] | None) -> str:
    names = [compare_charts.axis_name(point) for point in points]
    found = made.findings["most_divergent"]
    first = str(found) if found is not None and str(found) in names else next(
        (name for name in names if not name.isdigit()), names[0]
    )  # fmt: skip
    chosen = stepped(
        "Layer or stage", names, first, key=state.CMP_POINT, helps=("one layer or stage down", "one layer or stage up"),
        name="cmp-point", keys=keys, format_func=option,
    )  # fmt: skip
    return points[names.index(chosen)]


def _patch_point(transplants: pd.DataFrame, point: str) -> None:
    """From a layer or stage to what becomes of the base with the donor's activation there."""
    here = transplants.loc[
        (transplants["sites"] == point) & (transplants["mode"] == "donor") & ~transplants["reverse"], "model"
    ]
    if not len(here):
        return

    def show_it(name: str) -> None:
        choosing(state.CMP_ARM)(name)
        st.session_state[state.CMP_TAB] = TABS[1]

    label = f"Patch {md(compare_charts.point_name(point))} from the donor"
    st.button(label, key="cmp-patch-point", on_click=show_it, args=(str(here.iloc[0]),), icon=":material/cable:")


def _choose_transplant(transplants: pd.DataFrame, keys: tuple[str, str] | None) -> str:
    names = list(transplants.loc[transplants["mode"] != "", "model"])
    if not names:
        return "donor"
    best = transplants[(transplants["mode"] != "") & (transplants["null"] == "")]
    first = str(best["model"].iloc[0]) if len(best) else names[0]
    jump = choosing(state.CMP_ARM)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        chosen = stepped(
            "Transplant", names, first, key=state.CMP_ARM, helps=("previous transplant", "next transplant"),
            name="cmp-transplant", keys=keys, width=320,
            help="What is put into the base (or, reversed, into the donor).",
        )  # fmt: skip
        least = transplants.loc[transplants["chosen"].str.contains("most divergent") & ~transplants["reverse"], "model"]
        if len(least):
            name = str(least.iloc[0])
            st.button(
                f"Patch the least alike: {md(name)}", key="cmp-patch-auto", on_click=jump, args=(name,),
                disabled=name == chosen, icon=":material/bolt:",
            )  # fmt: skip
    return chosen


def _shown_transplants(summary: pd.DataFrame) -> pd.DataFrame:
    """Every model that ran, sweeps behind the rest."""
    ran = summary[summary["n"].notna()] if "n" in summary else summary
    ran = ran.assign(reverse=ran["reverse"].astype(bool))
    sweep = ran["chosen"].str.startswith(("each", "cumulative"))
    return pd.concat([ran[~sweep], ran[sweep]], ignore_index=True)


# ---- the pictures ----------------------------------------------------------------------------------------------------


def _matrix(cka: pd.DataFrame, representation: str, estimate: str, point: str, transplants: pd.DataFrame) -> go.Figure:
    values, base, donor = matrix_of(cka, representation, estimate)
    reasons, _, _ = _texts(cka, representation, estimate)
    names = [compare_charts.axis_name(name) for name in base]
    at = base.index(point)

    def picked(cell: heatmap.Cell) -> None:
        st.session_state[state.CMP_POINT] = names[cell[0]]

    figure = heatmap.heatmap(
        values, names, [compare_charts.axis_name(p) for p in donor],
        title=f"{estimate} linear CKA, {representation}", unit="1: alike, 0: unrelated", row_title="base",
        column_title="donor: layer, or stage behind the layers", limits=(0, 1), hover=reasons, selected=(at, at),
        outlined=[(i, i) for i in range(len(base))], upwards=True,
    )  # fmt: skip
    found = f"Lowest on the diagonal at {compare_charts.point_name(base[int(pd.Series(values.diagonal()).argmin())])}."
    heatmap.show(
        figure, key=state.CMP_MAP, on_cell=picked,
        alt=f"{estimate} CKA of all points of the base and of the donor, {len(base)} x {len(donor)}. {found}",
    )  # fmt: skip
    return figure


def _texts(cka: pd.DataFrame, representation: str, estimate: str) -> tuple[list[list[str]], int, int]:
    rows = cka[cka["representation"] == representation]
    n_base, n_donor = rows["base_point"].nunique(), rows["donor_point"].nunique()
    texts = [compare_words.cka_hover(row, estimate) for row in compare_words.records(rows)]
    return [texts[i * n_donor : (i + 1) * n_donor] for i in range(n_base)], n_base, n_donor


def _curves(made: Comparison, representation: str, estimate: str, points: list[str], point: str) -> None:
    rows = made.cka[made.cka["representation"] == representation]
    rows = rows[rows["base_point"] == rows["donor_point"]]
    _clickable(
        compare_charts.diagonal(rows, estimate, selected=point), state.CMP_DIAGONAL, points,
        alt=f"{estimate} CKA of each layer and stage with its counterpart, with intervals.",
    )  # fmt: skip
    alone = made.summary[(made.summary["mode"] == "donor") & ~made.summary["reverse"].astype(bool)]
    alone = alone[~alone["sites"].str.contains(" ") & alone["n"].notna()]
    alone = alone[alone["sites"].isin(points)]
    if len(alone):
        _clickable(
            compare_charts.effect(
                alone, points, "score_change_mean", "score moved, mean of |Δ| (nats)", selected=point
            ),
            state.CMP_EFFECT, points,
            alt="How far the donor's activation at each layer or stage alone moves the base's scores.",
        )  # fmt: skip


def _clickable(figure: go.Figure, key: str, points: list[str], alt: str) -> None:
    def picked(at: int) -> None:
        if at < len(points):
            st.session_state[state.CMP_POINT] = compare_charts.axis_name(points[at])

    clicks.show(figure, key=key, on_click=picked, alt=alt)


def _view(made: Comparison, transplants: pd.DataFrame, transplant: str, view: str) -> go.Figure | None:
    """Draw what the transplants do; the figure, where it is one."""
    figure = None
    positive = made.findings["positive"]
    if view == "DET" and positive:
        here = made.scores[made.scores["half"] == "report"]
        models = list(dict.fromkeys(["base", "donor", transplant]))
        figure = compare_charts.det(here, models, positive)
        clicks.show(
            figure, key="cmp-det",
            alt=f"Detection error trade-off of {', '.join(models)} on the reporting half.",
        )  # fmt: skip
        st.caption("Reporting half; every unique score is a threshold. A curve nearer to the lower left is better.")
    elif view == "Domain probe" and len(made.probes):
        figure = _probes(made)
    elif view == "By codec and attack" and len(made.breakdown):
        _breakdown(made, transplant)
    elif view == "Error rates":
        figure = _rates(transplants, transplant)
        st.markdown(compare_words.erased(made))
    else:
        st.info(compare_words.absent(made, view))
    return figure


def _rates(transplants: pd.DataFrame, transplant: str) -> go.Figure | None:
    there = [name for name in MEASURES if name in transplants]
    if not there:
        st.info("The clips have no classes that these models name, so there is no rate; see the scores beside.")
        return None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        measure = choice("Measure", there, key=state.CMP_MEASURE, format_func=MEASURES.__getitem__)
        sweeps = st.toggle("each layer alone, cumulative", key=state.CMP_SWEEPS, bind=state.BOUND)
    rows = (
        transplants
        if sweeps
        else transplants[
            ~transplants["chosen"].str.startswith(("each", "cumulative")) | (transplants["model"] == transplant)
        ]
    )
    rows = rows.reset_index(drop=True)
    names = list(rows["model"])
    figure = compare_charts.measures(rows, measure, selected=transplant)
    clicks.show(
        figure, key=state.CMP_RATES,
        on_click=lambda at: _show_transplant(names[at]), alt=f"{MEASURES[measure]} of every model with its interval.",
    )  # fmt: skip
    st.caption(compare_words.rates(rows, measure, transplant))
    return figure


def _probes(made: Comparison) -> go.Figure:
    rows = made.probes[made.probes["measured"] == "site"]
    subsets = list(dict.fromkeys(rows["clips"]))
    subset = choice(
        "Clips probed", subsets, key=state.CMP_CLASS, format_func=option,
        help="Bona fide and spoofed clips apart: which synthesiser made a clip may go with the codec.",
    )  # fmt: skip
    figure = compare_charts.probes(rows, subset)
    clicks.show(
        figure, key="cmp-probes",
        alt="Balanced accuracy of the domain probe at every layer and stage of base and donor, against chance.",
    )  # fmt: skip
    after = made.probes[(made.probes["measured"] == "transplant") & (made.probes["clips"] == subset)]
    if len(after):
        st.caption(f"What the head reads ({md(after['site'].iloc[0])}) on the reporting half, behind each transplant:")
        columns = ["model", "accuracy", "low", "high", "difference", "difference_low", "difference_high", "p", "note"]
        st.dataframe(after[columns].round(3), hide_index=True, alt="The domain probe behind each transplant.")
    return figure


def _breakdown(made: Comparison, transplant: str) -> None:
    by = list(dict.fromkeys(made.breakdown["by"]))
    what = choice("By", by, key=state.CMP_BREAK, format_func=option)
    rows = made.breakdown[(made.breakdown["by"] == what) & made.breakdown["model"].isin(["base", "donor", transplant])]
    wide = rows.pivot(index="value", columns="model", values="eer")
    counts = rows[rows["model"] == "base"].set_index("value")[["n_bonafide", "n_spoof", "reason"]]
    order = [name for name in ("base", "donor", transplant) if name in wide]
    st.dataframe(
        counts.join((100 * wide[order]).round(2).add_suffix(" EER, %")).reset_index(names=what), hide_index=True,
        alt=f"EER of base, donor and the transplant by {what}.",
    )  # fmt: skip
    st.caption(
        "A codec brings its own bona fide clips." if what == "domain" else "Each attack meets all bona fide clips."
    )


def _table(summary: pd.DataFrame, transplants: pd.DataFrame, transplant: str) -> None:
    """Every model: its error rates, its probe, what it costs; a row that is clicked is the transplant on show."""
    picking_table(
        compare_words.table(transplants), list(transplants["model"]), _show_transplant, key=state.CMP_TABLE, height=320,
        alt="Every model with its error rates, intervals, domain probe, and what it needs at inference.",
    )  # fmt: skip


def _show_transplant(model: str) -> None:
    if model not in ("base", "donor"):
        st.session_state[state.CMP_ARM] = model


# ---- listening -------------------------------------------------------------------------------------------------------


def _clips(
    made: Comparison, known: Mapping[str, Clip], transplant: str, rate: int, keys: tuple[str, str] | None
) -> None:
    table = compare_words.moved_most(made, known, transplant)
    if table.empty:
        st.info("The run's clips are not in the manifest that is set now, so there is nothing to hear.")
        return
    st.markdown(f"**Clips whose score moved most**: {md(transplant)}")
    ids = list(table.index)
    rows = table.reset_index().round(3)
    rows.insert(1, "hear", clip_audio.urls(ids, known))
    picking_table(
        rows, ids, choosing(state.CMP_CLIP), key=state.CMP_CLIPS, height=212,
        alt="Clips by how far the transplant moves their score.",
        column_config={"moved": st.column_config.NumberColumn("moved (nats)"), **clip_audio.hear()},
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        helps = ("previous clip", "next clip")
        chosen = stepped("Clip", ids, ids[0], key=state.CMP_CLIP, helps=helps, name="cmp-clip", keys=keys, width=185)
        clip = known[chosen]
        beside = [other for other in _related(made, clip, known)]
        other = (
            st.selectbox("Beside it", [c.clip_id for c in beside], key=state.CMP_BESIDE, bind=state.BOUND)
            if beside
            else None
        )
    pair = [clip, *[c for c in beside if c.clip_id == other]]
    a, *b = (clip_audio.player_clip(c, compare_words.heard(made, c), rate) for c in pair)
    ab_player(a, b[0] if b else None, key=state.CMP_PLAYER)


def _related(made: Comparison, clip: Clip, known: Mapping[str, Clip]) -> list[Clip]:
    """Other versions of the same utterance."""
    column = made.findings["columns"]["group"]
    group = clip.label(column) if column else None
    if group is None:
        return []
    return [c for c in known.values() if c.label(column) == group and c.clip_id != clip.clip_id]
