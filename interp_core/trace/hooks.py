"""The only module that registers hooks. All ways in are context managers and leave nothing behind.

They lock the subject for the block: hooks live on the shared module, so a second thread's forward pass would
otherwise see them.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.block_model import Place, in_streams, side_by_side
from interp_core.models.subject import Subject
from interp_core.sites import Site

Edit = Callable[[Tensor], Tensor]
_EDITED: ContextVar[tuple[Site, ...]] = ContextVar("edited", default=())


@dataclass
class Captured:
    """What one forward pass showed: activations by site, and the arguments of the calls that were asked for."""

    values: dict[Site, Tensor] = field(default_factory=dict)
    calls: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)

    def __getitem__(self, site: Site) -> Tensor:
        return self.values[site]


class _Enough(Exception):
    """Ends a forward pass whose remaining part nobody reads."""


@contextmanager
def edited(subject: Subject, edits: Mapping[Site, Edit], *, times: int | Callable[[], int] = 1) -> Iterator[None]:
    """Pass the activation at each site through its edit, in the forward pass inside the block.

    Args:
        subject: the model; locked for the block.
        edits: what to do at each site; an edit gets and returns a tensor of one shape, [batch, pos, width].
        times: how often the block reaches each site (1 for one forward pass), asked at its end where it is a function.
    Raises:
        InterpError: an unknown site (nothing is registered then), or a site that was not reached `times` times:
            an edit that silently does nothing would look like a layer without an effect.
    """
    fired: Counter[Site] = Counter()

    def counting(site: Site, edit: Edit) -> Edit:
        def run(value: Tensor) -> Tensor:
            fired[site] += 1
            new = edit(value)
            if new.shape != value.shape:
                raise InterpError(f"the edit at {site} made {tuple(new.shape)} out of {tuple(value.shape)}.")
            return new

        return run

    with ExitStack() as stack:
        stack.enter_context(subject.lock)
        _register_all(stack, subject, {site: counting(site, edit) for site, edit in edits.items()})
        stack.callback(_EDITED.reset, _EDITED.set((*_EDITED.get(), *edits)))
        yield
    expected = times if isinstance(times, int) else times()
    for site in edits:
        if fired[site] != expected:
            raise InterpError(
                f"the edit at {site} was applied {fired[site]} times, expected {expected}: "
                f"{subject.name} does not call this module once a forward pass, so this site cannot be edited by hook."
            )


def sites_edited() -> tuple[Site, ...]:
    """The sites at which this thread has an edit on."""
    return _EDITED.get()


@contextmanager
def captured(
    subject: Subject,
    sites: Iterable[Site] = (),
    *,
    calls: Sequence[nn.Module] = (),
    stop: bool = False,
    reduce: Callable[[Site, Tensor], Tensor] | None = None,
) -> Iterator[Captured]:
    """Keep the activation at each site, and the arguments of each call, from the forward pass inside the block.

    Args:
        subject: the model; locked for the block.
        sites: where to read; the tensors are detached and belong to the caller.
        calls: modules whose (args, kwargs) are kept as they came, before the module runs.
        stop: end the forward pass as soon as the last of `calls` is reached; the rest of the block is skipped.
        reduce: turns the activation [batch, pos, width] at a site into what is kept, as the pass goes by, so that a
            pass over large maps needs no memory for them; what it returns must not share theirs.
    Raises:
        InterpError: an unknown site, or one that the pass did not reach.
    """
    store = Captured()
    wanted = tuple(sites)

    def keep(site: Site) -> Edit:
        def read(value: Tensor) -> Tensor:
            # A later in-place operation must not reach what is kept.
            store.values[site] = value.detach().clone() if reduce is None else reduce(site, value.detach())
            return value

        return read

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store.calls[module] = (args, dict(kwargs))
        if stop and len(store.calls) == len(calls):
            raise _Enough

    with ExitStack() as stack:
        stack.enter_context(subject.lock)
        _register_all(stack, subject, {site: keep(site) for site in wanted})
        for module in calls:
            stack.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        try:
            yield store
        except _Enough:
            pass
    missed = [str(site) for site in wanted if site not in store.values]
    if missed or len(store.calls) < len(calls):
        raise InterpError(
            f"the forward pass of {subject.name} never reached {', '.join(missed) or 'the captured calls'}; "
            "this model runs that part without calling its module."
        )


@dataclass
class Tracked:
    """A forward pass that was opened for gradients.

    Attributes:
        values: the activation [batch, pos, width] at each site, detached.
        added: what was added to it there: zeros, through which the gradient is taken.
    """

    values: dict[Site, Tensor] = field(default_factory=dict)
    added: dict[Site, Tensor] = field(default_factory=dict)

    def gradients(self, number: Tensor) -> dict[Site, Tensor]:
        """d number / d activation [batch, pos, width] at each site; 0 where the number does not read the activation."""
        found = torch.autograd.grad(number, list(self.added.values()), allow_unused=True)
        return {
            site: torch.zeros_like(added) if grad is None else grad
            for (site, added), grad in zip(self.added.items(), found, strict=True)
        }


@contextmanager
def tracked(subject: Subject, sites: Iterable[Site]) -> Iterator[Tracked]:
    """Keep the activation at each site and the way from there to the answer, in the forward pass inside the block.

    Args:
        subject: the model; locked for the block. Its graph lives as long as what the pass returns.
        sites: where gradients are wanted.
    Raises:
        InterpError: as `edited`.
    """
    track = Tracked()

    def open_at(site: Site) -> Edit:
        def edit(value: Tensor) -> Tensor:
            added = torch.zeros_like(value, requires_grad=True)
            track.values[site], track.added[site] = value.detach(), added
            return value + added

        return edit

    with differentiable(subject), edited(subject, {site: open_at(site) for site in sites}):
        yield track


@contextmanager
def differentiable(subject: Subject) -> Iterator[None]:
    """Passes inside the block can be differentiated; the model is locked for it.

    What modules keep from one pass to the next, such as angles of positions, is replaced by a copy where it was made
    for inference, which autograd refuses.
    """
    with subject.lock, torch.enable_grad():
        for module in subject.hf.modules():
            for name, value in (*vars(module).items(), *module.named_buffers(recurse=False)):
                if isinstance(value, Tensor) and value.is_inference():
                    setattr(module, name, value.clone())
        yield


@contextmanager
def attention_seen(subject: Subject, reduce: Callable[[Tensor], Tensor]) -> Iterator[dict[int, Tensor]]:
    """Keep what a function makes of each layer's attention weights, in the forward pass inside the block.

    The pass runs under eager attention, which alone makes the weights; its answers are those of another kernel but for
    rounding.

    Args:
        subject: the model, with a site `attn_out`; locked for the block.
        reduce: turns the weights [batch, n_heads, reading position, position read] into what is kept.
    Yields:
        By layer; a layer whose attention hands out no such weights is missing, and so is each layer of a model whose
        attention is one call of torch's (WavLM): that gives the mean over heads, repeated for every head.
    """
    seen: dict[int, Tensor] = {}

    def reading(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def read(_module: nn.Module, _args: Any, output: Any) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if isinstance(weights, Tensor) and weights.ndim == 4:
                seen[layer] = reduce(weights.detach())

        return read

    with ExitStack() as stack:
        stack.enter_context(subject.lock)
        # On the modules alone: other threads read the kernel off the model's own config, which names its clean runs.
        eager: dict[int, Any] = {}
        for module in subject.hf.modules():
            config = getattr(module, "config", None)
            if module is subject.hf or getattr(config, "_attn_implementation", "eager") == "eager":
                continue
            if id(config) not in eager:
                eager[id(config)] = copy.deepcopy(config)
                eager[id(config)]._attn_implementation = "eager"
            stack.callback(setattr, module, "config", config)
            module.config = eager[id(config)]
        for layer in range(subject.n_layers) if subject.arch.attn_proj_called else ():
            below = subject.arch.attn_weights
            attention = subject.blocks[layer].get_submodule(below) if below else _attention(subject, layer)
            stack.callback(attention.register_forward_hook(reading(layer)).remove)
        yield seen


def _attention(subject: Subject, layer: int) -> nn.Module:
    return subject.locate(Site("attn_out", layer)).module


def _register_all(stack: ExitStack, subject: Subject, edits: Mapping[Site, Edit]) -> None:
    """Register every edit, or none where a site is unknown; the stack removes them."""
    located = [(subject.locate(site), edit) for site, edit in edits.items()]
    folded: dict[nn.Module, tuple[nn.Module, list[Edit]]] = {}
    for place, edit in located:
        if place.side == "folded":
            assert place.proj is not None
            folded.setdefault(place.module, (place.proj, []))[1].append(edit)
        else:
            _register(stack, place, edit)
    # Last, so that with `prepend` they run first: a hook on the attention's output is to see the projected heads.
    for module, (proj, some) in folded.items():
        _register_folded(stack, module, proj, some)


def _register(stack: ExitStack, place: Place, edit: Edit) -> None:
    # prepend: the library's own capture hooks would otherwise record the value before the edit.
    if place.side == "input":

        def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (_in_rows(place, args[0], edit), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": _in_rows(place, kwargs["hidden_states"], edit)}

        handle = place.module.register_forward_pre_hook(on_input, prepend=True, with_kwargs=True)
    else:

        def on_output(_module: nn.Module, _args: Any, output: Any) -> Any:  # a block returns a tensor or a tuple
            if isinstance(output, tuple):
                return (_in_rows(place, output[0], edit), *output[1:])
            return _in_rows(place, output, edit)

        handle = place.module.register_forward_hook(on_output, prepend=True)
    stack.callback(handle.remove)


def _register_folded(stack: ExitStack, attention: nn.Module, proj: nn.Module, edits: Sequence[Edit]) -> None:
    """Show the heads of an attention that multiplies by its output projection's weights without calling it.

    For the call the projection is the identity, so that the heads themselves come out, side by side; then they are
    edited, and the projection is applied as the module that it is.
    """
    name = next(name for name, child in attention.named_children() if child is proj)
    weight = next(proj.parameters())
    identity = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    identity.weight = nn.Parameter(torch.eye(len(weight), dtype=weight.dtype, device=weight.device), False)
    identity.bias = nn.Parameter(weight.new_zeros(len(weight)), False)

    def put(module: nn.Module) -> None:
        setattr(attention, name, module)

    def before(_module: nn.Module, args: Any) -> None:
        put(identity)

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        put(proj)
        heads = output[0]
        for edit in edits:
            heads = edit(heads)
        return (proj(heads), *output[1:])

    stack.callback(put, proj)  # also where the call between the two raised
    stack.callback(attention.register_forward_pre_hook(before, prepend=True).remove)
    stack.callback(attention.register_forward_hook(after, prepend=True).remove)


def _in_rows(place: Place, value: Tensor, edit: Edit) -> Tensor:
    """Give the edit [batch, pos, width] whatever the library's own shape is, and turn its answer back."""
    if place.image:
        return edit(value.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(value.shape)
    if place.flat:
        return edit(value[:, None])[:, 0]
    if place.streams > 1:
        return in_streams(edit(side_by_side(value)), place.streams)
    if place.windows == 1:
        return edit(value)
    rows = value.reshape(len(value) // place.windows, place.windows * value.shape[1], value.shape[2])
    return edit(rows).reshape(value.shape)
