"""Types that hear and cannot be opened: which of stem, blocks and readout is in the way, in a user's words."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_core.errors import InterpError

_WORDS = (
    "the readout does not fit: words come out of a decoder that may be of any type of text model, and where things are "
    "in it is not known here; its encoder opens from a checkpoint of its own"
)
_FRAMES = (
    "the readout does not fit: it gives characters or tokens frame by frame and no one answer to compare, and its "
    "encoder is not known here yet"
)
_SUMMED = (
    "no position holds the recording alone: each is the sum of a frame of sound and of what was written so far, so "
    "there is no span to exchange"
)
_STREAMED = (
    "there is no readout: it is asked nothing and writes a token for every 80 ms while it hears, so no position "
    "answers to the whole recording; and no position holds the recording alone: each is the sum of a frame of sound "
    "and of the token that was written there, so there is no span to exchange"
)
_CODEC = "there is no readout: it gives codes and sound, and no answer"
_HYBRID = (
    "the blocks do not fit: most of them are state-space layers (Mamba), which carry a state of their own from "
    "position to position beside the residual stream"
)
_MATCHED = "the readout does not fit: it compares a recording with texts by a tower that is not known here yet"
LACKING: dict[str, str] = {
    "speech-encoder-decoder": _WORDS,
    "pop2piano": "the readout does not fit: notes come out of a decoder that is not known here yet",
    **dict.fromkeys(("lasr_ctc", "lasr_encoder", "granite_speech5_ctc", "granite_speech5_encoder"), _FRAMES),
    **dict.fromkeys(("nemotron_asr_streaming", "nemotron_asr_streaming_encoder", "nemotron3_5_asr"), _FRAMES),
    "nemotron3_diarization": "the readout does not fit: it says frame by frame who speaks, and gives no one answer to "
    "compare",
    **dict.fromkeys(("kyutai_speech_to_text", "moshi"), _SUMMED),
    "voxtral_realtime": _STREAMED,
    **dict.fromkeys(("mimi", "xcodec", "xcodec2", "neucodec", "csm", "dia"), _CODEC),
    **dict.fromkeys(("higgs_audio_v2", "higgs_audio_v2_tokenizer", "pocket_tts", "pocket_tts_audio_tokenizer"), _CODEC),
    **dict.fromkeys(("vibevoice", "vibevoice_acoustic_tokenizer", "musicgen", "musicgen_melody", "clvp"), _CODEC),
    **dict.fromkeys(("nemotron_h_omni", "nemo_speechlm"), _HYBRID),
    **dict.fromkeys(("pe_audio", "pe_audio_encoder", "pe_audio_video"), _MATCHED),
    "embedding_gemma2": "there is no readout: it gives a vector to search by, and no answer",
    "muse_spark": "the blocks do not fit: gates scale the residual stream itself, where others add to it",
    "dots3_note": "the blocks do not fit: an index chooses the few positions that attention reads, so an edit changes "
    "which ones are read",
    "inkling_mm_model": "the blocks do not fit: beside attention they carry short convolutions along the positions, "
    "whose past is no key or value",
    "desta25": "the stem is not known here yet: it has Whisper write down what a clip says and a detector tell speech "
    "from other sound, and the positions of a recording are of no moments of it",
    **dict.fromkeys(("encodec", "dac"), "there are no transformer blocks and no readout: it gives codes and sound"),
}
"""Types that hear and are no row, and which of stem, blocks and readout is in the way."""
PARTS = {
    "WhisperVQEncoder": "GLM-4-Voice's tokenizer, which makes codes of sound for other models and has no readout; "
    "Kimi-Audio takes it from a folder inside or beside its own",
}
"""Classes of what is a part of other models alone, though its type is one that opens."""


def refuse_lacking(model_type: str) -> None:
    """Refuse a type of which is known what it lacks."""
    if lack := LACKING.get(model_type):
        raise InterpError(f"models of the type {model_type} cannot be opened: {lack}; `models` lists what can.")


def part_in(about: Mapping[str, Any]) -> str | None:
    """What a folder's config describes, if that is a part of other models alone."""
    classes = about.get("architectures")
    return next((PARTS[one] for one in classes if one in PARTS), None) if isinstance(classes, list) else None


def refuse_part(name: str, about: Mapping[str, Any]) -> None:
    """Refuse a folder that holds a part of other models alone."""
    if (part := part_in(about)) is not None:
        raise InterpError(f"{name} cannot be opened: it is {part}.")


def refuse_speaking(name: str, model_class: str, wanted: str, *, whole: bool) -> None:
    """Refuse the class of a checkpoint that reads texts, or speaks, though others of its type hear and write.

    Args:
        name: for messages. model_class: that its config names. wanted: the class that hears and writes.
        whole: whether those that hear and speak have the parts of one that writes, too.
    """
    ends = ("ForTextToSpeech", "ForTextToText", *(() if whole else ("ForSpeechToSpeech",)))
    if model_class.endswith(ends):
        lacks = "it hears no recording" if "ForTextTo" in model_class else "there is no readout: it gives sound"
        raise InterpError(
            f"{name} is a {model_class}, which cannot be opened: {lacks}; take a {wanted}, which hears and writes."
        )


def refuse_unknown(name: str, about: Mapping[str, Any]) -> None:
    """Refuse a folder of a type that is not known here, by what its config says.

    Args:
        name: for messages.
        about: what config.json holds.
    Raises:
        InterpError: always.
    """
    kind, classes = about.get("model_type"), about.get("architectures")
    if not isinstance(kind, str) or not kind:
        raise InterpError(
            f"config.json of {name} says no model_type, so nothing tells what it is; copy config.json of the original "
            "model into its folder."
        )
    refuse_lacking(kind)
    listed = isinstance(classes, Sequence) and not isinstance(classes, str) and len(classes)
    what = f"a {classes[0]} (type {kind})" if classes is not None and listed else f"of the type {kind}"
    raise InterpError(
        f"{name} is {what:.200}, which is not known here, so it cannot be opened; `models` lists what can, and what "
        "hears and cannot."
    )
