"""Declared settings as the words of a command line, and back."""

import argparse
import re
import shlex
from collections.abc import Iterable
from typing import Any

from interp_core.options import declared


def add_options(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add every declared field as an option; only those that are given appear among the parsed arguments."""
    for one in declared(cls):
        usual = one.write(one.default)
        text = one.help.replace("%", "%%")
        unused = one.name in getattr(cls, "unused", ())  # parsed, so that it can be refused with the reason
        if one.kind is bool:
            said = f"{text} (on unless turned off)" if one.default else text
            said = argparse.SUPPRESS if unused else said
            parser.add_argument(
                one.flag, dest=one.name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=said
            )
            continue
        choices = f": {', '.join(map(str, one.choices))}" if one.choices else ""
        default = f" (default {usual})".replace("%", "%%") if usual and len(usual) < 60 else ""
        parser.add_argument(
            one.flag,
            dest=one.name,
            action="append" if one.about.repeat else "store",
            default=argparse.SUPPRESS,
            metavar=one.name.upper(),
            help=argparse.SUPPRESS if unused else f"{text}{choices}{default}",
        )


def joined_words(words: Iterable[str]) -> list[str]:
    """Join `--layers -1,2,5` to `--layers=-1,2,5`: argparse takes a list that begins below 0 for an option."""
    made: list[str] = []
    for word in words:
        if made and made[-1].startswith("--") and "=" not in made[-1] and re.match(r"-[\d.]", word):
            made[-1] += f"={word}"
        else:
            made.append(word)
    return made


def from_args(cls: type, args: argparse.Namespace) -> dict[str, Any]:
    """The values of the options that were given. Errors: InterpError for a text that is no such value."""
    values = {}
    for one in declared(cls):
        if not hasattr(args, one.name):
            continue
        given = getattr(args, one.name)
        if given == []:  # what argparse before Python 3.13 makes of `--option=--`
            given = "--"
        if one.kind is bool:
            values[one.name] = given
        elif one.about.repeat:
            texts = tuple("--" if text == [] else text for text in given)
            values[one.name] = () if one.about.none and texts == (one.about.none,) else texts
        else:
            values[one.name] = one.read(given)
    return values


def command_line(command: str, request: Any, *, out: str = "") -> str:
    """The command that makes a request, for a POSIX shell; what is at its default is left out."""
    words = []
    for one in declared(type(request)):
        value = getattr(request, one.name)
        if value != one.default:
            words += one.typed(value)
    if out:
        words.append(f"--out={out}")
    return " ".join(["python -m interp_core", command, *map(shlex.quote, words)])
