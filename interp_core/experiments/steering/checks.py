"""The checks before a run, on its first clip: adding nothing changes nothing, and the fast route is the reference."""

from typing import Any

import torch

from interp_core.errors import CheckFailed
from interp_core.experiments.checks import TOLERANCE, compared
from interp_core.experiments.steering.plan import Shifts, SteerPlan
from interp_core.experiments.steering.steered import SteeredClip


def check_routes(plan: SteerPlan, shifts: Shifts) -> dict[str, Any]:
    """Compare the routes behind every layer of a run, with its first label's vector at its largest strength.

    Returns:
        The report that a run folder keeps.
    Raises:
        CheckFailed: with all numbers, and in words which check, by how much.
    """
    question, clip, settings = plan.questions[0], plan.steered[0], plan.settings
    fast, slow = (
        SteeredClip(question.reader, clip, question.labels, settings.positions, method=method, together=2)
        for method in ("fast", "reference")
    )
    found: dict[str, list[torch.Tensor]] = {name: [] for name in ("fast", "slow", "fast at 0", "slow at 0")}
    for layer in plan.layers:
        vector = max(settings.alphas) * shifts.vector(layer, plan.targets[0])
        both = torch.stack([torch.zeros_like(vector), vector])
        for name, copies in (("fast", fast), ("slow", slow)):
            nothing, moved = copies.computed(layer, both)[0]
            found[f"{name} at 0"].append(nothing)
            found[name].append(moved)
    rows = {name: torch.stack(logits) for name, logits in found.items()}
    subject = question.reader.subject
    clean = slow.logits.expand_as(rows["slow"])
    results = [
        {**compared("alpha 0", rows["slow at 0"], clean, subject), "method": "reference"},
        {**compared("alpha 0", rows["fast at 0"], clean, subject), "method": "fast"},
        compared("fast = reference", rows["fast"], rows["slow"], subject),
    ]
    report = {
        "clip_id": clip.clip_id,
        "route": fast.route,
        "tolerance": TOLERANCE[subject.dtype],
        "checks": results,
        "passed": all(one["passed"] for one in results),
    }
    if failed := [one for one in results if not one["passed"]]:
        words = "; ".join(f"{one['check']} is off by {one['max_difference']:.2g}" for one in failed)
        raise CheckFailed(
            f"the checks before the run failed, so nothing was steered: {words} (allowed {failed[0]['allowed']:.2g}). "
            "Steering this model would give wrong numbers; --no-checks runs it all the same.",
            report,
        )
    return report
