"""Data sets for p and intervals of steering, subspaces, probes of several targets, maps, edit doses and stated answers.

Each makes records as a run would have them, without a model, and hands them to the product's own table.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.calibrating import DRAWS, Found, Named, designs, normal
from interp_core.data.clips import Clip
from interp_core.experiments.patching.edit_doses import dose_table as edit_table
from interp_core.experiments.patching.head_table import Measured, Part, choose, summarise_heads
from interp_core.experiments.patching.stated import summarise_stated
from interp_core.experiments.patching.subspace_table import summarise_subspace
from interp_core.experiments.patching.time_map import summarise_time
from interp_core.experiments.steering.tables import dose_table
from interp_core.maths.probes import family_test
from interp_core.maths.ridge import ridge_probe, ridge_test
from interp_core.maths.stats import sign_flip_max_test

LABELS = ("a", "b")


def logits_of(logprob: float | NDArray) -> NDArray:
    """[.., 2] logits whose first answer has this log-probability, moved below 0 if need be."""
    said = np.minimum(np.asarray(logprob, float), -1e-6)
    return np.stack([said, np.log1p(-np.exp(said))], axis=-1)


def steering(seed: int) -> Named:
    """60 clips of 20 units; one vector for all of them, drawn like the 20 random ones: 6 layers that go together."""
    rng = np.random.default_rng([9, seed])
    n, layers, limit, draws = 60, 6, 0.7, 20
    units = rng.permutation(n) % 20
    clips = [Clip(f"c{i}", Path("c"), {"unit": f"u{unit}"}, "") for i, unit in enumerate(units)]
    base = {"condition": "base", "label": None, "layer": None, "alpha": [0.0], "draw": [None]}
    for effect in (0.0, 0.25, 0.5, 1.0):
        of_clip = normal(rng, units)[:, None, None] + rng.normal(size=(n, 1 + draws, layers))
        of_vector = effect * (rng.normal(size=(1 + draws, 1)) + 0.5 * rng.normal(size=(1 + draws, layers))) / 1.25**0.5
        moved = of_clip + of_vector > limit
        rows: list[dict[str, Any]] = []
        for i, clip in enumerate(clips):
            common = {"clip_id": clip.clip_id, "prompt": 0}
            rows.append({**common, **base, "answer": ["b"], "logits": [[0.0, 1.0]], "label_mass": [1.0]})
            for layer in range(layers):
                for condition, of in (("vector", [0]), ("random", range(1, 1 + draws))):
                    turned = [bool(moved[i, one, layer]) for one in of]
                    rows.append({
                        **common, "condition": condition, "label": "a", "layer": layer, "alpha": [4.0] * len(turned),
                        "draw": [None] if condition == "vector" else list(range(draws)),
                        "answer": ["a" if one else "b" for one in turned],
                        "logits": [[1.0, 0.0] if one else [0.0, 1.0] for one in turned],
                        "label_mass": [1.0] * len(turned),
                    })  # fmt: skip
        table = dose_table(rows, clips, LABELS, (), "unit")
        own = table[table["condition"] == "vector"].sort_values("layer")
        differences = moved[:, 0].astype(float) - moved[:, 1:].mean(axis=1)
        alone = sign_flip_max_test(differences, [f"{unit:02d}" for unit in units], draws=DRAWS, seed=seed).adjusted_p
        said = f"steering, a vector moves {effect:g} spreads of clips"
        yield f"{said}: p over clips alone (not printed)", Found(alone)
        yield f"{said}: adjusted p", Found(own["p_adjusted"].to_numpy())
        yield f"{said}: p_random, one cell", Found(own["p_random"].to_numpy()[:1])
        limits = {"low": own["moved_rate_low"].to_numpy(), "high": own["moved_rate_high"].to_numpy()}
        yield f"{said}: moved rate", Found(**limits, truth=1 - norm.cdf((limit - of_vector[0]) / np.sqrt(2)))


def subspace(seed: int) -> Named:
    """40 pairs of 20 + 20 clusters at 3 layers; the subspace is drawn like the 20 random ones that serve every pair."""
    rng = np.random.default_rng([10, seed])
    n, layers, draws = 40, 3, 20
    sides = [rng.permutation(n) % 20 for _ in range(2)]
    clusters = {f"{side}{code}": f"{side}{code:02d}" for side in "rd" for code in range(20)}
    for effect in (0.0, 0.5):
        of_pair = (normal(rng, sides[0]) + normal(rng, sides[1]))[:, None, None]
        of_draw = effect * rng.normal(size=(1 + draws, layers))
        found = logits_of(-6 + of_pair + of_draw + rng.normal(size=(n, 1 + draws, layers)))
        plain = {"kind": "k", "prompt": 0, "alpha": 1.0, "target": "a", "base_prediction": "b", "donor_prediction": "a"}
        records = [
            {
                **plain, "pair_id": f"p{i}", "layer": layer, "recipient": f"r{sides[0][i]}", "donor": f"d{sides[1][i]}",
                "base_logits": logits_of(-6).tolist(), "donor_logits": logits_of(-0.01).tolist(), "rank": 1,
                "patched_logits": found[i, 0, layer].tolist(), "random_logits": found[i, 1:, layer].tolist(),
                "share": 0.1, "random_share": [0.1] * draws, "fitted_classes": 2, "fitted_clips": 9,
            }
            for i in range(n) for layer in range(layers)
        ]  # fmt: skip
        more = {"condition": "matched", "patched_prediction": "b", "patched_label_mass": 1.0}
        matched = pd.DataFrame([{**record, **more} for record in records])
        table = summarise_subspace(records, matched, LABELS, clusters, draws=DRAWS, seed=seed)
        own = table[table["condition"] == "subspace"].sort_values("layer")
        said = f"subspace, draws differ by {effect:g} spreads of pairs"
        yield f"{said}: adjusted p", Found(own["p_adjusted"].to_numpy())
        ends = {end: own[f"delta_logprob_target_mean_{end}"].to_numpy() for end in ("low", "high")}
        yield f"{said}: change", Found(**ends, truth=of_draw[0])


def probes(seed: int) -> Named:
    """Four points that know the group: labels and numbers that have nothing to do with the clips, and R2 with one."""
    rng = np.random.default_rng([11, seed])
    weights = np.random.default_rng(11).normal(size=8)
    for said, codes, groups in designs(rng):
        points = [normal(rng, groups, 8) + rng.normal(size=(len(codes), 8)) for _ in range(4)]
        labels = [f"class {code}" for code in codes]
        yield f"probes, {said}: family p", Found(family_test(points, labels, groups, draws=DRAWS, seed=seed).adjusted_p)
        one = said.endswith("of one class")
        values = rng.normal(size=groups.max() + 1)[groups] if one else rng.normal(size=len(codes))
        what = "a value a group" if one else "values within groups"
        named = f"probes, {groups.max() + 1} groups, {what}"
        yield f"{named}: family p of R2", Found(ridge_test(points, values, groups, draws=DRAWS, seed=seed).adjusted_p)
        for effect in (0.0, 0.5):
            found = ridge_probe(points[0], values + effect * points[0] @ weights, groups, seed=seed)
            limits = {"low": found.interval.low, "high": found.interval.high}
            yield f"{named}: R2, effect {effect:g}", Found(**limits, value=np.array([found.r2]))


def headmap(seed: int) -> Named:
    """40 pairs, 16 heads of which 13 are verified; B and the random donor move them alike."""
    rng = np.random.default_rng([12, seed])
    n, heads = 40, 16
    for counts in ((20, 20, 20), (20, 8, 20), (12, 12, 12)):
        codes = [rng.permutation(n) % count for count in counts]
        of = [rng.normal(size=(count, heads)) + rng.normal(size=(count, 1)) for count in counts]
        with_b = of[0][codes[0]] + of[1][codes[1]]
        with_random = of[0][codes[0]] + of[2][codes[2]]
        estimates, of_random = (one + rng.normal(size=(n, heads)) for one in (with_b, with_random))
        chosen = choose(estimates.mean(0), 3, seed)
        at = list(chosen)
        truth, random_truth = (one[:, at] + rng.normal(size=(n, len(at))) for one in (with_b, with_random))
        names = [[f"{side}{code:02d}" for code in c] for side, c in zip("rdx", codes, strict=True)]
        made = Measured(
            [Part("head_out", i // 4, i % 4, 4 * (i % 4), 4 * (i % 4) + 4) for i in range(heads)], chosen, estimates,
            of_random, truth, random_truth, np.full((n, 2, heads), np.nan), *names,
        )  # fmt: skip
        table, _ = summarise_heads(made, "k", 0, draws=DRAWS, flips=DRAWS, seed=seed)
        said = f"head map, {' + '.join(map(str, counts))} clusters"
        yield f"{said}: adjusted p", Found(table["p_adjusted"].to_numpy()[at])
        yield f"{said}: estimate", Found(low=table["estimate_low"], high=table["estimate_high"], truth=0)
        rows = table.iloc[at]
        yield f"{said}: true change", Found(low=rows["true_low"], high=rows["true_high"], truth=0)
        # One correlation of estimate and truth for all heads: of a shared part of 4 and noise of 1 each.
        unlike = np.arccos(4 / 5) / np.pi
        yield f"{said}: wrong sign", Found(low=rows["wrong_sign_low"], high=rows["wrong_sign_high"], truth=unlike)


def timemap(seed: int) -> Named:
    """40 pairs at 8 layers and 12 windows, neighbours alike; B and the random donor move them alike."""
    rng = np.random.default_rng([13, seed])
    n, layers, windows = 40, 8, 12
    blur = sum(np.eye(windows, k=k) for k in (-1, 0, 1)) / np.sqrt(3)
    for counts in ((20, 20, 20), (20, 8, 20), (12, 12, 12)):
        codes = [rng.permutation(n) % count for count in counts]
        of = [rng.normal(size=(count, layers, windows)) @ blur for count in counts]
        noise = rng.normal(size=(2, n, layers, windows)) @ blur
        clusters = {
            f"{side}{i}": f"{side}{i:02d}" for side, count in zip("rdx", counts, strict=True) for i in range(count)
        }
        records = []
        for condition, side, other in (("matched", "d", 1), ("random", "x", 2)):
            said = logits_of(-9 + of[0][codes[0]] + of[other][codes[other]] + noise[other - 1])
            for i in range(n):
                for layer in range(layers):
                    records.append({
                        "kind": "k", "condition": condition, "pair_id": f"p{i}", "layer": layer, "target": "a",
                        "recipient": f"r{codes[0][i]}", "donor": f"{side}{codes[other][i]}", "base_prediction": "b",
                        "donor_prediction": "a", "base_logits": logits_of(-9).tolist(),
                        "patched_logits": said[i, layer].tolist(),
                        "windows": [[0.1 * w, 0.1 * w + 0.1] for w in range(windows)],
                    })  # fmt: skip
        table = summarise_time(records, LABELS, clusters, draws=DRAWS, seed=seed)
        what = f"time map of {layers} x {windows} cells, {' + '.join(map(str, counts))} clusters"
        yield f"{what}: adjusted p", Found(table["p_adjusted"].to_numpy())
        inner = table[~table["window"].isin([0, windows - 1])]
        yield f"{what}: change", Found(low=inner["low"].to_numpy(), high=inner["high"].to_numpy(), truth=0)


def doses(seed: int) -> Named:
    """Edited copies of 36 clips: rates and changes at 3 layers, over units."""
    rng = np.random.default_rng([14, seed])
    n, layers = 36, 3
    for n_units, limit in ((12, 0.5), (18, 0.5), (18, -1.5)):
        units = rng.permutation(n) % n_units
        clips = [Clip(f"c{i}", Path("c"), {"text_id": f"t{unit:02d}"}, "") for i, unit in enumerate(units)]
        latent = normal(rng, units) + rng.normal(size=n)
        along = 2 + 0.5 * normal(rng, units)[:, None] + rng.normal(size=(n, layers))
        turned = latent > limit
        rows = [
            {
                "kind": "edit", "condition": "matched", "prompt": 0, "alpha": 1.0, "pair_id": f"p{i}", "layer": layer,
                "recipient": f"c{i}", "donor": f"c{i}e", "base_prediction": "b",
                "donor_prediction": "a" if turned[i] else "b", "patched_prediction": "a" if turned[i] else "b",
                "base_logits": [0.0, 0.0], "donor_logits": [3.0, -3.0],
                "patched_logits": [along[i, layer] / np.sqrt(2), -along[i, layer] / np.sqrt(2)],
            }
            for i in range(n) for layer in range(layers)
        ]  # fmt: skip
        pairs: Any = SimpleNamespace(kinds=[SimpleNamespace(name="edit", edit="level=-6")])
        table = edit_table(pd.DataFrame(rows), pairs, clips)
        own = table[table["answers"] == "all"].sort_values("layer")
        said, truth = f"edit doses, {n_units} units", float(1 - norm.cdf(limit / np.sqrt(2)))
        for name, right in (("flip_rate", truth), ("whole_flip_rate", truth), ("change", 2.0)):
            ends = {end: own[f"{name}_{end}"].to_numpy() for end in ("low", "high")}
            named = f"{said}: {name}" if name == "change" else f"{said}, rate {truth:.2f}: {name}"
            yield named, Found(**ends, truth=right)


def stated(seed: int) -> Named:
    """Answers of clips to prompts that state another label: whom they follow, over units."""
    rng = np.random.default_rng([15, seed])
    n = 36
    for n_units, limit in ((12, 0.5), (18, 0.5), (18, 1.5)):
        units = rng.permutation(n) % n_units
        clusters = {f"c{i}": f"t{unit:02d}" for i, unit in enumerate(units)}
        latent = normal(rng, units)[:, None] + rng.normal(size=(n, 2))
        records: list[dict[str, Any]] = []
        for i in range(n):
            common = {"prompt": 0, "clip_id": f"c{i}", "voice": "a", "words": None}
            records.append({**common, "stated": None, "prediction": "a" if latent[i, 0] < limit else "c"})
            for told in range(2):
                answer = "b" if latent[i, told] > limit else "a"
                records.append({**common, "stated": "b", "prediction": answer})
        table = summarise_stated(records, clusters, columns=("prosody_label",))
        truth = float(1 - norm.cdf(limit / np.sqrt(2)))
        for items, source in (("text against voice", "text"), ("text against voice", "text dominance")):
            row = table[(table["items"] == items) & (table["source"] == source)].iloc[0]
            yield (
                f"stated, {n_units} units, rate {truth:.2f}: {source}",
                Found(low=row["low"], high=row["high"], truth=truth),
            )
