"""`patch` and `check`: B's activations into A, layer by layer, over pairs of clips."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_core.cli.shared import DONE, ProgressLine, add_input, asked, limits, numbers, read_config, words
from interp_core.errors import InterpError

if TYPE_CHECKING:  # torch and transformers are imported by the command that needs them, so that --help answers at once
    from interp_core.engine import Engine
    from interp_core.experiments.patching import PatchingResult
    from interp_core.experiments.plan import PatchSettings
    from interp_core.request import PatchRequest


def add(commands: Any) -> None:
    """Add the two commands."""
    for name, run, text in (
        ("patch", _patch, "patch B's activations into A, layer by layer, over pairs of clips"),
        ("check", _check, "check a model and its clips: audio spans, self-patch, fast = reference"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        add_input(command)
        _add_patching(command)
        if name == "patch":
            command.add_argument("--out", required=True, help="the run folder, written as the run goes")
            command.add_argument("--resume", action="store_true", help="go on with the run in --out")


def _add_patching(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--kinds", default="prosody,semantic", help="prosody, semantic, or same=COLUMN,differ=COLUMN")
    add("--max-pairs", default="100", help="a number for every kind, or prosody=100,semantic=50")
    add("--site", help="resid_post, attn_out, mlp_out, head_out (all heads), head_out:HEAD, ...; see `models`")
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


def _patch(args: argparse.Namespace) -> int:
    from interp_core.engine import Engine

    engine = Engine(limits=limits(args))
    request = _at_its_site(args, engine, _request(args))
    ready = engine.prepare(request)
    for row in ready.manifest.skipped:
        print(f"left out: {row}", file=sys.stderr)
    bar = ProgressLine()
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

    engine = Engine(limits=limits(args))
    request = _at_its_site(args, engine, _request(args))
    request = replace(request, pilot=request.pilot or 5, settings=replace(request.settings, controls=(), flow=()))
    report = engine.check(request)
    for clip in report.audio_span["clips"]:
        print(
            f"{clip['clip']}: {clip['n_pos']} positions, audio {clip['audio_start']}-{clip['audio_stop'] - 1} "
            f"({clip['audio_seconds']} s){_around(clip)}"
        )
    for check in report.self_patch["checks"]:
        route = f" ({check['method']})" if "method" in check else ""
        print(f"passed  {check['check']}{route}: {check['max_difference']:.2g}, allowed {check['allowed']:.2g}")
    return DONE


def _request(args: argparse.Namespace) -> "PatchRequest":

    from interp_core.request import PatchRequest, request_from

    if args.config is not None:
        return request_from(read_config(args))
    return PatchRequest(
        **asked(args, "demo-emotion"),
        kinds=args.kinds,
        max_pairs=_max_pairs(args.max_pairs),
        demo_prompts=not args.prompt,
        settings=_settings(args),
    )


def _around(clip: dict[str, Any]) -> str:
    """The tokens beside the audio span, where positions are tokens."""
    if "tokens_before" not in clip:
        return ""
    before, after = " ".join(clip["tokens_before"][-3:]), " ".join(clip["tokens_after"][:3])
    return f", after {before!r}, before {after!r}; readout after {clip['readout_token']!r}"


def _at_its_site(args: argparse.Namespace, engine: "Engine", request: "PatchRequest") -> "PatchRequest":
    """Choose a site that can say something about the model, where none was named."""
    from dataclasses import replace

    if args.site is not None or args.config is not None:
        return request
    request.settings.check()
    engine.manifest(request)  # first, because the model may take a minute to open
    site = engine.open(request.model, request.device, request.dtype, request.part).default_site
    if site != request.settings.site:
        print(f"patching {site}: at resid_post the donor's answer would come out by construction", file=sys.stderr)
    return replace(request, settings=replace(request.settings, site=site))


def _settings(args: argparse.Namespace) -> "PatchSettings":
    from interp_core.experiments.plan import PatchSettings

    default = PatchSettings()
    site, head = args.site or default.site, None
    if ":" in site:
        site, _, text = site.partition(":")
        head, *more = numbers(text, int, "--site head")
        if more:
            raise InterpError(f"--site {args.site}: give one head, or head_out for all of them.")
    return PatchSettings(
        labels=words(args.labels) if args.labels else default.labels,
        prompts=tuple(args.prompt) if args.prompt else default.prompts,
        site=site,  # type: ignore[arg-type]  # checked by PatchSettings.check
        head=head,
        layers=None if args.layers == "all" else numbers(args.layers, int, "--layers"),
        positions=args.positions,
        align=args.align,
        alphas=numbers(args.alpha, float, "--alpha"),
        controls=() if args.controls == "none" else words(args.controls),
        flow=() if args.flow == "none" else words(args.flow),
        method=args.method,
        batch_size=args.batch_size,
        seed=args.seed,
        several_tokens=args.multi_token,
        checks=not args.no_checks,
    )


def _max_pairs(text: str) -> int | dict[str, int]:
    if "=" not in text:
        return numbers(text, int, "--max-pairs")[0]
    parts = [part.partition("=") for part in text.split(",")]
    return {name.strip(): numbers(value, int, "--max-pairs")[0] for name, _, value in parts}


def _print_summary(result: "PatchingResult", out: Path) -> None:
    matched = result.metrics[(result.metrics.condition == "matched") & (result.metrics.prompt == 0)]
    for kind, rows in matched.groupby("kind", sort=False):
        best: dict[Any, Any] = max(rows.to_dict("records"), key=lambda row: row["flip_to_target_rate_reachable"])
        layer = "the embeddings" if best["layer"] == -1 else f"layer {best['layer']}"
        rate, reachable = best["flip_to_target_rate_reachable"], best["reachable_count"]
        reach = f"{rate:.2f} of {reachable} reachable ones flip at {layer}" if reachable else "none is reachable"
        print(f"{kind}: {best['n']} pairs; {reach}", file=sys.stderr)
    print(out)
