"""What models that hear and write are opened as, encoder first, where they are no plain ones."""

from interp_core.models.encoders.listener import Listener, ListenerDecoder
from interp_core.models.encoders.speech2text import Speech2Text, Speech2TextDecoder
from interp_core.models.encoders.whisper import Whisper, WhisperDecoder

LISTENERS_AS: dict[str, tuple[type[Listener], type[ListenerDecoder]]] = {
    "whisper": (Whisper, WhisperDecoder),
    "speech_to_text": (Speech2Text, Speech2TextDecoder),
}
PLAIN = (Listener, ListenerDecoder)
