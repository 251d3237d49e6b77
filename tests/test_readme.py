"""What the README says is there, is there; what it tells a person to type, is understood."""

import re
import shlex
from pathlib import Path

import pytest

from interp_core.cli import parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for line in README.splitlines()]
    return [line for line in lines if line.startswith("python -m interp_core ")]


def test_every_command_of_the_readme_is_one_that_the_parser_takes():
    assert len(commands()) >= 3
    for line in commands():
        parser().parse_args(shlex.split(line)[3:])


def test_an_unknown_option_would_be_noticed():
    with pytest.raises(SystemExit):
        parser().parse_args([*shlex.split(commands()[0])[3:], "--no-such-option"])


def test_every_link_and_every_path_of_the_module_map_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    cells = [cell for line in README.splitlines() if line.startswith("| `") for cell in [line.split("|")[1]]]
    paths = [Path(name) for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    missing = [link for link in links if not (ROOT / link).exists()]
    for path in paths:
        inside = [ROOT / path, ROOT / "interp_core" / path]
        missing += [] if any(p.exists() for p in inside) else [str(path)]
    assert missing == []


def test_make_run_and_make_test_are_targets():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    named = re.findall(r"^make (run|test)\b", README, re.M)
    assert named == ["run", "test"] and set(named) <= set(targets)
