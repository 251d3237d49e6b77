"""Opening an audio LLM from its folder: processor, library class, weights, and the adapters that belong to hearing."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import torch
import transformers

from interp_core.errors import InterpError
from interp_core.models.arch import Arch
from interp_core.models.audio_llms.gemma3n import Gemma3n, Gemma3nThatHears
from interp_core.models.audio_llms.lora import merge_lora
from interp_core.models.audio_llms.processors import extractor_of, read_processor
from interp_core.models.audio_llms.subject import AudioLLM, audio_token_id
from interp_core.models.fit import check_extractor, check_tokens, load_weights

Reading = Callable[[str, str, Callable[[], Any]], Any]


# Where a class that the library does not ship may have been registered with it.
_REGISTRIES = (
    transformers.AutoModelForMultimodalLM,
    transformers.AutoModelForSpeechSeq2Seq,
    transformers.AutoModelForCausalLM,
    transformers.AutoModelForSeq2SeqLM,
    transformers.AutoModel,
)
# Classes that the library cannot make without torchvision, by the name that stands in the config.
_OUR_CLASSES = {"Gemma3nForConditionalGeneration": Gemma3nThatHears}
OPENED_AS: dict[str, type[AudioLLM]] = {"gemma3n": Gemma3n}
"""Types of audio LLM that are not plain ones, and come in the library's layout."""


class Opened(NamedTuple):
    """The library's model, where `placing` put it and as the library left it, and what stands for its processor."""

    hf: Any
    processor: Any


def open_audio_llm(
    name: str,
    source: str,
    config: Any,
    arch: Arch,
    *,
    dtype: torch.dtype,
    placing: Mapping[str, Any],
    reading: Reading,
) -> Opened:
    """Open the model that a row of the table describes.

    Args:
        name: for messages.
        source: a folder or a hub id.
        config: its config.
        arch: its row.
        dtype: of the weights.
        placing: further arguments of `from_pretrained`.
        reading: runs one step, given name, part and step, and turns what the library raises into a sentence.
    Raises:
        InterpError: one sentence that says why it cannot be opened and what to do.
    """
    if getattr(config, "audio_config", "not asked") is None:
        raise InterpError(
            f"{name} hears nothing: its config.json has no audio_config, which those of its family's models have that "
            "were made to hear; choose one of those."
        )
    processor = reading(name, "processor", lambda: read_processor(source, config, arch))
    if getattr(processor.tokenizer, "padding_side", "left") != "left":
        processor.tokenizer.padding_side = "left"
    check_extractor(name, config, extractor_of(processor), arch)
    model_class = _class_of(config, arch.model_class or (config.architectures or [""])[0])
    if model_class is None:
        raise InterpError(f"{name}'s config names no model class that transformers {transformers.__version__} ships.")
    adapting: dict[str, Any] = {}
    if arch.adapter is not None:  # weights that were saved under an adapter carry its name for what it wraps
        adapting["key_mapping"] = {r"\.base_layer\.": "."}
    hf = load_weights(name, source, model_class, config, dtype=dtype, **adapting, **placing)
    check_tokens(name, processor.tokenizer, (attrgetter(arch.sizes)(hf.config) if arch.sizes else hf.config).vocab_size)
    in_words = processor.tokenizer.convert_tokens_to_ids(processor.audio_token)
    if (in_config := audio_token_id(hf.config, arch, processor)) != in_words:
        raise InterpError(
            f"{name}'s config says that audio stands at token {in_config}, but its tokenizer's {processor.audio_token} "
            f"is {in_words}; the tokenizer files are of another model, fetch them again."
        )
    if (folder := arch.adapter) is not None:
        reading(name, "adapter", lambda: merge_lora(hf.get_submodule(arch.blocks), source, folder))
    return Opened(hf, processor)


def _class_of(config: Any, wanted: str) -> Any:
    shipped = _OUR_CLASSES.get(wanted) or getattr(transformers, wanted, None)
    if shipped is not None:
        return shipped
    registered = [auto._model_mapping.get(type(config), None) for auto in _REGISTRIES]
    return next((found for found in registered if getattr(found, "__name__", "") == wanted), None)
