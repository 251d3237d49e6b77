"""What it will take to fit probes at every point: one pass of each clip, and the fits."""

from dataclasses import replace

import numpy as np

from interp_core.experiments.clips import ClipReader, pooled
from interp_core.experiments.cost import Cost, like_states, ready_seconds, timed
from interp_core.experiments.probes.capture import Read
from interp_core.experiments.probes.plan import ALONE, ProbesPlan, Target
from interp_core.experiments.probes.run import fit


def estimate(reader: ClipReader, plan: ProbesPlan) -> Cost:
    """Count clips and fits; time a batch of clips, and the probes of each target at one point, on noise."""
    n, settings = len(plan.clips), plan.settings
    waiting = n * ready_seconds(reader.ready, plan.clips)
    rows = tuple(range(min(n, settings.batch_size))) if not reader.subject.pads and reader.subject.one_shape else (0,)
    batch, point = reader.batch(plan.clips, rows), plan.points[0]
    site = point.site
    widths: list[int] = []
    each = timed(lambda: widths.append([v[site].shape[1] for _, v in pooled(batch, [site])][0])) / len(rows)
    noise = Read({point: like_states(n, widths[0], settings.seed)}, {})
    fitting = sum(timed(lambda target=target: _fitted(target, noise, plan)) for target in plan.targets)  # type: ignore[misc]
    fits = len(plan.targets) * len(plan.points) * settings.folds * (1 + settings.controls)
    units = {f"{len(set(target.units))} {target.unit}" for target in plan.targets if target.unit != ALONE}
    of = f"{n} clips" + (f" ({', '.join(sorted(units))})" if units else "")
    return Cost(n, n * each + waiting + len(plan.points) * fitting, of, f"{fits} fits of probes")


def _fitted(target: Target, noise: Read, plan: ProbesPlan) -> None:
    values = np.asarray(target.labels) if target.is_label else np.random.default_rng(1).normal(size=len(target.rows))
    fit(replace(target), values, noise, plan.points[:1], plan.settings)
