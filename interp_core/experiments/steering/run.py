"""Steering: does the direction of a label, added to the states of unseen clips, move the model's answer to it?

Vectors are fitted on one half of the units and added to clips of the other. A chunk of the fit is a batch of clips, one
of the run a clip with all its copies, so that a run which was killed goes on to the same digits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.data.columns import cluster_map
from interp_core.errors import CheckFailed
from interp_core.experiments import edited_words
from interp_core.experiments.clips import ClipReader, in_turn, plan_batches, pooled
from interp_core.experiments.example import Example
from interp_core.experiments.facts import before_semicolon
from interp_core.experiments.figures import sign
from interp_core.experiments.result import Result
from interp_core.experiments.steering import figures, tables
from interp_core.experiments.steering.checks import check_routes
from interp_core.experiments.steering.limits import LIMITS
from interp_core.experiments.steering.plan import Question, Shifts, SteerPlan
from interp_core.experiments.steering.request import Positions
from interp_core.experiments.steering.steered import SteeredClip
from interp_core.experiments.steering.vectors import States, SteeringVectors, fit_vectors, shuffled_vectors
from interp_core.experiments.steering.words import clips_in_words, words_of_clip
from interp_core.jobs import Progress, silent
from interp_core.sinks import MEMORY, Records, Sink, recorded
from interp_core.sites import Site

STATES, RECORDS, CHECKS = "states", "steering_records.jsonl", "sanity_check_steering.json"


@dataclass(frozen=True, eq=False, repr=False)
class SteeringResult(Result):
    """A finished run.

    Attributes:
        dose: one row a (prompt, condition, label, layer, alpha); see `tables.dose_table`.
        records: one row a (clip, prompt, condition, label, layer), with a list of what its copies answered.
        vectors: that were added.
        report: the checks before the run.
        answers: in words, one row a (clip, label, layer); see `edited_answers`. Empty where none were written.
    """

    dose: pd.DataFrame
    records: pd.DataFrame
    vectors: SteeringVectors
    report: Mapping[str, Any]
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)

    limits = LIMITS
    profile_x = "layer"

    @property
    def metrics(self) -> pd.DataFrame:
        """The table of doses."""
        return self.dose

    def tables(self) -> dict[str, pd.DataFrame]:
        spoken = {"answers": self.answers} if len(self.answers) else {}
        return {"dose": self.dose, "smallest_alpha": self.smallest, "records": self.records, **spoken}

    @property
    def smallest(self) -> pd.DataFrame:
        """Per label and layer the smallest strength that moves half of the clips."""
        return tables.smallest_alpha(self.dose)

    def checks(self) -> Sequence[Mapping[str, Any]]:
        return self.report.get("checks", ())

    def remarks(self) -> Sequence[str]:
        return tables.remarks(self.config, self.dose)

    def examples(self, most: int) -> list[Example]:
        return figures.examples(self.config, self.records, self.dose, most)

    def profile(self) -> pd.DataFrame:
        rows = tables.moved_by(self.dose, "vector")
        return tables.curves(rows[["label", "layer", "alpha", "moved_rate"]].rename(columns={"moved_rate": "value"}))

    def figure(self) -> Figure:
        drawn = figures.dose_figure(self.config, self.dose)
        return sign(drawn, self.signature("resid_post", f"{self.config['settings']['positions']} positions"))

    @property
    def counted(self) -> str:
        return f"n = {self.config['halves']['steered']['clips']} clips"

    @property
    def method(self) -> str:
        fitted = self.config["halves"]["fitted_on"]["clips"]
        said = f"difference of means of {fitted} other clips, {self.config['settings']['draws']} random vectors"
        return "; ".join(filter(None, [said, before_semicolon(self.dose["interval_method"])]))

    @property
    def labels(self) -> tuple[str, ...]:
        """Whose vectors were added."""
        return tuple(self.config["settings"]["targets"])

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.config["settings"]["layers"])


def states_of(
    reader: ClipReader,
    clips: Sequence[Clip],
    layers: Sequence[int],
    positions: Positions,
    *,
    batch_size: int = 8,
    sink: Sink = MEMORY,
    progress: Progress = silent,
) -> States:
    """[n_clips, width] float32 by layer: what each layer leaves of each clip, over the positions that are steered."""
    sites = [Site("resid_post", layer) for layer in layers]
    reduce = None if positions == "audio" else lambda _, value: value[:, -1].float()
    kept: dict[int, dict[Site, Any]] = {}
    # A clip alone where clips of unequal length would be padded: its last digits would hang on the others.
    for number, rows, then in in_turn(plan_batches([reader], clips, 1 if reader.subject.pads else batch_size)):
        saved = sink.arrays(STATES, number)
        if saved is None:
            parts = [made for _, made in pooled(reader.batch(clips, rows, then), sites, reduce)]
            made = {str(site): np.concatenate([part[site] for part in parts]) for site in sites}
            saved = sink.keep_arrays(STATES, number, made)
        for place, row in enumerate(rows):
            kept[row] = {site: saved[str(site)][place] for site in sites}
        progress(len(kept), len(clips), "reading states")
    return {site.layer: np.stack([kept[row][site] for row in range(len(clips))]) for site in sites}


def run_steering(
    plan: SteerPlan,
    clips: Sequence[Clip],
    config: Mapping[str, Any],
    *,
    sink: Sink,
    progress: Progress = silent,
) -> SteeringResult:
    """Fit on one half, steer the other.

    Args:
        plan: what to run.
        clips: all clips of the manifest, whose columns say what is right.
        config: kept in the result.
        sink: takes chunks as they are done and gives back those that an earlier run finished.
        progress: called with (done, total, note) and may raise to cancel.
    Raises:
        CheckFailed: a check before the run did not hold.
    """
    settings = plan.settings

    def reading(done: int, total: int, note: str = "") -> None:
        progress(done, total + len(plan.steered), note)

    vectors, shuffled = plan.vectors, {}
    if vectors is None:
        states = states_of(
            plan.questions[0].reader, plan.fitted, plan.fit_layers, settings.positions, sink=sink, progress=reading
        )
        vectors = fit_vectors(states, plan.named, plan.targets, plan.about)
        if "shuffled" in settings.controls:
            units = cluster_map(plan.fitted, settings.units)
            shuffled = shuffled_vectors(
                states, plan.named, plan.targets, [units[clip.clip_id] for clip in plan.fitted],
                draws=settings.draws, seed=settings.seed,
            )  # fmt: skip
    shifts = Shifts(plan, vectors, shuffled)
    report: Mapping[str, Any] = {"skipped": True}
    if settings.checks:
        try:
            report = check_routes(plan, shifts)
        except CheckFailed as error:
            sink.json(CHECKS, error.report)
            raise
    sink.expect(RECORDS, dict.fromkeys(range(len(plan.steered)), plan.records_a_clip))
    spoken = clips_in_words(plan)
    if spoken:
        sink.expect(edited_words.RECORDS, dict.fromkeys(range(len(spoken)), len(plan.targets) * len(plan.layers)))
    rows: Records = []
    written: Records = []
    for number, clip in enumerate(plan.steered):
        done = len(plan.fitted) + number + 1
        if sink.skips(number):
            progress(done, len(plan.fitted) + len(plan.steered), "steered copies of each clip")
            continue
        rows += recorded(sink, RECORDS, number, partial(steer_clip, plan, shifts, clip, number))
        if number < len(spoken):
            written += recorded(sink, edited_words.RECORDS, number, partial(words_of_clip, plan, shifts, clip))
        sink.show(partial(tables.so_far, rows, plan.questions[0].labels.labels, settings.at_controls))
        progress(done, len(plan.fitted) + len(plan.steered), "steered copies of each clip")
    sink.gather()
    truth = {clip.clip_id: clip for clip in clips}
    dose = tables.dose_table(
        rows,
        [truth[clip.clip_id] for clip in plan.steered],
        plan.questions[0].labels.labels,
        plan.columns,
        settings.units,
    )
    return SteeringResult(config, dose, pd.DataFrame(rows), vectors, report, pd.DataFrame(written))


def steer_clip(plan: SteerPlan, shifts: Shifts, clip: Clip, number: int) -> Records:
    """The records of one clip: as it is under every question, then every copy.

    Args:
        number: of the clip in the run; says which of the random draws it meets.
    """
    settings = plan.settings
    rows: Records = []
    nothing: dict[str, Any] = {"label": "", "layer": None, "alpha": [0.0], "draw": [None]}
    for prompt, question in enumerate(plan.questions):
        copies = SteeredClip(
            question.reader, clip, question.labels, settings.positions,
            together=settings.batch_size, method=settings.method,
        )  # fmt: skip
        about = {"clip_id": clip.clip_id, "prompt": prompt}
        mass = torch.tensor([copies.log_mass])
        base = {"condition": "base", **nothing} | _answered(question, copies.logits[None], mass)
        rows.append(about | base | {"method": settings.method})
        for layer in plan.layers:
            cells = list(shifts.cells(prompt, layer, number))
            logits, log_mass = copies.answers(layer, torch.cat([cell.shifts for cell in cells]))
            sizes = [len(cell.alphas) for cell in cells]
            for cell, some, mass in zip(cells, logits.split(sizes), log_mass.split(sizes), strict=True):
                added = {"condition": cell.condition, "label": cell.label, "layer": layer}
                added |= {"alpha": list(cell.alphas), "draw": list(cell.draws)}
                rows.append(about | added | _answered(question, some, mass) | {"method": settings.method})
    for label, question in plan.told.items():
        ready = question.reader.ready(clip)
        with torch.inference_mode(), question.reader.subject.lock:
            found, mass = question.labels.read(question.reader.answer([ready]))
        said = {"clip_id": clip.clip_id, "prompt": 0, "condition": "prompt", **nothing, "label": label}
        rows.append(said | _answered(question, found.cpu(), mass.cpu()) | {"method": settings.method})
    return rows


def _answered(question: Question, logits: Tensor, log_mass: Tensor) -> dict[str, Any]:
    """What copies answered: lists of one entry a copy; logits [copies, n_labels], log_mass [copies]."""
    return {
        "answer": [question.labels.labels[i] for i in logits.argmax(-1).tolist()],
        "logits": [[round(value, 4) for value in row] for row in logits.tolist()],
        "label_mass": [round(value, 5) for value in log_mass.exp().tolist()],
    }
