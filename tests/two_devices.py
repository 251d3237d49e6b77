"""Two devices that are none: tensors that lie on the CPU and say that they lie on `twin:0` or `twin:1`.

Every operation looks at where its tensors say they are and fails where a machine with two GPUs would, and numbers come
out as on one CPU. Run as a program it is the command line over models whose blocks are split between the two, with the
hooks of accelerate that move what goes from one to the other:

    python -m tests.two_devices patch --model ... --out ...

It changes torch for the whole process, so tests start it as one of its own.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU = torch.device("cpu")
FIRST = "twin:0"
# Where one of these reads or writes another device, the library itself carries it over.
_CROSS = ("copy_", "_copy_from", "_to_copy")
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")


class Twin(torch.Tensor):
    """A tensor on the CPU that says it lies elsewhere."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: Any) -> "Twin":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(device),
        )
        made.inner = inner
        return made

    def __init__(self, inner: Tensor, device: Any) -> None:
        super().__init__()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.tolist, torch.Tensor.untyped_storage, torch.Tensor.data_ptr):
            return func(args[0].inner)
        if func is torch.Tensor.__getitem__ and isinstance(args[0], Twin) and not _has_grad(args[0]):  # a view
            return cls(args[0].inner[tree_map(_bare, args[1])], args[0].device)
        if func is torch.Tensor.__setitem__ and isinstance(args[0], Twin) and not _has_grad(*args[::2]):
            put = args[2]
            if isinstance(put, Tensor) and put.ndim and put.device != args[0].device:
                raise RuntimeError(f"a tensor on {put.device} put into one on {args[0].device}")
            args[0].inner[tree_map(_bare, args[1])] = _bare(put)
            return None
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError(f"can't convert a tensor on {args[0].device} to numpy; move it to the CPU first")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class TwoDevices(TorchDispatchMode):
    """Sees also the operations that make a tensor out of none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _has_grad(*values: Any) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in values)


def _bare(value: Any) -> Any:
    return value.inner if isinstance(value, Twin) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name, asked = func.overloadpacket.__name__, kwargs.get("device")
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    places = {t.device for t in tensors if t.ndim or t.device != CPU}  # a number on the CPU goes anywhere
    if name in _CROSS:
        places = {args[0].device}
    elif name in _INDEXED:  # by indices that may lie on the CPU
        places = {t.device for t in tensors if t.dtype.is_floating_point} | {args[0].device}
        places |= {t.device for t in tensors} - {CPU}
    if len(places) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {places}")
    device = torch.device(asked) if asked is not None else next(iter(places), CPU)
    if asked is not None:
        kwargs = {**kwargs, "device": CPU}
    out = func(*tree_map(_bare, args), **tree_map(_bare, kwargs))
    if args and isinstance(args[0], Tensor) and out is _bare(args[0]) and args[0].device == device:  # in place
        return args[0]
    put = device != CPU
    return tree_map(lambda t: Twin(t, device) if put and isinstance(t, Tensor) and not isinstance(t, Twin) else t, out)


def _put(value: Tensor, place: str) -> Tensor:
    return value if place == "cpu" else Twin(value, place)


def set_up() -> None:
    """Make the two devices known to torch."""
    backend_registration._DummyBackendModule.device_count = lambda _self: 2  # type: ignore[method-assign]
    backend_registration._setup_privateuseone_for_python_backend("twin")
    library = torch.library.Library("aten", "IMPL")
    globals()["_kept"] = library  # as long as the process lives

    def strided(size: Any, stride: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
        return Twin(torch.empty_strided(size, stride, dtype=dtype), device)

    def empty(size: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
        return Twin(torch.empty(size, dtype=dtype), device)

    def copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        _bare(target).copy_(_bare(source))
        return target

    library.impl("empty_strided", strided, "PrivateUse1")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("_copy_from", copied, "PrivateUse1")


def split(hf: Any, blocks: str) -> dict[str, str]:
    """Put the first half of the blocks and what is before them on one device, and the rest on the other.

    Args:
        hf: the library's model.
        blocks: the dotted name of the list of blocks.
    Returns:
        Device by dotted name, as accelerate's device maps are.
    """
    places: dict[str, str] = {}
    second = os.environ.get("SECOND", "twin:1")

    def fill(name: str, module: nn.Module) -> None:
        for child_name, child in module.named_children():
            full = f"{name}.{child_name}" if name else child_name
            if full == blocks:
                half = len(child) // 2  # type: ignore[arg-type]
                places.update({f"{full}.{i}": second if i >= half else FIRST for i in range(len(child))})  # type: ignore[arg-type]
            elif blocks.startswith(f"{full}."):
                fill(full, child)
            else:
                places[full] = second if child_name in ("norm", "lm_head") else FIRST

    fill("", hf)
    for name, place in places.items():
        for module in hf.get_submodule(name).modules():
            for key, value in module._parameters.items():
                if value is not None:
                    module._parameters[key] = nn.Parameter(_put(value.data, place), requires_grad=False)
            for key, value in module._buffers.items():
                if value is not None:
                    module._buffers[key] = _put(value, place)
    for name, place in {"": FIRST, **places}.items():
        hook = AlignDevicesHook(torch.device(place), io_same_device=not name, skip_keys=hf._skip_keys_device_placement)
        hook.init_hook = lambda module: module  # the weights are there
        add_hook_to_module(hf.get_submodule(name), hook)
    hf.hf_device_map = places
    return places


def main(arguments: list[str]) -> int:
    from interp_core import __main__, engine

    opened: Callable[..., Any] = engine.open_model

    def opened_split(*args: Any, **kwargs: Any) -> Any:
        subject = opened(*args, **kwargs)
        split(subject.hf, subject.arch.blocks)
        return subject

    engine.open_model = opened_split
    set_up()
    with TwoDevices():
        return __main__.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
