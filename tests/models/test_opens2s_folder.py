"""Opening an OpenS2S folder: what arrives, in which dtype, and what is refused by name before weights are read."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import logging as hf_logging

from interp_core.errors import InterpError
from interp_core.models.audio_llms import own_weights
from interp_core.models.audio_llms.layouts import layout_of
from interp_core.models.audio_llms.opens2s import load_opens2s
from interp_core.models.audio_llms.opens2s_net import OpenS2SAdapter
from interp_core.models.audio_llms.own_weights import slices
from tests.tiny import RATE, tone
from tests.tiny_opens2s import config_json, save_opens2s, weights
from tests.trace.naive import PROMPT, gap

INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_opens2s(tmp_path_factory.mktemp("opens2s") / "model")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Rewrite every weight file; the index stays, as it does when somebody edits a file."""
    for file in sorted(folder.glob("model-*.safetensors")):
        held = load_file(file)
        change(held)
        save_file(held, file, metadata={"format": "pt"})


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The library's log, which does not reach the root logger by itself, and which our command line makes quiet."""
    loudness = hf_logging.get_verbosity()
    hf_logging.set_verbosity_warning()
    logging.getLogger("transformers").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("transformers").removeHandler(caplog.handler)
    hf_logging.set_verbosity(loudness)


def test_all_weights_arrive_under_their_names_and_the_speech_output_is_left_out_silently(
    original: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf, _ = load_opens2s(original, dtype=torch.float32)
    assert not said.records
    with monkeypatch.context() as patched:  # control: the library does speak up about weights that it does not expect
        patched.setattr(own_weights, "slices", lambda stored, _: slices(stored, ("no such name",)))
        load_opens2s(original, dtype=torch.float32)
        assert "tts_lm_model" in said.text
    saved = weights(hf.config.llm_config.vocab_size)
    state = hf.state_dict()
    assert all(torch.equal(state[name], saved[name]) for name in state)
    left_out = set(saved) - set(state)
    assert left_out and all(name.startswith(("tts_lm_model.", "llm2tts.", "llm_ln.")) for name in left_out)
    assert not hf.training and hf.device == torch.device("cpu")
    assert hf.config._attn_implementation == hf.config.llm_config._attn_implementation == "sdpa"


def test_weights_are_held_in_the_asked_or_the_stored_dtype_and_in_no_other_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = save_opens2s(tmp_path / "bf16", dtype=torch.bfloat16)
    built: list[tuple[str, torch.dtype]] = []
    init = OpenS2SAdapter.__init__

    def spied(self: OpenS2SAdapter, *args: Any) -> None:
        init(self, *args)
        built.append((self.fc1.weight.device.type, self.fc1.weight.dtype))

    monkeypatch.setattr(OpenS2SAdapter, "__init__", spied)
    for asked, expected in (
        ("auto", torch.bfloat16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.float32, torch.float32),
    ):
        built.clear()
        hf, _ = load_opens2s(stored, dtype=asked)
        assert {p.dtype for p in hf.parameters()} == {expected} == {hf.dtype}
        assert {device for device, _ in built} == {"meta"} and built[-1][1] == expected
        # The angles of the rotary embedding stay float32 whatever the weights are.
        assert hf.llm_model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_another_attention_kernel_reaches_the_encoder_and_the_decoder(original: Path) -> None:
    hf, processor = load_opens2s(original, dtype=torch.float32)
    inputs = processor(text=processor.chat_text(PROMPT), audio=[tone(1.0, 350)], sampling_rate=RATE)
    with torch.inference_mode():
        before = hf(**inputs).logits
        hf.set_attn_implementation("eager")
        assert gap(hf(**inputs).logits, before) < 1e-4
    assert hf.audio_encoder_model.config._attn_implementation == hf.llm_model.config._attn_implementation == "eager"


def test_a_head_tied_to_the_embeddings_need_not_be_stored(folder: Path) -> None:
    llm = json.loads((folder / "config.json").read_text())["llm_config"]
    change_config(folder, llm_config={**llm, "tie_word_embeddings": True})
    change_weights(folder, lambda w: w.pop("llm_model.lm_head.weight", None))
    hf, _ = load_opens2s(folder, dtype=torch.float32)
    assert hf.llm_model.lm_head.weight is hf.llm_model.model.embed_tokens.weight


def test_the_folder_is_known_by_its_config(original: Path, tiny_folder: Path, folder: Path, tmp_path: Path) -> None:
    assert "model_type" not in config_json(10)
    assert layout_of(original) == layout_of(str(original)) == "omnispeech"
    change_config(folder, architectures=None, model_type="omnispeech")
    assert layout_of(folder) == "omnispeech"
    change_config(folder, model_type="")
    assert [layout_of(other) for other in (folder, tiny_folder, tmp_path / "nowhere")] == [None] * 3
    (folder / "config.json").write_text("{")
    assert layout_of(folder) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def without(part: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        change_weights(folder, lambda w: [w.pop(name) for name in list(w) if name.startswith(part)])

    return harm


def with_fc1(shape: tuple[int, int]) -> Callable[[Path], None]:
    def change(w: dict[str, Tensor]) -> None:
        if "audio_adapter.fc1.weight" in w:
            w["audio_adapter.fc1.weight"] = torch.zeros(shape)

    return lambda folder: change_weights(folder, change)


def added(folder: Path) -> None:
    change_weights(folder, lambda w: w.update({"llm_model.base_model.lora_A.weight": torch.zeros(2)}))


def untrained_words(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("<|im_tts_start|>", "<|im_xyz_start|>"))


def other_extractor(**settings: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "audio" / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return change


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without("audio_adapter.ln"), r"lack audio_adapter.ln.bias, audio_adapter.ln.weight; fetch all"),
        (without("audio_encoder_model."), r"lack audio_encoder_model.conv1.bias, .* and 19 more; fetch all"),
        (without("llm_model.lm_head"), r"lack llm_model.lm_head.weight; fetch all"),
        (added, r"hold llm_model.base_model.lora_A.weight, which OpenS2S as Patchbay knows it has not"),
        (with_fc1((7, 40)), r"do not fit its config.json: audio_adapter.fc1.weight \[7, 40\] instead of \[12, 40\]"),
        (lambda f: cut(f / SECOND), f"{SECOND} in .* cannot be read .*cut short, fetch it again"),
        (lambda f: (f / SECOND).write_bytes(b""), f"{SECOND} in .* cannot be read"),
        (lambda f: (f / SECOND).unlink(), f"{SECOND} in .* cannot be read"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text("{"),
            "model.safetensors.index.json in .* is broken",
        ),
        (lambda f: (f / INDEX).unlink(), "lacks the weights model.safetensors; fetch"),
        (lambda f: shutil.rmtree(f / "audio"), "has no audio/preprocessor_config.json, .* copy the audio/ folder"),
        (other_extractor(feature_size=80), "makes 80 mel bands, but its config says that the model takes 16"),
        (other_extractor(chunk_length=20), "makes 2000 frames a window, but the encoder takes 3000"),
        (lambda f: (f / "chat_template.jinja").unlink(), "has no chat template; copy tokenizer_config.json"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "the tokenizer of .* cannot be read"),
        (untrained_words, r"the tokenizer of .* lacks <\|im_tts_start\|>; it is another model's"),
        (lambda f: change_config(f, lora_config={"r": 8}), "has a lora_config: .* merge_lora"),
        (lambda f: change_config(f, llm_config={"model_type": "qwen2"}), "llm_config.model_type='qwen2'; .*'qwen3'"),
        (lambda f: change_config(f, audio_encoder_config=None), "audio_encoder_config.model_type=None"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_by_what_is_wrong(
    folder: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(folder)
    with pytest.raises(InterpError) as error:
        load_opens2s(folder, dtype=torch.float32)
    message = str(error.value)
    assert re.search(words, message), message
    assert "\n" not in message and str(folder) in message
