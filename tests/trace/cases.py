"""Patches that between them use every span, alignment and strength, named; built by hand, without positions.py."""

import torch
from torch import Tensor

from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.trace.clean import CleanRun
from interp_core.trace.patch import Patch, SiteSpec

KINDS_INSIDE = ("resid_pre", "attn_out", "mlp_out", "head_out", "mlp_act")


def whole_vocabulary(run: CleanRun) -> LabelTokens:
    """Every id is a label, so that equality is over all logits."""
    ids = tuple(range(len(run.logits)))
    return LabelTokens(tuple(map(str, ids)), ids, {})


def every_layer(subject: Subject) -> SiteSpec:
    return SiteSpec("resid_post", layers=tuple(range(-1, subject.n_layers)))


def at(first: int, stop: int, shift: float = 0) -> tuple[Tensor, Tensor]:
    return torch.arange(first, stop), torch.arange(first, stop).double() + shift


def truncated(a: CleanRun, b: CleanRun, alpha: float = 1.0) -> Patch:
    (a0, a1), (_, b1) = a.prompted.audio, b.prompted.audio
    return Patch(a, b, *at(a0, min(a1, b1)), alpha=alpha)


def resampled(a: CleanRun, b: CleanRun, alpha: float = 1.0) -> Patch:
    (a0, a1), (b0, b1) = a.prompted.audio, b.prompted.audio
    return Patch(a, b, torch.arange(a0, a1), torch.linspace(b0, b1 - 1, a1 - a0, dtype=torch.float64), alpha)


def tail(a: CleanRun, b: CleanRun, length: int, leave: int = 0) -> Patch:
    """The last positions of both, which sit at different places where the clips differ in length."""
    n, m = a.prompted.n_pos, b.prompted.n_pos
    return Patch(a, b, *at(n - length, n - leave, m - n))


def noise(a: CleanRun, seed: int, alpha: float = 1.0) -> Patch:
    return Patch(a, None, *at(*a.prompted.audio), alpha=alpha, noise_seed=seed)


def everywhere(a: CleanRun, b: CleanRun) -> Patch:
    return Patch(a, b, *at(0, a.prompted.n_pos))


def all_cases(runs: dict[str, CleanRun]) -> dict[str, Patch]:
    short, middle, long, twin = (runs[name] for name in ("short", "middle", "long", "twin"))
    start = middle.prompted.audio[0]
    gaps = torch.tensor([start, start + 1, start + 6, start + 7])
    return {
        "longer donor": truncated(short, long),
        "shorter donor": truncated(long, short),
        "equal donor": truncated(middle, twin),
        "alpha 0.25": truncated(middle, long, 0.25),
        "alpha 0.75, shorter donor": truncated(long, middle, 0.75),
        "alpha 0": truncated(middle, long, 0.0),
        "resampled from longer": resampled(short, long),
        "resampled from shorter, alpha 0.5": resampled(long, short, 0.5),
        "window in the middle": Patch(middle, long, *at(start + 4, start + 9)),
        "window at the start": Patch(long, middle, *at(start, start + 5)),
        "shifted source": Patch(middle, long, *at(start, start + 8, 3)),
        "half a position later": Patch(middle, long, *at(start, start + 8, 0.5)),
        "scattered positions": Patch(middle, long, torch.tensor([3, start, start + 7]), torch.tensor([0.5, 30.0, 9.0])),
        "gaps at the donor's own places": Patch(middle, long, gaps, gaps.double()),
        "question": tail(short, long, 17, leave=1),
        "last": tail(middle, short, 1),
        "prefix": Patch(middle, long, *at(0, start)),
        "everywhere": everywhere(middle, twin),
        "noise": noise(middle, 7),
        "noise, alpha 0.5": noise(short, 8, 0.5),
        "itself": everywhere(long, long),
    }
