"""What a link says in its fields is shown as text on every page, in sentences, labels and help alike."""

from collections.abc import Iterator

import pytest
from google.protobuf.message import Message

from components import state
from components.router import ENTRIES
from components.words import md
from interp_core.experiments import EXPERIMENTS
from interp_core.options import declared
from interp_core.request import Request
from tests.pages.conftest import ROOT
from tests.pages.tiny_demo import NAME

HOSTILE = "https://www.example.org/**a**:smile:`x`"
MARKUP = ("https://", "www.e", "**a**", ":smile:", "`x`")
READ_AS_MARKDOWN = {"body", "label", "help", "text", "content", "caption"}
PLAIN = {"text", "code"}
"""Elements whose body is shown as it is."""


def markdown(node) -> Iterator[str]:
    """Every text that the browser is told to read as markdown."""
    for element in node:
        if getattr(element, "type", "") not in PLAIN and isinstance(proto := getattr(element, "proto", None), Message):
            yield from texts(proto)


def texts(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            if isinstance(one, Message):
                yield from texts(one)
            elif isinstance(one, str) and field.name in READ_AS_MARKDOWN:
                yield one


def shown_as_it_is(at) -> int:
    """How often the hostile text is on the page; each time as text."""
    assert not at.exception
    count = 0
    for text in markdown(at._tree):
        if "example" in text:
            assert not [markup for markup in MARKUP if markup in text], text
            count += 1
    return count


def text_settings(command: str) -> dict[str, str]:
    known = declared(EXPERIMENTS[command].request) if command in EXPERIMENTS else ()
    common = {one.name for one in declared(Request)}
    free = [one for one in known if one.about.label and one.kind is str and not one.choices and one.name not in common]
    return {state.setting(command, one.name): HOSTILE for one in free}


def follow(open_app, page: str, **parameters: str):
    return open_app(**parameters).switch_page(str(ROOT / "pages" / f"{page}.py")).run()


@pytest.mark.parametrize(
    "entry", [one for one in ENTRIES if one.file not in ("start", "recordings")], ids=lambda entry: entry.file
)
def test_what_a_link_says_is_text_on_every_page(open_app, server, entry):
    found = 0
    for parameters in (
        {state.MODEL: HOSTILE},
        {state.CLIPS: str(server / HOSTILE), state.PROBE: HOSTILE, state.RUNS_FOLDER: str(server / HOSTILE)},
        {state.RUN: str(server / HOSTILE), state.DEVICE: HOSTILE},
        text_settings(entry.command),
    ):
        at = follow(open_app, entry.file, **parameters)
        found += shown_as_it_is(at)
        pressed = next((one for one in at.button if one.label in ("Open this model", "Run it now")), None)
        if pressed is not None:
            found += shown_as_it_is(pressed.click().run())
    assert found > 0, "otherwise nothing would be tested"


def test_the_test_sees_markup_where_there_is_some(open_app, monkeypatch):
    at = open_app(model=HOSTILE)
    monkeypatch.setattr("components.guard.md", str)
    pressed = next(one for one in at.button if one.label == "Open this model")
    with pytest.raises(AssertionError, match="example"):
        shown_as_it_is(pressed.click().run())
    assert md(HOSTILE) != HOSTILE and NAME not in HOSTILE
