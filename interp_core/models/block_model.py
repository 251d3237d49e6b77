"""A loaded library model: its sizes, its list of blocks, and the module where each site is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from interp_core.digests import joined
from interp_core.errors import InterpError
from interp_core.jobs import PassLock
from interp_core.models.arch import SITE_MODULES, Blocks, Side, kinds_of
from interp_core.sites import OF_HEADS, STAGES, Kind, Site


class Place(NamedTuple):
    """Where a site is in the library's model.

    Attributes:
        module: whose input or output it is.
        side: input, output; or folded, for an output projection whose weights the module multiplies by without
            calling it: then `module` is the attention and `proj` the projection.
        windows: how many windows of a sample stand one behind the other along the batch axis.
        image: whether the value is [batch, width, ...] with the places behind, instead of [batch, pos, width].
        flat: whether the value is [batch, width]; it is shown as one position.
        streams: where several streams run side by side and the value is [streams, batch, pos, width], how many; they
            are shown behind one another, [batch, pos, streams * width].
        proj: of a folded site.
    """

    module: nn.Module
    side: Side
    windows: int = 1
    image: bool = False
    flat: bool = False
    streams: int = 1
    proj: nn.Module | None = None


def side_by_side(value: Tensor) -> Tensor:
    """Streams one behind the other at each position: [streams, batch, pos, width] -> [batch, pos, streams * width]."""
    return value.movedim(0, -2).flatten(-2)


def in_streams(rows: Tensor, streams: int) -> Tensor:
    """Undo `side_by_side`."""
    return rows.unflatten(-1, (streams, -1)).movedim(-2, 0).contiguous()


@dataclass(eq=False)
class BlockModel:
    """The library's module, and by its row of the table where the blocks and the sites are.

    Every forward pass, hooked or plain, holds `lock`: hooks live on the shared module, so a second thread's pass
    would otherwise see them.
    """

    name: str
    """What the user typed: a bundled name, a folder, a hub id."""
    weights_hash: str
    hf: Any
    arch: Blocks
    lock: PassLock = field(default_factory=PassLock, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)
    """File -> SHA-256 of all that decides its numbers, as it was opened; {} where that is not known."""
    bits: str = field(default="", kw_only=True)
    """int8 or int4 where the blocks' weights were quantised when it was opened."""

    @property
    def key(self) -> str:
        """Names all that changes the numbers: weights, settings, processor, dtype, device, attention kernel."""
        kernel = getattr(self.config, "_attn_implementation", None)
        content = f"{self.weights_hash[:16]}{joined(dict(self.files))[:16]}"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{content}|{dtype}{self.bits}|{self.device.type}|{kernel}"

    @property
    def precision(self) -> str:
        """What --dtype takes to open it like this."""
        return self.bits or str(self.dtype).removeprefix("torch.")

    @property
    def config(self) -> Any:
        """The library's config."""
        return self.hf.config

    @property
    def sizes(self) -> Any:
        """The part of the config that holds the sizes of the blocks."""
        return self.sizes_of(self.arch)

    def sizes_of(self, row: Blocks) -> Any:
        """The part of the config that holds the sizes of the blocks of a row, of which a model may have several."""
        config = self.config
        for name in filter(None, row.sizes.split(".")):
            config = getattr(config, name)
        return config

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        """Heads of a block; where they differ, the most."""
        return getattr(self.sizes, self.arch.heads)

    def heads_at(self, layer: int) -> int:
        return self.n_heads

    @property
    def d_model(self) -> int:
        return self.sizes.hidden_size

    @property
    def d_head(self) -> int:
        """Of every block; InterpError where they differ, see `d_head_at`."""
        widths = {self.d_head_at(layer) for layer in range(self.n_layers)}
        if len(widths) > 1:
            raise InterpError(f"{self.name} has heads of widths {sorted(widths)}; ask for that of a layer.")
        return widths.pop()

    def d_head_at(self, layer: int) -> int:
        return getattr(self.sizes, "head_dim", None) or self.d_model // self.n_heads

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.hf.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        """Where inputs go. Weights that were put off to memory or disk lie nowhere between two passes."""
        here = next((p.device for p in self.hf.parameters() if p.device.type != "meta"), None)
        if here is not None:
            return here
        told = getattr(getattr(self.hf, "_hf_hook", None), "execution_device", None)  # an index of a GPU, a name
        return torch.device("cpu" if told is None else told)

    @property
    def body(self) -> nn.Module:
        """The base model, without the head that a checkpoint may have."""
        return self.hf.get_submodule(self.arch.body) if hasattr(self.hf, self.arch.body) else self.hf

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(cast(nn.ModuleList, self.body.get_submodule(self.arch.blocks)))

    @property
    def batch_first(self) -> frozenset[str]:
        """Keyword arguments of a block whose first axis is the batch times something."""
        return frozenset()

    @property
    def shared(self) -> frozenset[str]:
        """Keyword arguments of a block that all rows share, whatever their first axis is."""
        return frozenset()

    @property
    def passed_on(self) -> str:
        """The argument of a block, a mapping, in which blocks leave tensors, batch first, for later ones; else ""."""
        return self.arch.passed_on

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of site inside the blocks that this model has."""
        return kinds_of(self.arch)

    @property
    def stages(self) -> Mapping[Kind, Place]:
        """The sites behind the blocks that this model has, in the order of its forward pass."""
        return {}

    def locate(self, site: Site) -> Place:
        """Return where a site is; InterpError when the model has no such layer, head or kind."""
        if site.kind in STAGES:
            if site.kind not in self.stages:
                raise InterpError(
                    f"{self.name} has no {site.kind} (behind its blocks: {', '.join(self.stages) or 'no site'})."
                )
            return self.stages[site.kind]
        if not 0 <= site.layer < self.n_layers:
            raise InterpError(
                f"layer={site.layer} is outside {self.name}'s {self.n_layers} layers (valid: 0 to {self.n_layers - 1})."
            )
        if site.kind not in self.kinds:
            raise InterpError(f"{self.name} has no {site.kind} (its sites: {', '.join(self.kinds)}).")
        n_heads = self.heads_at(site.layer)
        if site.head is not None and not 0 <= site.head < n_heads:
            raise InterpError(
                f"head={site.head} is outside {self.name}'s {n_heads} heads (valid: 0 to {n_heads - 1}) "
                f"in layer {site.layer}."
            )
        column, side = SITE_MODULES[site.kind]
        block = self.blocks[site.layer]
        try:
            module = block if column is None else block.get_submodule(self.inside(column))
        except AttributeError as error:
            raise InterpError(
                f"the blocks of {self.name} have no {self.inside(str(column))!r}, where its row in arch.py puts "
                f"{site.kind}; correct the row's {column!r} (None where there is no such site)."
            ) from error
        if site.kind in OF_HEADS and not self.arch.attn_proj_called:
            assert self.arch.attn is not None
            return Place(block.get_submodule(self.arch.attn), "folded", proj=module)
        return Place(module, side)

    def inside(self, column: str) -> str:
        """Where, below a block, the column of the table leads in this very model."""
        return getattr(self.arch, column)

    def check_ready(self) -> None:
        """Refuse to run in training mode, where dropout and layer drop make every number random."""
        if self.hf.training:
            raise InterpError(f"{self.name} is in training mode, which adds dropout; call eval() on it first.")
