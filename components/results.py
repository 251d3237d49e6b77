"""A finished run, laid out so that a click finds its rows without searching: nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import streamlit as st

from interp_core.experiments.patching import PatchingResult
from interp_core.request import PatchRequest, request_from

GROUP = ["kind", "prompt", "alpha"]


class Indexed:
    """A result by kind, prompt, strength and layer.

    Attributes:
        kinds, prompts, layers: in the order of the run; prompts are their texts, layers ascend from -1 (embeddings).
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
        self.layers = tuple(sorted(int(layer) for layer in matched["layer"].unique()))
        self.alphas = tuple(sorted((float(a) for a in matched["alpha"].unique()), reverse=True))
        self.lines: dict[str, Mapping[str, Any]] = {line["pair_id"]: line for line in result.pairs}
        self._metrics = {_key(k): rows.reset_index(drop=True) for k, rows in metrics.groupby(GROUP, sort=False)}
        self._doses = {_key(k): rows for k, rows in metrics.groupby(["kind", "prompt"], sort=False)}
        self._records = {_key(k): rows.set_index("pair_id") for k, rows in matched.groupby([*GROUP, "layer"])}
        self.best_layer = self._best_layer()
        self.best_pair = {kind: self._best_pair(kind) for kind in self.kinds}
        self.methods = records["method"].value_counts().to_dict()

    def pairs(self, kind: str) -> list[str]:
        """Pair ids of a kind, in draw order."""
        return [pair_id for pair_id, line in self.lines.items() if line["kind"] == kind]

    def metrics(self, kind: str, prompt: int, alpha: float) -> pd.DataFrame:
        """Metrics of every condition and layer; the controls ran at one strength only and stand beside every other."""
        here = self._metrics.get((kind, prompt, alpha), self.result.metrics.iloc[:0])
        if "random" in set(here["condition"]):
            return here
        dose = self._doses.get((kind, prompt), here)
        return pd.concat([here, dose[dose["condition"] != "matched"].assign(alpha=alpha)], ignore_index=True)

    def doses(self, kind: str, prompt: int) -> pd.DataFrame:
        """Metrics of every strength."""
        return self._doses.get((kind, prompt), self.result.metrics.iloc[:0])

    def row(self, kind: str, prompt: int, alpha: float, condition: str, layer: int) -> pd.Series | None:
        """One row of the metrics, if it is there."""
        rows = self.metrics(kind, prompt, alpha)
        rows = rows[(rows["condition"] == condition) & (rows["layer"] == layer)]
        return rows.iloc[0] if len(rows) else None

    def at_layer(self, kind: str, prompt: int, alpha: float, layer: int) -> pd.DataFrame:
        """Records of the matched patch at a layer, one row a pair, by pair_id."""
        return self._records.get((kind, prompt, alpha, layer), self.result.records.iloc[:0].set_index("pair_id"))

    def outcome(self, pair_id: str, kind: str, prompt: int, alpha: float, layer: int) -> pd.Series | None:
        """What became of one pair at a layer."""
        rows = self.at_layer(kind, prompt, alpha, layer)
        return rows.iloc[list(rows.index).index(pair_id)] if pair_id in rows.index else None

    def lens(self, kind: str, prompt: int) -> pd.DataFrame:
        """Logit lens of a kind under a prompt; empty where the run has none."""
        return _part(self.result.lens, kind, prompt)

    def knockout(self, kind: str, prompt: int) -> pd.DataFrame:
        """Attention knockout of a kind under a prompt; empty where the run has none."""
        return _part(self.result.knockout, kind, prompt)

    def _best_layer(self) -> int:
        if not self.kinds or not self.layers:
            return -1
        rows = self.metrics(self.kinds[0], 0, self.alphas[0])
        rows = rows[rows["condition"] == "matched"].sort_values("layer")
        rates = rows["flip_to_target_rate_reachable"].fillna(-1)
        # The last of the layers that share the peak: there the effect is still whole, and is about to end.
        return int(rows.loc[rates[rates >= rates.max()].index[-1], "layer"]) if len(rates) else self.layers[0]

    def _best_pair(self, kind: str) -> str:
        rows = self.at_layer(kind, 0, self.alphas[0], self.best_layer)
        flips = rows[flipped(rows)]
        return str(flips.index[0]) if len(flips) else self.pairs(kind)[0]


def flipped(rows: pd.DataFrame) -> pd.Series:
    """Which records are a flip to the target: it was not the answer before, and is now."""
    return (rows["base_prediction"] != rows["target"]) & (rows["patched_prediction"] == rows["target"])


def _key(group: Any) -> tuple[Any, ...]:
    kind, *rest = group
    return (str(kind), *(value.item() if hasattr(value, "item") else value for value in rest))


def _part(table: pd.DataFrame, kind: str, prompt: int) -> pd.DataFrame:
    if table.empty:
        return table
    here = table[table["kind"] == kind]
    return here[here["prompt"] == prompt] if "prompt" in here else here


@st.cache_resource(max_entries=8, show_spinner="Laying out the run …")
def indexed(key: str, _result: PatchingResult) -> Indexed:
    """The index of a result; `key` names the result."""
    return Indexed(_result)


@dataclass(frozen=True, eq=False)
class Shown:
    """The run that a page shows, and where it came from.

    Attributes:
        key: names the result.
        source: computed by a job of this server, read from a folder of earlier runs, or shipped with the demo.
        folder: where its files lie, if anywhere.
        differences: settings in which it is not what is asked for now, in words.
    """

    key: str
    result: PatchingResult
    source: Literal["job", "folder", "shipped"]
    folder: Path | None
    differences: Sequence[str]

    @property
    def index(self) -> Indexed:
        return indexed(self.key, self.result)

    @property
    def weights_hash(self) -> str:
        return str(self.result.config["model"]["weights_sha256"])


def differences(asked: PatchRequest, run: Mapping[str, Any]) -> list[str]:
    """In which settings a run is not what was asked: `alphas: 1.0 asked, 1.0, 0.5 in this run`."""
    made = request_from(run)
    pairs = [
        (n, getattr(asked, n), getattr(made, n)) for n in ("kinds", "max_pairs", "max_clips", "pilot", "part", "probe")
    ]
    names = type(asked.settings).__dataclass_fields__
    ignored = {"batch_size", "checks"}  # they do not decide what is shown
    pairs += [(n, getattr(asked.settings, n), getattr(made.settings, n)) for n in names if n not in ignored]
    return [f"{name}: {_said(now)} asked, {_said(then)} in this run" for name, now, then in pairs if now != then]


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple | list) else str(value)
