"""What the commands share: options of every run, lists in options, config files, the line that shows progress."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_core.errors import InterpError

if TYPE_CHECKING:  # torch and transformers are imported by the command that needs them, so that --help answers at once
    from interp_core.data.clips import ClipLimits

DONE, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def add_input(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--model", help="a bundled name (demo-emotion), a folder, a checkpoint file, or a hub id")
    add("--part", default="", help="which blocks, of a model that has several lists of them: encoder or decoder")
    add("--probe", default="", help="a label column: fit a probe to it as the readout of a model without a classifier")
    add("--manifest", help="CSV or Parquet: clip_id, path, label columns; a bundled model has its own clips")
    add("--config", help="run exactly what an earlier run's config file says")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    add("--seed", type=int, default=42)
    add("--max-clips", type=int, help="only the first N rows of the manifest")
    add("--max-seconds", type=float, default=30.0, help="the longest clip that is taken")
    add("--skip-bad", action="store_true", help="leave out rows that cannot be used instead of stopping")
    add("--batch-size", type=int, default=8, help="pairs in one sweep; halved by itself when memory runs out")
    add("--pilot", type=int, help="only the first N pairs of each kind, or N clips")


def asked(args: argparse.Namespace, bundled: str) -> dict[str, Any]:
    """Return the options of every run as arguments of a request; InterpError, naming a bundled model, without one."""
    if args.model is None:
        raise InterpError(f"--model is missing; give a bundled name ({bundled}), a folder, a file, or a hub id.")
    names = ("model", "manifest", "device", "dtype", "max_clips", "skip_bad", "pilot", "part", "probe")
    return {name: getattr(args, name) for name in names}


def read_config(args: argparse.Namespace) -> dict[str, Any]:
    path = Path(args.config)
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InterpError(f"{path} cannot be read ({error.strerror}); give an earlier run's config file.") from error
    except ValueError as error:
        raise InterpError(f"{path} is no JSON file ({error}); give an earlier run's config file.") from error
    if not isinstance(config, dict):
        raise InterpError(f"{path} holds no settings; give an earlier run's patching_config.json.")
    return config


def words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def numbers(text: str, kind: type, option: str) -> tuple:
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError as error:
        raise InterpError(f"{option} {text!r} is no list of numbers like 0,4,8.") from error


def limits(args: argparse.Namespace) -> "ClipLimits":
    from interp_core.data.clips import ClipLimits
    from interp_core.request import limits_from

    return limits_from(read_config(args)) if args.config is not None else ClipLimits(max_seconds=args.max_seconds)


class ProgressLine:
    """Done of total, rate and remaining time on one line of stderr, or a line now and then where that is no screen."""

    def __init__(self) -> None:
        self._started = self._shown = time.monotonic()
        self._first: int | None = None
        self._screen = sys.stderr.isatty()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self._first is None or done < self._first:  # another count has begun
            self._first, self._started = done, now
        if now - self._shown < (0.2 if self._screen else 10) and done < total:
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = f"{(total - done) / rate:.0f} s left" if rate else "estimating"
        text = f"{done}/{total}  {rate:.1f}/s  {left}  {note}"
        print(f"\r{text:<79}" if self._screen else text, end="" if self._screen else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._screen:
            print(file=sys.stderr)
