"""A sixth experiment, as short as one can be: it gets everything else from its line in the registry."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from interp_core.experiments.cost import Cost
from interp_core.experiments.experiment import Experiment, Ready
from interp_core.experiments.result import Result
from interp_core.jobs import silent
from interp_core.storage import read_csv
from tests.toy.request import LoudnessRequest

RECORDS = "loudness_records.jsonl"


@dataclass(frozen=True, eq=False, repr=False)
class LoudnessResult(Result):
    metrics: pd.DataFrame

    def tables(self):
        return {"loudness": self.metrics}

    def profile(self):
        return self.metrics.set_axis(["x", "value"], axis=1).assign(series="loudness")

    def figure(self):
        drawn = Figure()
        drawn.subplots().bar(self.metrics["clip_id"], self.metrics["loudness"])
        return drawn


class Loudness(Experiment):
    request = LoudnessRequest
    passes = 0

    def prepare(self, engine, request, progress=silent):
        request.check()
        store = engine.store(request, progress)
        manifest = engine.manifest(request, store.limits)
        return Ready(request, request, engine, store, manifest, manifest.clips[: request.pilot])

    def cost(self, ready):
        return Cost(len(ready.plan), 0.0, f"{len(ready.plan)} clips")

    def compute(self, ready, sink, progress):
        sink.expect(RECORDS, dict.fromkeys(range(len(ready.plan)), 1))
        rows = []
        for number, clip in enumerate(ready.plan):
            kept = sink.records(RECORDS, number)
            if kept is None:
                self.passes += 1
                x = ready.store.samples(clip)
                loud = float(np.sqrt((x**2).mean()) if ready.request.measure == "rms" else np.abs(x).max())
                kept = sink.keep_records(RECORDS, number, [{"clip_id": clip.clip_id, "loudness": loud}])
            rows += kept
            progress(number + 1, len(ready.plan), "listening")
        return LoudnessResult(ready.config, pd.DataFrame(rows))

    def write(self, writer, result):
        writer.write_csv("loudness.csv", result.metrics)

    def read(self, folder, config):
        return LoudnessResult(config, read_csv(folder / "loudness.csv"))

    def summary(self, result):
        yield f"the loudest clip is {result.metrics.loc[result.metrics['loudness'].idxmax(), 'clip_id']}"


LOUDNESS = Loudness()
