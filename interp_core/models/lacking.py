"""Types that hear and are no row of arch.py: which of stem, blocks and readout is in the way, in a user's words."""

from interp_core.errors import InterpError

_WORDS = "the readout does not fit: words come out of a decoder that is not known here yet"
_CTC = (
    "the readout does not fit: it gives characters frame by frame and no one answer to compare, and its encoder is not "
    "known here yet"
)
_SUMMED = (
    "no position holds the recording alone: each is the sum of a frame of sound and of what was written so far, so "
    "there is no span to exchange"
)
_CODEC = "there is no readout: it gives codes and sound, and no answer"
LACKING: dict[str, str] = {
    **dict.fromkeys(("moonshine_streaming", "speech_to_text", "speech-encoder-decoder"), _WORDS),
    **dict.fromkeys(("canary", "cohere_asr", "seamless_m4t", "seamless_m4t_v2", "speecht5"), _WORDS),
    **dict.fromkeys(("lasr_ctc", "lasr_encoder"), _CTC),
    **dict.fromkeys(("voxtral_realtime", "kyutai_speech_to_text", "moshi"), _SUMMED),
    **dict.fromkeys(("mimi", "xcodec", "csm", "dia"), _CODEC),
    "desta25": "the stem is not known here yet: it has Whisper write down what a clip says and a detector tell speech "
    "from other sound, and the positions of a recording are of no moments of it",
    "kimi_audio": "the stem is not known here yet: each position is the sum of a frame of sound and of the codes that "
    "another model, GLM-4-Voice's tokenizer, makes of it",
    **dict.fromkeys(("encodec", "dac"), "there are no transformer blocks and no readout: it gives codes and sound"),
}
"""Types that hear and are no row, and which of stem, blocks and readout is in the way."""


def refuse_lacking(model_type: str) -> None:
    """Refuse a type of which is known what it lacks."""
    if lack := LACKING.get(model_type):
        raise InterpError(f"models of the type {model_type} cannot be opened: {lack}; `models` lists what can.")
