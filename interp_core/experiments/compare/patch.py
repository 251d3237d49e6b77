"""The second pass: every transplant over all clips, one forward pass of the recipient each, and what checks it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import CheckFailed
from interp_core.experiments.checks import TOLERANCE
from interp_core.experiments.compare.erase import on_recordings
from interp_core.experiments.compare.passes import PairBatch, Readout, answer, batches, time_mean
from interp_core.experiments.compare.transplants import ERASURES, Transplant, edits_of, with_mix_of
from interp_core.jobs import Progress
from interp_core.models.subject import Subject
from interp_core.sinks import Arrays, Sink
from interp_core.sites import Site
from interp_core.trace.hooks import captured, edited
from interp_core.trace.store import CleanStore

Map = Callable[[Tensor], Tensor]


RECORDS = "compare_records_logits.jsonl"
READ = "read"


@dataclass(frozen=True, eq=False)
class Patched:
    """Logits [n, n_labels] and, as far as it was asked for, what the head reads then, [n, width]; by transplant."""

    logits: Mapping[str, NDArray[np.float32]]
    read: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Transplanter:
    """Both models, and what is done to them."""

    base: Subject
    donor: Subject
    task: Readout
    maps: Mapping[tuple[str, Site], Map]

    def run(
        self, transplant: Transplant, batch: PairBatch, given_from: Mapping[Site, Tensor], read: Site | None = None
    ) -> tuple:
        """One transplant over one batch: logits [batch, n_labels]; the time mean at `read` behind all edits, or None.

        Args:
            given_from: the other model's activations at the transplant's sites, of the same batch.
        """
        subject, other = (self.donor, self.base) if transplant.reverse else (self.base, self.donor)
        given = batch.given(transplant.reverse)
        with ExitStack() as stack:
            stack.enter_context(with_mix_of(subject, other, transplant.mode == "weights"))
            # The edits are registered last, so they run first and what is read has been edited.
            seen = stack.enter_context(captured(subject, [read] if read else []))
            edits = edits_of(transplant, given_from, self.maps)
            stack.enter_context(edited(subject, on_recordings(given, edits) if transplant.mode in ERASURES else edits))
            logits = answer(given, self.task.labels)
        return logits, time_mean(given, read, seen[read]) if read else None

    def states(self, batch: PairBatch, transplants: Sequence[Transplant]) -> dict[bool, Mapping[Site, Tensor]]:
        """The givers' activations for a batch, by direction; a model that gives nothing is not run."""
        found: dict[bool, Mapping[Site, Tensor]] = {}
        for reverse in (False, True):
            wanted = {s: None for a in transplants if a.mode == "donor" and a.reverse == reverse for s in a.sites}
            giver = self.base if reverse else self.donor
            found[reverse] = {}
            if wanted:
                with captured(giver, list(wanted)) as seen:
                    answer(batch.given(reverse, of_donor=True), self.task.labels)
                found[reverse] = {site: seen[site] for site in wanted}
        return found


def transplant_pass(
    base: CleanStore,
    donor: CleanStore,
    clips: Sequence[Clip],
    worker: Transplanter,
    transplants: Sequence[Transplant],
    planned: Sequence[tuple[int, ...]],
    *,
    read: Site,
    read_of: Sequence[str],
    kept: NDArray[np.intp],
    clean: Mapping[str, NDArray[np.float32]],
    reported: NDArray[np.bool_],
    sink: Sink,
    progress: Progress,
) -> Patched:
    """Run every transplant over every clip.

    Args:
        read: where the representation that the head reads stands; read_of: the transplants for which it is kept, of
            the clips `kept`.
        clean: [n, labels] logits of "base" and "donor" as they are. reported: [n] the half that numbers are of; both
            for what the run shows while it goes on.
        sink: keeps the logits and these representations as they come; a batch that it has is not run again.
    """
    n, k = len(clips), len(worker.task.labels.ids)
    logits = {transplant.name: np.zeros((n, k), np.float32) for transplant in transplants}
    features: dict[str, NDArray[np.float32]] = {}
    place = {int(row): i for i, row in enumerate(kept)}
    done, total = 0, n * len(transplants)
    through: list[int] = []
    sink.expect(RECORDS, {number: len(rows) * len(transplants) for number, rows in enumerate(planned)})
    for batch in batches(base, donor, clips, worker.task.prompt, planned):
        if sink.skips(batch.number):
            done += len(batch.rows) * len(transplants)
            progress(done, total, "transplants")
            continue
        saved = sink.records(RECORDS, batch.number)
        keeps = [i for i, row in enumerate(batch.rows) if row in place]
        wanted = read_of if keeps else ()
        seen: Arrays | None = {}
        if wanted:
            seen = None if saved is None else sink.arrays(READ, batch.number)
        todo = [
            transplant for transplant in transplants if saved is None or (seen is None and transplant.name in wanted)
        ]
        states = worker.states(batch, todo)
        records: list[dict[str, Any]] = []
        new: dict[str, NDArray[np.float32]] = {}
        for transplant in transplants:
            if transplant in todo:
                found, after = worker.run(
                    transplant, batch, states[transplant.reverse], read if transplant.name in wanted else None
                )
                if after is not None:
                    new[transplant.name] = after[keeps]
                records += [
                    {"clip_id": clips[row].clip_id, "model": transplant.name, "logits": line}
                    for row, line in zip(batch.rows, found.tolist(), strict=True)
                ]
            done += len(batch.rows)
            progress(done, total, f"transplants: {transplant.name}")
        if seen is None:  # before the records, which say that the batch is done
            seen = sink.keep_arrays(READ, batch.number, new)
        rows = saved if saved is not None else sink.keep_records(RECORDS, batch.number, records)
        for name in wanted:
            held = features.setdefault(name, np.zeros((len(place), seen[name].shape[1]), np.float32))
            held[[place[batch.rows[i]] for i in keeps]] = seen[name]
        at = {clips[row].clip_id: row for row in batch.rows}
        for line in rows:
            logits[line["model"]][at[line["clip_id"]]] = line["logits"]
        through += [row for row in batch.rows if reported[row]]
        sink.show(partial(changes_so_far, logits, clean, transplants, through))
    sink.gather()
    return Patched(logits, features)


def changes_so_far(
    logits: Mapping[str, NDArray[np.float32]],
    clean: Mapping[str, NDArray[np.float32]],
    transplants: Sequence[Transplant],
    through: Sequence[int],
) -> pd.DataFrame:
    """The share of answers that each transplant changes, over the clips that are through; no row while none is.

    Args:
        through: rows of the clips, to which another thread may add meanwhile.
    """
    rows = list(through)
    table = []
    for transplant in transplants if rows else ():
        own = clean["donor" if transplant.reverse else "base"][rows].argmax(1)
        changed = (logits[transplant.name][rows].argmax(1) != own).mean()
        table.append({"series": "answers that change", "x": transplant.name, "value": changed, "n": len(rows)})
    return pd.DataFrame(table, columns=["series", "x", "value", "n"])


def check_edits(worker: Transplanter, batch: PairBatch, sites: Sequence[Site]) -> dict[str, Any]:
    """Try every site on one batch: a model's own activation changes nothing, the donor's answer is the donor's.

    Raises:
        CheckFailed: a site does not hold; with the numbers of all.
    """
    base, donor, labels = worker.base, worker.donor, worker.task.labels
    with captured(base, sites) as own:
        clean = answer(batch.base, labels)
    checks = []
    for site in sites:
        transplant = Transplant("donor", (site,))
        found, _ = worker.run(transplant, batch, {site: own[site]})
        checks.append(_check(f"self-patch at {site}", found, clean, base))
    if (last := Site("logits")) in sites:
        with captured(donor, [last]) as theirs:
            wanted = answer(batch.donor, labels)
        found, _ = worker.run(Transplant("donor", (last,)), batch, {last: theirs[last]})
        checks.append(_check("the donor's logits are its answer", found, wanted, base))
    report = {"tolerance": TOLERANCE[base.dtype], "checks": checks, "passed": all(c["passed"] for c in checks)}
    failed = [check for check in checks if not check["passed"]]
    if failed:
        words = "; ".join(f"{c['check']} is off by {c['max_difference']:.2g}" for c in failed)
        raise CheckFailed(
            f"the checks before the transplants failed: {words} (allowed {failed[0]['allowed']:.2g}). Transplants into "
            "this model would give wrong numbers; --no-checks runs them all the same.",
            {"self_patch": report},
        )
    return report


def _check(name: str, found: Tensor, wanted: Tensor, subject: Subject) -> dict[str, Any]:
    allowed = TOLERANCE[subject.dtype] * max(1.0, float(wanted.abs().max()))
    difference = float((found - wanted).abs().max())
    return {"check": name, "max_difference": difference, "allowed": allowed, "passed": difference <= allowed}


def fitted_maps(sums: Mapping[Site, Any], modes: Sequence[str]) -> dict[tuple[str, Site], Map]:
    """Every map of every mode."""
    with torch.inference_mode():
        return {(mode, site): made.made(mode) for site, made in sums.items() for mode in modes}
