"""The map of heads of a patching run: the selected head, what patches say of it, and the head on the selected pair."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from components import server, state
from components.charts import clicks, heatmap
from components.charts.clicks import Cell, clicked_cell
from components.guard import readable_errors
from components.patching import head_charts
from components.patching.answers import clips_by_id, pair_of
from components.patching.pair_panel import Look, run_request
from components.patching.results import Indexed, indexed
from components.shown import Shown
from components.words import answer_badge, md
from interp_core.data.edits import clip_seconds
from interp_core.data.pairs import Pair
from interp_core.experiments.patching.experiment import head_patch_by_hand, heads_by_hand
from interp_core.experiments.patching.head_map import PairHeads
from interp_core.experiments.patching.head_words import headline
from interp_core.experiments.patching.limits import HEAD_LIMITS
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.wording import p_said

VIEW = "Heads"
NO_MAP = "This run has no map of heads: choose heads under Maps in the settings, and run. Below, the curve over layers."


def choose(index: Indexed, kind: str, prompt: int) -> Cell | None:
    """The selected (layer, head), at first the one with the largest true effect; None of a run without a map."""
    rows = _heads(index, kind, prompt)
    if rows.empty:
        return None
    names = [f"L{layer:d}H{head:d}" for layer, head in zip(rows["layer"], rows["head"], strict=True)]
    best = int(rows["true_mean"].abs().fillna(-1).to_numpy().argmax())
    state.follow(state.HEAD, names[best])
    chosen = st.selectbox(
        f"Head, of {len(names)}: click one", names, index=best, key=state.HEAD, bind=state.BOUND, width=170
    )
    at = names.index(chosen) if chosen in names else best
    return int(rows["layer"].iloc[at]), int(rows["head"].iloc[at])


def draw(index: Indexed, kind: str, prompt: int, cell: Cell) -> go.Figure:
    """The map, what is known of the selected head, and estimates against true patches."""
    result = index.result
    rows, agreement = result.heads_of(kind, prompt), result.agreement_of(kind, prompt)
    figure = head_charts.head_heatmap(rows, cell)
    heatmap.show(
        figure, key=state.HEAD_MAP, alt=f"Map of heads, layer by head. {headline(rows, agreement)}", on_cell=_pick
    )
    st.caption(
        "□ verified, one of the largest estimates · ◇ verified, drawn among the others · ✱ adjusted p < .05 · no sign: "
        "an estimate alone"
    )
    heads = _heads(index, kind, prompt)
    row = heads[(heads["layer"] == cell[0]) & (heads["head"] == cell[1])].iloc[0]
    st.markdown(head_text(row))
    said = headline(rows, agreement)
    st.markdown(f"{md(said[0].upper() + said[1:])}.")
    clicks.show(
        head_charts.estimate_and_truth(rows, cell),
        key=state.HEAD_TRUTH,
        alt="Verified heads: mean estimate against mean true patch.",
        on_click=_pick,
        read=clicked_cell,
    )
    with st.expander("What a map of heads does not show", icon=":material/info:"):
        st.markdown(HEAD_LIMITS)
    return figure


def head_text(row: pd.Series) -> str:
    """The selected head in a sentence or three, in markdown."""
    name = f"**L{int(row['layer'])}H{int(row['head'])}**"
    text = f"{name}: estimate {row['estimate_mean']:+z.3f} nats{_interval(row, 'estimate')} (n = {int(row['n'])} pairs)"
    if not row["verified"]:
        text += ". Not verified: no true patch was made of it over the pairs; on the right it is, for one."
    else:
        text += f"; true patch {row['true_mean']:+z.3f}{_interval(row, 'true')}"
        if row["n_random_donor"] > 0:
            text += f", with a random donor {row['random_donor_mean']:+z.3f} (n = {int(row['n_random_donor'])})"
        p = row["p_adjusted"]
        text += "." if p != p else f"; adjusted {p_said(p)}."
        if row["n_signs"] > 0:
            share = 100 * row["wrong_sign_rate"]
            text += f" Wrong sign in {share:.0f} % of {int(row['n_signs'])} pairs."
    if row["attention_readout"] == row["attention_readout"]:
        text += (
            f" Of its attention, the readout position gives {100 * row['attention_readout']:.0f} % to the audio, all "
            f"text behind the audio {100 * row['attention_text']:.0f} % (mean over {int(row['n_attention'])} pairs)."
        )
    return text


def of_pair(shown: Shown, request: PatchRequest, look: Look, *, under_player: DeltaGenerator) -> None:
    """The selected head on the selected pair: a true patch of it alone, and where it looks in A."""
    if look.head is None:
        return
    made, (layer, head) = run_request(shown, request), look.head
    pair = pair_of(indexed(shown).lines[look.pair_id], clips_by_id(made))
    key = server.engine().key_of(made), pair.recipient.digest, pair.donor.digest, look.prompt
    with under_player, readable_errors():
        with st.spinner("Reading the heads of this pair …"):
            seen = _seen(*key, made, pair)
            outcome = _patched(*key, layer, head, made, pair)
        st.markdown(_outcome_text(outcome, seen, look.head))
        _attention(seen, look.head, max(clip_seconds(clip) for clip in (pair.recipient, pair.donor)))


def _outcome_text(outcome: pd.Series, seen: PairHeads, cell: Cell) -> str:
    target = outcome["target"]
    change = outcome["target_change"]
    answers = (
        f"A :blue-badge[{md(outcome['base_prediction'])}] → with this head of B alone "
        f"{answer_badge(outcome['patched_prediction'], outcome['base_prediction'], outcome['donor_prediction'])}"
    )
    return (
        f"**L{cell[0]:d}H{cell[1]:d} on this pair**: {answers}. Log-probability of {md(target)}: {change:+z.3f} nats "
        f"by a true patch, {seen.estimates[cell]:+z.3f} estimated."
    )


def _attention(seen: PairHeads, cell: Cell, seconds: float) -> None:
    if seen.attention is None:
        st.caption("This model hands out no attention weights of single heads in time, so there is nothing to paint.")
        return
    frames = seen.attention.frames[cell[0], cell[1]].numpy()
    reader = "the readout position gives" if seen.attention.shares else "A's own positions give, on average,"
    name = f"L{cell[0]:d}H{cell[1]:d}"
    st.caption(f"Where {name} looks in A: {reader} {100 * frames.sum():.0f} % of its attention to the recording.")
    clicks.show(
        head_charts.attention_in_time(frames, seen.step, name, seconds),
        key="head_attention",
        alt=f"Attention of {name} to A over time, {100 * frames.sum():.0f} % in all.",
    )


@st.cache_data(max_entries=64, show_spinner=False)
def _seen(key: str, a: str, b: str, prompt: int, _request: PatchRequest, _pair: Pair) -> PairHeads:
    return heads_by_hand(server.engine(), _request, _pair, prompt=prompt)


@st.cache_data(max_entries=512, show_spinner=False)
def _patched(
    key: str, a: str, b: str, prompt: int, layer: int, head: int, _request: PatchRequest, _pair: Pair
) -> pd.Series:
    return head_patch_by_hand(server.engine(), _request, _pair, layer, head, prompt=prompt)


def _heads(index: Indexed, kind: str, prompt: int) -> pd.DataFrame:
    rows = index.result.heads_of(kind, prompt)
    return rows if rows.empty else rows[rows["site"] == "head_out"]


def _interval(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low != low else f", 95 % {low:+z.3f} to {high:+z.3f}"


def _pick(cell: Cell) -> None:
    st.session_state[state.HEAD] = f"L{cell[0]:d}H{cell[1]:d}"
