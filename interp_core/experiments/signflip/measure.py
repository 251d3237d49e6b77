"""What an edit does to the measures of a representation, and to the answer: one clip, all its edited copies."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.experiments.signflip import tables
from interp_core.experiments.signflip.attribute import Attributed
from interp_core.experiments.signflip.layers import LayerStates
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.maths.proxies import (
    energy_change,
    first_component,
    frame_energy,
    modulation_centroid,
    relative_change,
    zero_crossing_rate,
)
from interp_core.models.labels import LabelTokens


def edit_rows(
    value: Tensor, sets: Sequence[Sequence[int]], at: Tensor, settings: SignflipRequest, fill: Tensor | None
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


def measure_clip(
    flow: LayerStates,
    clip: Clip,
    sets: Mapping[int, Sequence[tuple[int, ...]]],
    found: Attributed,
    picks: Mapping[int, int],
    settings: SignflipRequest,
    labels: LabelTokens,
    target: int,
) -> dict[str, pd.DataFrame]:
    """Measure one clip: unedited at every layer, then every edit at its own layer and behind it.

    Args:
        sets: neurons by edited layer, the attributed ones first, then the random draws.
        picks: which of the drawn frames resamples a layer.
    Returns:
        `measures` one row a (flipped, measured, proxy, draw), `bases` one row a layer, `answers` one row a
        (flipped, draw).
    """
    measures: list[dict[str, Any]] = []
    bases: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    rate, at = flow.frame_rate, flow.frames_at.to(flow.states[0].device)
    clean = {layer: flow.frames(state).double() for layer, state in enumerate(flow.states)}
    clean[tables.OUTPUT] = flow.frames(flow.output()[0]).double()
    components = {layer: first_component(x) for layer, x in clean.items()}
    base = {layer: proxies(x, components[layer], rate) for layer, x in clean.items()}
    for layer, values in base.items():
        own = {name: float(value.mean() if name == "rms" else value) for name, value in values.items()}
        bases.append({"clip_id": clip.clip_id, "layer": layer, **own})
    before = flow.logits.float().cpu()
    truth = clip.label(settings.task)
    for layer, chosen in sets.items():
        fill = None
        if settings.kind != "flip":
            pick = found.pool[layer, picks[layer]]
            fill = {"zero": torch.zeros_like(pick), "mean": found.mean[layer], "resample": pick}[settings.kind]
        rows = edit_rows(flow.states[layer], chosen, at, settings, fill)
        later, output, logits = flow.travel(layer, rows)
        here = flow.frames(rows).double()
        seen = {layer: here, **{layer + 1 + i: flow.frames(v).double() for i, v in enumerate(later)}}
        seen[tables.OUTPUT] = flow.frames(output).double()
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
    return {"measures": pd.DataFrame(measures), "bases": pd.DataFrame(bases), "answers": pd.DataFrame(answers)}
