"""Opening a model: a bundled name, a folder in the Hugging Face layout, a weight file of a known kind, or a hub id."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoTokenizer

from interp_core.errors import InterpError
from interp_core.models.arch import ARCHS, ENCODERS, arch_of
from interp_core.models.audio_llm import AudioLLM
from interp_core.models.clap import ClapAudio
from interp_core.models.encoders import Encoder, SpectrogramTransformer, WhisperClassifier
from interp_core.models.hub import fetched
from interp_core.models.open_audio_llm import open_audio_llm
from interp_core.models.opens2s import OpenS2S, is_opens2s, load_opens2s
from interp_core.models.source import reading, refuse_absent, resolve, weights_hash
from interp_core.models.subject import Subject
from interp_core.models.weight_files import open_weight_file, weight_file_of
from interp_core.models.whisper import ENCODER_ROW, Whisper

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str) -> torch.device:
    """Turn auto, cpu, cuda or cuda:N into a device that is here; InterpError says what is."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InterpError(f"device {device!r} is none of auto, cpu, cuda, cuda:N.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InterpError(f"device {device!r} asked for, but {torch.cuda.device_count()} GPUs are visible; use cpu.")
    if chosen.type not in ("cpu", "cuda"):
        raise InterpError(f"device {device!r} is none of auto, cpu, cuda, cuda:N.")
    return chosen


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turn auto, float32, bfloat16 or float16 into a dtype; auto is float32 on the CPU and bfloat16 on a GPU."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise InterpError(f"dtype {dtype!r} is none of auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


@dataclass(frozen=True)
class Opening:
    """One model on its way: what the user typed, where it leads, and how its weights are to lie."""

    name: str
    source: str
    config: Any
    device: torch.device
    dtype: torch.dtype
    shared: bool
    """Whether several GPUs share it by layers, which the library does through accelerate."""

    @property
    def placing(self) -> Mapping[str, Any]:
        return {"device_map": "auto"} if self.shared else {}

    def read(self, part: str, step: Callable[[], Any]) -> Any:
        return reading(self.name, part, step)

    def weights(self, model_class: Any) -> Any:
        """Load a library class and refuse a folder whose weights lack a tensor."""
        hf, loaded = self.read(
            "weights",
            lambda: model_class.from_pretrained(
                self.source, dtype=self.dtype, output_loading_info=True, **self.placing
            ),
        )
        # Of training alone: it stands for masked frames, and some published folders leave it out.
        refuse_absent(self.name, (key for key in loaded["missing_keys"] if not key.endswith("masked_spec_embed")))
        return hf

    def placed(self, hf: Any) -> Any:
        """Put a model where it is to run, ready to be run."""
        if not self.shared:
            hf.to(self.device)
        return hf.eval().requires_grad_(False)

    @property
    def weights_hash(self) -> str:
        return weights_hash(self.source)


def open_model(name: str, *, device: str = "auto", dtype: str = "auto") -> Subject:
    """Open a model by bundled name, folder, weight file or hub id.

    Args:
        name: `demo-emotion`, a folder with config.json, a checkpoint file of a known kind or its run folder, or
            `owner/model` on the hub.
        device: auto, cpu, cuda or cuda:N.
        dtype: auto, float32, bfloat16 or float16.
    Raises:
        InterpError: one sentence that says why it cannot be opened and what to do.
    """
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    source = resolve(name)
    if (file := weight_file_of(source)) is not None:
        return open_weight_file(name, file, where, precision)
    if not Path(source).exists():
        source = str(fetched(source))
    if not (Path(source) / "config.json").is_file():
        raise InterpError(f"{name} holds no config.json, so it is no model folder in the Hugging Face layout.")
    several = device == "auto" and torch.cuda.device_count() > 1 and find_spec("accelerate") is not None
    if reading(name, "config", lambda: is_opens2s(source)):  # its config need not name a model type
        return _opens2s(Opening(name, source, None, where, precision, several))
    config = reading(name, "config", lambda: AutoConfig.from_pretrained(source, trust_remote_code=False))
    opening = Opening(name, source, config, where, precision, several)
    return OPENERS.get(config.model_type, _audio_llm)(opening)


def _audio_llm(opening: Opening) -> Subject:
    arch = arch_of(opening.config)
    hf, processor = open_audio_llm(
        opening.name,
        opening.source,
        opening.config,
        arch,
        dtype=opening.dtype,
        placing=opening.placing,
        reading=reading,
    )
    return AudioLLM(opening.name, opening.weights_hash, opening.placed(hf), arch, processor=processor)


def _opens2s(opening: Opening) -> Subject:
    hf, processor = opening.read("files", lambda: load_opens2s(opening.source, dtype=opening.dtype, **opening.placing))
    return OpenS2S(opening.name, opening.weights_hash, opening.placed(hf), ARCHS["omnispeech"], processor=processor)


def _encoder(opening: Opening) -> Subject:
    arch = ENCODERS[opening.config.model_type]
    kinds = {"whisper": WhisperClassifier, "audio-spectrogram-transformer": SpectrogramTransformer}
    wanted = (opening.config.architectures or [""])[0]
    heads = ("ForSequenceClassification", "ForAudioClassification")
    # A head that answers something else (characters, speakers, frames) is left out: the encoder below it is the same.
    model_class = getattr(transformers, wanted, None) if wanted.endswith(heads) else AutoModel
    if model_class is None:
        raise InterpError(f"transformers {transformers.__version__} ships no model class {wanted}.")
    kind = kinds.get(opening.config.model_type, Encoder)
    extractor = _extractor(opening)
    return kind(
        opening.name, opening.weights_hash, opening.placed(opening.weights(model_class)), arch, extractor=extractor
    )


def _whisper(opening: Opening) -> Subject:
    if (opening.config.architectures or [""])[0] == "WhisperForAudioClassification":
        return _encoder(opening)
    tokenizer = _tokenizer(opening)
    extractor = _extractor(opening)
    hf = opening.placed(opening.weights(transformers.WhisperForConditionalGeneration))
    return Whisper(opening.name, opening.weights_hash, hf, ENCODER_ROW, extractor=extractor, tokenizer=tokenizer)


def _clap(opening: Opening) -> Subject:
    whole = (opening.config.architectures or [""])[0] == "ClapModel"
    arch = replace(ENCODERS["clap"], body="audio_model") if whole else ENCODERS["clap"]
    tokenizer = _tokenizer(opening) if whole else None
    extractor = _extractor(opening)
    hf = opening.placed(opening.weights(transformers.ClapModel if whole else transformers.ClapAudioModel))
    return ClapAudio(opening.name, opening.weights_hash, hf, arch, extractor=extractor, tokenizer=tokenizer)


def _extractor(opening: Opening) -> Any:
    if not any(
        (Path(opening.source) / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    ):
        raise InterpError(
            f"{opening.name} has no feature extractor; copy preprocessor_config.json of the original model into it."
        )
    return opening.read(
        "feature extractor", lambda: AutoFeatureExtractor.from_pretrained(opening.source, trust_remote_code=False)
    )


def _tokenizer(opening: Opening) -> Any:
    return opening.read("tokenizer", lambda: AutoTokenizer.from_pretrained(opening.source, trust_remote_code=False))


OPENERS: dict[str, Callable[[Opening], Subject]] = {
    **dict.fromkeys(ARCHS, _audio_llm),
    **dict.fromkeys(ENCODERS, _encoder),
    "whisper": _whisper,
    "clap": _clap,
    "clap_audio_model": _clap,
}
