"""A dashboard of its own on a free port, for whatever drives it in a browser: benchmarks, and the README's pictures."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(runs: Path | None = None) -> Iterator[str]:
    """Start the dashboard, give its address once it answers, and end it.

    Args:
        runs: where it keeps its runs; None for the usual folder.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    given = {"STREAMLIT_SERVER_HEADLESS": "true"} | ({} if runs is None else {"PATCHBAY_RUNS": str(runs)})
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **given}, stdout=quiet, stderr=quiet)
    address = f"http://localhost:{port}"
    try:
        _wait_for(f"{address}/_stcore/health")
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def _wait_for(url: str, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
