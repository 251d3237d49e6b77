"""The selected pair's answer in words: A and B as they are and A after the patch, with whose words it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from components import server, state, texts
from components.charts import clicks
from components.guard import readable_errors
from components.patching import charts
from components.widgets import ROW_PX, folded
from components.words import layer_text, layer_title, md
from interp_core.data.pairs import Pair
from interp_core.experiments.edited_words import TEXT
from interp_core.experiments.patching.experiment import answer_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.words import Answers
from interp_core.experiments.wording import Origin, counts_errors, marked, whose, word_error_rate, words_moved
from interp_core.models.subject import Subject

HELP = (
    f"{texts.GREEDY} What is patched in stands over the prompt alone; what is written behind it reads the keys and "
    "values that it left."
)


def draw(
    asked: PatchRequest, pair: Pair, subject: Subject, layers: Sequence[int], layer: int, prompt: int, alpha: float
) -> None:
    """The fold: nothing is written before it is opened.

    Args:
        asked: the run's settings, with the positions that are patched. layers: of the run; layer: the selected one.
        prompt, alpha: as they are selected.
    """
    fold = folded("Answer in words", ":material/notes:", key=state.WORDS)
    if not fold.open:
        return
    with fold, readable_errors():
        if (refusal := subject.words_refusal()) is not None:
            st.caption(f"{md(subject.name)} {md(refusal)}, so there is no answer in words.")
            return
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            n_tokens = texts.length(state.WORDS_TOKENS, HELP)
            every = st.toggle("At every layer", key=state.WORDS_LAYERS, help=f"{len(layers)} texts in one batch.")
        wanted = tuple(layers) if every else (layer,)
        with st.spinner("Writing …"):
            answers = _written(
                server.engine().key_of(asked), pair.recipient.digest, pair.donor.digest, prompt, alpha, n_tokens,
                wanted, asked, pair,
            )  # fmt: skip
        _texts(answers, layer, alpha, asked.donor_said)
        _whose_words(answers, layer, pair, subject)
        if every:
            _every_layer(answers, layer)
        st.caption(texts.LIMIT)


@st.cache_data(max_entries=256, show_spinner=False)
def _written(
    key: str,
    a: str,
    b: str,
    prompt: int,
    alpha: float,
    n_tokens: int,
    layers: tuple[int, ...],
    _asked: PatchRequest,
    _pair: Pair,
) -> Answers:
    """`key` and the digests name the model and the clips."""
    return answer_by_hand(server.engine(), _asked, _pair, n_tokens=n_tokens, prompt=prompt, alpha=alpha, layers=layers)


def _texts(answers: Answers, layer: int, alpha: float, donor: str) -> None:
    """Three texts below each other, the words that differ marked in each."""
    a, b, patched = answers.a.text, answers.b.text, answers.patched[layer]
    strength = f", alpha {alpha:g}" if alpha != 1 else ""
    with_b = f"A with {md(donor)} at {'the embeddings' if layer == -1 else f'layer {layer}'}{strength}"
    own: list[tuple[str, Origin]] = [(word, "A" if differs else "both") for word, differs in marked(a, b)]
    others: list[tuple[str, Origin]] = [(word, "B" if differs else "both") for word, differs in marked(b, a)]
    st.markdown(f":blue-badge[A] {texts.in_marks(own, answers.a)}")
    st.markdown(f":violet-badge[{with_b}] {texts.in_marks(whose(a, b, patched.text), patched)}")
    st.markdown(f":orange-badge[B] {texts.in_marks(others, answers.b)}")


def _whose_words(answers: Answers, layer: int, pair: Pair, subject: Subject) -> None:
    """Whose words the patched answer has, in numbers, and what the marks mean."""
    said = answers.patched[layer].text
    found = words_moved(answers.a.text, answers.b.text, said)
    if not (found.of_a or found.of_b):
        st.markdown("A and B are answered in the same words, so no word can move.")
    elif found.moved is None:
        st.markdown("B's answer has no word that A's has not, so none can move.")
    else:
        there = round(found.moved * found.of_b)
        st.markdown(f"**{there} of the {md(found.of_b)} words that only B has** are in A's patched answer.")
    if found.kept is not None:
        st.markdown(f"{round(found.kept * found.of_a)} of the {md(found.of_a)} that only A has are still there.")
    said_in = {side: clip.label(TEXT) for side, clip in (("A", pair.recipient), ("B", pair.donor))}
    if subject.transcribes and any(said_in.values()):
        if counts_errors():
            rates = [
                f"{side}'s text {rate:.2f}"
                for side, text in said_in.items()
                if text and (rate := word_error_rate(said, text)) is not None
            ]
            st.markdown(f"Word error rate of the patched transcript against {md(' and '.join(rates))}.")
        else:
            st.caption("Word error rates take the package jiwer, which is not installed here.")
    st.caption(
        "**Bold**: words that only B's answer has. *Italic*: only A's. On grey: neither's. Case and punctuation do not "
        "count."
    )


def _every_layer(answers: Answers, selected: int) -> None:
    """The curve over layers, and every text."""
    found = {layer: words_moved(answers.a.text, answers.b.text, one.text) for layer, one in answers.patched.items()}
    table = pd.DataFrame(
        [
            {"layer": layer, "moved": one.moved, "kept": one.kept, "of_b": one.of_b, "of_a": one.of_a}
            for layer, one in found.items()
        ]
    ).astype({"moved": float, "kept": float})

    def clicked(layer: int) -> None:
        if layer in answers.patched:
            st.session_state[state.LAYER] = layer_text(layer)

    if table[["moved", "kept"]].notna().any(axis=None):
        best: dict[Any, Any] = max(table.fillna(-1).to_dict("records"), key=lambda row: row["moved"])
        clicks.show(
            charts.words_curve(table, selected_layer=selected),
            key=state.WORDS_CURVE,
            alt="Share of B's own words in A's answer, and of A's own that are still there, after a patch at each of "
            f"{len(table)} layers. Most of B's: {best['moved']:.2f} at {layer_title(int(best['layer'])).lower()}.",
            on_click=clicked,
        )
    every = pd.DataFrame(
        {
            "layer": [layer_text(layer) for layer in answers.patched],
            "of B's own": table["moved"],
            "A's answer after the patch": [
                one.text if one.ended else f"{one.text} …" for one in answers.patched.values()
            ],
        }
    )
    small = {"layer": st.column_config.TextColumn(width="small"), "of B's own": _share_column()}
    height = min(ROW_PX * (len(every) + 1) + 3, 300)
    st.dataframe(every, hide_index=True, height=height, column_config=small)


def _share_column() -> Any:
    return st.column_config.NumberColumn(width="small", format="percent", help="the share of the words that only B has")
