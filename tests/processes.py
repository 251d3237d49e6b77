"""The command line in a process of its own, without the seconds that every such process takes to import torch.

A fork server of the standard library imports it all once (`imported.py`) and computes nothing; each command is a child
split off from it, to be waited for, signalled and killed like any other. What the interpreter does before the command,
`python -m interp_core`, is seen by test_cli_process.py and experiments/test_probe_threads.py.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.imported"])


class Command:
    """A command at work, with the members of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        program: Callable[[Sequence[str]], int] | None = None,
    ) -> None:
        """Start it.

        Args:
            arguments: what stands behind `python -m interp_core`.
            env: its environment, with OMP_NUM_THREADS as the number of its threads; None: that of this process.
            program: another main function, of a module.
        """
        self._said = tempfile.TemporaryDirectory(prefix="patchbay-command-")
        told = dict(os.environ if env is None else env)
        given = (list(map(str, arguments)), self._said.name, os.getcwd(), told, program)
        self._process = SERVER.Process(target=_ran, args=given, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(f"process {self.pid} is still at work after {timeout} s")
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to its output and its errors, once it has ended."""
        self.wait(timeout)
        out, err = (Path(self._said.name, name).read_text() for name in ("out", "err"))
        return out, err


def finished(arguments: Sequence[str], **more: object) -> Command:
    """A command that has ended."""
    command = Command(arguments, **more)  # type: ignore[arg-type]
    command.wait()
    return command


def _ran(
    arguments: Sequence[str],
    said: str,
    folder: str,
    env: Mapping[str, str],
    program: Callable[[Sequence[str]], int] | None,
) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(os.path.join(said, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    # Where the tests run in the background, SIGINT is ignored from the shell on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    if "OMP_NUM_THREADS" in env:  # read by the library when it was loaded, before the fork
        torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    if program is None:
        from interp_core.__main__ import main as program
    sys.exit(program(arguments))
