"""Every forward pass goes through here: numbers that are NaN or infinite end it, in one sentence that says where.

An answer of NaN has an argmax, and an overflow looks like a layer without an effect, so neither may go on as a number.
The check itself reads the answer alone; only where that is not finite is the pass run once more, to find the layer.
In float16 every block is looked at as the pass goes by: the library cuts what overflows in some blocks (Whisper's), and
what comes out is finite and means nothing.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.models.source import first_line
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.hooks import captured, sites_edited

T = TypeVar("T")
_BROKEN = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, AssertionError)
"""What the library raises where the parts of a model do not fit each other, or a clip does not fit the model."""


CUT = torch.finfo(torch.float16).max - 1000
"""Where such blocks cut off, so a state in float16 as large as this has overflowed."""


def finite_run(subject: Subject, clips: Sequence[str], run: Callable[[], Tensor]) -> Tensor:
    """Run a forward pass, with whatever edits are on, and hand its answer on if all of it is finite.

    Args:
        subject: the model.
        clips: [batch] the clips of the pass by name.
        run: the pass: float logits or features [batch, ...]; run again where they are not finite.
    Raises:
        InterpError: NaN or infinity, with the first such clip, the layer where it began, the dtype, and the weight that
            holds it where one does; or the library fails on these clips.
    """
    found = attempt(subject, clips, run if subject.dtype != torch.float16 else lambda: _uncut(subject, clips, run))
    if (rows := _bad_rows(found)).any():
        layer = _where(subject, run)
        raise InterpError(_sentence(subject, clips[int(rows.nonzero()[0])], layer))
    return found


def check_finite(subject: Subject, values: Tensor, names: Sequence[str]) -> None:
    """Refuse rows that are NaN or infinite though the clips' own runs are finite: answers to edited runs, or features.

    Args:
        subject: the model.
        values: [rows, ...].
        names: what the rows are, as the beginning of a sentence; where there are fewer, they stand for rows by turns.
    """
    if (rows := _bad_rows(values)).any():
        raise InterpError(f"{names[int(rows.nonzero()[0]) % len(names)]} {_overflow(subject)}{_advice(subject)}.")


def attempt(subject: Subject, clips: Sequence[str], step: Callable[[], T]) -> T:
    """Run one step of a clip's way through a model; what the library raises of it becomes one sentence."""
    try:
        return step()
    except (InterpError, torch.OutOfMemoryError):
        raise
    except _BROKEN as error:
        others = f" or one of the {len(clips) - 1} clips beside it" if len(clips) > 1 else ""
        raise InterpError(
            f"{subject.name} fails on clip {clips[0]!r}{others}{_edits()} ({first_line(error)}); its config, its "
            "feature extractor and its weights have to be of one model: copy them from one source."
        ) from error


def _bad_rows(values: Tensor) -> Tensor:
    """[rows] bool: NaN, infinite, or cut off in float16."""
    values = values.detach()
    fine = values.abs() < CUT if values.dtype == torch.float16 else values.isfinite()
    return ~fine.flatten(1).all(1)


def _uncut(subject: Subject, clips: Sequence[str], run: Callable[[], Tensor]) -> Tensor:
    """Run a pass in float16; refuse one in which a block leaves states that were cut off."""
    sites = [Site("resid_post", layer) for layer in range(subject.n_layers)]
    with captured(subject, sites, reduce=lambda _, value: _bad_rows(value)) as bad:
        found = run()
    cut = torch.stack([bad[site].any().to(found.device) for site in sites])
    if cut.any():
        layer = int(cut.nonzero()[0])
        row = int(bad[sites[layer]].nonzero()[0])
        raise InterpError(_sentence(subject, clips[row % len(clips)], layer))
    return found


def _where(subject: Subject, run: Callable[[], Tensor]) -> int:
    """The layer that first leaves what is not finite: -1 for what stands before the blocks, n_layers behind them."""
    layers = range(subject.n_layers)
    sites = {-1: Site("resid_pre", 0)} | {layer: Site("resid_post", layer) for layer in layers}
    with captured(subject, sites.values(), reduce=lambda _, value: _bad_rows(value).any()) as bad:
        run()
    return next((layer for layer, site in sites.items() if bad[site]), subject.n_layers)


def _sentence(subject: Subject, clip: str, layer: int) -> str:
    place = f"layer {layer} on"
    if layer < 0:
        place = "before layer 0 on (what comes before the blocks)"
    elif layer == subject.n_layers:
        place = "behind the last layer on (its readout)"
    about = f"clip {clip!r}{_edits()}"
    parts = subject.weights_by_part()
    before = "stem" if layer < 0 else f"layer {layer}"
    behind = [name for name in parts if name != "stem" and not name.startswith("layer ")]
    for part in behind if layer == subject.n_layers else [before]:
        for name, weight in parts.get(part, {}).items():
            if weight.is_floating_point() and weight.isnan().any():
                return (
                    f"{about} becomes NaN in {subject.name} from {place}: its weight {name} holds NaN; the weights are "
                    "damaged, fetch them again."
                )
    return f"{about} {_overflow(subject)} from {place}{_advice(subject)}."


def _overflow(subject: Subject) -> str:
    how = "overflows" if subject.dtype == torch.float16 else "becomes NaN or infinite"
    return f"{how} in {_dtype(subject)} in {subject.name}"


def _advice(subject: Subject) -> str:
    wider = {torch.float16: "bfloat16 or float32", torch.bfloat16: "float32"}.get(subject.dtype)
    return f"; use {wider} (--dtype)" if wider else "; its weights are damaged or too large, fetch them again"


def _dtype(subject: Subject) -> str:
    return str(subject.dtype).removeprefix("torch.")


def _edits() -> str:
    sites = sites_edited()
    return f" with {', '.join(map(str, sites))} edited" if sites else ""
