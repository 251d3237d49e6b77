"""`heads`: which heads, blocks and stages separate the classes, and whether the model uses them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_core.cli.shared import DONE, ProgressLine, add_input, asked, limits, read_config, words
from interp_core.errors import InterpError

if TYPE_CHECKING:  # torch and transformers are imported by the command that needs them, so that --help answers at once
    from interp_core.doors.heads import HeadsRequest
    from interp_core.experiments.heads import HeadsResult

SIGNIFICANT = 0.05


def add(commands: Any) -> None:
    """Add the command."""
    text = "Fisher ratios of heads, blocks and stages: which separate the classes, and does the model use them"
    command = commands.add_parser("heads", help=text, description=text)
    command.set_defaults(run=_heads)
    add_input(command)
    more = command.add_argument
    more("--label", default="label", help="the column whose values are the classes")
    more("--per-class", type=int, help="clips of each class; by default as many as the smallest has")
    more("--classes", help="only these classes, like dog,rain")
    more("--groups", default="auto", help="the column that related clips share, auto or none")
    more("--clips", default="held-out", choices=("held-out", "all"), help="whether clips of the split train count")
    more("--corpus", help="--manifest is the folder of a corpus: auto, esc50, tinysol, vocalsound, folder_per_class, …")
    more("--prompt", default="", help="the question, of a model that is asked one")
    more("--draws", type=int, default=999, help="shuffles of the labels")
    more("--probes", default="all", choices=("all", "wide", "none"), help="which points get a probe; wide: no heads")
    more("--ablate", default="none", help="what every head is replaced by in turn: zero,mean,resample, or none")
    more("--pt", action="store_true", help="write the vectors as a dict of torch tensors too")
    more("--out", required=True, help="the run folder")
    more("--resume", action="store_true", help="go on with the run in --out")


def _heads(args: argparse.Namespace) -> int:
    from interp_core.doors.heads import prepare
    from interp_core.engine import Engine

    engine = Engine(limits=limits(args))
    request = _request(args)
    ready = prepare(engine, request)
    for row in engine.manifest(request, ready.store.limits).skipped:
        print(f"left out: {row}", file=sys.stderr)
    for what, count in ready.drawn.left_out.items():
        if count:
            print(f"left out: {count} {what}", file=sys.stderr)
    print(f"{ready.store.subject.name}: {ready.cost()}", file=sys.stderr)
    bar = ProgressLine()
    result = request.run(engine, out=Path(args.out), resume=args.resume, progress=bar)
    bar.end()
    _print_summary(result, Path(args.out))
    return DONE


def _request(args: argparse.Namespace) -> "HeadsRequest":
    from interp_core.doors.heads import HeadsRequest, manifest_of_corpus, request_from
    from interp_core.experiments.heads import HeadSettings

    if args.config is not None:
        return request_from(read_config(args))
    base = asked(args, "demo-events")
    manifest = args.manifest
    if args.corpus is not None:
        if manifest is None:
            raise InterpError(f"--corpus {args.corpus} needs its folder: give it as --manifest.")
        path, notes = manifest_of_corpus(Path(manifest), args.corpus, Path(args.out), skip_bad=args.skip_bad)
        manifest = str(path)
        for note in notes:
            print(note, file=sys.stderr)
    return HeadsRequest(
        **base | {"manifest": manifest},
        pt=args.pt,
        settings=HeadSettings(
            label=args.label,
            per_class=args.per_class,
            classes=words(args.classes) if args.classes else (),
            groups=args.groups,
            held_out=args.clips == "held-out",
            draws=args.draws,
            probes=args.probes,
            ablate=() if args.ablate == "none" else words(args.ablate),
            prompt=args.prompt,
            batch_size=args.batch_size,
            seed=args.seed,
        ),
    )


def _print_summary(result: "HeadsResult", out: Path) -> None:
    for granularity, name in (("head", "heads"), ("block", "blocks"), ("stage", "stages or layers")):
        rows = result.points(granularity)
        sure = int((rows["p_adjusted"] < SIGNIFICANT).sum())
        best: dict[Any, Any] = max(rows.to_dict("records"), key=lambda row: row["fisher_f"])
        print(
            f"{name}: {sure} of {len(rows)} beyond chance (adjusted p < {SIGNIFICANT}); the most at {best['name']}, "
            f"{best['fisher_f']:.2f} times what labels without meaning give",
            file=sys.stderr,
        )
    print(out)
