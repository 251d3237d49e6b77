"""Other routes to the engine's numbers: plain torch hooks on the library's modules, one full forward a number.

Nothing here comes from interp_core.trace; paths and tuple handling are written out anew.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PROMPT = "What is the emotion of this audio?"


def gap(found: Tensor, expected: Tensor) -> float:
    """Return max |found - expected| / max(1, max |expected|), the number that a tolerance bounds."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))


def in_rows(change: Callable[[Tensor], Tensor | None]) -> Callable[[Tensor], Tensor | None]:
    """Show a change [batch, pos, width] too where streams run side by side, [streams, batch, pos, width of one]."""

    def shown(value: Tensor) -> Tensor | None:
        if value.ndim < 4:
            return change(value)
        new = change(torch.cat(list(value), -1))
        return None if new is None else torch.stack(new.chunk(len(value), -1))

    return shown


def place(hf: Any, kind: str, layer: int) -> tuple[nn.Module, bool]:
    """Return a site's module and whether the site is its input; layer -1 of resid_post enters block 0."""
    blocks = hf.model.language_model.layers
    if kind == "resid_post" and layer == -1:
        return blocks[0], True
    block = blocks[layer]
    return {
        "resid_pre": (block, True),
        "resid_post": (block, False),
        "attn_out": (block.self_attn, False),
        "mlp_out": (block.mlp, False),
        "head_out": (block.self_attn.o_proj, True),
        "mlp_act": (block.mlp.down_proj, True),
        "resid_mid": (block.post_attention_layernorm, True),
    }[kind]


def hook(hf: Any, kind: str, layer: int, change: Callable[[Tensor], Tensor | None]) -> Any:
    """Register a plain torch hook that shows `change` the activation and puts in what it returns, if anything."""
    module, is_input = place(hf, kind, layer)

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = change(args[0])
        return None if new is None else ((new, *args[1:]), kwargs)

    def after(_module: Any, _args: Any, output: Any) -> Any:
        new = change(output[0] if isinstance(output, tuple) else output)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return (
        module.register_forward_pre_hook(before, with_kwargs=True) if is_input else module.register_forward_hook(after)
    )


@torch.inference_mode()
def states(hf: Any, inputs: dict[str, Tensor], kind: str, layers: Sequence[int]) -> dict[int, Tensor]:
    """Return the activation [pos, width] at a kind of site in each layer of a plain forward."""
    seen: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(hook(hf, kind, layer, lambda v, layer=layer: seen.update({layer: v[0].clone()})).remove)
        hf(**inputs, use_cache=False)
    return seen


def interpolated(state: Tensor, source: Sequence[float]) -> Tensor:
    """Read `state` [pos, width] at fractional positions, a column at a time with numpy's own interpolation."""
    columns = state.double().numpy().T
    read = np.stack([np.interp(np.asarray(source), np.arange(columns.shape[1]), column) for column in columns], -1)
    return torch.from_numpy(read).to(state.dtype)


@torch.inference_mode()
def plain_logits(hf: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return the logits [d_vocab] at the last position of an untouched forward."""
    return hf(**inputs, use_cache=False).logits[0, -1].float()


@torch.inference_mode()
def naive_sweep(
    hf: Any,
    recipient: dict[str, Tensor],
    donor: dict[str, Tensor],
    kind: str,
    layers: Sequence[int],
    positions: Sequence[int],
    source: Sequence[float],
    alpha: float = 1.0,
    columns: slice = slice(None),
) -> Tensor:
    """Patch one layer after the other; returns [n_layers, d_vocab] logits at the last position."""
    donors, rows = states(hf, donor, kind, layers), []
    for layer in layers:
        incoming = interpolated(donors[layer], source)

        def change(value: Tensor, incoming: Tensor = incoming) -> Tensor:
            value = value.clone()
            for at, new in zip(positions, incoming, strict=True):
                value[0, at, columns] = (1 - alpha) * value[0, at, columns] + alpha * new[columns]
            return value

        handle = hook(hf, kind, layer, change)
        rows.append(hf(**recipient, use_cache=False).logits[0, -1].float())
        handle.remove()
    return torch.stack(rows)


@torch.inference_mode()
def naive_knockout(
    hf: Any, inputs: dict[str, Tensor], audio: tuple[int, int], readers: Sequence[int], layers: Sequence[int]
) -> Tensor:
    """Forbid `readers` to attend to the audio in `layers`; an eager model, whose blocks are given the whole mask."""

    def blind(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = kwargs["attention_mask"].clone()
        for reader in readers:
            mask[:, :, reader, audio[0] : audio[1]] = -1e9
        return args, {**kwargs, "attention_mask": mask}

    with ExitStack() as stack:
        for layer in layers:
            block = hf.model.language_model.layers[layer]
            stack.callback(block.register_forward_pre_hook(blind, with_kwargs=True).remove)
        return hf(**inputs, use_cache=False).logits[0, -1].float()
