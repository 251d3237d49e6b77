"""What a patching run is to do: the chunks of pairs that follow from a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from interp_core.data.clips import Clip, seconds_of
from interp_core.data.pairs import Pair, PairSet
from interp_core.errors import InterpError, few
from interp_core.experiments.patching.controls import no_conflict_pairs, random_donors
from interp_core.experiments.patching.means import ClassMeans
from interp_core.experiments.patching.positions import align_positions, check_positions, time_window
from interp_core.experiments.patching.request import CONTROLS, FLOWS, PatchRequest
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.patch import SiteSpec, sweep_layers
from interp_core.trace.store import CleanStore

COMPARED = ("matched", "random")
"""The conditions of a map: its own, and what it is tested against."""
PREFIX_PAIRS = 10
"""The prefix control is null by construction in a causal model, so a few pairs are enough to see that it is."""


@dataclass(frozen=True)
class Chunk:
    """Some pairs under one prompt, alpha and condition; with `map`, of that map and not of the curve."""

    number: int
    kind: str
    prompt: int
    alpha: float
    condition: str
    pairs: tuple[Pair, ...]
    map: str = ""

    @property
    def records_file(self) -> str:
        """The file of a run folder that its records go to."""
        if self.map:
            return f"{self.map}_map_records_{self.kind}.jsonl"
        return f"{'patching' if self.condition == 'matched' else 'control'}_records_{self.kind}.jsonl"


@dataclass(frozen=True)
class Plan:
    """A run before it starts: its chunks, those of maps behind those of the curve, and the donors that the controls
    drew."""

    settings: PatchRequest
    spec: SiteSpec
    labels: tuple[LabelTokens, ...]
    chunks: tuple[Chunk, ...]
    random_donors: Mapping[str, Clip]
    pairs: PairSet
    map_chunks: tuple[Chunk, ...] = ()
    all_that_is_read: bool = False
    """Whether the model reads its answer off the last residual stream alone."""
    padding_stays: bool = False
    """Whether beside what is heard it reads padding, and nothing else: see `Subject`."""
    fitted_on: tuple[Clip, ...] = ()
    """The clips that subspaces may be fitted on, and class means taken of."""
    means: ClassMeans | None = None
    """What the donors are where they are class means; without states until these are read."""

    @property
    def but_for_padding(self) -> bool:
        """Whether every heard position of the residual stream is replaced, and only padding stays the recipient's."""
        return self.padding_stays and self._whole_stream

    @property
    def by_construction(self) -> bool:
        """Whether every position of the residual stream is replaced and nothing else is read: see `Subject`."""
        return self.all_that_is_read and self._whole_stream

    @property
    def construction(self) -> str:
        """What a person is told of either, as the end of a sentence; "" where it is neither."""
        nearly = "nearly " if self.but_for_padding else ""
        return f"the donor's answer comes out {nearly}by construction" if nearly or self.by_construction else ""

    @property
    def _whole_stream(self) -> bool:
        return self.settings.positions in ("audio", "all") and self.settings.kind in ("resid_pre", "resid_post")

    def behind(self, chunk: Chunk) -> tuple[Chunk, ...]:
        """The chunk that comes behind one of the curve, if there is one."""
        return () if chunk.map else self.chunks[chunk.number + 1 : chunk.number + 2]

    def group_of(self, chunk: Chunk) -> int:
        """Chunks of one group begin with the same pair, and share its clean runs; groups are numbered as they come."""
        return self._groups[chunk.kind, chunk.pairs[0].pair_id]

    @cached_property
    def _groups(self) -> dict[tuple[str, str], int]:
        firsts = dict.fromkeys((chunk.kind, chunk.pairs[0].pair_id) for chunk in self.chunks)
        return {first: number for number, first in enumerate(firsts)}

    def expected(self, records_file: str) -> dict[int, int]:
        """How many records each chunk of a record file has."""
        return {
            chunk.number: len(chunk.pairs) * len(self.spec.layers)
            for chunk in (*self.chunks, *self.map_chunks)
            if chunk.records_file == records_file
        }


def plan(subject: Subject, pair_set: PairSet, clips: Sequence[Clip], settings: PatchRequest) -> Plan:
    """Lay out a run: check the settings against the model, draw the controls, cut the pairs into chunks.

    Raises:
        InterpError: settings that the model or the clips cannot serve.
    """
    settings.check()
    check_positions(settings.positions, settings.align)
    for prompt in settings.prompts:
        subject.check_prompt(prompt)
    window = time_window(settings.positions)
    if not (subject.timed if window is not None else settings.positions in subject.spans):
        timed = ", or a time window like 0.5-1.2" if subject.timed else ""
        raise InterpError(
            f"{subject.name} has no positions {settings.positions!r}; choose {' or '.join(subject.spans)}{timed}."
        )
    labels = tuple(subject.labels(settings.labels, p, several_tokens=settings.several_tokens) for p in settings.prompts)
    spec = site_spec(subject, settings)
    for layer in spec.layers:
        subject.locate(Site("resid_pre", 0) if layer == -1 else Site(settings.kind, layer, settings.head))
    usable = _reaching(clips, settings)
    donors = random_donors(pair_set.pairs, usable, settings.seed)
    means = class_means(subject, settings, usable, pair_set.pairs)
    kinds = [kind.name for kind in pair_set.kinds]
    most = max((len(pair_set.of(kind)) for kind in kinds), default=0)
    calm = no_conflict_pairs(usable, settings.labels, most, settings.seed)
    if means is not None:
        donors = {p.pair_id: d for p in pair_set.pairs if (d := donors.get(p.pair_id)) and means.has(p, d)}
        calm = tuple(p for p in calm if means.label in ("", p.target) and means.has(p, p.donor))
    conditions = ["matched", *_further_conditions(subject, settings)]
    chunks: list[Chunk] = []
    for number in range(len(settings.prompts)):
        for condition in conditions:
            for alpha in settings.alphas if condition == "matched" else settings.alphas[:1]:
                for kind in kinds:
                    pairs = pair_set.of(kind)
                    if condition == "random":
                        pairs = tuple(p for p in pairs if p.pair_id in donors)
                    elif condition == "no-conflict":
                        pairs = tuple(replace(p, kind=kind) for p in calm[: len(pairs)])
                    elif condition == "prefix":
                        pairs = pairs[:PREFIX_PAIRS]
                    for at in range(0, len(pairs), settings.batch_size):
                        some = pairs[at : at + settings.batch_size]
                        chunks.append(Chunk(len(chunks), kind, number, alpha, condition, some))
    for of_map in settings.maps:
        check_map(subject, settings, of_map)
    asked = [c for c in chunks if c.prompt == 0 and c.alpha == settings.alphas[0] and c.condition in COMPARED]
    maps = [replace(chunk, map=of_map) for of_map in settings.maps for chunk in asked]
    numbered = tuple(replace(chunk, number=at) for at, chunk in enumerate(maps, len(chunks)))
    return Plan(
        settings,
        spec,
        labels,
        tuple(chunks),
        donors,
        pair_set,
        numbered,
        subject.by_construction,
        subject.padding_stays,
        tuple(usable),
        means,
    )


def class_means(
    subject: Subject, settings: PatchRequest, clips: Sequence[Clip], pairs: Sequence[Pair]
) -> ClassMeans | None:
    """What class means are taken of, before states are read; None where the donors are clips.

    Raises:
        InterpError: positions that hold no recording alone, or pairs for which there is no mean.
    """
    if settings.class_mean is None:
        return None
    heard = settings.positions == "audio" or time_window(settings.positions) is not None
    if not heard and (settings.positions != "all" or "question" in subject.spans):
        raise InterpError(
            f"a class mean stands at the positions of the recording, and the run patches positions "
            f"{settings.positions!r}; choose audio or a time window, or leave --donor out."
        )
    made = ClassMeans(clips, settings.class_mean)
    made.check(pairs)
    return made


def check_map(subject: Subject, settings: PatchRequest, of_map: str) -> None:
    """Refuse a map that the model or the run's positions have no room for."""
    if of_map != "time":
        return
    if not subject.timed or subject.whole_only:
        raise InterpError(f"no position of {subject.name} stands for a time of its own, so it has no time map.")
    if settings.positions != "audio" and time_window(settings.positions) is None:
        raise InterpError(
            f"the time map cuts the recording into windows, but the run patches positions {settings.positions!r}; "
            "choose audio or a time window, or leave the map out."
        )


def plan_of_pair(
    subject: Subject, pair: Pair, settings: PatchRequest, prompt: int = 0, clips: Sequence[Clip] = ()
) -> Plan:
    """The plan of one pair by hand, without chunks, checks or controls; class means are taken of `clips`."""
    settings = replace(settings, controls=(), flow=()).counting()
    settings.check()
    labels = subject.labels(settings.labels, settings.prompts[prompt], several_tokens=settings.several_tokens)
    spec = site_spec(subject, settings)
    usable = tuple(_reaching(clips, settings))
    means = class_means(subject, settings, usable, [pair])
    pairs = PairSet((pair,), (), {})
    return Plan(settings, spec, (labels,) * len(settings.prompts), (), {}, pairs, fitted_on=usable, means=means)


def site_spec(subject: Subject, settings: PatchRequest) -> SiteSpec:
    """Return where the settings edit a model."""
    layers = sweep_layers(settings.kind, subject.n_layers, settings.layers)
    widths = {} if settings.head is None else {layer: subject.d_head_at(layer) for layer in layers}
    return SiteSpec(settings.kind, settings.head, widths, layers)


def fitting(subject: Subject) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the controls and the flow curves that can mean something for a model."""
    text = "question" in subject.spans and subject.arch.causal
    controls = tuple(c for c in CONTROLS if text or c != "prefix")
    refusals = {"lens": subject.lens_refusal(), "knockout": subject.shortcut_refusal()}
    return controls, tuple(f for f in FLOWS if (refusals[f] is None if f in refusals else text))


def _further_conditions(subject: Subject, settings: PatchRequest) -> list[str]:
    """Controls and flow curves that mean something for the model and at the run's positions.

    Positions of text are their own control: they hold the same words in every clip. Prefix, question and last position
    are drawn beside the whole audio only, and where there is text around it; a class mean has no place in text.
    """
    audio = settings.positions == "audio" and settings.class_mean is None
    some_audio = settings.positions in ("audio", "all") or time_window(settings.positions) is not None
    fits, flows = fitting(subject)
    controls = [c for c in fits if c in settings.controls and (some_audio if c != "prefix" else audio)]
    return controls + [c for c in ("question", "last") if c in settings.flow and c in flows and audio]


def _reaching(clips: Sequence[Clip], settings: PatchRequest) -> list[Clip]:
    """The clips that a control may draw: where the same seconds are exchanged, those in which they exist."""
    window = time_window(settings.positions)
    if window is None or settings.align == "resample":
        return list(clips)
    # A tenth of a second more, because the last positions of a clip cover less than their share.
    return [clip for clip in clips if seconds_of(clip.path) > window[0] + 0.1]


def check_window(made: Plan, store: CleanStore) -> None:
    """Refuse a time window that begins behind the end of a clip that it needs, naming all such clips.

    How many positions a clip takes is known from its stem alone; the stems that this runs are kept for the run.
    """
    settings = made.settings
    if time_window(settings.positions) is None:
        return
    needed = {p.recipient.clip_id: p.recipient for p in made.pairs.pairs}
    if settings.align == "truncate":
        needed |= {p.donor.clip_id: p.donor for p in made.pairs.pairs}
    short = []
    for clip_id in sorted(needed):
        stem = store.prompted(needed[clip_id], settings.prompts[0])
        try:
            align_positions(stem, stem, settings.positions, settings.align)
        except InterpError:
            seconds = (stem.audio[1] - stem.audio[0]) * stem.seconds_per_position
            short.append(f"{clip_id} ({seconds:.2f} s)")
    if short:
        raise InterpError(
            f"the window {settings.positions} s lies behind the end of {len(short)} of the {len(needed)} clips that it "
            f"needs: {few(short, 10)}; choose an earlier one, or leave these clips out."
        )
