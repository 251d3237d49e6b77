"""The Sign flip page's view of a run: the matrix, the curve behind one edited layer, and the clips that changed.

All of it is one fragment: a click on a cell reruns this and asks the model nothing.
"""

from __future__ import annotations

import shlex

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components import charts, clip_audio, export, heatmap, signflip_charts, state
from components.ab_player import ab_player
from components.guard import readable_errors
from components.neurons_runs import ShownRun, provenance
from components.words import md
from interp_core.doors.signflip import SignflipRequest, SignflipResult, request_from_config
from interp_core.experiments.signflip import OUTPUT
from interp_core.models.subject import Subject

PROXIES = signflip_charts.PROXIES
REAL = {"rms": "RMS", "zero_crossing_rate": "zero-crossing rate", "spectral_centroid_hz": "spectral centroid"}
LIMITS = """
- A norm ignores signs: right at the layer whose neurons are flipped, energy and its modulation **cannot** change, and
  flipping whole dimensions leaves refitted zero crossings alone. Such zeros are marked ≡; they are no finding. What
  can be one stands behind the edited layer, where blocks have mixed the flipped neurons with the rest.
- The measures are taken of a representation, not of a sound. *Are they acoustic?* shows how far each follows what it
  is named after, layer by layer, over unedited clips.
- Random neurons are matched on their mean activation: a change that they make as well is one of size, not of meaning.
- Neurons are attributed on one half of the clips and measured on the other; texts or speakers are never divided.
- A flipped state can be one that the model never meets by itself.
"""


@st.fragment
def explore(shown: ShownRun, asked: SignflipRequest, subject: Subject) -> None:
    """Draw the run and everything that can be clicked in it."""
    with readable_errors():
        result: SignflipResult = shown.result
        left, right = st.columns([1.2, 1], gap="medium")
        with left:
            controls = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
            plots = st.container()
            with controls:
                proxy, flipped, measured = _choose(result)
        with right, readable_errors():
            _effect(result, flipped)
            _clips(shown, asked, subject, flipped)
        with plots, readable_errors():
            figure = _plots(result, proxy, flipped, measured)
        with left, readable_errors():
            st.caption(provenance(shown, subject.weights_hash))
            with st.container(horizontal=True):
                _export(shown, figure, proxy)
            _acoustic(result)
            _neurons(result, flipped)
            with st.expander("What a flip can show, and what it cannot", icon=":material/info:"):
                st.markdown(LIMITS)


def _choose(result: SignflipResult) -> tuple[str, int, int]:
    chosen = st.selectbox("Measure", list(PROXIES.values()), key=state.SF_PROXY, bind=state.BOUND, width=215)
    proxy = next((name for name, text in PROXIES.items() if text == chosen), "rms")
    layers = [str(layer) for layer in result.report["layers"]]
    flipped = st.selectbox("Edited layer", layers, key=state.SF_FLIPPED, bind=state.BOUND, width=100)
    names = [signflip_charts.place_name(place) for place in signflip_charts.places(result.report)]
    at = st.selectbox("Measured at", names, index=len(names) - 1, key=state.SF_AT, bind=state.BOUND, width=100)
    place = OUTPUT if at in (None, "out") else int(at)
    return proxy, int(flipped) if flipped in layers else int(layers[0]), place


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

    def clicked() -> None:
        place = charts.clicked_layer(st.session_state[state.SF_CURVE].selection.points)
        if place in columns:
            st.session_state[state.SF_AT] = signflip_charts.place_name(place)

    st.plotly_chart(
        figure, theme="streamlit", key=state.SF_CURVE, on_select=clicked, selection_mode="points",
        config=heatmap.CHART_CONFIG, alt=f"{PROXIES[proxy]} at every layer behind the edit in layer {flipped}.",
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
        text += f"; random neurons {_percent(row['random_mean'])}, p = {row['p_random']:.2f}"
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
        f"**{settings['kind']}** of the {report['topk']} of {report['width']} neurons of layer {flipped} that matter "
        f"most for **{md(report['target'])}**, each at {frames}. Attributed on {report['attributed_on']['clips']} "
        f"clips, measured on {report['measured_on']['clips']}; head: {md(report['head'])}."
    )
    rows = result.effects[result.effects["flipped"] == flipped].set_index("condition")
    lines = [f"| neurons | P({md(report['target'])}) | answers that change | accuracy |", "|---|---|---|---|"]
    for name, text in (("top", "these"), ("random", "random, mean")):
        if name in rows.index:
            row = rows.loc[name]
            change = f"{row['target_probability_change']:+.3f} ± {row['target_probability_change_se']:.3f}"
            accuracy = f"{100 * row['base_accuracy']:.0f} → {100 * row['accuracy']:.0f} %"
            lines.append(f"| {text} | {change} | {100 * row['changed_rate']:.0f} % | {accuracy} |")
    st.markdown("\n".join(lines))


def _clips(shown: ShownRun, asked: SignflipRequest, subject: Subject, flipped: int) -> None:
    """The clips whose answer changed; one that is clicked can be heard."""
    result: SignflipResult = shown.result
    rows = result.clips[result.clips["flipped"] == flipped]
    moved = rows["base"] != rows["answer"]
    only = st.segmented_control(
        "Clips", ["changed", "all"], default="changed", required=True, key=state.SF_ONLY, bind=state.BOUND,
        label_visibility="collapsed",
    )  # fmt: skip
    listed = rows[moved] if only != "all" else rows
    st.caption(f"{int(moved.sum())} of {len(rows)} answers change with layer {flipped} edited. Click one to hear it.")
    change = listed["target_probability"] - listed["base_target_probability"]
    table = pd.DataFrame(
        {
            "clip": listed["clip_id"],
            "true": listed["label"],
            "unedited": listed["base"],
            "edited": listed["answer"],
            f"P({result.report['target']})": change.map("{:+.3f}".format),
        }
    )
    ids = listed["clip_id"].tolist()

    def picked() -> None:
        chosen = st.session_state[state.SF_CLIPS].selection.rows
        if chosen and chosen[0] < len(ids):
            st.session_state[state.SF_CLIP] = ids[chosen[0]]

    st.dataframe(
        table, hide_index=True, height=250, key=state.SF_CLIPS, on_select=picked, selection_mode="single-row",
        alt="Clips whose answer changes when the neurons are edited.",
    )  # fmt: skip
    clips = {clip.clip_id: clip for clip in state.engine().manifest(asked).clips}
    chosen = st.session_state.get(state.SF_CLIP)
    known = chosen in clips and chosen in set(rows["clip_id"])
    chosen = chosen if known else next((i for i in [*ids, *rows["clip_id"]] if i in clips), None)
    if chosen is None:
        return
    row = rows[rows["clip_id"] == chosen].iloc[0]
    st.markdown(
        f"**{md(chosen)}**: truly {md(row['label'] or '?')}; unedited :blue-badge[{md(row['base'])}] → edited "
        f":violet-badge[{md(row['answer'])}]"
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
        st.dataframe(table[order].map(lambda v: "–" if v != v else f"{v:+.2f}"), alt="Correlations by layer.")
        few, many = int(result.links["n"].min()), int(result.links["n"].max())
        st.caption(f"n = {few if few == many else f'{few} to {many}'} clips.")


def _neurons(result: SignflipResult, flipped: int) -> None:
    with st.expander("The neurons, and all numbers", icon=":material/table:"):
        top = result.top[result.top["layer"] == flipped]
        st.dataframe(top, hide_index=True, height=220, alt="The attributed neurons of the edited layer.")
        st.dataframe(result.changes, hide_index=True, height=260, alt="Changes of all measures.")


def command(request: SignflipRequest) -> str:
    """The command line that runs a request again; settings at their default are left out."""
    settings, usual = request.settings, SignflipRequest("x").settings
    layers = None if settings.layers is None else ",".join(map(str, settings.layers))
    said = [
        ("--model", request.model, None),
        ("--manifest", request.manifest, None),
        ("--target", settings.target, ""),
        ("--topk", settings.topk, None),
        ("--frames", settings.frames, usual.frames),
        ("--kind", settings.kind, usual.kind),
        ("--reduce", settings.reduce, usual.reduce),
        ("--layers", layers, None),
        ("--draws", settings.draws, usual.draws),
        ("--task", request.task, ""),
        ("--units", request.units, ""),
        ("--labels", ",".join(request.labels), ""),
        ("--prompt", request.prompt, ""),
        ("--corpus", request.corpus, ""),
        ("--seed", settings.seed, usual.seed),
    ]
    options = [f"{name}={value}" for name, value, default in said if value is not None and value != default]
    return " ".join(["python -m interp_core signflip", *map(shlex.quote, options), "--out=runs/again"])


def _export(shown: ShownRun, figure: go.Figure, proxy: str) -> None:
    result: SignflipResult = shown.result
    model = str(result.config["model"]["id"]).rsplit("/", 1)[-1]
    title = f"{PROXIES[proxy]} behind a {result.config['settings']['kind']}\n{model} · {result.report['target']}"
    with st.popover("Export", icon=":material/download:"):
        with st.container(horizontal=True):
            files = (
                ("HTML", lambda: export.html(figure, title), f"{model}-{proxy}.html", "text/html"),
                ("Changes CSV", lambda: export.csv(result.changes), f"{model}-proxy_changes.csv", "text/csv"),
                ("Effects CSV", lambda: export.csv(result.effects), f"{model}-effects.csv", "text/csv"),
                ("Clips CSV", lambda: export.csv(result.clips), f"{model}-clips.csv", "text/csv"),
            )
            for label, data, name, mime in files:
                st.download_button(label, data, name, mime, on_click="ignore", key=f"sf-export-{label}")
        st.code(command(request_from_config(result.config)), language="bash", wrap_lines=True)
