"""Reading the processor of an audio LLM, also where the library's own takes packages that hearing does not need.

What `AudioLLM` asks of a processor: `tokenizer`, `feature_extractor` or `audio_processor`, `audio_token`,
`apply_chat_template(turns, add_generation_prompt=True, tokenize=False)`, and a call
`processor(text=..., audio=[samples], sampling_rate=..., return_tensors="pt")` that gives the model's arguments.
"""

import re
from datetime import date
from typing import Any

import transformers
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from interp_core.errors import InterpError
from interp_core.models.arch import Arch
from interp_core.models.audio_llms.fun_asr import FunAsrFbank
from interp_core.models.audio_llms.granite_speech import GraniteMel
from interp_core.models.audio_llms.voxtral import VoxtralReader

_A_DAY = date(2025, 1, 1)
# Extractors that the library cannot make without torchaudio, by the name that stands in the folder.
_OUR_EXTRACTORS = {"GraniteSpeechFeatureExtractor": GraniteMel, "FunAsrNanoFeatureExtractor": FunAsrFbank}


def read_processor(source: str, config: Any, arch: Arch) -> Any:
    """Read the processor of a folder or a hub id, as the row says.

    Raises:
        InterpError: the folder holds a tokenizer alone.
        OSError, ValueError, ...: what the library says of files that are missing or broken.
    """
    if arch.reader == "voxtral":
        return VoxtralReader.from_pretrained(source)
    if arch.reader == "audio half":
        return audio_half(source, config.model_type)
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    if not hasattr(processor, "tokenizer") or extractor_of(processor) is None:
        raise InterpError(
            f"{source} has no processor, only a {type(processor).__name__}; copy processor_config.json, "
            "preprocessor_config.json and the tokenizer files of the original model into its folder."
        )
    processor.chat_template = with_fixed_date(processor.chat_template)
    for setting, value in arch.processing.items():
        setattr(processor, setting, value)
    return processor


def extractor_of(processor: Any) -> Any:
    """Return the part that turns samples into what the audio tower takes; the library has two names for it."""
    return getattr(processor, "audio_processor", None) or getattr(processor, "feature_extractor", None)


def audio_half(source: str, model_type: str) -> Any:
    """Make the library's processor of a model that also sees, without the half that takes torchvision to make.

    Text and audio go through the library's own code; with an image it would fail, but none is ever given.
    """
    library = getattr(transformers, PROCESSOR_MAPPING_NAMES[model_type.removesuffix("_thinker")])

    def check(self: Any, argument_name: str, argument: Any) -> Any:
        return None if argument is None else library.check_argument_for_proper_class(self, argument_name, argument)

    def call(self: Any, *, text: str, **how: Any) -> Any:
        # As the library's `apply_chat_template` does, which is not asked for tokens here: a text begins once.
        start = self.tokenizer.bos_token
        once = {"add_special_tokens": False} if start and text.startswith(start) else {}
        return library.__call__(self, text=text, **once, **how)

    half = type("AudioHalf", (library,), {"check_argument_for_proper_class": check, "__call__": call})
    about, _ = library.get_processor_dict(source)
    parts: dict[str, Any] = {name: None for name in library.get_attributes()}
    parts["tokenizer"] = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    hears = "audio_processor" if "audio_processor" in parts else "feature_extractor"
    parts[hears] = _read_extractor(source)
    template = about.get("chat_template") or parts["tokenizer"].chat_template
    lengths = {name: about[name] for name in ("audio_seq_length",) if name in about}
    return half(**parts, **lengths, chat_template=with_fixed_date(template))


def with_fixed_date(template: Any) -> Any:
    """Put one fixed day where a chat template asks for today's: the same question would else be another every day."""
    if not isinstance(template, str):
        return template
    return re.sub(r"strftime_now\((['\"])(.+?)\1\)", lambda found: repr(_A_DAY.strftime(found[2])), template)


def _read_extractor(source: str) -> Any:
    about, _ = transformers.FeatureExtractionMixin.get_feature_extractor_dict(source)
    ours = _OUR_EXTRACTORS.get(about.get("feature_extractor_type", ""))
    return ours.from_pretrained(source) if ours else AutoFeatureExtractor.from_pretrained(source)
