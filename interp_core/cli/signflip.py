"""`signflip`: flip the neurons that matter for a class, and measure the representation behind them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_core.cli.shared import DONE, ProgressLine, add_input, asked, limits, numbers, read_config, words

if TYPE_CHECKING:  # torch and transformers are imported by the command that needs them, so that --help answers at once
    from interp_core.doors.signflip import SignflipRequest, SignflipResult

TEXT = "flip the neurons that matter for a class, and measure energy, zero crossings and modulation behind them"


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("signflip", help=TEXT, description=TEXT)
    command.set_defaults(run=_signflip)
    add_input(command)
    add = command.add_argument
    add("--target", default="", help="the label whose neurons are flipped; the first unless given")
    add("--topk", type=int, help="how many neurons of a layer; 50, or an eighth of a narrower one, unless given")
    add("--frames", default="max", choices=("max", "all"), help="at each neuron's loudest frame, or at all of them")
    add("--kind", default="flip", choices=("flip", "zero", "mean", "resample"), help="what is done to them")
    add("--reduce", default="sum_abs", choices=("sum_abs", "abs_sum"), help="attribution over time")
    add("--layers", default="all", help="which layers are edited: all, or a list like 0,4,8")
    add("--draws", type=int, default=20, help="random sets of neurons of about the same activation; 0 for none")
    add("--task", default="", help="the label column that accuracy is counted against")
    add("--units", default="", help="the column that is never divided between attribution and measuring")
    add("--labels", help="the head's labels in the order of its classes, where the task column names them otherwise")
    add("--prompt", default="", help="the question of a model that is asked in words")
    add("--corpus", default="", help="--manifest is the folder of this corpus: ravdess, …, or auto")
    add("--out", required=True, help="the run folder")
    add("--resume", action="store_true", help="start over in the folder of a run that was interrupted")


def _signflip(args: argparse.Namespace) -> int:
    from interp_core.doors.signflip import prepare
    from interp_core.engine import Engine

    engine = Engine(limits=limits(args))
    request = _request(args)
    ready = prepare(engine, request)
    for row in ready.manifest.skipped:
        print(f"left out: {row}", file=sys.stderr)
    bar = ProgressLine()
    made = request.run(
        engine,
        out=Path(args.out),
        resume=args.resume,
        progress=bar,
        announce=lambda cost: print(f"{ready.subject.name}: {cost}", file=sys.stderr),
        prepared=ready,
    )
    bar.end()
    _print_summary(made)
    print(args.out)
    return DONE


def _request(args: argparse.Namespace) -> "SignflipRequest":
    from interp_core.doors.signflip import SignflipRequest, request_from_config
    from interp_core.experiments.signflip import SignflipSettings

    if args.config is not None:
        return request_from_config(read_config(args))
    base = asked(args, "demo-emotion-wavlm")
    settings = SignflipSettings(
        target=args.target,
        topk=args.topk,
        frames=args.frames,
        kind=args.kind,
        reduce=args.reduce,
        draws=args.draws,
        layers=None if args.layers == "all" else numbers(args.layers, int, "--layers"),
        seed=args.seed,
    )
    return SignflipRequest(
        **base,
        task=args.task,
        units=args.units,
        labels=words(args.labels) if args.labels else (),
        prompt=args.prompt,
        corpus=args.corpus,
        settings=settings,
    )


def _print_summary(made: "SignflipResult") -> None:
    report = made.report
    measured, attributed = report["measured_on"], report["attributed_on"]
    print(
        f"{report['topk']} of {report['width']} neurons of {report['target']!r}, attributed on {attributed['clips']} "
        f"clips by {report['head']} head, measured on {measured['clips']} ({measured['units']} of {measured['unit']})",
        file=sys.stderr,
    )
    zeros = sorted(set(made.changes[made.changes["by_construction"]]["proxy"]))
    if zeros:
        print(f"0 by construction at the edited layer itself: {', '.join(zeros)}", file=sys.stderr)
    for row in made.effects[made.effects["condition"] == "top"].to_dict("records"):
        print(
            f"  layer {row['flipped']}: target probability {row['target_probability_change']:+.3f} "
            f"(se {row['target_probability_change_se']:.3f}), {row['changed_rate']:.0%} of the answers change",
            file=sys.stderr,
        )
