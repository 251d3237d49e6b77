"""The second pass: every transplant over all clips, one forward pass of the recipient each, and what checks it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.experiments.checks import TOLERANCE, CheckFailed
from interp_core.experiments.compare_arms import Arm, edits_of, with_mix_of
from interp_core.experiments.compare_clean import Progress
from interp_core.experiments.compare_pass import Batch, Task, answer, batches, time_mean
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.hooks import captured, edited
from interp_core.trace.store import CleanStore

Map = Callable[[Tensor], Tensor]


class Sink(Protocol):
    """Where finished batches go, and come back from when a run goes on."""

    def expect(self, arms: int) -> None: ...

    def done(self, chunk: int) -> list[dict[str, Any]] | None: ...

    def keep(self, chunk: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]: ...


class Memory:
    """A run that is kept nowhere."""

    def expect(self, arms: int) -> None:
        return None

    def done(self, chunk: int) -> list[dict[str, Any]] | None:
        return None

    def keep(self, chunk: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return records


@dataclass(frozen=True, eq=False)
class Patched:
    """Logits [n, n_labels] by arm, and what the head reads then, [n, width], by arm, as far as it was asked for."""

    logits: Mapping[str, NDArray[np.float32]]
    read: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Transplanter:
    """Both models, and what is done to them."""

    base: Subject
    donor: Subject
    task: Task
    maps: Mapping[tuple[str, Site], Map]

    def run(self, arm: Arm, batch: Batch, given_from: Mapping[Site, Tensor], read: Site | None = None) -> tuple:
        """One arm over one batch: logits [batch, n_labels], and the time mean at `read` behind all edits, or None.

        Args:
            given_from: the other model's activations at the arm's sites, of the same batch.
        """
        subject, other = (self.donor, self.base) if arm.reverse else (self.base, self.donor)
        given = batch.given(arm.reverse)
        with ExitStack() as stack:
            stack.enter_context(with_mix_of(subject, other, arm.mode == "weights"))
            # The edits are registered last, so they run first and what is read has been edited.
            seen = stack.enter_context(captured(subject, [read] if read else []))
            stack.enter_context(edited(subject, edits_of(arm, given_from, self.maps)))
            logits = answer(subject, given, self.task.labels)
        return logits, time_mean(given, read, seen[read]) if read else None

    def states(self, batch: Batch, arms: Sequence[Arm]) -> dict[bool, Mapping[Site, Tensor]]:
        """The givers' activations for a batch, by direction; a model that gives nothing is not run."""
        found: dict[bool, Mapping[Site, Tensor]] = {}
        for reverse in (False, True):
            wanted = {s: None for a in arms if a.mode == "donor" and a.reverse == reverse for s in a.sites}
            giver = self.base if reverse else self.donor
            found[reverse] = {}
            if wanted:
                with captured(giver, list(wanted)) as seen:
                    answer(giver, batch.given(reverse, of_donor=True), self.task.labels)
                found[reverse] = {site: seen[site] for site in wanted}
        return found


def transplant_pass(
    base: CleanStore,
    donor: CleanStore,
    clips: Sequence[Clip],
    worker: Transplanter,
    arms: Sequence[Arm],
    planned: Sequence[tuple[int, ...]],
    *,
    read: Site,
    read_of: Sequence[str],
    kept: NDArray[np.intp],
    sink: Sink,
    progress: Progress,
) -> Patched:
    """Run every arm over every clip.

    Args:
        read: where the representation that the head reads stands; read_of: the arms for which it is kept, for the
            clips `kept`. Of a batch that an earlier run finished only these arms run again.
        sink: keeps the logits as they come.
    """
    n, k = len(clips), len(worker.task.labels.ids)
    logits = {arm.name: np.zeros((n, k), np.float32) for arm in arms}
    features: dict[str, NDArray[np.float32]] = {}
    place = {int(row): i for i, row in enumerate(kept)}
    done, total = 0, n * len(arms)
    sink.expect(len(arms))
    for batch in batches(base, donor, clips, worker.task.prompt, planned):
        saved = sink.done(batch.number)
        keeps = [i for i, row in enumerate(batch.rows) if row in place]
        todo = [arm for arm in arms if saved is None or (arm.name in read_of and keeps)]
        states = worker.states(batch, todo)
        records: list[dict[str, Any]] = []
        for arm in arms:
            if arm in todo:
                wanted = read if arm.name in read_of and keeps else None
                found, seen = worker.run(arm, batch, states[arm.reverse], wanted)
                if seen is not None:
                    held = features.setdefault(arm.name, np.zeros((len(place), seen.shape[1]), np.float32))
                    held[[place[batch.rows[i]] for i in keeps]] = seen[keeps]
                if saved is None:
                    records += [
                        {"chunk": batch.number, "clip_id": clips[row].clip_id, "model": arm.name, "logits": line}
                        for row, line in zip(batch.rows, found.tolist(), strict=True)
                    ]
            done += len(batch.rows)
            progress(done, total, f"transplants: {arm.name}")
        rows = saved if saved is not None else sink.keep(batch.number, records)
        at = {clips[row].clip_id: row for row in batch.rows}
        for line in rows:
            logits[line["model"]][at[line["clip_id"]]] = line["logits"]
    return Patched(logits, features)


def check_edits(worker: Transplanter, batch: Batch, sites: Sequence[Site]) -> dict[str, Any]:
    """Try every site on one batch: a model's own activation changes nothing, the donor's answer is the donor's.

    Raises:
        CheckFailed: a site does not hold; with the numbers of all.
    """
    base, donor, labels = worker.base, worker.donor, worker.task.labels
    with captured(base, sites) as own:
        clean = answer(base, batch.base, labels)
    checks = []
    for site in sites:
        arm = Arm("donor", (site,))
        found, _ = worker.run(arm, batch, {site: own[site]})
        checks.append(_check(f"self-patch at {site}", found, clean, base))
    if (last := Site("logits")) in sites:
        with captured(donor, [last]) as theirs:
            wanted = answer(donor, batch.donor, labels)
        found, _ = worker.run(Arm("donor", (last,)), batch, {last: theirs[last]})
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
