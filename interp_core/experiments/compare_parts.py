"""Which parts two models of one shape hold alike, and which patches between them must therefore do nothing.

Read off the weights, before anything runs. A shared frozen backbone is the common case: its layers are the same in
both models, so the donor's activations there are the base's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.countermeasure import equal_activations, identical_parts
from interp_core.models.encoders import Encoder
from interp_core.models.spoof import SpoofDetector
from interp_core.models.subject import Subject
from interp_core.sites import Site

STAGE_NAMES = {"mixed": "mixed", "pooled": "pooled", "repr": "projection", "task_logits": "logits"}
NOT_OF_THE_NUMBERS = {
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "id2label", "label2id", "transformers_version"),
    *("problem_type", "num_labels", "finetuning_task"),
}
TRAINING_ONLY = ("masked_spec_embed",)


def check_comparable(base: Subject, donor: Subject) -> None:
    """Refuse two models whose activations cannot stand in for each other's, before anything runs."""
    facts = {
        "family": (base.config.model_type, donor.config.model_type),
        "layers": (base.n_layers, donor.n_layers),
        "width": (base.d_model, donor.d_model),
        "sample rate": (base.sample_rate, donor.sample_rate),
        "sites behind the blocks": (tuple(base.stages), tuple(donor.stages)),
    }
    unlike = [f"{name} {a} and {b}" for name, (a, b) in facts.items() if a != b]
    if unlike:
        raise InterpError(
            f"{base.name} and {donor.name} are not of one shape: {'; '.join(unlike)}. Compare two models of one family."
        )


def alike_parts(base: Subject, donor: Subject) -> dict[str, bool]:
    """Say of each part, in the order of the forward pass, whether both models hold it bit for bit alike."""
    if _countermeasures(base, donor):
        return identical_parts(base.hf, donor.hf)
    left, right = _by_part(base), _by_part(donor)
    alike = {part: _same(left.get(part, {}), right.get(part, {})) for part in left | right}
    alike["stem"] &= _settings(base) == _settings(donor)
    return alike


def null_sites(base: Subject, donor: Subject) -> frozenset[Site]:
    """The sites at which the same clip has the same activation in both models, whatever the clip."""
    if _countermeasures(base, donor):
        return frozenset(_site(name) for name in equal_activations(base.hf, donor.hf))
    alike = alike_parts(base, donor)
    found = set()
    if alike["stem"]:
        for layer in range(base.n_layers):
            if not alike[f"layer {layer}"]:
                break
            found.add(Site("resid_post", layer))
    if all(alike.values()):  # which weights of the readout stand before a stage differs from family to family
        found |= {Site(kind) for kind in base.stages}
    return frozenset(found)


def mix_weights(subject: Subject) -> torch.nn.Parameter | None:
    """The learned weights with which the readout mixes the layers; None where it reads the last one alone."""
    if subject.layer_shares() is None:
        return None
    found = (
        subject.hf.backbone.layer_pooling.weights if isinstance(subject, SpoofDetector) else subject.hf.layer_weights
    )
    return found


def mix_refusal(base: Subject, donor: Subject) -> str:
    """Say why the donor's layer weights cannot take the place of the base's; empty where they can."""
    mine, theirs = mix_weights(base), mix_weights(donor)
    if mine is None or theirs is None:
        return "the readout mixes no layers"
    layouts = [getattr(getattr(s.hf, "layout", None), "mixed_layers", None) for s in (base, donor)]
    if mine.shape != theirs.shape or layouts[0] != layouts[1]:
        return "the two models mix other layers"
    return ""


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree to the last bit."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(*(t.detach().cpu().reshape(-1).contiguous().view(torch.uint8) for t in (a, b)))


def _countermeasures(base: Subject, donor: Subject) -> bool:
    pair = (base, donor)
    return all(isinstance(subject, SpoofDetector) and subject.probe is None for subject in pair)


def _site(name: str) -> Site:
    if name.startswith("layer "):
        return Site("resid_post", int(name.removeprefix("layer ")))
    return Site(STAGE_NAMES[name])  # type: ignore[arg-type]


def _by_part(subject: Subject) -> dict[str, dict[str, Tensor]]:
    """Every weight under `stem`, `layer 0` to the last, or `readout`."""
    layers = {id(module): f"layer {i}" for i, module in enumerate(subject.blocks)}
    places = {name: layers[id(module)] for name, module in subject.hf.named_modules() if id(module) in layers}
    readout = _readout_names(subject)
    parts: dict[str, dict[str, Tensor]] = {"stem": {}, **{part: {} for part in layers.values()}, "readout": {}}
    for name, tensor in subject.hf.state_dict().items():
        if name.endswith(TRAINING_ONLY):
            continue
        part = next((part for place, part in places.items() if name.startswith(f"{place}.")), None)
        if part is None:
            part = "readout" if name.startswith(readout) else "stem"
        parts[part][name] = tensor
    if isinstance(subject, Encoder) and subject.probe is not None:
        parts["readout"] |= {"probe.weight": subject.probe.weight, "probe.bias": subject.probe.bias}
    return parts


def _readout_names(subject: Subject) -> tuple[str, ...]:
    """Beginnings of the names of weights that act behind the last block; all others count as before the first."""
    arch: Any = subject.arch
    named = {id(module): name for name, module in subject.hf.named_modules()}
    if isinstance(subject, Encoder):
        # Beside the base model a checkpoint has its head; inside it, a norm behind the blocks where there is one.
        outside = () if subject.body is subject.hf else tuple(name for name, _ in subject.hf.named_children())
        found = tuple(f"{name}." for name in outside if not named[id(subject.body)].startswith(name))
        absent = arch.norm is None or (arch.norm_if and not getattr(subject.sizes, arch.norm_if))
        norm = () if absent else (f"{named[id(subject.body.get_submodule(arch.norm))]}.",)
        return (*found, "layer_weights", *norm)
    return tuple(f"{getattr(arch, part)}." for part in ("norm", "head") if getattr(arch, part, None))


def _settings(subject: Subject) -> dict[str, Any]:
    config = subject.config.to_dict() if hasattr(subject.config, "to_dict") else dict(vars(subject.config))
    return {name: value for name, value in config.items() if name not in NOT_OF_THE_NUMBERS}


def _same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return set(left) == set(right) and all(same_bits(left[name], right[name]) for name in left)


def named_alike(alike: Mapping[str, bool]) -> Sequence[str]:
    """The parts that are alike, runs of layers put together: `stem`, `layers 0 to 11`, `pooling`."""
    found: list[str] = []
    run: list[int] = []

    def close() -> None:
        if run:
            found.append(f"layer {run[0]}" if len(run) == 1 else f"layers {run[0]} to {run[-1]}")
            run.clear()

    for part, same in alike.items():
        if part.startswith("layer ") and same:
            run.append(int(part.removeprefix("layer ")))
            continue
        close()
        if same:
            found.append(part.replace("_", " "))
    close()
    return found
