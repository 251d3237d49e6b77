"""`compare`: two models of one shape side by side, and the donor's activations put into the base."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_core.cli.shared import DONE, ProgressLine, add_input, asked, limits, read_config, words

if TYPE_CHECKING:  # torch and transformers are imported by the command that needs them, so that --help answers at once
    from interp_core.doors.compare import CompareRequest
    from interp_core.experiments.compare import Comparison

TEXT = "compare two models of one shape: CKA of all layers, transplants from the donor, EER, domain probes"


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("compare", help=TEXT, description=TEXT)
    command.set_defaults(run=_compare)
    add_input(command)
    add = command.add_argument
    add("--donor", help="the other model; a bundled model names its own")
    add("--patch", action="append", help="auto:K (least alike by CKA), each, cumulative, 0,5,11 or none; repeatable")
    add("--stages", default="all", help="all, none, or a list of mixed,pooled,projection,logits")
    add("--transplants", default="mean,ridge,procrustes", help="donor-free ones, fitted on half of the clips, or none")
    add("--transplant-at", help="their stages; all but the logits unless given")
    add("--no-weights", action="store_true", help="leave the layer weights out")
    add("--no-reverse", action="store_true", help="leave out the transplants from the base into the donor")
    add("--skip-null", action="store_true", help="do not run what must change nothing by the weights")
    add("--bonafide-index", type=int, help="which logit is bona fide; 0 in the thesis code, 1 in the baselines")
    for column, text in (
        ("label", "the class"),
        ("speaker", "what was sampled"),
        ("group", "related clips, such as versions of an utterance"),
        ("domain", "what the probe names: codec, channel"),
        ("attack", "the kind of spoof"),
    ):
        add(f"--{column}-column", default="", help=f"the manifest column that holds {text}; found by itself, or none")
    add("--labels", help="the answer words of a model that is asked in words, like yes,no")
    add("--prompt", help="the question of a model that is asked in words")
    add("--probe-draws", type=int, default=199, help="of the probes' permutation tests; 0 for none")
    add("--probe-clips", type=int, default=2000, help="the most clips that a probe is fitted on")
    add("--cka-gb", type=float, default=1.0, help="the most memory that CKA takes")
    add("--no-checks", action="store_true", help="skip the checks before the transplants")
    add("--out", required=True, help="the run folder, written as the run goes")
    add("--resume", action="store_true", help="go on with the run in --out")


def _compare(args: argparse.Namespace) -> int:
    from interp_core.doors.compare import prepare
    from interp_core.engine import Engine

    engine = Engine(limits=limits(args))
    request = _request(args)
    ready = prepare(engine, request)
    for row in ready.manifest.skipped:
        print(f"left out: {row}", file=sys.stderr)
    for note in ready.question.notes:
        print(note, file=sys.stderr)
    bar = ProgressLine()
    made = request.run(
        engine,
        out=Path(args.out),
        resume=args.resume,
        progress=bar,
        announce=lambda cost: print(f"{ready.question.base.subject.name}: {cost}", file=sys.stderr),
        prepared=ready,
    )
    bar.end()
    _print_summary(made)
    print(args.out)
    return DONE


def _request(args: argparse.Namespace) -> "CompareRequest":
    from dataclasses import replace

    from interp_core.doors.compare import CompareRequest, request_from_config
    from interp_core.experiments.compare_settings import CompareSettings

    if args.config is not None:
        return request_from_config(read_config(args))
    base = asked(args, "demo-spoof-erm")
    default = CompareSettings()
    settings = replace(
        default,
        patch=tuple(args.patch) if args.patch else default.patch,
        stages=words(args.stages),
        weights=not args.no_weights,
        maps=() if args.transplants == "none" else words(args.transplants),
        map_at=words(args.transplant_at) if args.transplant_at else (),
        reverse=not args.no_reverse,
        skip_null=args.skip_null,
        label=args.label_column,
        speaker=args.speaker_column,
        group=args.group_column,
        domain=args.domain_column,
        attack=args.attack_column,
        bonafide_index=args.bonafide_index,
        labels=words(args.labels) if args.labels else (),
        prompt=args.prompt or "",
        probe_draws=args.probe_draws,
        probe_clips=args.probe_clips,
        cka_bytes=int(args.cka_gb * (1 << 30)),
        batch_size=args.batch_size,
        seed=args.seed,
        checks=not args.no_checks,
    )
    settings.check()
    return CompareRequest(
        **base,
        donor=args.donor or "",
        settings=settings,
    )


def _print_summary(made: "Comparison") -> None:
    found, table = made.findings, made.summary
    onset, least = found["onset"], found["most_divergent"]
    print(
        "the models are alike at every layer"
        if onset is None
        else f"the models part at layer {onset}; least alike at layer {least}",
        file=sys.stderr,
    )
    measure = next((name for name in ("eer", "accuracy") if name in table), None)
    shown = table[~table["reverse"].astype(bool) & ~table["chosen"].str.startswith(("each", "cumulative"))]
    for row in shown.to_dict("records"):
        value = "" if measure is None else f"{measure} {row[measure]:.1%}"
        moved = f"score moved by {row['score_change_mean']:.3g} on average" if row["mode"] else ""
        null = "null by construction" if row["null"] else ""
        print(f"  {row['model']:<28} " + "; ".join(filter(None, (value, moved, null))), file=sys.stderr)
