"""What a run will cost, said before it starts."""

import time
from dataclasses import dataclass

from interp_core.experiments.patching import patches_of
from interp_core.experiments.plan import Plan
from interp_core.trace.clean import clean_runs
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import cost


@dataclass(frozen=True)
class Estimate:
    """Clean forward passes (or what costs as much) and, from one timed pass, seconds."""

    forwards: float
    seconds: float
    clips: int
    pairs: int

    def __str__(self) -> str:
        minutes = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:.0f} min"
        return f"{self.pairs} pairs over {self.clips} clips: about {self.forwards:.0f} forward passes, {minutes}"


def estimate(plan: Plan, store: CleanStore) -> Estimate:
    """Estimate a run from the first chunk of each condition and one timed forward pass."""
    per_pair: dict[tuple[str, float], float] = {}
    forwards = 0.0
    for chunk in plan.chunks:
        key = (chunk.condition, chunk.alpha)
        if key not in per_pair:
            patches = patches_of(plan, store, chunk)[0]
            total = sum(cost(store.subject, patch, plan.spec, plan.settings.method) for patch in patches)
            per_pair[key] = total / len(patches)
        forwards += per_pair[key] * len(chunk.pairs)
    clips = {c.clip_id: c for pair in plan.pairs.pairs for c in (pair.recipient, pair.donor)}
    forwards += len(clips) * len(plan.settings.prompts)
    first = store.prompted(plan.pairs.pairs[0].recipient, plan.settings.prompts[0])
    clean_runs(store.subject, [first])
    started = time.perf_counter()
    clean_runs(store.subject, [first])
    return Estimate(forwards, forwards * (time.perf_counter() - started), len(clips), len(plan.pairs.pairs))
