"""The command line: `python -m interp_core COMMAND --model M --manifest clips.csv --out DIR`.

Exit codes: 0 done, 1 a check failed, 2 bad input, 130 interrupted (go on with --resume).
"""

import argparse
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_core.errors import InterpError

if TYPE_CHECKING:  # torch and transformers are imported by the command that needs them, so that --help answers at once
    from interp_core.data.clips import ClipLimits
    from interp_core.experiments.patching import PatchingResult
    from interp_core.experiments.plan import PatchSettings
    from interp_core.request import PatchRequest

DONE, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads stall a busy machine tenfold
    warnings.filterwarnings("ignore")
    from interp_core.experiments.checks import CheckFailed

    _quiet_libraries()
    try:
        return args.run(args)
    except CheckFailed as error:
        print(f"check failed: {error}", file=sys.stderr)
        return CHECK_FAILED
    except InterpError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        hint = f"; the same command with --resume goes on with {args.out}" if getattr(args, "out", None) else ""
        print(f"\ninterrupted{hint}", file=sys.stderr)
        return INTERRUPTED


def _patch(args: argparse.Namespace) -> int:
    from interp_core.engine import Engine

    engine = Engine(limits=_limits(args))
    request = _request(args)
    ready = engine.prepare(request)
    for row in ready.manifest.skipped:
        print(f"left out: {row}", file=sys.stderr)
    bar = _ProgressLine()
    result = engine.patch(
        request,
        out=Path(args.out),
        resume=args.resume,
        progress=bar,
        prepared=ready,
        announce=lambda cost: print(f"{ready.subject.name}: {cost}", file=sys.stderr),
    )
    bar.end()
    _print_summary(result, Path(args.out))
    return DONE


def _check(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from interp_core.engine import Engine

    engine = Engine(limits=_limits(args))
    request = _request(args)
    request = replace(request, pilot=request.pilot or 5, settings=replace(request.settings, controls=(), flow=()))
    report = engine.check(request)
    for clip in report.audio_span["clips"]:
        print(
            f"{clip['clip']}: {clip['n_pos']} positions, audio {clip['audio_start']}-{clip['audio_stop'] - 1} "
            f"({clip['audio_seconds']} s), after {' '.join(clip['tokens_before'][-3:])!r}, "
            f"before {' '.join(clip['tokens_after'][:3])!r}; readout after {clip['readout_token']!r}"
        )
    for check in report.self_patch["checks"]:
        route = f" ({check['method']})" if "method" in check else ""
        print(f"passed  {check['check']}{route}: {check['max_difference']:.2g}, allowed {check['allowed']:.2g}")
    return DONE


def _models(_args: argparse.Namespace) -> int:
    from interp_core.models.arch import ARCHS, SITE_MODULES
    from interp_core.models.bundled import demos

    print("bundled:")
    for demo in demos().values():
        print(f"  {demo.name:<20} {demo.title}")
    print("families (--model takes a folder or hub id of these types):")
    for name, arch in ARCHS.items():
        methods = "shortcut, wavefront, reference" if arch.causal else "wavefront, reference"
        print(f"  {name:<20} {'causal' if arch.causal else 'bidirectional'}; sites {', '.join(SITE_MODULES)};")
        print(f"  {'':<20} readout: first answer token, among the labels; methods: {methods}")
    return DONE


def _request(args: argparse.Namespace) -> "PatchRequest":
    from dataclasses import replace

    from interp_core.request import PatchRequest, request_from

    if args.config is not None:
        return request_from(_config(args))
    if args.model is None:
        raise InterpError("--model is missing; give a bundled name (demo-emotion), a folder, or a hub id.")
    return replace(
        PatchRequest(args.model),
        manifest=args.manifest,
        device=args.device,
        dtype=args.dtype,
        kinds=args.kinds,
        max_pairs=_max_pairs(args.max_pairs),
        max_clips=args.max_clips,
        skip_bad=args.skip_bad,
        pilot=args.pilot,
        demo_prompts=not args.prompt,
        settings=_settings(args),
    )


def _config(args: argparse.Namespace) -> dict[str, Any]:
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


def _settings(args: argparse.Namespace) -> "PatchSettings":
    from interp_core.experiments.plan import PatchSettings

    default = PatchSettings()
    site, head = args.site, None
    if ":" in site:
        site, _, text = site.partition(":")
        head, *more = _numbers(text, int, "--site head")
        if more:
            raise InterpError(f"--site {args.site}: give one head, or head_out for all of them.")
    return PatchSettings(
        labels=_words(args.labels) if args.labels else default.labels,
        prompts=tuple(args.prompt) if args.prompt else default.prompts,
        site=site,
        head=head,
        layers=None if args.layers == "all" else _numbers(args.layers, int, "--layers"),
        positions=args.positions,
        align=args.align,
        alphas=_numbers(args.alpha, float, "--alpha"),
        controls=() if args.controls == "none" else _words(args.controls),
        flow=() if args.flow == "none" else _words(args.flow),
        method=args.method,
        batch_size=args.batch_size,
        seed=args.seed,
        several_tokens=args.multi_token,
        checks=not args.no_checks,
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _numbers(text: str, kind: type, option: str) -> tuple:
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError as error:
        raise InterpError(f"{option} {text!r} is no list of numbers like 0,4,8.") from error


def _max_pairs(text: str) -> int | dict[str, int]:
    if "=" not in text:
        return _numbers(text, int, "--max-pairs")[0]
    parts = [part.partition("=") for part in text.split(",")]
    return {name.strip(): _numbers(value, int, "--max-pairs")[0] for name, _, value in parts}


def _limits(args: argparse.Namespace) -> "ClipLimits":
    from interp_core.data.clips import ClipLimits
    from interp_core.request import limits_from

    return limits_from(_config(args)) if args.config is not None else ClipLimits(max_seconds=args.max_seconds)


def _print_summary(result: "PatchingResult", out: Path) -> None:
    matched = result.metrics[(result.metrics.condition == "matched") & (result.metrics.prompt == 0)]
    for kind, rows in matched.groupby("kind", sort=False):
        best: dict[Any, Any] = max(rows.to_dict("records"), key=lambda row: row["flip_to_target_rate_reachable"])
        layer = "the embeddings" if best["layer"] == -1 else f"layer {best['layer']}"
        rate, reachable = best["flip_to_target_rate_reachable"], best["reachable_count"]
        reach = f"{rate:.2f} of {reachable} reachable ones flip at {layer}" if reachable else "none is reachable"
        print(f"{kind}: {best['n']} pairs; {reach}", file=sys.stderr)
    print(out)


class _ProgressLine:
    """Done of total, rate and remaining time on one line of stderr, or a line now and then where that is no screen."""

    def __init__(self) -> None:
        self._started = self._shown = time.monotonic()
        self._first: int | None = None
        self._screen = sys.stderr.isatty()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self._first is None:
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


def _quiet_libraries() -> None:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()


def _parser() -> argparse.ArgumentParser:
    about = "Interventions on speech and audio models."
    parser = argparse.ArgumentParser(prog="python -m interp_core", description=about)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, text in (
        ("patch", _patch, "patch B's activations into A, layer by layer, over pairs of clips"),
        ("check", _check, "check a model and its clips: audio spans, self-patch, fast = reference"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        _add_input(command)
        _add_patching(command)
        if name == "patch":
            command.add_argument("--out", required=True, help="the run folder, written as the run goes")
            command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    commands.add_parser("models", help="list bundled models and supported families").set_defaults(run=_models)
    return parser


def _add_input(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--model", help="a bundled name (demo-emotion), a folder in the Hugging Face layout, or a hub id")
    add("--manifest", help="CSV or Parquet: clip_id, path, label columns; a bundled model has its own clips")
    add("--config", help="run exactly what an earlier run's patching_config.json says")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    add("--seed", type=int, default=42)
    add("--max-clips", type=int, help="only the first N rows of the manifest")
    add("--max-seconds", type=float, default=30.0, help="the longest clip that is taken")
    add("--skip-bad", action="store_true", help="leave out rows that cannot be used instead of stopping")
    add("--batch-size", type=int, default=8, help="pairs in one sweep; halved by itself when memory runs out")
    add("--pilot", type=int, help="only the first N pairs of each kind")


def _add_patching(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--kinds", default="prosody,semantic", help="prosody, semantic, or same=COLUMN,differ=COLUMN")
    add("--max-pairs", default="100", help="a number for every kind, or prosody=100,semantic=50")
    add("--site", default="resid_post", help="resid_post, attn_out, mlp_out, head_out (all heads) or head_out:HEAD")
    add("--layers", default="all", help="all, or a list like 0,4,8 (-1 = the embeddings)")
    add("--positions", default="audio", help="audio, question, last, all, or START-STOP in seconds")
    add("--align", default="truncate", help="truncate or resample, where the clips differ in length")
    add("--alpha", default="1.0", help="strengths, like 1.0,0.5")
    add("--labels", help="the answer words, like yes,no")
    add("--prompt", action="append", help="the question; repeat for several")
    add("--controls", default="random,noise,no-conflict,prefix", help="or none")
    add("--flow", default="question,last,lens,knockout", help="information flow beside the curve, or none")
    add("--method", default="fast", help="fast, wavefront or reference")
    add("--multi-token", default="refuse", choices=("refuse", "first"), help="labels of several tokens")
    add("--no-checks", action="store_true", help="skip the checks before the sweep")


if __name__ == "__main__":
    sys.exit(main())
