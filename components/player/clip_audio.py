"""Sound in tables: the WAV of a clip that a page has shown, by the digest of its file; nothing else is served."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import soundfile
import streamlit as st
from starlette.requests import Request
from starlette.responses import Response

from components import server
from components.player.ab_player import PlayerClip
from interp_core.data.clips import Clip
from interp_core.data.edits import clip_named, read_clip
from interp_core.errors import InterpError

RATE = 16_000
MOST_KNOWN = 100_000

_known: OrderedDict[str, Clip] = OrderedDict()
_lock = threading.Lock()


def url(clip: Clip) -> str:
    """Where the browser finds the clip. Clips come from manifests, which were checked against the allowed folders."""
    with _lock:
        _known[clip.digest] = clip
        while len(_known) > MOST_KNOWN:
            _known.popitem(last=False)
    base = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"{'/' + base if base else ''}/audio/{clip.digest}.wav"


def urls(ids: Iterable[str], clips: Mapping[str, Clip]) -> list[str | None]:
    """For a table's column of sound: a clip that is not there now has none."""
    found = (clip_named(one, clips) for one in ids)
    return [None if clip is None else url(clip) for clip in found]


def hear(what: str = "hear") -> dict[str, Any]:
    """What a table is told of a column of sound."""
    return {what: st.column_config.AudioColumn(width=60, help="double-click to play")}


def serve(request: Request) -> Response:
    """The route: 16-bit WAV, mono, 16 kHz. A digest names the sound for ever, so browsers may keep it."""
    with _lock:
        clip = _known.get(request.path_params["digest"])
    if clip is None:
        return Response("unknown clip", 404)
    try:
        samples = _read(clip, RATE)
    except InterpError as error:
        return Response(str(error), 404)
    wav = io.BytesIO()
    soundfile.write(wav, samples, RATE, format="WAV", subtype="PCM_16")
    return Response(
        wav.getvalue(), media_type="audio/wav", headers={"cache-control": "private, max-age=31536000, immutable"}
    )


def player_clip(clip: Clip, label: str, rate: int) -> PlayerClip:
    """A clip for the A/B player, decoded once and kept in the engine's cache."""
    engine = server.engine()
    key = ("player", clip.digest, rate)
    samples = engine.cache.get_or_make(key, lambda: _read(clip, rate))
    return PlayerClip(clip.digest, label, samples, rate)


def _read(clip: Clip, rate: int) -> np.ndarray:
    """What is heard under a digest is what the digest says. Errors: InterpError for a file that is another by now."""
    return read_clip(clip, rate, server.clip_limits())
