"""Every encoder: patches that should change nothing, all, or exactly as much as the model's own forward says."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.experiments.patching.positions import align_positions
from interp_core.experiments.patching.windows import Span
from interp_core.sites import OF_HEADS, Kind, Site
from interp_core.trace import clean as clean_module
from interp_core.trace import rows as rows_module
from interp_core.trace.clean import CleanRun, clean_run, clean_runs, in_one_pass, prompt_clip
from interp_core.trace.hooks import edited
from interp_core.trace.patch import Patch, SiteSpec, sweep_layers
from interp_core.trace.rows import BlockRows, Rows
from interp_core.trace.sweep import sweep
from tests.families.encoder_routes import answer
from tests.families.subjects import CASES, Opened, subject_of
from tests.models.conftest import Open
from tests.trace.cases import everywhere
from tests.trace.naive import gap

CLOSE = 2e-5
"""Five times tighter than what a user's run has to keep."""
MIXED = [name for name in CASES if "weighted" in name or name.startswith("spoof")]
GATED = [*MIXED, "detector-sls", "detector-mhfa-wavlm", "detector-mhfa-wav2vec2", "detector-wavlm-sls"]
GATED.append("detector-ca-mhfa-wavlm")


RANKING = "detector-ssl-aasist"
"""Its readout keeps the highest of its nodes: where two are nearly alike, the last digit of a float32 decides which."""


def spec_of(one: Opened, kind: Kind) -> SiteSpec:
    return SiteSpec(kind, layers=sweep_layers(kind, one.subject.n_layers))


def swept(one: Opened, patches: list[Patch], spec: SiteSpec, method: str) -> Tensor:
    found = sweep(one.subject, patches, one.labels, spec, method=method)
    assert found.edits == len(patches) * len(spec.layers)
    assert set(found.methods) == {"reference" if method == "reference" else "wavefront"}
    return found.label_logits


def along(a: CleanRun, b: CleanRun, positions: str, align: str = "truncate", alpha: float = 1.0) -> Patch:
    found = align_positions(a.prompted, b.prompted, positions, align)
    return Patch(a, b, found.positions, found.source, alpha)


def noise(a: CleanRun, positions: str, seed: int, alpha: float = 1.0) -> Patch:
    found = align_positions(a.prompted, a.prompted, positions)
    return Patch(a, None, found.positions, found.source, alpha, noise_seed=seed)


def some_patches(one: Opened) -> Iterator[Patch]:
    """Pairs of unequal length both ways, noise, and a clip patched into itself."""
    short, long, twin = (one.runs[name] for name in ("short", "long", "twin"))
    span = "all" if one.subject.whole_only else "audio"
    yield along(short, long, span)
    yield along(long, twin, span, alpha=0.5)
    yield noise(long, span, 7)
    yield everywhere(long, long)


def more_patches(one: Opened) -> Iterator[Patch]:
    """Besides those: stretched in time, seconds in the middle, weaker."""
    short, long, twin = (one.runs[name] for name in ("short", "long", "twin"))
    span = "all" if one.subject.whole_only else "audio"
    yield from some_patches(one)
    yield along(long, short, span, alpha=0.25)
    yield everywhere(short, twin)
    yield noise(twin, span, 8, 0.5)
    if not one.subject.whole_only:
        yield along(short, long, span, "resample")
        yield along(long, short, span, "resample", 0.5)
    if one.subject.timed:
        window = "0.05-0.1" if one.case.family == "spoof" else "0.1-0.3"
        yield along(short, long, window)
        yield along(long, short, window, "resample", 0.5)


Ways = Callable[[Opened, Kind], tuple[list[Patch], Tensor, Tensor]]


@pytest.fixture
def exact(one: Opened) -> Opened:
    """The case in the precision in which routes can be held to each other."""
    if one.case.name != RANKING:
        return one
    with torch.inference_mode(False):
        subject = subject_of(one.case, one.path)
        subject.hf.double()
    stems = {name: prompt_clip(subject, sound, one.prompt, name) for name, sound in one.samples.items()}
    runs = {name: clean_runs(subject, [stem], subject.kinds)[0] for name, stem in stems.items()}
    return replace(one, subject=subject, stems=stems, runs=runs)


@pytest.fixture(scope="module")
def both_ways() -> Ways:
    """Sweep a case's patches over all layers of a kind of site, by the fast route and by the model's own forward."""
    made: dict[tuple[str, torch.dtype, Kind], tuple[list[Patch], Tensor, Tensor]] = {}

    def ways(one: Opened, kind: Kind) -> tuple[list[Patch], Tensor, Tensor]:
        key = (one.case.name, one.subject.dtype, kind)
        if key not in made:
            patches, spec = list(more_patches(one) if kind == "resid_post" else some_patches(one)), spec_of(one, kind)
            made[key] = (patches, swept(one, patches, spec, "fast"), swept(one, patches, spec, "reference"))
        return made[key]

    return ways


def test_the_fast_route_gives_what_the_models_own_forward_gives_at_every_kind_of_site(
    exact: Opened, both_ways: Ways
) -> None:
    for kind in exact.subject.kinds:
        patches, fast, reference = both_ways(exact, kind)
        assert gap(fast, reference) < CLOSE, kind
        for patch, logits in zip(patches, reference, strict=True):
            moved = (logits - exact.labels.read(patch.recipient.logits[None])[0]).abs().max()
            assert patch.donor is patch.recipient or moved > 1e-3, kind  # control: there was something to agree about


def test_windows_of_one_clip_travel_together_and_give_what_one_forward_each_gives(one: Opened) -> None:
    if not one.subject.timed or one.subject.whole_only:
        pytest.skip("no position stands for a time of its own")
    whole = along(one.runs["long"], one.runs["short"], "audio")
    span = Span(whole.recipient.prompted, whole)
    windows = [window.of(whole) for window in span.cut(3)]
    masked = replace(windows[-1], donor=whole.recipient, source=whole.positions.double(), averaged=True)
    patches = [*windows, masked]
    for kind in ("resid_post", "attn_out", "head_out"):
        spec = spec_of(one, kind)
        fast, reference = swept(one, patches, spec, "fast"), swept(one, patches, spec, "reference")
        assert gap(fast, reference) < CLOSE, kind
        assert gap(reference[0], reference[-2]) > 1e-4, kind  # control: each in its own window
    with_others = swept(one, [*patches, along(one.runs["twin"], one.runs["short"], "audio")], spec, "fast")
    assert gap(with_others[: len(patches)], fast) < CLOSE  # a second recipient in the batch
    one_window = swept(one, [span.cut(1)[0].of(whole)], spec, "fast")
    assert gap(one_window, swept(one, [whole], spec, "fast")) < CLOSE


def test_a_clip_patched_into_itself_changes_nothing_at_any_site_or_layer(one: Opened, both_ways: Ways) -> None:
    for kind in one.subject.kinds:
        patches, *found = both_ways(one, kind)
        (at,) = [i for i, patch in enumerate(patches) if patch.donor is patch.recipient]
        for logits in found:
            assert gap(logits[at], one.logits("long").expand_as(logits[at])) < CLOSE, kind


def test_the_fast_route_agrees_on_single_heads(one: Opened, both_ways: Ways) -> None:
    kinds = [kind for kind in OF_HEADS if kind in one.subject.kinds]
    assert kinds or one.case.family in ("resnet", "aasist")
    for kind in kinds:
        head = 0 if "clap" in one.case.family else one.subject.n_heads - 1
        widths = {one.runs["short"].at(kind, layer).shape[1] // one.subject.heads_at(layer) for layer in (0, 1)}
        assert widths == {one.subject.d_head}
        spec = SiteSpec(kind, head, one.subject.d_head, sweep_layers(kind, one.subject.n_layers))
        patches, whole, _ = both_ways(one, kind)
        fast, reference = (swept(one, patches[:2], spec, method) for method in ("fast", "reference"))
        assert gap(fast, reference) < CLOSE
        assert gap(fast, whole[:2]) > 1e-4  # control: one head is not all of them


def test_an_edit_at_every_site_and_layer_is_applied_once_and_reaches_the_answer(one: Opened) -> None:
    inputs, expected = one.stems["short"].inputs, one.runs["short"].logits
    unread = range(2, 4) if one.case.name == "spoof-wavlm-dann" else range(0)  # the mix takes the first two layers
    least = 1e-4 if one.case.name == "spoof-wav2vec2-dann" else 1e-3  # its mean divides by samples, not by frames
    for kind in one.subject.kinds:
        for layer in range(one.subject.n_layers):
            made = torch.Generator().manual_seed(layer)

            def shaken(value: Tensor, made: torch.Generator = made) -> Tensor:
                return value + value.std() * torch.randn(value.shape, generator=made)

            with edited(one.subject, {Site(kind, layer): shaken}):
                found = answer(one, inputs)[0]
            if layer in unread:
                assert torch.equal(found, expected), (kind, layer)
            else:
                assert (found - expected).abs().max() > least, (kind, layer)
    with pytest.raises(InterpError, match="applied 2 times, expected 1"):
        with edited(one.subject, {Site("resid_post", 0): lambda value: value}):
            answer(one, inputs), answer(one, inputs)
    with pytest.raises(InterpError, match="applied 0 times, expected 1"):
        with edited(one.subject, {Site("resid_post", 0): lambda value: value}):
            pass


def exact_layers(one: Opened) -> set[int]:
    """Where the donor's whole residual stream leaves nothing of the recipient that is read: by hand."""
    n = one.subject.n_layers
    if one.case.part == "decoder":
        return {n - 1}  # every block before the last one reads the recipient's audio again, by cross-attention
    if one.case.family == "spoof":
        # The mixes are of all four layers, the first two, layers 3 and 1, and the last two.
        first = {"spoof-wavlm-erm": 0, "spoof-wavlm-dann": 0, "spoof-wav2vec2-erm": 1, "spoof-wav2vec2-dann": 2}
        return set(range(-1, first[one.case.name] + 1))
    if one.case.name == "detector-sls":
        return {-1, 0}  # it sums what all blocks leave
    mixed = any(part in one.case.name for part in ("weighted", "mhfa", "wavlm-sls"))
    return {-1} if mixed else set(range(-1, n))


def test_all_positions_of_a_donor_give_its_logits_exactly_where_nothing_else_is_read(one: Opened) -> None:
    recipient, donor = one.runs["short"], one.runs["twin"]
    expected, kept = one.logits("twin"), one.logits("short")
    exact = exact_layers(one)
    spec = spec_of(one, "resid_post")
    for method in ("reference", "fast"):
        found = swept(one, [everywhere(recipient, donor)], spec, method)[0]
        for layer, logits in zip(spec.layers, found, strict=True):
            if layer in exact:
                assert gap(logits, expected) < CLOSE, (method, layer)
            else:
                assert gap(logits, expected) > 1e-4, (method, layer)
            if method == "reference" and layer in exact and layer >= 0:
                assert torch.equal(logits, expected), layer
    assert gap(kept, expected) > 1e-4  # control: the two clips differ
    assert set(one.subject.exact_layers) <= exact  # what the checks before a run rely on


def test_before_whispers_decoder_nothing_is_the_donors_and_behind_it_everything(open_once: Open) -> None:
    """One prompt: the embeddings are the same, so is what the first block's self-attention makes of them."""
    one = open_once("whisper-decoder")
    patch = everywhere(one.runs["short"], one.runs["long"])
    layers = (-1, 0, one.subject.n_layers - 1)
    found = swept(one, [patch], SiteSpec("resid_post", layers=layers), "fast")[0]
    assert gap(found[0], one.logits("short")) < CLOSE
    assert gap(found[1], one.logits("short")) > 1e-3 and gap(found[1], one.logits("long")) > 1e-3
    assert gap(found[2], one.logits("long")) < CLOSE
    first = swept(one, [patch], SiteSpec("attn_out", layers=(0, 1)), "fast")[0]
    assert gap(first[0], one.logits("short")) < CLOSE < 1e-3 < gap(first[1], one.logits("short"))


def test_patching_audio_into_whispers_encoder_of_a_longer_clip_gives_the_donors_answer_only_at_all_positions(
    open_once: Open,
) -> None:
    """Silence behind a clip is heard too, so the audio positions alone leave some of the recipient."""
    one = open_once("whisper-encoder")
    a, b = one.runs["long"], one.runs["short"]
    layers = SiteSpec("resid_post", layers=(-1, 1))
    whole, audio = swept(one, [everywhere(a, b), along(a, b, "audio")], layers, "fast")
    for row in whole:
        assert gap(row, one.logits("short")) < CLOSE
    for row in audio:
        assert gap(row, one.logits("short")) > 1e-3


@pytest.mark.parametrize("name", ["whisper-encoder", "whisper-decoder"])
def test_prompts_of_one_length_share_a_batch_and_each_clip_keeps_its_own(name: str, open_once: Open) -> None:
    one = open_once(name)
    other = one.prompt.replace("<|en|>", "<|de|>")
    stems = {c: prompt_clip(one.subject, one.samples[c], p, c) for c, p in (("long", other), ("twin", one.prompt))}
    batch = clean_runs(one.subject, [stems["long"], stems["twin"], one.stems["short"]], one.subject.kinds)
    assert gap(batch[1].logits, one.runs["twin"].logits) < 1e-5
    assert gap(batch[0].logits, one.runs["long"].logits) > 1e-2  # another language, another answer
    assert gap(batch[0].logits, answer(one, stems["long"].inputs)[0]) < 1e-5
    patches = [along(a, b, "audio") for a, b in ((batch[0], batch[1]), (batch[1], batch[0]), (batch[2], batch[0]))]
    for kind in ("resid_post", "attn_out"):
        fast, reference = (swept(one, patches, spec_of(one, kind), method) for method in ("fast", "reference"))
        assert gap(fast, reference) < CLOSE


@pytest.mark.parametrize("name", MIXED)
def test_a_mix_of_layers_takes_each_layer_by_the_softmax_of_its_weight(name: str, open_once: Open) -> None:
    one = open_once(name)
    hf, n = one.subject.hf, one.subject.n_layers
    shares = one.subject.layer_shares()
    assert shares is not None and len(shares) == n + 1
    if one.case.family == "spoof":
        picked = {"spoof-wavlm-erm": [0, 1, 2, 3], "spoof-wavlm-dann": [0, 1]}
        picked |= {"spoof-wav2vec2-erm": [3, 1, 3], "spoof-wav2vec2-dann": [2, 3]}
        expected = [0.0] * (n + 1)
        raw = hf.backbone.layer_pooling.weights
        for layer, weight in zip(picked[name], (raw.exp() / raw.exp().sum()).tolist(), strict=True):
            expected[layer + 1] += weight
    else:
        expected = (hf.layer_weights.exp() / hf.layer_weights.exp().sum()).tolist()
    assert shares.tolist() == pytest.approx(expected, abs=1e-6)
    assert shares.sum() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", GATED)
def test_a_row_brings_the_mix_of_all_layers_before_it_whichever_layers_are_patched(name: str, open_once: Open) -> None:
    one = open_once(name)
    patches, last = [everywhere(one.runs["short"], one.runs["twin"])], one.subject.n_layers - 1
    for kind in ("resid_post", "attn_out"):
        whole = swept(one, patches, SiteSpec(kind, layers=tuple(range(last + 1))), "reference")
        for layers in ((last,), (last - 1,), (1, last)):
            found = swept(one, patches, SiteSpec(kind, layers=layers), "fast")
            assert gap(found, whole[:, list(layers)]) < CLOSE, (kind, layers)
        assert gap(whole[:, 1], whole[:, last]) > 10 * CLOSE  # control: it matters at which layer


def test_what_clean_runs_keep_of_their_blocks_arguments_stands_for_a_pass_of_their_batch(
    one: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [one.runs["short"], one.runs["twin"]]
    if any(run.calls is None for run in runs):  # of a width as small as this, the arguments may take more than states
        runs = [replace(run, calls=alone.calls) for run, alone in zip(runs, with_large_calls(one, runs), strict=True)]
    with torch.inference_mode(), one.subject.lock:
        for batch in (runs, runs[:1], [runs[1], runs[0], runs[1]]):
            prompted = [run.prompted for run in batch]
            right = BlockRows(one.subject, prompted)
            with monkeypatch.context() as patched:
                patched.setattr(type(one.subject), "run_blocks", lambda *_: pytest.fail("a pass was made"))
                kept = BlockRows(one.subject, prompted, batch)
            for layer in range(one.subject.n_layers + 1):
                assert gap(kept.clean(layer), right.clean(layer)) < CLOSE, layer
            for layer in range(one.subject.n_layers):
                new = right.clean(layer)
                rows = [runner.start(layer, torch.cat([new, 0.9 * new])) for runner in (kept, right)]
                done = [runner.run(layer, some) for runner, some in zip((kept, right), rows, strict=True)]
                assert gap(done[0].hidden, done[1].hidden) < CLOSE, layer


def test_a_clip_from_its_samples_is_its_stem_and_its_clean_run_in_one_pass(
    one: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, passes = one.runs["short"], []
    forward = type(one.subject).forward
    monkeypatch.setattr(type(one.subject), "forward", lambda *args: passes.append(1) or forward(*args))
    kinds = one.subject.kinds
    run = clean_run(one.subject, one.samples["short"], one.prompt, right.prompted.clip_id, kinds)
    assert len(passes) == 1 if in_one_pass(one.subject) else one.subject.arch.causal
    assert run.prompted.key == right.prompted.key and torch.equal(run.logits, right.logits)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(run.resid, right.resid, strict=True))
    assert (run.calls is None) == (right.calls is None)
    for kind in kinds:
        layers = range(one.subject.n_layers)
        assert all(torch.equal(run.at(kind, layer), right.at(kind, layer)) for layer in layers), kind


@pytest.mark.parametrize("name", ["wavlm-base", "wav2vec2-base"])
def test_rows_of_an_attention_that_turns_batches_around_run_by_themselves(name: str, open_once: Open) -> None:
    one = open_once(name)
    sizes: list[int] = []
    handle = one.subject.blocks[-1].register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    swept(one, [everywhere(one.runs["short"], one.runs["twin"])] * 2, spec_of(one, "resid_post"), "fast")
    handle.remove()
    assert max(sizes) == 1 if name == "wavlm-base" else max(sizes) > 1


def with_large_calls(one: Opened, runs: list[CleanRun]) -> list[CleanRun]:
    """The same clips, run with whatever the blocks' arguments take."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(clean_module, "nbytes_of", lambda _: 0)
        return [clean_runs(one.subject, [run.prompted])[0] for run in runs]


@pytest.mark.parametrize("name", MIXED)
def test_rows_keep_their_own_mix_so_one_runner_serves_any_number_in_any_order(name: str, open_once: Open) -> None:
    one = open_once(name)
    run, n = one.runs["long"], one.subject.n_layers
    with torch.inference_mode(), one.subject.lock:
        runner = BlockRows(one.subject, [run.prompted])

        def clean_from(layer: int, copies: int) -> Tensor:
            rows = runner.start(layer, runner.clean(layer).repeat(copies, 1, 1))
            for block in range(layer, n):
                rows = runner.run(block, rows)
            return one.labels.read(runner.logits(rows))[0]

        for layer, copies in ((n, 1), (2, 3), (0, 2), (2, 1)):
            assert gap(clean_from(layer, copies), one.labels.read(run.logits[None])[0].expand(copies, -1)) < CLOSE
        # Control: a row without the sum over the layers before it answers something else.
        alone = Rows(runner.clean(n), torch.zeros_like(runner.clean(n), dtype=torch.float32))
        assert gap(one.labels.read(runner.logits(alone))[0], one.labels.read(run.logits[None])[0]) > 1e-3


def test_rows_given_to_a_block_one_at_a_time_equal_rows_at_once(
    one: Opened, both_ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("resid_post", "attn_out"):
        if kind in one.subject.kinds:
            spec, (patches, at_once, _) = spec_of(one, kind), both_ways(one, kind)
            few = len(list(some_patches(one)))
            with monkeypatch.context() as patched:
                patched.setattr(rows_module, "POSITIONS_AT_ONCE", 1)
                assert gap(swept(one, patches[:few], spec, "fast"), at_once[:few]) < CLOSE
