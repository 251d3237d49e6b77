"""The patching page's view of a run: curve, selected layer, the pairs there, the selected pair. Numbers come from the
run or from the engine; here they are only placed.

A click on a layer reruns this and nothing else, and asks the model nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from matplotlib.figure import Figure
from streamlit.delta_generator import DeltaGenerator

from components import form, page_style, state
from components.export import Drawn, facts
from components.guard import readable_errors
from components.patching import by_hand, edits, explain, heads, later, pair_panel, stated, subspaces, time_map
from components.patching.answers import clips_by_id, prompt_names
from components.patching.curve import DELTAS, IN_WORDS, RATES, VIEWS, draw_curve
from components.patching.pair_panel import Look
from components.patching.results import Indexed, indexed
from components.player import clip_audio
from components.shown import Shown
from components.widgets import choice, choosing, halves, picking_table, stepped, steps_row
from components.words import layer_of, layer_text, layer_title, md, option, share
from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.figures import sign
from interp_core.experiments.patching import figures
from interp_core.experiments.patching.one_pair import flipped
from interp_core.experiments.patching.plan import fitting
from interp_core.experiments.patching.request import MAPS, PatchRequest
from interp_core.experiments.patching.subspace_figures import subspace_figure
from interp_core.experiments.wording import p_said
from interp_core.models.subject import Subject

SITES = ("resid_post", "attn_out", "mlp_out", "head_out", "cross_out", "cross_head_out")
POSITIONS = ("audio", "question", "last", "all")


def offers(subject: Subject, usual: PatchRequest) -> form.Offers:
    """Sites, spans, controls and curves that mean something for the open model."""
    controls, flow = fitting(subject)
    return {
        "site": form.Open(site for site in SITES if site in subject.kinds),
        "positions": form.Open(span for span in POSITIONS if span in subject.spans),
        "controls": controls,
        "flow": flow,
        "donor_state": form.Open(("mean", *(f"mean:{label}" for label in usual.labels))),
        "maps": MAPS if subject.timed and not subject.whole_only else (),
    }


def explore(shown: Shown, request: PatchRequest, subject: Subject) -> Drawn:
    """Draw the run and everything that can be clicked in it."""
    _check(shown, subject)
    explain.by_construction(shown)
    explain.donor(shown)
    index = indexed(shown)
    names = prompt_names(request.model, index.prompts)
    place = _places(state.presenting())
    with place.controls:
        kind, prompt, view, measure, strength = _choose_curve(index, names)
        head = heads.choose(index, kind, prompt) if view == heads.VIEW else None
    with place.layer:
        layer = _choose_layer(index)
    with place.chooser:
        pair_id = _choose_pair(index, kind)
    look = Look(kind, prompt, names[prompt], view, measure, strength, layer, pair_id, head)
    with place.pair, readable_errors():  # before the curve: its text is there first
        pair_panel.draw(shown, request, subject, look, verdict=place.verdict, player=place.player)
        heads.of_pair(shown, request, look, under_player=place.player)
    with place.curve:
        figure = draw_curve(shown, index, look)
    with place.below:
        _layer_summary(index, look)
        edits.say(index, look.kind, look.prompt, look.strength, look.layer)
        conditions = index.metrics(kind, prompt, strength)["condition"]
        said = {*conditions} if view == "Flip rate" else set()
        explain.words(kind, index.prompts[prompt], measure, said, index.means)
        clips = pair_panel.clips_of(shown, request)
        _pairs_at_layer(index, look, clips)
        time_map.over_pairs(index, kind, pair_id)
        edits.over_pairs(index)
        later.over_clips(index, prompt, clips)
        stated.over_clips(index, prompt, clips)
        explain.numbers(index, kind, prompt, strength)
        explain.computed(shown, index)
        explain.limits()
    by_hand.fold(pair_panel.run_request(shown, request), subject, clips, request)
    return _drawn(shown, request, index, names, look, figure)


def without_run(request: PatchRequest, subject: Subject) -> None:
    """Where there is no run: any two clips by hand, which need neither a run nor labels."""
    by_hand.fold(request, subject, clips_by_id(request), request)


LISTED = ["recipient", "donor", "base_prediction", "patched_prediction", "target", "donor_prediction"]
"""Of a record, what its row among the pairs at a layer says."""


ON_PAPER = ("Flip rate", "Logit change")
"""Views that have a figure of their own for paper, with all questions; of the others it is what is on screen."""


@dataclass(frozen=True)
class _Places:
    """Where each part of the view stands."""

    controls: DeltaGenerator
    curve: DeltaGenerator
    layer: DeltaGenerator
    chooser: DeltaGenerator
    verdict: DeltaGenerator
    player: DeltaGenerator
    pair: DeltaGenerator
    below: DeltaGenerator


def _places(presenting: bool) -> _Places:
    """Curve and pair beside each other; before an audience verdict, curve, player, then the rest."""
    if presenting:
        verdict, curve, player, chooser, layer, controls, below, pair = (st.container() for _ in range(8))
        return _Places(controls, curve, layer, chooser, verdict, player, pair, below)
    controls = st.container()
    left, right = halves("patching", (1.2, 1))
    curve, layer, below = left.container(), left.container(), left.container(key=page_style.LAST)
    chooser, verdict = right.container(), right.container(key=page_style.FIRST)
    player, pair = right.container(), right.container()
    return _Places(controls, curve, layer, chooser, verdict, player, pair, below)


def _drawn(
    shown: Shown, request: PatchRequest, index: Indexed, names: list[str], look: Look, figure: go.Figure
) -> Drawn:
    """The figure on screen for its export; on paper all questions of the run stand beside each other."""
    donor = [f"donor: {index.donor}"] if index.means else []
    title = f"{look.view} · question: {look.prompt_name} · {look.kind} pairs"

    def signed() -> str:
        return facts(shown, *donor, n=shown.result.of_kind(look.kind))()

    def subspace() -> Figure:
        return sign(subspace_figure(shown.result.subspace_of(look.kind), shown.result.heading(look.kind)), signed())

    def picture() -> Figure:
        of_kind = shown.result.metrics[shown.result.metrics["kind"] == look.kind]
        delta = look.view == "Logit change"
        heading, draw = f"{look.view} · {look.kind} pairs", figures.flip_rate_figure
        return sign((figures.delta_logit_figure if delta else draw)(of_kind, heading, names), signed())

    own = {subspaces.VIEW: subspace, **dict.fromkeys(ON_PAPER, picture)}
    row = index.outcome(look.pair_id, look.kind, look.prompt, look.strength, look.layer)
    pair = None if row is None else pair_panel.on_paper(shown, request, look, row)
    return Drawn(figure, title, signed, f"{look.kind}-{look.view}", own.get(look.view), pair)


def _check(shown: Shown, subject: Subject) -> None:
    """Say so where the run on show was made with other weights than those that are open; InterpError if it is empty."""
    if not shown.result.records.size or not shown.result.pairs:
        raise InterpError("the run holds no pairs; run it again.")
    if shown.weights_hash != subject.weights_hash:
        st.warning(
            f"The run on show was made with other weights ({md(shown.weights_hash[:12])}) than those that are open "
            f"({md(subject.weights_hash[:12])}): patches by hand will not agree with it. Run it again."
        )


# ---- selection: the widgets are called before what they decide is drawn ---------------------------------------------


def _choose_curve(index: Indexed, names: list[str]) -> tuple[str, int, str, str, float]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        kind = state.shared(
            st.segmented_control,
            "Pairs",
            index.kinds,
            default=index.kinds[0],
            required=True,
            format_func=option,
            key=state.KIND,
            on_change=state.select_kind_with(index.best_pair),
            help="prosody: same words, another voice. semantic: same voice, other words.",
        )
        name = names[0]
        if index.prompts != ("",):  # a model that is asked nothing has no question to choose
            name = choice(
                "Question",
                names,
                key=state.PROMPT,
                format_func=option,
                help="\n\n".join(f"{md(n)}: {md(text)}" for n, text in zip(names, index.prompts, strict=True)),
            )
        views = [*VIEWS, *([IN_WORDS] if len(index.result.words_moved) else [])]
        views += [subspaces.VIEW] if len(index.result.subspace) else []
        views += [edits.VIEW] if edits.has_curve(index) else []
        view = st.selectbox("View", views, key=state.VIEW, bind=state.BOUND, width=175)
        measure = ""
        if view == subspaces.VIEW:
            measure = st.selectbox(
                "Measured by", list(subspaces.MEASURES), key=state.MEASURE, bind=state.BOUND, width=175
            )
        if view in ("Flip rate", "Dose-response", "Logit change", edits.VIEW):
            options = list({"Logit change": DELTAS, edits.VIEW: edits.MEASURES}.get(view, RATES))
            measure = st.selectbox(
                "Pairs counted" if options[0] in RATES else "Measured in",
                options,
                key=state.MEASURE,
                bind=state.BOUND,
                width=150,
                help="reachable: the answer is not yet the target, and B itself gets it. eligible: not yet the target."
                if options[0] in RATES
                else "logits: how far they move along the way that the whole model's move. flips: pairs whose answer "
                "becomes B's."
                if view == edits.VIEW
                else "Log-probability is among the answer words: a shift common to all of them cancels.",
            )
        strength = index.alphas[0]
        if len(index.alphas) > 1 and view != "Dose-response":
            texts = [f"{alpha:g}" for alpha in index.alphas]
            chosen = st.selectbox("Strength", texts, key=state.STRENGTH, bind=state.BOUND, width=90)
            strength = index.alphas[texts.index(chosen)]
    return kind or index.kinds[0], names.index(name) if name in names else 0, view or VIEWS[0], measure, strength


def _choose_layer(index: Indexed) -> int:
    texts = [layer_text(layer) for layer in index.layers]
    helps = ("one layer down", "one layer up")
    return layer_of(stepped("Layer", texts, layer_text(index.best_layer), key=state.LAYER, helps=helps, name="layer"))


def _choose_pair(index: Indexed, kind: str) -> str:
    ids = index.pairs(kind)

    def step(by: int) -> None:
        st.session_state[state.PAIR] = ids[(ids.index(st.session_state[state.PAIR]) + by) % len(ids)]

    with steps_row("pair", vertical_alignment="bottom"):
        chosen = state.shared(
            st.selectbox, f"Pair, of {len(ids)}", ids, key=state.PAIR, index=ids.index(index.best_pair[kind]),
            label_visibility="collapsed",
        )  # fmt: skip
        st.button("‹", key="pair-before", on_click=step, args=(-1,), shortcut="p", help="previous pair")
        st.button("›", key="pair-after", on_click=step, args=(1,), shortcut="n", help="next pair")
    return chosen if chosen in ids else index.best_pair[kind]


def _layer_summary(index: Indexed, look: Look) -> None:
    """The selected layer in a sentence."""
    matched = index.row(look.kind, look.prompt, look.strength, "matched", look.layer)
    if matched is None:
        return
    text = f"**{layer_title(look.layer)}**: "
    if not matched["eligible_count"]:
        st.markdown(f"{text}no pair is eligible, since every A answers the target already.")
        return
    rate, count, counted = "flip_to_target_rate_reachable", "reachable_count", "the reachable pairs"
    if not matched[count]:
        rate, count, counted = "flip_to_target_rate_eligible", "eligible_count", "the eligible pairs"
        text += "no pair is reachable; "
    text += f"{share(matched, rate, count)} of {counted} flip to the target"
    low, high = matched[f"{rate}_low"], matched[f"{rate}_high"]
    if low == low and high == high:
        text += f", 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    random = index.row(look.kind, look.prompt, look.strength, "random", look.layer)
    if random is not None:
        other = "the mean of another class" if index.means else "a random donor"
        text += f"; with {other} {share(random, rate, count)}"
    p = matched["p_adjusted"]
    if p == p:
        text += f"; over all pairs adjusted {p_said(p)}"
    st.markdown(f"{text}.")


def _pairs_at_layer(index: Indexed, look: Look, clips: Mapping[str, Clip]) -> None:
    """The pairs at the selected layer; a row that is clicked becomes the selected pair."""
    rows = index.at_layer(look.kind, look.prompt, look.strength, look.layer)[LISTED]
    flips = flipped(rows)
    only = choice("Pairs at this layer", ["flipping", "all"], key=state.ONLY_FLIPS, label_visibility="collapsed")
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
            "hear A": clip_audio.urls(listed["recipient"], clips),
            "hear B": clip_audio.urls(listed["donor"], clips),
            "A alone": listed["base_prediction"].to_numpy(),
            "patched": listed["patched_prediction"].to_numpy(),
            "target": listed["target"].to_numpy(),
            "B alone": listed["donor_prediction"].to_numpy(),
            "A": listed["recipient"].to_numpy(),
            "B": listed["donor"].to_numpy(),
        }
    )
    picking_table(
        table,
        list(listed.index),
        choosing(state.PAIR),
        key=state.FLIP_TABLE,
        height=250,
        column_config={**clip_audio.hear("hear A"), **clip_audio.hear("hear B")},
        empty="No pair flips to the target here. Choose “all” to see every pair, or click another layer.",
        alt="Pairs at the selected layer: answer before and after the patch, target, and the donor's own answer.",
    )
