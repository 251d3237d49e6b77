"""A mean state as the donor: in every family the fast route is the model's own forward, the mean written in by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.sites import Site
from interp_core.trace.attribution import attribute
from interp_core.trace.clean import CleanRun
from interp_core.trace.hooks import edited
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import cost, donor_prefix, sweep
from tests.families.audio_llms import FAMILIES
from tests.families.encoder_routes import answer
from tests.families.subjects import Opened
from tests.models.conftest import OpenFamily, Runs
from tests.models.test_encoder_sweeps import along, spec_of
from tests.trace.cases import truncated, whole_vocabulary
from tests.trace.naive import gap


def meant(patch: Patch, others: list[CleanRun], spec: SiteSpec) -> Patch:
    """With the mean over other clips' states, each clip's own mean over all of its positions, in the donor's place."""
    means = {
        layer: torch.stack([run.at(spec.kind, layer)[:, spec.columns_at(layer)].mean(0) for run in others]).mean(0)
        for layer in spec.layers
    }
    return replace(patch, mean=means)


def hold(subject, patch: Patch, labels, spec: SiteSpec, methods: tuple[str, ...]) -> Tensor:
    """The same by every route; the reference's logits [layers, labels]."""
    found = {m: sweep(subject, [patch, patch], labels, spec, method=m) for m in methods}
    reference = found["reference"].label_logits
    for method, one in found.items():
        assert gap(one.label_logits, reference) < 1e-4, (spec, method)
        assert "shortcut" not in one.methods
    return reference[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_audio_llm_with_a_mean_state_answers_as_its_own_forward_does(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    patch = truncated(runs["middle"], runs["twin"])
    labels = whole_vocabulary(patch.recipient)
    others = [runs["short"], runs["long"]]
    for spec in (
        SiteSpec("resid_post", layers=(-1, 0, subject.n_layers - 2)),
        SiteSpec("attn_out", layers=(0,)),
        SiteSpec("head_out", 1, subject.d_head, (1,)),
    ):
        with_mean = meant(patch, others, spec)
        rows = hold(subject, with_mean, labels, spec, ("reference", "fast", "wavefront"))
        whole = sweep(subject, [patch], labels, spec).label_logits[0]
        least = 1e-5 if spec.inside else 1e-3
        assert gap(rows, patch.recipient.logits.expand_as(rows)) > least  # control: the edit does something
        assert gap(rows, whole) > least  # and something else than B's own states
    spec = SiteSpec("resid_post", layers=(0,))
    assert donor_prefix(subject, meant(patch, others, spec), spec) is None  # the donor's keys are not the patched ones
    assert cost(subject, meant(patch, others, spec), spec, "reference") == cost(subject, patch, spec, "reference") - 1


def test_an_encoder_with_a_mean_state_answers_as_with_the_mean_written_in_by_hand(one: Opened) -> None:
    subject = one.subject
    span = "all" if subject.whole_only else "audio"
    own = along(one.runs["long"], one.runs["long"], span)
    patch = replace(own, donor=one.runs["twin"], mean={})
    others = [one.runs["short"], one.runs["twin"]]
    specs = [spec_of(one, kind) for kind in ("resid_post", "attn_out") if kind in subject.kinds]
    if "head_out" in subject.kinds and not subject.whole_only:
        specs.append(SiteSpec("head_out", 0, subject.d_head, (0, 1)))
    moved = 0.0
    for spec in specs:
        rows = hold(subject, meant(patch, others, spec), one.labels, spec, ("reference", "fast"))
        at_first = next(place for place, layer in enumerate(spec.layers) if layer >= 0)
        layer = spec.layers[at_first]  # behind which more is read than the last position
        mean, columns = meant(patch, others, spec).mean[layer], spec.columns_at(layer)

        def by_hand(value: Tensor, mean: Tensor = mean, columns: slice = columns) -> Tensor:
            changed = value.clone()
            at = torch.arange(value.shape[1]) if subject.whole_only else patch.positions
            state = changed[0, at]
            state[:, columns] = mean
            changed[0, at] = state
            return changed

        with edited(subject, {Site(spec.kind, layer, spec.head): by_hand}):
            expected = answer(one, one.stems["long"].inputs)[0]
        assert gap(rows[at_first], expected) < 1e-4, spec
        moved = max(moved, gap(expected, one.logits("long")))
    assert moved > 1e-3  # control; at the decoder's first token attention has heard nothing, so one site can be still


def test_a_mean_without_a_donor_or_beside_an_average_is_refused_and_so_is_its_slope(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs]
) -> None:
    family = next(iter(FAMILIES))
    runs = runs_of_family(family)
    patch = truncated(runs["middle"], runs["twin"])
    mean = {0: torch.zeros(patch.recipient.resid[0].shape[1])}
    for wrong in ({"donor": None, "noise_seed": 1}, {"averaged": True}):
        with pytest.raises(InterpError, match="a patch with a mean has a donor to be compared with"):
            replace(patch, mean=mean, **wrong)
    with pytest.raises(InterpError, match="a clip as donor each"):
        attribute(opened(family), [replace(patch, mean=mean)], whole_vocabulary(patch.recipient), 0, ("attn_out",))
