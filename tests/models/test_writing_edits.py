"""With neurons replaced or a vector added, the text is that of the library's `generate()` under plain hooks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.sites import Site
from interp_core.trace.clean import CleanRun
from interp_core.trace.generate import Row, generate
from interp_core.trace.patch import RowEdit
from interp_core.trace.row_edits import NeuronsReplaced, VectorAdded
from tests.families.audio_llms import FAMILIES
from tests.models.conftest import Open, OpenFamily, Runs
from tests.models.test_writing import Change, N, blocks_of, cut, library, plain_hook

NEURONS = (0, 3, 4)


def edits(run: CleanRun, layer: int, d_head: int) -> dict[str, tuple[RowEdit, Change, bool]]:
    """By name: an edit, what a plain hook does in its place (call 0 is the prompt), and whether that hook is before the
    projection behind the heads."""
    prompted = run.prompted
    inside = torch.zeros(prompted.n_pos, dtype=torch.bool)
    inside[prompted.recording.positions()] = True
    width = run.resid[0].shape[1]
    vector = 3 * torch.randn(width, generator=torch.Generator().manual_seed(layer))
    fill = torch.tensor([0.5, -2.0, 4.0])

    def at(call: int, value: Tensor) -> Tensor:
        return inside if call == 0 else torch.ones(value.shape[1], dtype=torch.bool)

    def replaced(value: Tensor, call: int) -> Tensor:
        value = value.clone()
        for neuron, number in zip(NEURONS, fill.tolist(), strict=True):
            value[0, at(call, value), neuron] = number
        return value

    def turned(value: Tensor, call: int) -> Tensor:
        value = value.clone()
        for neuron in NEURONS:
            value[0, at(call, value), d_head + neuron] *= -1
        return value

    def added(value: Tensor, call: int) -> Tensor:
        value = value.clone()
        value[0, at(call, value)] += vector
        return value

    head = slice(d_head, 2 * d_head)
    return {
        "neurons": (NeuronsReplaced(Site("resid_post", layer), NEURONS, fill, inside), replaced, False),
        "a head's": (NeuronsReplaced(Site("head_out", layer, 1), NEURONS, None, inside, head), turned, True),
        "vector": (VectorAdded(layer, vector, inside), added, False),
    }


def over_the_prompt(change: Change) -> Change:
    return lambda value, call: None if call else change(value, call)


def hold(subject: Any, run: CleanRun, blocks: Any, said: Callable[[CleanRun], tuple[int, ...]], out: str) -> None:
    """Every edit at every layer, in one batch, over the prompt alone and at every written position."""
    texts = set()
    for during in ("prefill", "all"):
        rows, expected = [], []
        for layer, block in enumerate(blocks):
            for edit, change, on_input in edits(run, layer, subject.d_head).values():
                rows.append(Row(run.prompted, (edit,)))
                attention = next(m for m in block.children() if type(m).__name__.endswith("Attention"))
                module = getattr(attention, out) if on_input else block
                whole = change if during == "all" else over_the_prompt(change)
                with plain_hook(module, whole, on_input=on_input):
                    expected.append(said(run))
        found = [text.tokens for text in generate(subject, rows, N, during=during)]
        assert found == expected, during
        texts |= set(found)
    assert len(texts) > 1, "control: an edit changes the text"


@pytest.fixture
def writing(opened: OpenFamily, monkeypatch: pytest.MonkeyPatch) -> OpenFamily:
    def family(name: str) -> AudioLLM:
        subject = opened(name)
        if name == "phi4_multimodal":  # see test_writing
            monkeypatch.setattr(subject.hf.generation_config, "suppress_tokens", [subject.audio_token_id])
        return subject

    return family


@pytest.mark.parametrize("family", FAMILIES)
def test_an_audio_llm_with_neurons_replaced_or_a_vector_added_writes_what_the_library_does(
    writing: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, run = writing(family), runs_of_family(family)["middle"]
    hold(subject, run, blocks_of(subject.hf, "DecoderLayer"), lambda run: library(subject, run), "o_proj")


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_whispers_transcript_with_neurons_replaced_or_a_vector_added_is_the_librarys(
    open_once: Open, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    one = open_once(f"whisper-{part}")
    subject, hf = one.subject, one.subject.hf
    timestamps = range(hf.generation_config.no_timestamps_token_id, hf.config.vocab_size)
    monkeypatch.setattr(hf.generation_config, "suppress_tokens", [*range(0, 300, 7), *timestamps])

    def said(run: CleanRun) -> tuple[int, ...]:
        features = run.prompted.inputs["input_features"]
        with torch.inference_mode():
            out = hf.generate(features, language="en", task="transcribe", max_new_tokens=N)[0].tolist()
        return cut(out[4:] if out[:1] == [hf.config.decoder_start_token_id] else out, hf)

    blocks = blocks_of(hf.model, "EncoderLayer" if part == "encoder" else "DecoderLayer")
    hold(subject, one.runs["short"], blocks, said, "out_proj")


def test_nothing_added_and_no_neuron_replaced_is_the_text_as_it_is(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs]
) -> None:
    subject, run = opened("qwen2_audio"), runs_of_family("qwen2_audio")["long"]
    inside = torch.ones(run.prompted.n_pos, dtype=torch.bool)
    none = VectorAdded(1, torch.zeros(run.resid[0].shape[1]), inside)
    kept = NeuronsReplaced(Site("resid_post", 1), (), None, inside)
    own, *others = generate(subject, [Row(run.prompted), Row(run.prompted, (none,)), Row(run.prompted, (kept,))], N)
    assert others == [own, own]
