"""The sbatch script of a command in shards, as text. It submits nothing until somebody runs it."""

import re
import shlex
from collections.abc import Sequence

from interp_core.errors import InterpError
from interp_core.shards import MOST

SECONDS_BEFORE = 300
"""How long before a task's limit it is told to stop at its next step."""
SCRIPT = """#!/bin/bash
# Submit both the array and the merge behind it: bash THIS_FILE
#SBATCH --array=1-{shards}
#SBATCH --time={time}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@{seconds}
{options}set -u
if [ -z "${{SLURM_JOB_ID:-}}" ]; then
    set -e
    array=$(sbatch --parsable "$0")
    # The later --array wins over the one above: the merge is one task.
    sbatch --array=1-1 --dependency="afterok:${{array%%;*}}" "$0" merge
    exit
fi
if [ "${{1:-}}" = merge ]; then
    set -- {merge}
else
    set -- {command}
fi
"$@" &
child=$!
told=0
trap 'told=1; kill -USR1 "$child"' USR1 TERM
while :; do
    wait "$child"
    code=$?
    [ "$told" -eq 1 ] || break
    told=0
done
# 130: stopped before the limit, with all finished chunks kept.
if [ "$code" -eq 130 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def script(command: Sequence[str], out: str, shards: int, limit: str, options: Sequence[str], python: str) -> str:
    """The script of a command.

    Args:
        command: its words, --out among them. out: that --out. limit: of each task, as Slurm writes it.
        options: further ones of sbatch. python: the interpreter.
    Raises:
        InterpError: no folder, a number of shards, a limit or an option that Slurm would not take.
    """
    if not out.strip():
        raise InterpError("--out is empty; name the run folder, such as runs/first.")
    if not 1 <= shards <= MOST:
        raise InterpError(f"--shards {shards} must be 1 to {MOST}.")
    if not re.fullmatch(r"([0-9]+-)?[0-9]+(:[0-9]{2}){0,2}", limit):
        raise InterpError(f"--time {limit!r} is no time limit; write it as 04:00:00 or 2-00:00:00.")
    if wrong := [one for one in options if not re.fullmatch(r"--[a-z][a-z-]*(=[^\s#'\"\\$`]+)?", one)]:
        raise InterpError(f"--sbatch {wrong[0]!r} is no option of sbatch; write it as --sbatch=--gres=gpu:1.")
    start = [python, "-m", "interp_core"]
    quoted = shlex.quote(f"./{out}" if out.startswith("-") else out)
    return SCRIPT.format(
        shards=shards,
        time=limit,
        seconds=SECONDS_BEFORE,
        options="".join(f"#SBATCH {one}\n" for one in options),
        command=shlex.join([*start, *command, "--shard=env", "--resume"]),
        merge=f"{shlex.join([*start, 'merge'])} {quoted}/shard-*-of-{shards} --out={quoted}/merged",
    )
