"""Merging an adapter into the weights of an opened model: the same function without the package peft.

The package wraps the modules that it adapts and looks for them by the names of the class that it was trained on. Models
are opened here by parts and from layouts of their own, and sites are modules that the table names, so the matrices are
added into the weights instead, which peft's own `merge_and_unload` is the test of.

Sources: LoRA, Hu et al. 2021, arXiv:2106.09685: W + alpha / r * B A; rsLoRA, Kalajdzievski 2023, arXiv:2312.03732:
alpha / sqrt(r); DoRA, Liu et al. 2024, arXiv:2402.09353: m * (W + s B A) / |W + s B A| by rows.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from interp_core.errors import InterpError, few
from interp_core.models.adapters import settings_of
from interp_core.models.inside import OF_ADAPTERS
from interp_core.models.torch_file import is_state, read_weight_file

_KEY = re.compile(r"(?P<path>.+)\.lora_(?P<half>A|B|magnitude_vector)(?:\.default)?(?:\.weight)?")
_WRAPPED = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")
_PLAIN_PATTERN = re.compile(r"[\w.^$\\\[\]-]+")
"""A repetition or an alternative in somebody else's pattern could keep the machine busy for ever."""
_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Ways to begin training that leave the base as it is; PiSSA, OLoRA, CorDA and LoftQ change it, and a merge would
have to repeat that."""
_KNOWN = frozenset(
    {"peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"}
    | {"r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
    | {"rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "bias", "modules_to_save"}
    | {"init_lora_weights", "megatron_core", "runtime_config", "qalora_group_size", "eva_config"}
)
"""Settings that are heeded here, or say nothing about the function; of all others only the empty ones are taken."""


@torch.no_grad()
def merge_adapter(hf: nn.Module, folder: Path, name: str) -> int:
    """Put an adapter into the weights of the model that it was trained on.

    Args:
        hf: the opened model; its parameters are changed in place, in their dtype, with the sum made in float32.
        folder: with adapter_config.json and adapter_model.safetensors or .bin.
        name: the adapter's, for messages.
    Returns:
        How many matrices were changed.
    Raises:
        InterpError: it is no LoRA or DoRA of linear layers, one of another model, or not whole; nothing is changed.
    """
    settings = settings_of(name, folder)
    _check_kind(name, settings)
    place = _Places(hf)
    low_rank: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for key, value in _tensors(name, folder).items():
        if ".original_module." in key:
            continue  # what a module of modules_to_save was before, which nothing reads
        path = _WRAPPED.sub("", key.removeprefix("base_model.model."))
        if found := _KEY.fullmatch(path):
            low_rank.setdefault(found["path"], {})[found["half"]] = value
        else:
            whole[path] = value
    if not low_rank:
        raise InterpError(
            f"the adapter {name} holds no LoRA matrices; give the folder that peft's save_pretrained wrote."
        )
    changed = {path: place.linear(name, path) for path in low_rank}
    replaced = {path: place.whole(name, path, settings) for path in whole}
    _check_complete(name, settings, hf, [*changed.values(), *(where.rpartition(".")[0] for where in replaced.values())])
    scales = {
        path: _scale(name, path, hf.get_parameter(f"{changed[path]}.weight"), parts, settings)
        for path, parts in low_rank.items()
    }
    for path, value in whole.items():
        _check_fits(name, path, value, place.tensors[replaced[path]])
    places = [*(f"{where}.weight" for where in changed.values()), *replaced.values()]
    _check_places(name, places, place.tensors, _shared(hf))
    for path, parts in low_rank.items():  # one at a time: all of them in float32 would be another model's memory
        weight = hf.get_parameter(f"{changed[path]}.weight").data
        weight.copy_(merged(weight, parts, scales[path]))
    for path, value in whole.items():
        place.tensors[replaced[path]].data.copy_(value)
    return len(places)


def _tensors(name: str, folder: Path) -> Mapping[str, Tensor]:
    file = next((path for path in (folder / one for one in OF_ADAPTERS) if path.is_file()), None)
    if file is None:
        raise InterpError(f"the adapter {name} lacks {' or '.join(OF_ADAPTERS)}; copy it as well.")
    if file.suffix == ".safetensors":
        return load_file(file)
    state = read_weight_file(file, save="save the adapter anew with save_pretrained")
    if not is_state(state):
        raise InterpError(f"{file.name} of the adapter {name} holds no tensors by name; save it with save_pretrained.")
    return state


def _check_kind(name: str, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise InterpError(
            f"the adapter {name} is of the type {kind}, and only LORA (with or without DoRA) adds up to weights here; "
            "merge it with peft (merge_and_unload), save the model whole, and open that."
        )
    saved = settings.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(one, str) for one in saved):
        raise InterpError(
            f"adapter_config.json of {name} says modules_to_save={saved!r:.100}, expected a list of names."
        )
    start = settings.get("init_lora_weights", True)
    odd = sorted(key for key, value in settings.items() if value and key not in _KNOWN)
    odd += [] if start in _STARTS else [f"init_lora_weights={start}"]
    if odd:
        raise InterpError(
            f"the adapter {name} asks for more than a merge of low-rank matrices ({few(odd)}); merge it with peft "
            "(merge_and_unload), save the model whole, and open that."
        )
    patterns = [*_pairs(settings, "rank_pattern"), *_pairs(settings, "alpha_pattern")]
    if strange := [str(pattern) for pattern in patterns if not _is_plain(str(pattern))]:
        raise InterpError(
            f"adapter_config.json of {name} has the pattern {strange[0][:100]!r}; write module names out."
        )


def _is_plain(pattern: str) -> bool:
    try:
        return bool(_PLAIN_PATTERN.fullmatch(pattern) and re.compile(pattern))
    except re.error:
        return False


class _Places:
    """Where what an adapter names is in an opened model."""

    def __init__(self, hf: nn.Module) -> None:
        self.modules = dict(hf.named_modules())
        self.tensors = {**dict(hf.named_parameters(remove_duplicate=False)), **dict(hf.named_buffers())}
        self._prefix = getattr(hf, "base_model_prefix", "")
        self._renamed: Callable[[str], str] = _library_names(hf)

    def _ways(self, path: str) -> Iterable[str]:
        """A path as it may be called in the class that is opened: today's names, a head put on or left out."""
        for way in (path, self._renamed(path)):
            yield way
            if self._prefix:
                yield way.removeprefix(f"{self._prefix}.")
                yield f"{self._prefix}.{way}"

    def linear(self, name: str, path: str) -> str:
        found = next((way for way in self._ways(path) if way in self.modules), None)
        if found is None:
            raise InterpError(
                f"the adapter {name} changes {path}, which its model does not have; it was trained on another model, "
                "or on a part that is not opened here."
            )
        module = self.modules[found]
        if not isinstance(module, nn.Linear):
            raise InterpError(
                f"the adapter {name} changes {path}, which is a {type(module).__name__} and no linear layer; merge it "
                "with peft (merge_and_unload), save the model whole, and open that."
            )
        return found

    def whole(self, name: str, path: str, settings: Mapping[str, Any]) -> str:
        module = path.rpartition(".")[0]
        declared = settings.get("modules_to_save") or ()
        saved = any(f".{one}." in f".{module}." for one in declared)
        of_bias = path.endswith(".bias") and settings.get("bias", "none") != "none"
        if not (saved or of_bias):
            raise InterpError(
                f"the adapter {name} holds {path}, which is no LoRA matrix of a linear layer and none of its "
                "modules_to_save; merge it with peft (merge_and_unload), save the model whole, and open that."
            )
        found = next((way for way in self._ways(path) if way in self.tensors), None)
        if found is None:
            raise InterpError(
                f"the adapter {name} replaces {path} (modules_to_save), which its model does not have; it was trained "
                "on another model, or on a head that is not opened here."
            )
        return found


def _library_names(hf: nn.Module) -> Callable[[str], str]:
    """How the library calls today what older versions of it called otherwise."""
    if not isinstance(hf, PreTrainedModel):
        return lambda path: path
    renamings = [one for one in get_model_conversion_mapping(hf) if isinstance(one, WeightRenaming)]

    def renamed(path: str) -> str:
        marked, _ = rename_source_key(f"{path}.weight", renamings, [])
        return str(marked).removesuffix(".weight")

    return renamed


def _check_complete(name: str, settings: Mapping[str, Any], hf: nn.Module, given: Iterable[str]) -> None:
    """Refuse an adapter whose settings name modules that the model has and the file says nothing about."""
    held = [f".{path}." for path in given]
    named = settings.get("target_modules")
    listed = named if isinstance(named, list) and not settings.get("exclude_modules") else []
    wanted = [*listed, *(settings.get("modules_to_save") or ())]
    modules = [f".{path}" for path, module in hf.named_modules() if any(True for _ in module.parameters())]
    for one in wanted:
        ends = f".{one}"
        if any(path.endswith(ends) for path in modules) and not any(f"{ends}." in path for path in held):
            raise InterpError(
                f"adapter_config.json of {name} names {one}, but its weights hold nothing for it; copy both files of "
                "one adapter."
            )


def _scale(name: str, path: str, weight: Tensor, parts: Mapping[str, Tensor], settings: Mapping[str, Any]) -> float:
    """By what B A is multiplied; checks that A, B and DoRA's magnitudes are those of the weight [out, in]."""
    if {"A", "B", *(["magnitude_vector"] if settings.get("use_dora") else [])} != set(parts):
        raise InterpError(
            f"the adapter {name} holds {' and '.join(f'lora_{half}' for half in sorted(parts))} of {path}, which do "
            "not go with its adapter_config.json; copy both files of one adapter."
        )
    rank = _of(settings, "rank_pattern", path, settings.get("r"))
    alpha = _of(settings, "alpha_pattern", path, settings.get("lora_alpha"))
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1 or not math.isfinite(alpha):
        raise InterpError(f"adapter_config.json of {name} says r={rank!r}, lora_alpha={alpha!r}; copy it again.")
    tall, wide = weight.shape
    down, up, size = parts["A"], parts["B"], parts.get("magnitude_vector")
    if down.shape != (rank, wide) or up.shape != (tall, rank) or (size is not None and size.numel() != tall):
        raise InterpError(
            f"the adapter {name} has {list(up.shape)} by {list(down.shape)} for {path}, where {[tall, rank]} by "
            f"{[rank, wide]} fits; it was trained on another model or with another rank."
        )
    if not all(torch.isfinite(value).all() for value in parts.values()):
        raise InterpError(f"the adapter {name} holds what is no finite number for {path}; its training went astray.")
    return float(alpha / (rank**0.5 if settings.get("use_rslora") else rank))


def merged(weight: Tensor, parts: Mapping[str, Tensor], scale: float) -> Tensor:
    """The new weight [out, in], in float32, on the weight's device."""
    down, up = (parts[half].to(weight.device, torch.float32) for half in "AB")
    whole = weight.float() + scale * up @ down
    if (size := parts.get("magnitude_vector")) is not None:
        size = size.to(weight.device, torch.float32).flatten()
        whole = (size / torch.linalg.vector_norm(whole, dim=1))[:, None] * whole
    return whole


def _check_fits(name: str, path: str, value: Tensor, target: Tensor) -> None:
    if value.shape != target.shape:
        raise InterpError(
            f"the adapter {name} replaces {path} by {list(value.shape)}, where {list(target.shape)} fits; open its "
            "base with the number of classes that it was trained for."
        )
    if not torch.isfinite(value).all():
        raise InterpError(f"the adapter {name} holds what is no finite number for {path}; its training went astray.")


def _check_places(name: str, places: Sequence[str], tensors: Mapping[str, Tensor], shared: Collection[str]) -> None:
    if tied := sorted(set(places) & set(shared)):
        raise InterpError(
            f"the adapter {name} changes {few(tied)}, which its model has in two places at once, so both would change; "
            "merge it with peft after untying them, and open the merged folder."
        )
    if any(tensors[where].device.type == "meta" for where in places):
        raise InterpError(
            f"the adapter {name} cannot be merged, because the memory does not hold the whole model; choose half "
            "precision (--dtype bfloat16)."
        )


def _of(settings: Mapping[str, Any], pattern: str, path: str, usual: Any) -> Any:
    """The rank or alpha of one module: that of the first pattern that its path ends with, as peft reads them."""
    for one, value in _pairs(settings, pattern).items():
        if re.match(rf"(.*\.)?({one})$", path):
            return value
    return usual


def _pairs(settings: Mapping[str, Any], pattern: str) -> Mapping[str, Any]:
    found = settings.get(pattern)
    return found if isinstance(found, dict) else {}


def _shared(hf: nn.Module) -> set[str]:
    """Parameters that stand in two places of a model."""
    names: dict[int, list[str]] = {}
    for name, parameter in hf.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for group in names.values() if len(group) > 1 for name in group}
