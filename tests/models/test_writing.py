"""The text under an edit is the library's own `generate()` under plain hooks, token for token, in every family."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.load import open_model
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from interp_core.trace.generate import Row, Written, generate
from interp_core.trace.patch import HeadAblated, Patch, PatchAt, SiteSpec
from tests.families.audio_llms import FAMILIES
from tests.families.subjects import CASES
from tests.models.conftest import Open, OpenFamily, Runs
from tests.tiny import tone
from tests.tiny_opens2s import save_opens2s
from tests.trace.cases import every_layer, truncated
from tests.trace.naive import PROMPT, in_rows

N = 10
HEAD = 1
Change = Callable[[Tensor, int], Tensor | None]
"""Of a value [1, pos, width] and the number of the call, 0 for the prompt."""


def blocks_of(hf: nn.Module, ending: str) -> nn.ModuleList:
    """Find the blocks by their class, not by the table."""
    (found,) = [
        module
        for module in hf.modules()
        if isinstance(module, nn.ModuleList) and len(module) and type(module[0]).__name__.endswith(ending)
    ]
    return found


@contextmanager
def plain_hook(module: nn.Module, change: Change, *, on_input: bool = False) -> Iterator[None]:
    """A torch hook that shows `change` what a module gives or takes, and counts the calls."""
    calls = 0

    @in_rows
    def edit(value: Tensor) -> Tensor:
        nonlocal calls
        new = change(value, calls)
        calls += 1
        return value if new is None else new

    def before(_module: nn.Module, args: tuple[Any, ...]) -> Any:
        return (edit(args[0]), *args[1:])

    def after(_module: nn.Module, _args: Any, out: Any) -> Any:
        return (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    handle = module.register_forward_pre_hook(before) if on_input else module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def patching(patch: Patch, incoming: Tensor) -> Change:
    """Put the donor's state [pos, width] at the patch's positions, in the prompt alone."""

    def change(value: Tensor, call: int) -> Tensor | None:
        if call:
            return None
        value = value.clone()
        value[0, patch.positions] = incoming[patch.source.long()]
        return value

    return change


def silencing(d_head: int, *, written: bool) -> Change:
    def change(value: Tensor, call: int) -> Tensor | None:
        if call and not written:
            return None
        value = value.clone()
        value[..., HEAD * d_head : (HEAD + 1) * d_head] = 0
        return value

    return change


def library(subject: AudioLLM, run: CleanRun, n_tokens: int = N) -> tuple[int, ...]:
    """What the library's own `generate()` writes behind a clip's raw inputs, without the token that ends it; of OpenS2S
    behind the spliced embeddings, as its decoder alone is the library's; of Kimi-Audio behind its summed streams."""
    inputs = dict(run.prompted.inputs)
    summed = subject.hf if "text_input_ids" in inputs else None
    if (llm := getattr(subject.hf, "llm_model", summed)) is not None:
        embeds = run.prompted.embeds[None]
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        with torch.inference_mode():
            out = llm.generate(
                inputs_embeds=embeds, attention_mask=mask, max_new_tokens=n_tokens, do_sample=False, pad_token_id=0
            )
        return cut(out[0].tolist(), llm)
    with torch.inference_mode():
        # Where layers read keys of earlier ones, the library leaves out all but the last position, unless it is asked
        # for the states: a hook is to see them all.
        asked = {"output_hidden_states": True} if subject.passed_on else {}
        out = subject.hf.generate(**inputs, max_new_tokens=n_tokens, do_sample=False, **asked)[0]
    return cut(out[inputs["input_ids"].shape[1] :].tolist(), subject.hf)


def cut(tokens: list[int], hf: Any) -> tuple[int, ...]:
    told = hf.generation_config.eos_token_id
    ends = [told] if isinstance(told, int) else told or []
    return tuple(tokens[:-1] if tokens[-1] in ends else tokens)


def ablated(subject: AudioLLM, layer: int) -> HeadAblated:
    return HeadAblated(layer, HEAD, subject.d_head)


@pytest.fixture
def writing(opened: OpenFamily, monkeypatch: pytest.MonkeyPatch) -> OpenFamily:
    """Open a family; the library's Phi-4 fails where the model writes the placeholder of audio, as a random one may."""

    def family(name: str) -> AudioLLM:
        subject = opened(name)
        if name == "phi4_multimodal":
            monkeypatch.setattr(subject.hf.generation_config, "suppress_tokens", [subject.audio_token_id])
        return subject

    return family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_under_an_edit_is_the_librarys_under_a_plain_hook(
    writing: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, runs = writing(family), runs_of_family(family)
    a, b = runs["middle"], runs["long"]
    patch, spec = truncated(a, b), every_layer(subject)
    rows = [Row(a.prompted), Row(b.prompted), Row(a.prompted, (PatchAt(replace(patch, alpha=0.0), spec, 1),))]
    rows += [Row(a.prompted, (PatchAt(patch, spec, layer),)) for layer in spec.layers]
    found = [text.tokens for text in generate(subject, rows, N)]
    blocks = blocks_of(subject.hf, "DecoderLayer")
    own = library(subject, a)
    assert found[:3] == [own, library(subject, b), own]
    expected = []
    for layer in spec.layers:
        state = b.resid[layer + 1]
        with plain_hook(blocks[max(layer, 0)], patching(patch, state), on_input=layer == -1):
            expected.append(library(subject, a))
    assert found[3:] == expected
    assert len(set(expected)) > 1  # control: an edit changes the text, and layers differ: the last one does nothing
    assert expected[-1] == own  # behind the last block only the readout's own position is read


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_is_ablated_over_the_prompt_alone_or_at_every_written_position(
    writing: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, run = writing(family), runs_of_family(family)["middle"]
    blocks = blocks_of(subject.hf, "DecoderLayer")
    texts = {}
    for during in ("prefill", "all"):
        rows = [Row(run.prompted, (ablated(subject, layer),)) for layer in range(subject.n_layers)]
        found = [text.tokens for text in generate(subject, [*rows, Row(run.prompted)], N, during=during)]
        expected = []
        for block in blocks:
            attention = next(m for m in block.children() if type(m).__name__.endswith("Attention"))
            with plain_hook(attention.o_proj, silencing(subject.d_head, written=during == "all"), on_input=True):
                expected.append(library(subject, run))
        assert found == [*expected, library(subject, run)], during
        texts[during] = expected
    assert len({*texts["prefill"], *texts["all"], library(subject, run)}) > 1  # control


def test_a_head_that_stays_ablated_writes_another_text(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs]
) -> None:
    subject, run = opened("qwen2_audio"), runs_of_family("qwen2_audio")["long"]
    rows = [Row(run.prompted, (ablated(subject, layer),)) for layer in range(subject.n_layers)]
    assert generate(subject, rows, N) != generate(subject, rows, N, during="all")


def test_opens2s_writes_as_its_decoder_does_behind_the_spliced_prompt(tmp_path: Path) -> None:
    subject = open_model(str(save_opens2s(tmp_path / "model")), device="cpu", dtype="float32")
    stems = [prompt_clip(subject, tone(*about), PROMPT, name) for name, about in {"a": (1, 200), "b": (2, 400)}.items()]
    a, b = (clean_runs(subject, [stem])[0] for stem in stems)
    patch, spec = truncated(a, b), every_layer(subject)
    llm = subject.hf.llm_model
    assert llm.generation_config.do_sample is True and llm.generation_config.eos_token_id == 2  # of its own file

    def library_text() -> tuple[int, ...]:
        embeds = a.prompted.embeds[None]
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        with torch.inference_mode():
            out = llm.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=N, do_sample=False)
        return cut(out[0].tolist(), llm)

    rows = [Row(a.prompted), *(Row(a.prompted, (PatchAt(patch, spec, layer),)) for layer in range(subject.n_layers))]
    for penalty in (None, 1.3):
        llm.generation_config.repetition_penalty = penalty
        expected = [library_text()]
        for layer, block in enumerate(llm.model.layers):
            with plain_hook(block, patching(patch, b.resid[layer + 1])):
                expected.append(library_text())
        assert [text.tokens for text in generate(subject, rows, N)] == expected
        assert len(set(expected)) > 1  # control


RULES: dict[str, dict[str, Any]] = {
    "repetition penalty": {"repetition_penalty": 1.8},
    "no pair twice": {"no_repeat_ngram_size": 2},
    "suppressed": {"suppress_tokens": list(range(60, 330))},
    "suppressed at the beginning": {"begin_suppress_tokens": list(range(0, 400, 2))},
    "a least length": {"min_new_tokens": 5, "eos_token_id": list(range(100, 400))},
    "a forced end": {"forced_eos_token_id": 2},
    "a beam and sampling": {"num_beams": 3, "do_sample": True, "temperature": 0.4},
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rules_of_a_checkpoints_generation_config_hold(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    subject, runs = opened("qwen2_audio"), runs_of_family("qwen2_audio")
    a, b = runs["long"], runs["short"]
    patch, spec = truncated(a, b), every_layer(subject)
    rows = [Row(a.prompted, (PatchAt(patch, spec, layer),)) for layer in spec.layers] + [Row(b.prompted)]
    without = generate(subject, rows, N)
    told = GenerationConfig(**{**subject.hf.generation_config.to_dict(), **RULES[rule]})
    monkeypatch.setattr(subject.hf, "generation_config", told)
    blocks = blocks_of(subject.hf, "DecoderLayer")
    monkeypatch.setattr(told, "num_beams", 1)  # of the library's own text; ours is never asked for more than one
    expected = []
    for layer in spec.layers:
        with plain_hook(blocks[max(layer, 0)], patching(patch, b.resid[layer + 1]), on_input=layer == -1):
            expected.append(library(subject, a))
    expected.append(library(subject, b))
    monkeypatch.setattr(told, "num_beams", RULES[rule].get("num_beams", 1))
    found = generate(subject, rows, N)
    assert [text.tokens for text in found] == expected
    assert (found != without) == (rule not in ("no pair twice", "a beam and sampling"))  # control: the rule is seen


def test_rows_end_where_they_end_and_the_others_go_on(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, runs = opened("qwen2_audio"), runs_of_family("qwen2_audio")
    rows = [Row(runs[name].prompted) for name in ("middle", "twin", "long", "short")]
    free = generate(subject, rows, N)
    end = free[0].tokens[3]
    before = free[0].tokens[: free[0].tokens.index(end)]
    monkeypatch.setattr(subject.hf.generation_config, "eos_token_id", [end, 1])
    found = generate(subject, rows, N)
    assert found[0] == Written(subject.text_of(before), before, True) and before
    assert [text.tokens for text in found] == [library(subject, runs[n]) for n in ("middle", "twin", "long", "short")]
    assert not all(text.ended for text in found) and max(len(text.tokens) for text in found) == N


def test_a_row_comes_out_of_any_batch_as_alone_and_too_large_a_batch_is_halved(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, runs = opened("qwen2_audio"), runs_of_family("qwen2_audio")
    a, b = runs["middle"], runs["twin"]
    patch, spec = truncated(a, b), every_layer(subject)
    rows = [Row(a.prompted), Row(b.prompted, (ablated(subject, 0),))]
    rows += [Row(a.prompted, (PatchAt(patch, spec, layer),)) for layer in (0, 1, 2)]
    alone = [generate(subject, [row], N)[0] for row in rows]
    assert generate(subject, rows, N) == alone
    assert generate(subject, rows[::-1], N) == alone[::-1]
    sizes: list[int] = []
    whole = type(subject).writer

    def small(self: AudioLLM, batch: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return whole(self, batch)

    monkeypatch.setattr(type(subject), "writer", small)
    assert generate(subject, rows, N) == alone
    assert sizes == [5, 2, 3, 1, 2]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_whispers_transcript_under_an_edit_is_the_librarys(
    open_once: Open, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    one = open_once(f"whisper-{part}")
    subject, a, b = one.subject, one.runs["short"], one.runs["twin"]
    hf = subject.hf
    # The library goes on behind a timestamp as if another part of the recording began there.
    timestamps = range(hf.generation_config.no_timestamps_token_id, hf.config.vocab_size)
    monkeypatch.setattr(hf.generation_config, "suppress_tokens", [*range(0, 300, 7), *timestamps])
    blocks = blocks_of(hf.model, "EncoderLayer" if part == "encoder" else "DecoderLayer")
    prefix = len(subject.tokenizer(subject.default_prompts[0], add_special_tokens=False).input_ids)

    def library_text(run: CleanRun) -> tuple[int, ...]:
        features = run.prompted.inputs["input_features"]
        with torch.inference_mode():
            out = hf.generate(features, language="en", task="transcribe", max_new_tokens=N)[0].tolist()
        assert prefix == 4
        return cut(out[prefix:] if out[:1] == [hf.config.decoder_start_token_id] else out, hf)

    patch, spec = truncated(a, b), every_layer(subject)
    rows = [Row(a.prompted), Row(b.prompted), Row(a.prompted, (PatchAt(replace(patch, alpha=0.0), spec, 1),))]
    rows += [Row(a.prompted, (PatchAt(patch, spec, layer),)) for layer in spec.layers]
    found = [text.tokens for text in generate(subject, rows, N)]
    own = library_text(a)
    assert found[:3] == [own, library_text(b), own]
    expected = []
    for layer in spec.layers:
        with plain_hook(blocks[max(layer, 0)], patching(patch, b.resid[layer + 1]), on_input=layer == -1):
            expected.append(library_text(a))
    assert found[3:] == expected
    assert len({own, *expected}) > 2  # control
    heads = [Row(a.prompted, (HeadAblated(0, HEAD, subject.d_head),))]
    for during in ("prefill", "all"):
        text = generate(subject, heads, N, during=during)[0]
        change = silencing(subject.d_head, written=during == "all")
        with plain_hook(blocks[0].self_attn.out_proj, change, on_input=True):
            assert text.tokens == library_text(a), during
    most = hf.config.max_target_positions - prefix
    assert len(generate(subject, [Row(a.prompted)], 500)[0].tokens) <= most  # there are no more positions


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.reads != "words"])
def test_a_model_that_writes_nothing_says_so(open_once: Open, name: str) -> None:
    one = open_once(name)
    refusal = one.subject.words_refusal()
    assert refusal is not None
    with pytest.raises(InterpError, match="so there is no answer in words"):
        generate(one.subject, [Row(one.runs["short"].prompted)], N)


def test_edits_that_cannot_be_are_refused_before_anything_is_written(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs]
) -> None:
    subject, runs = opened("qwen2_audio"), runs_of_family("qwen2_audio")
    a, b = runs["middle"], runs["long"]
    at = PatchAt(truncated(a, b), SiteSpec("resid_post", layers=(99,)), 99)
    with pytest.raises(InterpError, match="layer=99 is outside"):
        generate(subject, [Row(a.prompted, (at,))], N)
    with pytest.raises(InterpError, match="ends with the prompt"):
        generate(subject, [Row(a.prompted, (replace(at, layer=0),))], N, during="all")
    with pytest.raises(InterpError, match="n_tokens=0"):
        generate(subject, [Row(a.prompted)], 0)
