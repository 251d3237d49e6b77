"""What models that hear and write are opened as, encoder first, where they are no plain ones."""

from collections.abc import Callable
from typing import Any

from interp_core.models.encoders.listener import Listener, ListenerDecoder
from interp_core.models.encoders.seamless import Seamless, SeamlessDecoder, seamless_tokenizer
from interp_core.models.encoders.speech2text import Speech2Text, Speech2TextDecoder, speech2text_tokenizer
from interp_core.models.encoders.speecht5 import SpeechT5, SpeechT5Decoder, speecht5_tokenizer
from interp_core.models.encoders.whisper import Whisper, WhisperDecoder

LISTENERS_AS: dict[str, tuple[type[Listener], type[ListenerDecoder]]] = {
    "whisper": (Whisper, WhisperDecoder),
    "speech_to_text": (Speech2Text, Speech2TextDecoder),
    "speecht5": (SpeechT5, SpeechT5Decoder),
    **dict.fromkeys(("seamless_m4t", "seamless_m4t_v2"), (Seamless, SeamlessDecoder)),
}
PLAIN = (Listener, ListenerDecoder)

TOKENIZERS: dict[str, Callable[[str], Any]] = {
    "speech_to_text": speech2text_tokenizer,
    "speecht5": speecht5_tokenizer,
    **dict.fromkeys(("seamless_m4t", "seamless_m4t_v2"), seamless_tokenizer),
}
"""How a folder without tokenizer.json is read, for types whose tokenizer the library makes by sentencepiece."""
