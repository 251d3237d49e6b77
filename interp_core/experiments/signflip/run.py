"""How the acoustics of a representation change, layer by layer, when the neurons that matter for a class are flipped.

Neurons are attributed on one half of the clips, and edited and measured on the other. An edit is made inside the
forward pass, so every layer behind it really runs; a measure at the edited layer itself that cannot change by its
definition says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from interp_core.data.clips import Acoustics, Clip
from interp_core.data.sampling import halves
from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.figures import sign
from interp_core.experiments.result import Result
from interp_core.experiments.signflip import tables
from interp_core.experiments.signflip.attribute import attribute
from interp_core.experiments.signflip.figures import proxy_figure
from interp_core.experiments.signflip.layers import LayerStates, check_layers, check_subject
from interp_core.experiments.signflip.limits import LIMITS
from interp_core.experiments.signflip.measure import measure_clip
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.jobs import Progress, silent
from interp_core.maths.matching import matched
from interp_core.models.labels import LabelTokens
from interp_core.sinks import Arrays, Sink, array_table, table_arrays

TOPK = 50
CHUNKS = "edits"


@dataclass(frozen=True, eq=False, repr=False)
class SignflipResult(Result):
    """A finished run.

    Attributes:
        top: the chosen neurons.
        changes: one row a (flipped, measured, proxy, condition): relative change, its standard error over units,
            signed change, the percentiles of random draws, by_construction.
        effects: one row a (flipped, condition). clips: one row a (flipped, measured clip).
        links: correlation of each proxy with what it is named after, by layer.
        report: target, counts, frame rate, the head that was attributed.
    """

    top: pd.DataFrame
    changes: pd.DataFrame
    effects: pd.DataFrame
    clips: pd.DataFrame
    links: pd.DataFrame
    report: dict[str, Any]

    @property
    def metrics(self) -> pd.DataFrame:
        """The table of changes."""
        return self.changes

    def tables(self) -> dict[str, pd.DataFrame]:
        return {
            "changes": self.changes, "effects": self.effects, "top": self.top, "links": self.links, "clips": self.clips,
        }  # fmt: skip

    limits = LIMITS
    profile_x = "flipped layer"

    def profile(self) -> pd.DataFrame:
        rows = self.changes[self.changes["measured"] == tables.OUTPUT]
        series = ("change of " + rows["proxy"] + " at the output").to_numpy()
        return pd.DataFrame({"series": series, "x": rows["flipped"].to_numpy(), "value": rows["change"].to_numpy()})

    def figure(self) -> Figure:
        return sign(proxy_figure(self.config, self.changes, self.report), self.signature())

    @property
    def counted(self) -> str:
        return f"n = {self.report['measured_on']['clips']} clips"

    @property
    def method(self) -> str:
        settings = self.config["settings"]
        said = f"{settings['kind']} of {self.report['topk']} neurons ranked by gradient times activation"
        return f"{said}, {self.report['draws']} random draws"


def run_signflip(
    reader: ClipReader,
    clips: Sequence[Clip],
    labels: LabelTokens,
    settings: SignflipRequest,
    *,
    config: Mapping[str, Any],
    acoustics: Callable[[Sequence[Clip]], dict[str, Acoustics]],
    sink: Sink,
    progress: Progress = silent,
) -> SignflipResult:
    """Attribute on one half of the clips, edit and measure on the other.

    Args:
        reader: the model and its clips.
        labels: what it answers; settings.target is one of them.
        settings: with its task (clips without that label are measured too, but their accuracy is not counted) and its
            units (never divided between the halves; standard errors count them).
        config: kept in the result.
        acoustics: measures recordings.
        sink: keeps what each clip showed as it comes; a clip that it has already is not run again.
    Raises:
        InterpError: a target that is no label, layers that are not there, a model without frames in time.
    """
    units, subject = settings.units, reader.subject
    check_subject(subject)
    target = _target(labels, settings.target)
    flipped = tuple(range(subject.n_layers)) if settings.layers is None else settings.layers
    check_layers(subject, flipped)
    first, second = halves(clips, units, settings.seed)
    done, total = 0, len(first) + len(second)

    def step(note: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, note)

    found = attribute(reader, first, labels, target, settings, sink, lambda: step("attribution"))
    done = len(first)
    width = found.scores.shape[1]
    k = min(settings.topk or min(TOPK, max(1, width // 8)), width)
    rng = np.random.default_rng(settings.seed)
    sets: dict[int, list[tuple[int, ...]]] = {}
    for layer in flipped:
        best = found.scores[layer].argsort(descending=True, stable=True)[:k].numpy()
        drawn = [matched(best, found.size[layer].double().numpy(), rng) for _ in range(settings.draws)]
        sets[layer] = [tuple(map(int, best)), *drawn]
    chunks = []
    for number, clip in enumerate(second):
        # Drawn for every clip, also those that are not run again, so that the later ones get the same.
        picks = {layer: int(rng.integers(found.pool.shape[1])) for layer in sets} if settings.kind != "flip" else {}
        if sink.skips(number):
            step("edited copies")
            continue
        kept = sink.arrays(CHUNKS, number)
        if kept is None:
            ready = reader.ready(clip)
            with torch.inference_mode(), subject.lock:
                flow = LayerStates(reader, ready, labels, settings.batch_size)
                made = measure_clip(flow, clip, sets, found, picks, settings, labels, target)
                as_is = -1 if flow.read_as_is is None else flow.read_as_is
            about = pd.DataFrame({"rate": [flow.frame_rate], "bands": [flow.bands], "read_as_is": [as_is]})
            kept = sink.keep_arrays(CHUNKS, number, table_arrays(about=about, **made))
        chunks.append(kept)
        sink.show(partial(changes_so_far, chunks))
        step("edited copies")
    sink.gather()
    unit_of = {clip.clip_id: clip.label(units) or f"clip {clip.clip_id}" for clip in second}
    table, clip_table, base_table = (
        pd.concat([array_table(kept, name) for kept in chunks], ignore_index=True)
        for name in ("measures", "answers", "bases")
    )
    last = chunks[-1]
    bands, as_is = int(last["about.bands"][0]), int(last["about.read_as_is"][0])
    table["unit"] = table["clip_id"].map(unit_of)
    clip_table["unit"] = clip_table["clip_id"].map(unit_of)
    return SignflipResult(
        config=config,
        top=tables.top(found.scores, found.size, sets),
        changes=tables.changes(table, settings.kind, settings.frames, bands, None if as_is < 0 else as_is),
        effects=tables.effects(clip_table),
        clips=clip_table[clip_table["draw"] == 0].drop(columns=["draw", "unit"]).reset_index(drop=True),
        links=tables.links(base_table, acoustics(second)),
        report={
            "target": labels.labels[target],
            "labels": list(labels.labels),
            "topk": k,
            "width": width,
            "n_layers": subject.n_layers,
            "layers": list(flipped),
            "frame_rate_hz": float(last["about.rate"][0]),
            "attributed_on": {"clips": found.clips, "of_the_target_only": found.of_target},
            "measured_on": {"clips": len(second), "units": len(set(unit_of.values())), "unit": units},
            "draws": settings.draws,
            "head": "the model's own" if subject.probe is None else "a probe fitted on labelled clips",
        },
    )


def changes_so_far(chunks: Sequence[Arrays]) -> pd.DataFrame:
    """Mean change of each proxy at the output over the clips that are through, as `SignflipResult.profile` has them.

    Args:
        chunks: a clip each, to which another thread may add meanwhile.
    """
    clips = list(chunks)
    table = pd.concat([array_table(kept, "measures") for kept in clips], ignore_index=True)
    table = table[(table["measured"] == tables.OUTPUT) & (table["draw"] == 0) & np.isfinite(table["change"])]
    means = table.groupby(["proxy", "flipped"], sort=False)["change"].agg(value="mean", n="size").reset_index()
    return means.rename(columns={"proxy": "series", "flipped": "x"}).assign(
        series=lambda rows: "change of " + rows["series"] + " at the output"
    )


def _target(labels: LabelTokens, name: str) -> int:
    if not name:
        return 0
    if name not in labels.labels:
        raise InterpError(f"target {name!r} is none of {', '.join(labels.labels)}.")
    return labels.labels.index(name)
