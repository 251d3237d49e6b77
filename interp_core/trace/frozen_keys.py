"""What stands where a block expects its cache: keys and values of a clean run, before those that the block makes."""

from typing import Any

from torch import Tensor


class FrozenKeys:
    """Stands where a block expects its cache: prefix [n, heads, before, d_head] and new keys, and stores nothing."""

    def __init__(self, keys: Tensor, values: Tensor, scratch: Tensor) -> None:
        self._prefixes, self._scratch = (keys, values), scratch

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self._behind(0, keys), self._behind(1, values)

    def _behind(self, which: int, new: Tensor) -> Tensor:
        prefix = self._prefixes[which].to(new.device)
        n, heads, before, width = prefix.shape
        if not before:
            return new
        out = self._scratch[which, : len(new)].to(new.device)
        out.view(-1, n, heads, before + new.shape[2], width)[..., :before, :] = prefix
        out[..., before:, :] = new
        return out


class UntilKeys:
    """A cache that ends the block as soon as its keys and values are made, by raising them."""

    def __init__(self, frozen: FrozenKeys) -> None:
        self._frozen = frozen

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise MadeKeys(*self._frozen.update(keys, values, layer_idx))


class MadeKeys(Exception):
    """Keys and values of all positions; as a cache it answers with them, whatever it is given."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._made = (keys, values)

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self._made
