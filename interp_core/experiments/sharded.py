"""A run in shards: each computes its chunks in a folder of its own, and `merge` makes of them the folder of the whole.

What every chunk needs of all clips (scores, vectors, the clean pass) is computed in each shard, as chunks too: `merge`
refuses shards that came to other digits there. Then it goes on with the run as one that was killed after its last
chunk, so that its files are those of one process.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp_core.content import changed
from interp_core.engine import Engine
from interp_core.errors import CheckFailed, InterpError, few
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import SHARD, Experiment, Ready, finished, prepare, run
from interp_core.experiments.result import Result
from interp_core.jobs import Progress, silent
from interp_core.options import from_config
from interp_core.resuming import of_a_run, settings_changed
from interp_core.runs import WRITTEN, RunWriter, check_written, delete_run, read_config
from interp_core.shards import Shard
from interp_core.sinks import ShardDone, ShardSink, Watched
from interp_core.storage import whole_chunks

FOLDER = re.compile(r"shard-[0-9]{1,6}-of-[0-9]{1,6}")


def run_shard(
    experiment: Experiment[Any, Any, Any],
    ready: Ready[Any, Any],
    shard: Shard,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
    announce: Callable[[str], None] | None = None,
) -> Path:
    """Compute the chunks of one shard.

    Args:
        out: what all shards share; the shard's folder is made below it.
        resume: go on with the shard that is there; a finished one is left as it is.
    Returns:
        The shard's folder.
    Raises:
        InterpError: bad input, or a run without chunks that can be shared; CheckFailed.
    """
    folder = Path(out) / shard.folder
    config = {**ready.config, SHARD: str(shard)}
    with RunWriter.create(folder, config, ready.request.config_file, resume=resume) as writer:
        if writer.was_finished:
            return folder
        sink = ShardSink(writer, shard)
        sink.keep_prepared(ready.prepared.values)
        try:
            if announce is not None:
                announce(str(experiment.cost(ready)))
            experiment.compute(ready, sink, progress)
            sink.gather()
        except ShardDone:
            sink.sort()
            writer.finish()
            return folder
        except CheckFailed:
            raise
        except InterpError:
            if not sink.deals:
                sink.clear()  # nobody goes on from a run that has nothing to deal
            if not sink.holds_any:
                sink.forget_prepared()
                writer.abandon()
            raise
    raise AssertionError("gather always raises in a shard")


def merge(
    folders: Sequence[Path],
    out: Path,
    *,
    engine: Engine | None = None,
    progress: Progress = silent,
    ready: Ready[Any, Any] | None = None,
) -> tuple[Experiment[Any, Any, Any], Result]:
    """Write the folder that one process would have written, from the folders of all shards.

    The model is opened as the config says, on its device: what follows the chunks may need it. A merge that was killed
    is repeated with the same call.

    Args:
        ready: of the same request, if it is there already; its model is then the one that is used.
    Raises:
        InterpError: no shards, missing, doubled, unfinished or damaged ones, other settings or files, shared chunks
            with other digits; all of it at once.
    """
    configs = _checked(folders)
    first = next(iter(configs.values()))
    experiment = experiment_of(first["command"])
    if ready is None:
        asked = from_config(experiment.request, first["asked"])
        placed = replace(asked, device=first["device"], dtype=first["dtype"])
        ready = replace(prepare(experiment, engine or Engine(), placed, next(iter(configs)), progress), asked=asked)
    if differ := apart({**first, SHARD: None}, {**ready.config, SHARD: None}):
        raise InterpError(f"the shards were computed from something else than what is there now: {'; '.join(differ)}.")
    with RunWriter.create(Path(out), ready.config, ready.request.config_file, resume=True) as writer:
        if not writer.was_finished:
            _gather(writer, configs)
    return experiment, run(
        experiment, ready.engine, ready.request, out=out, resume=True, progress=progress, ready=ready
    )


def shards_below(out: Path) -> list[Path]:
    """The folders of shards below a folder, whatever made them."""
    return [
        path
        for path in sorted(Path(out).expanduser().glob("shard-*-of-*"))
        if FOLDER.fullmatch(path.name) and path.is_dir()
    ]


def dealt_into(out: Path) -> int:
    """Into how many shards the run that a folder holds was dealt as a whole; 0 where it was not.

    Raises:
        InterpError: shards of several such ways lie below it.
    """
    counts = {int(path.name.rpartition("-")[2]) for path in shards_below(out)}
    if not counts or not of_a_run(Path(out).expanduser()):
        return 0
    if len(counts) > 1:
        raise InterpError(f"below {out} lie shards of {' and of '.join(map(str, sorted(counts)))}; keep those of one.")
    return counts.pop()


def drop_shards(out: Path) -> None:
    """Remove the shards of a finished run."""
    for folder in shards_below(out):
        delete_run(folder)


def run_whole(
    experiment: Experiment[Any, Any, Any],
    engine: Engine,
    request: Any,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    announce: Callable[[str], None] | None = None,
    ready: Ready[Any, Any] | None = None,
    watched: Watched | None = None,
) -> Any:
    """As `run`, which this is unless the folder holds a run that a cluster began: then its shards are finished here.

    What other machines have computed is not computed again; each shard is taken up where it was left.
    """
    if out is None or not resume or not dealt_into(out):
        return run(
            experiment, engine, request, out=out, resume=resume, progress=progress, announce=announce, ready=ready,
            watched=watched,
        )  # fmt: skip
    count, out = dealt_into(out), Path(out).expanduser()
    if ready is None and (known := finished(experiment, engine, request, out)) is not None:
        drop_shards(out)
        return known
    shards = [Shard(number, count) for number in range(1, count + 1)]
    ready = ready or prepare(experiment, engine, request, out, progress)
    with RunWriter.create(out, ready.config, request.config_file, resume=True) as writer:
        for shard in () if writer.was_finished else shards:
            run_shard(experiment, ready, shard, out, resume=True, progress=progress, announce=announce)
            announce = None
        done = writer.was_finished
    if done:
        result = run(experiment, engine, request, out=out, resume=True, ready=ready)
    else:
        _, result = merge([out / one.folder for one in shards], out, engine=engine, progress=progress, ready=ready)
    drop_shards(out)
    return result


def _gather(writer: RunWriter, configs: Mapping[Path, Mapping[str, Any]]) -> None:
    records: dict[str, list[tuple[int, list[bytes]]]] = {}
    kept: set[str] = set()
    for folder, config in configs.items():
        for name in config[WRITTEN]:
            if name.endswith(".jsonl"):
                records.setdefault(name, []).extend(whole_chunks((folder / name).read_bytes()))
            elif name.startswith("chunk_") and name not in kept:
                kept.add(name)
                writer.write_bytes(name, (folder / name).read_bytes())
    for name, chunks in records.items():
        ordered = sorted(chunks, key=lambda chunk: chunk[0])
        writer.write_bytes(name, b"".join(line + b"\n" for _, lines in ordered for line in lines))


def _checked(folders: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """The configs of all shards, by folder, in their order."""
    faults: list[str] = []
    found: dict[Path, tuple[Shard, dict[str, Any]]] = {}
    for folder in map(Path, folders):
        try:
            config = read_config(folder)
            if not isinstance(config.get(SHARD), str):
                raise InterpError(f"{folder} is no shard of a run; give folders that --shard made")
            found[folder] = (Shard.read(config[SHARD], {}), config)
            if not config.get("finished") or not isinstance(config.get(WRITTEN), Mapping):
                raise InterpError(f"{folder} is not finished; go on with it (--resume)")
            if lacking := [name for name in config[WRITTEN] if not (folder / name).is_file()]:
                raise InterpError(f"{folder} lacks {few(lacking)}; restore it or run the shard again")
            check_written(folder, config)
        except InterpError as error:
            faults.append(str(error).rstrip("."))
    if not folders:
        faults.append("there is no shard; give the folders of all of them")
    if found:
        faults += _together(found)
    if faults:
        raise InterpError(f"{'; '.join(faults)}.")
    return {folder: config for folder, (_, config) in sorted(found.items(), key=lambda one: one[1][0].number)}


def _together(found: Mapping[Path, tuple[Shard, Mapping[str, Any]]]) -> list[str]:
    """Why shards are not those of one run, in parts of a sentence."""
    (name, (one, first)), faults = next(iter(found.items())), []
    places: dict[int, list[str]] = {}
    digests: dict[str, str] = {}
    torn: dict[str, None] = {}
    for folder, (shard, config) in found.items():
        if shard.count != one.count:
            faults.append(f"{folder} is shard {shard}, {name} is shard {one}")
            continue
        places.setdefault(shard.number, []).append(str(folder))
        if differ := apart({**first, SHARD: None}, {**config, SHARD: None}):
            faults.append(f"{folder} is of another run than {name}: {'; '.join(differ)}")
            continue
        for file, digest in (config.get(WRITTEN) or {}).items():
            if file.startswith("chunk_") and digests.setdefault(file, digest) != digest:
                torn[file] = None
    faults += [f"shard {number} is there {len(at)} times ({few(at)})" for number, at in places.items() if len(at) > 1]
    if missing := [str(number) for number in range(1, one.count + 1) if number not in places]:
        faults.append(f"of {one.count} shards {few(missing, 10)} {'is' if len(missing) == 1 else 'are'} missing")
    if torn:
        faults.append(
            f"what all shards share came out otherwise in some of them ({few(list(torn))}): run them on machines of "
            "one kind, with as many threads"
        )
    return faults


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In which settings and files the configs of two runs differ, in parts of a sentence."""
    if one["command"] != other["command"]:
        return [f"command was {one['command']!r}, is {other['command']!r}"]
    return [*(f"{name} changed" for name in changed(one, other)), *settings_changed(one, other)]
