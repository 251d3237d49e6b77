"""The room that recordings have on the disk: how much all of them and those of one visitor may take.

Who asks whether there is room and who takes it hold one lock of the folder that all collections lie in, so that two who
come at once do not both take what is left.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from interp_core.data.archive import Caps
from interp_core.errors import InterpError
from interp_core.storage import NO_LOCKS

LOCK_FILE = ".room.lock"
LONGEST_WAIT = 60.0  # seconds; whoever holds the lock writes one recording
_here = threading.Lock()


@contextmanager
def holding(root: Path) -> Iterator[None]:
    """Hold the room below `root`, also against other processes. Errors: InterpError where others hold it for long."""
    with _here:
        lock = FileLock(root / LOCK_FILE, timeout=LONGEST_WAIT, thread_local=False, fallback_to_soft=False)
        try:
            root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise InterpError(f"others have been writing into {root} for {LONGEST_WAIT:.0f} s; try it again.") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise InterpError(
                    f"{root} cannot be written ({error.strerror}); set PATCHBAY_DATA to another folder."
                ) from error
        try:
            yield
        finally:
            lock.release()


def check_room(root: Path, own: Callable[[Path], bool], more: int, caps: Caps) -> None:
    """Refuse what there is no room for; to be asked while `holding` the room.

    Args:
        root: the folder that all collections lie in.
        own: whether a folder in it belongs to who asks.
        more: bytes that are to be written.
    Raises:
        InterpError: all recordings, or those of who asks, would take more than `caps` allows.
    """
    taken = {folder: nbytes(folder) for folder in root.glob("*/")}
    if sum(taken.values()) + more > caps.nbytes:
        most = f"{caps.nbytes / 2**20:.0f} MB (PATCHBAY_MAX_DATA_MB)"
        raise InterpError(f"all recordings here would take more than {most}; delete a collection first")
    if sum(size for folder, size in taken.items() if own(folder)) + more > caps.share:
        most = f"{caps.share / 2**20:.0f} MB, one visitor's share of the room (PATCHBAY_MAX_VISITOR_MB)"
        raise InterpError(f"your recordings would take more than {most}; delete a collection of yours first")


def nbytes(folder: Path) -> int:
    """What a folder takes on the disk, in bytes; a file that goes in the meantime takes nothing."""
    return sum(_size(path) for path in folder.rglob("*"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() and not path.is_symlink() else 0
    except OSError:
        return 0
