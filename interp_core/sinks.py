"""Where the chunks of a run go as they are computed, and where those of an earlier, killed run come back from.

A *chunk* is the unit of progress, of cancelling and of going on: some clips or pairs, whose make-up depends on the
settings alone. It leaves records (lines of JSON) or arrays behind; whoever computes takes what the sink hands back, so
that a run that went on computes its results from the same digits as one that was never interrupted.
"""

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp_core.errors import InterpError
from interp_core.resuming import CONFIG_ENDING
from interp_core.runs import RunWriter
from interp_core.shards import Shard
from interp_core.storage import dump_line, replace_file, sealed_bytes, unsealed

Arrays = Mapping[str, NDArray[Any]]
Records = list[dict[str, Any]]
Curves = Callable[[], pd.DataFrame]
"""Curves of what is known by now: the columns of `Result.profile`, and n, the units that a point rests on."""


LOOK_EVERY_S, SHARE_OF_LOOKING = 2.0, 0.05
"""How often the curves of a run that goes on are made anew, and of its time how much at most."""


class NoShards(InterpError):
    """A run has no chunks that shards could share."""


class ShardDone(Exception):
    """A shard has all its chunks; what follows is done by `merge`."""


class Sink(Protocol):
    """See above; `name` is the part of a run that the chunks belong to, and for records the file's name."""

    def json(self, name: str, value: Any) -> None:
        """Keep a report that a reader wants before the run is finished, or although it failed."""

    def jsonl(self, name: str, rows: Iterable[Any]) -> None:
        """Keep a list, one object a line."""

    def expect(self, name: str, chunks: Mapping[int, int]) -> None:
        """Say how many records each chunk has when complete, before the first is asked for."""

    def records(self, name: str, chunk: int) -> Records | None:
        """The records of a chunk that an earlier run finished; None where it did not."""

    def keep_records(self, name: str, chunk: int, records: Records) -> Records:
        """Store a chunk's records, without their chunk number, and return them as a later run reads them."""

    def arrays(self, name: str, chunk: int) -> Arrays | None:
        """The arrays of a chunk that an earlier run finished; None where it did not."""

    def keep_arrays(self, name: str, chunk: int, arrays: Arrays) -> Arrays:
        """Store a chunk's arrays until the run is finished, and return them as a later run reads them."""

    def show(self, curves: Curves) -> None:
        """Offer to whoever watches what the chunks so far say. Another thread calls it, so it takes copies of lists."""

    def skips(self, group: int) -> bool:
        """Whether the chunks of a group are another shard's: they are not computed, and nothing is taken from them.

        Progress counts them as done, so that it ends at its total in a shard, too.
        """

    def gather(self) -> None:
        """Say that what follows needs the chunks of all groups. Raises: ShardDone in a shard."""


def recorded(sink: Sink, name: str, chunk: int, compute: Callable[[], Records]) -> Records:
    """The records of a chunk: those that an earlier run finished, else what `compute` gives, which is kept."""
    kept = sink.records(name, chunk)
    return sink.keep_records(name, chunk, compute()) if kept is None else kept


class Watched:
    """What a run shows while it goes on; see `Sink.show`. However many look, it costs the run little."""

    def __init__(self) -> None:
        self._curves: Curves | None = None
        self._lock = threading.Lock()
        self._last = pd.DataFrame(columns=["series", "x", "value", "n"])
        self._next = 0.0

    def show(self, curves: Curves) -> None:
        self._curves = curves

    def __call__(self) -> pd.DataFrame:
        """The curves by now, or of a moment ago; without a row where there are none yet."""
        with self._lock:
            started = time.monotonic()
            if self._curves is not None and started >= self._next:
                self._last = self._curves()
                ended = time.monotonic()
                self._next = ended + max(LOOK_EVERY_S, (ended - started) / SHARE_OF_LOOKING)
            return self._last


def table_arrays(**tables: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Tables of numbers and texts as the arrays of a chunk, column by column; a missing text is ""."""
    found: dict[str, NDArray[Any]] = {}
    for name, table in tables.items():
        for column in table:
            values = table[column]
            numeric = pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)
            found[f"{name}.{column}"] = values.to_numpy() if numeric else values.to_numpy(str)
    return found


def array_table(arrays: Arrays, name: str) -> pd.DataFrame:
    """One of the tables that `table_arrays` took apart."""
    start = f"{name}."
    return pd.DataFrame({key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)})


PREPARED = "prepared"
"""The chunk of what the run's preparation computed."""


def prepared_in(folder: Path) -> dict[str, Any]:
    """What the preparation of the run in a folder computed, see `prepared`; nothing where that is lost or broken.

    Of a folder that is shared by several, such as the shards of a run or the epochs of a training, also what lies in
    those directly below it: the values are named by what they follow from, whoever computed them. A finished run keeps
    those alone that a choice among several rests on, in its config.
    """
    folder, name = Path(folder).expanduser(), _chunk_file(PREPARED, 0)
    found: dict[str, Any] = {}
    for path in (*folder.glob(f"*/*{CONFIG_ENDING}"), *folder.glob(f"*{CONFIG_ENDING}")):
        found |= _of_choice(path)
    for path in (*sorted(folder.glob(f"*/{name}")), folder / name):
        try:
            whole = unsealed(path.read_bytes())
        except OSError:
            continue
        if whole is not None:
            with np.load(io.BytesIO(whole), allow_pickle=False) as kept:
                found |= json.loads(str(kept[PREPARED]))
    return found


def _of_choice(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        if '"choice"' not in text:  # of most runs, whose configs are long
            return {}
        kept = json.loads(text)["choice"]["prepared"]
        return {name: [float(one) for one in values] for name, values in kept.items() if len(values) == 2}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return {}  # none was made, or whoever opens the run says what is wrong with its config


def _chunk_file(name: str, chunk: int) -> str:
    return f"chunk_{name}_{chunk:06}.npz"


def holds_chunks(folder: Path) -> bool:
    """Whether anything lies in a run folder that was computed, from which a resumed run goes on."""
    here = [path.name for path in folder.iterdir() if path.name != _chunk_file(PREPARED, 0)]
    return any(name.startswith("chunk_") or ("_records" in name and name.endswith(".jsonl")) for name in here)


class MemorySink:
    """Of a run that is kept nowhere: nothing was finished before, and all goes through JSON as in a folder."""

    def __init__(self, watched: Watched | None = None) -> None:
        self._watched = watched

    def json(self, name: str, value: Any) -> None:
        return None

    def jsonl(self, name: str, rows: Iterable[Any]) -> None:
        return None

    def expect(self, name: str, chunks: Mapping[int, int]) -> None:
        return None

    def records(self, name: str, chunk: int) -> Records | None:
        return None

    def keep_records(self, name: str, chunk: int, records: Records) -> Records:
        return [json.loads(dump_line(row)) for row in records]

    def arrays(self, name: str, chunk: int) -> Arrays | None:
        return None

    def keep_arrays(self, name: str, chunk: int, arrays: Arrays) -> Arrays:
        return arrays

    def show(self, curves: Curves) -> None:
        if self._watched is not None:
            self._watched.show(curves)

    def skips(self, group: int) -> bool:
        return False

    def gather(self) -> None:
        return None


MEMORY = MemorySink()
"""For what is asked on a page and kept nowhere."""


class FolderSink:
    """Of a run folder. Arrays lie in files of their own, one a chunk, until `clear` removes them."""

    def __init__(self, writer: RunWriter, watched: Watched | None = None) -> None:
        self._writer = writer
        self._watched = watched
        self._done: dict[str, dict[int, Records]] = {}

    def json(self, name: str, value: Any) -> None:
        self._writer.write_json(name, value)

    def jsonl(self, name: str, rows: Iterable[Any]) -> None:
        self._writer.write_jsonl(name, rows)

    def expect(self, name: str, chunks: Mapping[int, int]) -> None:
        complete, rows = self._writer.resume_records(name, chunks)
        done: dict[int, Records] = {chunk: [] for chunk in complete}
        for row in rows:
            done[row.pop("chunk")].append(row)
        self._done[name] = done

    def records(self, name: str, chunk: int) -> Records | None:
        return self._done[name].get(chunk)

    def keep_records(self, name: str, chunk: int, records: Records) -> Records:
        kept = self._writer.append(name, [{"chunk": chunk, **row} for row in records])
        return [{key: value for key, value in row.items() if key != "chunk"} for row in kept]

    def arrays(self, name: str, chunk: int) -> Arrays | None:
        try:
            whole = unsealed(self._file(name, chunk).read_bytes())
        except OSError:  # not there, or not to be read
            return None
        if whole is None:  # cut short, changed, or of a version that wrote no checksum
            return None
        with np.load(io.BytesIO(whole), allow_pickle=False) as kept:
            return {key: kept[key] for key in kept.files}

    def show(self, curves: Curves) -> None:
        if self._watched is not None:
            self._watched.show(curves)

    @property
    def holds_any(self) -> bool:
        """Whether anything was computed that a resumed run goes on from."""
        return holds_chunks(self._writer.folder)

    def keep_arrays(self, name: str, chunk: int, arrays: Arrays) -> Arrays:
        npz = io.BytesIO()
        np.savez(npz, **arrays)  # type: ignore[arg-type]
        replace_file(self._file(name, chunk), sealed_bytes(npz.getvalue()))
        return arrays

    def keep_prepared(self, values: Mapping[str, Any]) -> None:
        """Keep what the run's preparation computed, for `prepared_in` of a later process."""
        if values:
            self.keep_arrays(PREPARED, 0, {PREPARED: np.array(json.dumps(values, sort_keys=True))})

    def forget_prepared(self) -> None:
        """Remove it: the run was refused."""
        self._file(PREPARED, 0).unlink(missing_ok=True)

    def skips(self, group: int) -> bool:
        return False

    def gather(self) -> None:
        return None

    def sort(self) -> None:
        """Put records in the order of chunks."""
        for name in self._done:
            self._writer.sort_records(name)

    def clear(self) -> None:
        """Remove the chunks' arrays: a finished run holds what they became. Records stand in the order of chunks."""
        self.sort()
        for path in self._writer.folder.glob("chunk_*.npz"):
            if re.fullmatch(r"chunk_.+_\d{6}\.npz", path.name):
                path.unlink()

    def _file(self, name: str, chunk: int) -> Path:
        return self._writer.path(_chunk_file(name, chunk))


class ShardSink(FolderSink):
    """Of the folder of one shard, which keeps chunks and no list or table that might be taken for the whole."""

    def __init__(self, writer: RunWriter, shard: Shard) -> None:
        super().__init__(writer)
        self._shard = shard
        self.deals = False
        """Whether the run has asked of any chunk whose it is."""

    def jsonl(self, name: str, rows: Iterable[Any]) -> None:
        return None

    def skips(self, group: int) -> bool:
        self.deals = True
        return not self._shard.has(group)

    def gather(self) -> None:
        if not self.deals:
            raise NoShards(
                "this run has no chunks that shards could share (what follows one pass over its clips needs all of "
                "them); run it without --shard and --cluster."
            )
        raise ShardDone
