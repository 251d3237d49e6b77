"""Each clip's mean state over the positions that a patch replaces, kept so that a run that goes on has the same digits.

Subspaces and class means are made of them.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.experiments.patching.chunks import Step
from interp_core.experiments.patching.plan import Plan
from interp_core.experiments.patching.positions import align_positions
from interp_core.sinks import MEMORY, Sink
from interp_core.trace.store import CleanStore

MEANS = "class_mean_states"
States = Mapping[int, Tensor]
"""[n_clips, width] float32 by layer."""


def read_states(plan: Plan, store: CleanStore, sink: Sink, step: Step, *, name: str, said: str, prompt: int) -> States:
    """The mean state of every clip of `plan.fitted_on` under a question; a chunk of the sink each, all in every shard.

    Args:
        name: of the sink's arrays, in which a further question's chunks stand behind those of the one before.
        said: what `step` is told.
    """
    rows: dict[int, list[Tensor]] = {layer: [] for layer in plan.spec.layers}
    for number, clip in enumerate(plan.fitted_on, prompt * len(plan.fitted_on)):
        saved: Mapping[str, Any] | None = sink.arrays(name, number)
        if saved is None:
            saved = sink.keep_arrays(name, number, _state(plan, store, clip, prompt))
        for layer in plan.spec.layers:
            rows[layer].append(torch.from_numpy(np.asarray(saved[str(layer)])))
        step(1, said)
    return {layer: torch.stack(some) for layer, some in rows.items()}


def _state(plan: Plan, store: CleanStore, clip: Clip, prompt: int) -> Mapping[str, Any]:
    """[width] float32 by layer, as the sink keeps it; kept beside the clip's run, for pairs by hand."""
    settings, spec = plan.settings, plan.spec
    asked = settings.prompts[prompt]

    def made() -> dict[str, Any]:
        run = store.run(clip, asked, (spec.kind,))
        at = align_positions(run.prompted, run.prompted, settings.positions, settings.align).positions
        found = {}
        for layer in spec.layers:
            state = run.at(spec.kind, layer)[:, spec.columns_at(layer)]
            # Where positions merge between blocks the patch is of all that are left.
            part = state if store.subject.whole_only else state[at.to(state.device)]
            found[str(layer)] = part.float().mean(0).cpu().numpy()
        return found

    at = (settings.positions, settings.align, spec.kind, spec.head, spec.layers)
    return store.kept(("mean state", store.subject.key, clip.digest, asked, *at), made)


def with_means(
    plan: Plan,
    store: CleanStore,
    sink: Sink = MEMORY,
    step: Step = lambda count, note: None,
    prompts: Collection[int] | None = None,
) -> Plan:
    """The plan with the states of its class means read; as it is where donors are clips.

    Args:
        prompts: under which questions; under all unless given.
    """
    if plan.means is None:
        return plan
    every = range(len(plan.settings.prompts))
    states = {
        prompt: read_states(plan, store, sink, step, name=MEANS, said="states of class means", prompt=prompt)
        for prompt in (every if prompts is None else prompts)
    }
    return replace(plan, means=replace(plan.means, states=states))


def steps_of(plan: Plan) -> int:
    """How often `with_means` tells of a clip."""
    return 0 if plan.means is None else len(plan.fitted_on) * len(plan.settings.prompts)
