"""How often each p that Patchbay prints is .05 or less without an effect, and how often each 95 % interval misses.

Every quantity is a function that makes one synthetic data set (no model) and calls the product's own function on it.

python benchmarks/calibration.py [patch knockout fisher ...] [--sets 300]
"""

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from benchmarks.calibrating import DRAWS, Found, Named, designs, normal, rates
from benchmarks.calibration_maps import doses, headmap, probes, stated, steering, subspace, timemap
from interp_core.experiments.compare.measures import accuracies
from interp_core.experiments.heads.ablate import Task, answer_changes, donor_draws
from interp_core.experiments.neurons.measures import balance, measured
from interp_core.experiments.neurons.scores import LinearProbe, overlap, ranked
from interp_core.experiments.signflip.tables import changes
from interp_core.maths.cka import CkaStream
from interp_core.maths.fisher import fisher_interval, fisher_ratio, fisher_test
from interp_core.maths.probes import linear_probe, probe_difference
from interp_core.maths.scores import bootstrap_over_speakers
from interp_core.maths.stats import (
    crossed_max_test,
    pigeonhole_interval,
    pigeonhole_weights,
    rate_intervals,
    sign_flip_max_test,
)
from interp_core.models.labels import LabelTokens


def patch(seed: int) -> Named:
    """60 pairs; who donates decides a flip as much as who receives. Over 8 layers, that go together."""
    rng = np.random.default_rng([1, seed])
    pairs, layers, limit = 60, 8, 0.7
    designs = [(20, 20, 20), (30, 8, 30), (30, 8, 8), (60, 20, 6), (30, 12, 12), (30, 3, 30)]
    for pool, counts in [*((False, counts) for counts in designs), (True, (20, 20, 20))]:
        codes = [rng.permutation(pairs) % n for n in counts]
        of = [rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, layers)) for n in (max(c) + 1 for c in codes)]
        recipient, donor, random = (of[0 if pool else i][c] for i, c in enumerate(codes))
        noise = rng.normal(size=(2, pairs, layers))
        latent = recipient + donor + noise[0]
        patched = (latent > limit).astype(float)
        difference = patched - (recipient + random + noise[1] > limit)
        names = [[f"{0 if pool else i} {code:02d}" for code in c] for i, c in enumerate(codes)]
        said = f"patch, {'one pool of 20' if pool else ' + '.join(map(str, counts))} clusters"
        alone = sign_flip_max_test(difference, names[0], draws=DRAWS, seed=seed).adjusted_p
        yield f"{said}: p by recipients alone (not printed)", Found(alone)
        sides = dict(zip(("recipient", "donor", "random donor"), names, strict=True))
        p = crossed_max_test(difference, sides, draws=DRAWS, seed=seed).adjusted_p
        yield f"{said}: adjusted p", Found(p if p is not None else np.nan)
        weights, n = pigeonhole_weights(*names[:2], draws=DRAWS, seed=seed), len(set(names[0] + names[1]))
        mean, rate = (pigeonhole_interval(part, weights, n_clusters=n) for part in (latent, patched))
        yield f"{said}: mean", Found(low=mean.low, high=mean.high, truth=0)
        both = (
            codes[0] == codes[1] if pool else np.zeros(pairs, bool)
        )  # a clip's own cluster as donor: twice its effect
        truth = np.mean(1 - norm.cdf(limit / np.sqrt(np.where(both, 4 * 1.25 + 1, 2 * 1.25 + 1))))
        yield f"{said}: flip rate", Found(low=rate.low, high=rate.high, truth=truth)


def knockout(seed: int) -> Named:
    """60 clips of 20 clusters, of which some change their answer more easily than others."""
    rng = np.random.default_rng([2, seed])
    of = rng.permutation(60) % 20
    changed = normal(rng, of) + rng.normal(size=60) > 0.7
    own, _ = rate_intervals(changed[:, None], [str(cluster) for cluster in of])
    yield "knockout: changed rate", Found(low=own.low, high=own.high, truth=1 - norm.cdf(0.7 / np.sqrt(2)))


def fisher(seed: int) -> Named:
    """Eight heads of four dimensions that know the group, and half as well a text that crosses the groups."""
    rng, means = np.random.default_rng([3, seed]), np.random.default_rng(3).normal(size=(3, 8, 4))
    for said, codes, groups in designs(rng):
        x = normal(rng, groups, 8, 4) + 0.5 * normal(rng, rng.permutation(len(codes)) % 6, 8, 4)
        x += rng.normal(size=x.shape)
        labels = [f"class {code}" for code in codes]
        yield f"heads, {said}: adjusted p", Found(fisher_test(x, labels, groups, draws=DRAWS, seed=seed).adjusted_p)
        for effect in (0.0, 1.0):
            moved = x + effect * means[codes]
            limits, value = fisher_interval(moved, labels, groups), fisher_ratio(moved, labels).normalised
            yield f"heads, {said}: F, effect {effect:g}", Found(low=limits.low, high=limits.high, value=value)


def probe(seed: int) -> Named:
    """A linear probe of eight dimensions, of one strength; without an effect it names labels by chance."""
    rng = np.random.default_rng([4, seed])
    means = np.random.default_rng(4).normal(size=(3, 8))
    for said, codes, groups in designs(rng):
        x, labels = normal(rng, groups, 8) + rng.normal(size=(len(codes), 8)), [f"class {code}" for code in codes]
        made = []
        for effect in (0.0, 0.7):
            many = 0 if effect else DRAWS
            found = linear_probe(x + effect * means[codes], labels, groups, strengths=(0.1,), draws=many, seed=seed)
            limits = {"low": found.interval.low, "high": found.interval.high}
            if not effect:
                yield f"probe, {said}: p", Found(found.p)
            truth = None if effect else 1 / 3
            yield f"probe, {said}: accuracy, effect {effect:g}", Found(**limits, value=found.accuracy, truth=truth)
            made.append(found)
        gap, interval = probe_difference(made[0], made[1], labels, groups)
        yield f"probe, {said}: difference", Found(low=interval.low, high=interval.high, value=gap)


def ablation(seed: int) -> Named:
    """Answers of a model of two classes without one head; a resample's donors are shared, and decide as much."""
    rng = np.random.default_rng([5, seed])
    for said, sizes in (("30 groups, 30 + 30 clips", (30, 30)), ("30 groups, 52 + 8 clips", (52, 8))):
        truth = rng.permutation(np.repeat([0, 1], sizes))
        groups = rng.permutation(60) % 30
        donors = np.array([rng.choice(np.flatnonzero(truth != code)) for code in truth])
        own, theirs, rows = normal(rng, groups), normal(rng, groups), np.arange(60)
        base, ablated = np.zeros((2, 60, 2))
        base[rows, truth] = 1 + own
        task = Task("", LabelTokens(("a", "b"), (0, 1), {}), truth, groups)
        drawn = donor_draws(task, donors.tolist(), seed)
        for kind, lost in (("zero", 1.0), ("resample", 1 + theirs[donors])):
            ablated[rows, truth] = base[rows, truth] - lost - 0.5 * rng.normal(size=60)
            row: dict = answer_changes(base, ablated, task, drawn if kind == "resample" else None)  # type: ignore
            for name in ("change", "logprob_change"):
                limits = {"low": row[f"{name}_low"], "high": row[f"{name}_high"]}
                yield f"ablation, {kind}, {said}: {name}", Found(**limits, value=row[name])


def neurons(seed: int) -> Named:
    """Accuracies and their changes where units differ, and what two rankings without an effect share."""
    rng = np.random.default_rng([6, seed])
    for n_units, easy in ((12, 0.5), (30, 0.5), (30, 2.5)):
        units = rng.permutation(3 * n_units) % n_units
        of = normal(rng, units) + easy
        right = of + rng.normal(size=(2, len(units))) > 0
        found = measured(right, balance(rng.permutation(len(units)) % 2), units)
        said = f"neurons, {n_units} units, accuracy {norm.cdf(easy / np.sqrt(2)):.2f}"
        limits = {"low": found.low, "high": found.high}
        yield f"{said}: accuracy", Found(**limits, truth=norm.cdf(easy / np.sqrt(2)))
        yield f"{said}: change", Found(low=found.change_low[1:], high=found.change_high[1:], truth=0)
    for said, shared in (("apart", 0.0), ("that go together", 2.0)):
        x = rng.normal(size=(120, 64)) + shared * rng.normal(size=(120, 4)) @ rng.normal(size=(4, 64))
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        for by in ("coef", "univariate"):
            best = []
            for k in (2, 3):
                labels = np.array([f"class {code}" for code in rng.permutation(120) % k])
                best.append(ranked(x, labels, LinearProbe(x, labels), by).order[:8].tolist())
            yield f"neurons {said}, ranked by {by}: overlap p", Found(overlap(best[0], best[1], 64)["p"])


def signflip(seed: int) -> Named:
    """Changes of a proxy by one set of neurons and 99 like it, on 30 clips of 10 units."""
    rng = np.random.default_rng([7, seed])
    units, draws = np.arange(30) % 10, 100
    of_set = 1 + 0.3 * rng.normal(size=(draws, 1))
    values = of_set + normal(rng, units) + rng.normal(size=(draws, 30))
    clips, numbers = np.tile(np.arange(30), draws), np.repeat(np.arange(draws), 30)
    table = pd.DataFrame({
        "clip_id": clips, "unit": units[clips], "flipped": 0, "measured": 1, "proxy": "rms", "draw": numbers,
        "change": values.reshape(-1), "signed": 0.0,
    })  # fmt: skip
    row = changes(table, "flip", "all", 1).iloc[0]
    yield "signflip: p_random, one cell", Found(row["p_random"])
    reach = t.ppf(0.975, 9) * row["se"]
    limits = {"low": row["change"] - reach, "high": row["change"] + reach}
    yield "signflip: change, t times its standard error", Found(**limits, truth=of_set[0, 0])


def compare(seed: int) -> Named:
    """Two models on the same clips: error rates, accuracy, CKA."""
    rng = np.random.default_rng([8, seed])
    for said, sign in (("shift alike", 1), ("shift apart", -1), ("other speakers", 0)):
        truth = np.arange(160) % 2 == 0
        speakers = np.arange(160) // 2 % 20 + (0 if sign else 20) * truth
        of = normal(rng, speakers) * np.where(truth, 1, sign or 1)
        scores = truth * 2.0 + of + rng.normal(size=(2, 160))
        for measure in ("eer", "min_dcf"):
            found = bootstrap_over_speakers(
                scores, truth, [f"{s:02d}" for s in speakers], measure=measure, draws=DRAWS, seed=seed
            )
            limits = found.interval
            exact = norm.cdf(-1 / np.sqrt(2)) if measure == "eer" else None
            named = f"compare, classes of a speaker {said}" if sign else f"compare, {said} in each class"
            yield f"{named}: {measure}", Found(low=limits.low, high=limits.high, value=found.value, truth=exact)
            gap = found.difference_interval
            yield f"{named}: difference of {measure}", Found(low=gap.low[1:], high=gap.high[1:], truth=0)
    for n_units in (12, 30):
        units = rng.permutation(3 * n_units) % n_units
        right = (normal(rng, units) + rng.normal(size=(2, len(units))) > -0.5).astype(float)
        _, (low, high), gaps, _ = accuracies(right, [str(unit) for unit in units])
        yield f"compare, {n_units} units: accuracy", Found(low=low, high=high, truth=norm.cdf(0.5 / np.sqrt(2)))
        yield f"compare, {n_units} units: difference", Found(low=gaps[0][1:], high=gaps[1][1:], truth=0)
        x = normal(rng, units, 8) + rng.normal(size=(len(units), 8))
        for weight in (0.0, 1.0):
            y = weight * x + normal(rng, units, 8) + rng.normal(size=x.shape)
            stream = CkaStream()
            stream.add([x], [y], [str(unit) for unit in units])
            made = stream.result()
            for name, value, of_cka in (
                ("unbiased", made.unbiased, made.unbiased_interval), ("plain", made.plain, made.plain_interval),
            ):  # fmt: skip
                what = f"compare, {n_units} groups, {'related' if weight else 'unrelated'} layers: {name} CKA"
                yield what, Found(low=of_cka.low, high=of_cka.high, value=value)


QUANTITIES: dict[str, Callable[[int], Named]] = {
    one.__name__: one for one in (
        patch, knockout, fisher, probe, ablation, neurons, signflip, compare,
        steering, subspace, probes, headmap, timemap, doses, stated,
    )
}  # fmt: skip


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("quantities", nargs="*", choices=[[], *QUANTITIES], help="all where none is named")
    reader.add_argument("--sets", type=int, default=300, help="data sets a design")
    asked = reader.parse_args()
    print("| what | p <= .05 | interval misses | none given |")
    print("| --- | --- | --- | --- |")
    for name in asked.quantities or QUANTITIES:
        found: dict[str, list[Found]] = {}
        for seed in range(asked.sets):
            for what, one in QUANTITIES[name](seed):
                found.setdefault(what, []).append(one)
        for what, many in found.items():
            shown = ("" if np.isnan(rate) else f"{rate:.3f}" for rate in rates(many))
            print(f"| {what} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
