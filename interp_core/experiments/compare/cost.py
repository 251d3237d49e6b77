"""What a comparison will take: passes of both models, and the probes of the domain."""

import numpy as np

from interp_core.experiments.compare.passes import answer, batches, points_of
from interp_core.experiments.compare.plan import ComparePlan
from interp_core.experiments.compare.probes import count_probes, probe_sites
from interp_core.experiments.compare.run import probed_transplants
from interp_core.experiments.compare.units import values_of
from interp_core.experiments.cost import Cost, like_states, ready_seconds, timed
from interp_core.sites import Site


def estimate(plan: ComparePlan) -> Cost:
    """Count the passes; time a batch of each model, and a probe of each class of clips on noise."""
    n, labels, readers = len(plan.clips), plan.task.labels, plan.readers
    waiting = n * sum(ready_seconds(reader.ready, plan.clips) for reader in readers)
    first = next(batches(plan.base, plan.donor, plan.clips, plan.task.prompt, plan.planned[:1]))
    spent = sum(timed(lambda given=given: answer(given, labels)) for given in (first.base, first.donor))  # type: ignore[misc]
    each = spent / 2 / len(first.rows)
    probes, probing = _probing(plan)
    also = f"{probes} domain probes" if probes else ""
    return Cost(plan.forwards, plan.forwards * each + waiting + probing, f"{n} clips", also)


def _probing(plan: ComparePlan) -> tuple[int, float]:
    """The domain probes, and their seconds as one takes on noise; sites that are alike are not probed twice."""
    domain = values_of(plan.clips, plan.units.columns.domain)
    if not any(domain):
        return 0, 0.0
    subject, settings = plan.base.subject, plan.settings
    sites = [site for site in points_of(subject) if site.kind != "logits"]
    after = len(probed_transplants(plan.transplants([0.0] * subject.n_layers)))
    everybody, one = np.ones(len(plan.clips), bool), [str(sites[0])]
    noise = like_states(len(plan.clips), subject.d_model, settings.seed).astype(np.float32)

    def fitted(among: np.ndarray) -> float:
        made = {"base": {one[0]: noise}}
        return timed(
            lambda: probe_sites(
                made, plan.units, domain, among, draws=settings.probe_draws, seed=settings.seed, measured="site"
            )
        )

    different = 2 * len(sites) - len({Site(s.kind, s.layer) for s in plan.null} & set(sites))
    seconds = different * fitted(everybody) + (2 + after) * fitted(plan.units.reported)
    return count_probes({"base": one * (2 * len(sites) + 2 + after)}, plan.units, domain), seconds
