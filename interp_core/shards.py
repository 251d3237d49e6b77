"""One of n shards of a run, as it is asked for: `2/8`, or what a job array says. Torch-free, for the command line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from interp_core.errors import InterpError

MOST = 10_000
ENV = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` shards, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """Its run folder below the --out that all shards of a run share."""
        return f"shard-{self.number}-of-{self.count}"

    def has(self, group: int) -> bool:
        """Whether the chunks of a group are dealt to it; by the number alone, so the same on every machine."""
        return group % self.count == self.number - 1

    @classmethod
    def read(cls, text: str, environ: Mapping[str, str]) -> Self:
        """The shard that `i/n` names, or `env`: the task of a Slurm array, whatever its start and step.

        Raises:
            InterpError: neither, a number outside 1 to n, no array, or an array with gaps.
        """
        if text == "env":
            return cls._of_array(environ)
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or not 1 <= shard.number <= shard.count <= MOST:
            raise InterpError(f"--shard {text!r} is none: write i/n with i from 1 to n (n up to {MOST}), or env.")
        return shard

    @classmethod
    def _of_array(cls, environ: Mapping[str, str]) -> Self:
        said = {name: environ.get(f"{ENV}{name}", "1" if name == "STEP" else "") for name in
                ("ID", "MIN", "MAX", "COUNT", "STEP")}  # fmt: skip
        if wrong := [f"{ENV}{name}={value!r}" for name, value in said.items() if not re.fullmatch("[0-9]{1,9}", value)]:
            raise InterpError(f"--shard env: {', '.join(wrong)} is no number; start it as a Slurm array, or write i/n.")
        at, first, last, count, step = (int(value) for value in said.values())
        if step < 1 or count > MOST or first + (count - 1) * step != last or at not in range(first, last + 1, step):
            raise InterpError(
                f"--shard env: task {at} of {count} from {first} to {last} by {step} is an array with gaps, or too "
                "long; give the whole array (--array=1-N), or write i/n."
            )
        return cls((at - first) // step + 1, count)
