"""The patching page's view of a run: curve, selected layer, the pairs there, the selected pair. Numbers come from the
run or from the engine; here they are only placed.

All of it is one fragment: a click on a layer reruns this and nothing else, and asks the model nothing.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import charts, explain, export, pair_panel, state
from components.guard import readable_errors
from components.pair_panel import CHART_CONFIG, Look
from components.results import Indexed, Shown, flipped
from components.words import layer_of, layer_text, layer_title, md, share
from interp_core.errors import InterpError
from interp_core.models.subject import Subject
from interp_core.request import PatchRequest

VIEWS = ("Flip rate", "Logit change", "Recovered", "Information flow", "Dose-response")
RATES = {
    "reachable": "flip_to_target_rate_reachable",
    "eligible": "flip_to_target_rate_eligible",
    "all pairs": "flip_to_target_rate",
    "any change": "flip_from_base_rate",
}
DELTAS = {
    "log-probability": "delta_logprob_target_mean",
    "logit": "delta_logit_target_mean",
    "target − own": "delta_logit_diff_mean",
}


@st.fragment
def explore(shown: Shown, request: PatchRequest, subject: Subject) -> None:
    """Draw the run and everything that can be clicked in it."""
    with readable_errors():
        explain.by_construction(shown)
        index = shown.index
        names = state.prompt_names(request.model, index.prompts)
        kind, prompt, view, measure, strength = _choose_curve(index, names)
        left, right = st.columns([1.3, 1], gap="medium")
        with left:
            slot = st.container()
            layer = _choose_layer(index)
        with right:
            pair_id = _choose_pair(index, kind)
        look = Look(kind, prompt, names[prompt], view, measure, strength, layer, pair_id)
        with right, readable_errors():  # before the curve: its text is there first
            pair_panel.draw(shown, request, subject, look)
        with slot:
            figure = _curve(index, look)
        with left:
            _layer_summary(index, look)
            st.caption(explain.provenance(shown, shown.weights_hash == subject.weights_hash))
            _pairs_at_layer(index, look)
            with st.container(horizontal=True):
                export.menu(shown, kind, prompt, names[prompt], view, figure)
            explain.numbers(index, kind, prompt, strength)
            explain.computed(shown)
            explain.limits()


# ---- selection: the widgets are called before what they decide is drawn ---------------------------------------------


def _choose_curve(index: Indexed, names: list[str]) -> tuple[str, int, str, str, float]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        kind = state.shared(
            st.segmented_control,
            "Pairs",
            index.kinds,
            default=index.kinds[0],
            required=True,
            key=state.KIND,
            on_change=state.select_kind_with(index.best_pair),
            help="prosody: same words, another voice. semantic: same voice, other words.",
        )
        name: str | None = names[0]
        if index.prompts != ("",):  # a model that is asked nothing has no question to choose
            name = st.segmented_control(
                "Question",
                names,
                default=names[0],
                required=True,
                key=state.PROMPT,
                bind=state.BOUND,
                help="\n\n".join(f"{md(n)}: {md(text)}" for n, text in zip(names, index.prompts, strict=True)),
            )
        view = st.selectbox("View", VIEWS, key=state.VIEW, bind=state.BOUND, width=175)
        measure = ""
        if view in ("Flip rate", "Dose-response", "Logit change"):
            options = list(DELTAS if view == "Logit change" else RATES)
            measure = st.selectbox(
                "Pairs counted" if view != "Logit change" else "Measured in",
                options,
                key=state.MEASURE,
                bind=state.BOUND,
                width=150,
                help="reachable: the answer is not yet the target, and B itself gets it. eligible: not yet the target."
                if view != "Logit change"
                else "Log-probability is among the answer words: a shift common to all of them cancels.",
            )
        strength = index.alphas[0]
        if len(index.alphas) > 1 and view != "Dose-response":
            texts = [f"{alpha:g}" for alpha in index.alphas]
            chosen = st.selectbox("Strength", texts, key=state.STRENGTH, bind=state.BOUND, width=90)
            strength = index.alphas[texts.index(chosen)]
    return kind or index.kinds[0], state.short_of(names, name), view or VIEWS[0], measure, strength


def _choose_layer(index: Indexed) -> int:
    texts = [layer_text(layer) for layer in index.layers]

    def step(by: int) -> None:
        at = texts.index(st.session_state[state.LAYER]) + by
        st.session_state[state.LAYER] = texts[min(max(at, 0), len(texts) - 1)]

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button("‹", key="layer-down", on_click=step, args=(-1,), shortcut="j", help="one layer down")
        chosen = st.select_slider("Layer", texts, value=layer_text(index.best_layer), key=state.LAYER, bind=state.BOUND)
        st.button("›", key="layer-up", on_click=step, args=(1,), shortcut="k", help="one layer up")
    return layer_of(chosen) if chosen in texts else index.best_layer


def _choose_pair(index: Indexed, kind: str) -> str:
    ids = index.pairs(kind)

    def step(by: int) -> None:
        st.session_state[state.PAIR] = ids[(ids.index(st.session_state[state.PAIR]) + by) % len(ids)]

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        chosen = state.shared(
            st.selectbox, f"Pair, of {len(ids)}", ids, key=state.PAIR, index=ids.index(index.best_pair[kind])
        )
        st.button("‹", key="pair-before", on_click=step, args=(-1,), shortcut="p", help="previous pair")
        st.button("›", key="pair-after", on_click=step, args=(1,), shortcut="n", help="next pair")
    return chosen if chosen in ids else index.best_pair[kind]


# ---- the curve ------------------------------------------------------------------------------------------------------


def _curve(index: Indexed, look: Look) -> go.Figure:
    """Draw what the view asks for; the first figure takes clicks where its axis is the layer."""
    metrics = index.metrics(look.kind, look.prompt, look.strength)
    lens, knockout = index.lens(look.kind, look.prompt), index.knockout(look.kind, look.prompt)
    column, layer = "flip_to_target_rate_reachable", look.layer
    if look.view == "Dose-response":
        column = RATES[look.measure]
        figure = charts.dose_response(index.doses(look.kind, look.prompt), layer, value=column)
        _show(figure, index, alt=f"Dose-response at {layer_title(layer)}: {column} against the strength alpha.")
        if len(index.alphas) == 1:
            st.caption("This run has one strength; add more under Settings and run. One pair by hand: on the right.")
        return figure
    if look.view == "Logit change":
        column = DELTAS[look.measure]
        figure = charts.delta_curve(metrics, column, selected_layer=layer, flow=())
    elif look.view == "Recovered":
        column = "recovered"
        figure = charts.delta_curve(metrics, column, selected_layer=layer, flow=())
    elif look.view == "Information flow":
        figure = charts.flip_curve(metrics, selected_layer=layer, controls=(), lens=lens if len(lens) else None)
    else:
        column = RATES[look.measure]
        figure = charts.flip_curve(metrics, selected_layer=layer, rate=column, flow=())
    _show(figure, index, alt=charts.alt_text(metrics, rate=column, selected_layer=layer), clickable=True)
    if look.view == "Information flow" and len(knockout):
        st.markdown("**Necessity**: which answers change when nobody may read the audio in a window of layers")
        _show(
            charts.knockout_curve(knockout, selected_layer=layer),
            index,
            alt="Changed answers when the audio may not be read in a window of layers.",
            key="knockout",
            clickable=True,
        )
    return figure


def _show(figure: go.Figure, index: Indexed, *, alt: str, key: str = state.CURVE, clickable: bool = False) -> None:
    def clicked() -> None:
        layer = charts.clicked_layer(st.session_state[key].selection.points)
        if layer in index.layers:  # nothing selected is a second click on the same point: no change
            st.session_state[state.LAYER] = layer_text(layer)

    st.plotly_chart(
        figure,
        theme="streamlit",
        key=key,
        on_select=clicked if clickable else "ignore",
        selection_mode="points",
        config=CHART_CONFIG,
        alt=alt,
    )


def _layer_summary(index: Indexed, look: Look) -> None:
    """The selected layer in a sentence."""
    matched = index.row(look.kind, look.prompt, look.strength, "matched", look.layer)
    if matched is None:
        return
    rate = "flip_to_target_rate_reachable"
    flips = share(matched, rate, "reachable_count")
    text = f"**{layer_title(look.layer)}**: {flips} of the reachable pairs flip to the target"
    low, high = matched[f"{rate}_low"], matched[f"{rate}_high"]
    if low == low and high == high:
        text += f", 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    random = index.row(look.kind, look.prompt, look.strength, "random", look.layer)
    if random is not None:
        text += f"; with a random donor {share(random, rate, 'reachable_count')}"
    p = matched["p_adjusted"]
    text += "." if p != p else "; adjusted p < 0.001." if p < 0.001 else f"; adjusted p = {p:.3f}."
    st.markdown(text)


def _pairs_at_layer(index: Indexed, look: Look) -> None:
    """The pairs at the selected layer; a row that is clicked becomes the selected pair."""
    rows = index.at_layer(look.kind, look.prompt, look.strength, look.layer)
    flips = flipped(rows)
    only = st.segmented_control(
        "Pairs at this layer",
        ["flipping", "all"],
        default="flipping",
        required=True,
        key=state.ONLY_FLIPS,
        bind=state.BOUND,
        format_func=str,
        label_visibility="collapsed",
    )
    listed = (
        rows[flips] if only != "all" else rows.assign(flips=flips).sort_values("flips", ascending=False, kind="stable")
    )
    st.caption(
        f"{int(flips.sum())} of {len(rows)} pairs flip to the target at {layer_title(look.layer).lower()}. "
        "Click one to hear it."
    )
    table = pd.DataFrame(
        {
            "pair": listed.index,
            "A alone": listed["base_prediction"].to_numpy(),
            "patched": listed["patched_prediction"].to_numpy(),
            "target": listed["target"].to_numpy(),
            "B alone": listed["donor_prediction"].to_numpy(),
            "A": listed["recipient"].to_numpy(),
            "B": listed["donor"].to_numpy(),
        }
    )
    ids = list(listed.index)

    def picked() -> None:
        chosen = st.session_state[state.FLIP_TABLE].selection.rows
        if chosen and chosen[0] < len(ids):
            st.session_state[state.PAIR] = ids[chosen[0]]

    st.dataframe(
        table,
        hide_index=True,
        height=250,
        key=state.FLIP_TABLE,
        on_select=picked,
        selection_mode="single-row",
        alt="Pairs at the selected layer: answer before and after the patch, target, and the donor's own answer.",
    )


def check_shown(shown: Shown, subject: Subject) -> None:
    """Say so where the run on show was made with other weights than those that are open; InterpError if it is empty."""
    if not shown.result.records.size or not shown.result.pairs:
        raise InterpError("the run holds no pairs; run it again.")
    if shown.weights_hash != subject.weights_hash:
        st.warning(
            f"The run on show was made with other weights ({shown.weights_hash[:12]}) than those that are open "
            f"({subject.weights_hash[:12]}): patches by hand will not agree with it. Run it again."
        )
