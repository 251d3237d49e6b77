"""Experiments from Python, in a few lines, by the names of the command line's options.

from interp_core import PatchRequest, run

result = run(PatchRequest(model="demo-emotion", kinds="prosody", pilot=5))
result.metrics                       # a DataFrame; result.tables() has all of them
result.figure()                      # matplotlib's, as in a run folder
"""

from functools import cache, partial
from pathlib import Path
from typing import Any

from interp_core.engine import Engine, default_cache_bytes
from interp_core.errors import InterpError
from interp_core.experiments import experiment_of
from interp_core.experiments.cluster.run import Cluster, run_on
from interp_core.experiments.experiment import open_result
from interp_core.experiments.result import Result
from interp_core.experiments.sharded import run_whole
from interp_core.jobs import Progress
from interp_core.models.subject import Subject
from interp_core.request import Request
from interp_core.runs import read_config
from interp_core.terminal import ProgressLine


@cache
def default_engine() -> Engine:
    """The engine that `run` uses unless it is given one: models and clean runs stay in it from call to call."""
    return Engine(cache_bytes=default_cache_bytes())


def open_model(name: str, device: str = "auto", dtype: str = "auto", part: str = "", adapter: str = "") -> Subject:
    """Open a model by what `--model` and `--adapter` take, or return the one that is open already."""
    return default_engine().open(name, device, dtype, part, adapter=adapter)


def run(
    request: Request,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    engine: Engine | None = None,
    cluster: str | None = None,
    workers: int | None = None,
) -> Any:
    """Run an experiment.

    Args:
        request: which experiment it is follows from its class.
        out: a run folder, as the command line's `--out`; None: the result is kept in memory alone.
        resume: go on with the run that is in the folder; one that is finished is read back.
        progress: called with (done, total, note); None shows a line on stderr.
        engine: None for one that all calls share.
        cluster, workers: as the options `--cluster` and `--workers`; `out` must be given then.
    Returns:
        The experiment's `Result`: `metrics`, `tables()`, `figure()`, `config`.
    Raises:
        InterpError: bad input, in words; CheckFailed where a check before the run does not hold.
    """
    if isinstance(out, str) and not out.strip():
        raise InterpError("out is empty; name the run folder, or leave it out to keep the result in memory alone.")
    line = ProgressLine()
    runner = run_whole if cluster is None else partial(run_on, Cluster(cluster, workers))
    result = runner(
        experiment_of(request.command),
        engine or default_engine(),
        request,
        out=None if out is None else Path(out),
        resume=resume,
        progress=progress or line,
    )
    line.end()
    return result


def open_run(folder: Path | str) -> Result:
    """Read a finished run folder back, of whichever experiment.

    Raises:
        InterpError: no run folder, a run that is not finished, or files that are missing or broken.
    """
    return open_result(experiment_of(read_config(Path(folder))["command"]), Path(folder))
