"""Published countermeasures over a self-supervised trunk, opened from their state dicts without fairseq.

A *system* is told by its weights' names. Sizes are read off the shapes; what weights do not show is that of the code
that was published with them, and the number of heads that of the trunks that were published. Nothing is guessed: a
trunk of another width says its number of heads in a small file beside it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel
from transformers.initialization import no_init_weights

from interp_core.errors import InterpError, few
from interp_core.models.countermeasure.systems import S3PRL, SYSTEMS, TRUNK, Parts, Shapes, System
from interp_core.models.countermeasure.trunk import PUBLISHED_HEADS, Shape, library_name, settings_of
from interp_core.models.source import first_line
from interp_core.models.torch_file import file_hash, unlike

_HEADS = "num_attention_heads"
_WRAPPED = re.compile(r"^((module|_orig_mod)\.)+")
"""What data parallel and compiled models put before the names of their weights."""
_COUNTED = "num_batches_tracked"
"""Of a batch norm: absent in old files, and never read."""


class PublishedNet(nn.Module):
    """A trunk of the library's and what a published system reads off it.

    Args:
        trunk: the library's model.
        parts: what is behind it.
    """

    def __init__(self, trunk: nn.Module, parts: Parts):
        super().__init__()
        self.trunk = trunk
        self.mix, self.pooling = parts.mix, parts.pooling
        self.projection, self.answer = parts.projection, parts.answer
        self.last_normed = self.mix is None or self.mix.last_normed
        """Whether what is read of the last layer has been through the trunk's final norm, where it has one."""

    def forward(self, waveform: Tensor) -> Tensor:
        """Logits [batch, 2] of waveforms [batch, samples] at 16 kHz."""
        if self.mix is None:
            return self.read(self.trunk(waveform).last_hidden_state, waveform.shape[1])
        # The library records layers with hooks of its own: see `Backbone.forward`.
        heard = self.trunk(waveform, output_hidden_states=True)
        last = heard.last_hidden_state if self.last_normed else heard.hidden_states[-1]
        return self.read(self.mix([*heard.hidden_states[:-1], last]), waveform.shape[1])

    def read(self, frames: Tensor, n_samples: int) -> Tensor:
        """Logits [batch, 2] of the trunk's last state, or of the mix of its states, of clips of so many samples."""
        vector = self.pooling(frames, n_samples)
        return self.answer(vector if self.projection is None else self.projection(vector))


@dataclass(frozen=True, eq=False)
class Published:
    """An opened file.

    Attributes:
        net: in eval mode.
        system: what it is.
        path: the file. weights_hash: its sha256, in hex.
    """

    net: PublishedNet
    system: System
    path: Path
    weights_hash: str


def plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Take off what wrappers put before the names."""
    return {_WRAPPED.sub("", name): value for name, value in state.items()}


def system_of(names: Mapping[str, Any]) -> System | None:
    """Which system's weights these are, by their plain names; None of any other."""
    has_trunk = {system.trunk for system in SYSTEMS if any(name.startswith(system.trunk) for name in names)}
    return next((s for s in SYSTEMS if s.trunk in has_trunk and set(s.tells) <= set(names)), None)


def check_whole(file: Path, names: Mapping[str, Any]) -> None:
    """Refuse weights of a trunk that are of no system: one of them by itself, or below a head that is not known.

    Raises:
        InterpError: says which.
    """
    known = ", ".join(system.name for system in SYSTEMS)
    if "encoder.pos_conv.0.weight_v" in names or "encoder.pos_conv.0.parametrizations.weight.original1" in names:
        raise InterpError(
            f"{file} holds a self-supervised model as fairseq saves it, without a head, so it answers nothing; open "
            f"the same model in the Hugging Face layout with a probe, or a countermeasure over it ({known})."
        )
    if {"weights_k", "cmp_linear_k.weight"} <= set(names) and not any(name.startswith(S3PRL) for name in names):
        raise InterpError(
            f"{file} is an MHFA whose self-supervised model is not below {S3PRL.rstrip('.')}, where s3prl has it; "
            "only that layout is known here (another, as of pruned models, has other names and widths)."
        )
    trunk = next((s.trunk for s in SYSTEMS if any(name.startswith(s.trunk) for name in names)), None)
    if trunk is not None:
        rest = [name for name in names if not name.startswith(trunk)]
        raise InterpError(
            f"{file} holds a self-supervised model below {trunk.rstrip('.')} and beside it "
            f"{few(sorted(rest)) or 'nothing'}, which is the head of no countermeasure that is known here ({known}), "
            "or not the whole of one."
        )


def load_published(
    file: Path, system: System, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> Published:
    """Build the net that weights belong to.

    Args:
        file: for messages, and beside which `NAME.json` may say the number of heads.
        system: see `system_of`.
        weights: by their plain names.
        dtype: of the weights.
    Raises:
        InterpError: weights that are missing, left over or of other shapes, by their published names; or a trunk of
            a width that was not published, whose number of heads nothing says.
    """
    ours = {name: found for name in weights if (found := _our_name(system, name)) is not None}
    held = {ours[name]: tensor for name, tensor in weights.items() if name in ours}
    shapes = {name: tuple(tensor.shape) for name, tensor in held.items()}
    hubert = any(name.startswith(f"{system.trunk}label_embs_concat") for name in weights)
    try:
        net = _net(file, system, shapes, hubert)
    except InterpError:
        raise
    except (IndexError, ValueError, ZeroDivisionError, RuntimeError) as error:  # another number of axes, or none of one
        raise InterpError(
            f"{file} has weights of shapes that no {system.name} has ({first_line(error)}); fetch it again."
        ) from error
    _fill(file, system, net, held, {ours[name]: name for name in ours})
    net = net.to(dtype).eval().requires_grad_(False)
    return Published(net, system, file, file_hash(file))


def _net(file: Path, system: System, shapes: Shapes, hubert: bool) -> PublishedNet:
    settings = _settings(file, system, shapes)
    with no_init_weights():
        if "num_buckets" in settings:
            trunk: nn.Module = WavLMModel(WavLMConfig(**settings))
        else:
            trunk = HubertModel(HubertConfig(**settings)) if hubert else Wav2Vec2Model(Wav2Vec2Config(**settings))
        return PublishedNet(trunk, system.parts(settings["hidden_size"], _Shapes(file, system, shapes)))


def _our_name(system: System, name: str) -> str | None:
    """Our name of a weight; None of one that acts in training only."""
    if name.startswith(system.trunk):
        found = library_name(name.removeprefix(system.trunk))
        return None if found is None else TRUNK + found
    theirs, front = next(((theirs, front) for theirs, front in system.renamed if name.startswith(theirs)), ("", ""))
    return front + name.removeprefix(theirs)


def _their_name(system: System, ours: str) -> str:
    """The published name of a weight behind the trunk."""
    theirs, front = next((theirs, front) for theirs, front in system.renamed if ours.startswith(front))
    return theirs + ours.removeprefix(front)


class _Shapes(dict[str, Shape]):
    """Shapes by our names; one that is missing is an InterpError."""

    def __init__(self, file: Path, system: System, shapes: Shapes) -> None:
        super().__init__(shapes)
        self._file, self._system = file, system

    def __missing__(self, name: str) -> Shape:
        raise InterpError(
            f"{self._file} lacks {_their_name(self._system, name)}; it is no whole checkpoint of {self._system.name}, "
            "so fetch it again."
        )


def _settings(file: Path, system: System, shapes: Shapes) -> dict[str, Any]:
    """The settings of the trunk's config."""
    inside = {name.removeprefix(TRUNK): shape for name, shape in shapes.items() if name.startswith(TRUNK)}

    def shape(name: str) -> Shape:
        if name not in inside:
            raise InterpError(
                f"{file} lacks the weight of {system.name}'s self-supervised model that the library calls {name}; it "
                "is no whole checkpoint, so fetch it again."
            )
        return inside[name]

    settings = settings_of(inside, shape)
    beside = file.with_suffix(".json")
    if beside.is_file() and "num_buckets" not in settings:  # WavLM's weights show it
        settings[_HEADS] = _heads_said(beside, settings["hidden_size"])
    if _HEADS not in settings:
        raise InterpError(
            f"{file}: its self-supervised model is {settings['hidden_size']} wide, which is none of the published "
            f"widths ({', '.join(map(str, PUBLISHED_HEADS))}), and weights do not show how many attention heads share "
            f'that; say it in {beside.name} beside the file, as {{"{_HEADS}": 16}}.'
        )
    return settings


def _heads_said(beside: Path, width: int) -> int:
    try:
        heads = json.loads(beside.read_text("utf-8"))[_HEADS]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InterpError(f'{beside} does not say {_HEADS}; write it as {{"{_HEADS}": 16}}.') from error
    if not isinstance(heads, int) or isinstance(heads, bool) or not 0 < heads <= width or width % heads:
        raise InterpError(f"{beside} says {_HEADS}={heads!r}, which does not divide the width of {width}; correct it.")
    return heads


def _fill(file: Path, system: System, net: nn.Module, held: Mapping[str, Tensor], published: Mapping[str, str]) -> None:
    wanted = net.state_dict()
    # Of training alone: it stands for masked frames.
    lacks = {n for n in set(wanted) - set(held) if not n.endswith((_COUNTED, "masked_spec_embed"))}
    of_trunk = {name.removeprefix(TRUNK) for name in lacks if name.startswith(TRUNK)}
    faults = {
        "lacks": {_their_name(system, name) for name in lacks if not name.startswith(TRUNK)},
        "lacks, by the library's names of the self-supervised model,": of_trunk,
        "holds besides": {published[name] for name in set(held) - set(wanted)},
    }
    for fault, names in faults.items():
        if names:
            raise InterpError(
                f"{file} {fault} {few(sorted(names))}; it does not fit {system.name} as its code was published."
            )
    if wrong := unlike({published[name]: v for name, v in held.items()}, {published[n]: wanted[n] for n in held}):
        raise InterpError(f"{file}: {wrong}; it does not fit {system.name} as its code was published.")
    net.load_state_dict(held, strict=False)
