"""Models that hear and write beside Whisper: prompts, clips that are too short, probes, and the text under an edit."""

import pytest
import torch

from interp_core.errors import InterpError
from interp_core.experiments.patching.positions import align_positions
from interp_core.models.encoders.listener import Listener
from interp_core.models.listeners import LISTENERS
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.generate import Row, generate
from interp_core.trace.patch import HeadAblated, PatchAt, SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.encoder_routes import answer, asked_by_the_library, blocks_of
from tests.families.encoders import FAMILIES
from tests.families.subjects import CASES, with_probe
from tests.models.conftest import Open
from tests.models.test_writing import HEAD, N, patching, plain_hook, silencing
from tests.trace.cases import every_layer, truncated
from tests.trace.naive import gap

OUT = ("out_proj", "o_proj", "linear_out")
NAMES = [name for name, case in CASES.items() if case.reads == "words" and case.family != "whisper"]


def test_every_row_of_the_table_is_among_the_cases() -> None:
    named = {"speech2text": "speech_to_text", "seamless": "seamless_m4t", "seamless2": "seamless_m4t_v2"}
    named |= {"cohere": "cohere_asr", "streaming": "moonshine_streaming"}
    assert {named.get(f.name, f.name) for f in FAMILIES if f.reads == "words"} == set(LISTENERS)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_one_length_share_a_batch_and_each_clip_keeps_its_own(name: str, open_once: Open) -> None:
    one = open_once(name)
    texts = [one.prompt + one.subject.written(word, one.prompt) for word in ("dog", "sad", "cat")]
    clips = ("long", "short", "twin")
    stems = [prompt_clip(one.subject, one.samples[c], t, c) for c, t in zip(clips, texts, strict=True)]
    assert len({stem.inputs["decoder_input_ids"].shape for stem in stems}) == 1
    alone = [clean_runs(one.subject, [stem], one.subject.kinds)[0] for stem in stems]
    both = clean_runs(one.subject, stems[1:], one.subject.kinds)
    for run, single, stem in zip(both, alone[1:], stems[1:], strict=True):
        assert gap(run.logits, single.logits) < 1e-5 and gap(run.logits, answer(one, stem.inputs)[0]) < 1e-5
    words = ["happy", "sad", "dog"]
    labels = one.subject.labels(words, texts[0])
    patches = [truncated(alone[0], alone[1]), truncated(alone[1], alone[0]), truncated(alone[2], alone[0])]
    for kind in one.subject.kinds:
        if kind != "resid_pre":
            spec = SiteSpec(kind, layers=tuple(range(one.subject.n_layers)))
            fast, reference = (
                [sweep(one.subject, [patch], labels, spec, method=method).label_logits[0] for patch in patches]
                for method in ("fast", "reference")
            )
            assert all(gap(a, b) < 1e-4 for a, b in zip(fast, reference, strict=True)), kind
    if one.case.part == "decoder":  # three tokens and more, of which the last is read
        spec = SiteSpec("resid_post", layers=(0, one.subject.n_layers - 1))
        found = align_positions(alone[1].prompted, alone[2].prompted, "last")
        assert found.positions.tolist() == [stems[1].n_pos - 1] and stems[1].n_pos > 1
        assert sweep(one.subject, patches, labels, spec).label_logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_that_fills_no_position_is_refused_by_name_in_both_parts(name: str, open_once: Open) -> None:
    one = open_once(name)
    shortest = one.subject.shortest
    for n in (1, shortest - 1):
        with pytest.raises(InterpError, match="clip 'click' is too short for"):
            prompt_clip(one.subject, one.samples["short"][:n], one.prompt, "click")
    fits = prompt_clip(one.subject, one.samples["short"][:shortest], one.prompt, "click")
    assert fits.audio == (0, len(one.subject.ids_of(one.prompt)) if one.case.part == "decoder" else 1)


@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name].part == "encoder"])
def test_below_a_probe_it_is_the_encoder_alone(name: str, open_once: Open) -> None:
    one = open_once(name)
    made = with_probe(one.subject, one.samples["short"]).probe
    assert made is not None
    probed = one.subject.with_probe(made)
    assert not probed.asks and probed.default_prompts == ("",) and probed.key != one.subject.key
    stem = prompt_clip(probed, one.samples["short"], "", "a")
    assert "decoder_input_ids" not in stem.inputs
    (run,) = clean_runs(probed, [stem], probed.kinds)
    with torch.inference_mode():
        encoder = one.subject.hf.get_encoder()
        heard = encoder(**stem.inputs).last_hidden_state.mean(1)
        assert gap(run.logits, (heard.float() @ made.weight.T + made.bias)[0]) < 1e-5
    weights = {weight for part in probed.weights_by_part().values() for weight in part}
    whole = {weight for part in one.subject.weights_by_part().values() for weight in part}
    assert weights < whole | {"probe.weight", "probe.bias"} and not any("decoder" in weight for weight in weights)
    with pytest.raises(InterpError, match="takes no probe"):
        one.subject.part("decoder").check_takes_probe()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.part == "encoder"])
def test_a_decoder_that_differs_is_behind_the_encoder_and_an_encoder_that_does_before_the_decoder(
    name: str, open_once: Open
) -> None:
    """By changing one weight after the other, and looking which states of the blocks it moves."""
    subject = open_once(name).subject
    sound, hf = open_once(name).samples["short"], subject.hf
    for part in ("encoder", "decoder"):
        side = subject.part(part)
        (before,) = clean_runs(side, [prompt_clip(side, sound, side.default_prompts[0], "a")])
        parts = side.weights_by_part()
        used = {weight for weight, _ in hf.named_parameters() if not weight.endswith("masked_spec_embed")}
        assert {weight for some in parts.values() for weight in some} >= used
        shared = [weight.data_ptr() for some in parts.values() for weight in some.values()]
        places = {"stem": 0, "readout": side.n_layers + 1} | {f"layer {i}": i + 1 for i in range(side.n_layers)}
        for place, point in places.items():
            assert parts[place], place
            for called, weight in list(parts[place].items())[:: max(1, len(parts[place]) // 6)]:
                if not weight.is_floating_point() or shared.count(weight.data_ptr()) > 1:
                    continue  # the embedding of what was written is the head, too
                kept = weight.clone()
                with torch.no_grad():
                    weight.add_(0.1 * torch.randn_like(weight))
                (after,) = clean_runs(side, [prompt_clip(side, sound, side.default_prompts[0], "a")])
                with torch.no_grad():
                    weight.copy_(kept)
                for i, (one, other) in enumerate(zip(before.resid, after.resid, strict=True)):
                    assert torch.equal(one, other) or i >= point, (called, place, i)
                if (part, place) == ("encoder", "stem"):
                    assert not torch.equal(before.resid[1], after.resid[1]), called


@pytest.mark.parametrize("name", NAMES)
def test_the_text_under_an_edit_is_the_librarys(name: str, open_once: Open) -> None:
    one = open_once(name)
    subject, a, b = one.subject, one.runs["short"], one.runs["twin"]
    assert isinstance(subject, Listener)
    hf, blocks = subject.hf, blocks_of(one)
    how = {"tgt_lang": "eng"} if one.case.family.startswith("seamless") else {}
    if one.case.family == "speecht5":
        how = {"decoder_input_ids": torch.tensor([[2, 4]])}  # the start, then a space
    if one.case.family in ("canary", "cohere"):
        how = {"decoder_input_ids": torch.tensor([asked_by_the_library(one)])}

    def library_text(run) -> tuple[int, ...]:  # type: ignore[no-untyped-def]
        heard = {name: value for name, value in run.prompted.inputs.items() if name != "decoder_input_ids"}
        with torch.inference_mode():
            out = hf.generate(**heard, **how, max_new_tokens=N)[0].tolist()
        out = out[run.prompted.inputs["decoder_input_ids"].shape[1] :]  # the start, and what it is asked
        return tuple(out[: out.index(hf.config.eos_token_id)] if hf.config.eos_token_id in out else out)

    patch, spec = truncated(a, b), every_layer(subject)
    rows = [Row(a.prompted), Row(b.prompted)] + [Row(a.prompted, (PatchAt(patch, spec, at),)) for at in spec.layers]
    found = [text.tokens for text in generate(subject, rows, N)]
    expected = [library_text(a), library_text(b)]
    for layer in spec.layers:
        with plain_hook(blocks[max(layer, 0)], patching(patch, b.resid[layer + 1]), on_input=layer == -1):
            expected.append(library_text(a))
    assert found == expected and len(set(expected)) > 1
    unequal = [Row(one.runs[clip].prompted) for clip in ("long", "short", "twin")]
    assert generate(subject, unequal, N) == [generate(subject, [row], N)[0] for row in unequal]
    heads = [Row(a.prompted, (HeadAblated(0, HEAD, subject.d_head),))]
    for during in ("prefill", "all"):
        text = generate(subject, heads, N, during=during)[0]  # type: ignore[arg-type]
        change = silencing(subject.d_head, written=during == "all")
        attention = blocks[0].attention if one.case.name == "speecht5-encoder" else blocks[0].self_attn
        projection = next(getattr(attention, name) for name in OUT if hasattr(attention, name))
        with plain_hook(projection, change, on_input=True):  # type: ignore[union-attr]
            assert text.tokens == library_text(a), during
    sizes = getattr(hf.config, "decoder_config", hf.config)
    most = getattr(sizes, subject.row.most) - len(subject.ids_of(one.prompt))
    assert len(generate(subject, [Row(a.prompted)], 500)[0].tokens) <= most  # there are no more positions
