"""The command line: `python -m interp_core COMMAND --model M --manifest clips.csv --out DIR`.

Exit codes: 0 done, 1 a check failed, 2 bad input, 130 interrupted (go on with --resume).
"""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from interp_core.cli import ablate, compare, heads, models, patch, signflip
from interp_core.cli.shared import BAD_INPUT, CHECK_FAILED, INTERRUPTED
from interp_core.errors import InterpError

COMMANDS = (patch, compare, heads, ablate, signflip, models)


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
    for module in COMMANDS:
        module.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
