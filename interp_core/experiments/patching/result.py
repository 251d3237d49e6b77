"""What a finished patching run is: its tables, and its figures by the names of their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from interp_core.experiments.example import Example
from interp_core.experiments.facts import before_semicolon
from interp_core.experiments.figures import sign
from interp_core.experiments.patching import one_pair
from interp_core.experiments.patching.conflict import Conflict, question_names
from interp_core.experiments.patching.edit_figures import edit_figures
from interp_core.experiments.patching.figures import delta_logit_figure, flip_rate_figure
from interp_core.experiments.patching.head_figures import head_map_figure
from interp_core.experiments.patching.limits import LIMITS
from interp_core.experiments.patching.means import counts_said
from interp_core.experiments.patching.request import donor_in_title
from interp_core.experiments.patching.subspace_figures import subspace_figure
from interp_core.experiments.patching.time_figures import time_figure
from interp_core.experiments.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class PatchingResult(Result):
    """One patching run, finished: what the pages draw and a run folder keeps.

    Attributes:
        pairs: one dict a pair: pair_id, kind, recipient, donor, target, column.
        records: one row a prompt, alpha, condition, pair and layer.
        metrics: one row a kind, prompt, alpha, condition and layer.
        reports: tokenization_report, pair_construction_report, sanity_check_self_patch, sanity_check_audio_span.
        lens, knockout: information-flow tables; empty where not asked for.
    answers: in words, one row a pair and layer; see `words`. words_moved: their means, one row a kind and layer.
        head_map, head_agreement: every head's estimate and the verified ones' truth; how far the two agree. Or empty.
        time_map, necessity: `summarise_time` and `summarise_masks`; empty where no time map was asked for.
        time_records, mask_records: what they rest on, one row a pair and layer, and one a pair, side and mask.
        edits: what each edit did to each recording; edit_doses: the effect by dose. Empty where no donor is edited.
        conflict: of the clips alone: later layers in earlier ones, and prompts that state an answer.
        subspace, subspace_records: `summarise_subspace`, and a row a pair and layer; empty where none was exchanged.
    """

    pairs: Sequence[Mapping[str, Any]]
    records: pd.DataFrame
    metrics: pd.DataFrame
    reports: Mapping[str, Any]
    lens: pd.DataFrame = field(default_factory=pd.DataFrame)
    knockout: pd.DataFrame = field(default_factory=pd.DataFrame)
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)
    words_moved: pd.DataFrame = field(default_factory=pd.DataFrame)
    head_map: pd.DataFrame = field(default_factory=pd.DataFrame)
    head_agreement: pd.DataFrame = field(default_factory=pd.DataFrame)
    time_map: pd.DataFrame = field(default_factory=pd.DataFrame)
    necessity: pd.DataFrame = field(default_factory=pd.DataFrame)
    time_records: pd.DataFrame = field(default_factory=pd.DataFrame)
    mask_records: pd.DataFrame = field(default_factory=pd.DataFrame)
    edits: pd.DataFrame = field(default_factory=pd.DataFrame)
    edit_doses: pd.DataFrame = field(default_factory=pd.DataFrame)
    conflict: Conflict = field(default_factory=Conflict)
    subspace: pd.DataFrame = field(default_factory=pd.DataFrame)
    subspace_records: pd.DataFrame = field(default_factory=pd.DataFrame)

    def tables(self) -> dict[str, pd.DataFrame]:
        maps = {"head_map": self.head_map, "head_agreement": self.head_agreement}
        maps |= {"time_map": self.time_map, "necessity": self.necessity, "subspace": self.subspace}
        maps |= {"edit_doses": self.edit_doses, "edits": self.edits}
        return {
            **{"metrics": self.metrics, "records": self.records, "lens": self.lens, "knockout": self.knockout},
            **{"answers": self.answers, "words_moved": self.words_moved},
            **{name: table for name, table in maps.items() if len(table)},
            **self.conflict.tables(),
        }

    def figure(self) -> Figure:
        """Flip rates by layer of the first kind of pair; `figures` draws the others."""
        kind = self.pairs[0]["kind"]
        return sign(flip_rate_figure(self.shown(kind), self.heading(kind)), self.signature(n=self.of_kind(kind)))

    def figures(self) -> dict[str, Figure]:
        found: dict[str, Figure] = {}
        for kind in self.kinds:
            about = self.signature(n=self.of_kind(kind))
            found |= {name: sign(figure, about) for name, figure in self._figures_of(kind).items()}
        whole = edit_figures(self.edit_doses, self.model_name)
        whole |= self.conflict.figures(question_names(self.prompts), self.model_name)
        return found | {name: sign(figure, self.signature()) for name, figure in whole.items()}

    def _figures_of(self, kind: str) -> dict[str, Figure]:
        shown, title = self.shown(kind), self.heading(kind)
        found: dict[str, Figure] = {
            f"flip_rate_curve_{kind}": flip_rate_figure(shown, title),
            f"delta_logit_curve_{kind}": delta_logit_figure(shown, title),
        }
        if len(rows := self.heads_of(kind)):
            found[f"head_map_{kind}"] = head_map_figure(rows, self.agreement_of(kind), self.title_of_heads(kind))
        if len(self.time_map):
            found[f"time_map_{kind}"] = time_figure(self.time_map[self.time_map["kind"] == kind], title)
        if len(exchanged := self.subspace_of(kind)):
            found[f"subspace_{kind}"] = subspace_figure(exchanged, title)
        return found

    def of_kind(self, kind: str) -> str:
        """What a figure of a kind of pair counts."""
        n = sum(line["kind"] == kind for line in self.pairs)
        return f"n = {n} {kind} pair{'s' * (n != 1)}"

    @property
    def counted(self) -> str:
        return ", ".join(map(self.of_kind, self.kinds))

    @property
    def method(self) -> str:
        matched = self.metrics[self.metrics["condition"] == "matched"]
        routes = self.records.loc[self.records["condition"] == "matched", "method"].dropna().unique()
        route = f"route {' and '.join(map(str, routes))}" if len(routes) else ""
        return "; ".join(filter(None, [route, before_semicolon(matched["interval_method"])]))

    def signature(self, *settings: str, n: str = "") -> str:
        asked = self.config["settings"]
        return super().signature(asked["site"], f"{asked['positions']} positions", *settings, n=n)

    def checks(self) -> Sequence[Mapping[str, Any]]:
        return self.reports.get("sanity_check_self_patch", {}).get("checks", ())

    def examples(self, most: int) -> list[Example]:
        return one_pair.examples(self.config, self.records, self.metrics, self.kinds, most)

    @property
    def limits(self) -> str:  # type: ignore[override]
        return LIMITS + self.conflict.limits()

    profile_x = "layer"

    def profile(self) -> pd.DataFrame:
        rows = self.metrics[self.metrics["condition"] == "matched"]
        series = [
            f"{kind}, question {prompt + 1}, alpha {alpha:g}: flips to the target, of reachable pairs"
            for kind, prompt, alpha in zip(rows["kind"], rows["prompt"], rows["alpha"], strict=True)
        ]
        values = rows["flip_to_target_rate_reachable"].to_numpy()
        return pd.DataFrame({"series": series, "x": rows["layer"].to_numpy(), "value": values})

    def shown(self, kind: str) -> pd.DataFrame:
        """What a figure of a kind of pair draws: metrics under the first question, controls at the first strength."""
        rows = self.metrics[(self.metrics["kind"] == kind) & (self.metrics["prompt"] == 0)]
        return rows[rows["alpha"] == rows.loc[rows["condition"] == "matched", "alpha"].iloc[0]]

    def heads_of(self, kind: str, prompt: int = 0) -> pd.DataFrame:
        """Rows of the map of heads of a kind of pair under a question; none where the run has no such map."""
        if self.head_map.empty:
            return self.head_map
        return self.head_map[(self.head_map["kind"] == kind) & (self.head_map["prompt"] == prompt)]

    def agreement_of(self, kind: str, prompt: int = 0) -> pd.Series:
        """How far the estimates of `heads_of` can be trusted."""
        table = self.head_agreement
        return table[(table["kind"] == kind) & (table["prompt"] == prompt)].iloc[0]

    def subspace_of(self, kind: str) -> pd.DataFrame:
        """Rows of `subspace` of a kind of pair; none where the run has none."""
        return self.subspace[self.subspace["kind"] == kind] if len(self.subspace) else self.subspace

    def title_of_heads(self, kind: str) -> str:
        return f"{self.model_name}: {kind} pairs, every head at {self.config['settings']['positions']} positions"

    def heading(self, kind: str) -> str:
        """Of the figures of a kind of pair."""
        settings = self.config["settings"]
        return f"{self.model_name}: {kind} pairs, {settings['site']}{donor_in_title(settings)}"

    def remarks(self) -> Sequence[str]:
        return [said] if (said := counts_said(self.config.get("donor_means", ()))) else []

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of pairs, in the order of the run."""
        return tuple(dict.fromkeys(line["kind"] for line in self.pairs))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config["settings"]["labels"])

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.config["settings"]["prompts"])
