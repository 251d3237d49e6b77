"""One parser, one run and one progress line for all commands, derived from the requests. Torch waits until used."""

import argparse
import json
import os
import shlex
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp_core.command_words import add_options, from_args, joined_words
from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS, Registered
from interp_core.experiments.patching.check_requests import CheckRequest, VerifyRequest
from interp_core.options import declared
from interp_core.request import Request
from interp_core.shards import Shard
from interp_core.slurm import script
from interp_core.terminal import ProgressLine, tell

DONE, CHECK_FAILED, BAD_INPUT, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141
CHECK_PAIRS = 5
NOTE = (
    "The fast routes are held to the reference (the model's own forward, one hook at a time) to 1e-4 in float32, on "
    "the first pairs of every run too. A decoder whose layers slide or share keys falls back from the shortcut to the "
    "wavefront by itself; each record says which route it took."
)


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    about = "Interventions on speech and audio models."
    made = argparse.ArgumentParser(prog="python -m interp_core", description=about, allow_abbrev=False)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, registered in EXPERIMENTS.items():
        text = registered.request.about
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run_experiment, stops=True, registered=registered)
        _add_config(command)
        add_options(command, registered.request)
        command.add_argument("--out", required=True, help="the run folder, written as the run goes")
        command.add_argument(
            "--resume", action="store_true", help="go on with the run in --out; what is done is not computed again"
        )
        command.add_argument(
            "--shard", metavar="I/N", help="only this part of the run, in a folder of its own below --out: i/n, or env "
            "for the task of a Slurm array; `merge` makes one run of all parts",
        )  # fmt: skip
        command.add_argument(
            "--cluster", metavar="WHERE", help="on a Ray cluster, one model a GPU: local for the GPUs or cores of this "
            "machine, HOST:PORT of a head node, or auto",
        )  # fmt: skip
        command.add_argument(
            "--workers", type=int, metavar="N", help="of --cluster (default: one a GPU; without any, one for 4 cores)"
        )
    text = "check a model and its clips: audio spans, self-patch, fast = reference"
    command = commands.add_parser("check", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=check, registered=replace(EXPERIMENTS["patch"], request=CheckRequest))
    _add_config(command)
    add_options(command, CheckRequest)
    text = "run every check on a model, at a sample of its layers and all its sites, and record what came out"
    command = commands.add_parser("verify-model", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=verify_model, registered=replace(EXPERIMENTS["patch"], request=VerifyRequest))
    _add_config(command)
    add_options(command, VerifyRequest)
    command.add_argument("--out", metavar="FILE", help="a JSON file for the record, which must be new")
    text = "write a finished run as one HTML file that opens anywhere"
    command = commands.add_parser("report", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=report)
    command.add_argument("folder", metavar="RUN", help="the run folder, of any experiment")
    command.add_argument("--out", dest="file", metavar="FILE", required=True, help="the HTML file, which must be new")
    text = "make one run of the folders of all its shards"
    command = commands.add_parser("merge", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=merge, stops=True)
    command.add_argument("folders", metavar="DIR", nargs="+", help="the folders that --shard made, all of them")
    command.add_argument("--out", required=True, help="the run folder; one that a killed merge left is gone on with")
    text = "print an sbatch script that runs a command in shards and merges them; nothing is submitted"
    command = commands.add_parser("slurm", help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=slurm)
    command.add_argument("--shards", type=int, default=8, help="tasks of the array (default 8)")
    command.add_argument("--time", default="04:00:00", help="limit of each task (default 04:00:00)")
    command.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="a further option, like --sbatch=--gres=gpu:1"
    )
    command.add_argument("line", metavar="-- COMMAND …", nargs=argparse.REMAINDER, help="the command, with its --out")
    commands.add_parser("models", help="list bundled models and supported families").set_defaults(run=models)
    return made


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", help="run what an earlier run's config file says; options that are given beside it win"
    )


def request_of(args: argparse.Namespace) -> Request:
    """The request that the options make; what wins over a config file is named."""
    registered: Registered = args.registered
    cls, given = registered.request, from_args(registered.request, args)
    if args.config is None:
        return cls(**given)
    config = read_config_file(Path(args.config))
    saved = cls.as_saved(config)
    asked = replace(saved, **given)
    made = asked.counting(keep=given)
    won, left_out = [], []
    for one in declared(cls):
        if getattr(asked, one.name) != getattr(saved, one.name):
            won += one.typed(given[one.name])
        elif getattr(made, one.name) != getattr(saved, one.name) and one.name in config.get("asked", (one.name,)):
            left_out += one.typed(getattr(saved, one.name))
    if won:
        tell(f"not as in {args.config}: {', '.join(won)}")
    if left_out:
        tell(f"left out of {args.config}, as it changes nothing here: {', '.join(left_out)}")
    return made


def read_config_file(path: Path) -> dict[str, Any]:
    """The object in a config file. Errors: InterpError."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InterpError(f"{path} cannot be read ({error.strerror}); give an earlier run's config file.") from error
    except (ValueError, RecursionError) as error:
        raise InterpError(f"{path} is no JSON file ({error}); give an earlier run's config file.") from error
    if not isinstance(config, dict):
        raise InterpError(f"{path} holds no settings; give an earlier run's config file.")
    return config


def run_experiment(args: argparse.Namespace) -> int:
    """Run one experiment into a folder."""
    request, out = request_of(args), Path(args.out)
    request.check()
    if not args.out.strip():
        raise InterpError("--out is empty; name the run folder, such as runs/first (the current one is .).")
    if args.workers is not None and args.cluster is None:
        raise InterpError("--workers is of --cluster; add --cluster local, or the address of a Ray cluster.")
    if args.shard is not None and args.cluster is not None:
        raise InterpError("--shard and --cluster exclude each other: a cluster computes all shards and merges them.")
    from interp_core.engine import Engine
    from interp_core.prepared import preparing
    from interp_core.sinks import prepared_in

    shard = None if args.shard is None else Shard.read(args.shard, os.environ)
    experiment, engine = args.registered.load(), Engine()
    with preparing(prepared_in(out) if args.resume else None):
        return _run_each(args, experiment, engine, request, shard)


def _run_each(args: argparse.Namespace, experiment: Any, engine: Any, request: Request, shard: Shard | None) -> int:
    """Run what a request stands for; what the choice among several computed is kept with each."""
    from interp_core.experiments.experiment import finished, prepare
    from interp_core.experiments.sharded import run_whole

    out, runs = Path(args.out), experiment.requests(engine, request, tell)
    if (shard or args.cluster) is not None and set(runs) != {""}:
        raise InterpError("--shard and --cluster deal one run, and this command stands for several; give one of them.")
    if args.cluster is not None:
        _clustered(args, experiment, engine, request)
        print(out)
        return DONE
    for name, one in runs.items():
        if name:
            tell(name)
        bar = ProgressLine()
        into = out / name
        if args.resume and shard is None and (done := finished(experiment, engine, one, into)) is not None:
            _sum_up(experiment, done)
            continue
        ready = prepare(experiment, engine, one, (into if shard is None else out) if args.resume else None, bar)
        for row in ready.manifest.skipped:
            tell(f"left out: {row}")
        for note in (*ready.manifest.notes, *ready.notes):
            tell(note)
        subject = ready.store.subject.name
        if shard is not None:
            print(_sharded(args, experiment, ready, shard, bar))
            return DONE
        result = run_whole(
            experiment,
            engine,
            one,
            out=into,
            resume=args.resume,
            progress=bar,
            announce=lambda cost, subject=subject: tell(f"{subject}: {cost}"),  # type: ignore[misc]
            ready=ready,
        )
        bar.end()
        _sum_up(experiment, result)
    print(out)
    return DONE


def _sum_up(experiment: Any, result: Any) -> None:
    from interp_core.experiments.basis import TITLE
    from interp_core.experiments.basis import line as basis

    for line in experiment.summary(result):
        tell(line)
    tell(f"{TITLE}: {basis(result.config)}")


def _clustered(args: argparse.Namespace, experiment: Any, engine: Any, request: Request) -> None:
    from interp_core.experiments.cluster.run import Cluster, run_on

    bar = ProgressLine()
    result = run_on(
        Cluster(args.cluster, args.workers), experiment, engine, request, out=Path(args.out), resume=args.resume,
        progress=bar, announce=tell, say=tell,
    )  # fmt: skip
    bar.end()
    _sum_up(experiment, result)


def _sharded(args: argparse.Namespace, experiment: Any, ready: Any, shard: Shard, bar: ProgressLine) -> Path:
    from interp_core.experiments.sharded import run_shard

    subject = ready.store.subject.name
    folder = run_shard(
        experiment, ready, shard, Path(args.out), resume=args.resume, progress=bar,
        announce=lambda cost: tell(f"{subject}, all shards: {cost}"),
    )  # fmt: skip
    bar.end()
    tell(
        f"shard {shard} has its chunks, and no results yet; when all {shard.count} are done: python -m interp_core "
        f"merge {shlex.quote(args.out)}/shard-*-of-{shard.count} --out={shlex.quote(f'{args.out}/merged')}"
    )
    return folder


def merge(args: argparse.Namespace) -> int:
    """Make one run of shards."""
    if not args.out.strip():
        raise InterpError("--out is empty; name the run folder, such as runs/first.")
    from interp_core.experiments.sharded import merge as merged

    bar = ProgressLine()
    experiment, result = merged([Path(folder) for folder in args.folders], Path(args.out), progress=bar)
    bar.end()
    for line in experiment.summary(result):
        tell(line)
    print(args.out)
    return DONE


def slurm(args: argparse.Namespace) -> int:
    """Print the script."""
    words = args.line[1:] if args.line[:1] == ["--"] else args.line
    made = parser().parse_args(joined_words(words)) if words and words[0] in EXPERIMENTS else None
    if made is None or made.resume or (made.shard or made.cluster) is not None:
        raise InterpError(
            f"slurm needs the command of an experiment ({', '.join(EXPERIMENTS)}) behind --, without --cluster, and "
            "without --shard and --resume, which the script adds."
        )
    request_of(made).check()
    print(script(words, made.out, args.shards, args.time, args.sbatch, sys.executable), end="")
    return DONE


def check(args: argparse.Namespace) -> int:
    """Run the checks of patching alone."""
    request: Any = request_of(args)
    request.check()
    from interp_core.engine import Engine
    from interp_core.experiments.patching.experiment import check as run_check

    asked = request.as_run(pilot=request.pilot or CHECK_PAIRS, controls=(), flow=())
    report, notes = run_check(Engine(), asked)
    for note in notes:
        tell(note)
    for clip in report.audio_span["clips"]:
        at = f"{clip['audio_start']}-{clip['audio_stop'] - 1}"
        held = f"{clip['holds']} at {at}" if "holds" in clip else f"audio {at} ({clip['audio_seconds']} s)"
        print(f"{clip['clip']}: {clip['n_pos']} positions, {held}{_around(clip)}")
    for one in report.self_patch["checks"]:
        route = f" ({one['method']})" if "method" in one else ""
        print(f"passed  {one['check']}{route}: {one['max_difference']:.2g}, allowed {one['allowed']:.2g}")
    return DONE


def verify_model(args: argparse.Namespace) -> int:
    """Check a model as a whole, and write the record."""
    request: Any = request_of(args)
    request.check()
    file = None if args.out is None else new_file(args.out, "verified.json")
    from interp_core.engine import Engine
    from interp_core.experiments.patching.verify import verify
    from interp_core.storage import replace_file

    bar = ProgressLine()
    record = verify(Engine(), request, bar)
    bar.end()
    for one in record["checks"]:
        route = f" ({one['method']})" if "method" in one else ""
        how = f"{one['max_difference']:.2g}, allowed {one['allowed']:.2g}" if "allowed" in one else one["said"]
        print(f"{'passed' if one['passed'] else 'FAILED'}  {one['site']}: {one['check']}{route}: {how}")
    ties, took = record["ties"], record["seconds"]
    print(f"ties: {ties['count']} of {ties['clips']} clips have two answers within {ties['within']:g} logits")
    print(f"a clean pass {took['clean_pass']:.3g} s, a sweep of a pair {took['sweep_of_a_pair']:.3g} s, all "
          f"{took['all']:.0f} s{_memory(record)}")  # fmt: skip
    if file is not None:
        replace_file(file, json.dumps(record, indent=1).encode())
        print(file)
    return DONE if record["passed"] else CHECK_FAILED


def _memory(record: dict[str, Any]) -> str:
    return f"; at most {record['peak_bytes'] / 2**30:.1f} GiB ({record['peak_of']})" if record["peak_bytes"] else ""


def _around(clip: dict[str, Any]) -> str:
    """The tokens beside the audio span, where positions are tokens."""
    if "tokens_before" not in clip:
        return ""
    before, after = " ".join(clip["tokens_before"][-3:]), " ".join(clip["tokens_after"][:3])
    return f", after {before!r}, before {after!r}; readout after {clip['readout_token']!r}"


def new_file(given: str, like: str) -> Path:
    """The file that --out names. Errors: InterpError where it is there already, or its folder is not."""
    file = Path(given)
    if not given.strip() or file.exists() or not file.parent.is_dir():
        raise InterpError(f"--out {given!r} must name a new file in a folder that is there, such as {like}.")
    return file


def report(args: argparse.Namespace) -> int:
    """Write the report of a run folder."""
    file = new_file(args.file, "report.html")
    from interp_core.engine import Engine
    from interp_core.experiments import experiment_of
    from interp_core.experiments.experiment import open_result
    from interp_core.experiments.report.page import report as written
    from interp_core.runs import read_config
    from interp_core.storage import replace_file

    folder = Path(args.folder)
    result = open_result(experiment_of(read_config(folder)["command"]), folder)
    replace_file(file, written(result, Engine()))
    print(file)
    return DONE


def models(args: argparse.Namespace) -> int:
    """List what ships, what can be opened, what can be asked of it, and what cannot be opened yet."""
    from interp_core.experiments.fitting import suited
    from interp_core.models.bundled import demos
    from interp_core.models.families import Family, families, lacking
    from interp_core.models.subject import Subject
    from interp_core.models.verified import verified

    print("bundled (--model NAME, with clips of their own):")
    for demo in demos().values():
        print(f"  {demo.name:<22} {demo.title}")
    alike: dict[tuple[Family, tuple[str, ...]], list[str]] = {}
    for family in families():
        same = replace(family, name="", types=(), like="", subject=Subject)
        alike.setdefault((same, suited(family)), []).append(family.name)
    print("\nfamilies:")
    for (family, runs), names in alike.items():
        print(textwrap.fill(", ".join(names), 100, initial_indent="  ", subsequent_indent="  "))
        seen = "causal" if family.causal else "bidirectional"
        behind = f"; behind the blocks {', '.join(family.behind)}" if family.behind else ""
        for what, told in (
            ("--model", family.opens),
            ("sites", f"{', '.join(family.inside)} ({seen}){behind}"),
            ("readout", family.readout),
            ("runs", ", ".join(runs)),
            ("sweep", ", ".join(family.methods)),
            ("checked on", family.checked),
        ):
            print(textwrap.fill(told, 110, initial_indent=f"    {what:<11} ", subsequent_indent=" " * 16))
    records = list(verified())
    print("\nchecked on real weights (verify-model):" if records else "\nchecked on real weights: none yet")
    for record in records:
        print(f"  {record.model_type:<22} {record}")
    print("\ncannot be opened:")
    for lack, names in lacking().items():
        print(textwrap.fill(f"{', '.join(names)}: {lack}", 110, initial_indent="  ", subsequent_indent="    "))
    print(f"\n{textwrap.fill(NOTE, 110)}")
    return DONE
