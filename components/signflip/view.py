"""The Sign flip page's view of a run: the matrix, the curve behind one edited layer, and the clips that changed.

A click on a cell reruns this and asks the model nothing.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import form, server, state
from components.charts import clicks, heatmap
from components.export import Drawn, facts
from components.guard import readable_errors
from components.player import clip_audio
from components.player.ab_player import ab_player
from components.shown import Shown
from components.signflip import charts as signflip_charts
from components.widgets import OF_CLIPS, choice, choosing, chosen_of, halves, picking_table, stepped
from components.words import answer_badge, md
from interp_core.experiments.answers import head_labels, question
from interp_core.experiments.signflip.layers import check_subject
from interp_core.experiments.signflip.limits import LIMITS
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.experiments.signflip.run import SignflipResult
from interp_core.experiments.signflip.tables import OUTPUT
from interp_core.experiments.wording import p_said
from interp_core.models.bundled import demo_of
from interp_core.models.subject import Subject

PROXIES = signflip_charts.PROXIES
REAL = {"rms": "RMS", "zero_crossing_rate": "zero-crossing rate", "spectral_centroid_hz": "spectral centroid"}


def suits(subject: Subject, usual: SignflipRequest) -> None:
    """InterpError for a model without frames in time, or without answers."""
    check_subject(subject)
    _labels(subject, usual)


def offers(subject: Subject, usual: SignflipRequest) -> form.Offers:
    """The head's labels, and the columns of the clips."""
    columns = sorted({name for clip in server.engine().manifest(usual).clips for name in clip.labels})
    return {"target": _labels(subject, usual), "task": columns, "units": columns}


def _labels(subject: Subject, usual: SignflipRequest) -> tuple[str, ...]:
    """The labels that the head answers."""
    demo = demo_of(usual.model)
    wanted = usual.labels or (demo.labels if demo is not None else ())
    values = {value for clip in server.engine().manifest(usual).clips for value in clip.labels.values()}
    return head_labels(subject, wanted, usual.prompt or question(subject, usual.model), {*values}, ()).labels


def explore(shown: Shown, asked: SignflipRequest, subject: Subject) -> Drawn:
    """Draw the run and everything that can be clicked in it."""
    result: SignflipResult = shown.result
    left, right = halves("signflip", (1.2, 1))
    with left:
        controls = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
        plots = st.container()
        with controls:
            proxy, flipped, measured = _choose(result)
    with right, readable_errors():
        _effect(result, flipped)
        _clips(shown, asked, subject, flipped)
    with plots:
        figure = _plots(result, proxy, flipped, measured)
    with left, readable_errors():
        _acoustic(result)
        _neurons(result, flipped)
        with st.expander("What a flip can show, and what it cannot", icon=":material/info:"):
            st.markdown(LIMITS)
    kind = result.config["settings"]["kind"]
    marked = signflip_charts.place_name(measured)
    title = f"{PROXIES[proxy]} behind a {kind} in layer {flipped}; marked: measured at {marked}"
    return Drawn(figure, title, facts(shown, str(result.report["target"])), f"{proxy}-L{flipped}")


def _choose(result: SignflipResult) -> tuple[str, int, int]:
    chosen = st.selectbox("Measure", list(PROXIES.values()), key=state.SF_PROXY, bind=state.BOUND, width=170)
    proxy = next((name for name, text in PROXIES.items() if text == chosen), "rms")
    layers = [str(layer) for layer in result.report["layers"]]
    flipped = stepped(
        "Edited layer", layers, layers[0], key=state.SF_FLIPPED, helps=("one layer down", "one layer up"), name="sf",
        width=100,
    )  # fmt: skip
    names = [signflip_charts.place_name(place) for place in signflip_charts.places(result.report)]
    at = st.selectbox("Measured at", names, index=len(names) - 1, key=state.SF_AT, bind=state.BOUND, width=100)
    place = OUTPUT if at in (None, "out") else int(at)
    return proxy, int(flipped), place


def _plots(result: SignflipResult, proxy: str, flipped: int, measured: int) -> go.Figure:
    rows, columns = result.report["layers"], signflip_charts.places(result.report)

    def on_cell(cell: tuple[int, int]) -> None:
        st.session_state[state.SF_FLIPPED] = str(rows[cell[0]])
        st.session_state[state.SF_AT] = signflip_charts.place_name(columns[cell[1]])

    heatmap.show(
        signflip_charts.matrix(result.changes, result.report, proxy, (flipped, measured)),
        key=state.SF_MATRIX,
        alt=f"{PROXIES[proxy]}: relative change, edited layer by measured layer.",
        on_cell=on_cell,
    )
    st.markdown(_reading(result, proxy, flipped, measured))
    figure = signflip_charts.curve(result.changes, result.report, proxy, flipped, measured)

    def clicked(place: int) -> None:
        if place in columns:
            st.session_state[state.SF_AT] = signflip_charts.place_name(place)

    clicks.show(
        figure, key=state.SF_CURVE, on_click=clicked,
        alt=f"{PROXIES[proxy]} at every layer behind the edit in layer {flipped}.",
    )  # fmt: skip
    return figure


def _reading(result: SignflipResult, proxy: str, flipped: int, measured: int) -> str:
    """The selected cell in a sentence."""
    rows = result.changes
    here = rows[(rows["proxy"] == proxy) & (rows["flipped"] == flipped) & (rows["measured"] == measured)]
    where = "at the output" if measured == OUTPUT else f"at layer {measured}"
    if not len(here):
        return f"Layer {flipped} edited, measured {where}: that is before the edit, where nothing can change."
    row = here.iloc[0]
    text = f"Layer {flipped} edited, **{PROXIES[proxy]}** {where}: "
    if row["by_construction"]:
        return f"{text}**0 by construction**."
    error = f"standard error {_percent(row['se'])} over {int(row['n_units'])} units"
    text += f"changes by {_percent(row['change'])} ({error})"
    if row["random_mean"] == row["random_mean"]:
        text += f"; random neurons {_percent(row['random_mean'])}, {p_said(row['p_random'])}"
    if proxy == "zcr" and measured == flipped:
        again = rows[(rows["proxy"] == "zcr_refit") & (rows["flipped"] == flipped)].iloc[0]
        said = "0 by construction" if again["by_construction"] else _percent(float(again["change"]))
        text += f". Along the component of the unedited clip; along a refitted one: {said}"
    return f"{text}."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _effect(result: SignflipResult, flipped: int) -> None:
    report, settings = result.report, result.config["settings"]
    frames = "its loudest frame" if settings["frames"] == "max" else "all frames"
    st.markdown(
        f"**{md(settings['kind'])}** of the {md(report['topk'])} of {md(report['width'])} neurons of layer {flipped:d} "
        f"that matter most for **{md(report['target'])}**, each at {frames}. Attributed on "
        f"{md(report['attributed_on']['clips'])} clips, measured on "
        f"{md(report['measured_on']['clips'])}; head: {md(report['head'])}."
    )
    rows = result.effects[result.effects["flipped"] == flipped].set_index("condition")
    lines = [f"| neurons | P({md(report['target'])}) | answers that change | accuracy |", "|---|---|---|---|"]
    for name, text in (("top", "these"), ("random", "random, mean")):
        if name in rows.index:
            row = rows.loc[name]
            change = f"{row['target_probability_change']:+z.3f} ± {row['target_probability_change_se']:.3f}"
            accuracy = f"{100 * row['base_accuracy']:.0f} → {100 * row['accuracy']:.0f} %"
            lines.append(f"| {text} | {change} | {100 * row['changed_rate']:.0f} % | {accuracy} |")
    st.markdown("\n".join(lines))


def _clips(shown: Shown, asked: SignflipRequest, subject: Subject, flipped: int) -> None:
    """The clips whose answer changed; one that is clicked can be heard."""
    result: SignflipResult = shown.result
    rows = result.clips[result.clips["flipped"] == flipped]
    moved = rows["base"] != rows["answer"]
    only = choice("Clips", ["changed", "all"], key=state.SF_ONLY, label_visibility="collapsed")
    listed = rows[moved] if only != "all" else rows
    change = listed["target_probability"] - listed["base_target_probability"]
    table = pd.DataFrame(
        {
            "clip": listed["clip_id"],
            "true": listed["label"],
            "unedited": listed["base"],
            "edited": listed["answer"],
            f"P({result.report['target']})": change.map("{:+z.3f}".format),
        }
    )
    ids = listed["clip_id"].tolist()
    clips = {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
    table.insert(1, "hear", clip_audio.urls(ids, clips))
    chosen = chosen_of(state.SF_CLIP, clips.keys() & set(rows["clip_id"]), [*ids, *rows["clip_id"]])
    picking_table(
        table, ids, choosing(state.SF_CLIP), key=state.SF_CLIPS, height=250, column_config=clip_audio.hear(),
        caption=f"{int(moved.sum())} of {len(rows)} answers change with layer {flipped} edited. Click one to hear it.",
        now=chosen, keys=OF_CLIPS,
        empty="No answer changes. Choose “all” to hear every clip, or edit another layer.",
        alt="Clips whose answer changes when the neurons are edited.",
    )  # fmt: skip
    if chosen is None:
        return
    row = rows[rows["clip_id"] == chosen].iloc[0]
    st.markdown(
        f"**{md(chosen)}**: truly {md(row['label'] or '?')}; unedited :blue-badge[{md(row['base'])}] → edited "
        f"{answer_badge(row['answer'], row['base'])}"
    )
    ab_player(clip_audio.player_clip(clips[chosen], chosen, subject.sample_rate), key=state.SF_PLAYER)


def _acoustic(result: SignflipResult) -> None:
    with st.expander("Are they acoustic at all?", icon=":material/hearing:"):
        st.caption("Rank correlation over unedited clips of each measure with what it is named after.")
        links = result.links.assign(
            place=[signflip_charts.place_name(layer) for layer in result.links["layer"]],
            what=[
                f"{PROXIES[str(proxy)]} ~ {REAL[str(real)]}"
                for proxy, real in zip(result.links["proxy"], result.links["quantity"], strict=True)
            ],
        )
        table = links.pivot(index="what", columns="place", values="rho")
        order = [signflip_charts.place_name(place) for place in signflip_charts.places(result.report)]
        st.dataframe(table[order].map(lambda v: "–" if v != v else f"{v:+z.2f}"), alt="Correlations by layer.")
        few, many = int(result.links["n"].min()), int(result.links["n"].max())
        st.caption(f"n = {few if few == many else f'{few} to {many}'} clips.")


def _neurons(result: SignflipResult, flipped: int) -> None:
    with st.expander("The neurons, and all numbers", icon=":material/table:"):
        top = result.top[result.top["layer"] == flipped]
        st.dataframe(top, hide_index=True, height=220, alt="The attributed neurons of the edited layer.")
        st.dataframe(result.changes, hide_index=True, height=260, alt="Changes of all measures.")
