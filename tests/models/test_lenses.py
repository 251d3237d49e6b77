"""The lenses at the last layer are the model itself: its own logits at every position, its own transcript."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.trace.clean import CleanRun
from interp_core.trace.generate import Row, generate
from interp_core.trace.lens import early_exits, word_lens
from tests.families.audio_llms import FAMILIES
from tests.families.subjects import CASES, Opened
from tests.models.conftest import Open, OpenFamily, Runs
from tests.models.test_writing import cut
from tests.trace.naive import gap

IDS, N = (3, 40, 77), 8


@pytest.mark.parametrize("family", FAMILIES)
def test_the_word_lens_behind_the_last_layer_is_the_models_own_output_at_every_position(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, run = opened(family), runs_of_family(family)["middle"]
    with torch.inference_mode():
        own = subject.hf(**run.prompted.inputs, use_cache=False).logits[0].float()
    if subject.arch.logits_divisor:
        own = own / getattr(subject.sizes, subject.arch.logits_divisor)
    n_pos, (start, stop) = run.prompted.n_pos, run.prompted.audio
    positions = torch.tensor([*range(start, stop), n_pos - 1])
    own = own[positions - n_pos].log_softmax(-1)  # counted from the end, which all models share
    found = word_lens(subject, run, positions, IDS)
    assert found.wanted.shape == (subject.n_layers + 1, len(positions), len(IDS))
    assert gap(found.wanted[-1], own[:, list(IDS)]) < 1e-4
    assert gap(found.top_log_prob[-1], own.max(-1).values) < 1e-4
    assert (own.gather(1, found.top[-1][:, None])[:, 0] > own.max(-1).values - 1e-4).all()
    assert gap(found.wanted[-1, -1], run.logits.log_softmax(-1)[list(IDS)]) < 1e-4
    assert gap(found.wanted[0], found.wanted[-1]) > 1e-2  # control: a layer further up says something else


def test_the_transcript_behind_each_layer_is_the_librarys_and_behind_the_last_its_own_token_for_token(
    open_once: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_once("whisper-encoder")
    subject, hf, differ = one.subject, one.subject.hf, 0
    # The library goes on behind a timestamp as if another part of the recording began there.
    timestamps = range(hf.generation_config.no_timestamps_token_id, hf.config.vocab_size)
    monkeypatch.setattr(hf.generation_config, "suppress_tokens", [*range(0, 300, 7), *timestamps])
    prefix = len(subject.tokenizer(subject.default_prompts[0], add_special_tokens=False).input_ids)

    def library(run: CleanRun, state: Tensor | None = None) -> tuple[int, ...]:
        """Its own text of a clip; where a state is given, of that in the place of what the last block left."""
        norm = hf.model.encoder.layer_norm
        handle = norm.register_forward_pre_hook(lambda _, args: None if state is None else (state[None],))
        try:
            with torch.inference_mode():
                features = run.prompted.inputs["input_features"]
                out = hf.generate(features, language="en", task="transcribe", max_new_tokens=N)[0].tolist()
        finally:
            handle.remove()
        return cut(out[prefix:] if out[:1] == [hf.config.decoder_start_token_id] else out, hf)

    for run in (one.runs["short"], one.runs["long"]):
        found = early_exits(subject, run, N)
        own = library(run)
        assert len(found) == subject.n_layers + 1 and found[-1].tokens == own and len(own) > 0
        assert found[-1].text == subject.tokenizer.decode(own, skip_special_tokens=True)
        assert [text.tokens for text in found] == [library(run, state) for state in run.resid]
        differ += found[0].tokens != found[-1].tokens
    assert differ, "control: what enters the first block is another text"


def test_a_model_without_words_or_a_decoder_says_so(one: Opened) -> None:
    run = one.runs["short"]
    if one.case.part == "encoder":
        *_, last = early_exits(one.subject, run, 3)
        [own] = generate(one.subject, [Row(run.prompted)], 3)
        assert last.tokens == own.tokens and len(own.tokens) > 0
    else:
        with pytest.raises(InterpError, match="open the part encoder|has no decoder that could write"):
            early_exits(one.subject, run, 3)
    with pytest.raises(InterpError, match="has no words at its positions"):
        word_lens(one.subject, run, torch.tensor([0]), IDS)
    assert one.case.name in CASES
