"""A real browser against a real server: `serve` starts Streamlit on a free port, `open_page` opens a page of it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
MICROPHONE_FLAGS = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
SERVER_OPTIONS = {
    "server.headless": "true",
    "server.address": "127.0.0.1",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
}
START_SECONDS = 60

# Streamlit's own index.html has one inline script that a content security policy without its hash refuses. It is
# harmless, and not ours to answer for.
NOT_OURS = re.compile(r"Executing inline script violates|Refused to execute inline script", re.IGNORECASE)

Serve = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for the browser is a browser test, marked or not."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser's microphone hears, over and over: two seconds, a tone that rises from 200 to 600 Hz."""
    path = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    seconds = np.arange(2 * 48_000) / 48_000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * (200 * seconds + 100 * seconds**2)), 48_000, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def browser(spoken: Path) -> Iterator[Any]:
    """Debian's Chromium, headless, with a made-up microphone; the test is skipped where there is none."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: install Debian's `chromium`, or name another one in $CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (requirements-dev.txt)")
    with playwright.sync_playwright() as driver:
        flags = [*CHROMIUM_FLAGS, *MICROPHONE_FLAGS, f"--use-file-for-fake-audio-capture={spoken}"]
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=flags, headless=True)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """serve(script, *arguments, env=None, options=None) -> the address of a server that runs `script` and is healthy.

    `arguments` go to the script, `env` is added to the environment, `options` are Streamlit's own settings
    ({"theme.base": "dark"}). The same call again gives the same server; all are stopped when the session ends.
    """
    running: dict[Any, tuple[subprocess.Popen[bytes], str]] = {}

    def start(
        script: Path | str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> str:
        identity = (str(script), arguments, tuple(sorted((env or {}).items())), tuple(sorted((options or {}).items())))
        if identity not in running:
            log = tmp_path_factory.mktemp("server") / "log.txt"
            running[identity] = _start_server(Path(script), arguments, env or {}, options or {}, log)
        return running[identity][1]

    yield start
    for process, _ in running.values():
        process.terminate()
    for process, _ in running.values():
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def app_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the dashboard of `app` keeps its runs."""
    return tmp_path_factory.getbasetemp() / "app-runs"


@pytest.fixture(scope="session")
def app(serve: Serve, app_runs: Path) -> str:
    """The address of the dashboard as it ships, one server for all tests that change nothing of it."""
    return serve(ROOT / "app.py", env={"PATCHBAY_RUNS": str(app_runs)})


def _start_server(
    script: Path, arguments: tuple[str, ...], env: Mapping[str, str], options: Mapping[str, str], log: Path
) -> tuple[subprocess.Popen[bytes], str]:
    port = _free_port()
    settings = {**SERVER_OPTIONS, **options, "server.port": str(port)}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", str(script), *flags, "--", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, **env},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if _healthy(address):
            return process, address
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"{script} was not served within {START_SECONDS} s:\n{log.read_text(errors='replace')[-4000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """open_page(url, width=1280, height=900, scheme="light") -> a page in a session of its own.

    `page.console_errors` collects what the browser's console called an error and what was thrown on the page,
    `page.asked_elsewhere` the addresses on other hosts that it asked for.
    """
    contexts = []

    def open_at(url: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.console_errors, page.asked_elsewhere = [], []
        page.on("request", lambda request: _note_host(page, url, request.url))
        page.on("console", lambda message: _note(page, message) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.console_errors.append(str(error)))
        page.goto(url)
        return page

    yield open_at
    for context in contexts:
        context.close()


def _note_host(page: Any, own: str, url: str) -> None:
    asked = urllib.parse.urlsplit(url)
    if asked.scheme not in ("data", "blob", "about") and asked.netloc != urllib.parse.urlsplit(own).netloc:
        page.asked_elsewhere.append(url)


def _note(page: Any, message: Any) -> None:
    # Streamlit looks for its own addresses below a page's at first, and finds them one level up.
    if not NOT_OURS.search(message.text) and "/_stcore/" not in str(message.location.get("url", "")):
        page.console_errors.append(message.text)
