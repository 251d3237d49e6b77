"""A notebook that repeats a run: its request as it was, its figure, its tables."""

import json
from typing import Any

from interp_core.experiments import EXPERIMENTS
from interp_core.experiments.facts import made_at
from interp_core.experiments.result import Result
from interp_core.request import Request

TABLES = "for name, table in result.tables().items():\n    print(name, len(table))\n    display(table.head(10))"


def notebook(result: Result) -> bytes:
    """The notebook as a file, nbformat 4.5, without outputs.

    Raises:
        InterpError: a run whose config is of another version.
    """
    request: Request = EXPERIMENTS[result.config["command"]].request.from_config(result.config)
    when = f" of {made_at(result.config)} UTC" if made_at(result.config) else ""
    about = (
        f"Repeats the run{when} of `{request.command}`, with its settings, on its model and clips. The weights were "
        f"`{result.config['model']['weights_sha256']}`.\n\n`pip install -e .` in a source checkout of Patchbay gives "
        "`import interp_core`. Files that are named by a path have to lie there."
    )
    again = f"# The same on the command line:\n# {request.command_line()}"
    sources = [about, request.snippet(), "result.figure()", TABLES, again]
    cells = [_cell(number, source) for number, source in enumerate(sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    return json.dumps(whole, indent=1).encode()


def _cell(number: int, source: str) -> dict[str, Any]:
    """The first is text, the others are code."""
    kind: dict[str, Any] = {"cell_type": "code", "outputs": [], "execution_count": None}
    return {"id": f"cell-{number}", "metadata": {}, "source": source, **(kind if number else {"cell_type": "markdown"})}
