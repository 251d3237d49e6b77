"""`ablate`: neurons that carry a shortcut, K at a time, against the task's and random ones."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_core.cli.shared import DONE, ProgressLine, add_input, asked, limits, numbers, read_config, words

if TYPE_CHECKING:  # torch and transformers are imported by the command that needs them, so that --help answers at once
    from interp_core.doors.ablate import AblateRequest, AblationResult

TEXT = "ablate the neurons that carry a domain, K at a time, with the task's and random ones as controls"


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("ablate", help=TEXT, description=TEXT)
    command.set_defaults(run=_ablate)
    add_input(command)
    add = command.add_argument
    add("--at", default="", help="the site: pooled (default), projection, resid_post:LAYER, head_out:LAYER:HEAD, …")
    add("--task", default="", help="the label column that the head answers")
    add("--domain", default="", help="the label column of the shortcut: codec, speaker, center, …")
    add("--train", default="", help="clips to rank neurons on: values of `split`, or COLUMN=VALUE, by commas")
    add("--id", default="", help="clips to measure on in domain, likewise")
    add("--ood", default="", help="clips to measure on out of domain, likewise")
    add("--units", default="", help="the column that was really sampled (slide, patient, speaker): intervals draw it")
    add("--labels", help="the head's labels in the order of its classes, like normal,tumor")
    add("--prompt", default="", help="the question of a model that is asked in words")
    add("--ks", help="how many neurons, like 0,4,8,16")
    add("--draws", type=int, help="random draws; 100 where only the head is behind the site, else 10")
    add("--refits", type=int, default=5, help="random draws whose probes are fitted again; 0: no probe is")
    add("--kind", default="mean", choices=("mean", "zero", "resample", "flip"), help="what takes a neuron's place")
    add("--score", default="coef", choices=("coef", "univariate"), help="how neurons are ranked")
    add("--corpus", default="", help="--manifest is the folder of this corpus: camelyon17, ravdess, …, or auto")
    add("--epoch", help="--model is a folder of checkpoints: a number, all, best-id, or peak-ood (which peeks)")
    add("--out", required=True, help="the run folder; with --epoch, one below it for each epoch")
    add("--resume", action="store_true", help="start over in the folder of a run that was interrupted")


def _ablate(args: argparse.Namespace) -> int:
    from interp_core.engine import Engine

    engine = Engine(limits=limits(args))
    request, out = _request(args), Path(args.out)
    if args.epoch is None:
        _run(engine, request, out, args.resume)
    else:
        from interp_core.doors.ablate_epochs import chosen

        for epoch, one in chosen(engine, request, args.epoch, lambda text: print(text, file=sys.stderr)).items():
            print(f"epoch {epoch}", file=sys.stderr)
            _run(engine, one, out / f"epoch_{epoch:05}", args.resume)
    print(out)
    return DONE


def _run(engine: Any, request: "AblateRequest", out: Path, resume: bool) -> None:
    from interp_core.doors.ablate import prepare

    ready = prepare(engine, request)
    for row in ready.manifest.skipped:
        print(f"left out: {row}", file=sys.stderr)
    found = ready.request
    print(f"task {found.task}, domain {found.domain}, units {found.units}; {ready.splits.said}", file=sys.stderr)
    bar = ProgressLine()
    made = request.run(
        engine,
        out=out,
        resume=resume,
        progress=bar,
        announce=lambda cost: print(f"{ready.subject.name}: {cost}", file=sys.stderr),
        prepared=ready,
    )
    bar.end()
    _print_summary(made)


def _request(args: argparse.Namespace) -> "AblateRequest":
    from interp_core.doors.ablate import AblateRequest, request_from_config
    from interp_core.experiments.ablation import KS, SweepSettings

    if args.config is not None:
        return request_from_config(read_config(args))
    base = asked(args, "demo-emotion-wavlm")
    sweep = SweepSettings(
        ks=numbers(args.ks, int, "--ks") if args.ks else KS,
        kind=args.kind,
        refits=args.refits,
        score=args.score,
        seed=args.seed,
    )
    return AblateRequest(
        **base,
        at=args.at,
        task=args.task,
        domain=args.domain,
        train=args.train,
        id=args.id,
        ood=args.ood,
        units=args.units,
        labels=words(args.labels) if args.labels else (),
        prompt=args.prompt,
        draws=args.draws,
        corpus=args.corpus,
        batch_size=args.batch_size,
        sweep=sweep,
    )


def _print_summary(made: "AblationResult") -> None:
    report, evidence = made.report, made.report["evidence"]
    for reason in report["refused"].values():
        print(f"not measured: {reason}", file=sys.stderr)
    base = report["base"]
    print(
        f"unedited: {base['head_ood']:.1%} right out of domain, {base['head_id']:.1%} in domain; "
        f"{report['route']}, {report['ablations']} sets",
        file=sys.stderr,
    )
    print(f"at K = {evidence['k']}: {report['verdict']} ({report['why']})", file=sys.stderr)
