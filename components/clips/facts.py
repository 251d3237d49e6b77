"""What a recording looks and sounds like, for a row of the table: envelope, level, duration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from interp_core.data.clips import ClipLimits, decode
from interp_core.data.collection import fault_of, level_dbfs

ENVELOPE_POINTS = 80


@dataclass(frozen=True)
class ClipFacts:
    """Of one recording.

    Attributes:
        seconds: its duration.
        level: root mean square in dB below full scale; -inf for silence.
        envelope: the largest magnitude of each of 80 stretches, 1 = full scale.
        fault: what is wrong with it, in a word or two; "" for nothing.
    """

    seconds: float
    level: float
    envelope: tuple[float, ...]
    fault: str

    @property
    def words(self) -> str:
        """Duration and level, and what is wrong with it: `2.37 s, -24 dB, clipped`."""
        level = "" if np.isinf(self.level) else f", {self.level:.0f} dB"
        return f"{self.seconds:.2f} s{level}{f', {self.fault}' if self.fault else ''}"


@st.cache_data(max_entries=4096, show_spinner=False)
def measured(path: str, digest: str) -> ClipFacts:
    """Measure a recording; `digest` is of its file as it is now. Errors: BadAudio."""
    samples, rate = decode(Path(path), ClipLimits(min_seconds=1e-3, max_seconds=86_400))
    parts = np.array_split(np.abs(samples), min(ENVELOPE_POINTS, len(samples)))
    fault, _ = fault_of(samples)
    return ClipFacts(len(samples) / rate, level_dbfs(samples), tuple(float(part.max()) for part in parts), fault)
