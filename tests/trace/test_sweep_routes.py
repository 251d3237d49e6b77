"""Which route a patch takes, what each gives for any weights, and that the shortcut needs all its conditions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.trace import rows as row_module
from interp_core.trace import sweep as engine
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import METHODS, donor_prefix, sweep
from tests.conftest import our_hooks
from tests.tiny import tone
from tests.trace.cases import KINDS_INSIDE, all_cases, at, every_layer, everywhere, truncated, whole_vocabulary
from tests.trace.conftest import Runs
from tests.trace.naive import PROMPT, gap

SHORTCUTS = {"longer donor", "shorter donor", "equal donor", "window at the start", "prefix"}


def swept(subject: AudioLLM, patch: Patch, method: str = "fast", spec: SiteSpec | None = None) -> tuple[Tensor, str]:
    """Return [n_points, d_vocab] logits and the route."""
    found = sweep(subject, [patch], whole_vocabulary(patch.recipient), spec or every_layer(subject), method=method)
    return found.label_logits[0], found.methods[0]


@pytest.fixture(scope="module")
def other_system(tiny: AudioLLM) -> CleanRun:
    """A longer clip under a system turn of as many tokens, one of them another."""
    subject, text = tiny, tiny.chat_text(PROMPT)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(subject, "chat_text", lambda _prompt: text.replace("helpful", "surprised"))
        return clean_runs(subject, [prompt_clip(subject, tone(1.2, 500), PROMPT, "other")])[0]


@pytest.fixture(scope="module")
def shorter_system(tiny: AudioLLM) -> CleanRun:
    """The same with a system turn that is one token shorter, so that the audio sits elsewhere."""
    subject, text = tiny, tiny.chat_text(PROMPT)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(subject, "chat_text", lambda _prompt: text.replace(" a helpful", " helpful"))
        return clean_runs(subject, [prompt_clip(subject, tone(1.2, 500), PROMPT, "shorter")])[0]


def test_the_shortcut_is_taken_exactly_where_its_conditions_hold(tiny: AudioLLM, runs: Runs) -> None:
    cases = all_cases(runs)
    found = sweep(tiny, list(cases.values()), whole_vocabulary(runs["short"]), every_layer(tiny))
    assert {name for name, route in zip(cases, found.methods, strict=True) if route == "shortcut"} == SHORTCUTS
    assert set(found.methods) == {"shortcut", "wavefront"}
    for method in ("wavefront", "reference"):
        assert swept(tiny, cases["longer donor"], method)[1] == method


@pytest.mark.parametrize("kind", KINDS_INSIDE)
def test_no_shortcut_inside_a_block(tiny: AudioLLM, runs: Runs, kind: str) -> None:
    spec = SiteSpec(kind, layers=(1, 2))
    assert swept(tiny, truncated(runs["short"], runs["long"]), spec=spec)[1] == "wavefront"


def test_other_text_before_the_audio_refuses_the_shortcut(
    tiny: AudioLLM, runs: Runs, other_system: CleanRun, shorter_system: CleanRun
) -> None:
    middle = runs["middle"]
    start = middle.prompted.audio[0]
    assert other_system.prompted.audio[0] == start and shorter_system.prompted.audio[0] == start - 1
    for donor in (other_system, shorter_system):
        patch = truncated(middle, donor)
        rows, route = swept(tiny, patch)
        assert route == "wavefront"
        assert gap(rows, swept(tiny, patch, "reference")[0]) < 1e-4
    same_ids = Patch(middle, runs["long"], *at(start, start + 5))
    assert donor_prefix(tiny, same_ids, every_layer(tiny)) == start + 5


def test_other_embeddings_under_the_same_ids_refuse_the_shortcut(tiny: AudioLLM, runs: Runs) -> None:
    start = runs["long"].prompted.audio[0]
    inside = Patch(runs["middle"], runs["long"], *at(start + 1, start + 6))  # one audio position before it is A's own
    before = slice(0, start + 1)
    a, b = runs["middle"].prompted, runs["long"].prompted
    assert torch.equal(a.token_ids[before], b.token_ids[before]) and not torch.equal(a.embeds[before], b.embeds[before])
    assert donor_prefix(tiny, inside, every_layer(tiny)) is None


def test_a_model_that_refuses_the_shortcut_runs_every_position_whatever_the_runs_have_kept(
    tiny: AudioLLM, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, labels = all_cases(runs), whole_vocabulary(runs["short"])
    expected = sweep(tiny, list(cases.values()), labels, every_layer(tiny), method="wavefront").label_logits
    monkeypatch.setattr(tiny, "shortcut_refusal", lambda: "for a reason")
    monkeypatch.setattr(engine, "CachedPrefixRows", None)
    assert donor_prefix(tiny, cases["longer donor"], every_layer(tiny)) is None
    found = sweep(tiny, list(cases.values()), labels, every_layer(tiny))
    assert set(found.methods) == {"wavefront"} and torch.equal(found.label_logits, expected)


def test_every_refusal_of_the_shortcut_is_needed(
    tiny: AudioLLM, runs: Runs, other_system: CleanRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = all_cases(runs)
    refused = {
        name: cases[name]
        for name in (
            "alpha 0.25",
            "window in the middle",
            "shifted source",
            "half a position later",
            "scattered positions",
        )
    }
    refused["other system"] = truncated(runs["middle"], other_system)
    right = {name: swept(tiny, patch, "reference")[0] for name, patch in refused.items()}
    monkeypatch.setattr(engine, "donor_prefix", lambda _s, patch, _spec: int(patch.positions[-1]) + 1)
    for name, patch in refused.items():
        forced, route = swept(tiny, patch)
        assert route == "shortcut" and gap(forced, right[name]) > 1e-2, name
    allowed = cases["longer donor"]
    assert gap(swept(tiny, allowed)[0], swept(tiny, allowed, "reference")[0]) < 1e-4


class OneShort(row_module.CachedPrefixRows):
    """The last replaced position is left to the recipient."""

    def __init__(self, subject, runs, prefixes, starts, most_rows):
        super().__init__(subject, runs, prefixes, [start - 1 for start in starts], most_rows)


class RotaryOneOn(row_module.CachedPrefixRows):
    """The recomputed positions are turned one too far against the keys before them."""

    def __init__(self, subject, runs, prefixes, starts, most_rows):
        super().__init__(subject, runs, prefixes, starts, most_rows)
        rotary = subject.hf.get_submodule(subject.arch.rotary)
        angles = rotary(runs[0].resid[0], self.position_ids + 1)
        self._shared = row_module._Shared(self.n, most_rows, self.mask, self.position_ids + 1, angles)


class SeesAhead(row_module.CachedPrefixRows):
    """No mask: every recomputed position sees those behind it."""

    def __init__(self, subject, runs, prefixes, starts, most_rows):
        super().__init__(subject, runs, prefixes, starts, most_rows)
        rotary = subject.hf.get_submodule(subject.arch.rotary)
        angles = rotary(runs[0].resid[0], self.position_ids)
        self._shared = row_module._Shared(self.n, most_rows, self.mask * 0, self.position_ids, angles)


@pytest.mark.parametrize("broken", [OneShort, RotaryOneOn, SeesAhead])
def test_a_span_one_short_an_angle_one_off_and_a_missing_mask_show(
    tiny: AudioLLM, runs: Runs, broken: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = truncated(runs["short"], runs["long"])
    right = swept(tiny, patch)[0]
    monkeypatch.setattr(engine, "CachedPrefixRows", broken)
    wrong, route = swept(tiny, patch)
    assert route == "shortcut" and gap(wrong, right) > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_patching_the_same_prefix_changes_nothing(tiny: AudioLLM, runs: Runs, method: str) -> None:
    run = runs["middle"]
    start = run.prompted.audio[0]
    rows, route = swept(tiny, Patch(run, runs["long"], *at(0, start)), method)
    assert gap(rows, run.logits.expand_as(rows)) < 1e-5
    assert route == {"fast": "shortcut"}.get(method, method)
    one_more = swept(tiny, Patch(run, runs["long"], *at(0, start + 1)), method)[0]
    assert gap(one_more[0], run.logits) > 1e-3  # control: the next position is audio


@pytest.mark.parametrize("method", METHODS)
def test_a_donor_of_equal_length_at_all_positions_gives_the_donors_logits_at_every_layer(
    tiny: AudioLLM, runs: Runs, method: str
) -> None:
    a, b = runs["middle"], runs["twin"]
    assert a.prompted.n_pos == b.prompted.n_pos and gap(a.logits, b.logits) > 0.1
    rows, route = swept(tiny, everywhere(a, b), method)
    assert route == ("reference" if method == "reference" else "wavefront")  # the readout lies in the span
    assert gap(rows, b.logits.expand_as(rows)) < 1e-4
    but_the_last = swept(tiny, Patch(a, b, *at(0, a.prompted.n_pos - 1)), method)[0]
    assert gap(but_the_last[-1], b.logits) > 0.1  # control: then the last layer's patch is read by nobody


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["resid_post", *KINDS_INSIDE])
def test_a_clip_patched_into_itself_stays_as_it_is(tiny: AudioLLM, runs: Runs, kind: str, method: str) -> None:
    run = runs["long"]
    spec = SiteSpec(kind, layers=(0, 2, 4))
    for patch in (truncated(run, run), everywhere(run, run)):
        rows = swept(tiny, patch, method, spec)[0]
        assert gap(rows, run.logits.expand_as(rows)) < 1e-4
    other = swept(tiny, truncated(run, runs["short"]), method, spec)[0]
    assert gap(other[0], run.logits) > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_audio_patched_behind_the_last_block_is_read_by_nobody(tiny: AudioLLM, runs: Runs, method: str) -> None:
    rows = swept(tiny, truncated(runs["middle"], runs["long"]), method)[0]
    assert gap(rows[-1], runs["middle"].logits) < 1e-5
    assert gap(rows[-2], runs["middle"].logits) > 1e-3


def test_each_edit_is_applied_once_and_counted(tiny: AudioLLM, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed: list[int] = []
    plain = Patch.mix

    def counting(self: Patch, own: Tensor, donor: Tensor | None, layer: int, columns: slice = slice(None)) -> Tensor:
        mixed.append(layer)
        return plain(self, own, donor, layer, columns)

    monkeypatch.setattr(Patch, "mix", counting)
    patches, labels = list(all_cases(runs).values()), whole_vocabulary(runs["short"])
    for spec in (every_layer(tiny), SiteSpec("attn_out", layers=(0, 3))):
        for method in METHODS:
            mixed.clear()
            found = sweep(tiny, patches, labels, spec, method=method)
            hooked = len(patches) - found.methods.count("shortcut")  # a shortcut's edit lies in the donor's keys
            assert found.edits == len(patches) * len(spec.layers)
            assert sorted(mixed) == sorted(list(spec.layers) * hooked)


def test_label_logits_and_mass_are_those_of_the_whole_vocabulary(tiny: AudioLLM, runs: Runs) -> None:
    patches = [truncated(runs["middle"], runs["long"]), truncated(runs["long"], runs["short"], 0.5)]
    whole = whole_vocabulary(runs["short"])
    few = type(whole)(("a", "b", "c"), (9, 300, 41), {})
    full = sweep(tiny, patches, whole, every_layer(tiny))
    found = sweep(tiny, patches, few, every_layer(tiny))
    assert gap(found.label_logits, full.label_logits[..., [9, 300, 41]]) < 1e-6
    share = full.label_logits.double().softmax(-1)[..., [9, 300, 41]].sum(-1)
    assert (found.log_mass.exp() - share).abs().max() < 1e-6
    assert float(share.min()) < 0.5 and full.log_mass.abs().max() < 1e-5


def too_large(most: int) -> Callable[..., row_module.RowRunner]:
    """Make runners of rows that run out of memory in block 2 where they hold more than `most` patches."""
    build = engine._runner

    def small(*args: object) -> row_module.RowRunner:
        made = build(*args)
        run = made.run

        def limited(layer: int, rows: row_module.Rows, **how: bool) -> row_module.Rows:
            if made.n > most and layer == 2:
                raise torch.OutOfMemoryError("simulated")
            return run(layer, rows, **how)

        made.run = limited
        return made

    return small


@pytest.mark.parametrize("method", ["fast", "wavefront"])
@pytest.mark.parametrize("kind", ["resid_post", "mlp_out"])
def test_out_of_memory_halves_the_group_until_it_fits(
    tiny: AudioLLM, runs: Runs, method: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches, labels = list(all_cases(runs).values()), whole_vocabulary(runs["short"])
    spec = every_layer(tiny) if kind == "resid_post" else SiteSpec(kind, layers=(1, 2, 4))
    plenty = sweep(tiny, patches, labels, spec, method=method)
    sizes: list[int] = []
    for most in (3, 1):
        with monkeypatch.context() as patched:
            patched.setattr(engine, "_runner", too_large(most))
            travel = engine._travel
            patched.setattr(engine, "_travel", lambda s, run, *r, t=travel: sizes.append(run.n) or t(s, run, *r))
            scarce = sweep(tiny, patches, labels, spec, method=method)
        assert gap(scarce.label_logits, plenty.label_logits) < 1e-5
        assert (scarce.methods, scarce.edits) == (plenty.methods, plenty.edits)
    assert max(sizes) > 3 and 1 in sizes  # control: there was something to halve
    assert our_hooks(tiny) == []


@pytest.mark.parametrize("method", METHODS)
def test_one_patch_too_many_for_the_memory_is_a_clear_error(
    tiny: AudioLLM, runs: Runs, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("simulated")

    patches = [truncated(runs["middle"], runs["long"]), truncated(runs["short"], runs["long"])]
    monkeypatch.setattr(tiny.blocks[3], "forward", full)
    with pytest.raises(InterpError, match=r"clip '(middle|short)' \(\d+ positions, 6 layers\) does not fit .* choose"):
        sweep(tiny, patches, whole_vocabulary(runs["short"]), every_layer(tiny), method=method)
    assert our_hooks(tiny) == []


def test_an_unknown_method_a_missing_layer_and_training_mode_are_refused(tiny: AudioLLM, runs: Runs) -> None:
    patches, labels = [truncated(runs["middle"], runs["long"])], whole_vocabulary(runs["short"])
    with pytest.raises(InterpError, match="method 'quick' is none of fast, wavefront, reference"):
        sweep(tiny, patches, labels, every_layer(tiny), method="quick")
    for spec in (SiteSpec("resid_post", layers=(0, 5)), SiteSpec("mlp_out", layers=(-1, 0))):
        with pytest.raises(InterpError, match=r"layer=(5|-1) is outside .* 5 layers \(valid: 0 to 4\)"):
            sweep(tiny, patches, labels, spec)
    with pytest.raises(InterpError, match=r"head=4 is outside .* 4 heads \(valid: 0 to 3\)"):
        sweep(tiny, patches, labels, SiteSpec("head_out", 4, tiny.d_head, (0,)))
    tiny.hf.train()
    try:
        with pytest.raises(InterpError, match="is in training mode"):
            sweep(tiny, patches, labels, every_layer(tiny))
        with pytest.raises(InterpError, match="is in training mode"):
            clean_runs(tiny, [runs["short"].prompted])
    finally:
        tiny.hf.eval()
