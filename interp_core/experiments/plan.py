"""What a patching run is to do: its settings, and the chunks of pairs that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from interp_core.data.clips import Clip, seconds_of
from interp_core.data.pairs import Pair, PairSet
from interp_core.errors import InterpError
from interp_core.experiments.controls import CONTROLS, no_conflict_pairs, random_donors
from interp_core.experiments.positions import Align, align_positions, check_positions, time_window
from interp_core.models.labels import EMOTIONS, LabelTokens
from interp_core.models.subject import Subject
from interp_core.sites import OF_HEADS, STAGES, Kind, Site, check_kind
from interp_core.trace.patch import SiteSpec, sweep_layers
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import METHODS, Method

DEFAULT_PROMPT = (
    "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised."
)
FLOWS = ("question", "last", "lens", "knockout")
PREFIX_PAIRS = 10
"""The prefix control is null by construction in a causal model, so a few pairs are enough to see that it is."""


@dataclass(frozen=True)
class PatchSettings:
    """Everything that decides the numbers of a patching run; kept word for word in its config file."""

    labels: tuple[str, ...] = EMOTIONS
    prompts: tuple[str, ...] = (DEFAULT_PROMPT,)
    site: Kind = "resid_post"
    head: int | None = None
    layers: tuple[int, ...] | None = None
    positions: str = "audio"
    align: Align = "truncate"
    alphas: tuple[float, ...] = (1.0,)
    controls: tuple[str, ...] = CONTROLS
    flow: tuple[str, ...] = FLOWS
    method: Method = "fast"
    batch_size: int = 8
    seed: int = 42
    several_tokens: Literal["refuse", "first"] = "refuse"
    knockout_width: int = 3
    checks: bool = True

    def check(self) -> None:
        """Refuse settings that mean nothing, all before the model is touched; InterpError says which."""
        if check_kind(self.site) in STAGES:
            raise InterpError(f"site {self.site!r} stands behind all layers, so there are no layers to sweep there.")
        check_positions(self.positions, self.align)
        for name, chosen, known in (("control", self.controls, CONTROLS), ("flow", self.flow, FLOWS)):
            if wrong := [c for c in chosen if c not in known]:
                raise InterpError(f"unknown {name} {', '.join(wrong)} (known: {', '.join(known)}, or none).")
        if self.method not in METHODS:
            raise InterpError(f"method {self.method!r} is none of {', '.join(METHODS)}.")
        if not self.alphas or not all(0 <= alpha <= 1 for alpha in self.alphas):
            raise InterpError(f"alpha {list(self.alphas)}: give one or more strengths between 0 and 1.")
        if len(set(self.alphas)) < len(self.alphas):
            raise InterpError(f"alpha {list(self.alphas)}: give each strength once.")
        if self.layers is not None and not self.layers:
            raise InterpError("no layer was given; give all or a list like 0,4,8.")
        if self.seed < 0:
            raise InterpError(f"seed {self.seed}: need 0 or more.")
        if self.knockout_width < 1:
            raise InterpError(f"knockout width {self.knockout_width}: need 1 layer or more.")
        if self.batch_size < 1:
            raise InterpError(f"batch size {self.batch_size}: need 1 or more.")
        if not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise InterpError("give one or more different prompts.")
        if self.head is not None and self.site not in OF_HEADS:
            raise InterpError(
                f"a head is patched at site {' or '.join(OF_HEADS)}, not at {self.site}; set the site, "
                "or leave head out."
            )


@dataclass(frozen=True)
class Chunk:
    """Some pairs under one prompt, alpha and condition."""

    number: int
    kind: str
    prompt: int
    alpha: float
    condition: str
    pairs: tuple[Pair, ...]

    @property
    def control(self) -> bool:
        return self.condition != "matched"


@dataclass(frozen=True)
class Plan:
    """A run before it starts: its chunks, and the donors that the controls drew."""

    settings: PatchSettings
    spec: SiteSpec
    labels: tuple[LabelTokens, ...]
    chunks: tuple[Chunk, ...]
    random_donors: Mapping[str, Clip]
    pairs: PairSet
    all_that_is_read: bool = False
    """Whether the model reads its answer off the last residual stream alone."""

    @property
    def by_construction(self) -> bool:
        """Whether every position of the residual stream is replaced and nothing else is read: see `Subject`."""
        whole = self.settings.positions in ("audio", "all") and self.settings.site == "resid_post"
        return self.all_that_is_read and whole

    def expected(self, kind: str, control: bool) -> dict[int, int]:
        """Return how many records each chunk of a kind's record file has."""
        return {
            chunk.number: len(chunk.pairs) * len(self.spec.layers)
            for chunk in self.chunks
            if chunk.kind == kind and chunk.control == control
        }


def plan(subject: Subject, pair_set: PairSet, clips: Sequence[Clip], settings: PatchSettings) -> Plan:
    """Lay out a run: check the settings against the model, draw the controls, cut the pairs into chunks.

    Raises:
        InterpError: settings that the model or the clips cannot serve.
    """
    settings.check()
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
        subject.locate(Site("resid_pre", 0) if layer == -1 else Site(settings.site, layer, settings.head))
    usable = _reaching(clips, settings)
    donors = random_donors(pair_set.pairs, usable, settings.seed)
    kinds = [kind.name for kind in pair_set.kinds]
    most = max((len(pair_set.of(kind)) for kind in kinds), default=0)
    calm = no_conflict_pairs(usable, settings.labels, most, settings.seed)
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
    return Plan(settings, spec, labels, tuple(chunks), donors, pair_set, subject.by_construction)


def site_spec(subject: Subject, settings: PatchSettings) -> SiteSpec:
    """Return where the settings edit a model."""
    layers = sweep_layers(settings.site, subject.n_layers, settings.layers)
    return SiteSpec(settings.site, settings.head, 0 if settings.head is None else subject.d_head, layers)


def fitting(subject: Subject) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the controls and the flow curves that can mean something for a model."""
    text = "question" in subject.spans and subject.arch.causal
    controls = tuple(c for c in CONTROLS if text or c != "prefix")
    refusals = {"lens": subject.lens_refusal(), "knockout": subject.shortcut_refusal()}
    return controls, tuple(f for f in FLOWS if (refusals[f] is None if f in refusals else text))


def _further_conditions(subject: Subject, settings: PatchSettings) -> list[str]:
    """Controls and flow curves that mean something for the model and at the run's positions.

    Positions of text are their own control: they hold the same words in every clip. Prefix, question and last position
    are drawn beside the whole audio only, and where there is text around it.
    """
    audio = settings.positions == "audio"
    some_audio = audio or settings.positions == "all" or time_window(settings.positions) is not None
    fits, flows = fitting(subject)
    controls = [c for c in fits if c in settings.controls and (some_audio if c != "prefix" else audio)]
    return controls + [c for c in ("question", "last") if c in settings.flow and c in flows and audio]


def _reaching(clips: Sequence[Clip], settings: PatchSettings) -> list[Clip]:
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
        more = f" and {len(short) - 10} more" if len(short) > 10 else ""
        raise InterpError(
            f"the window {settings.positions} s lies behind the end of {len(short)} of the {len(needed)} clips that it "
            f"needs: {', '.join(short[:10])}{more}; choose an earlier one, or leave these clips out."
        )


def settings_dict(settings: PatchSettings) -> dict[str, Any]:
    """Return the settings as a config file holds them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()}


def settings_from(saved: Mapping[str, Any]) -> PatchSettings:
    """Read settings back from a config file."""
    known = PatchSettings.__dataclass_fields__
    if unknown := sorted(set(saved) - set(known)):
        raise InterpError(f"the config holds unknown settings {', '.join(unknown)}; it is from another version.")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
    return PatchSettings(**values)
