"""The command line: `python -m interp_core COMMAND --model M --manifest clips.csv --out DIR`.

Exit codes: 0 done, 1 a check failed, 2 bad input, 130 interrupted (go on with --resume), 141 nobody reads its output.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext

from interp_core.cli import BAD_INPUT, CHECK_FAILED, INTERRUPTED, UNREAD, parser
from interp_core.command_words import joined_words
from interp_core.errors import CheckFailed, InterpError
from interp_core.terminal import stopping


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parser().parse_args(joined_words(sys.argv[1:] if argv is None else argv))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads stall a busy machine tenfold
    warnings.filterwarnings("ignore")
    try:
        _quiet_libraries()
        with stopping() if getattr(args, "stops", False) else nullcontext():
            code: int = args.run(args)
        sys.stdout.flush()  # here, where it can be answered
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        return UNREAD
    except CheckFailed as error:
        print(f"check failed: {error}", file=sys.stderr)
        return CHECK_FAILED
    except InterpError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        again = "the same command" if args.command == "merge" else "the same command with --resume"
        hint = f"; {again} goes on with {args.out}" if getattr(args, "out", None) else ""
        print(f"\ninterrupted{hint}", file=sys.stderr)
        return INTERRUPTED


def _quiet_libraries() -> None:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
