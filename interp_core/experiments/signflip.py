"""How the acoustics of a representation change, layer by layer, when the neurons that matter for a class are flipped.

Neurons are attributed on one half of the clips, and edited and measured on the other. An edit is made inside the
forward pass, so every layer behind it really runs; a measure at the edited layer itself that cannot change by its
definition says so.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp_core.data.clips import Acoustics, Clip
from interp_core.errors import InterpError
from interp_core.experiments import signflip_tables as tables
from interp_core.experiments.ablation_behind import KINDS, Kind
from interp_core.experiments.ablation_scores import matched
from interp_core.experiments.ablation_site import Hearing, Progress
from interp_core.experiments.signflip_flow import Flow, check_subject, gradients
from interp_core.maths.proxies import (
    energy_change,
    first_component,
    frame_energy,
    modulation_centroid,
    relative_change,
    zero_crossing_rate,
)
from interp_core.models.labels import LabelTokens

TOPK = 50
OUTPUT = -1
"""Stands for the output among measured layers."""

Frames = Literal["max", "all"]
Reduce = Literal["sum_abs", "abs_sum"]


@dataclass(frozen=True)
class SignflipSettings:
    """What is edited and how it is chosen.

    Attributes:
        target: the label whose logit is attributed; "" for the first.
        topk: how many neurons of a layer; None: 50, or an eighth of a narrower layer.
        frames: at each neuron's frame of largest |activation|, or at all frames.
        kind: flip, zero, mean or resample.
        reduce: attribution over time: sum_abs = sum of |.|, abs_sum = |sum|, where signs cancel.
        draws: random sets of as many neurons, of about the same mean |activation|.
        layers: edited layers; None for all.
        seed: of halves, draws and donors.
    """

    target: str = ""
    topk: int | None = None
    frames: Frames = "max"
    kind: Kind = "flip"
    reduce: Reduce = "sum_abs"
    draws: int = 20
    layers: tuple[int, ...] | None = None
    seed: int = 42

    def check(self) -> None:
        for name, value, known in (
            ("frames", self.frames, ("max", "all")),
            ("kind", self.kind, KINDS),
            ("reduce", self.reduce, ("sum_abs", "abs_sum")),
        ):
            if value not in known:
                raise InterpError(f"{name} {value!r} is none of {', '.join(known)}.")
        if (self.topk is not None and self.topk < 1) or self.draws < 0:
            raise InterpError(f"topk {self.topk} and {self.draws} draws: give 1 neuron or more, 0 draws or more.")


@dataclass(frozen=True, eq=False)
class Attributed:
    """Per layer: scores [n_layers, width], mean |activation|, mean activation, and frames drawn at random, one a clip
    ([n_layers, clips, width])."""

    scores: Tensor
    size: Tensor
    mean: Tensor
    pool: Tensor
    clips: int
    of_target: bool


def halves(clips: Sequence[Clip], units: str, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Clips to attribute on and clips to measure on; a unit is never divided. InterpError under two units."""
    names = sorted({clip.label(units) or clip.clip_id for clip in clips})
    if len(names) < 2:
        raise InterpError(f"all clips are of one {units}; two are needed, one to attribute on and one to measure on.")
    names.sort(key=lambda name: hashlib.sha256(f"{seed}|{name}".encode()).hexdigest())
    first = set(names[::2])
    parts: tuple[list[Clip], list[Clip]] = ([], [])
    for clip in clips:
        parts[(clip.label(units) or clip.clip_id) not in first].append(clip)
    return parts


def attribute(
    hearing: Hearing,
    clips: Sequence[Clip],
    labels: LabelTokens,
    target: int,
    task: str,
    settings: SignflipSettings,
    progress: Callable[[], None],
) -> Attributed:
    """Score the neurons of every layer by gradient times activation of the target's logit, on clips of the target
    class where there are any, else on all."""
    of_class = [clip for clip in clips if clip.label(task) == labels.labels[target]]
    used, rng = of_class or list(clips), np.random.default_rng(settings.seed)
    total = size = mean = torch.zeros(0)
    pool: list[Tensor] = []
    for clip in used:
        ready = hearing.ready(clip)
        products = gradients(hearing, ready, labels, target)
        with torch.inference_mode():
            flow = Flow(hearing, ready, labels)
            states = torch.stack([flow.frames(state).float().cpu() for state in flow.states])  # [layers, frames, width]
        # The gradient is taken at every position of the recording, also where bands are averaged for measuring.
        scores = torch.stack([(p.abs().sum(0) if settings.reduce == "sum_abs" else p.sum(0).abs()) for p in products])
        parts = (scores.cpu(), states.abs().mean(1), states.mean(1))
        total, size, mean = parts if not len(pool) else (total + parts[0], size + parts[1], mean + parts[2])
        pool.append(states[:, int(rng.integers(states.shape[1]))])
        progress()
    n = len(used)
    return Attributed(total / n, size / n, mean / n, torch.stack(pool, 1), n, bool(of_class))


def edit_rows(
    value: Tensor, sets: Sequence[Sequence[int]], at: Tensor, settings: SignflipSettings, fill: Tensor | None
) -> Tensor:
    """Copies of what a layer left, one a set of neurons, edited.

    Args:
        value: [pos, width]; at: positions that hold the recording.
        fill: [width] what takes a neuron's value; None turns its sign.
    Returns:
        [sets, pos, width].
    """
    rows = value.expand(len(sets), -1, -1).clone()
    inside = value[at]  # [m, width]
    loudest = at[inside.abs().argmax(0)]  # [width] position of each neuron's largest |activation|
    new = -value if fill is None else fill.to(value).expand_as(value)
    for row, neurons in zip(rows, sets, strict=True):
        chosen = torch.as_tensor(list(neurons), device=value.device)
        if settings.frames == "all":
            row[at[:, None], chosen] = new[at[:, None], chosen]
        else:
            row[loudest[chosen], chosen] = new[loudest[chosen], chosen]
    return rows


@dataclass(frozen=True, eq=False)
class Signflip:
    """Everything that was found; see `run_signflip`."""

    top: pd.DataFrame
    changes: pd.DataFrame
    effects: pd.DataFrame
    clips: pd.DataFrame
    links: pd.DataFrame
    report: dict[str, Any]


def run_signflip(
    hearing: Hearing,
    clips: Sequence[Clip],
    labels: LabelTokens,
    settings: SignflipSettings,
    *,
    task: str,
    units: str,
    acoustics: Callable[[Sequence[Clip]], dict[str, Acoustics]],
    progress: Progress = lambda done, total, note: None,
) -> Signflip:
    """Attribute on one half of the clips, edit and measure on the other.

    Args:
        hearing: the model and its clips.
        labels: what it answers; settings.target is one of them.
        task: the label column; clips without it are measured too, but their accuracy is not counted.
        units: what is never divided between the halves, and what standard errors count.
        acoustics: measures recordings.
    Returns:
        top: the chosen neurons. changes: one row a (flipped, measured, proxy, condition): relative change, its
            standard error over units, signed change, the percentiles of random draws, by_construction. effects: one
            row a (flipped, condition). clips: one row a (flipped, measured clip). links: correlation of each proxy with
            what it is named after, by layer.
    Raises:
        InterpError: a target that is no label, layers that are not there, a model without frames in time.
    """
    settings.check()
    subject = hearing.subject
    check_subject(subject)
    target = _target(labels, settings.target)
    flipped = tuple(range(subject.n_layers)) if settings.layers is None else settings.layers
    for layer in flipped:
        if not 0 <= layer < subject.n_layers:
            raise InterpError(f"layer={layer} is outside {subject.name}'s {subject.n_layers} layers.")
    first, second = halves(clips, units, settings.seed)
    done, total = 0, len(first) + len(second)

    def step(note: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, note)

    found = attribute(hearing, first, labels, target, task, settings, lambda: step("attribution"))
    done = len(first)
    width = found.scores.shape[1]
    k = min(settings.topk or min(TOPK, max(1, width // 8)), width)
    rng = np.random.default_rng(settings.seed)
    sets: dict[int, list[tuple[int, ...]]] = {}
    for layer in flipped:
        best = found.scores[layer].argsort(descending=True, stable=True)[:k].numpy()
        drawn = [matched(best, found.size[layer].double().numpy(), rng) for _ in range(settings.draws)]
        sets[layer] = [tuple(map(int, best)), *drawn]
    measures: list[dict[str, Any]] = []
    bases: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for clip in second:
        ready = hearing.ready(clip)
        with torch.inference_mode(), subject.lock:
            flow = Flow(hearing, ready, labels)
            _measure(flow, clip, sets, found, settings, rng, labels, target, task, measures, bases, answers)
        step("edited copies")
    unit_of = {clip.clip_id: clip.label(units) or f"clip {clip.clip_id}" for clip in second}
    table = pd.DataFrame(measures)
    table["unit"] = table["clip_id"].map(unit_of)
    clip_table = pd.DataFrame(answers)
    clip_table["unit"] = clip_table["clip_id"].map(unit_of)
    return Signflip(
        top=tables.top(found.scores, found.size, sets),
        changes=tables.changes(table, settings.kind, settings.frames, flow.bands, flow.read_as_is),
        effects=tables.effects(clip_table),
        clips=clip_table[clip_table["draw"] == 0].drop(columns=["draw", "unit"]).reset_index(drop=True),
        links=tables.links(pd.DataFrame(bases), acoustics(second)),
        report={
            "target": labels.labels[target],
            "labels": list(labels.labels),
            "topk": k,
            "width": width,
            "n_layers": subject.n_layers,
            "layers": list(flipped),
            "frame_rate_hz": flow.frame_rate,
            "attributed_on": {"clips": found.clips, "of_the_target_only": found.of_target},
            "measured_on": {"clips": len(second), "units": len(set(unit_of.values())), "unit": units},
            "draws": settings.draws,
            "head": "the model's own"
            if getattr(subject, "probe", None) is None
            else "a probe fitted on labelled clips",
        },
    )


def _target(labels: LabelTokens, name: str) -> int:
    if not name:
        return 0
    if name not in labels.labels:
        raise InterpError(f"target {name!r} is none of {', '.join(labels.labels)}.")
    return labels.labels.index(name)


def proxies(x: Tensor, component: Tensor, rate: float) -> dict[str, Tensor]:
    """The four of [.., frames, width]: energy series [.., frames] under rms, the others [..]."""
    energy = frame_energy(x)
    return {
        "rms": energy,
        "zcr": zero_crossing_rate(x, component),
        "centroid": modulation_centroid(energy, rate, with_dc=True),
        "centroid_no_dc": modulation_centroid(energy, rate, with_dc=False),
    }


def compare(base: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Relative change and signed relative change of each proxy, [rows] each."""
    made = {}
    for name, values in other.items():
        if name == "rms":
            mean, own = values.mean(-1), base[name].mean(-1)
            made[name] = energy_change(base[name].expand_as(values), values), (mean - own) / own
        else:
            own = base[name].expand_as(values)
            signed = torch.where(own == 0, torch.where(values == 0, 0.0, torch.nan), (values - own) / own)
            made[name] = relative_change(own, values), signed
    return made


def _measure(
    flow: Flow,
    clip: Clip,
    sets: dict[int, list[tuple[int, ...]]],
    found: Attributed,
    settings: SignflipSettings,
    rng: np.random.Generator,
    labels: LabelTokens,
    target: int,
    task: str,
    measures: list[dict[str, Any]],
    bases: list[dict[str, Any]],
    answers: list[dict[str, Any]],
) -> None:
    """Measure one clip: unedited at every layer, then every edit at its own layer and behind it."""
    rate, at = flow.frame_rate, flow.frames_at.to(flow.states[0].device)
    clean = {layer: flow.frames(state).double() for layer, state in enumerate(flow.states)}
    clean[OUTPUT] = flow.frames(flow.output()[0]).double()
    components = {layer: first_component(x) for layer, x in clean.items()}
    base = {layer: proxies(x, components[layer], rate) for layer, x in clean.items()}
    for layer, values in base.items():
        own = {name: float(value.mean() if name == "rms" else value) for name, value in values.items()}
        bases.append({"clip_id": clip.clip_id, "layer": layer, **own})
    before = flow.logits.float().cpu()
    truth = clip.label(task)
    for layer, chosen in sets.items():
        fill = None
        if settings.kind != "flip":
            pick = found.pool[layer, int(rng.integers(found.pool.shape[1]))]
            fill = {"zero": torch.zeros_like(pick), "mean": found.mean[layer], "resample": pick}[settings.kind]
        rows = edit_rows(flow.states[layer], chosen, at, settings, fill)
        later, output, logits = flow.travel(layer, rows)
        here = flow.frames(rows).double()
        seen = {layer: here, **{layer + 1 + i: flow.frames(v).double() for i, v in enumerate(later)}}
        seen[OUTPUT] = flow.frames(output).double()
        for measured, x in seen.items():
            changes = compare(base[measured], proxies(x, components[measured], rate))
            if measured == layer:
                refit = zero_crossing_rate(x)
                changes["zcr_refit"] = compare({"zcr": base[layer]["zcr"]}, {"zcr": refit})["zcr"]
            for proxy, (change, signed) in changes.items():
                named = {"clip_id": clip.clip_id, "flipped": layer, "measured": measured, "proxy": proxy}
                for draw, (size, direction) in enumerate(zip(change.tolist(), signed.tolist(), strict=True)):
                    measures.append({**named, "draw": draw, "change": size, "signed": direction})
        after = logits.float().cpu()
        probability = after.softmax(-1)[:, target]
        for draw in range(len(chosen)):
            answers.append(
                {
                    "flipped": layer,
                    "draw": draw,
                    "clip_id": clip.clip_id,
                    "label": truth or "",
                    "base": labels.labels[int(before.argmax())],
                    "answer": labels.labels[int(after[draw].argmax())],
                    "base_target_probability": float(before.softmax(-1)[target]),
                    "target_probability": float(probability[draw]),
                    "target_logit_change": float(after[draw, target] - before[target]),
                }
            )
