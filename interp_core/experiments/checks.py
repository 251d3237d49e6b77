"""The checks that run before a sweep and stop it: does an edit do what it says, and do the fast routes agree?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp_core.choices import Method
from interp_core.data.pairs import Pair
from interp_core.errors import CheckFailed
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 2e-2}
"""Largest |difference| / max(1, largest |logit|) that counts as equal, by dtype."""


@dataclass(frozen=True)
class CheckReport:
    """The two reports that a run folder keeps."""

    self_patch: dict[str, Any]
    audio_span: dict[str, Any]


def run_checks(
    store: CleanStore,
    pairs: Sequence[Pair],
    labels: LabelTokens,
    prompt: str,
    patches: Sequence[Patch],
    spec: SiteSpec,
    *,
    n_span: int = 5,
) -> CheckReport:
    """Check the model, the site and the methods on the first pairs of a run.

    - *self-patch*: patching a clip with itself leaves the logits, at every layer.
    - *whole donor*: a donor of equal length patched at all positions gives the donor's logits at every layer of
      `resid_post` behind which nothing else is read, which catches an edit that does nothing.
    - *prefix*: patching the positions before the audio changes nothing in a causal model.
    - *fast = reference*: on the first of `patches`.
    - every (row, layer) edit applied once is counted by the sweep itself.

    Args:
        store: clean runs.
        pairs: two or more clips' worth; the first are used.
        labels: the readout.
        prompt: of the runs.
        patches: what the run will do first; the methods are compared on the first two.
        spec: its site and layers.
    Raises:
        CheckFailed: with all numbers, and in words which check, by how much.
    """
    subject = store.subject
    clips = list({c.clip_id: c for p in pairs[:n_span] for c in (p.recipient, p.donor)}.values())
    runs = [store.run(clip, prompt, (spec.kind,)) for clip in clips[: max(2, n_span)]]
    spans = [{"clip": r.prompted.clip_id, **subject.describe(r.prompted)} for r in runs]
    longest = max(runs[:2], key=lambda run: run.prompted.n_pos)
    results = [
        _agreement("self-patch", subject, _everywhere(longest, longest), longest, labels, spec, method)
        for method in ("reference", "fast")
    ]
    whole = SiteSpec("resid_post", layers=tuple(subject.exact_layers))
    recipient, donor = _equal_length(store, pairs[0], prompt)
    if whole.layers:
        results += [
            _agreement("whole donor", subject, _everywhere(recipient, donor), donor, labels, whole, method)
            for method in ("reference", "fast")
        ]
    stop = recipient.prompted.audio[0]
    if stop and "prefix" in subject.spans and subject.arch.causal:
        # Two different prefixes would change the answer; the same one, as here, must not.
        prefix = Patch(runs[0], runs[-1], torch.arange(stop), torch.arange(stop).double())
        results.append(_agreement("prefix", subject, prefix, runs[0], labels, spec, "fast"))
    some = list(patches[:2])
    if some:
        fast, slow = sweep(subject, some, labels, spec), sweep(subject, some, labels, spec, method="reference")
        results.append(
            compared(
                f"fast ({', '.join(sorted(set(fast.methods)))}) = reference",
                fast.label_logits,
                slow.label_logits,
                subject,
            )
        )
        flips = fast.label_logits.argmax(-1) != slow.label_logits.argmax(-1)
        results[-1]["changed_predictions"] = int(flips.sum())
    audio_span = {"clips": spans, "spans_per_clip": 1, "passed": all(s["audio_positions"] > 0 for s in spans)}
    report = {"tolerance": TOLERANCE[subject.dtype], "checks": results, "passed": all(r["passed"] for r in results)}
    failed = [r for r in results if not r["passed"]]
    if failed:
        words = "; ".join(
            f"{r['check']} ({r.get('method', 'both methods')}) is off by {r['max_difference']:.2g}" for r in failed
        )
        raise CheckFailed(
            f"the pre-run checks failed, so nothing was swept: {words} (allowed {failed[0]['allowed']:.2g}). "
            "Patching this model at this site would give wrong numbers; --no-checks runs it all the same.",
            {"self_patch": report, "audio_span": audio_span},
        )
    return CheckReport(report, audio_span)


def _everywhere(recipient: CleanRun, donor: CleanRun) -> Patch:
    every = torch.arange(recipient.prompted.n_pos)
    return Patch(recipient, donor, every, every.double())


def _equal_length(store: CleanStore, pair: Pair, prompt: str) -> tuple[CleanRun, CleanRun]:
    """Cut the pair's two clips to the shorter one's samples, so that both take the same number of positions."""
    a, b = store.samples(pair.recipient), store.samples(pair.donor)
    n = min(len(a), len(b))
    cut = [prompt_clip(store.subject, x[:n], prompt, c.clip_id) for x, c in ((a, pair.recipient), (b, pair.donor))]
    recipient, donor = (clean_runs(store.subject, [prompted])[0] for prompted in cut)
    return recipient, donor


def _agreement(
    check: str, subject: Subject, patch: Patch, expected: CleanRun, labels: LabelTokens, spec: SiteSpec, method: Method
) -> dict[str, Any]:
    found = sweep(subject, [patch], labels, spec, method=method)
    wanted = labels.read(expected.logits[None])[0].cpu().expand_as(found.label_logits[0])
    return {**compared(check, found.label_logits[0], wanted, subject), "method": found.methods[0]}


def compared(check: str, found: torch.Tensor, wanted: torch.Tensor, subject: Subject) -> dict[str, Any]:
    """One check of a report: [.., n_layers, n_labels] logits that were found, and what they have to be."""
    allowed = TOLERANCE[subject.dtype] * max(1.0, float(wanted.abs().max()))
    difference = (found - wanted).abs()
    by_layer = difference.amax(tuple(i for i in range(difference.ndim) if i != difference.ndim - 2))
    return {
        "check": check,
        "max_difference": float(difference.max()),
        "allowed": allowed,
        "by_layer": [float(np.round(d, 8)) for d in by_layer],
        "passed": bool(difference.max() <= allowed),
    }
