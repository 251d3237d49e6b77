"""One declaration a setting: a dataclass field is its option, its entry in a config, its part of a command, its widget.

    draws: int = option(20, "random sets of neurons of about the same activation; 0 for none", label="Random draws")

    windows: int | None = option(None, "of the time map", needs=(Need("maps", ("time",)),))

Torch-free: `--help` and the forms read these without opening a model. What a field cannot say (settings that exclude
each other) stays in the request's own `check`. The words of a command line are those of `command_words`.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from interp_core.errors import InterpError


@dataclass(frozen=True)
class Need:
    """What another setting has to be, so that one counts.

    Attributes:
        name: the other setting.
        among: what it has to be, or to hold one of; () for anything but nothing (no text, 0, an empty list).
        but: what it may not be. several: whether it has to hold more than one, or be left open.
    """

    name: str
    among: tuple[Any, ...] = ()
    but: tuple[Any, ...] = ()
    several: bool = False

    def met(self, request: Any) -> bool:
        """Whether it is so in a request."""
        value = getattr(request, self.name)
        held = value if isinstance(value, tuple | list) else (value,)
        if self.several:
            return len(held) != 1
        if self.but:
            return not any(one in self.but for one in held)
        return any(one in self.among for one in held) if self.among else any(held)

    def said(self, flag: str) -> str:
        """In words, the other setting being called `flag`."""
        if self.among:
            return f"{flag} {' or '.join(map(str, self.among))}"
        return f"several {flag}" if self.several else f"{flag}{f' other than {self.but[0]}' if self.but else ''}"


@dataclass(frozen=True)
class Option:
    """What a field says about itself beside its name, type and default.

    Attributes:
        help: the rest of a sentence that begins with the option.
        flag: the option's name where it is not the field's own.
        none: the word for None or an empty list (all, none).
        repeat: given once a value instead of by commas.
        read, write: text to value and back, where the type does not say it.
        least, most: bounds of a number, both included.
        decides: whether another value makes another run.
        label: of its widget; "" for no widget.
        words: what a person reads for a value, where it is not the value itself.
        placeholder: in an empty text field.
        wide: whether its widget takes the whole width of a form.
        rare: whether its widget is folded away until somebody looks for it.
        needs: without one of these it changes nothing.
    """

    help: str
    flag: str = ""
    none: str = ""
    repeat: bool = False
    read: Callable[[str], Any] | None = None
    write: Callable[[Any], str] | None = None
    least: float | None = None
    most: float | None = None
    decides: bool = True
    label: str = ""
    words: Mapping[Any, str] = field(default_factory=dict)
    placeholder: str = ""
    wide: bool = False
    rare: bool = False
    needs: tuple[Need, ...] = ()


def option(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field with its declaration; `more` are the further attributes of `Option`."""
    return field(default=default, metadata={"option": Option(help, **more)})


@dataclass(frozen=True)
class Declared:
    """One field, read.

    Attributes:
        name, default: of the field. about: its declaration.
        kind: the type of one value: str, int, float, bool, or object where `about.read` says how it is read.
        several: whether it holds a tuple of values. optional: whether it may be None.
        choices: the values that it may take; empty for any.
        needed: what else has to be set so that it counts, in words; "" where it always does.
    """

    name: str
    default: Any
    about: Option
    kind: type
    several: bool
    optional: bool
    choices: tuple[str, ...]
    needed: str = ""

    @property
    def flag(self) -> str:
        """As on the command line; a switch that is on has `--no-` before its name to turn it off."""
        return f"--{self.about.flag or self.name.replace('_', '-')}"

    @property
    def help(self) -> str:
        """The rest of a sentence that begins with the option."""
        return f"{self.about.help} (counts with {self.needed})" if self.needed else self.about.help

    def idle_in(self, request: Any) -> bool:
        """Whether it is not at its default and yet changes nothing beside the other settings."""
        needs = self.about.needs
        counts = self.name not in type(request).unused and (not needs or any(need.met(request) for need in needs))
        return getattr(request, self.name) != self.default and not counts

    @property
    def title(self) -> str:
        """What a person calls it."""
        return self.about.label or self.name.replace("_", " ")

    def read(self, text: str) -> Any:
        """The value that a text stands for. Errors: InterpError, with what was expected."""
        if self.about.none and text.strip() == self.about.none:
            return None if self.optional else ()
        if self.about.read is not None:
            return self.about.read(text)
        if not self.several:
            return self._one(text)
        return tuple(self._one(part) for part in _split(text))

    def _one(self, text: str) -> Any:
        try:
            return self.kind(text)
        except ValueError as error:
            what = "a whole number" if self.kind is int else "a number"
            raise InterpError(f"{self.flag} {text!r} is not {what}{' (or a list of them)' * self.several}.") from error

    def write(self, value: Any) -> str:
        """The text that `read` turns into the value."""
        if value is None or (value == () and not self.optional and self.about.none):
            return self.about.none
        if self.about.write is not None:
            return self.about.write(value)
        if not self.several:
            return _text(value)
        text = _joined(map(_text, value))
        return f'"{text}"' if text and text == self.about.none else text

    def typed(self, value: Any) -> list[str]:
        """The words of a command line that say the value; `=`, because a value may begin with a dash."""
        if self.kind is bool:
            return [self.flag if value else self.flag.replace("--", "--no-", 1)]
        if self.about.repeat:
            return [f"{self.flag}={one}" for one in value] or [f"{self.flag}={self.about.none}"]
        return [f"{self.flag}={self.write(value)}"]

    def misfit(self, value: Any) -> str:
        """Why a value, such as one from a config file, is not of the setting's kind; "" where it is."""
        if value is None:
            return "" if self.optional else f"{self.flag} is missing"
        if self.about.read is not None:
            try:
                fits = self.about.read(self.write(value)) == value
            except (InterpError, ValueError, TypeError, AttributeError, ArithmeticError):
                fits = False
            return "" if fits else f"{self.flag} {_short(value)} is no such setting"
        if self.several and not isinstance(value, list | tuple):
            return f"{self.flag} {_short(value)} is no list"
        kinds = (int, float) if self.kind is float else self.kind
        for one in value if self.several else (value,):
            if not isinstance(one, kinds) or (isinstance(one, bool) and self.kind is not bool):
                return f"{self.flag} {_short(one)} is not {IN_WORDS[self.kind]}"
        return ""

    def faults(self, value: Any) -> list[str]:
        """What is wrong with a value, each the rest of a sentence; [] where nothing is."""
        if misfit := self.misfit(value):
            return [misfit]
        found: list[str] = []
        if value is None:
            return found
        for one in value if self.several else (value,):
            if self.choices and one not in self.choices:
                found.append(f"{self.flag} {one!r} is none of {', '.join(map(str, self.choices))}")
            elif isinstance(one, float) and not math.isfinite(one):
                found.append(f"{self.flag} {one!r} is not a number")
            elif self.about.least is not None and one < self.about.least:
                found.append(f"{self.flag} {_text(one)} is too small; give {_text(self.about.least)} or more")
            elif self.about.most is not None and one > self.about.most:
                found.append(f"{self.flag} {_text(one)} is too large; give {_text(self.about.most)} or less")
        return found


IN_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "yes or no (true or false)"}
LONGEST_SHOWN = 60


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def _text(value: Any) -> str:
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _joined(values: Iterable[str]) -> str:
    """By commas, quoted as in a CSV file where a value holds one itself."""
    line = io.StringIO()
    parts = list(values)
    if parts:
        csv.writer(line, lineterminator="", quoting=csv.QUOTE_MINIMAL).writerow(parts)
    text = line.getvalue()
    exact = tuple(_split(text)) == tuple(parts)
    return text if exact else ",".join('"' + part.replace('"', '""') + '"' for part in parts)


def _split(text: str) -> list[str]:
    if not text:
        return []
    rows = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True))
    # Blanks around a bare word are slips; inside quotes they are meant.
    return [part if '"' in text else part.strip() for part in (rows[0] if rows else [])]


def declared(cls: type) -> tuple[Declared, ...]:
    """The declared fields of a request, in order."""
    known: Any = cls  # a class is hashable, whatever its instances are
    return _declared_fields(known)


@cache
def _declared_fields(cls: Any) -> tuple[Declared, ...]:
    hints = get_type_hints(cls)
    made = [
        _declared(one.name, one.default, about, hints[one.name])
        for one in fields(cls)
        if (about := one.metadata.get("option")) is not None
    ]
    flags = {one.name: one.flag for one in made}
    return tuple(
        replace(one, needed=" or ".join(need.said(flags[need.name]) for need in one.about.needs)) for one in made
    )


def idle(request: Any, beside: Any = None) -> list[str]:
    """Settings that are given and change nothing beside the others, each the rest of a sentence.

    Args:
        beside: the same request with what was left open; the others are taken from there.
    """
    found = []
    for one in declared(type(request)):
        value = getattr(request, one.name)
        others = request if beside is None else replace(beside, **{one.name: value})
        given = one.flag.replace("--", "--no-", 1) if value is False else one.flag
        if one.idle_in(others) and one.name in type(request).unused:
            found.append(f"{given} means nothing here: {type(request).unused[one.name]}; leave it out")
        elif one.idle_in(others):
            found.append(f"{given} means nothing without {one.needed}; set that with it, or leave {given} out")
    return found


def _declared(name: str, default: Any, about: Option, hint: Any) -> Declared:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    inner = next(part for part in parts if part is not type(None))
    several = get_origin(inner) is tuple
    inner = get_args(inner)[0] if several else inner
    choices = get_args(inner) if get_origin(inner) is Literal else ()
    kind = object if about.read is not None else str if choices else inner
    return Declared(name, default, about, kind, several, type(None) in parts, choices)


def python_call(request: Any) -> str:
    """The expression that makes a request in Python; what is at its default is left out."""
    said = [
        f"{one.name}={value!r}"
        for one in declared(type(request))
        if (value := getattr(request, one.name)) != one.default
    ]
    name, flat = type(request).__name__, ", ".join(said)
    if len(name) + len(flat) < 80:
        return f"{name}({flat})"
    return "\n".join([f"{name}(", *(f"    {part}," for part in said), ")"])


# ---- configs ---------------------------------------------------------------------------------------------------------


def to_config(request: Any, *, given_only: bool = False) -> dict[str, Any]:
    """The settings as a config file holds them; with `given_only` those that are not at their default."""
    values = {
        one.name: getattr(request, one.name)
        for one in declared(type(request))
        if not given_only or getattr(request, one.name) != one.default
    }
    return json.loads(json.dumps(values, default=dict))


def from_config(cls: type, saved: Mapping[str, Any]) -> Any:
    """A request from the settings of a config file.

    Raises:
        InterpError: settings that this version does not know: it is from another one; all values that are none.
    """
    known = {one.name: one for one in declared(cls)}
    if unknown := sorted(set(saved) - set(known)):
        named = ", ".join(map(_short, unknown[:5]))
        raise InterpError(f"the config holds unknown settings {named}; it is from another version.")
    if wrong := [found for name, value in saved.items() if (found := known[name].misfit(value))]:
        raise InterpError(f"the config holds settings that are none: {'; '.join(wrong)}.")
    return cls(**{name: tuple(v) if known[name].several and isinstance(v, list) else v for name, v in saved.items()})


def differences(asked: Any, made: Any) -> list[str]:
    """In which settings that decide a run `made` is not what is asked: `Random draws: 5 asked, 20 in this run`."""
    return [f"{name}: {now} asked, {then} in this run" for name, now, then in settings_apart(asked, made)]


def settings_apart(one: Any, other: Any) -> list[tuple[str, str, str]]:
    """The settings that decide a run in which two requests of one experiment differ: (name, of one, of the other)."""
    return [
        (known.title, _said(known, here), _said(known, there))
        for known in declared(type(one))
        if known.about.decides and (here := getattr(one, known.name)) != (there := getattr(other, known.name))
    ]


def in_words(request: Any, names: Iterable[str] | None = None) -> dict[str, str]:
    """Settings for a person, by the names that their widgets have.

    Args:
        names: of the fields; None: those that are not at their default.
    """
    known = declared(type(request))
    if names is None:
        wanted = {one.name for one in known if getattr(request, one.name) != one.default}
    else:
        wanted = set(names)
    return {one.title: _said(one, getattr(request, one.name)) for one in known if one.name in wanted}


def _said(one: Declared, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    named = one.about.words.get(value, "") if isinstance(value, str) else ""
    return named or one.write(value) or "what is usual"


def deciding(request: Any) -> dict[str, Any]:
    """The settings that decide a run and are not at their default, as JSON: what a run's key is made of.

    A setting that is added later stands at its default in every request of today, and moves no key.
    """
    decide = {one.name for one in declared(type(request)) if one.about.decides}
    return {name: value for name, value in to_config(request, given_only=True).items() if name in decide}
