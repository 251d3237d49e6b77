"""Trained weights: tiny.en transcribes synthetic speech, and B's transcript comes out of A with B's encoder states."""

from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from interp_core.data.manifest import read_manifest
from interp_core.engine import Engine
from interp_core.experiments.patching.experiment import answer_by_hand, pair_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.verified import verified
from interp_core.trace.clean import clip_inputs
from tests.families.whisper_tiny_en import whisper_tiny_en

MANIFEST = Path(__file__).resolve().parents[2] / "assets" / "demo-emotion" / "manifest.csv"
TOKENS = 12


@pytest.mark.slow
def test_a_trained_whisper_writes_what_the_library_writes_and_bs_words_where_bs_states_are_patched_in(tmp_path):
    folder, engine = whisper_tiny_en(tmp_path), Engine()
    clips = {clip.clip_id: clip for clip in read_manifest(MANIFEST).clips}
    a, b = clips["s01-f3-neutral"], clips["s02-f3-neutral"]
    asked = PatchRequest(
        str(folder), str(MANIFEST), device="cpu", labels=("She", "They"), site="resid_post", several_tokens="first"
    )
    pair = pair_by_hand(engine, asked, a, b)
    found = answer_by_hand(engine, asked, pair, n_tokens=TOKENS, layers=(3,))
    assert "closed the window" in found.a.text and "prize" in found.b.text and found.a.text != found.b.text
    assert found.patched[3].text == found.b.text, "the decoder hears B's states alone, but for padding"
    store, plain = engine.store(asked), WhisperForConditionalGeneration.from_pretrained(folder).eval()
    for clip, said in ((a, found.a.text), (b, found.b.text)):
        inputs = clip_inputs(store.subject, store.samples(clip), asked.filled().prompts[0], clip.clip_id)
        with torch.inference_mode():
            tokens = plain.generate(inputs["input_features"], max_new_tokens=TOKENS)
        assert said.strip() == store.subject.text_of(tokens[0].tolist()).strip()


def test_both_sides_of_it_are_among_the_records_that_ship():
    assert [record.model_type for record in verified() if record.name == "whisper-tiny.en"] == ["whisper"] * 2
    assert not [record.name for record in verified() if "/" in record.name], "a record holds no path"
