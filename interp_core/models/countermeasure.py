"""ASVspoof 5 countermeasures as the thesis code saves them: open `best.pt`, feed it, read its score, compare two.

A checkpoint holds the whole model, backbone included, and its resolved config. Sizes are read off the weights; what
weights do not show comes from the config or from the published base models, so nothing is fetched.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from interp_core.errors import InterpError
from interp_core.models.countermeasure_layout import layout_of
from interp_core.models.countermeasure_net import CountermeasureNet
from interp_core.models.weight_file import file_hash, read_weight_file

__all__ = [
    "Countermeasure",
    "CountermeasureNet",
    "bonafide_margin",
    "bonafide_probability",
    "equal_activations",
    "identical_parts",
    "load_countermeasure",
    "model_samples",
]

FORWARD_SETTINGS = (  # what changes a backbone's output and does not show in its weights
    *("model_type", "conv_stride", "feat_extract_norm", "feat_extract_activation", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "do_stable_layer_norm", "max_bucket_distance"),
)


@dataclass(frozen=True, eq=False)
class Countermeasure:
    """A loaded checkpoint.

    Attributes:
        net: the model, in eval mode.
        path: the file that was read.
        weights_hash: sha256 of that file, in hex.
        config: the run's resolved config.
        epoch: when it was saved; None where the file does not say.
        metrics: what it scored then, by name.
        method: `erm` or `dann`.
        max_seconds: the length that every clip is cut or filled up to.
        sample_rate: Hz.
        codec_vocab: codec name -> class of the discriminator; empty where no codec_vocab.json lies beside the run.
    """

    net: CountermeasureNet
    path: Path
    weights_hash: str
    config: Mapping[str, Any]
    epoch: int | None
    metrics: Mapping[str, Any]
    method: str
    max_seconds: float
    sample_rate: int
    codec_vocab: Mapping[str, int] = field(default_factory=dict)

    def inputs(self, clips: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Return the net's keyword arguments for mono clips, each [n_samples] at the model's rate."""
        rows = [model_samples(clip, self.max_seconds, self.sample_rate) for clip in clips]
        where = next(self.net.parameters())
        waveform = torch.stack(rows).to(where.device, where.dtype)
        return {"waveform": waveform, "lengths": torch.full((len(rows),), waveform.shape[1], device=where.device)}


def model_samples(samples: np.ndarray | Tensor, seconds: float, rate: int = 16_000) -> Tensor:
    """Cut or fill a clip as the checkpoints were trained and scored: centre crop, zeros at the end, no normalisation.

    Args:
        samples: [n_samples] mono at `rate`, full scale 1.
        seconds: the length that the model takes.
        rate: Hz.
    Returns:
        [round(seconds * rate)] float32.
    Raises:
        InterpError: no mono clip, an empty one, or one with NaN or infinity.
    """
    clip = torch.as_tensor(samples, dtype=torch.float32)
    if clip.ndim != 1 or not len(clip):
        raise InterpError(f"samples are {tuple(clip.shape)}, expected one mono clip [n_samples]; average its channels.")
    if not clip.isfinite().all():
        raise InterpError("the clip holds NaN or infinity; decode it again.")
    wanted = round(seconds * rate)
    start = max(0, (len(clip) - wanted) // 2)
    clip = clip[start : start + wanted]
    return torch.nn.functional.pad(clip, (0, wanted - len(clip)))


def bonafide_probability(task_logits: Tensor, bonafide_index: int = 0) -> Tensor:
    """P(bona fide) [batch] of logits [batch, n_classes]; higher is more bona fide. Saturates: see bonafide_margin."""
    return task_logits.float().softmax(-1)[:, _checked_index(task_logits, bonafide_index)]


def bonafide_margin(task_logits: Tensor, bonafide_index: int = 0) -> Tensor:
    """Logit of bona fide minus logit of spoof [batch], nats; orders clips as the probability does and never saturates.

    Raises:
        InterpError: logits of more or fewer than two classes, or an index outside them.
    """
    index = _checked_index(task_logits, bonafide_index)
    if task_logits.shape[-1] != 2:
        raise InterpError(f"a margin needs the logits of two classes, not of {task_logits.shape[-1]}.")
    return task_logits[:, index].float() - task_logits[:, 1 - index].float()


def _checked_index(task_logits: Tensor, index: int) -> int:
    if task_logits.ndim != 2 or not 0 <= index < task_logits.shape[1]:
        raise InterpError(
            f"bonafide_index={index} does not fit logits {tuple(task_logits.shape)}, expected [batch, n_classes]; "
            "the thesis code counts bona fide as 0, the official baselines as 1."
        )
    return index


def load_countermeasure(path: Path | str, dtype: torch.dtype = torch.float32) -> Countermeasure:
    """Open a checkpoint.

    Args:
        path: `best.pt`, or a run folder that holds `checkpoints/best.pt` or `best.pt`.
        dtype: of the weights.
    Raises:
        InterpError: no such file, no checkpoint of this kind, a pickle with more in it than tensors and plain
            values (it is not read then), or weights that do not make the model; says what to do.
    """
    file = _checkpoint_file(Path(path).expanduser())
    saved = _read(file)
    config, weights = saved.get("config"), saved.get("model_state_dict")
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise InterpError(
            f"{file} holds {', '.join(map(str, saved)) or 'nothing'}; expected a checkpoint of the thesis code with "
            "'model_state_dict' and 'config'; give the run's best.pt, or save the config into it."
        )
    weights = {_current_name(name): tensor for name, tensor in weights.items()}
    layout = layout_of(file, config, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    with no_init_weights():
        net = CountermeasureNet(layout)
    _fill(file, net, weights)
    audio = config.get("audio") or {}
    return Countermeasure(
        net=net.to(dtype).eval().requires_grad_(False),
        path=file,
        weights_hash=file_hash(file),
        config=config,
        epoch=saved.get("epoch"),
        metrics=saved.get("metrics") or {},
        method=(config.get("training") or {}).get("method") or ("dann" if layout.discriminator else "erm"),
        max_seconds=float(audio.get("max_duration_sec", 6.0)),
        sample_rate=int(audio.get("sample_rate", 16_000)),
        codec_vocab=_vocab(file),
    )


def _checkpoint_file(path: Path) -> Path:
    if path.is_dir():
        for found in (path / "checkpoints" / "best.pt", path / "best.pt"):
            if found.is_file():
                return found
        raise InterpError(f"{path} holds neither checkpoints/best.pt nor best.pt; give the run folder or the file.")
    if not path.is_file():
        raise InterpError(f"{path} does not exist; give a best.pt or the run folder that holds it.")
    return path


def _read(file: Path) -> dict[str, Any]:
    whole = "save again 'model_state_dict', 'config', 'epoch' and 'metrics', with every number an int or a float"
    saved = read_weight_file(file, save=whole)
    if not isinstance(saved, dict):
        raise InterpError(f"{file} holds a {type(saved).__name__}; expected a checkpoint of the thesis code.")
    return saved


def _current_name(key: str) -> str:
    """Old saves of weight norm call its two parts weight_g and weight_v."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if key.endswith(f"pos_conv_embed.conv.{old}"):
            return key.removesuffix(old) + f"parametrizations.weight.{new}"
    return key


def _fill(file: Path, net: CountermeasureNet, weights: Mapping[str, Tensor]) -> None:
    wanted = set(net.state_dict())
    faults = {"lacks": wanted - set(weights), "holds, beyond what its config describes,": set(weights) - wanted}
    for fault, names in faults.items():
        if names:
            first = sorted(names)
            more = f" and {len(first) - 3} more" if len(first) > 3 else ""
            raise InterpError(
                f"{file} {fault} {', '.join(first[:3])}{more}; it does not fit the thesis code's model, or its config "
                "is another run's."
            )
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:  # its first line names the class, the next the first weight that does not fit
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise InterpError(
            f"{file}: {lines[0] if lines else error}; say the backbone's sizes in the checkpoint's config under "
            "backbone.hf_config."
        ) from error


def _vocab(file: Path) -> dict[str, int]:
    for folder in (file.parent, file.parent.parent):
        if (found := folder / "codec_vocab.json").is_file():
            try:
                return {str(name): int(index) for name, index in json.loads(found.read_text("utf-8")).items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise InterpError(f"{found} is no JSON object of codec -> number ({error}); correct it.") from error
    return {}


def identical_parts(a: CountermeasureNet, b: CountermeasureNet) -> dict[str, bool]:
    """Say of each part whether two models hold it bit for bit alike, with the settings that act in it.

    Returns:
        In the order of the forward pass: `stem` (the backbone before its blocks), `layer 0` to the last,
        `after_layers` where the backbone has weights there that the mix never reads, `layer_pooling`, `pooling`,
        `projection`, `task_head`, and `domain_discriminator` where either has one. A part that only one has differs.
    """
    left, right = _by_part(a), _by_part(b)
    alike = {part: _same(left.get(part), right.get(part)) for part in (left if len(left) >= len(right) else right)}
    alike["stem"] &= _settings(a) == _settings(b)
    alike["layer_pooling"] &= a.layout.mixed_layers == b.layout.mixed_layers
    alike["pooling"] &= a.layout.pooling == b.layout.pooling
    return alike


def equal_activations(a: CountermeasureNet, b: CountermeasureNet) -> tuple[str, ...]:
    """Name the activations that the same clip must have in both models: to copy one across does nothing.

    Returns:
        Of `layer 0` to the last, `mixed`, `pooled`, `repr`, `task_logits`: each whose every cause is identical.
    """
    alike = identical_parts(a, b)
    equal: list[str] = []
    if alike["stem"]:
        for layer in range(len(a.layers)):
            if not alike.get(f"layer {layer}", False):
                break
            equal.append(f"layer {layer}")
    so_far = all(f"layer {layer}" in equal for layer in a.layout.mixed_layers)
    later = {"layer_pooling": "mixed", "pooling": "pooled", "projection": "repr", "task_head": "task_logits"}
    for part, activation in later.items():
        so_far = so_far and alike[part]
        if so_far:
            equal.append(activation)
    return tuple(equal)


def _settings(net: CountermeasureNet) -> dict[str, Any]:
    found = {name: getattr(net.layout.hf, name, None) for name in FORWARD_SETTINGS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _by_part(net: CountermeasureNet) -> dict[str, dict[str, Tensor]]:
    n_layers, stable = len(net.layers), net.layout.hf.do_stable_layer_norm
    order = ["stem", *(f"layer {i}" for i in range(n_layers)), "after_layers"]
    order += ["layer_pooling", "pooling", "projection", "task_head", "domain_discriminator"]
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in order}
    for name, tensor in net.state_dict().items():
        if name == "backbone.model.masked_spec_embed":
            continue  # acts in training only
        first, _, rest = name.removeprefix("backbone.").partition(".")
        if layer := re.match(r"encoder\.layers\.(\d+)\.", rest):
            first = f"layer {layer[1]}"
        elif first == "model":
            after = rest.startswith("adapter.") or (stable and rest.startswith("encoder.layer_norm."))
            first = "after_layers" if after else "stem"
        parts[first][name] = tensor
    return {part: held for part, held in parts.items() if held or part == "pooling"}


def _same(left: Mapping[str, Tensor] | None, right: Mapping[str, Tensor] | None) -> bool:
    if left is None or right is None or set(left) != set(right):
        return False
    return all(_bits_equal(left[name], right[name]) for name in left)


def _bits_equal(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return torch.equal(*(tensor.cpu().reshape(-1).contiguous().view(torch.uint8) for tensor in (left, right)))
