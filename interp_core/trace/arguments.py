"""What the library passes to each block beside the states: kept of a clean run, batched, and repeated for its rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interp_core.models.subject import Subject

BlockCall = tuple[tuple[Any, ...], dict[str, Any]]
"""Further positional arguments and keyword arguments of one block."""


def beside_states(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> BlockCall:
    """A block's arguments without the states that it is given first."""
    return args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}


def in_one_batch(subject: Subject, clips: Sequence[Sequence[BlockCall]]) -> list[BlockCall] | None:
    """What each block is given where several clips of one shape run in a batch.

    Args:
        subject: the model.
        clips: of each clip what each block was given when it ran by itself.
    Returns:
        A call a block; None where the arguments of the clips are no batch.
    """
    if len(clips) == 1:
        return list(clips[0])
    try:
        return [_one_call(subject, calls) for calls in zip(*clips, strict=True)]
    except _Unlike:
        return None


def _one_call(subject: Subject, calls: Sequence[BlockCall]) -> BlockCall:
    args, kwargs = calls[0]
    if any(len(other) != len(args) or more.keys() != kwargs.keys() for other, more in calls):
        raise _Unlike
    joined = {
        name: kwargs[name]
        if name in subject.shared
        else _joined([more[name] for _, more in calls], name in subject.batch_first)
        for name in kwargs
    }
    return tuple(_joined(values) for values in zip(*(other for other, _ in calls), strict=True)), joined


class _Unlike(Exception):
    """Arguments of several clips that are no batch."""


def _joined(values: Sequence[Any], batch_first: bool = False) -> Any:
    """Put what each clip's block was given into one batch; `repeated` says which values have a clip's entry."""
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise _Unlike
    if isinstance(first, Tensor):
        if first.ndim == 0 or (len(first) != 1 and not batch_first):
            return _the_same(values, torch.equal)
        if any(value.shape != first.shape for value in values):
            raise _Unlike
        return torch.cat(list(values))
    if isinstance(first, tuple | list):
        if len({len(value) for value in values}) > 1:
            raise _Unlike
        return type(first)(_joined(some, batch_first) for some in zip(*values, strict=True))
    return _the_same(values, lambda one, other: one is other or (not isinstance(one, Mapping) and bool(one == other)))


def _the_same(values: Sequence[Any], equal: Callable[[Any, Any], bool]) -> Any:
    if not all(equal(values[0], value) for value in values[1:]):
        raise _Unlike
    return values[0]


def repeated(value: Any, n: int, repeats: int, batch_first: bool = False) -> Any:
    """Repeat what has one entry a recipient, or several side by side; leave what all rows share."""
    if isinstance(value, Tensor):
        shared = value.ndim == 0 or (value.shape[0] != n and not batch_first)
        return value if shared else value.repeat(repeats, *[1] * (value.ndim - 1))
    if isinstance(value, tuple | list):
        return type(value)(repeated(v, n, repeats, batch_first) for v in value)
    return value
