"""A comparison before it runs: two models, clips and settings held against each other, and what is null already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp_core.choices import EMOTIONS
from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.answers import question
from interp_core.experiments.clips import ClipReader, plan_batches
from interp_core.experiments.compare.erase import check_erasable, erase_sites, erased_transplants
from interp_core.experiments.compare.parts import alike_parts, check_comparable, mix_refusal, named_alike, null_sites
from interp_core.experiments.compare.passes import Readout, points_of
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.sites import checked_for, map_sites, stage_sites
from interp_core.experiments.compare.transplants import Transplant, build_transplants, parse_patch
from interp_core.experiments.compare.units import Columns, Units, describe_clips
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.store import CleanStore


@dataclass(frozen=True, eq=False)
class ComparePlan:
    """A comparison with everything opened, described and checked, nothing computed yet.

    Attributes:
        alike: part -> whether both models hold it bit for bit alike.
        null: sites at which both models have the same activation of any clip.
        notes: what a person has to know beforehand, in sentences.
    """

    base: CleanStore
    donor: CleanStore
    clips: tuple[Clip, ...]
    units: Units
    task: Readout
    settings: CompareRequest
    planned: tuple[tuple[int, ...], ...]
    alike: Mapping[str, bool]
    null: frozenset[Site]
    notes: tuple[str, ...]

    def transplants(self, divergence: Sequence[float]) -> list[Transplant]:
        """The transplants, given how little alike the layers are."""
        base, donor, settings = self.base.subject, self.donor.subject, self.settings
        made = build_transplants(
            base,
            donor,
            parse_patch(settings.patch, base.n_layers, divergence),
            stage_sites(settings, base),
            maps=settings.maps,
            map_sites=map_sites(settings, base),
            weights=settings.weights,
            reverse=settings.reverse,
            null=self.null,
        ) + erased_transplants(settings, base, self.units)
        return [transplant for transplant in made if not (settings.skip_null and transplant.null)]

    @property
    def forwards(self) -> int:
        """Forward passes in all, both models together."""
        transplants = self.transplants([0.0] * self.base.subject.n_layers)
        givers = len({transplant.reverse for transplant in transplants if transplant.mode == "donor"})
        checked = 0
        if self.settings.checks and transplants:  # see `check_edits`: the first batch, as it is and at every site
            sites = checked_sites(transplants)
            checked = len(self.planned[0]) * (1 + len(sites) + 2 * (Site("logits") in sites))
        return len(self.clips) * (2 + givers + len(transplants)) + checked

    @property
    def readers(self) -> tuple[ClipReader, ClipReader]:
        """Of the base and of the donor."""
        return ClipReader(self.base, self.task.prompt), ClipReader(self.donor, self.task.prompt)


def checked_sites(transplants: Sequence[Transplant]) -> list[Site]:
    """The sites at which edits are checked before the run, each once."""
    return list(dict.fromkeys(site for one in transplants if not one.reverse for site in one.sites))


def plan_comparison(
    base: CleanStore, donor: CleanStore, clips: Sequence[Clip], settings: CompareRequest
) -> ComparePlan:
    """Check two models, the clips and the settings against each other, before anything is computed.

    Raises:
        InterpError: models of two shapes, classes that differ, columns, sites or layers that are not there.
    """
    one, two = base.subject, donor.subject
    check_comparable(one, two)
    settings = checked_for(settings, one)
    erase_sites(settings, one)
    settings = replace(
        settings,
        prompt=settings.prompt or question(one, settings.model),
        labels=settings.labels or (() if one.answers else EMOTIONS),
    )
    for subject in (one, two):
        subject.check_ready()
        subject.check_prompt(settings.prompt)
    answers = settings.labels or one.answers
    labels, theirs = (subject.labels(answers, settings.prompt) for subject in (one, two))
    if labels.ids != theirs.ids or (not settings.labels and set(one.answers) != set(two.answers)):
        raise InterpError(
            f"{one.name} and {two.name} have other classes, or in another order ({', '.join(one.answers[:6])} and "
            f"{', '.join(two.answers[:6])}); compare two models of one task."
        )
    units = describe_clips(clips, columns_of(settings), labels.labels, seed=settings.seed)
    check_erasable(settings, units, clips)
    labels = _renamed(labels, units, settings.bonafide_index)
    if units.positive not in labels.labels:
        units = replace(units, positive="")
    alike, null = alike_parts(one, two), null_sites(one, two)
    readers = [ClipReader(store, settings.prompt) for store in (base, donor)]
    return ComparePlan(
        base=base,
        donor=donor,
        clips=tuple(clips),
        units=units,
        task=Readout(settings.prompt, labels),
        settings=settings,
        planned=plan_batches(readers, clips, settings.batch_size),
        alike=alike,
        null=null,
        notes=tuple(_notes(one, two, alike, null, units, settings)),
    )


def columns_of(request: CompareRequest) -> Columns:
    """The manifest columns that are named."""
    return Columns(request.label, request.speaker, request.group, request.domain, request.attack)


def parts_report(question: ComparePlan, transplants: Sequence[Transplant]) -> dict[str, Any]:
    """What both models hold alike, and which transplants must therefore change nothing."""
    return {
        "identical": dict(question.alike),
        "identical_in_words": list(named_alike(question.alike)),
        "equal_activations": [str(site) for site in points_of(question.base.subject) if site in question.null],
        "null_by_construction": {transplant.name: transplant.null for transplant in transplants if transplant.null},
        "notes": list(question.notes),
    }


def _renamed(labels: LabelTokens, units: Units, index: int | None) -> LabelTokens:
    """Name two logits by the clips' own classes, where it was said which of them stands for bona fide."""
    if index is None or not units.scored:
        return labels
    if len(labels.ids) != 2 or index not in (0, 1):
        raise InterpError(
            f"bona fide index {index} does not fit {len(labels.ids)} logits; 0 in the thesis code, 1 in the official "
            "baselines."
        )
    other = next(str(name) for name in units.labels if name != units.positive)
    return replace(labels, labels=tuple(units.positive if i == index else other for i in range(2)))


def _notes(
    base: Subject,
    donor: Subject,
    alike: Mapping[str, bool],
    null: frozenset[Site],
    units: Units,
    settings: CompareRequest,
) -> list[str]:
    """What a person has to know before anything runs."""
    said = []
    if all(alike.values()):
        said.append("Both models are identical in every part: nothing can differ.")
    elif same := named_alike(alike):
        said.append(f"Identical in both models: {', '.join(same)}.")
    layers = sum(site.kind == "resid_post" for site in null)
    if layers:
        which = "every layer" if layers == base.n_layers else f"layers 0 to {layers - 1}" if layers > 1 else "layer 0"
        said.append(f"A transplant at {which} alone must change nothing: the activations are the same in both models.")
    if "position_bias" in base.batch_first and not alike.get("layer 0", True):
        said.append(
            "The first layer's position bias acts in all later layers and is not part of the residual stream: it "
            "stays the recipient's own."
        )
    if settings.weights and (refusal := mix_refusal(base, donor)):
        said.append(f"No layer weights to transplant: {refusal}.")
    said.append(units.split[0].upper() + units.split[1:] + ".")
    if not units.scored:
        said.append("The clips are not of two classes with a bona fide one, so there is no EER: accuracy and logits.")
    if not units.columns.domain:
        said.append("No column says the domain (codec, channel), so no probe is fitted.")
    return said
