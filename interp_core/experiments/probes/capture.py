"""What probes read: states of every clip at every point, and what is measured on its sound. A batch is a chunk."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_core.data.clips import acoustics
from interp_core.experiments.clips import ClipReader, ReadyBatch, in_halves, in_turn, plan_batches
from interp_core.experiments.probes.plan import Point, ProbesPlan
from interp_core.experiments.probes.request import Quantity, ReadAt
from interp_core.jobs import Progress, silent
from interp_core.maths.arrays import Floats
from interp_core.maths.proxies import frame_energy, modulation_centroid
from interp_core.sinks import MEMORY, Sink
from interp_core.sites import Site
from interp_core.trace.hooks import captured

STATES = "states"
FRAME_S, HOP_S = 0.05, 0.03
"""Of the level whose modulation is measured: frames of three periods of the deepest voice, so that pitch is no rhythm,
and steps that leave modulations up to 16 Hz, where syllables are."""
UNITS_OF = {
    "f0": "octaves above 1 Hz", "level": "dB of full scale", "rate": "Hz", "centroid": "octaves above 1 Hz",
    "duration": "octaves above 1 s",
}  # fmt: skip
"""What the value of each quantity is counted in; what ears hear as ratios is counted in octaves."""


@dataclass(frozen=True, eq=False)
class Read:
    """States and measures of all clips.

    Attributes:
        at: [n_clips, width] float32 by point. measured: [n_clips] by quantity, see `UNITS_OF`; NaN where it has none.
    """

    at: dict[Point, NDArray[np.floating]] = field(repr=False)
    measured: dict[str, Floats]


def measure(samples: np.ndarray, sample_rate: int, wanted: Sequence[Quantity]) -> dict[str, float]:
    """Quantities of one recording [n_samples], in the units of `UNITS_OF`; NaN where it has none (F0 of a whisper)."""
    found = acoustics(samples, sample_rate)
    size, hop = round(FRAME_S * sample_rate), round(HOP_S * sample_rate)
    rate = float("nan")
    if "rate" in wanted and len(samples) >= size + 2 * hop:
        frames = torch.from_numpy(samples.copy()).double().unfold(0, size, hop)  # [n_frames, size]
        rate = float(modulation_centroid(frame_energy(frames), 1 / HOP_S, with_dc=False))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {
            "f0": np.log2(found.f0_median_hz), "level": 20 * np.log10(found.rms), "rate": rate,
            "centroid": np.log2(found.spectral_centroid_hz), "duration": np.log2(found.duration_s),
        }  # fmt: skip
    return {name: float(values[name]) if np.isfinite(values[name]) else float("nan") for name in wanted}


def read_states(
    reader: ClipReader, plan: ProbesPlan, *, batch_size: int = 8, sink: Sink = MEMORY, progress: Progress = silent
) -> Read:
    """Run every clip once, unedited, and keep its states at every point; the batches are dealt among shards.

    Args:
        progress: called with (clips done, clips, what is done) and may raise to cancel.
    Raises:
        InterpError: a clip that the model cannot take, NaN or infinity with the clip and the layer.
    """
    places = tuple(dict.fromkeys(point.place for point in plan.points))
    sites = tuple(dict.fromkeys(point.site for point in plan.points))
    wanted = plan.settings.quantities
    kept: dict[int, tuple[dict[str, NDArray], int]] = {}
    done = 0
    # A clip alone where clips of unequal length would be padded: its last digits would hang on the others.
    for number, rows, then in in_turn(plan_batches([reader], plan.clips, 1 if reader.subject.pads else batch_size)):
        if sink.skips(number):
            done += len(rows)
            progress(done, len(plan.clips), "reading states")
            continue
        saved = sink.arrays(STATES, number)
        if saved is None:
            batch = reader.batch(plan.clips, rows, then)
            parts = [made for _, made in in_halves(batch, lambda part: _states(part, sites, places))]
            made = {str(site): np.concatenate([part[site] for part in parts]) for site in sites}
            rate = reader.subject.sample_rate
            told = [measure(reader.samples(plan.clips[row]), rate, wanted) if wanted else {} for row in rows]
            made |= {f"measured.{name}": np.array([one[name] for one in told]) for name in wanted}
            saved = sink.keep_arrays(STATES, number, made)
        kept |= {row: (dict(saved), place) for place, row in enumerate(rows)}
        done += len(rows)
        progress(done, len(plan.clips), "reading states")
    sink.gather()
    order = range(len(plan.clips))

    def gathered(name: str) -> NDArray:
        return np.stack([kept[row][0][name][kept[row][1]] for row in order])

    at: dict[Point, NDArray[np.floating]] = {}
    for site in sites:
        values = gathered(str(site))  # [n_clips, places, width]
        at |= {p: values[:, places.index(p.place)] for p in plan.points if p.site == site}
    return Read(at, {name: gathered(f"measured.{name}") for name in wanted})


def _states(batch: ReadyBatch, sites: Sequence[Site], places: Sequence[ReadAt]) -> dict[Site, NDArray[np.floating]]:
    """One pass of a batch: [batch, places, width] at every site."""

    def reduce(site: Site, value: Tensor) -> Tensor:
        mean = batch.mean(site, value)
        both = {"mean": mean, "last": value[:, -1].to(mean.dtype)}
        return torch.stack([both[place] for place in places], 1)

    with torch.inference_mode(), captured(batch.subject, sites, reduce=reduce) as store:
        batch.forward()
    batch.check_finite(store.values)
    return {site: value.cpu().numpy() for site, value in store.values.items()}
