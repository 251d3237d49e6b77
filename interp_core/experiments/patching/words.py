"""The answer in words of a pair set: what A says with B's states at each layer, beside what both say by themselves.

Written out are the matched patches under the first question and at the first strength, of the first `word_pairs` pairs
of each kind; their chunks are those of the sweep, so that shards deal them alike.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from interp_core.data.clips import Clip
from interp_core.experiments.edited_words import TEXT
from interp_core.experiments.patching.chunks import Step, records_by_chunk
from interp_core.experiments.patching.plan import Chunk, Plan
from interp_core.experiments.wording import counts_errors, word_error_rate, words_moved
from interp_core.maths.stats import FEWEST_FOR_INTERVAL, count_clusters, pigeonhole_interval, pigeonhole_weights
from interp_core.models.subject import Subject
from interp_core.sinks import Sink
from interp_core.trace.generate import Row, Written, generate
from interp_core.trace.patch import Patch, PatchAt, SiteSpec

DRAWS = 2000
METRIC_COLUMNS = [
    *["kind", "prompt", "alpha", "layer", "moved_mean", "moved_low", "moved_high", "n", "n_clusters", "kept_mean"],
    *["n_kept", "changed_rate", "n_pairs", "pairs_left_out", "unfinished", "interval_method"],
]


@dataclass(frozen=True)
class Answers:
    """One pair in words.

    Attributes:
        a, b: what the model writes for either clip as it is.
        patched: the same for A under the patch, by layer.
    """

    a: Written
    b: Written
    patched: Mapping[int, Written]


def chunks_of(plan: Plan) -> list[Chunk]:
    """The chunks of a plan whose pairs are written out, each cut to those that are."""
    settings = plan.settings
    if not settings.words:
        return []
    left = {kind.name: settings.word_pairs or len(plan.pairs.pairs) for kind in plan.pairs.kinds}
    found = []
    for chunk in plan.chunks:
        first = (chunk.prompt, chunk.condition, chunk.alpha) == (0, "matched", settings.alphas[0])
        if first and (pairs := chunk.pairs[: left[chunk.kind]]):
            left[chunk.kind] -= len(pairs)
            found.append(replace(chunk, pairs=pairs))
    return found


def records_file(kind: str) -> str:
    return f"answers_records_{kind}.jsonl"


def expected(plan: Plan) -> dict[str, dict[int, int]]:
    """How many records each chunk has, by file."""
    found: dict[str, dict[int, int]] = {}
    for chunk in chunks_of(plan):
        found.setdefault(records_file(chunk.kind), {})[chunk.number] = len(chunk.pairs) * len(plan.spec.layers)
    return found


def in_words(subject: Subject, patches: Sequence[Patch], spec: SiteSpec, n_tokens: int) -> list[Answers]:
    """Write the answers of several pairs in one go: both clips as they are, once each, and A at every layer of `spec`.

    Raises:
        InterpError: as `generate`; a patch of noise, which has no B.
    """
    clean: dict[int, Row] = {}
    rows: list[Row] = []
    for patch in patches:
        assert patch.donor is not None, "a pair has a donor"
        for run in (patch.recipient, patch.donor):
            clean.setdefault(id(run.prompted), Row(run.prompted))
        rows += [Row(patch.recipient.prompted, (PatchAt(patch, spec, layer),)) for layer in spec.layers]
    written = generate(subject, [*clean.values(), *rows], n_tokens)
    own = dict(zip(clean, written, strict=False))
    edited = iter(written[len(clean) :])
    return [
        Answers(
            own[id(patch.recipient.prompted)],
            own[id(patch.donor.prompted)],  # type: ignore[union-attr]
            {layer: next(edited) for layer in spec.layers},
        )
        for patch in patches
    ]


def answers_of(
    plan: Plan,
    subject: Subject,
    patches_of: Callable[[Chunk], Sequence[Patch]],
    sink: Sink,
    step: Step,
) -> pd.DataFrame:
    """The records of all chunks that are this run's; empty where no answer in words is asked for.

    Args:
        patches_of: the patches of a chunk's pairs. step: told of pairs that are done.
    """
    for name, counts in expected(plan).items():
        sink.expect(name, counts)
    rows: list[dict[str, Any]] = []
    for _, kept in records_by_chunk(
        plan, chunks_of(plan), sink, step, file=lambda chunk: records_file(chunk.kind),
        compute=lambda chunk: records_of(subject, plan, chunk, patches_of(chunk)),
        said=lambda chunk: f"{chunk.kind} in words",
    ):  # fmt: skip
        rows += kept
    return pd.DataFrame(rows)


def records_of(subject: Subject, plan: Plan, chunk: Chunk, patches: Sequence[Patch]) -> list[dict[str, Any]]:
    """One record a pair and layer of a chunk, in their order."""
    found = in_words(subject, patches, plan.spec, plan.settings.words)
    return [
        {
            "kind": chunk.kind,
            "prompt": chunk.prompt,
            "alpha": chunk.alpha,
            "site": plan.spec.kind,
            "pair_id": pair.pair_id,
            "layer": layer,
            "recipient": pair.recipient.clip_id,
            "donor": pair.donor.clip_id,
            **_measured(answers, layer),
            **_errors(subject, answers.patched[layer].text, pair.recipient, pair.donor),
        }
        for pair, answers in zip(chunk.pairs, found, strict=True)
        for layer in plan.spec.layers
    ]


def _measured(answers: Answers, layer: int) -> dict[str, Any]:
    written = answers.patched[layer]
    moved = words_moved(answers.a.text, answers.b.text, written.text)
    return {
        "answer_a": answers.a.text,
        "answer_b": answers.b.text,
        "answer_patched": written.text,
        "moved": moved.moved,
        "words_of_b": moved.of_b,
        "kept": moved.kept,
        "words_of_a": moved.of_a,
        "changed": written.tokens != answers.a.tokens,
        "n_tokens": len(written.tokens),
        "ended": written.ended,
        "ended_a": answers.a.ended,
        "ended_b": answers.b.ended,
    }


def _errors(subject: Subject, said: str, a: Clip, b: Clip) -> dict[str, float | None]:
    """Word error rates of a transcript against what is said in A and in B, where that is known."""
    if not (subject.transcribes and counts_errors()):
        return {}
    texts = {"wer_a": a.label(TEXT), "wer_b": b.label(TEXT)}
    return {name: None if text is None else word_error_rate(said, text) for name, text in texts.items()}


def metrics_of(records: pd.DataFrame, plan: Plan, clusters: Mapping[str, str], column: str, seed: int) -> pd.DataFrame:
    """Means over pairs, one row a kind and layer.

    Args:
        records: of `records_of`, of a whole run.
        clusters: clip_id -> unit that was sampled; column: what these are.
    Returns:
        METRIC_COLUMNS: `moved_mean` over the n pairs whose B has words of its own, with a 95 % pigeonhole bootstrap
        over recipient and donor clusters; `kept_mean` over the n_kept whose A has; `changed_rate` over all n_pairs;
        `unfinished`, the patched answers that were cut off; `pairs_left_out`, the pairs of the kind that were not
        written out.
    """
    tables = []
    for kind, group in records.groupby("kind", sort=False):
        pairs = group.drop_duplicates("pair_id")
        sides = [pairs[side].map(dict(clusters)).tolist() for side in ("recipient", "donor")]
        weights = pigeonhole_weights(sides[0], sides[1], draws=DRAWS, seed=seed)

        def grid(name: str, group: pd.DataFrame = group, pairs: pd.DataFrame = pairs) -> np.ndarray:
            """[n_pairs, n_layers]; NaN where it is not defined."""
            table = group.pivot(index="pair_id", columns="layer", values=name).loc[pairs["pair_id"]]
            return table.to_numpy(float)

        moved, kept = grid("moved"), grid("kept")
        known, keeping = np.isfinite(moved), np.isfinite(kept)
        units = count_clusters(sides[0], sides[1], known)
        interval = pigeonhole_interval(np.where(known, moved, 0), weights, n_clusters=units, denominators=known)
        # Draws from pairs that are all alike are all alike too, which says nothing about how sure the mean is.
        alike = np.array([len(set(values[there])) < 2 for values, there in zip(moved.T, known.T, strict=True)])
        layers = sorted(group["layer"].unique())
        table = pd.DataFrame(
            {
                "layer": layers,
                "moved_mean": _mean(moved, known),
                "moved_low": np.where(alike, np.nan, interval.low),
                "moved_high": np.where(alike, np.nan, interval.high),
                "n": known.sum(0),
                "n_clusters": units,
                "kept_mean": _mean(kept, keeping),
                "n_kept": keeping.sum(0),
                "changed_rate": grid("changed").mean(0),
                "n_pairs": len(pairs),
                "pairs_left_out": len(plan.pairs.of(str(kind))) - len(pairs),
                "unfinished": (1 - grid("ended")).sum(0).astype(int),
                "interval_method": [_method(int(n), same, column) for n, same in zip(units, alike, strict=True)],
            }
        )
        first = group.iloc[0]
        tables.append(table.assign(kind=kind, prompt=first["prompt"], alpha=first["alpha"])[METRIC_COLUMNS])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=METRIC_COLUMNS)


def summary(moved: pd.DataFrame) -> Iterator[str]:
    """A sentence a kind of pair, with what was left out."""
    for kind, rows in moved.groupby("kind", sort=False) if len(moved) else ():
        known = rows.dropna(subset="moved_mean")
        first = rows.iloc[0]
        written = f"{kind}, in words: {first['n_pairs']} pairs"
        if first["pairs_left_out"]:
            written += f" ({first['pairs_left_out']} more were not written out)"
        if not len(known):
            yield f"{written}; no B has a word that its A has not"
            continue
        best: dict[Any, Any] = max(known.to_dict("records"), key=lambda row: row["moved_mean"])
        layer = "the embeddings" if best["layer"] == -1 else f"layer {best['layer']}"
        yield f"{written}; most of B's own words come at {layer}: {best['moved_mean']:.2f} of them (n = {best['n']})"


def _mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Over pairs, NaN where there is none."""
    n = known.sum(0)
    return np.divide(np.where(known, values, 0).sum(0), n, out=np.full(len(n), np.nan), where=n > 0)


def _method(n_clusters: int, alike: bool, column: str) -> str:
    if n_clusters < FEWEST_FOR_INTERVAL:
        return f"no interval: {n_clusters} {column} clusters, {FEWEST_FOR_INTERVAL} needed"
    if alike:
        return "no interval: the same share in all pairs"
    return f"pigeonhole bootstrap over {column}, {DRAWS} draws"
