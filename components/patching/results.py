"""A finished run, laid out so that a click finds its rows without searching: nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from components.shown import Shown
from interp_core.experiments.patching.one_pair import best_layer, flipped
from interp_core.experiments.patching.request import donor_of
from interp_core.experiments.patching.result import PatchingResult

GROUP = ["kind", "prompt", "alpha"]


class Indexed:
    """A result by kind, prompt, strength and layer.

    Attributes:
        kinds, prompts, layers: in the order of the run; prompts are their texts, layers ascend from -1 (embeddings).
        donor: what is patched into A, in a few words; means: whether it is a class mean and not B.
        alphas: strengths of the matched sweep, the largest first.
        best_layer: the layer with the highest headline rate of the first kind under the first prompt, and
        best_pair: by kind, the first pair that flips there (else the first pair): where a page opens.
    """

    def __init__(self, result: PatchingResult) -> None:
        self.result = result
        metrics, records = result.metrics, result.records
        matched = records[records["condition"] == "matched"]
        self.kinds: tuple[str, ...] = tuple(dict.fromkeys(line["kind"] for line in result.pairs))
        self.prompts = result.prompts
        self.donor = donor_of(result.config["settings"])
        self.means = self.donor != "B"
        self.layers = tuple(sorted(int(layer) for layer in matched["layer"].unique()))
        self.alphas = tuple(sorted((float(a) for a in matched["alpha"].unique()), reverse=True))
        self.lines: dict[str, Mapping[str, Any]] = {line["pair_id"]: line for line in result.pairs}
        self._metrics = {_key(k): rows.reset_index(drop=True) for k, rows in metrics.groupby(GROUP, sort=False)}
        self._beside_controls: dict[tuple[str, int, float], pd.DataFrame] = {}
        self._doses = {_key(k): rows for k, rows in metrics.groupby(["kind", "prompt"], sort=False)}
        self._records = {_key(k): rows.set_index("pair_id") for k, rows in matched.groupby([*GROUP, "layer"])}
        self._places: dict[tuple[str, int, float], dict[tuple[str, int], int]] = {}
        self._no_records = records.iloc[:0].set_index("pair_id")
        self._patched_logits: dict[tuple[str, str, int, float], list[Sequence[float]]] = {}
        windows = result.time_records
        matched_windows = windows[windows["condition"] == "matched"] if len(windows) else windows
        self._time_records = (
            {str(pair): rows.to_dict("records") for pair, rows in matched_windows.groupby("pair_id", sort=False)}
            if len(windows)
            else {}
        )
        self.best_layer = self._best_layer()
        self.best_pair = {kind: self._best_pair(kind) for kind in self.kinds}
        self.methods = records["method"].value_counts().to_dict()

    def pairs(self, kind: str) -> list[str]:
        """Pair ids of a kind, in draw order."""
        return [pair_id for pair_id, line in self.lines.items() if line["kind"] == kind]

    def metrics(self, kind: str, prompt: int, alpha: float) -> pd.DataFrame:
        """Metrics of every condition and layer; the controls ran at one strength only and stand beside every other."""
        key = (kind, prompt, alpha)
        if key not in self._beside_controls:
            here = self._metrics.get(key, self.result.metrics.iloc[:0])
            if "random" not in set(here["condition"]):
                dose = self._doses.get((kind, prompt), here)
                here = pd.concat([here, dose[dose["condition"] != "matched"].assign(alpha=alpha)], ignore_index=True)
            self._beside_controls[key] = here
        return self._beside_controls[key]

    def doses(self, kind: str, prompt: int) -> pd.DataFrame:
        """Metrics of every strength."""
        return self._doses.get((kind, prompt), self.result.metrics.iloc[:0])

    def row(self, kind: str, prompt: int, alpha: float, condition: str, layer: int) -> pd.Series | None:
        """One row of the metrics, if it is there."""
        rows = self.metrics(kind, prompt, alpha)
        key = (kind, prompt, alpha)
        if key not in self._places:
            places = list(zip(rows["condition"], rows["layer"], strict=True))
            self._places[key] = {place: at for at, place in reversed([*enumerate(places)])}
        at = self._places[key].get((condition, layer))
        return None if at is None else rows.iloc[at]

    def at_layer(self, kind: str, prompt: int, alpha: float, layer: int) -> pd.DataFrame:
        """Records of the matched patch at a layer, one row a pair, by pair_id."""
        return self._records.get((kind, prompt, alpha, layer), self._no_records)

    def outcome(self, pair_id: str, kind: str, prompt: int, alpha: float, layer: int) -> pd.Series | None:
        """What became of one pair at a layer."""
        rows = self.at_layer(kind, prompt, alpha, layer)
        return rows.iloc[list(rows.index).index(pair_id)] if pair_id in rows.index else None

    def patched_logits(self, pair_id: str, kind: str, prompt: int, alpha: float) -> list[Sequence[float]]:
        """[layers][labels] of one pair: its label logits after the patch at every layer."""
        key = (pair_id, kind, prompt, alpha)
        if key not in self._patched_logits:
            rows = (self.outcome(*key, layer) for layer in self.layers)
            self._patched_logits[key] = [row["patched_logits"] for row in rows if row is not None]
        return self._patched_logits[key]

    def lens(self, kind: str, prompt: int) -> pd.DataFrame:
        """Logit lens of a kind under a prompt; empty where the run has none."""
        return _part(self.result.lens, kind, prompt)

    def knockout(self, kind: str, prompt: int) -> pd.DataFrame:
        """Attention knockout of a kind under a prompt; empty where the run has none."""
        return _part(self.result.knockout, kind, prompt)

    def words_moved(self, kind: str, prompt: int) -> pd.DataFrame:
        """Means over the answers in words of a kind; empty where the run has none, or none under this prompt."""
        return _part(self.result.words_moved, kind, prompt)

    def time_map(self, kind: str) -> pd.DataFrame:
        """The time map of a kind; empty where the run has none."""
        table = self.result.time_map
        return table[table["kind"] == kind] if len(table) else table

    def necessity(self, kind: str) -> pd.DataFrame:
        """What masking the top windows of a kind did; empty where the run has no time map."""
        table = self.result.necessity
        return table[table["kind"] == kind] if len(table) else table

    def time_records(self, pair_id: str) -> list[dict[Any, Any]]:
        """The windows of one pair, one record a layer in ascending order; none where the run has no time map."""
        return self._time_records.get(pair_id, [])

    def _best_layer(self) -> int:
        if not self.kinds or not self.layers:
            return -1
        rows = self.metrics(self.kinds[0], 0, self.alphas[0])
        rows = rows[rows["condition"] == "matched"]
        return best_layer(rows) if len(rows) else self.layers[0]

    def _best_pair(self, kind: str) -> str:
        rows = self.at_layer(kind, 0, self.alphas[0], self.best_layer)
        flips = rows[flipped(rows)]
        return str(flips.index[0]) if len(flips) else self.pairs(kind)[0]


def _key(group: Any) -> tuple[Any, ...]:
    kind, *rest = group
    return (str(kind), *(value.item() if hasattr(value, "item") else value for value in rest))


def _part(table: pd.DataFrame, kind: str, prompt: int) -> pd.DataFrame:
    if table.empty:
        return table
    here = table[table["kind"] == kind]
    return here[here["prompt"] == prompt] if "prompt" in here else here


def indexed(shown: Shown) -> Indexed:
    """The run on show, laid out."""
    return _indexed(shown.key, shown.result)


@st.cache_resource(max_entries=8, show_spinner="Laying out the run …")
def _indexed(key: str, _result: PatchingResult) -> Indexed:
    return Indexed(_result)
