"""Opening a model: a bundled name, a folder in the Hugging Face layout, a weight file of a known kind, or a hub id."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoTokenizer, PreTrainedConfig

from interp_core.errors import InterpError
from interp_core.jobs import Progress, silent
from interp_core.models.adapters import hash_with, refuse_beside, with_base
from interp_core.models.arch import ARCHS, ENCODERS, EncoderArch
from interp_core.models.audio_llms.layouts import LAYOUTS, layout_of
from interp_core.models.audio_llms.open import OPENED_AS as OPENED_AUDIO_LLMS
from interp_core.models.audio_llms.open import open_audio_llm
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.bases import bases_of
from interp_core.models.clap.subject import ClapAudio
from interp_core.models.encoders.opened_as import LISTENERS_AS, PLAIN, TOKENIZERS
from interp_core.models.encoders.subject import OPENED_AS, Encoder
from interp_core.models.files import check_files, check_parts
from interp_core.models.fit import check_extractor, check_settings, check_tokens, load_weights
from interp_core.models.hub import fetched
from interp_core.models.inside import weight_files, weights_hash
from interp_core.models.lacking import refuse_part, refuse_speaking, refuse_unknown
from interp_core.models.listeners import LISTENERS, STARTS
from interp_core.models.merge import merge_adapter
from interp_core.models.quantised import ACTIVATIONS, BITS, check_packages, settings, stored_bits
from interp_core.models.source import reading, resolve
from interp_core.models.subject import Subject
from interp_core.models.weight_files import open_weight_file, weight_file_of

_TURN = threading.Lock()
"""While weights are read the library changes settings of the whole process (its default dtype, its initialisers)."""
_ASK_AGAIN_S = 0.2

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
    if dtype in BITS:
        return ACTIVATIONS
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise InterpError(f"dtype {dtype!r} is none of auto, {', '.join((*DTYPES, *BITS))}.")
    return DTYPES[dtype]


def needs_sharing(nbytes: int, dtype: torch.dtype) -> bool:
    """Whether a model goes onto several GPUs, or is larger than the one there is: then the CPU's memory takes the rest.

    Args:
        nbytes: of its files, whose numbers are taken to be of 2 bytes: what fits after all is put onto the GPU whole.
        dtype: of the weights in memory.
    """
    gpus = torch.cuda.device_count()
    if not gpus or find_spec("accelerate") is None:
        return False
    return gpus > 1 or nbytes * dtype.itemsize / 2 > torch.cuda.mem_get_info(0)[0]


@dataclass(frozen=True)
class Opening:
    """One model on its way: what the user typed, where it leads, and how its weights are to lie."""

    name: str
    source: str
    config: Any
    device: torch.device
    dtype: torch.dtype
    shared: bool
    """Whether GPUs and the CPU's memory share an audio LLM by layers, which the library does through accelerate."""
    adapter: Path | None = None
    """The folder of the adapter that goes into the weights."""
    progress: Progress = silent
    bits: str = ""
    """int8 or int4 for weights that are quantised on their way."""

    @property
    def quantised(self) -> bool:
        """Whether the weights are few bits each, by what was asked or by what the folder holds."""
        return bool(self.bits) or getattr(self.config, "quantization_config", None) is not None

    @property
    def placing(self) -> Mapping[str, Any]:
        how: dict[str, Any] = {"device_map": "auto"} if self.shared else {}
        if self.quantised:
            how.setdefault("device_map", {"": self.device})
        return how

    def placing_blocks(self, blocks: str) -> Mapping[str, Any]:
        """`placing`, with the blocks, at a dotted name, in few bits where that was asked."""
        if not self.bits:
            return self.placing
        return {**self.placing, "quantization_config": settings(self.bits, self.dtype, blocks)}

    def read(self, part: str, step: Callable[[], Any]) -> Any:
        return self.reading(self.name, part, step)

    def reading(self, name: str, part: str, step: Callable[[], Any]) -> Any:
        """`source.reading`, and told."""
        self.progress(0, 0, f"reading the {part}")
        return reading(name, part, step)

    def weights(self, model_class: Any) -> Any:
        """Load a library class; see `load_weights`."""
        self.progress(0, 0, "reading the weights")
        return load_weights(self.name, self.source, model_class, self.config, dtype=self.dtype, **self.placing)

    def placed(self, hf: Any) -> Any:
        """Put a model where it is to run, with its adapter merged, ready to be run."""
        if (folder := self.adapter) is not None:
            if self.quantised:
                raise InterpError(
                    f"the weights of {self.name} are quantised, and nothing can be merged into such; leave --adapter "
                    "out, or open the whole weights (--dtype bfloat16)."
                )
            self.read("adapter", lambda: merge_adapter(hf, folder, str(folder)))
        if not self.shared and not self.quantised:
            self.read("weights", lambda: hf.to(self.device))
        return hf.eval().requires_grad_(False)

    @property
    def weights_hash(self) -> str:
        self.progress(0, 0, "hashing the weights")
        return reading(self.name, "weights", lambda: hash_with(self._hash_of_all(), self.adapter))

    def _hash_of_all(self) -> str:
        """Of the folder's weights, and of those of the models that its config names."""
        own, bases = weights_hash(self.source), bases_of(self.name, Path(self.source))
        if not bases:
            return own
        total = hashlib.sha256(bytes.fromhex(own))
        for entry, base in sorted(bases.items()):
            total.update(entry.encode() + bytes.fromhex(weights_hash(str(base))))
        return total.hexdigest()


@torch.inference_mode(False)  # weights made inside of it can never be given gradients, which maps of heads ask for
def open_model(
    name: str, *, device: str = "auto", dtype: str = "auto", adapter: str = "", progress: Progress = silent
) -> Subject:
    """Open a model by bundled name, folder, weight file or hub id.

    Args:
        name: `demo-emotion`, a folder with config.json, a checkpoint file of a known kind or its run folder, or
            `owner/model` on the hub; or a folder that holds an adapter alone, which names its base.
        device: auto, cpu, cuda or cuda:N.
        dtype: auto, float32, bfloat16, float16, or int8 or int4 for an audio LLM's weights by bitsandbytes.
        adapter: a folder of peft's that is merged into the weights; the model's own name for the one inside its folder,
            `none` to leave that out.
        progress: called between the steps; may raise to cancel.
    Raises:
        InterpError: one sentence that says why it cannot be opened and what to do.
    """
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    bits = dtype if dtype in BITS else ""
    if bits:
        check_packages(dtype)
    source = resolve(name)
    if not Path(source).exists():
        source = str(fetched(source, progress))
    file = weight_file_of(source)
    check_files(name, file or Path(source))
    base, folder = with_base(name, source, adapter)
    check_parts(name, Path(base), folder)
    with _turn(progress):
        if file is not None:
            if folder is not None:
                raise InterpError(
                    f"{name} is a weight file of another code base, and adapters go onto folders in the Hugging Face "
                    "layout alone; merge it where the model was trained, and open the merged file."
                )
            if bits:
                raise InterpError(f"{name} is a weight file, and --dtype {bits} goes with audio LLMs alone.")
            progress(0, 0, "reading the weights")
            return reading(name, "weights", lambda: open_weight_file(name, file, where, precision))
        shared = device == "auto" and needs_sharing(bytes_on_disk(name, adapter), precision)
        opening = Opening(name, base, None, where, precision, shared, folder, progress, bits)
        return _open_folder(opening, asked=adapter)


@contextmanager
def _turn(progress: Progress) -> Iterator[None]:
    while not _TURN.acquire(timeout=_ASK_AGAIN_S):
        progress(0, 0, "waiting until another model has been read")
    try:
        yield
    finally:
        _TURN.release()


def bytes_on_disk(name: str, adapter: str = "") -> int:
    """What the weight files of a model take, which is about what it takes in memory; 0 where they are not here yet."""
    try:
        source, _ = with_base(name, resolve(name), adapter)
        folders = [source, *map(str, bases_of(name, Path(source)).values())]
        return sum(file.stat().st_size for folder in folders for file in weight_files(folder))
    except (InterpError, OSError):
        return 0


def _open_folder(opening: Opening, asked: str) -> Subject:
    name, source = opening.name, opening.source
    if not (Path(source) / "config.json").is_file():
        raise InterpError(f"{name} holds no config.json, so it is no model folder in the Hugging Face layout.")
    check_settings(name, Path(source))
    if (own := reading(name, "config", lambda: layout_of(source))) is not None:
        _check_adapter(opening, asked, None)
        for inner in sorted({file.parent for file in Path(source).glob("*/*config.json")}):  # of the models in it
            check_settings(name, inner)
        found = _own_layout(opening, own)
        found.bits = opening.bits
        return found
    about = reading(name, "config", lambda: PreTrainedConfig.get_config_dict(source)[0])
    refuse_part(name, about)
    if (kind := str(about.get("model_type"))) not in ARCHS and kind not in OPENERS:
        refuse_unknown(name, about)
    config = reading(name, "config", lambda: AutoConfig.from_pretrained(source, trust_remote_code=False))
    row = ARCHS.get(config.model_type)
    stored = stored_bits(name, config)
    if opening.bits and (row is None or row.adapter is not None):
        raise InterpError(
            f"--dtype {opening.bits} goes with audio LLMs that have no adapter of their own, and {name} is none of "
            "these; choose bfloat16."
        )
    if opening.bits and stored:
        raise InterpError(f"the weights of {name} are quantised already; leave --dtype {opening.bits} out.")
    _check_adapter(opening, asked, None if row is None else row.adapter)
    # An encoder fits one GPU, and the mix of its layers is made on one.
    opening = replace(opening, config=config, shared=opening.shared and row is not None)
    subject = reading(name, "files", lambda: OPENERS.get(config.model_type, _audio_llm)(opening))
    subject.bits = opening.bits
    if not subject.n_layers:
        raise InterpError(f"config.json of {name} says 0 layers, which leaves nothing to edit; correct it.")
    return subject


def _check_adapter(opening: Opening, asked: str, own: str | None) -> None:
    """Refuse an adapter that lies beside the weights unasked, and one that belongs to the model and is in it anyway.

    Args:
        own: the folder below the model's of the adapter that its type is made with; None for no such thing.
    """
    folder = Path(opening.source)
    if not asked and opening.adapter is None:
        refuse_beside(opening.name, folder)
        for base in bases_of(opening.name, folder).values():
            refuse_beside(str(base), base)
    if own is not None and opening.adapter is not None and opening.adapter.resolve() == (folder / own).resolve():
        raise InterpError(
            f"the adapter in {opening.name} belongs to the model and is always merged; leave --adapter out."
        )


def _audio_llm(opening: Opening) -> Subject:
    arch = ARCHS[opening.config.model_type]
    hf, processor = open_audio_llm(
        opening.name,
        opening.source,
        opening.config,
        arch,
        dtype=opening.dtype,
        placing=opening.placing_blocks(arch.blocks),
        reading=opening.reading,
    )
    kind = OPENED_AUDIO_LLMS.get(opening.config.model_type, AudioLLM)
    return kind(opening.name, opening.weights_hash, opening.placed(hf), arch, processor=processor)


def _own_layout(opening: Opening, row: str) -> Subject:
    layout, how = LAYOUTS[row], opening.placing_blocks(ARCHS[row].blocks)
    hf, processor = opening.read("files", lambda: layout.load(opening.name, opening.source, dtype=opening.dtype, **how))
    return layout.subject(opening.name, opening.weights_hash, opening.placed(hf), ARCHS[row], processor=processor)


def _encoder(opening: Opening) -> Subject:
    arch = ENCODERS[opening.config.model_type]
    wanted = (opening.config.architectures or [""])[0]
    heads = ("ForSequenceClassification", "ForAudioClassification")
    # A head that answers something else (characters, speakers, frames) is left out: the encoder below it is the same.
    model_class = getattr(transformers, wanted, None) if wanted.endswith(heads) else AutoModel
    if model_class is None:
        raise InterpError(f"transformers {transformers.__version__} ships no model class {wanted}.")
    kind = OPENED_AS.get(opening.config.model_type, Encoder)
    extractor = _extractor(opening, arch)
    return kind(
        opening.name, opening.weights_hash, opening.placed(opening.weights(model_class)), arch, extractor=extractor
    )


def _listener(opening: Opening) -> Subject:
    kind, wanted = opening.config.model_type, str((opening.config.architectures or [""])[0])
    if kind in ENCODERS and wanted.endswith("ForAudioClassification"):
        return _encoder(opening)
    row, (opened_as, _) = LISTENERS[kind], LISTENERS_AS.get(kind, PLAIN)
    refuse_speaking(opening.name, wanted, row.model_class, whole=bool(row.left_out))
    tokenizer, config = _tokenizer(opening), opening.config
    start = _start(opening)
    check_tokens(opening.name, tokenizer, config.vocab_size, start=start, word=row.begins)
    extractor = _extractor(opening, row.encoder)
    # Its name stays the library's, by which a config is told that it is of another class.
    whole = getattr(transformers, row.model_class)
    left_out = [f"^{re.escape(name)}" for name in row.left_out]
    own = type(whole.__name__, (whole,), {"_keys_to_ignore_on_load_unexpected": left_out}) if left_out else whole
    hf = opening.placed(opening.weights(own))
    return opened_as(
        opening.name, opening.weights_hash, hf, row.encoder, extractor=extractor, tokenizer=tokenizer, row=row
    )


def _start(opening: Opening) -> int | None:
    """The token that every text of a model begins with, by its generation config or else its config, as `Listener`."""
    made = Path(opening.source) / "generation_config.json"
    told = opening.read("generation config", lambda: json.loads(made.read_text("utf-8"))) if made.is_file() else {}
    if not isinstance(told, dict):
        raise InterpError(f"{made} holds no settings; copy that of the original model into its place.")
    said = [
        (file, key, value)
        for key in STARTS
        for file, value in ((made.name, told.get(key)), ("config.json", getattr(opening.config, key, None)))
    ]
    file, key, start = next((one for one in said if one[2] is not None), ("", "", None))
    if start is not None and (not isinstance(start, int) or start < 0):
        raise InterpError(
            f"{file} of {opening.name} says {key}={start!r:.80}, expected the number of a token; copy that file of the "
            "original model into its place."
        )
    return start


def _clap(opening: Opening) -> Subject:
    whole = (opening.config.architectures or [""])[0] == "ClapModel"
    arch = replace(ENCODERS["clap"], body="audio_model") if whole else ENCODERS["clap"]
    tokenizer = _tokenizer(opening) if whole else None
    if tokenizer is not None:
        check_tokens(opening.name, tokenizer, opening.config.text_config.vocab_size)
    extractor = _extractor(opening, arch)
    hf = opening.placed(opening.weights(transformers.ClapModel if whole else transformers.ClapAudioModel))
    return ClapAudio(opening.name, opening.weights_hash, hf, arch, extractor=extractor, tokenizer=tokenizer)


def _extractor(opening: Opening, row: EncoderArch) -> Any:
    if not any(
        (Path(opening.source) / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    ):
        raise InterpError(
            f"{opening.name} has no feature extractor; copy preprocessor_config.json of the original model into it."
        )
    extractor = opening.read(
        "feature extractor", lambda: AutoFeatureExtractor.from_pretrained(opening.source, trust_remote_code=False)
    )
    check_extractor(opening.name, opening.config, extractor, row)
    return extractor


def _tokenizer(opening: Opening) -> Any:
    own = TOKENIZERS.get(opening.config.model_type)
    if own is not None and not (Path(opening.source) / "tokenizer.json").is_file():
        return opening.read("tokenizer", lambda: own(opening.source))
    return opening.read("tokenizer", lambda: AutoTokenizer.from_pretrained(opening.source, trust_remote_code=False))


OPENERS: dict[str, Callable[[Opening], Subject]] = {
    **dict.fromkeys(ARCHS, _audio_llm),
    **dict.fromkeys(ENCODERS, _encoder),
    **dict.fromkeys(LISTENERS, _listener),
    "clap": _clap,
    "clap_audio_model": _clap,
}
