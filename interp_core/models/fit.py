"""Whether the files of a folder are of one model: sizes are judged before memory is taken, weights by name and shape.

The library makes up weights that are missing, drops those that a config has no place for, and takes the memory that a
config asks for before it looks at the weights. Each of these would end in another model than the one that was meant.
"""

import copy
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp_core.errors import InterpError, few
from interp_core.models.arch import Blocks
from interp_core.models.inside import weight_files
from interp_core.models.source import reading, refuse_absent

_COUNTS = re.compile(r"(layers|blocks|depths?|experts|stages|codebooks|quantizers|n_layer|conv_pos_embeddings)$")
_SIZES = re.compile(r"size|dim|width|channels|embd|d_model|features|positions|buckets|bins")
_NEVER_BELOW_0 = re.compile(r"(num|n|encoder|decoder)_\w*layers?$")
"""Others may be places in a list, counted from its end."""
_STRIDE = re.compile(r"strides?$")
_REACH = re.compile(r"attention_(context|chunk)|context_size$")
"""Positions that see each other: no weight shows how many."""
_MOST_SAMPLES = 1 << 16
"""That one position may cover: weights do not show a stride, and no clip fills a position that takes longer."""
_MOST_BLOCKS = 1000
"""More than any model has; what is built in loops takes time and memory also without its weights."""
_SLACK = 10_000_000
"""Numbers that a model may have beyond what its files hold: tables that follow from a formula."""
_EXTRACTOR = {
    **dict.fromkeys(("feature_size", "num_mel_bins", "n_mels"), 4096),
    **dict.fromkeys(("n_fft", "fft_window_size", "win_length", "hop_length", "max_length"), 1 << 20),
    **dict.fromkeys(("chunk_length", "max_length_s"), 3600),
    **dict.fromkeys(("nb_max_samples", "n_samples"), 1 << 28),
    **dict.fromkeys(("frame_length", "frame_shift", "frame_length_ms", "hop_length_ms"), 10_000),
    **dict.fromkeys(("audio_feat_stride", "audio_compression_rate"), 4096),
    **dict.fromkeys(("num_frames_lfr", "stride_lfr", "projector_window_size", "projector_downsample_rate"), 4096),
    "audio_samples_per_token": 1 << 16,
    "min_length": 1 << 24,
    "nb_max_frames": 1 << 20,
    "sampling_rate": 768_000,
}
"""The most that a setting of a feature extractor may be; beyond, a table or a padded clip would fill the memory."""
_WRAPPED = {r"^((module|_orig_mod)\.)+": "", r"\._orig_mod\.": "."}
"""What data parallel and compiled models put before the names of their weights."""


def unwrapped(name: str) -> str:
    """The name of a weight without what data parallel and compiled models put before it."""
    for wrapped, plain in _WRAPPED.items():
        name = re.sub(wrapped, plain, name)
    return name


def load_weights(name: str, source: str, model_class: Any, config: Any, **how: Any) -> Any:
    """Make the library's model of a folder, with all of its weights and no others.

    Args:
        name: for messages.
        source: the folder.
        model_class: the library's class, or AutoModel.
        config: the folder's.
        how: further arguments of `from_pretrained`.
    Raises:
        InterpError: a config that asks for far more than the files hold, weights that are missing, of another shape, or
            of blocks that the config leaves out.
    """
    check_counts(name, config.to_dict())
    _check_room(name, source, model_class, config)
    # Where peft is installed the library would put on an adapter that lies beside the weights, and then report what the
    # adapter lacks instead of what the model lacks; so it is told to look for one where there is none.
    how["adapter_kwargs"] = {"subfolder": "no-adapter-here"}
    how["key_mapping"] = {**_WRAPPED, **how.get("key_mapping", {})}
    hf, loaded = reading(
        name,
        "weights",
        lambda: model_class.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **how),
    )
    # Of training alone: it stands for masked frames, and some published folders leave it out.
    refuse_absent(name, (key for key in loaded["missing_keys"] if not key.endswith("masked_spec_embed")))
    if wrong := [
        f"{key} {list(held)} where {list(fits)} fits" for key, held, fits in sorted(loaded["mismatched_keys"])
    ]:
        raise InterpError(
            f"the weights of {name} do not fit its config: {few(wrong)}; take config.json and weights of one model."
        )
    if surplus := sorted(_surplus(hf, loaded["unexpected_keys"])):
        raise InterpError(
            f"the weights of {name} hold {few(surplus)}, of blocks that its config.json leaves out, so it would be "
            "half a model; correct the number of layers in config.json."
        )
    return hf


def check_settings(name: str, folder: Path) -> None:
    """Refuse settings that would fill the memory as soon as they are read, or with the first clip.

    Broken files are left to their reader.
    """
    check_counts(name, _entries(folder / "config.json"))
    for file in ("preprocessor_config.json", "processor_config.json"):
        for key, value in _numbers(_entries(folder / file)):
            if key in _EXTRACTOR and not 0 < value <= _EXTRACTOR[key]:
                raise InterpError(
                    f"{file} of {name} says {key}={value:g}, expected a number from 1 to {_EXTRACTOR[key]}; copy the "
                    "file of the original model."
                )


def _entries(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def check_extractor(name: str, config: Any, extractor: Any, row: Blocks) -> None:
    """Refuse a feature extractor that makes other frames, or takes another sampling rate, than the model was made for.

    Args:
        row: of the model's type.
    """
    copy_it = "copy preprocessor_config.json of the original model into its folder."
    entry, side_by_side = row.frame
    side_by_side = getattr(extractor, "stride", side_by_side)
    made = getattr(extractor, "num_mel_bins", None) or getattr(extractor, "feature_size", None)
    taken = next((value for key, value in _numbers(config.to_dict()) if key == entry), None)
    if taken is not None and isinstance(made, int) and made * side_by_side != taken:
        raise InterpError(
            f"the feature extractor of {name} makes {made} mel bands, but its config says that the model takes "
            f"{taken / side_by_side:g}; {copy_it}"
        )
    # The weights do not tell: a model that was trained at another rate says so in its config, as some types do anyway.
    said = getattr(config, "sampling_rate", None)
    rates = (said,) if said else row.rates
    if (took := getattr(extractor, "sampling_rate", rates[0])) not in rates:
        raise InterpError(
            f"the feature extractor of {name} takes {took} samples a second, but models of its type are made for "
            f"{' or '.join(map(str, rates))}; {copy_it} If it was trained at {took}, write "
            f'"sampling_rate": {took} into its config.json.'
        )


def check_tokens(name: str, tokenizer: Any, known: int, *, start: int | None = None, word: str = "") -> None:
    """Refuse the tokenizer of another model.

    Args:
        known: how many tokens the model has a vector for.
        start: the token that every text begins with. word: what it is called, where every model of the type has the
            same name for it.
    """
    most = max(tokenizer.get_vocab().values(), default=-1)
    said = ""
    if most >= known:
        said = f"has tokens up to {most}, but the model knows {known}"
    elif start is not None and tokenizer.convert_ids_to_tokens(start) is None:
        said = f"has no token {start}, with which the model begins every text"
    elif start is not None and word and tokenizer.convert_tokens_to_ids(word) != start:
        said = f"has {tokenizer.convert_ids_to_tokens(start)} at token {start}, where the model begins with {word}"
    if said:
        raise InterpError(
            f"the tokenizer of {name} {said}; copy the tokenizer files, and generation_config.json where there is one, "
            "of the original model into it."
        )


def check_counts(name: str, about: Any) -> None:
    """Refuse numbers of a config that stand for more than any model has: blocks, and samples of a position."""
    for key, value in _lists(about):
        if _STRIDE.search(key) and math.prod(value) > _MOST_SAMPLES:
            steps = few([f"{one:g}" for one in value], 9)
            raise InterpError(
                f"config.json of {name} says {key}={steps}, {math.prod(value):g} samples of a clip to a position, "
                f"expected {_MOST_SAMPLES} at most; copy the config of the original model."
            )
    for key, number in _numbers(about):
        if _REACH.search(key) and number > _MOST_SAMPLES:
            raise InterpError(
                f"config.json of {name} says {key}={number:g}, expected {_MOST_SAMPLES} at most; copy the "
                "config of the original model."
            )
    wrong = [
        f"{key}={value:g}"
        for key, value in _numbers(about)
        if (_COUNTS.search(key) and value > _MOST_BLOCKS) or (_NEVER_BELOW_0.match(key) and value < 0)
    ]
    if wrong:
        raise InterpError(
            f"config.json of {name} says {few(wrong)}, expected 0 to {_MOST_BLOCKS}; copy the config of the original "
            "model."
        )


def _check_room(name: str, source: str, model_class: Any, config: Any) -> None:
    """Compare what the config describes, built without memory, with the size of the files."""
    held = sum(file.stat().st_size for file in weight_files(source) if file.suffix != ".json")
    if not held:
        return  # the library says which file it wants
    most = 2 * held + _SLACK  # two numbers a byte at most
    for key, value in _numbers(config.to_dict()):
        if _SIZES.search(key) and value > most:  # some modules take memory for one row of it on the way
            raise InterpError(_too_large(name, f"{key}={value:g}", held))

    def build() -> nn.Module:
        with torch.device("meta"):
            if hasattr(model_class, "from_config"):
                return model_class.from_config(copy.deepcopy(config))
            kind = model_class.config_class  # a part of a larger model has a config of its own inside
            own = copy.deepcopy(config) if isinstance(config, kind) else kind.from_pretrained(source)
            return model_class(own)

    empty = reading(name, "config", build)
    asked = sum(tensor.numel() for tensor in (*empty.parameters(), *empty.buffers()))
    if asked > most:
        raise InterpError(_too_large(name, f"a model of {asked:.2g} numbers", held))


def _too_large(name: str, what: str, held: int) -> str:
    return (
        f"config.json of {name} describes {what}, but its weight files hold {held:.2g} bytes; take config.json and "
        "weights of one model."
    )


def _numbers(about: Any) -> Iterable[tuple[str, float]]:
    """Every number of a config with the name of its entry, outermost first; one by one of a list."""
    inner = []
    for key, value in about.items() if isinstance(about, Mapping) else ():
        if isinstance(value, Mapping):
            inner.append(value)
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, int | float) and not isinstance(one, bool):
                yield str(key), one
    for value in inner:
        yield from _numbers(value)


def _lists(about: Any) -> Iterable[tuple[str, list[float]]]:
    """Every list of numbers of a config with the name of its entry, and every number as a list of one."""
    for key, value in about.items() if isinstance(about, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _lists(value)
        numbers = [one for name, one in _numbers({key: value}) if name == str(key)]
        if numbers and not isinstance(value, Mapping):
            yield str(key), numbers


def _surplus(hf: nn.Module, unexpected: Iterable[str]) -> list[str]:
    """Weights of blocks that a list of the model is too short for; those of parts that it has not are none of these."""
    lists = {name: len(module) for name, module in hf.named_modules() if isinstance(module, nn.ModuleList)}
    base = f"{getattr(hf, 'base_model_prefix', '')}."

    def left_out(key: str) -> bool:
        parts = key.split(".")
        numbered = [(".".join(parts[:i]), int(part)) for i, part in enumerate(parts) if part.isdecimal()]
        return any(
            number >= lists[name]
            for place, number in numbered
            for name in {place, place.removeprefix(base)} & lists.keys()
        )

    return list(filter(left_out, unexpected))
