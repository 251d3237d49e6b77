"""ResNet checkpoints with torchvision's names, opened as the transformers model of the same layers.

The two differ only in what they call things; stages, strides, norms and the place of the striding convolution are the
same, so logits and pooled features come out equal. torchvision itself is not needed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.initialization import no_init_weights

from interp_core.errors import InterpError
from interp_core.models.torch_file import is_state, left_over, read_weight_file, some, unlike

WRAPPERS = ("algorithm", "model_state_dict", "state_dict", "model", "net")
"""Keys under which training scripts keep the state dict; `algorithm` is WILDS'."""
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "featurizer.", "0.")
"""In front of a weight's own name: data parallel, compiled, WILDS, DomainBed, and the two halves of a split model."""
HEADS = {"classifier.": "fc.", "1.": "fc."}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def open_resnet(path: Path | str) -> ResNetForImageClassification:
    """Open a checkpoint file; see `resnet_from_state` and `read_weight_file` for errors."""
    return resnet_from_state(find_state(read_weight_file(path), str(path)), str(path))


def find_state(saved: Any, name: str = "the checkpoint") -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint: the value itself, or what lies under one of WRAPPERS, at any depth.

    Raises:
        InterpError: none there; the message says what is.
    """
    inside = saved
    while not is_state(inside):
        if not isinstance(inside, dict):
            raise InterpError(f"{name} holds a {type(inside).__name__}; expected a state dict of a ResNet.")
        under = next((key for key in WRAPPERS if isinstance(inside.get(key), dict)), None)
        if under is None:
            raise InterpError(
                f"{name} holds {some(map(str, inside)) or 'nothing'}; expected a state dict, alone or under "
                f"{', '.join(WRAPPERS)}."
            )
        inside = inside[under]
    return inside


def resnet_from_state(state: Mapping[str, Tensor], name: str = "the checkpoint") -> ResNetForImageClassification:
    """Build the model that a state dict with torchvision's names belongs to, with its weights.

    Args:
        state: of a ResNet 18, 34, 50, 101 or 152, or one of other depths and widths built of the same blocks.
        name: of the checkpoint, for messages.
    Returns:
        The model in eval mode; depths, widths and the number of classes, `LABEL_0` and on, are read off the shapes.
    Raises:
        InterpError: no such state dict; weights that are missing or left over are named.
    """
    weights = _plain(state, name)
    config = _config(weights, name)
    with no_init_weights():
        model = ResNetForImageClassification(config)
    names = {plain: renamed(plain) for plain in weights}
    back = {hf: plain for plain, hf in _all_names(config).items()}
    held = {back[hf]: value for hf, value in model.state_dict().items()}
    if faults := left_over(weights, held, may_lack=("num_batches_tracked",)):  # absent in old files, and never read
        raise InterpError(
            f"{name} {faults}; expected the weights of a ResNet with torchvision's names, with depths "
            f"{list(config.depths)}, and nothing else."
        )
    if wrong := unlike(weights, held):
        raise InterpError(f"{name} holds {wrong}; only plain ResNets are opened (no wide ones, no ResNeXt).")
    model.load_state_dict({hf: weights[plain] for plain, hf in names.items()}, strict=False)
    return model.float().eval().requires_grad_(False)


def renamed(name: str) -> str:
    """Return transformers' name of a weight or buffer that torchvision calls `name`; other names stay as they are."""
    part, _, rest = name.partition(".")
    if part == "fc":
        return f"classifier.1.{rest}"
    if part in ("conv1", "bn1"):
        return f"resnet.embedder.embedder.{_kind(part)}.{rest}"
    if not (part.startswith("layer") and part[5:].isdigit() and rest.count(".") >= 2):
        return name
    block, inner, last = rest.split(".", 2)
    front = f"resnet.encoder.stages.{int(part[5:]) - 1}.layers.{block}."
    if inner == "downsample":
        which, _, last = last.partition(".")
        return f"{front}shortcut.{'convolution' if which == '0' else 'normalization'}.{last}"
    if inner[:-1] in ("conv", "bn") and inner[-1].isdigit():
        return f"{front}layer.{int(inner[-1]) - 1}.{_kind(inner)}.{last}"
    return name


def _kind(inner: str) -> str:
    return "convolution" if inner.startswith("conv") else "normalization"


def _plain(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Take the prefixes off; a model saved both whole and in halves has every weight twice."""
    plain: dict[str, Tensor] = {}
    for key, weight in state.items():
        short = key
        while found := next((prefix for prefix in PREFIXES if short.startswith(prefix)), None):
            short = short.removeprefix(found)
        for head, ours in HEADS.items():
            if short.startswith(head):
                short = ours + short.removeprefix(head)
        if short in plain and not torch.equal(plain[short], weight):
            raise InterpError(f"{name} holds two different weights for {short}; save the state dict of one model.")
        plain[short] = weight
    return plain


def _config(weights: Mapping[str, Tensor], name: str) -> ResNetConfig:
    """Read the geometry off the shapes."""
    stem, head = weights.get("conv1.weight"), weights.get("fc.weight")
    lacking = [key for key, weight in (("conv1.weight", stem), ("fc.weight", head)) if weight is None]
    depths: list[int] = []
    while f"layer{len(depths) + 1}.0.conv1.weight" in weights:
        front, depth = f"layer{len(depths) + 1}", 0
        while f"{front}.{depth}.conv1.weight" in weights:
            depth += 1
        depths.append(depth)
    if stem is None or head is None or not depths:
        raise InterpError(
            f"{name} holds {some(weights)}, and lacks {' and '.join(lacking or ['layer1.0.conv1.weight'])}; expected "
            "the state dict of a ResNet with torchvision's names."
        )
    if stem.shape[2:] != (7, 7):
        raise InterpError(
            f"{name}'s first convolution is {stem.shape[2]}x{stem.shape[3]}, a ResNet for small images; only those "
            "that start with 7x7, stride 2 and a max pooling are opened."
        )
    last = "conv3" if "layer1.0.conv3.weight" in weights else "conv2"
    widths = [weights.get(f"layer{stage + 1}.0.{last}.weight") for stage in range(len(depths))]
    if any(width is None for width in widths):
        raise InterpError(f"{name} lacks layer{widths.index(None) + 1}.0.{last}.weight; fetch the file again.")
    return ResNetConfig(
        num_channels=stem.shape[1],
        embedding_size=stem.shape[0],
        layer_type="bottleneck" if last == "conv3" else "basic",
        depths=depths,
        hidden_sizes=[len(width) for width in widths if width is not None],
        downsample_in_first_stage=False,
        num_labels=len(head),
    )


def _all_names(config: ResNetConfig) -> dict[str, str]:
    """Every name that torchvision may give in a model of this geometry, with transformers' name."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    plain = ["fc.weight", "fc.bias", "conv1.weight", *(f"bn1.{part}" for part in norm)]
    for stage, depth in enumerate(config.depths, 1):
        for block in range(depth):
            front = f"layer{stage}.{block}."
            plain += [f"{front}downsample.0.weight", *(f"{front}downsample.1.{part}" for part in norm)]
            for i in (1, 2, 3):
                plain += [f"{front}conv{i}.weight", *(f"{front}bn{i}.{part}" for part in norm)]
    return {name: renamed(name) for name in plain}


def resnet_pixels(image: Image.Image | np.ndarray, size: int = 96) -> Tensor:
    """Turn one image into what the model takes.

    Args:
        image: a PIL image of any mode, or uint8 [height, width] or [height, width, 3 or 4].
        size: height and width to scale to, in pixels, by PIL's bilinear filter, which smooths when it shrinks.
    Returns:
        float32 [3, size, size], ImageNet's mean and deviation taken out of each colour.
    Raises:
        InterpError: an array of another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
            raise InterpError(
                f"the image is {image.dtype} {image.shape}; expected uint8 [height, width] or [height, width, 3 or 4]."
            )
        image = Image.fromarray(image)
    colours = image.convert("RGB")
    if colours.size != (size, size):
        colours = colours.resize((size, size), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(colours)).permute(2, 0, 1).float() / 255  # [3, size, size]
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / std
