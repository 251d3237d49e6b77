"""A hub id's files: fetched once into the library's own cache, or found there; then it is a folder like any other."""

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from tqdm import tqdm  # type: ignore[import-untyped]

from interp_core.errors import InterpError
from interp_core.jobs import Progress, silent

# Settings, tokenizers and templates; below, the audio half of OpenS2S and the adapters of Phi-4.
_SMALL = ["*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken", "audio/*", "speech-lora/*"]
_PATIENCE_S = 3.0


def fetched(name: str, progress: Progress = silent) -> Path:
    """Return the folder with the files of `owner/model`.

    Args:
        progress: told the megabytes that are there and those wanted; may raise to cancel, and what was fetched till
            then is not fetched again.
    Raises:
        InterpError: no such model, one whose terms were not accepted, or neither network nor a copy in the cache.
    """
    here = not _reachable()
    try:
        if here:
            return Path(snapshot_download(name, local_files_only=True))
        files = HfApi().list_repo_files(name)
        weights = "*.safetensors" if any(file.endswith(".safetensors") for file in files) else "*.bin"
        bar = _bar(lambda done, total: progress(done >> 20, total >> 20, f"megabytes of {name} fetched"))
        return Path(
            snapshot_download(name, allow_patterns=[*_SMALL, weights], ignore_patterns=["tts/*"], tqdm_class=bar)
        )
    except GatedRepoError as error:
        raise InterpError(
            f"{name} is gated: accept its terms on the hub and log in (hf auth login), or give a folder that holds it."
        ) from error
    except RepositoryNotFoundError as error:
        raise InterpError(f"the hub has no model {name}, or none that you may see; check the name.") from error
    except (OSError, ValueError) as error:
        where = "the hub cannot be reached and its cache holds no copy" if here else "fetching it from the hub failed"
        raise InterpError(
            f"{name} cannot be opened: {where}. Fetch it where there is a network (a gated one after logging in with "
            "hf auth login), or give a folder that holds it."
        ) from error


def _bar(progress: Callable[[int, int], None]) -> type[tqdm]:
    """What the library draws as a progress bar, told to `progress` instead: bytes done, and bytes in all as known.

    It is asked in the threads that fetch, so what `progress` raises ends each of them at its next piece.
    """
    bars: list[Any] = []

    class Bar(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings | {"file": io.StringIO(), "disable": False})
            if self.unit == "B":
                bars.append(self)

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            progress(*(int(max((of(bar) or 0 for bar in bars), default=0)) for of in (_done, _total)))
            return drawn

    return Bar


def _done(bar: Any) -> float:
    return float(bar.n)


def _total(bar: Any) -> float | None:
    total: float | None = bar.total
    return total


def _reachable() -> bool:
    """Ask once, briefly: left to itself the library tries for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # the proxy knows the way, this machine need not
    hub = urlparse(constants.ENDPOINT)
    try:
        with socket.create_connection((hub.hostname or "", hub.port or 443), timeout=_PATIENCE_S):
            return True
    except OSError:
        return False
