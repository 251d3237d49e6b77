"""What can be opened, in a form that a person can read: one entry a model type or kind of weight file."""

from dataclasses import dataclass

from interp_core.models.arch import ARCHS, ENCODERS, Arch, Blocks, kinds_of
from interp_core.models.encoders.whisper import DECODER_ROW
from interp_core.models.resnet.subject import RESNET
from interp_core.sites import STAGES, Kind

TESTED = "tiny random models of the class, saved and opened in the real layout"


@dataclass(frozen=True)
class Family:
    """One entry.

    Attributes:
        name: the config's model type, or what the file is.
        opens: what --model takes.
        sites: the kinds of site, blocks first.
        causal: whether a position sees only what is before it.
        methods: the routes of a sweep, cheapest first.
        readout: what is compared.
        verified: on what the numbers were checked against the library's own forward.
    """

    name: str
    opens: str
    sites: tuple[Kind, ...]
    causal: bool
    methods: tuple[str, ...]
    readout: str
    verified: str = TESTED


_FULL = ("wavefront", "reference")
_CLASSES = "the checkpoint's classes; a fitted probe (--probe COLUMN) where it has no classifier"


def families() -> list[Family]:
    """Return every entry, audio LLMs first."""
    found = [_audio_llm(name, row) for name, row in ARCHS.items()]
    found += [_encoder(name, row) for name, row in ENCODERS.items() if name not in ("clap", "whisper")]
    words = "next decoder token, among words or languages"
    return [
        *found,
        _encoder("whisper (classifier)", ENCODERS["whisper"]),
        Family("whisper (encoder)", "folder, hub id", kinds_of(ENCODERS["whisper"]), False, _FULL, words),
        Family("whisper (decoder)", "folder, hub id; --part decoder", kinds_of(DECODER_ROW), True, _FULL, words),
        Family(
            "clap",
            "folder, hub id, or an msclap weight file (.pth)",
            (*kinds_of(ENCODERS["clap"]), "pooled", "projection"),
            False,
            _FULL,
            "texts that the labels are put into, where there is a text tower; else a fitted probe",
            f"{TESTED}; msclap 1.3.4's own code on random weights of the real size",
        ),
        Family(
            "countermeasure",
            "best.pt of an ASVspoof 5 run, ERM or DANN, WavLM or wav2vec 2.0; or its run folder",
            (*kinds_of(ENCODERS["wavlm"]), *STAGES),
            False,
            _FULL,
            "bona fide or spoof",
            "a plain implementation of the published pipeline, on random weights",
        ),
        Family(
            "resnet",
            "a weight file with torchvision's names; pictures instead of recordings",
            (*kinds_of(RESNET), "pooled", "logits"),
            False,
            _FULL,
            "the checkpoint's classes",
            "a plain implementation in torch, on random weights",
        ),
    ]


def _audio_llm(name: str, row: Arch) -> Family:
    shortcut = ("shortcut",) if row.causal else ()
    opens = "folder in OpenS2S's own layout, hub id" if name == "omnispeech" else "folder, hub id"
    real = f"{TESTED}; the trained demo-emotion" if name == "qwen2_audio" else TESTED
    answer = "first answer token, among the labels"
    return Family(name, opens, kinds_of(row), row.causal, (*shortcut, *_FULL), answer, real)


def _encoder(name: str, row: Blocks) -> Family:
    return Family(name, "folder, hub id", (*kinds_of(row), "pooled", "logits"), row.causal, _FULL, _CLASSES)
