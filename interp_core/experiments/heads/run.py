"""Which heads, blocks and stages separate the classes, is it more than chance, and does the model use them?

Every number is about vectors that were pooled over a clip's positions in one forward pass (`capture`). A point's
Fisher ratio comes with its size under labels without meaning (1 on the normalised scale), a family-wise p within its
granularity, an interval over groups of related clips, and a linear probe, which is free of the point's width. That a
point separates the classes does not say that the model uses it: the ablation does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from interp_core.data.clips import Clip
from interp_core.data.sampling import stratified
from interp_core.errors import InterpError
from interp_core.experiments.figures import sign
from interp_core.experiments.heads.ablate import Task, ablate
from interp_core.experiments.heads.capture import Vectors, capture
from interp_core.experiments.heads.figures import heatmap_figure, points_of
from interp_core.experiments.heads.limits import LIMITS
from interp_core.experiments.heads.points import GRANULARITIES, Granularity
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.result import Result
from interp_core.jobs import Progress, silent
from interp_core.maths.fisher import fisher_interval, fisher_ratio, fisher_test
from interp_core.maths.probes import ProbeScore, linear_probe
from interp_core.sinks import MEMORY, Sink
from interp_core.trace.store import CleanStore

GROUP_COLUMNS = ("group", "src_file", "recording", "utterance", "text_id", "speaker", "slide", "patient", "source")
PROBE_STRENGTH = 0.1  # C of the companion probe: one for all points, so that they are compared alike
TRAIN = "train"


@dataclass(frozen=True)
class Drawn:
    """The clips of a run: `labels` and `groups` one a clip, groups None where clips stand alone.

    Attributes:
        counts: clips of each class: available, drawn.
        grouped_by: the column of the groups, or why there are none.
        left_out: clips that were not drawn, by what they are: training clips, those without a label or of another class
            than those asked for, and what a class has more than is drawn of each.
        pool: the clips of the split that is used.
    """

    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None
    counts: pd.DataFrame
    grouped_by: str
    left_out: Mapping[str, int]
    pool: tuple[Clip, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class HeadsResult(Result):
    """A finished run.

    Attributes:
        table: one row a point: granularity, stage, block, layer, head, name, width, fisher_ratio, fisher_f (normalised:
            1 under labels without meaning) with fisher_f_low and _high, small_dims, live_dims (that vary at all),
            fisher_f_live (over those alone; a constant dimension counts as 0 in the ratio), p_adjusted,
            probe_accuracy with _low and _high; NaN where a number is undefined.
        clips: one row a clip: clip_id, label, group.
        notes: by granularity, how p, intervals and probes were made, or why there are none.
        ablation: rows of `heads_ablate.ablate`; empty where none was asked for.
        vectors: the pooled vectors, in the order of `clips`.
        words: answers in words, one row a clip and head; see `edited_answers`. Empty where none were written.
    """

    table: pd.DataFrame
    clips: pd.DataFrame
    notes: Mapping[str, Mapping[str, str]]
    ablation: pd.DataFrame
    vectors: Vectors = field(repr=False)
    words: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def metrics(self) -> pd.DataFrame:
        """The table of all points."""
        return self.table

    def tables(self) -> dict[str, pd.DataFrame]:
        spoken = {"words": self.words} if len(self.words) else {}
        return {"fisher": self.table, "ablation": self.ablation, **spoken, "clips": self.clips}

    def points(self, granularity: str) -> pd.DataFrame:
        """The rows of a granularity, in the order of the forward pass."""
        return points_of(self.table, granularity)

    limits = LIMITS
    profile_x = "place"

    def profile(self) -> pd.DataFrame:
        series = "F of each " + self.table["granularity"].str.replace("_", " ")
        values = self.table["fisher_f"].to_numpy()
        return pd.DataFrame({"series": series.to_numpy(), "x": self.table["name"].to_numpy(), "value": values})

    def figure(self) -> Figure:
        return sign(heatmap_figure(self.config, self.table, len(self.clips)), self.signature())

    @property
    def counted(self) -> str:
        return f"n = {len(self.clips)} clips"

    @property
    def method(self) -> str:
        made = self.notes.get("head", {})
        return "; ".join(
            ["Fisher ratio", *(made[name].partition(",")[0] for name in ("p", "interval") if made.get(name))]
        )


def draw(clips: Sequence[Clip], settings: HeadsRequest) -> Drawn:
    """Choose the clips: the same number a class, the same ones whatever the order of the rows.

    Raises:
        InterpError: no such column, a class that is missing or has too few clips, a single class.
    """
    kept = list(clips)
    splits = {clip.label("split") for clip in clips}
    trained_on = [clip for clip in clips if clip.label("split") == TRAIN]
    if settings.held_out and trained_on and splits - {TRAIN}:
        kept = [clip for clip in clips if clip.label("split") != TRAIN]
    columns = sorted({name for clip in clips for name in clip.labels})
    if not any(clip.label(settings.label) for clip in kept):
        raise InterpError(f"no clip has a value in {settings.label!r} (columns: {', '.join(columns) or 'none'}).")
    frame = pd.DataFrame(
        {"clip_id": [clip.clip_id for clip in kept], settings.label: [clip.label(settings.label) for clip in kept]}
    )
    sample = stratified(frame, settings.label, settings.per_class, settings.seed, classes=settings.classes or None)
    by_id = {clip.clip_id: clip for clip in kept}
    chosen = tuple(by_id[clip_id] for clip_id in sample.clips["clip_id"])
    labels = tuple(str(clip.label(settings.label)) for clip in chosen)
    if len(set(labels)) < 2:
        raise InterpError(f"all clips with a {settings.label!r} are {labels[0]!r}; heads separate two classes or more.")
    groups, said = groups_of(chosen, settings.groups, settings.label)
    available = int(sample.counts["available"].sum())
    left_out = {
        "training clips": len(clips) - len(kept),
        "clips without a label": sample.unlabelled,
        "clips of other classes": len(kept) - sample.unlabelled - available,
        "clips so that every class has as many": available - len(chosen),
    }
    return Drawn(chosen, labels, groups, sample.counts, said, left_out, tuple(kept))


def groups_of(clips: Sequence[Clip], column: str, label: str) -> tuple[tuple[str, ...] | None, str]:
    """What related clips share, and the column that says so."""
    if column == "none":
        return None, "none: every clip stands alone"
    names = [name for name in GROUP_COLUMNS if name != label] if column == "auto" else [column]
    for name in names:
        values = [clip.label(name) for clip in clips]
        if all(value is not None for value in values) and (column != "auto" or 1 < len(set(values)) < len(values)):
            return tuple(map(str, values)), name
    if column != "auto":
        raise InterpError(f"not every clip has a value in the column of groups {column!r}; give another, or none.")
    return None, "none: no column says which clips are related"


def measure(
    vectors: Vectors, labels: Sequence[str], groups: Sequence[str] | None, settings: HeadsRequest, progress: Progress
) -> tuple[pd.DataFrame, dict[str, dict[str, str]]]:
    """Fisher ratios, p, intervals and probes of every point: the table and notes of `HeadsResult`."""
    geometry = vectors.geometry
    points = {name: geometry.points(name) for name in GRANULARITIES}
    probed = {name: list(of) if is_probed(name, settings) else [] for name, of in points.items()}
    total, done = sum(map(len, points.values())), 0
    tables: list[pd.DataFrame] = []
    notes: dict[str, dict[str, str]] = {}
    for name, of in points.items():
        try:
            values = vectors.all(name)
        except InterpError as error:  # heads of different widths in a stage
            notes[name] = {"left out": str(error)}
            continue
        if not values:
            continue
        found = fisher_ratio(values, labels)
        test = fisher_test(values, labels, groups, draws=settings.draws, seed=settings.seed)
        interval = fisher_interval(values, labels, groups)
        none = np.full(len(of), np.nan)
        table = pd.DataFrame([asdict(point) | {"name": point.name} for point in of])
        table["width"] = found.dims
        table["fisher_ratio"], table["fisher_f"] = found.ratio, found.normalised
        table["fisher_f_low"], table["fisher_f_high"] = interval.low, interval.high
        table["small_dims"] = found.small_dims
        table["live_dims"], table["fisher_f_live"] = found.live_dims, found.live
        table["p_adjusted"] = none if test.adjusted_p is None else test.adjusted_p
        accuracy = np.full((len(of), 3), np.nan)
        said = "no probe was asked for"
        for row, value in enumerate(values if probed[name] else []):
            probe = measure_point(value, labels, groups, settings.seed)
            accuracy[row] = probe.accuracy, probe.interval.low[0], probe.interval.high[0]
            said = probe.reason or f"balanced accuracy on held-out groups, chance {probe.chance:.3f}"
            progress(done + row, total, "probing heads, blocks and stages")
        table[["probe_accuracy", "probe_low", "probe_high"]] = accuracy
        notes[name] = {"p": test.method, "interval": interval.method, "probe": said}
        tables.append(table)
        done += len(of)
    return pd.concat(tables, ignore_index=True), notes


def measure_point(
    value: NDArray[np.floating], labels: Sequence[str], groups: Sequence[str] | None, seed: int
) -> ProbeScore:
    """The probe of one point, [n_clips, width]."""
    return linear_probe(value, labels, groups, strengths=(PROBE_STRENGTH,), draws=0, seed=seed)


def is_probed(granularity: Granularity, settings: HeadsRequest) -> bool:
    """Whether the points of a granularity get a probe."""
    return settings.probes == "all" or (settings.probes == "wide" and granularity != "head")


def run_heads(
    store: CleanStore,
    drawn: Drawn,
    settings: HeadsRequest,
    config: Mapping[str, Any],
    *,
    sink: Sink = MEMORY,
    progress: Progress = silent,
) -> HeadsResult:
    """Capture, measure, and ablate where that is asked for; the batches of both are chunks of the sink."""
    if not settings.ablate:
        sink.gather()
    vectors = capture(
        store,
        drawn.clips,
        settings.prompt,
        batch_size=settings.batch_size,
        labels=drawn.labels,
        sink=sink,
        progress=progress,
    )
    task = None
    if settings.ablate:
        task = Task.of(store, settings.prompt, drawn.labels, drawn.groups)  # says what is wrong before the long part
    ablation = pd.DataFrame()
    if task is not None:
        heads = [(point.layer, point.head) for point in vectors.geometry.points("head")]
        ablation = ablate(
            store, drawn.clips, task, heads, settings.ablate, vectors,
            batch_size=settings.batch_size, seed=settings.seed, sink=sink, progress=progress,
        )  # fmt: skip
    table, notes = measure(vectors, drawn.labels, drawn.groups, settings, progress)
    groups = drawn.groups or tuple(clip.clip_id for clip in drawn.clips)
    clips = pd.DataFrame({"clip_id": [clip.clip_id for clip in drawn.clips], "label": drawn.labels, "group": groups})
    return HeadsResult(config, table, clips, notes, ablation, vectors)
