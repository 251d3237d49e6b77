"""The owner of every session key and URL name, and of what a visitor has chosen.

A name below is at once a widget's key and its name in the URL (`bind="query-params"`), so a link reproduces a view. A
bound widget reads the URL when it is called, and no earlier: use its return value, never `st.session_state` before it.
Streamlit drops a URL value that is none of a widget's options; free text is checked by the request and the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from interp_core.data.edits import KNOBS
from interp_core.models import bundled
from interp_core.models.adapters import NONE

BOUND: Any = "query-params"

# What is asked of which model about which clips: the sidebar.
MODEL, ADAPTER, DEVICE, DTYPE, PART, PROBE = "model", "adapter", "device", "dtype", "part", "probe"
CLIPS, CORPUS, SKIP_BAD = "clips", "corpus", "skip_bad"
OF_SIDEBAR = (MODEL, ADAPTER, DEVICE, DTYPE, PART, PROBE, CLIPS, CORPUS, SKIP_BAD)
RUN, EXAMPLE, LINK_ASKS = "run", "example", "link_asks"
"""A run folder that a link shows in the place of what is set."""
# What is looked at on the pages Patching and Pairs.
VIEW, KIND, PROMPT, MEASURE, STRENGTH = "view", "kind", "prompt", "measure", "strength"
LAYER, PAIR, ALPHA, ONLY_FLIPS, SCALE = "layer", "pair", "alpha", "flips", "scale"
WINDOW, ONLY_WINDOW = "window", "only_window"
HEAD, HEAD_MAP, HEAD_TRUTH = "head", "head_map", "head_truth"
TIME_STRIP, TIME_CURVE, TIME_MAP, TIME_PAIRS = "time_strip", "time_curve", "time_map", "time_pairs"
BACK_COLUMN, BACK_MEASURE, BACK_CELL = "back_of", "back_measure", "back_cell"
BACK_MAP, BACK_OF_CLIP, BACK_TABLE = "back_map", "back_of_clip", "back_table"
STATED_LABEL, STATED_SPAN = "stated_label", "stated_at"
STATED_BARS, STATED_CURVE, STATED_TABLE = "stated_bars", "stated_curve", "stated_table"
PRESENT = "present"
"""Whether the page is shown to an audience."""
HEADS_WORDS, HEADS_DURING, HEADS_TOKENS = "head_words", "head_during", "head_tokens"
WORDS, WORDS_TOKENS, WORDS_LAYERS, WORDS_CURVE = "words", "words_tokens", "words_layers", "words_curve"
PLAYER, CURVE, FLIP_TABLE, PAIR_TABLE = "player", "curve", "flip_table", "pair_table"
# Parts of a page that are drawn while they are open.
FOLD_TIME, FOLD_HAND, FOLD_BLIND, FOLD_DOSE = "time-map", "hand_fold", "blind", "dose"
FOLD_STATED, FOLD_STATED_HERE, FOLD_LATER, FOLD_LATER_HERE = "stated-over", "stated-alone", "back-over", "back-alone"
FOLD_NUMBERS, FOLD_COMPUTED, FOLD_COMPARE = "numbers", "computed", "heads_compare"
FOLD_NEURONS, FOLD_NEU_COMPUTED = "neu_top", "neu_computed"
# Heads.
HEADS_VIEW, HEADS_KIND, HEADS_AT, HEADS_SIDE = "heads_view", "heads_kind", "heads_at", "heads_side"
HEADS_A, HEADS_B = "heads_a", "heads_b"
HEADS_MAP, HEADS_USED, HEADS_PLANE = "heads_map", "heads_used", "heads_plane"
HEADS_OTHER, HEADS_DIFFERENCE = "heads_other", "heads_difference"
# Compare.
CMP_REP, CMP_ESTIMATE, CMP_POINT, CMP_ARM = "cmp_by", "cmp_estimate", "cmp_at", "cmp_transplant"
CMP_VIEW, CMP_CLIP, CMP_TAB = "cmp_view", "cmp_clip", "cmp_tab"
CMP_MAP, CMP_DIAGONAL, CMP_EFFECT, CMP_RATES = "cmp_map", "cmp_diagonal", "cmp_effect", "cmp_rates"
CMP_TABLE, CMP_CLIPS, CMP_PLAYER, CMP_BESIDE = "cmp_table", "cmp_clips", "cmp_player", "cmp_beside"
CMP_MEASURE, CMP_SWEEPS, CMP_CLASS, CMP_BREAK = "cmp_measure", "cmp_sweeps", "cmp_class", "cmp_break"
# Neurons.
NEU_MEASURE, NEU_K, NEU_SET, NEU_CLIP = "neu_measure", "neu_k", "neu_set", "neu_clip"
NEU_CURVE, NEU_TRADE, NEU_TABLE, NEU_CLIPS = "neu_curve", "neu_trade", "neu_table", "neu_clips"
NEU_PLAYER = "neu_player"
NEU_WORDS, NEU_TOKENS, NEU_DURING = "neu_words", "neu_tokens", "neu_during"
# Sign flip.
SF_PROXY, SF_FLIPPED, SF_AT, SF_CLIP, SF_ONLY = "sf_proxy", "sf_layer", "sf_at", "sf_clip", "sf_only"
SF_MATRIX, SF_CURVE, SF_CLIPS, SF_PLAYER = "sf_matrix", "sf_curve", "sf_clips", "sf_player"
# Steering.
ST_LABEL, ST_LAYER, ST_ALPHA, ST_PROMPT, ST_OF = "st_label", "st_layer", "st_alpha", "st_question", "st_clips_of"
ST_CLIP, ST_CLIPS, ST_MAP, ST_DOSE = "st_clip", "st_clips", "st_map", "st_dose"
ST_PLAYER, ST_ANSWERS, ST_LIVE = "st_player", "st_answers", "st_live"
ST_WORDS, ST_TOKENS, ST_DURING = "st_words", "st_tokens", "st_during"
# Probes.
PB_TARGET, PB_AT, PB_LAYER, PB_CLIP, PB_CELL = "pb_target", "pb_at", "pb_layer", "pb_clip", "pb_cell"
PB_MAP, PB_CURVE, PB_CLIPS, PB_PLAYER, PB_LENS, PB_WORD = (
    "pb_map",
    "pb_curve",
    "pb_clips",
    "pb_player",
    "pb_lens",
    "pb_word",
)
# The runs page.
RUNS_FOLDER, RUNS_OF, RUNS_MODEL, RUNS_STATE, RUNS_TEXT = "folder", "runs_of", "runs_model", "runs_state", "runs_text"
RUNS_LOOK, RUNS_OTHER, RUNS_SERIES = "runs_look", "runs_other", "runs_series"
RUNS_TABLE, RUNS_FILE, RUNS_NOTES, RUNS_ARMED, RUNS_SAID = (
    "runs_table", "runs_file", "runs_notes", "runs_armed", "runs_said",
)  # fmt: skip
RUNS_CURVES, RUNS_APART = "runs_curves", "runs_apart"
# The models page.
MODELS_TEXT, MODELS_GROUP, MODELS_RUNS, MODELS_TYPE = "models_text", "models_kind", "models_runs", "models_type"
MODELS_TABLE, MODELS_COMMAND = "models_table", "models_command"
# Own recordings, and two clips by hand on the page Pairs.
COLLECTION, REC_A, REC_B, REC_NEW = "collection", "rec_a", "rec_b", "rec_new"
REC_TABLE, REC_EDITS, REC_COLUMN, REC_PATTERN = "rec_table", "rec_edits", "rec_column", "rec_pattern"
REC_SAID, REC_TURN, OWN_CLIPS = "rec_said", "rec_turn", "own_clips"
PAIRS_VIEW, HAND_A, HAND_B, HAND_LAYER, HAND_CURVE, HAND_PROMPT = (
    "pairs", "a", "b", "hand_layer", "hand_curve", "hand_prompt",
)  # fmt: skip
AUTO = "auto"
"""The reader of a folder of clips that is found by itself."""
BUILT, BY_HAND, EDITED = "built from labels", "two clips by hand", "one clip, edited"
EDIT_KNOB, EDIT_CODEC = "knob", "codec"
PAGES = "pages_of_experiments"
# Keys without a name in the URL.
CHOSEN = "model_chosen"
APPROVED, WAS_ACTIVE, REQUEST = "approved_models", "jobs_were_active", "request"
SETTINGS, RUN_BEGUN, SO_FAR = "settings_and_run", "run_begun", "so_far"
VISITOR, EXPORT = "visitor", "export"
WINDOW_OF, HISTORY = "window_is_of_the_pair", "history_of_selections"
BLIND_TRIAL, BLIND_ANSWERS, BLIND_SAID, BLIND_PLAYER = "blind_trial", "blind_answers", "blind_said", "blind_player"
BLIND_WHO = "blind_listener"
PAGE, SHARED, SET_FOR = "page", "shared_between_pages", "settings_are_for_the_model"

LINKED_TEXTS = (NEU_CLIP, SF_CLIP, ST_CLIP, PB_CLIP, PB_CELL)
"""Selections that are no widget's, such as a row or a cell that was clicked; see `linked_text`."""
TEXTS_OF_A_MODEL = (ADAPTER, PROBE, CLIPS, WINDOW)
CHOICES_OF_A_MODEL = (PART, KIND, PROMPT, LAYER, PAIR, HEAD, HEADS_AT, HEADS_A, HEADS_B, CMP_POINT, CMP_ARM, CMP_CLIP,
                      CMP_BESIDE, NEU_K, NEU_CLIP, HAND_PROMPT, SF_FLIPPED, SF_AT, SF_CLIP,
                      ST_LABEL, ST_LAYER, ST_CLIP, ST_ALPHA, HEADS_OTHER, BACK_CELL,
                      PB_TARGET, PB_AT, PB_LAYER, PB_CLIP, PB_CELL, PB_WORD)  # fmt: skip

# What undo and redo go through: what is looked at in a run, and never what is computed or on which model.
SELECTION = (
    *(VIEW, KIND, PROMPT, MEASURE, STRENGTH, LAYER, PAIR, ALPHA, ONLY_FLIPS, SCALE, WINDOW, ONLY_WINDOW),
    *(HEAD, TIME_STRIP, BACK_CELL, BACK_COLUMN, BACK_MEASURE, STATED_LABEL, STATED_SPAN),
    *(HEADS_VIEW, HEADS_KIND, HEADS_AT, HEADS_SIDE, HEADS_A, HEADS_B, HEADS_OTHER),
    *(CMP_VIEW, CMP_REP, CMP_ESTIMATE, CMP_POINT, CMP_ARM, CMP_CLIP, CMP_BESIDE, CMP_MEASURE, CMP_SWEEPS),
    *(CMP_CLASS, CMP_BREAK, NEU_MEASURE, NEU_K, NEU_SET, NEU_CLIP, NEU_CLIPS),
    *(SF_PROXY, SF_FLIPPED, SF_AT, SF_CLIP, SF_ONLY, HAND_A, HAND_B, HAND_LAYER, HAND_PROMPT),
    *(ST_LABEL, ST_LAYER, ST_ALPHA, ST_CLIP, ST_PROMPT, ST_OF, CMP_TAB, PAIRS_VIEW, EDIT_KNOB, EDIT_CODEC),
    *(f"edit_{knob}" for knob in KNOBS),
    *(PB_TARGET, PB_AT, PB_LAYER, PB_CLIP, PB_CELL, PB_WORD),
)


def setting(command: str, field: str) -> str:
    """The key of an experiment's setting, and its name in the URL: `heads_label`."""
    return f"{command}_{field}"


def edit_dose(knob: str) -> str:
    """The key of the dose of a knob, and its name in the URL: `edit_pitch`."""
    return f"edit_{knob}"


def label_read_as(command: str, at: int) -> str:
    """The key of the answer that a label of an experiment's clips is read as."""
    return f"{command}_label_read_as_{at}"


def shared(widget: Callable[..., Any], label: str, options: Sequence[str], *, key: str, **settings: Any) -> Any:
    """Call a widget that stands on several pages: what was selected on one is selected on the next.

    Streamlit tells apart the widgets of two pages also where they have one key, so the value is carried over here.
    """
    kept: dict[str, tuple[Any, Any]] = st.session_state.setdefault(SHARED, {})
    here = st.session_state.get(PAGE)
    page, value = kept.get(key, (here, None))
    if page != here and value in options:
        st.session_state[key] = value
    chosen = widget(label, options, key=key, bind=BOUND, **settings)
    kept[key] = here, chosen
    return chosen


def presenting() -> bool:
    """Whether the page is shown to an audience: larger type, and the chart above the player."""
    said = st.session_state.get(PRESENT)
    return bool(said) if said is not None else st.query_params.get(PRESENT, "") == "true"


def select_kind_with(pair_of_kind: Mapping[str, str]) -> Callable[[], None]:
    """For a kind's `on_change`: another kind has other pairs, so one of its own is selected."""

    def changed() -> None:
        pair = pair_of_kind.get(st.session_state[KIND])
        if pair is not None:
            st.session_state[PAIR] = pair

    return changed


def refill(key: str, default: str) -> None:
    """Call before a text widget: what was emptied is the default again."""
    if st.session_state.get(key) == "":
        st.session_state[key] = default


def keep_window_with(pair: str) -> None:
    """Call before the widget of the time window: another pair has other sounds, so its window begins empty.

    The first pair that is seen keeps the window that a link, or a step of undo, came with.
    """
    if st.session_state.get(WINDOW_OF, pair) != pair:
        mark_window("")
    st.session_state[WINDOW_OF] = pair


def mark_window(text: str) -> None:
    """Set the time window of the selected pair, "" for none; before its widget is called."""
    st.session_state[WINDOW] = text
    if not text:
        st.session_state[ONLY_WINDOW] = False


def follow(key: str, usual: str) -> None:
    """Before a widget whose default depends on another choice: a value that was the default becomes the new one, since
    a link leaves out what is the default."""
    before = f"{key}-usual"
    known = before in st.session_state and key in st.session_state  # a widget that a link is about to fill has no value
    if known and st.session_state[key] == st.session_state[before] != usual:
        st.session_state[key] = usual
    st.session_state[before] = usual


def take(**values: Any) -> None:
    """Set widgets, for a callback: these are choices by hand, also where one is what was usual until now."""
    for key, value in values.items():
        if st.session_state.get(key) != value:
            st.session_state[key] = value
        st.session_state.pop(f"{key}-usual", None)


def linked_text(key: str) -> str:
    """A selection that is no widget's, which the link carries; "" for none. To be called where it is drawn."""
    said = str(st.session_state.setdefault(key, st.query_params.get(key, "")) or "")
    if st.query_params.get(key, "") != said:
        if said:
            st.query_params[key] = said
        else:
            del st.query_params[key]
    return said


# ---- models ----------------------------------------------------------------------------------------------------------


def may_open(name: str) -> bool:
    """Whether this visitor asked for the model or adapter: a link alone must not make the server load or fetch one."""
    return ships(name) or name in st.session_state.get(APPROVED, ())


def ships(name: str) -> bool:
    """Whether a model or adapter is a bundled one, or none."""
    return name in ("", NONE) or name in bundled.shipped()


def approve(name: str | None) -> None:
    """Note that the visitor named the model, or pressed the button to open it."""
    if name:
        st.session_state[APPROVED] = {*st.session_state.get(APPROVED, ()), name}


def choose_model(name: str) -> None:
    """Choose another model in the sidebar; for callbacks."""
    forget_choices()
    st.session_state[MODEL] = name
    note_choice()


def note_choice() -> None:
    """Note that the visitor chose a model, which from now on holds for every page."""
    st.session_state[CHOSEN] = True


def open_on(model: str | None) -> None:
    """Where the visitor has chosen no model, turn to one that has something to show on this page, if there is one.

    To be called before the sidebar is drawn.
    """
    if PAGE not in st.session_state and MODEL in st.query_params:
        note_choice()
    if model is None or CHOSEN in st.session_state or st.session_state.get(MODEL) == model:
        return
    if MODEL in st.session_state:  # else the link's other choices are meant for the model that the page opens on
        forget_choices()
    st.session_state[MODEL] = model


def forget_choices() -> None:
    """Forget what was chosen for another model: its words, places and pairs may mean nothing to this one."""
    for key in CHOICES_OF_A_MODEL:
        st.session_state.pop(key, None)
    for key in TEXTS_OF_A_MODEL:
        st.session_state[key] = ""  # a value that is gone would come back from the URL
    for key in LINKED_TEXTS:
        st.session_state[key] = ""
    forget_reader()


def forget_reader() -> None:
    """Let another folder of clips be recognised anew; for callbacks."""
    if CORPUS in st.session_state:
        st.session_state[CORPUS] = AUTO


def is_another_model(command: str, model: str) -> bool:
    """Whether the settings of an experiment were last set for another model; they are this model's from now on."""
    known: dict[str, str] = st.session_state.setdefault(SET_FOR, {})
    before = known.get(command, model)
    known[command] = model
    return before != model


# ---- the run that a link shows ---------------------------------------------------------------------------------------


def link_to_a_view() -> dict[str, str]:
    """What the URL says, where a visitor comes in by it and it names more than what stands in the sidebar; else {}."""
    said = st.query_params.to_dict()
    return said if PAGE not in st.session_state and said.keys() - {*OF_SIDEBAR, PRESENT} else {}


def note_link(command: str, settings: Sequence[str]) -> None:
    """Note that a visitor comes in by a link with settings of an experiment, and so asks to see what they give; to be
    called before the page is noted.

    Args:
        settings: of the experiment, by field.
    """
    if PAGE in st.session_state or RUN in st.query_params:
        return
    if any(setting(command, name) in st.query_params for name in settings):
        st.session_state[LINK_ASKS] = command


def link_asks(command: str) -> bool:
    """Whether the link that a visitor came in by asks for a run of an experiment; true once."""
    return st.session_state.pop(LINK_ASKS, None) == command


def asked_by_link(command: str, titles: Mapping[str, str]) -> list[str]:
    """The settings that the link that a visitor came in by asks for, as `Most pairs a kind 2`; nothing once it has been
    answered.

    Args:
        titles: of an experiment's settings, by field.
    """
    if st.session_state.get(LINK_ASKS) != command:
        return []
    keys = {setting(command, name): title for name, title in titles.items()}
    return [f"{title} {st.query_params[key]}" for key, title in keys.items() if key in st.query_params]


def follow_link(page: str) -> None:
    """Choose in the sidebar what a link inside the dashboard names; to be called before the sidebar is drawn.

    Streamlit puts a link's values behind those of the widgets that stand on every page and reads the first, and where
    such a widget holds its default it keeps that. So what the URL said last counts wherever the page is another one.
    """
    for key in OF_SIDEBAR:
        said = st.query_params.get_all(key)
        came = len(said) > 1 or (said and st.session_state.get(PAGE, page) != page)
        if not came or said[-1] == str(st.session_state.get(key, "")):
            continue
        if key == MODEL:
            choose_model(said[-1])
        else:
            st.session_state[key] = said[-1].lower() == "true" if key == SKIP_BAD else said[-1]


def open_settings(command: str) -> str:
    """The key of the popover with an experiment's settings; it closes in the run after a job was started."""
    key = setting(command, SETTINGS)
    if st.session_state.pop(RUN_BEGUN, False):
        st.session_state[key] = False
    return key


def note_begun() -> None:
    """Note that a job was started from the settings; see `open_settings`."""
    st.session_state[RUN_BEGUN] = True


def linked_run() -> str:
    """The run folder that the link names; "" for none."""
    return str(st.query_params.get(RUN, ""))


def link_run(name: str) -> None:
    """Name a run in the URL, or none; for callbacks."""
    if name:
        st.query_params[RUN] = name
    else:
        leave_linked_run()


def linked_type() -> str:
    """The type of model that the link names on the models page; "" for none."""
    return str(st.query_params.get(MODELS_TYPE, ""))


def link_type(name: str) -> None:
    """Name a type of model in the URL; for callbacks."""
    st.query_params[MODELS_TYPE] = name


def leave_linked_run() -> None:
    """Go back to what is set; for callbacks."""
    if RUN in st.query_params:
        del st.query_params[RUN]
