"""Only a subspace exchanged: in every family the fast route is the model's own forward, and the limits are exact."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp_core.maths.subspaces import random_basis
from interp_core.sites import Site
from interp_core.trace.clean import CleanRun
from interp_core.trace.hooks import edited
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import donor_prefix, sweep
from tests.families.audio_llms import FAMILIES
from tests.families.encoder_routes import answer
from tests.families.subjects import Opened
from tests.models.conftest import OpenFamily, Runs
from tests.models.test_encoder_sweeps import along, spec_of
from tests.trace.cases import truncated, whole_vocabulary
from tests.trace.naive import gap


def bases(run: CleanRun, spec: SiteSpec, rank: int | None) -> dict[int, Tensor]:
    """A basis by layer, of the width that is edited there; None: of all of it."""
    widths = {layer: run.at(spec.kind, layer)[:, spec.columns_at(layer)].shape[1] for layer in spec.layers}
    return {
        layer: random_basis(width, width if rank is None else min(rank, width), "test", layer)
        for layer, width in widths.items()
    }


def within(patch: Patch, spec: SiteSpec, rank: int | None) -> Patch:
    return replace(patch, within=bases(patch.recipient, spec, rank))


def hold(subject, patch: Patch, labels, spec: SiteSpec, methods: tuple[str, ...]) -> Tensor:
    """Some directions by every route, all of them, and none; the reference's logits of the first."""
    some, every, none = (within(patch, spec, rank) for rank in (2, None, 0))
    found = {m: sweep(subject, [some, every, none, patch], labels, spec, method=m).label_logits for m in methods}
    reference = found["reference"]
    base = labels.read(patch.recipient.logits[None])[0].expand_as(reference[2])
    for method, logits in found.items():
        assert gap(logits, reference) < 1e-4, (spec, method)
        assert gap(logits[1], logits[3]) < 1e-5, "all directions are the whole state"
        assert gap(logits[2], base) < 1e-4, "none is no patch"
    at = spec.layers[0]
    state = patch.recipient.at(spec.kind, at)[patch.positions] if not subject.whole_only else None
    if state is not None and patch.donor is not None:
        assert torch.equal(none.mix(state, patch.donor.at(spec.kind, at), at, spec.columns_at(at)), state), (
            "not one bit"
        )
    return reference[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_audio_llm_patched_within_a_subspace_answers_as_its_own_forward_does(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    patch = truncated(runs["middle"], runs["twin"])
    labels = whole_vocabulary(patch.recipient)
    for spec in (
        SiteSpec("resid_post", layers=(-1, 0, subject.n_layers - 2)),
        SiteSpec("attn_out", layers=(0,)),
        SiteSpec("head_out", 1, subject.d_head, (1,)),
    ):
        rows = hold(subject, patch, labels, spec, ("reference", "fast", "wavefront"))
        whole = sweep(subject, [patch], labels, spec).label_logits[0]
        least = 1e-5 if spec.inside else 1e-3
        assert gap(rows, patch.recipient.logits.expand_as(rows)) > least  # control: the edit does something
        assert gap(rows, whole) > least  # and something else than the whole state
    spec = SiteSpec("resid_post", layers=(0,))
    assert donor_prefix(subject, within(patch, spec, 2), spec) is None  # the donor's keys are not the patched ones


def test_an_encoder_patched_within_a_subspace_answers_as_with_a_plain_projection(one: Opened) -> None:
    span = "all" if one.subject.whole_only else "audio"
    patch = along(one.runs["long"], one.runs["twin"], span)
    for kind in ("resid_post", "attn_out"):
        if kind in one.subject.kinds:
            spec = spec_of(one, kind)
            hold(one.subject, patch, one.labels, spec, ("reference", "fast"))
    if one.subject.whole_only or one.case.reads == "texts":
        return
    basis = random_basis(patch.recipient.at("resid_post", 0).shape[1], 2, "test", 0).float()
    donor = patch.donor.at("resid_post", 0)[patch.source.long()]

    def by_hand(value: Tensor) -> Tensor:
        own = value[0, patch.positions]
        matrix = basis.T @ basis  # [width, width]
        changed = value.clone()
        changed[0, patch.positions] = own - own @ matrix + donor @ matrix
        return changed

    with edited(one.subject, {Site("resid_post", 0): by_hand}):
        expected = answer(one, one.stems["long"].inputs)[0]
    spec = SiteSpec("resid_post", layers=(0,))
    found = sweep(one.subject, [within(patch, spec, 2)], one.labels, spec).label_logits[0, 0]
    assert gap(found, expected) < 1e-4
    assert gap(expected, one.logits("long")) > 1e-4  # control
