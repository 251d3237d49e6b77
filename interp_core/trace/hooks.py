"""The only module that registers hooks. Both doors are context managers and leave nothing behind.

Both lock the subject for the block: hooks live on the shared module, so a second thread's forward pass would
otherwise see them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp_core.errors import InterpError
from interp_core.models.subject import Subject
from interp_core.sites import Site

Edit = Callable[[Tensor], Tensor]


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
def edited(subject: Subject, edits: Mapping[Site, Edit], *, times: int = 1) -> Iterator[None]:
    """Pass the activation at each site through its edit, in the forward pass inside the block.

    Args:
        subject: the model; locked for the block.
        edits: what to do at each site; an edit gets and returns a tensor of one shape, [batch, pos, width].
        times: how often the block reaches each site (1 for one forward pass).
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
        located = [(site, subject.locate(site)) for site in edits]
        for site, (module, side) in located:
            stack.callback(_register(module, side, counting(site, edits[site])).remove)
        yield
    for site in edits:
        if fired[site] != times:
            raise InterpError(
                f"the edit at {site} was applied {fired[site]} times, expected {times}: "
                f"{subject.name} does not call this module once a forward pass, so this site cannot be edited by hook."
            )


@contextmanager
def captured(
    subject: Subject, sites: Iterable[Site] = (), *, calls: Sequence[nn.Module] = (), stop: bool = False
) -> Iterator[Captured]:
    """Keep the activation at each site, and the arguments of each call, from the forward pass inside the block.

    Args:
        subject: the model; locked for the block.
        sites: where to read; the tensors are detached and belong to the caller.
        calls: modules whose (args, kwargs) are kept as they came, before the module runs.
        stop: end the forward pass as soon as the last of `calls` is reached; the rest of the block is skipped.
    Raises:
        InterpError: an unknown site, or one that the pass did not reach.
    """
    store = Captured()
    wanted = tuple(sites)

    def keep(site: Site) -> Edit:
        def read(value: Tensor) -> Tensor:
            store.values[site] = value.detach().clone()  # a later in-place operation must not reach it
            return value

        return read

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store.calls[module] = (args, dict(kwargs))
        if stop and len(store.calls) == len(calls):
            raise _Enough

    with ExitStack() as stack:
        stack.enter_context(subject.lock)
        located = [(site, subject.locate(site)) for site in wanted]
        for site, (module, side) in located:
            stack.callback(_register(module, side, keep(site)).remove)
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


def _register(module: nn.Module, side: str, edit: Edit) -> RemovableHandle:
    # prepend: the library's own capture hooks would otherwise record the value before the edit.
    if side == "input":

        def on_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        return module.register_forward_pre_hook(on_input, prepend=True, with_kwargs=True)

    def on_output(_module: nn.Module, _args: Any, output: Any) -> Any:  # a block returns a tensor, attention a tuple
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return module.register_forward_hook(on_output, prepend=True)
