"""NeMo's multitask models, Canary and Cohere's: what their prompts name, clips that are too long, and wrong folders."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.models.encoders.listener import Listener
from interp_core.models.load import open_model
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.generate import Row, generate
from tests.families.encoder_routes import asked_by_the_library
from tests.families.encoders import save_canary
from tests.families.subjects import tone
from tests.models.conftest import Open, refused
from tests.models.test_writing import cut
from tests.trace.naive import gap

BOTH = ("canary", "cohere")
SAVE: dict[str, Callable[[Path], Path]] = {
    "canary": save_canary,
    "cohere": lambda folder: save_canary(folder, kind="CohereAsr"),
}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("n_samples", [8000, 8100, 12_850])
def test_answer_and_text_are_the_librarys_from_its_own_masked_frames(
    name: str, part: str, n_samples: int, open_once: Open
) -> None:
    one = open_once(f"{name}-{part}")
    subject, hf = one.subject, one.subject.hf
    samples = tone(0.9, 300, 16_000)[:n_samples]
    stem = prompt_clip(subject, samples, one.prompt, "a")
    heard = dict(subject.extractor(samples, sampling_rate=16_000, return_tensors="pt"))  # type: ignore[attr-defined]
    heard.pop("audio_chunk_index", None)
    assert not heard["attention_mask"].all()  # its last frame is masked
    asked = torch.tensor([asked_by_the_library(one)])
    (run,) = clean_runs(subject, [stem])
    with torch.inference_mode():
        assert gap(run.logits, hf(**heard, decoder_input_ids=asked).logits[0, -1]) < 1e-5
        wrote = hf.generate(**heard, decoder_input_ids=asked, max_new_tokens=8)[0].tolist()
    assert wrote[: asked.shape[1]] == asked[0].tolist()
    assert generate(subject, [Row(stem)], 8)[0].tokens == cut(wrote[asked.shape[1] :], hf)


@pytest.mark.parametrize("name", BOTH)
def test_a_prompt_names_the_languages_and_a_word_stands_behind_it(name: str, open_once: Open) -> None:
    one = open_once(f"{name}-encoder")
    subject = one.subject
    assert isinstance(subject, Listener)
    german = one.prompt.replace("<|en|><|en|>", "<|en|><|de|>")
    subject.check_prompt(german)
    (run,) = clean_runs(subject, [prompt_clip(subject, one.samples["long"], german, "a")])
    assert gap(run.logits, one.runs["long"].logits) > 1e-3
    spoken = subject.labels(["happy", "sad"], one.prompt)
    assert subject.tokenizer.convert_ids_to_tokens(list(spoken.ids)) == ["▁happy", "▁sad"]
    with pytest.raises(
        InterpError, match=r"names <\|fr\|>, which the tokenizer of .*; it has <\|audioseparator\|>, .* more"
    ):
        subject.check_prompt(one.prompt.replace("<|en|>", "<|fr|>", 1))


def test_what_cohere_would_cut_into_clips_is_too_long(open_once: Open) -> None:
    subject = open_once("cohere-encoder").subject
    assert subject.max_seconds == 35.0
    whole = subject.model_inputs(np.zeros(35 * 16_000, np.float32), "")["input_features"]
    assert whole.shape[:2] == (1, 3500)
    cut_up = subject.extractor(np.zeros(36 * 16_000, np.float32), sampling_rate=16_000)  # type: ignore[attr-defined]
    assert len(cut_up["input_features"]) == 2  # control: the library does
    assert open_once("canary-encoder").subject.max_seconds == float("inf")


@pytest.mark.parametrize("name", BOTH)
def test_folders_that_do_not_fit_are_one_sentence(name: str, tmp_path: Path) -> None:
    folder = SAVE[name](tmp_path / "model")
    file = folder / "config.json"
    whole = json.loads(file.read_text())
    wider = {**whole["encoder_config"], "hidden_size": whole["encoder_config"]["hidden_size"] + 16}
    file.write_text(json.dumps({**whole, "encoder_config": wider}))
    assert "do not fit its config: model." in refused(folder)
    file.write_text(json.dumps(whole))
    made = folder / "generation_config.json"
    told = json.loads(made.read_text())
    made.write_text(json.dumps({**told, "decoder_start_token_id": 5}))
    begins = {"canary": "<|startofcontext|>", "cohere": "▁"}[name]
    assert f"at token 5, where the model begins with {begins}; copy the tokenizer files" in refused(folder)
    made.write_text(json.dumps(told))
    assert open_model(str(folder), device="cpu").default_prompts[0].startswith(begins)
    made.unlink()  # then the library takes the config's
    if name == "cohere":
        assert "where the model begins with ▁; copy the tokenizer files, and generation_config.json" in refused(folder)
    else:
        assert open_model(str(folder), device="cpu").default_prompts[0].startswith(begins)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer of " in refused(folder)
