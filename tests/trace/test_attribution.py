"""The estimate of a patch from one gradient: exact where the model is linear, the slope of true patches everywhere."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from interp_core.errors import InterpError
from interp_core.models.labels import LabelTokens
from interp_core.models.load import open_model
from interp_core.sites import ATTRIBUTED, Site
from interp_core.trace.attribution import attribute
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import sweep
from tests.tiny import save_qwen2_audio, tone
from tests.trace.cases import at, resampled, truncated
from tests.trace.naive import PROMPT, hook, interpolated, states

STEP = 0.01
"""In alpha, of finite differences."""


def log_probability(swept, labels, target):
    """[n_layers] of a sweep of one patch, float64."""
    return swept.label_logits[0].double().log_softmax(-1)[:, target]


@pytest.fixture(scope="module")
def double(tmp_path_factory, runs_of):
    """A model in float64 whose attention is not saturated: there slopes end within a few thousandths of alpha."""
    subject = open_model(str(save_qwen2_audio(tmp_path_factory.mktemp("double") / "model", n_layers=3)), device="cpu")
    subject.hf.double()
    with torch.no_grad():
        for block in subject.blocks:
            block.self_attn.q_proj.weight.mul_(0.3)
    return subject, runs_of(subject)


@pytest.fixture(scope="module")
def labels():
    return LabelTokens(("a", "b", "c", "d"), (300, 310, 320, 330), {})


def by_head(subject, found):
    """[n_layers, n_heads]."""
    return torch.stack(
        [found[Site("head_out", la)].reshape(subject.n_heads, -1).sum(-1) for la in range(subject.n_layers)]
    )


def test_the_estimate_is_the_true_patch_where_the_answer_is_linear_in_the_head(tmp_path):
    """Behind the last layer's heads at the last position nothing is left but projections: no MLP, no norm, and a
    softmax in which one label has all the weight, so that log p = logit - the largest logit."""
    subject = open_model(str(save_qwen2_audio(tmp_path / "linear", n_layers=2)), device="cpu")
    subject.hf.double()
    block, head = subject.blocks[-1], subject.hf.lm_head
    subject.hf.model.language_model.norm = nn.Identity()
    with torch.no_grad():
        block.mlp.down_proj.weight.zero_()
        head.weight.mul_(100)
    stems = [prompt_clip(subject, tone(*about), PROMPT, str(about)) for about in ((0.5, 200), (0.6, 500))]
    a, b = (clean_runs(subject, [stem], ("head_out",))[0] for stem in stems)
    order = a.logits.argsort()
    largest, target = int(order[-1]), int(order[0])
    labels = LabelTokens(("target", "largest"), (target, largest), {})
    n, m = a.prompted.n_pos, b.prompted.n_pos
    patch = Patch(a, b, *at(n - 1, n, m - n))
    (found,), _ = attribute(subject, [patch], labels, 0, ("head_out",))
    estimate = by_head(subject, found)[-1]
    base = labels.read(a.logits[None])[0][0].double().log_softmax(-1)[0]
    for number in range(subject.n_heads):
        spec = SiteSpec("head_out", number, subject.d_head, (1,))
        true = float(log_probability(sweep(subject, [patch], labels, spec), labels, 0)[0] - base)
        columns = slice(number * subject.d_head, (number + 1) * subject.d_head)
        step = (b.at("head_out", 1)[-1] - a.at("head_out", 1)[-1])[columns]
        moved = block.self_attn.o_proj.weight[:, columns] @ step
        closed = float((head.weight[target] - head.weight[largest]) @ moved)
        assert abs(closed) > 1, "there is something to be right about"
        assert float(estimate[number]) == pytest.approx(closed, rel=1e-9)
        assert true == pytest.approx(closed, rel=1e-5)  # logits are handed on in float32


@torch.inference_mode()
def slope_of_patches(subject, patch, labels, target, kind, layer, columns=slice(None)):
    """d log p / d alpha at 0, by plain forwards with one plain hook: central differences, error O(STEP^4).

    The library's norms and softmax round to float32 also in a float64 model, which leaves noise of about 1e-7 / STEP.
    """
    model, inputs = subject.hf, patch.recipient.prompted.inputs
    incoming = interpolated(states(model, patch.donor.prompted.inputs, kind, [layer])[layer], patch.source.tolist())
    found = {}
    for times in (1, -1, 2, -2):
        alpha = times * STEP

        def change(value, alpha=alpha):
            value = value.clone()
            part = value[0, patch.positions, columns]
            value[0, patch.positions, columns] = part + alpha * (incoming[:, columns] - part)
            return value

        handle = hook(model, kind, layer, change)
        logits = model(**inputs, use_cache=False).logits[0, -1]
        handle.remove()
        assert logits.dtype == torch.float64
        found[times] = logits[list(labels.ids)].log_softmax(-1)[target]
    return float((8 * (found[1] - found[-1]) - (found[2] - found[-2])) / (12 * STEP))


@pytest.mark.parametrize("align", [truncated, resampled])
def test_the_estimate_is_the_slope_of_true_patches_in_their_strength(double, labels, align):
    subject, runs = double
    patch = align(runs["middle"], runs["long"])
    (found,), _ = attribute(subject, [patch], labels, 2)
    for layer in (0, 2):
        expected = {}
        for number in (0, 3):
            columns = slice(number * subject.d_head, (number + 1) * subject.d_head)
            expected["head_out", number] = slope_of_patches(subject, patch, labels, 2, "head_out", layer, columns)
            estimate = float(by_head(subject, found)[layer, number])
            assert estimate == pytest.approx(expected["head_out", number], rel=1e-3, abs=2e-4)
        for kind in ("attn_out", "mlp_out", "mlp_act"):
            expected[kind] = slope_of_patches(subject, patch, labels, 2, kind, layer)
            assert float(found[Site(kind, layer)].sum()) == pytest.approx(expected[kind], rel=1e-3, abs=2e-4)
        sizes = [abs(slope) for slope in expected.values()]
        # Control: there is a slope, but behind the last layer, where nobody reads the audio positions.
        assert max(sizes) > 0.05 if layer < subject.n_layers - 1 else max(sizes) < 1e-9


def test_heads_add_up_to_the_attention_and_neurons_to_the_mlp_and_alpha_scales_both(double, labels):
    subject, runs = double
    patch = truncated(runs["short"], runs["long"])
    (found, half), _ = attribute(subject, [patch, replace(patch, alpha=0.5)], labels, 1)
    for layer in range(subject.n_layers):
        total = {kind: found[Site(kind, layer)].sum() for kind in ATTRIBUTED}
        assert total["head_out"] == pytest.approx(float(total["attn_out"]), abs=1e-9)
        assert total["mlp_act"] == pytest.approx(float(total["mlp_out"]), abs=1e-9)
        for kind in ATTRIBUTED:
            torch.testing.assert_close(half[Site(kind, layer)], 0.5 * found[Site(kind, layer)])
    assert found[Site("head_out", 0)].abs().max() > 1e-3
    assert not found[Site("head_out", 2)].any(), "nothing behind the last layer reads the audio positions"


def test_a_clip_patched_with_itself_is_estimated_at_nothing(double, labels):
    subject, runs = double
    (found,), _ = attribute(subject, [truncated(runs["long"], runs["long"])], labels, 0)
    assert all(not value.any() for value in found.values())


@pytest.mark.parametrize("kind", ["resid_post", "resid_pre"])
def test_the_residual_stream_is_refused_with_the_reason(double, labels, kind):
    subject, runs = double
    with pytest.raises(InterpError, match=r"r = 0\.17 to 0\.31"):
        attribute(subject, [truncated(runs["short"], runs["long"])], labels, 0, (kind,))


def test_patches_of_two_recipients_are_refused(double, labels):
    subject, runs = double
    with pytest.raises(InterpError, match="one recipient"):
        attribute(subject, [truncated(runs["short"], runs["long"]), truncated(runs["long"], runs["short"])], labels, 0)


def test_attention_is_the_librarys_own_under_eager_and_the_model_stays_as_it_was(build, runs_of, labels):
    subject, eager = build(n_layers=3), build(n_layers=3, attention="eager")
    runs, key = runs_of(subject), subject.key
    run = runs["middle"]
    patch = truncated(run, runs["long"])
    (found,), seen = attribute(subject, [patch], labels, 0, attention=True)
    (plain,), nothing = attribute(subject, [patch], labels, 0)
    assert nothing is None and seen is not None
    for site, value in found.items():
        torch.testing.assert_close(value, plain[site], rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        library = eager.hf(**run.prompted.inputs, use_cache=False, output_attentions=True).attentions
    first, stop = run.prompted.audio
    for layer, weights in enumerate(library):
        on_audio = weights[0, :, :, first:stop].double().sum(-1)
        torch.testing.assert_close(seen.shares["readout"][layer], on_audio[:, -1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.shares["text"][layer], on_audio[:, stop:].mean(-1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.frames[layer], weights[0, :, -1, first:stop].double(), rtol=1e-4, atol=1e-5)
    assert seen.shares["readout"].std() > 0.01, "control: heads look at unlike shares"
    assert subject.key == key and {
        m.config._attn_implementation for m in subject.hf.modules() if hasattr(m, "config")
    } == {"sdpa"}
    again = clean_runs(subject, [run.prompted])[0].logits
    torch.testing.assert_close(again, run.logits)
