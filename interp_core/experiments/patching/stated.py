"""Who wins: the voice, the words, or a prompt that states an answer ("The speaker sounds sad.") before the question?

Every clip is asked each question as it is, and once for every label with the statement of it in front. By layer: the
states of the run with the statement are put into the run without it, at the positions of the text that both prompts
share, and it is counted whom the answer then follows.

Source of the text dominance ratio: ALME, arXiv:2602.11488 (there: the share of conflict trials in which the model
follows the text). Here answers that follow neither are left out of it and counted as a share of their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.errors import InterpError, few
from interp_core.experiments.patching.chunks import read_labels, rounded
from interp_core.experiments.patching.clip_chunks import (
    ClipChunk,
    Units,
    answer_columns,
    clip_chunks,
    clips_of_pairs,
    source_of,
)
from interp_core.experiments.patching.plan import Plan, plan_of_pair
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.prompted import Prompted
from interp_core.models.subject import Subject
from interp_core.trace.patch import Patch, SiteSpec, sweep_layers
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import cost, sweep

RECORDS, LAYER_RECORDS = "stated_records.jsonl", "stated_layers_records.jsonl"
SPANS = ("question", "last")
"""Of the text that both prompts share: all behind the recording but the last position, and that one."""
ALONE, ALONE_APART = "no text", "no text, voice against words"
AGAINST, ALL_DIFFER = "text against voice", "all differ"
DOMINANCE = "text dominance"
SHARES = ["share", "low", "high", "n", "n_clusters", "interval_method"]
COLUMNS = ["prompt", "items", "source", *SHARES]
LAYER_COLUMNS = ["prompt", "span", "layer", "items", "source", *SHARES]


def stating(statement: str, label: str, question: str) -> str:
    """The prompt that states a label before its question."""
    return f"{statement.replace('{label}', label)} {question}".strip()


def check_stated(subject: Subject, settings: PatchRequest, clips: Sequence[Clip]) -> None:
    """Refuse a model that is asked nothing, and a column that the answers do not match."""
    if not settings.stated:
        return
    if not subject.asks or "question" not in subject.spans:
        raise InterpError(f"{subject.name} reads no prompt beside the recording, so none can state an answer to it.")
    columns = answer_columns(clips, settings.labels)
    if settings.stated not in columns:
        known = ", ".join(columns) or "none"
        raise InterpError(
            f"stated {settings.stated!r} is no label column that the answers {', '.join(settings.labels)} match; "
            f"columns that do: {known}."
        )
    for prompt in settings.prompts:
        for label in settings.labels:
            asked = stating(settings.statement, label, prompt)
            subject.check_prompt(asked)
            labels = [
                subject.labels(settings.labels, p, several_tokens=settings.several_tokens) for p in (prompt, asked)
            ]
            if labels[0].ids != labels[1].ids:
                raise InterpError(
                    f"behind {asked!r} the answers {', '.join(settings.labels)} are other tokens than behind the "
                    "question alone; give another --statement."
                )


def words_column(settings: PatchRequest, clips: Sequence[Clip]) -> str | None:
    """The label column beside the stated one that the answers match too, or None."""
    return next((name for name in answer_columns(clips, settings.labels) if name != settings.stated), None)


def stated_chunks(plan: Plan) -> list[ClipChunk]:
    """The chunks of clips that are asked: those whose label in the stated column is an answer."""
    settings = plan.settings
    if not settings.stated:
        return []
    keep = [clip.clip_id for clip in clips_of_pairs(plan) if clip.label(settings.stated) in settings.labels]
    return clip_chunks(plan, keep)


def left_out(plan: Plan) -> list[str]:
    """A sentence on the clips that are not asked, where there are any."""
    clips, column = clips_of_pairs(plan), plan.settings.stated
    without = [clip.clip_id for clip in clips if column and clip.label(column) not in plan.settings.labels]
    if not without:
        return []
    return [
        f"{len(without)} of {len(clips)} clips have no answer in {column} and are not asked with a statement: "
        f"{few(without)}"
    ]


def run_stated_chunk(plan: Plan, store: CleanStore, chunk: ClipChunk) -> list[dict[str, Any]]:
    """Ask about every clip of a chunk as it is, and once for each label that is stated.

    Returns:
        One record a clip and statement (None: none): its labels as `voice` (the stated column's) and `words`, the
        answer, the logits of the labels and the probability on them.
    """
    settings, labels = plan.settings, plan.labels[chunk.prompt]
    question, words = settings.prompts[chunk.prompt], words_column(settings, clips_of_pairs(plan))
    records = []
    for clip in chunk.clips:
        for label in (None, *settings.labels):
            asked = question if label is None else stating(settings.statement, label, question)
            logits, mass = read_labels(labels, store.run(clip, asked).logits)
            records.append(
                {
                    **_of_clip(clip, settings, words),
                    "prompt": chunk.prompt,
                    "stated": label,
                    "prediction": labels.labels[int(np.argmax(logits))],
                    "logits": logits,
                    "label_mass": mass,
                }
            )
    return records


def stated_by_hand(store: CleanStore, clip: Clip, settings: PatchRequest, prompt: int = 0) -> list[dict[str, Any]]:
    """The records of one clip, as of `run_stated_chunk`."""
    pair = Pair(clip.clip_id, "stated", clip, clip, settings.labels[0], "")
    made = plan_of_pair(store.subject, pair, settings, prompt)
    return run_stated_chunk(made, store, ClipChunk(0, 0, prompt, (clip,)))


def run_stated_layers(plan: Plan, store: CleanStore, chunk: ClipChunk) -> list[dict[str, Any]]:
    """Put the states of the run with a statement into the run without it, layer by layer.

    Returns:
        One record a clip, label and span of `SPANS`: positions (how many were replaced), layers, and patched_logits
        [n_layers][n_labels] of the run without the statement. A span that is empty is left out.
    """
    settings, labels, subject = plan.settings, plan.labels[chunk.prompt], store.subject
    question, words = settings.prompts[chunk.prompt], words_column(settings, clips_of_pairs(plan))
    spec = spec_of(subject, settings)
    records = []
    for clip in chunk.clips:
        plain, patches, about = store.run(clip, question), [], []
        for label in settings.labels:
            told = store.run(clip, stating(settings.statement, label, question))
            for span, (positions, source) in shared_spans(plain.prompted, told.prompted).items():
                patches.append(Patch(plain, told, positions, source))
                about.append({**_of_clip(clip, settings, words), "prompt": chunk.prompt, "stated": label, "span": span})
        found = sweep(subject, patches, labels, spec, method=settings.method)
        for patch, one, logits in zip(patches, about, found.label_logits.numpy(), strict=True):
            rows = [rounded(row) for row in logits]
            records.append({**one, "positions": patch.replaced, "layers": list(spec.layers), "patched_logits": rows})
    return records


def spec_of(subject: Subject, settings: PatchRequest) -> SiteSpec:
    """The whole residual stream at the run's layers."""
    return SiteSpec("resid_post", layers=sweep_layers("resid_post", subject.n_layers, settings.layers))


def shared_spans(plain: Prompted, told: Prompted) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Where two prompts about one clip end alike: of each span of `SPANS` that has any, the positions in `plain` and
    those in `told` (float64) with the same tokens; always behind the recording."""
    behind = min(plain.n_pos - plain.audio[1], told.n_pos - told.audio[1])
    a, b = plain.token_ids.flip(0)[:behind], told.token_ids.flip(0)[:behind]
    apart = (a != b).nonzero().flatten()
    alike = int(apart[0]) if len(apart) else behind
    found = {}
    for span, length in (("question", alike - 1), ("last", min(alike, 1))):
        if length > 0:
            leave = 1 if span == "question" else 0
            found[span] = (
                torch.arange(plain.n_pos - leave - length, plain.n_pos - leave),
                torch.arange(told.n_pos - leave - length, told.n_pos - leave).double(),
            )
    return found


def spans_of(plan: Plan, store: CleanStore, clip: Clip) -> tuple[str, ...]:
    """The spans that the first question and a statement of it share about a clip; alike for all clips and labels."""
    settings, question = plan.settings, plan.settings.prompts[0]
    plain, told = (
        store.prompted(clip, asked) for asked in (question, stating(settings.statement, settings.labels[0], question))
    )
    return tuple(shared_spans(plain, told))


def cost_of_stated(plan: Plan, store: CleanStore) -> float:
    """Clean forward passes that the statements take."""
    settings, chunks = plan.settings, stated_chunks(plan)
    if not chunks:
        return 0.0
    asked = sum(len(chunk.clips) for chunk in chunks) * len(settings.labels)
    clip, question = chunks[0].clips[0], settings.prompts[0]
    plain = store.run(clip, question)
    told = store.run(clip, stating(settings.statement, settings.labels[0], question))
    spec, spans = spec_of(store.subject, settings), shared_spans(plain.prompted, told.prompted)
    each = sum(cost(store.subject, Patch(plain, told, *places), spec, settings.method) for places in spans.values())
    return asked * (1 + each)


def summarise_stated(
    records: Sequence[Mapping[str, Any]],
    clusters: Mapping[str, str],
    *,
    columns: Sequence[str],
    cluster_column: str = "text_id",
) -> pd.DataFrame:
    """Whom the answers follow.

    Args:
        records: of `run_stated_chunk`. clusters: clip_id -> unit that was sampled. columns: the label columns of voice
            and words, one or both.
    Returns:
        COLUMNS, one row a prompt, set of items and source. Items: "no text" (every clip as it is), those of them whose
        voice and words differ, "text against voice" (a statement other than the voice) and "all differ" (other than
        both, which differ too). share: of the items, those whose answer is the source's label; an answer counts once,
        for the text first, then for the voice, then for the words; the rest is "none". "text dominance": of the
        answers that follow text or voice, those that follow the text; n counts these. Without a column of words there
        are no items about them.
    """
    tables = [
        _shares(own, _items(own, len(columns) > 1), clusters, columns, cluster_column).assign(prompt=prompt)
        for prompt in dict.fromkeys(record["prompt"] for record in records)
        if (own := [record for record in records if record["prompt"] == prompt])
    ]
    return pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)


def summarise_stated_layers(
    records: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    clusters: Mapping[str, str],
    *,
    columns: Sequence[str],
    cluster_column: str = "text_id",
) -> pd.DataFrame:
    """Whom the answers follow when states of the run with a statement stand in the run without it.

    Returns:
        LAYER_COLUMNS, one row a prompt, span, layer, set of items and source, as of `summarise_stated`; of statements
        alone.
    """
    tables = []
    for prompt, span in dict.fromkeys((record["prompt"], record["span"]) for record in records):
        own = [record for record in records if (record["prompt"], record["span"]) == (prompt, span)]
        for at, layer in enumerate(own[0]["layers"]):
            answers = [list(labels)[int(np.argmax(record["patched_logits"][at]))] for record in own]
            here = [{**record, "prediction": answer} for record, answer in zip(own, answers, strict=True)]
            made = _shares(here, _items(here, len(columns) > 1), clusters, columns, cluster_column)
            tables.append(made.assign(prompt=prompt, span=span, layer=layer))
    return pd.concat(tables, ignore_index=True)[LAYER_COLUMNS] if tables else pd.DataFrame(columns=LAYER_COLUMNS)


def stated_summary(table: pd.DataFrame) -> Iterator[str]:
    """A sentence on the first question."""
    rows = table[table["prompt"] == 0]
    for items in (ALL_DIFFER, AGAINST):
        some = rows[rows["items"] == items]
        if len(some) and some["n"].max() > 0:
            said = ", ".join(f"{row.source} {row.share:.2f}" for row in some.itertuples() if row.source != DOMINANCE)
            ratio = some[some["source"] == DOMINANCE].iloc[0]
            yield f"a prompt that states an answer, {items}: {said} of {some['n'].iloc[0]} answers; {_ratio(ratio)}"
            return


def _ratio(row: pd.Series) -> str:
    if not row["n"]:
        return "no answer follows text or voice"
    held = f" (95 % {row['low']:.2f} to {row['high']:.2f})" if row["low"] == row["low"] else ""
    return f"text dominance {row['share']:.2f} of {row['n']}{held}"


def _of_clip(clip: Clip, settings: PatchRequest, words: str | None) -> dict[str, Any]:
    second = None if words is None else clip.label(words)
    return {
        "clip_id": clip.clip_id,
        "voice": clip.label(settings.stated),
        "words": second if second in settings.labels else None,
    }


def _items(records: Sequence[Mapping[str, Any]], worded: bool) -> dict[str, list[Mapping[str, Any]]]:
    """Sets of records by what their sources say."""
    plain = [record for record in records if record["stated"] is None]
    told = [record for record in records if record["stated"] is not None and record["stated"] != record["voice"]]

    def apart(some: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [r for r in some if r["words"] is not None and r["words"] not in (r["voice"], r["stated"])]

    found = {ALONE: plain, ALONE_APART: apart(plain), AGAINST: told, ALL_DIFFER: apart(told)}
    if not worded:
        found = {name: some for name, some in found.items() if name in (ALONE, AGAINST)}
    return {name: some for name, some in found.items() if name in (AGAINST, ALL_DIFFER) or plain}


def follows(record: Mapping[str, Any]) -> str:
    """Whom an answer follows: text, voice, words or none."""
    answer = record["prediction"]
    return next((name for name in ("stated", "voice", "words") if record[name] == answer), "none")


def _shares(
    records: Sequence[Mapping[str, Any]],
    items: Mapping[str, Sequence[Mapping[str, Any]]],
    clusters: Mapping[str, str],
    columns: Sequence[str],
    unit: str,
) -> pd.DataFrame:
    names = {field: source_of(column) for field, column in zip(("voice", "words"), columns, strict=False)}
    names |= {"stated": "text", "none": "none"}
    rows = []
    for name, some in items.items():
        units = Units([record["clip_id"] for record in some], clusters, unit)
        won = [follows(record) for record in some]
        sources = [field for field in names if field != "stated" or name in (AGAINST, ALL_DIFFER)]
        hits = np.array([[winner == field for field in sources] for winner in won], float).reshape(-1, len(sources))
        for field, found in zip(sources, units.means(hits, rates=True), strict=True):
            rows.append({"items": name, "source": names[field], "share": found.pop("mean"), **found})
        if name in (AGAINST, ALL_DIFFER):
            text = np.array([[winner == "stated"] for winner in won], float).reshape(-1, 1)
            either = np.array([[winner in ("stated", "voice")] for winner in won], float).reshape(-1, 1)
            [found] = units.means(text, either, rates=True)
            rows.append({"items": name, "source": DOMINANCE, "share": found.pop("mean"), **found})
    return pd.DataFrame(rows, columns=["items", "source", *SHARES])
