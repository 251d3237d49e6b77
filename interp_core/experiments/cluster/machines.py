"""Join a Ray cluster or start one on this machine, and say how many workers have room on it."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp_core.errors import InterpError

LOCAL = "local"
CORES = 4
"""Of a worker without a GPU where nobody says how many workers there are: more cores make one model little faster."""
CONNECT_S = 5.0
STORE_BYTES = 80 << 20  # the least that Ray takes: workers hand over numbers of steps, and files go by the disk
OURS = {"RAY_USAGE_STATS_ENABLED": "0"}  # nothing is reported to anybody


@dataclass(frozen=True)
class Room:
    """How many workers there are, and what each of them has."""

    workers: int
    cpus: int
    gpus: int


def room(nodes: Sequence[Mapping[str, float]], device: str, workers: int | None) -> Room:
    """Divide the machines of a cluster among workers.

    Args:
        nodes: of each machine its CPU (cores) and GPU, as many as are there.
        device: as the request says it. workers: as many as a person wants; None: one a GPU, or one for `CORES` cores
            (but two at least where there are two cores) where there is no GPU or the device is the CPU.
    Raises:
        InterpError: one certain GPU is named, or there is no room for so many.
    """
    if re.fullmatch(r"cuda:[0-9]+", device) and device != "cuda:0":  # the name of a worker's one GPU, as in a config
        raise InterpError(f"--device {device} is one GPU of one machine; with --cluster give cuda, cpu or auto.")
    cores = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    all_gpus: int = sum(gpus)
    if device.startswith("cuda") and not all_gpus:
        raise InterpError(f"--device {device}: the cluster has no GPU; give --device cpu, or a cluster that has some.")
    if device != "cpu" and all_gpus:
        count = workers or all_gpus
        if count > all_gpus:
            raise InterpError(f"--workers {count}: the cluster has {all_gpus} GPUs, and each worker takes one.")
        each = min((core // gpu for core, gpu in zip(cores, gpus, strict=True) if gpu), default=0)
        return Room(count, min(each, CORES), 1)
    if not sum(cores):
        raise InterpError("the cluster has no cores for workers; start its machines with --num-cpus.")
    if workers is None:
        each = max(1, min(CORES, max(cores) // 2))
        return Room(sum(core // each for core in cores), each, 0)
    if workers > sum(cores):
        raise InterpError(f"--workers {workers}: the cluster has {sum(cores)} cores, and each worker takes one.")
    each = next(n for n in range(max(cores), 0, -1) if sum(core // n for core in cores) >= workers)
    return Room(workers, each, 0)


def library(address: str = LOCAL) -> Any:
    """Ray, imported to work at an address. Errors: InterpError where it is not installed."""
    os.environ.update(OURS)
    if address == LOCAL and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on every address of the machine and would run what anybody sends; it reads this as it is imported.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise InterpError(
            "--cluster needs Ray, which is not installed here: pip install -r requirements-cluster.txt "
            '(or pip install -e ".[cluster]").'
        ) from error
    return ray


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """Within, Ray is there: one that is started and ended on this machine (`local`), or the one at an address.

    Where the caller has joined a cluster already, it is that one. A cluster that is started here takes nobody's calls
    but those of its own processes (they share a token), and leaves no file behind.

    Raises:
        InterpError: no Ray, nobody at the address, or a Ray or Python there that cannot talk with this one.
    """
    if address != LOCAL:
        _check_reachable(address)
    ray = library(address)
    if ray.is_initialized():
        yield ray
        return
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with contextlib.ExitStack() as undo:
        if address == LOCAL:
            folder = tempfile.mkdtemp(prefix="ray-")
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            how |= {"include_dashboard": False, "object_store_memory": STORE_BYTES, "_temp_dir": folder}
        undo.callback(ray.shutdown)
        try:
            with _own_signals():
                ray.init(address=address, **how)
        except (OSError, RuntimeError, ValueError, ImportError, ray.exceptions.RayError) as error:
            raise InterpError(
                f"no Ray cluster could be {'started here' if address == LOCAL else f'joined at {address}'}: "
                f"{first_line(error)}; it needs the same Python and the same Ray ({ray.__version__}) on every machine."
            ) from error
        yield ray


def nodes_of(ray: Any) -> list[Mapping[str, float]]:
    """What each machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def first_line(error: BaseException) -> str:
    """What an error says, in a line without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes. Errors: InterpError where nobody listens at HOST:PORT."""
    found = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[^:/\s]+):([0-9]{1,5})", address)
    if address == "auto":
        return
    if found is None or not 0 < int(found[2]) < 65_536:
        raise InterpError(f"--cluster {address!r} is no cluster; write local, HOST:PORT of a Ray head node, or auto.")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), CONNECT_S).close()
    except OSError as error:
        raise InterpError(
            f"--cluster {address}: nobody answers there ({error.strerror or error}); start Ray on its head node "
            f"(ray start --head --port={found[2]}), or write --cluster local for this machine."
        ) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Within, Ray puts in a handler of SIGTERM that ends the program; ours, which lets workers finish, comes back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
