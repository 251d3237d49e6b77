"""Audio LLMs that come in a layout of their own, which the library does not open: by what a folder is known, and how it
is opened, without any code out of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from interp_core.models.audio_llms.kimi import KimiAudio, load_kimi
from interp_core.models.audio_llms.opens2s import OpenS2S, load_opens2s
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.audio_llms.ultravox import Ultravox, load_ultravox


@dataclass(frozen=True)
class Layout:
    """One layout.

    Attributes:
        title: what the model is called.
        network: the class that its config.json names, which need not name a model type.
        subject: what it is opened as.
        load: given the model's name, its folder, and by name `dtype` and what is handed on to the library's
            `from_pretrained`: the model and its processor.
        others: model types beside the row's own that a config.json of it may say.
    """

    title: str
    network: str
    subject: type[AudioLLM]
    load: Callable[..., tuple[Any, Any]]
    others: tuple[str, ...] = ()


LAYOUTS: dict[str, Layout] = {
    "omnispeech": Layout(
        "OpenS2S", "OmniSpeechModel", OpenS2S, lambda _name, folder, **how: load_opens2s(folder, **how)
    ),
    "ultravox": Layout("Ultravox", "UltravoxModel", Ultravox, load_ultravox),
    "kimi_audio": Layout("Kimi-Audio", "MoonshotKimiaForCausalLM", KimiAudio, load_kimi, ("moonshot_kimia",)),
}
"""By the row of arch.py."""


def layout_of(source: str | Path) -> str | None:
    """Which layout a folder or a hub id is in, by its config.json; None for any other model."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(str(source))
    except (OSError, ValueError):
        return None
    classes, told = config.get("architectures") or [], config.get("model_type")
    return next((name for name, one in LAYOUTS.items() if told in (name, *one.others) or one.network in classes), None)
