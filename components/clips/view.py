"""The page of own recordings: bring them, label them, patch them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from components import server, state
from components.clips import labels, owner
from components.runs.pack import zip_folder
from components.words import md, nbytes
from interp_core.data import collection as made_of
from interp_core.data.collection import Collection, Upload
from interp_core.data.room import nbytes as bytes_of
from interp_core.errors import InterpError

PAIRS_PAGE, PATCHING_PAGE = (
    Path(__file__).resolve().parents[2] / "pages" / name for name in ("pairs.py", "patching.py")
)
FIRST_NAME = "My recordings"


def draw() -> None:
    """Draw the whole page."""
    if server.data_folder() is None:
        raise InterpError("recordings cannot be kept: the folder PATCHBAY_DATA cannot be written; name another one.")
    chosen = _choose(owner.visible())
    left, right = st.columns([1, 2.5], gap="medium")
    with left:
        mine = chosen is None or chosen.owner == owner.visitor()
        if mine:
            _bring(chosen)
        else:
            st.info("Another visitor shares this collection: listen, label nothing, patch with it.")
        _said()
    with right:
        if chosen is None:
            st.info("Drop two recordings or speak two sentences: they appear here, ready to be patched.")
            return
        rows = labels.table(chosen) if mine else labels.listed(chosen)
        if mine and len(rows):
            labels.tools(chosen)
        _patch(chosen, rows["clip_id"].tolist())


def _choose(known: list[Collection]) -> Collection | None:
    """The collection that is looked at, and what can be done with it."""
    names = {one.folder.name: one for one in known}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        if names:
            key = st.selectbox(
                "Collection",
                list(names),
                key=state.COLLECTION,
                bind=state.BOUND,
                width=340,
                format_func=lambda name: names[name].name + (" (shared)" if names[name].shared else ""),
            )
        chosen = names.get(key) if names else None
        with st.popover("New", icon=":material/create_new_folder:"):
            st.text_input("Name of the new collection", key=state.REC_NEW, on_change=_create)
        if chosen is not None and chosen.owner == owner.visitor():
            _manage(chosen)
    return chosen


def _create() -> None:
    try:
        name = st.session_state[state.REC_NEW]
        made = made_of.create(_folder(), name, owner.visitor(), server.caps())
        st.session_state[state.COLLECTION], st.session_state[state.REC_NEW] = made.folder.name, ""
    except InterpError as error:
        _say("error", str(error))


def _manage(chosen: Collection) -> None:
    def share() -> None:
        made_of.change(chosen, shared=not chosen.shared)

    def delete() -> None:
        try:
            made_of.delete(chosen)
        except InterpError as error:
            _say("error", str(error))
        else:
            st.session_state.pop(state.COLLECTION, None)
            labels.forget()

    st.download_button(
        "Download",
        lambda: zip_folder(chosen.folder, server.most_download_bytes()),
        file_name=f"{chosen.folder.name}.zip",
        mime="application/zip",
        icon=":material/download:",
        on_click="ignore",
    )
    with st.popover("More", icon=":material/more_horiz:"):
        st.caption(f"{nbytes(bytes_of(chosen.folder))} in {md(chosen.folder)}")
        st.code(f"--manifest {chosen.manifest}", language=None)
        st.button("Stop sharing" if chosen.shared else "Share with all visitors", on_click=share)
        sure = st.checkbox("Delete all its recordings", key=f"sure-{chosen.folder.name}")
        st.button("Delete", on_click=delete, disabled=not sure, icon=":material/delete:")


def _bring(chosen: Collection | None) -> None:
    """Files and the microphone; what comes is in the collection at once."""
    turn = st.session_state.setdefault(state.REC_TURN, 0)
    caps, limits = server.caps(), server.clip_limits()
    files = st.file_uploader(
        "Drop recordings, or a zip of them",
        accept_multiple_files=True,
        key=f"upload-{turn}",
        help=f"WAV, FLAC, OGG, MP3, AIFF …; at most {caps.files} clips of {limits.max_seconds:g} s each, "
        f"and {nbytes(caps.share)} in all your collections.",
    )
    spoken = st.audio_input("Or speak a sentence", key=f"microphone-{turn}")
    uploads = [Upload(file.name, file) for file in files]
    if spoken is not None:
        count = len(chosen.table()) if chosen is not None else 0
        uploads.append(Upload(f"spoken {count + 1}.wav", spoken))
    if not uploads:
        return
    with st.spinner(f"Reading {len(uploads)} recordings …"):
        if chosen is None:
            chosen = made_of.create(_folder(), FIRST_NAME, owner.visitor(), caps)
        added = made_of.add(chosen, uploads, caps, limits)
    count = len(added.clip_ids)
    said = [("success", f"{count} recording{'s were' if count > 1 else ' was'} added.")] if count else []
    said += [("warning", f"{clip_id} {note}.") for clip_id, note in added.notes]
    said += [("error", f"{name}: {why}.") for name, why in added.refused]
    st.session_state[state.REC_SAID] = said
    st.session_state[state.REC_TURN] = turn + 1
    labels.forget()
    st.rerun()


def _patch(chosen: Collection, ids: list[str]) -> None:
    """Two clips by hand, and the collection for every page."""
    if len(ids) < 2:
        st.info("One more recording, and the two can be patched into each other.")
        return

    with st.container(border=True):
        left, right, go = st.columns([1, 1, 0.8], vertical_alignment="bottom")
        a = left.selectbox("A, whose answer is changed", ids, key=state.REC_A)
        b = right.selectbox("B, whose states are patched in", ids, index=1, key=state.REC_B)
        clips = {state.CLIPS: str(chosen.manifest)}
        by_hand = {**clips, state.PAIRS_VIEW: state.BY_HAND, state.HAND_A: a, state.HAND_B: b}
        with go, st.container(border=True):
            st.page_link(str(PAIRS_PAGE), label="**Patch B into A**", icon=":material/cable:", query_params=by_hand)
        st.page_link(
            str(PATCHING_PAGE),
            label="Use this collection on every page",
            icon=":material/library_music:",
            query_params=clips,
            help="Sets the manifest in the sidebar; pairs are then built from the labels.",
        )


def _folder() -> Path:
    folder = server.data_folder()
    assert folder is not None  # draw refuses without one
    return folder


def _say(kind: str, text: str) -> None:
    st.session_state[state.REC_SAID] = [(kind, text)]


def _said() -> None:
    """What became of the last thing that was done; once."""
    for kind, text in st.session_state.pop(state.REC_SAID, ()):
        {"success": st.success, "warning": st.warning, "error": st.error}[kind](md(text))
