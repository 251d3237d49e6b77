"""ASVspoof 5 countermeasures as the thesis code saves them: open `best.pt`, feed it, read its score.

A checkpoint holds the whole model, backbone included, and its resolved config. Sizes are read off the weights; what
weights do not show comes from the config or from the published base models, so nothing is fetched.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from interp_core.errors import InterpError, few
from interp_core.models.countermeasure.layout import layout_of
from interp_core.models.countermeasure.net import CountermeasureNet
from interp_core.models.torch_file import file_hash, read_weight_file

__all__ = [
    "Countermeasure",
    "CountermeasureNet",
    "bonafide_margin",
    "load_countermeasure",
    "model_samples",
]


MOST_SECONDS = 3600
"""Every clip is filled up to the checkpoint's length, so a longer one would fill the memory."""


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


def bonafide_margin(task_logits: Tensor) -> Tensor:
    """Logit of bona fide minus logit of spoof [batch], nats, of logits [batch, 2] as the thesis code orders them;
    orders clips as the probability of bona fide does, and never saturates."""
    return task_logits[:, 0].float() - task_logits[:, 1].float()


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
    audio = config.get("audio") or {}
    rate, seconds = audio.get("sample_rate", 16_000), audio.get("max_duration_sec", 6.0)
    if not (isinstance(rate, int) and 1_000 <= rate <= 768_000 and isinstance(seconds, int | float)) or not (
        0 < seconds <= MOST_SECONDS
    ):
        raise InterpError(
            f"the config in {file} says audio.sample_rate={rate!r} and audio.max_duration_sec={seconds!r}; expected Hz "
            f"and up to {MOST_SECONDS} seconds, so correct them."
        )
    layout = layout_of(file, config, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    with no_init_weights():
        net = CountermeasureNet(layout)
    _fill(file, net, weights)
    return Countermeasure(
        net=net.to(dtype).eval().requires_grad_(False),
        path=file,
        weights_hash=file_hash(file),
        config=config,
        epoch=saved.get("epoch"),
        metrics=saved.get("metrics") or {},
        method=(config.get("training") or {}).get("method") or ("dann" if layout.discriminator else "erm"),
        max_seconds=float(seconds),
        sample_rate=rate,
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
    """Old saves of weight norm call its two parts weight_g and weight_v; wrappers put their own name in front."""
    key = re.sub(r"^((module|_orig_mod)\.)+", "", key)
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if key.endswith(f"pos_conv_embed.conv.{old}"):
            return key.removesuffix(old) + f"parametrizations.weight.{new}"
    return key


def _fill(file: Path, net: CountermeasureNet, weights: Mapping[str, Tensor]) -> None:
    wanted = set(net.state_dict())
    faults = {"lacks": wanted - set(weights), "holds, beyond what its config describes,": set(weights) - wanted}
    for fault, names in faults.items():
        if names:
            raise InterpError(
                f"{file} {fault} {few(sorted(names))}; it does not fit the thesis code's model, or its config "
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
