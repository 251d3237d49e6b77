"""What can be opened, in a form that a person can read: one entry a model type or kind of weight file."""

from collections.abc import Iterable
from dataclasses import dataclass

from interp_core.models.arch import ARCHS, ENCODERS, Arch, EncoderArch, kinds_of
from interp_core.models.audio_llms.layouts import LAYOUTS
from interp_core.models.audio_llms.open import OPENED_AS as OPENED_AUDIO_LLMS
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.clap.subject import ClapAudio
from interp_core.models.countermeasure.published_subject import FixedLengthDetector, PublishedDetector
from interp_core.models.countermeasure.raw_subject import RAW, RawDetector
from interp_core.models.countermeasure.subject import SpoofDetector
from interp_core.models.countermeasure.systems import SYSTEMS, System
from interp_core.models.encoders.opened_as import LISTENERS_AS, PLAIN
from interp_core.models.encoders.subject import OPENED_AS, Encoder
from interp_core.models.lacking import LACKING
from interp_core.models.listeners import LISTENERS, ListenerArch
from interp_core.models.resnet.subject import RESNET, ImageClassifier
from interp_core.models.subject import Subject
from interp_core.models.verified import Verified
from interp_core.sites import STAGES, Kind

TESTED = "tiny random models of the class, saved and opened in the real layout"
GROUPS = ("audio LLM", "speech encoder", "encoder and decoder", "CLAP", "countermeasure", "picture classifier")


@dataclass(frozen=True)
class Family:
    """One entry.

    Attributes:
        name: the config's model type, or what the file is.
        group: one of `GROUPS`.
        types: the config's `model_type` of what it stands for; none of weight files.
        opens: what --model takes. like: such a thing, for an example.
        part: what --part takes, where it is not the first list of blocks of such a model.
        subject: what it is opened as.
        sites: the kinds of site, blocks first.
        causal: whether a position sees only what is before it.
        methods: the routes of a sweep, cheapest first.
        readout: what is compared.
        verified: on what the numbers were checked against the library's own forward.
    """

    name: str
    group: str
    types: tuple[str, ...]
    opens: str
    subject: type[Subject]
    sites: tuple[Kind, ...]
    causal: bool
    methods: tuple[str, ...]
    readout: str
    part: str = ""
    like: str = ""
    verified: str = TESTED
    classifier: bool = True
    """Whether checkpoints of it can answer by themselves; one that cannot takes a probe."""
    trained: str = ""
    """A bundled model, trained for Patchbay, on which they were checked too."""

    @property
    def checked(self) -> str:
        """On what, in words; published checkpoints are records of their own."""
        return f"{self.verified}; the trained {self.trained}" if self.trained else self.verified

    @property
    def inside(self) -> tuple[Kind, ...]:
        """The sites inside its blocks."""
        return tuple(site for site in self.sites if site not in STAGES)

    @property
    def behind(self) -> tuple[Kind, ...]:
        """The sites behind its blocks."""
        return tuple(site for site in self.sites if site in STAGES)


_FULL = ("wavefront", "reference")
_FOLDER = "folder, hub id"
_PROBE = "a fitted probe (--probe COLUMN), because no checkpoint of the type has a classifier"
_CLASSES = "the checkpoint's classes; a fitted probe (--probe COLUMN) where it has no classifier"


def families() -> list[Family]:
    """Return every entry, audio LLMs first."""
    found = [_audio_llm(name, row) for name, row in ARCHS.items()]
    found += [_encoder(name, row) for name, row in ENCODERS.items() if name not in ("clap", "whisper")]
    return [
        *found,
        *(family for name, row in LISTENERS.items() for family in _listener(name, row)),
        _encoder("whisper", ENCODERS["whisper"], "whisper (classifier)"),
        Family(
            "clap",
            "CLAP",
            ("clap", "clap_audio_model"),
            "folder, hub id, or an msclap weight file (.pth)",
            ClapAudio,
            (*kinds_of(ENCODERS["clap"]), "pooled", "projection"),
            False,
            _FULL,
            "texts that the labels are put into, where there is a text tower; else a fitted probe",
            verified=f"{TESTED}; msclap 1.3.4's own code on random weights of the real size",
        ),
        Family(
            "countermeasure",
            "countermeasure",
            (),
            "best.pt of an ASVspoof 5 run, ERM or DANN, WavLM or wav2vec 2.0; or its run folder",
            SpoofDetector,
            (*kinds_of(ENCODERS["wavlm"]), *STAGES),
            False,
            _FULL,
            "bona fide or spoof",
            like="best.pt",
            verified="a plain implementation of the published pipeline, on random weights",
        ),
        *(_published(system) for system in SYSTEMS),
        Family(
            "AASIST",
            "countermeasure",
            (),
            "state dict (.pth) of clovaai/aasist: AASIST or AASIST-L",
            RawDetector,
            (*kinds_of(RAW), "pooled", "logits"),
            False,
            _FULL,
            "bona fide or spoof",
            like="AASIST.pth",
            verified="the published code, on its published weights and on random ones",
        ),
        Family(
            "resnet",
            "picture classifier",
            (),
            "a weight file with torchvision's names; pictures instead of recordings",
            ImageClassifier,
            (*kinds_of(RESNET), "pooled", "logits"),
            False,
            _FULL,
            "the checkpoint's classes",
            like="resnet50.pth",
            verified="a plain implementation in torch, on random weights",
        ),
    ]


def family_of(model_type: str, known: Iterable[Family]) -> Family | None:
    """The entry that a folder with this `model_type` is opened by, of several parts the first."""
    return next((family for family in known if model_type in family.types), None)


def of_records(family: Family, records: Iterable[Verified], known: Iterable[Family]) -> list[Verified]:
    """The records of checkpoints that an entry stands for, told by type and sites; each belongs to one entry."""

    def owner(record: Verified) -> Family | None:
        same = [one for one in known if record.model_type in (*one.types, one.name.casefold())]
        return next((one for one in same if set(one.inside) == set(record.sites)), None)

    known = list(known)
    return [record for record in records if owner(record) == family]


def lacking() -> dict[str, list[str]]:
    """Types that hear and cannot be opened, by what is in the way."""
    found: dict[str, list[str]] = {}
    for name, lack in LACKING.items():
        found.setdefault(lack, []).append(name)
    return found


def _audio_llm(name: str, row: Arch) -> Family:
    shortcut = ("shortcut",) if row.causal and not row.passed_on else ()
    own = LAYOUTS.get(name)
    opens = _FOLDER if own is None else f"folder in {own.title}'s own layout, hub id"
    demo = "demo-emotion" if name == "qwen2_audio" else ""
    kind = OPENED_AUDIO_LLMS.get(name, AudioLLM) if own is None else own.subject
    answer = "first answer token, among the labels"
    routes = (*shortcut, *_FULL)
    return Family(
        name, "audio LLM", (name,), opens, kind, kinds_of(row), row.causal, routes, answer, like=name, trained=demo
    )


def _encoder(name: str, row: EncoderArch, shown: str = "") -> Family:
    sites: tuple[Kind, ...] = (*kinds_of(row), "pooled", "logits")
    kind, readout = OPENED_AS.get(name, Encoder), _CLASSES if row.classifier else _PROBE
    return Family(
        shown or name, "speech encoder", (name,), _FOLDER, kind, sites, row.causal, _FULL, readout, like=name,
        classifier=row.classifier,
    )  # fmt: skip


def _published(system: System) -> Family:
    return Family(
        system.name,
        "countermeasure",
        (),
        system.opens,
        FixedLengthDetector if system.cut else PublishedDetector,
        (*kinds_of(ENCODERS["wav2vec2"]), *system.stages),
        False,
        _FULL,
        "bona fide or spoof",
        like=system.like,
        verified="the published code over the models that it was trained with (fairseq's, s3prl's), on random weights",
    )


def _listener(name: str, row: ListenerArch) -> list[Family]:
    words = "next decoder token, among words or languages" if name == "whisper" else "next decoder token, among words"
    encoder, decoder = LISTENERS_AS.get(name, PLAIN)
    return [
        Family(
            f"{name} (encoder)", "encoder and decoder", (name,), _FOLDER, encoder, kinds_of(row.encoder), False,
            _FULL, words, like=name,
        ),
        Family(
            f"{name} (decoder)", "encoder and decoder", (name,), f"{_FOLDER}; --part decoder", decoder,
            kinds_of(row.decoder), True, _FULL, words, part="decoder", like=name,
        ),
    ]  # fmt: skip
