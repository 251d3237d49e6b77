"""Tables of a run as they lie in its folder, with the sound of every clip that they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from components import server
from components.clips import owner
from components.player import clip_audio
from components.shown import Shown
from components.words import md
from interp_core.data.clips import Clip
from interp_core.errors import InterpError

NAMING = ("clip_id", "recipient", "donor")
"""Columns whose values name clips."""


def names_clips(rows: pd.DataFrame) -> bool:
    """Whether a table has a column for clips."""
    return any(name in rows for name in NAMING)


def clips_of(shown: Shown) -> Mapping[str, Clip]:
    """The clips of a run as they are now; a sentence in their place, and none, where they cannot be read."""
    try:
        owner.refuse_foreign((shown.config.get("manifest") or {}).get("path"))
        asked = replace(shown.request, max_seconds=server.clip_limits().max_seconds)
        return {clip.clip_id: clip for clip in server.engine().manifest(asked).clips}
    except InterpError as error:
        st.caption(f"Its recordings cannot be heard now: {md(error)}")
        return {}


def table(rows: pd.DataFrame, clips: Mapping[str, Clip], **settings: Any) -> None:
    """Draw a table; a column of sound stands before each that names clips."""
    shown, heard = rows.copy(deep=False), dict[str, Any]()
    for name in NAMING:
        if name not in rows or not clips:
            continue
        code, ids = pd.factorize(rows[name].astype(str))
        urls = clip_audio.urls(ids, clips)
        if any(urls):
            title = "hear" if name == "clip_id" else f"hear {name}"
            shown.insert(shown.columns.get_loc(name), title, [urls[at] for at in code])  # type: ignore[arg-type]
            heard |= clip_audio.hear(title)
    st.dataframe(shown, hide_index=True, column_config=heard, **settings)
