"""Every family: the gradient's estimate is the slope of true patches by the model's own forward, at every site."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp_core.experiments.patching.positions import align_positions
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sites import ATTRIBUTED, Kind, Site
from interp_core.trace.attribution import Attention, attribute
from interp_core.trace.clean import CleanRun
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.audio_llms import FAMILIES
from tests.families.subjects import Opened
from tests.models.conftest import OpenFamily, Runs

STEP = 0.001
"""In alpha; float32 leaves noise of about 1e-6 / STEP, and a larger step would not do: some curves turn within 0.01."""
STEEP = {
    "w2vbert-bare": 2e-4,
    "seamless2-encoder": 1e-4,
    "detector-ssl-aasist": 3e-4,  # it keeps the nodes with the highest scores, and their order changes
}
SITES: tuple[Kind, ...] = ("attn_out", "mlp_out")


def slopes(subject: Subject, patch: Patch, labels: LabelTokens, kind: Kind, target: int, step: float) -> Tensor:
    """[n_layers] d log p / d alpha at 0, error O(step^2)."""
    spec = SiteSpec(kind, layers=tuple(range(subject.n_layers)))

    def after(alpha: float) -> Tensor:
        swept = sweep(subject, [replace(patch, alpha=alpha)], labels, spec, method="reference")
        return swept.label_logits[0].double().log_softmax(-1)[:, target]

    return (4 * after(step) - after(2 * step) - 3 * after(0.0)) / (2 * step)


def agree(subject: Subject, a: CleanRun, b: CleanRun, labels: LabelTokens, step: float = STEP) -> Attention | None:
    aligned = align_positions(a.prompted, b.prompted, "all" if subject.whole_only else "audio")
    patch = Patch(a, b, aligned.positions, aligned.source)
    kinds = tuple(kind for kind in ATTRIBUTED if kind in subject.kinds)
    target = int(labels.read(a.logits[None])[0][0].argmin())
    (found,), seen = attribute(subject, [patch], labels, target, kinds, attention=True)
    for kind in SITES:
        total = torch.stack([found[Site(kind, layer)].sum() for layer in range(subject.n_layers)])
        expected = slopes(subject, patch, labels, kind, target, step)
        allowed = 0.04 * expected.abs().max() + 8e-3
        assert (total - expected).abs().max() <= allowed, (kind, total, expected)
        assert expected.abs().max() > 1e-3, f"control: something moves at {kind}"
        parts = {"attn_out": "head_out", "mlp_out": "mlp_act"}[kind]
        if parts in kinds:
            summed = torch.stack([found[Site(parts, layer)].sum() for layer in range(subject.n_layers)])
            if subject.arch.attn_weights:  # a norm is between, so the sum is that of patches of the parts
                total = slopes(subject, patch, labels, parts, target, step)
                assert (summed - total).abs().max() <= 0.04 * total.abs().max() + 8e-3, (parts, summed, total)
                continue
            torch.testing.assert_close(summed, total, rtol=1e-3, atol=1e-4)  # the same by another site's gradient
    return seen


def test_the_estimate_is_the_slope_of_true_patches_in_every_encoder(one: Opened) -> None:
    if "head_out" not in one.subject.kinds:
        pytest.skip("has no heads")
    seen = agree(one.subject, one.runs["short"], one.runs["long"], one.labels, STEEP.get(one.case.name, STEP))
    if seen is not None:
        p = one.runs["short"].prompted
        assert seen.frames.shape[:2] == (one.subject.n_layers, one.subject.n_heads) and not seen.shares
        assert seen.frames.shape[2] == p.audio[1] - p.audio[0]
        assert (seen.frames >= 0).all() and (seen.frames.sum(-1) <= 1 + 1e-5).all()
        assert seen.frames.std(1).max() > 1e-5, "heads are told apart"
    own = ("clap", "msclap", "wavlm", "sewd", "speecht5")  # attention in code of their own
    assert (seen is None) == (one.case.family in own or "wavlm" in one.case.name
                              or one.case.part == "decoder")  # fmt: skip


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_estimate_is_the_slope_of_true_patches_in_every_audio_llm(
    family: str, opened: OpenFamily, runs_of_family: Callable[[str], Runs]
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    labels = LabelTokens(("a", "b", "c"), (5, 11, 17), {})
    seen = agree(subject, runs["short"], runs["long"], labels)
    assert seen is not None and set(seen.shares) == {"readout", "text"}
    for share in seen.shares.values():
        assert share.shape == (subject.n_layers, subject.n_heads) and (share >= 0).all() and (share <= 1 + 1e-5).all()
    torch.testing.assert_close(seen.frames.sum(-1), seen.shares["readout"])
