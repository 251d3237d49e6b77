"""Ultravox against plain formulas on its saved weights; how long the audio is; which weights are taken; refusals."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import WhisperFeatureExtractor

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.checks import TOLERANCE
from interp_core.models import bases
from interp_core.models.audio_llms.ultravox import Ultravox, load_ultravox
from interp_core.models.files import deciding_files
from interp_core.models.load import bytes_on_disk, open_model
from interp_core.trace.clean import clean_runs, prompt_clip
from interp_core.trace.sweep import sweep
from tests.families.adapters import write_adapter
from tests.tiny import RATE, tone
from tests.tiny_ultravox import AUDIO, MELS, STACK, TEXT, WINDOW, audio_model, projector, save_ultravox, text_model
from tests.trace.cases import every_layer, truncated, whole_vocabulary
from tests.trace.naive import PROMPT, gap

LLAMA, WHISPER = Path(TEXT).name, Path(AUDIO).name


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_ultravox(tmp_path_factory.mktemp("ultravox") / "model")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def opened(folder: Path | str) -> Ultravox:
    found = open_model(str(folder), device="cpu")
    assert isinstance(found, Ultravox)
    return found


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    held = load_file(folder / "model.safetensors")
    change(held)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


# ---- the same numbers by another route: the library's layers, formulas for all that is between -----------------------


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6)


def sees(a: int, b: int, heard: int, block: int | None) -> bool:
    return b < heard and (block is None or b // block <= a // block)


def projected(frames: Tensor, w: dict[str, Tensor]) -> Tensor:
    """[frames, d_encoder] of one window -> [positions, d_model]."""
    rows = []
    for start in range(0, len(frames), STACK):
        some = frames[start : start + STACK]
        flat = torch.cat([*some, *[frames.new_zeros(frames.shape[1])] * (STACK - len(some))])
        both = w["linear_1.weight"] @ rms(flat, w["ln_pre.weight"])
        value, gate = both[: len(both) // 2], both[len(both) // 2 :]
        x = value * gate / (1 + torch.exp(-gate))
        if "ln_mid.weight" in w:
            x = rms(x, w["ln_mid.weight"])
        x = w["linear_2.weight"] @ x
        rows.append(rms(x, w["ln_post.weight"]) if "ln_post.weight" in w else x)
    return torch.stack(rows)


@torch.inference_mode()
def straight_logits(subject: Ultravox, samples: np.ndarray, ids: list[int], ln_mid: bool, block: int | None) -> Tensor:
    """Return logits [pos, d_vocab], the token that ends a text standing at the audio's places in `ids`."""
    whisper, text = audio_model(1).double().model.encoder, text_model(subject.hf.config.text_config.vocab_size).double()
    whisper.config._attn_implementation = "eager"
    made = WhisperFeatureExtractor(feature_size=MELS)(
        samples if len(samples) >= 320 else np.pad(samples, (0, 320 - len(samples))),
        sampling_rate=RATE,
        padding="longest",
        pad_to_multiple_of=160,
        truncation=False,
        return_tensors="pt",
    )["input_features"].double()
    w = {name.removeprefix("multi_modal_projector."): v.double() for name, v in projector(32, ln_mid=ln_mid).items()}
    pieces = []
    for start in range(0, made.shape[-1], WINDOW):
        mel = made[..., start : start + WINDOW]
        heard = (mel.shape[-1] - 1) // 2 + 1
        positions = -(-mel.shape[-1] // (2 * STACK))
        if start and mel.shape[-1] < WINDOW:
            mel = torch.cat([mel, torch.zeros(1, MELS, WINDOW - mel.shape[-1])], -1)
        x = torch.nn.functional.gelu(whisper.conv2(torch.nn.functional.gelu(whisper.conv1(mel)))).transpose(1, 2)
        n = x.shape[1]
        allowed = [[0.0 if sees(a, b, heard, block) else -torch.inf for b in range(n)] for a in range(n)]
        x = x + whisper.embed_positions.weight[:n]
        for layer in whisper.layers:
            x = layer(x, torch.tensor(allowed, dtype=x.dtype)[None, None])
        pieces.append(projected(whisper.layer_norm(x)[0], w)[:positions])
    audio = torch.cat(pieces)
    embeds = text.get_input_embeddings()(torch.tensor(ids)).clone()
    start = embeds.shape[0] - subject_behind(subject) - len(audio)
    embeds[start : start + len(audio)] = audio
    return text(inputs_embeds=embeds[None], use_cache=False).logits[0]


def subject_behind(subject: Ultravox) -> int:
    """Tokens behind the clip."""
    behind = subject.chat_text(PROMPT).partition("<|audio|>")[2]
    return len(subject.tokenizer(behind, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("ln_mid", [True, False])
@pytest.mark.parametrize("block", [None, 40])
def test_logits_equal_a_straight_computation_from_the_saved_weights(
    tmp_path: Path, ln_mid: bool, block: int | None
) -> None:
    subject = opened(save_ultravox(tmp_path / "model", ln_mid=ln_mid, audio_latency_block_size=block))
    subject.hf.double()  # both sides: in float32 their roundings alone may differ by 1e-5
    seen = []
    for seconds in (0.005, 0.3, 1.31, 4.0, 9.73):  # of windows of 4 s
        samples = tone(seconds, 330)
        inputs = subject.model_inputs(samples, PROMPT)
        with torch.inference_mode():
            found = subject.hf(**inputs, use_cache=False).logits[0]
        expected = straight_logits(subject, samples, inputs["input_ids"][0].tolist(), ln_mid, block)
        assert gap(found, expected) < 1e-5, seconds
        seen.append(found[-1])
    assert gap(seen[1], seen[2]) > 1e-2  # control: the sound reaches the readout


def test_a_block_of_the_encoder_and_the_padding_behind_a_last_window_change_the_logits(tmp_path: Path) -> None:
    plain, blocked = (opened(save_ultravox(tmp_path / str(n), audio_latency_block_size=n)) for n in (None, 10))
    inputs = plain.model_inputs(tone(5.0, 330), PROMPT)
    assert inputs["audio_values"].shape == (2, MELS, WINDOW) and inputs["audio_lens"].tolist() == [400, 100]
    with torch.inference_mode():
        told = plain.hf(**inputs).logits
        assert gap(blocked.hf(**inputs).logits[0, -1], told[0, -1]) > 1e-2
        unmasked = plain.hf(**{**inputs, "audio_lens": torch.tensor([400, 400])}).logits
        assert gap(unmasked[0, -1], told[0, -1]) > 1e-2
        louder = inputs["audio_values"].clone()
        louder[1, :, 150:] = 3.0  # well behind the padding's edge, which the convolutions see
        assert gap(plain.hf(**{**inputs, "audio_values": louder}).logits, told) < 1e-5


@pytest.mark.parametrize(("seconds", "n"), [(0.001, 1), (0.16, 1), (0.17, 2), (1.3, 9), (4.0, 25), (4.01, 26), (9, 57)])
def test_a_clip_takes_a_position_for_every_begun_16_frames_of_a_window(original: Path, seconds: float, n: int) -> None:
    subject = opened(original)
    inputs = subject.model_inputs(tone(seconds, 300), PROMPT)
    stem = prompt_clip(subject, tone(seconds, 300), PROMPT, "a")
    start, stop = stem.audio
    assert stop - start == n == int(inputs["audio_token_len"].sum())
    assert inputs["input_ids"][0, start:stop].tolist() == [subject.tokenizer.eos_token_id] * n
    assert stem.n_pos == inputs["input_ids"].shape[1] and subject.max_seconds == float("inf")
    assert stem.seconds_per_position == pytest.approx(0.16)


def test_rows_of_a_batch_come_out_as_alone(original: Path) -> None:
    subject = opened(original)
    rows = [subject.model_inputs(tone(seconds, 300), PROMPT) for seconds in (4.3, 6.1)]
    longest = max(row["input_ids"].shape[1] for row in rows)

    def left(row: dict[str, Tensor], name: str) -> Tensor:
        return torch.nn.functional.pad(row[name], (longest - row["input_ids"].shape[1], 0))

    batch = {name: torch.cat([left(row, name) for row in rows]) for name in ("input_ids", "attention_mask")}
    shift = torch.tensor([longest - row["input_ids"].shape[1] for row in rows]).repeat_interleave(2)
    batch |= {
        name: torch.cat([row[name] for row in rows])
        for name in ("audio_values", "audio_lens", "audio_token_len", "audio_batch_size", "audio_token_start_idx")
    }
    batch["audio_token_start_idx"] = batch["audio_token_start_idx"] + shift
    position_ids = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        together = subject.hf(**batch, position_ids=position_ids).logits
        for row, found in zip(rows, together, strict=True):
            assert gap(found[-1], subject.hf(**row).logits[0, -1]) < 1e-5
        text = {name: value for name, value in rows[0].items() if not name.startswith("audio")}
        assert gap(subject.hf(**text).logits[0, -1], together[0, -1]) > 1e-2  # control: text alone is not refused


def test_the_library_writes_behind_the_spliced_prompt_what_the_decoder_does(original: Path) -> None:
    subject = opened(original)
    inputs = subject.model_inputs(tone(0.9, 300), PROMPT)
    stem = prompt_clip(subject, tone(0.9, 300), PROMPT, "a")
    with torch.inference_mode():
        told = subject.hf.generate(**inputs, max_new_tokens=6, do_sample=False)
        plain = subject.hf.language_model.generate(inputs_embeds=stem.embeds[None], max_new_tokens=6, do_sample=False)
    assert told[0, inputs["input_ids"].shape[1] :].tolist() == plain[0].tolist() and len(plain[0])


def test_in_bfloat16_the_fast_route_stays_as_near_to_the_reference_as_a_runs_checks_demand(original: Path) -> None:
    subject = open_model(str(original), device="cpu", dtype="bfloat16")
    stems = [prompt_clip(subject, tone(1.6, 350), PROMPT, "a"), prompt_clip(subject, tone(2.3, 500), PROMPT, "b")]
    a, b = clean_runs(subject, stems)
    fast, slow = (
        sweep(subject, [truncated(a, b)], whole_vocabulary(a), every_layer(subject), method=method).label_logits[0]
        for method in ("fast", "reference")
    )
    assert gap(fast, slow) < TOLERANCE[torch.bfloat16] and subject.dtype == torch.bfloat16
    assert subject.hf.audio_tower.conv1.weight.dtype == torch.bfloat16


# ---- which weights ---------------------------------------------------------------------------------------------------


def answer(folder: Path | str) -> Tensor:
    subject = opened(folder)
    with torch.inference_mode():
        return subject.forward(subject.model_inputs(tone(0.8, 350), PROMPT))[0]


def test_merged_parts_in_the_folder_give_the_logits_of_the_named_models(original: Path, tmp_path: Path) -> None:
    expected = answer(original)
    for own in (("audio",), ("text",), ("text", "audio")):
        assert torch.equal(answer(save_ultravox(tmp_path / "-".join(own), own=own)), expected), own


def test_what_the_checkpoint_holds_goes_before_what_a_named_model_holds(folder: Path) -> None:
    before = answer(folder)
    name = "audio_tower.layers.1.fc1.weight"
    moved = audio_model(1).model.encoder.layers[1].fc1.weight.detach() * 1.5
    change_weights(folder, lambda held: held.update({name: moved}))
    subject = opened(folder)
    assert torch.equal(subject.hf.get_parameter(name), moved)
    assert gap(answer(folder), before) > 1e-2


def test_the_named_models_are_found_inside_beside_by_path_and_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer(folder)
    change_config(folder, model_type=None)  # its class alone says what it is
    assert torch.equal(answer(folder), expected)
    shutil.move(folder / LLAMA, tmp_path / LLAMA)  # beside
    assert torch.equal(answer(folder), expected)
    (folder / "openai").mkdir()
    shutil.move(folder / WHISPER, folder / AUDIO)  # by the whole id
    assert torch.equal(answer(folder), expected)
    shutil.move(tmp_path / LLAMA, tmp_path / "elsewhere")
    change_config(folder, text_model_id=str(tmp_path / "elsewhere"))
    assert torch.equal(answer(folder), expected)
    held = {TEXT: tmp_path / "elsewhere", AUDIO: folder / AUDIO}

    def cached(name: str, local_files_only: bool) -> str:
        if name not in held:
            raise OSError("not in the cache")
        return str(held[name])

    monkeypatch.setattr(bases, "snapshot_download", cached)
    monkeypatch.setattr("interp_core.models.load.fetched", lambda name, progress: folder)
    with pytest.raises(InterpError, match="neither a folder here nor in the hub's cache"):
        opened("owner/ultravox")  # what was fetched chooses no path of this machine
    change_config(folder, text_model_id=TEXT)
    assert torch.equal(answer("owner/ultravox"), expected)


def test_the_named_models_weights_are_hashed_counted_and_watched(folder: Path, tmp_path: Path) -> None:
    before, files, room = opened(folder).weights_hash, deciding_files(str(folder)), bytes_on_disk(str(folder))
    parts = (folder / "model.safetensors", folder / LLAMA / "model.safetensors", folder / WHISPER / "model.safetensors")
    assert room == sum(part.stat().st_size for part in parts)
    assert "text_model_id/model.safetensors" in files and "audio_model_id/model.safetensors" in files
    text_model(len(opened(folder).tokenizer) - 1, seed=9).save_pretrained(folder / LLAMA)
    assert opened(folder).weights_hash != before and deciding_files(str(folder)) != files
    shutil.move(folder / LLAMA, tmp_path / "elsewhere")
    change_config(folder, text_model_id=str(tmp_path / "elsewhere"))
    with pytest.raises(InterpError, match="elsewhere"):
        Engine(model_roots=(folder,)).check_model(str(folder))
    Engine(model_roots=(tmp_path,)).check_model(str(folder))


def test_an_adapter_that_names_an_ultravox_brings_its_named_models_along(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "elsewhere" / "adapter"
    write_adapter(adapter, opened(folder).hf, ("q_proj",), base=str(folder))
    found = open_model(str(adapter), device="cpu")
    expected = open_model(str(folder), device="cpu", adapter=str(adapter))
    assert found.weights_hash == expected.weights_hash != opened(folder).weights_hash
    assert torch.equal(answer(adapter), expected.forward(expected.model_inputs(tone(0.8, 350), PROMPT))[0])
    outside = tmp_path / "outside"
    shutil.move(folder / LLAMA, outside)
    change_config(folder, text_model_id=str(outside))
    with pytest.raises(InterpError, match="outside"):
        Engine(model_roots=(folder, tmp_path / "elsewhere")).check_model(str(adapter))


def test_without_the_marker_among_its_tokens_the_span_is_the_same(folder: Path) -> None:
    whole = opened(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("<|audio|>", "<|other|>"))
    bare = opened(folder)
    assert whole.audio_token_id != bare.audio_token_id == bare.tokenizer.eos_token_id
    stems = [prompt_clip(subject, tone(0.9, 300), PROMPT, "a") for subject in (whole, bare)]
    assert stems[0].audio == stems[1].audio and torch.equal(stems[0].embeds, stems[1].embeds)
    assert bare.describe(stems[1])["tokens_in_span"] == ["<|audio|>"]


# ---- what is refused -------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def other_extractor(folder: Path) -> None:
    path = folder / WHISPER / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "feature_size": 80}))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (
            lambda f: shutil.rmtree(f / LLAMA),
            f"its text model '{TEXT}' is neither a folder here nor in the hub's cache; .* into .* as {LLAMA}",
        ),
        (lambda f: shutil.rmtree(f / WHISPER), f"its audio tower '{AUDIO}' is neither a folder .* as {WHISPER}"),
        (
            lambda f: change_config(f, audio_model_id=None),
            r"no audio tower of its own .* names none \(audio_model_id\)",
        ),
        (lambda f: (f / LLAMA / "model.safetensors").unlink(), f"{LLAMA} lacks the weights model.safetensors"),
        (lambda f: cut(f / WHISPER / "model.safetensors"), f"model.safetensors in .*{WHISPER} cannot be read"),
        (lambda f: change_weights(f, lambda w: w.pop("multi_modal_projector.ln_mid.weight")), "lack multi_modal"),
        (lambda f: change_config(f, projector_ln_mid=False), r"lack multi_modal_projector.ln_post.weight"),
        (lambda f: change_config(f, stack_factor=4), r"do not fit .*: multi_modal_projector.linear_1.weight"),
        (
            lambda f: change_weights(f, lambda w: w.update({"language_model.lora_A.weight": torch.zeros(2)})),
            "hold language_model.lora_A.weight, which Ultravox as Patchbay knows it has not",
        ),
        (lambda f: change_config(f, text_model_lora_config={"r": 8}), r"has a text_model_lora_config: .*merge_and_unl"),
        (lambda f: change_config(f, projector_act="tanh"), "projector_act='tanh'; Patchbay knows swiglu"),
        (
            lambda f: change_config(f / LLAMA, model_type="gemma3"),
            "made of 'whisper' and 'gemma3'; .* 'llama', 'mistral",
        ),
        (lambda f: change_config(f / WHISPER, model_type="wav2vec2"), "made of 'wav2vec2' and 'llama'"),
        (other_extractor, "makes 80 mel bands, but its config says that the model takes 16"),
        (lambda f: (f / "chat_template.jinja").unlink(), "has no chat template or no token that ends a text"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "the tokenizer of .* cannot be read"),
        (lambda f: (f / LLAMA / "generation_config.json").write_text("{"), "generation_config.json of .* is broken"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_by_what_is_wrong(
    folder: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(folder)
    with pytest.raises(InterpError) as error:
        load_ultravox(str(folder), folder, dtype=torch.float32)
    message = str(error.value)
    assert re.search(words, message), message
    assert "\n" not in message and str(folder) in message


def test_a_prompt_with_a_marker_of_its_own_is_refused(original: Path) -> None:
    subject = opened(original)
    subject.check_prompt(PROMPT)
    with pytest.raises(InterpError, match=r"gives 2 audio spans; .* leave <\|audio\|> out of the prompt"):
        subject.check_prompt("And <|audio|>? " + PROMPT)
