"""The comparison on show: matrix, curves, transplants, error rates, probes, clips. Numbers come from the run; here they
are only placed. All of it is one fragment: a click reruns this and nothing else, and asks no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from components import clip_audio, compare_charts, compare_words, export, heatmap, state
from components.ab_player import ab_player
from components.compare_runs import ShownComparison
from components.guard import readable_errors
from components.words import md
from interp_core.data.clips import Clip
from interp_core.doors.compare import request_from_config
from interp_core.doors.compare_folder import matrix_of

VIEWS = ("Error rates", "DET", "Domain probe", "By codec and attack")
MEASURES = {"eer": "EER", "min_dcf": "minDCF", "accuracy": "accuracy"}
CONFIG = heatmap.CHART_CONFIG


@st.fragment
def explore(shown: ShownComparison, clips: Mapping[str, Clip], rate: int) -> None:
    """Draw the comparison and everything that can be clicked in it.

    Args:
        clips: those that can be listened to, by clip_id; rate: samples a second.
    """
    with readable_errors():
        made = shown.result
        compare_words.banner(made)
        arms = _shown_arms(made.summary)
        representation, estimate = _choose_matrix(made.cka)
        points = list(dict.fromkeys(made.cka["base_point"]))
        point = _choose_point(made, points)
        left, right = st.columns([1.2, 1], gap="medium")
        with left:
            _matrix(made.cka, representation, estimate, point, arms)
        with right:
            _curves(made, representation, estimate, points, point)
        compare_words.at_point(made, point, representation)
        st.subheader("Transplants", anchor=False)
        arm = _choose_arm(arms, point)
        left, right = st.columns([1.25, 1], gap="medium")
        with left:
            view = st.segmented_control(
                "View", VIEWS, default=VIEWS[0], required=True, key=state.CMP_VIEW, bind=state.BOUND,
                label_visibility="collapsed",
            )  # fmt: skip
            _view(made, arms, arm, view or VIEWS[0])
        with right, readable_errors():
            _clips(shown, clips, arm, rate)
        _table(made.summary, arms, arm)
        with st.container(horizontal=True):
            _export(shown)
        st.caption(compare_words.provenance(shown))
        compare_words.computed(made)
        compare_words.limits()


# ---- selection -------------------------------------------------------------------------------------------------------


def _choose_matrix(cka: pd.DataFrame) -> tuple[str, str]:
    representations = list(dict.fromkeys(cka["representation"]))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        representation = st.segmented_control(
            "Compared by", representations, default=representations[0], required=True, key=state.CMP_REP,
            bind=state.BOUND, help="The mean over a clip's positions, or one position of each clip, drawn once.",
        )  # fmt: skip
        estimate = st.segmented_control(
            "Estimate", ["unbiased", "plain"], default="unbiased", required=True, key=state.CMP_ESTIMATE,
            bind=state.BOUND, help="The plain estimate calls unrelated layers alike where clips are few.",
        )  # fmt: skip
    return representation or representations[0], estimate or "unbiased"


def _choose_point(made: Any, points: list[str]) -> str:
    names = [compare_charts.axis_name(point) for point in points]
    found = made.findings["most_divergent"]
    first = str(found) if found is not None and str(found) in names else next(
        (name for name in names if not name.isdigit()), names[0]
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        chosen = st.select_slider("Layer or stage", names, value=first, key=state.CMP_POINT, bind=state.BOUND)
    return points[names.index(chosen)] if chosen in names else points[names.index(first)]


def _choose_arm(arms: pd.DataFrame, point: str) -> str:
    names = list(arms.loc[arms["mode"] != "", "model"])
    if not names:
        return "donor"
    best = arms[(arms["mode"] != "") & (arms["null"] == "")]
    first = str(best["model"].iloc[0]) if len(best) else names[0]
    here = arms.loc[(arms["sites"] == point) & (arms["mode"] == "donor") & ~arms["reverse"], "model"]

    def jump(to: str) -> None:
        st.session_state[state.CMP_ARM] = to

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        chosen = st.selectbox(
            "Transplant", names, index=names.index(first), key=state.CMP_ARM, bind=state.BOUND, width=320,
            help="What is put into the base (or, reversed, into the donor).",
        )  # fmt: skip
        if len(here):
            name = str(here.iloc[0])
            st.button(
                f"Patch {compare_charts.point_name(point)} from the donor", key="cmp-patch-point", on_click=jump,
                args=(name,), disabled=name == chosen, icon=":material/cable:",
            )  # fmt: skip
        least = arms.loc[arms["chosen"].str.contains("most divergent") & ~arms["reverse"], "model"]
        if len(least):
            name = str(least.iloc[0])
            st.button(
                f"Patch the least alike: {name}", key="cmp-patch-auto", on_click=jump, args=(name,),
                disabled=name == chosen, icon=":material/bolt:",
            )  # fmt: skip
    return chosen if chosen in names else first


def _shown_arms(summary: pd.DataFrame) -> pd.DataFrame:
    """Every model that ran, sweeps behind the rest."""
    ran = summary[summary["n"].notna()] if "n" in summary else summary
    ran = ran.assign(reverse=ran["reverse"].astype(bool))
    sweep = ran["chosen"].str.startswith(("each", "cumulative"))
    return pd.concat([ran[~sweep], ran[sweep]], ignore_index=True)


# ---- the pictures ----------------------------------------------------------------------------------------------------


def _matrix(cka: pd.DataFrame, representation: str, estimate: str, point: str, arms: pd.DataFrame) -> None:
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


def _texts(cka: pd.DataFrame, representation: str, estimate: str) -> tuple[list[list[str]], int, int]:
    rows = cka[cka["representation"] == representation]
    n_base, n_donor = rows["base_point"].nunique(), rows["donor_point"].nunique()
    texts = [compare_words.cka_hover(row, estimate) for row in compare_words.records(rows)]
    return [texts[i * n_donor : (i + 1) * n_donor] for i in range(n_base)], n_base, n_donor


def _curves(made: Any, representation: str, estimate: str, points: list[str], point: str) -> None:
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


def _clickable(figure: Any, key: str, points: list[str], alt: str) -> None:
    def picked() -> None:
        carried = [p.get("customdata") for p in st.session_state[key].selection.points]
        first = carried[0] if carried else None
        at = first.get("0") if isinstance(first, Mapping) else first[0] if first else None
        if isinstance(at, int) and at < len(points):
            st.session_state[state.CMP_POINT] = compare_charts.axis_name(points[at])

    st.plotly_chart(
        figure, theme="streamlit", key=key, on_select=picked, selection_mode="points", config=CONFIG, alt=alt
    )


def _view(made: Any, arms: pd.DataFrame, arm: str, view: str) -> None:
    positive = made.findings["positive"]
    if view == "DET" and positive:
        here = made.scores[made.scores["half"] == "report"]
        models = list(dict.fromkeys(["base", "donor", arm]))
        st.plotly_chart(
            compare_charts.det(here, models, positive), key="cmp-det", config=CONFIG,
            alt=f"Detection error trade-off of {', '.join(models)} on the reporting half.",
        )  # fmt: skip
        st.caption("Reporting half; every unique score is a threshold. A curve nearer to the lower left is better.")
    elif view == "Domain probe" and len(made.probes):
        _probes(made)
    elif view == "By codec and attack" and len(made.breakdown):
        _breakdown(made, arm)
    elif view == "Error rates":
        _rates(arms, arm)
    else:
        st.info(compare_words.absent(made, view))


def _rates(arms: pd.DataFrame, arm: str) -> None:
    there = [name for name in MEASURES if name in arms]
    if not there:
        st.info("The clips have no classes that these models name, so there is no rate; see the scores beside.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        measure = st.segmented_control(
            "Measure", there, default=there[0], required=True, format_func=MEASURES.__getitem__, key=state.CMP_MEASURE
        )
        sweeps = st.toggle("each layer alone, cumulative", key=state.CMP_SWEEPS)
    measure = measure or there[0]
    rows = arms if sweeps else arms[~arms["chosen"].str.startswith(("each", "cumulative")) | (arms["model"] == arm)]
    rows = rows.reset_index(drop=True)
    names = list(rows["model"])

    def picked() -> None:
        carried = [p.get("customdata") for p in st.session_state[state.CMP_RATES].selection.points]
        first = carried[0] if carried else None
        at = first.get("0") if isinstance(first, Mapping) else first[0] if first else None
        if isinstance(at, int) and names[at] not in ("base", "donor"):
            st.session_state[state.CMP_ARM] = names[at]

    st.plotly_chart(
        compare_charts.measures(rows, measure, selected=arm), key=state.CMP_RATES, on_select=picked,
        selection_mode="points", config=CONFIG, alt=f"{MEASURES[measure]} of every model with its interval.",
    )  # fmt: skip
    st.caption(compare_words.rates(rows, measure, arm))


def _probes(made: Any) -> None:
    rows = made.probes[made.probes["measured"] == "site"]
    subsets = list(dict.fromkeys(rows["clips"]))
    subset = st.segmented_control(
        "Clips probed", subsets, default=subsets[0], required=True, key=state.CMP_CLASS, format_func=str,
        help="Bona fide and spoofed clips apart: which synthesiser made a clip may go with the codec.",
    )  # fmt: skip
    st.plotly_chart(
        compare_charts.probes(rows, subset or subsets[0]), key="cmp-probes", config=CONFIG,
        alt="Balanced accuracy of the domain probe at every layer and stage of base and donor, against chance.",
    )  # fmt: skip
    after = made.probes[(made.probes["measured"] == "transplant") & (made.probes["clips"] == (subset or subsets[0]))]
    if len(after):
        st.caption(f"What the head reads ({md(after['site'].iloc[0])}) on the reporting half, behind each transplant:")
        columns = ["model", "accuracy", "low", "high", "difference", "difference_low", "difference_high", "p", "note"]
        st.dataframe(after[columns].round(3), hide_index=True, alt="The domain probe behind each transplant.")


def _breakdown(made: Any, arm: str) -> None:
    by = list(dict.fromkeys(made.breakdown["by"]))
    what = st.segmented_control("By", by, default=by[0], required=True, key=state.CMP_BREAK, format_func=str) or by[0]
    rows = made.breakdown[(made.breakdown["by"] == what) & made.breakdown["model"].isin(["base", "donor", arm])]
    wide = rows.pivot(index="value", columns="model", values="eer")
    counts = rows[rows["model"] == "base"].set_index("value")[["n_bonafide", "n_spoof", "reason"]]
    order = [name for name in ("base", "donor", arm) if name in wide]
    st.dataframe(
        counts.join((100 * wide[order]).round(2).add_suffix(" EER, %")).reset_index(names=what), hide_index=True,
        alt=f"EER of base, donor and the transplant by {what}.",
    )  # fmt: skip
    st.caption(
        "A codec brings its own bona fide clips." if what == "domain" else "Each attack meets all bona fide clips."
    )


def _table(summary: pd.DataFrame, arms: pd.DataFrame, arm: str) -> None:
    """Every model: its error rates, its probe, what it costs; a row that is clicked is the transplant on show."""
    rows = compare_words.table(arms)
    names = list(arms["model"])

    def picked() -> None:
        chosen = st.session_state[state.CMP_TABLE].selection.rows
        if chosen and names[chosen[0]] not in ("base", "donor"):
            st.session_state[state.CMP_ARM] = names[chosen[0]]

    st.dataframe(
        rows, hide_index=True, height=320, key=state.CMP_TABLE, on_select=picked, selection_mode="single-row",
        alt="Every model with its error rates, intervals, domain probe, and what it needs at inference.",
    )  # fmt: skip


# ---- listening -------------------------------------------------------------------------------------------------------


def _clips(shown: ShownComparison, known: Mapping[str, Clip], arm: str, rate: int) -> None:
    table = shown.clips(dict(known), arm)
    if table.empty:
        st.info("The run's clips are not in the manifest that is set now, so there is nothing to hear.")
        return
    st.markdown(f"**Clips whose score moved most**: {md(arm)}")
    ids = list(table.index)

    def picked() -> None:
        chosen = st.session_state[state.CMP_CLIPS].selection.rows
        if chosen and chosen[0] < len(ids):
            st.session_state[state.CMP_CLIP] = ids[chosen[0]]

    st.dataframe(
        table.reset_index().round(3), hide_index=True, height=212, key=state.CMP_CLIPS, on_select=picked,
        selection_mode="single-row", alt="Clips by how far the transplant moves their score.",
        column_config={"moved": st.column_config.NumberColumn("moved (nats)")},
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        chosen = st.selectbox("Clip", ids, key=state.CMP_CLIP, bind=state.BOUND)
        clip = known[chosen if chosen in ids else ids[0]]
        beside = [other for other in _related(shown, clip, known)]
        other = st.selectbox("Beside it", [c.clip_id for c in beside], key=state.CMP_BESIDE) if beside else None
    pair = [clip, *[c for c in beside if c.clip_id == other]]
    a, *b = (clip_audio.player_clip(c, compare_words.heard(shown.result, c), rate) for c in pair)
    ab_player(a, b[0] if b else None, key=state.CMP_PLAYER)


def _related(shown: ShownComparison, clip: Clip, known: Mapping[str, Clip]) -> list[Clip]:
    """Other versions of the same utterance."""
    column = shown.result.findings["columns"]["group"]
    group = clip.label(column) if column else None
    if group is None:
        return []
    return [c for c in known.values() if c.label(column) == group and c.clip_id != clip.clip_id]


def _export(shown: ShownComparison) -> None:
    made = shown.result
    with st.popover("Export", icon=":material/download:"):
        st.caption("Tables of the run, as in its folder.")
        with st.container(horizontal=True):
            for name in ("summary", "cka", "scores", "probes", "breakdown"):
                frame: pd.DataFrame = getattr(made, name)
                if len(frame):
                    st.download_button(
                        f"{name} CSV", export.csv(frame), f"compare-{name}.csv", "text/csv", on_click="ignore",
                        key=f"cmp-export-{name}",
                    )  # fmt: skip
        st.caption("The command that repeats it.")
        st.code(compare_words.command(request_from_config(made.config)), language="bash", wrap_lines=True)
        if shown.folder is not None and shown.source == "folder":
            st.caption("Its folder:")
            st.code(str(shown.folder), language=None, wrap_lines=True)
