"""The fast routes give the reference's logits over the whole vocabulary, and the reference those of plain hooks."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp_core.experiments.checks import TOLERANCE
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.sites import Kind
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import sweep
from tests.conftest import Build
from tests.trace.cases import KINDS_INSIDE, all_cases, every_layer, truncated, whole_vocabulary
from tests.trace.conftest import Runs, RunsOf
from tests.trace.naive import gap, naive_sweep

MODELS = {
    "sdpa": {},
    "eager": {"attention": "eager"},
    "as many kv heads as heads": {"n_kv_heads": 4},
    "one kv head, eager": {"n_kv_heads": 1, "attention": "eager"},
}
SLIDING = {
    "layer_types": ["full_attention", "sliding_attention"] * 2 + ["sliding_attention"],
    "sliding_window": 8,
    "use_sliding_window": True,
}


def swept(subject: AudioLLM, patches: list[Patch], spec: SiteSpec, method: str) -> Tensor:
    """Return [n, n_points, d_vocab] logits."""
    return sweep(subject, patches, whole_vocabulary(patches[0].recipient), spec, method=method).label_logits


def naive(subject: AudioLLM, patch: Patch, spec: SiteSpec) -> Tensor:
    assert patch.donor is not None
    a, b = patch.recipient.prompted.inputs, patch.donor.prompted.inputs
    where = patch.positions.tolist(), patch.source.tolist()
    return naive_sweep(subject.hf, dict(a), dict(b), spec.kind, spec.layers, *where, patch.alpha, spec.columns_at(0))


def effect(patch: Patch, rows: Tensor) -> float:
    """Return how far the patched rows [n_points, d_vocab] are from the recipient's own logits."""
    return gap(rows, patch.recipient.logits.expand_as(rows))


@pytest.mark.parametrize("model", MODELS)
def test_a_ragged_batch_of_every_kind_of_patch_equals_the_reference(build: Build, runs_of: RunsOf, model: str) -> None:
    subject = build(**MODELS[model])
    cases = all_cases(runs_of(subject))
    patches, spec = list(cases.values()), every_layer(subject)
    reference = swept(subject, patches, spec, "reference")
    for method in ("fast", "wavefront"):
        found = swept(subject, patches, spec, method)
        off = {name: gap(found[i], reference[i]) for i, name in enumerate(cases) if gap(found[i], reference[i]) > 1e-4}
        assert off == {}, method
    still = {name for i, name in enumerate(cases) if effect(patches[i], reference[i]) < 1e-2}
    assert still == {"alpha 0", "prefix", "itself"}  # control: everything else does something


@pytest.mark.parametrize("kind", ["resid_post", *KINDS_INSIDE])
def test_the_reference_equals_a_loop_of_plain_hooks(tiny: AudioLLM, runs: Runs, kind: Kind) -> None:
    cases = {name: patch for name, patch in all_cases(runs).items() if patch.donor is not None}
    if kind != "resid_post":
        cases = {name: cases[name] for name in ("longer donor", "alpha 0.75, shorter donor", "half a position later")}
    spec = every_layer(tiny) if kind == "resid_post" else SiteSpec(kind, layers=tuple(range(5)))
    found = swept(tiny, list(cases.values()), spec, "reference")
    for i, (name, patch) in enumerate(cases.items()):
        expected = naive(tiny, patch, spec)
        assert gap(found[i], expected) < 1e-5, name
        if name not in ("alpha 0", "prefix", "itself", "everywhere"):
            assert gap(found[i].roll(1, 0), expected) > 1e-2, name  # control: each row belongs to its own layer


@pytest.mark.parametrize(
    ("kind", "head"), [*((kind, None) for kind in KINDS_INSIDE), *(("head_out", head) for head in (0, 1, 3))]
)
def test_every_site_and_single_heads_equal_the_reference_and_plain_hooks(
    tiny: AudioLLM, runs: Runs, kind: Kind, head: int | None
) -> None:
    spec = SiteSpec(kind, head, tiny.d_head, tuple(range(5)))
    cases = all_cases(runs)
    names = ["longer donor", "shorter donor", "alpha 0.25", "resampled from longer", "window in the middle", "question"]
    patches = [cases[name] for name in [*names, "shifted source", "last", "everywhere", "noise, alpha 0.5"]]
    reference = swept(tiny, patches, spec, "reference")
    for method in ("fast", "wavefront"):
        assert gap(swept(tiny, patches, spec, method), reference) < 1e-4, method
    for i in (0, 2, 6):
        assert gap(reference[i], naive(tiny, patches[i], spec)) < 1e-5
        assert effect(patches[i], reference[i][:4]) > 1e-3  # control: the edit reaches the logits


def test_heads_patched_alone_differ_from_each_other_and_from_all_at_once(tiny: AudioLLM, runs: Runs) -> None:
    patch = truncated(runs["middle"], runs["long"])
    heads = [None, 0, 1, 2, 3]
    rows = [swept(tiny, [patch], SiteSpec("head_out", h, tiny.d_head, (2,)), "fast")[0] for h in heads]
    gaps = [gap(rows[i], rows[j]) for i in range(5) for j in range(i)]
    assert min(gaps) > 1e-3


def test_a_batch_equals_its_patches_one_at_a_time(tiny: AudioLLM, runs: Runs) -> None:
    cases, spec = all_cases(runs), every_layer(tiny)
    patches = list(cases.values())
    for method in ("fast", "wavefront"):
        together = swept(tiny, patches, spec, method)
        for i, name in enumerate(cases):
            assert gap(swept(tiny, [patches[i]], spec, method)[0], together[i]) < 1e-5, (method, name)
        assert gap(together.roll(1, 0), together) > 1e-2  # control: results come in the order of the patches


@pytest.mark.parametrize("method", ["fast", "wavefront", "reference"])
def test_chosen_layers_give_their_rows_of_the_whole_sweep(tiny: AudioLLM, runs: Runs, method: str) -> None:
    patches = [truncated(runs["middle"], runs["long"]), truncated(runs["long"], runs["short"], 0.5)]
    for kind, layers in (("resid_post", (-1, 2)), ("resid_post", (3,)), ("attn_out", (0, 3)), ("mlp_out", (4,))):
        whole = SiteSpec(kind, layers=tuple(range(-1 if kind == "resid_post" else 0, 5)))
        rows = [whole.layers.index(layer) for layer in layers]
        found = swept(tiny, patches, SiteSpec(kind, layers=layers), method)
        assert gap(found, swept(tiny, patches, whole, method)[:, rows]) < 1e-5


def before_rounding(subject: AudioLLM, run: Callable[[], object]) -> Tensor:
    """Return the logits [calls * rows, d_vocab] at the last position as the head gave them, in its own dtype."""
    seen: list[Tensor] = []
    handle = subject.hf.lm_head.register_forward_hook(
        lambda _m, _a, out: seen.append(out[:, -1] if out.ndim == 3 else out)
    )
    run()
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_in_float64_all_routes_agree_to_1e_10(build: Build, runs_of: RunsOf, attention: str) -> None:
    subject = build(attention=attention, dtype="float64")
    cases, spec = all_cases(runs_of(subject)), every_layer(subject)
    for name, patch in cases.items():
        donor_passes = patch.donor is not None  # the reference runs the donor first
        reference = before_rounding(subject, lambda p=patch: swept(subject, [p], spec, "reference"))[donor_passes:]
        assert reference.dtype == torch.float64 and len(reference) == 6
        for method in ("fast", "wavefront"):
            found = before_rounding(subject, lambda p=patch, m=method: swept(subject, [p], spec, m))[-6:]
            assert gap(found, reference) < 1e-10, (method, name)
        if name in ("longer donor", "half a position later"):
            by_hand = before_rounding(subject, lambda p=patch: naive(subject, p, spec))[1:]
            assert gap(by_hand, reference) < 1e-10, name
    together = list(cases.values())
    fast, reference = (swept(subject, together, spec, method) for method in ("fast", "reference"))
    # Handed over in float32; the library's eager attention also takes its softmax in float32, whatever the dtype.
    assert gap(fast, reference) < (1e-6 if attention == "sdpa" else 1e-5)


def test_sliding_windows_refuse_the_shortcut_and_still_equal_the_reference(build: Build, runs_of: RunsOf) -> None:
    subject = build(**SLIDING)
    runs = runs_of(subject)
    assert "sliding_attention" in (subject.shortcut_refusal() or "")
    assert runs["short"].keys is None and runs["short"].values is None
    cases = all_cases(runs)
    patches, labels = list(cases.values()), whole_vocabulary(runs["short"])
    for spec in (every_layer(subject), SiteSpec("head_out", 1, subject.d_head, (0, 1, 4))):
        fast = sweep(subject, patches, labels, spec)
        assert set(fast.methods) == {"wavefront"}
        assert gap(fast.label_logits, swept(subject, patches, spec, "reference")) < 1e-4
    for name in ("longer donor", "question"):
        found = swept(subject, [cases[name]], every_layer(subject), "fast")[0]
        assert gap(found, naive(subject, cases[name], every_layer(subject))) < 1e-4
    # Control: the windows do cut something off, so one mask for every layer would be wrong here.
    full = runs_of(build())["long"].logits
    assert gap(runs["long"].logits, full) > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_the_tolerance_that_the_checks_allow(
    build: Build, runs_of: RunsOf, dtype: torch.dtype
) -> None:
    subject = build(dtype=str(dtype).removeprefix("torch."))
    assert subject.dtype == dtype
    cases, spec = all_cases(runs_of(subject)), every_layer(subject)
    names = ["longer donor", "shorter donor", "alpha 0.25", "resampled from longer", "question", "everywhere"]
    patches = [cases[name] for name in [*names, "noise, alpha 0.5"]]
    reference = swept(subject, patches, spec, "reference")
    for method in ("fast", "wavefront"):
        assert gap(swept(subject, patches, spec, method), reference) < TOLERANCE[dtype], method
    for patch, rows in zip(patches, reference, strict=True):
        assert effect(patch, rows) > 3 * TOLERANCE[dtype]  # control: far above what the tolerance forgives
