"""A run as one HTML file that needs nothing else: no script, no other file, no other host.

It is for people who have neither Patchbay nor the run folder: what was asked, what came out, what it rests on, what it
does not show, how it is repeated, and for pairs of clips what they sound like.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd

from interp_core.content import CLIPS, DIGITS
from interp_core.data.clips import Clip
from interp_core.data.edits import clip_named, read_clip
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.basis import TITLE, line
from interp_core.experiments.example import Example, Sound
from interp_core.experiments.facts import facts_of, made_at, settings_of
from interp_core.experiments.report import parts
from interp_core.experiments.result import Result
from interp_core.request import Request

MOST_BYTES = 10_000_000
PAIRS = 6
RATE = 16_000


def report(result: Result, engine: Engine, request: Request | None = None, *, most_bytes: int = MOST_BYTES) -> bytes:
    """The report of a run, UTF-8.

    Args:
        engine: reads the recordings of the pairs.
        request: names the clips as they are now; None: where the run's config says they lie.
        most_bytes: figures and pairs that do not fit are left out, and the report says so.
    """
    config = result.config
    room = most_bytes - 50_000  # for the headings and sentences about what is left out
    fixed = {"before": "".join(_before(result)), "after": "".join(_after(result))}
    room -= sum(len(text.encode()) for text in fixed.values())
    drawn = result.figures()
    shown, room = _fitting((parts.picture(figure, name) for name, figure in drawn.items()), room)
    figures = parts.section("Figures", *shown, _left_out(len(shown), len(drawn), "figures", most_bytes))
    heard = _heard(result, engine, request, room, most_bytes)
    title = f"{config['command'].capitalize()}: {result.model_name}"
    return _page(title, fixed["before"] + figures + heard + fixed["after"]).encode()


def _page(title: str, body: str) -> str:
    style = base64.b64encode(hashlib.sha256(parts.STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{style}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" '
        f'content="no-referrer"><title>{parts.esc(title)}</title><style>{parts.STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def _before(result: Result) -> Iterator[str]:
    """What stands above the figures."""
    config = result.config
    about = EXPERIMENTS[config["command"]].request.about
    made = " · ".join(filter(None, [result.model_name, f"seed {config['settings']['seed']}", made_at(config)]))
    yield f"<h1>{parts.esc(config['command'].capitalize())}: {parts.esc(result.model_name)}</h1>"
    yield parts.paragraph(f"{about[:1].upper()}{about[1:]}.")
    yield parts.paragraph(f"{made} · {_own_name()}", "faint")
    yield parts.section("What came out", parts.bullets(experiment_of(config["command"]).summary(result)))
    yield parts.section("Before you read on", parts.bullets(remarks) if (remarks := result.remarks()) else "")
    yield parts.section(TITLE, parts.paragraph(line(config)))


def _after(result: Result) -> Iterator[str]:
    """What stands below figures and pairs."""
    config = result.config
    filled = {name: table for name, table in result.tables().items() if len(table)}
    yield parts.section("Tables", *(parts.table(name, table) for name, table in filled.items()))
    checks = pd.DataFrame(list(result.checks()))
    none = parts.paragraph("None ran: they were skipped, or this experiment has none of its own.")
    yield parts.section("Checks before the run", parts.table("Checks", checks) if len(checks) else none)
    yield parts.section("What it does not show", parts.marked(result.limits) if result.limits else "")
    try:
        request = EXPERIMENTS[config["command"]].request.from_config(config)
    except InterpError as error:
        repeat, settings = [parts.paragraph(error)], ""
    else:
        settings = parts.named(settings_of(request), "Its settings")
        repeat = [parts.code(request.command_line()), parts.code(request.snippet())]
    yield parts.section("Settings and facts", settings, parts.named(facts_of(config), "What it was run on"))
    lead = parts.paragraph("The command, and the same in Python.") if settings else ""
    yield parts.section("How to repeat it", lead, *repeat)


def _own_name() -> str:
    try:
        return f"made with Patchbay {version('patchbay')}"
    except PackageNotFoundError:
        return "made with Patchbay"


def _fitting(pieces: Iterator[str], room: int) -> tuple[list[str], int]:
    """The first pieces that fit into so many bytes, and the bytes that are left."""
    kept: list[str] = []
    for piece in pieces:
        if (size := len(piece.encode())) > room:
            break
        kept.append(piece)
        room -= size
    return kept, room


def _left_out(kept: int, count: int, what: str, most_bytes: int) -> str:
    if kept == count:
        return ""
    said = f"{count - kept} of {count} {what} are left out: the file would be larger than {most_bytes / 1e6:g} MB."
    return parts.paragraph(said, "left-out")


def _heard(result: Result, engine: Engine, request: Request | None, room: int, most_bytes: int) -> str:
    """The pairs that can be heard, with their figure."""
    examples = result.examples(PAIRS)
    if not examples:
        return ""
    recordings = Recordings(result.config, engine, request)
    shown, _ = _fitting((_pair(one, recordings) for one in examples), room)
    lead = f"{len(shown)} pairs, those first that flip where most do. A and B at their own levels, {RATE // 1000} kHz."
    notes = [recordings.note] if recordings.note else []
    left_out = _left_out(len(shown), len(examples), "pairs", most_bytes)
    return parts.section(
        "Pairs to hear", parts.paragraph(lead), *(parts.paragraph(note, "left-out") for note in notes), *shown, left_out
    )


def _pair(one: Example, recordings: "Recordings") -> str:
    title = f"<h3>{parts.esc(one.name)}</h3>{parts.paragraph(one.said)}"
    try:
        a, b = recordings.sound(one.a), recordings.sound(one.b)
    except InterpError as error:
        return f"<article>{title}{parts.paragraph(f'Not to be heard: {error}', 'left-out')}</article>"
    sounds = f'<div class="pair">{parts.audio("A", a)}{parts.audio("B", b)}</div>'
    drawn = parts.picture(one.draw(a, b), f"Spectrograms, curve and logits of {one.name}. {one.said}")
    return f"<article>{title}{sounds}{drawn}</article>"


class Recordings:
    """The clips of a run as they are now, held against what its config says of them.

    Attributes:
        note: what is not known of them; "" where they are known to be those of the run.
    """

    def __init__(self, config: Mapping[str, Any], engine: Engine, request: Request | None) -> None:
        self._clips: dict[str, Clip] = {}
        self._then: Mapping[str, str] | None = config["manifest"].get(CLIPS)
        self._fault = ""
        self.note = (
            "" if self._then else "The run kept no digests of its recordings: these are the files as they are now."
        )
        try:
            request = request or EXPERIMENTS[config["command"]].request.from_config(config)
            self._clips = {clip.clip_id: clip for clip in engine.manifest(request).clips}
            self._limits = engine.limits(request)
        except InterpError as error:
            self._fault = str(error)

    def sound(self, clip_id: str) -> Sound:
        """A recording.

        Raises:
            InterpError: it cannot be read, or is another one than that of the run.
        """
        if self._fault:
            raise InterpError(self._fault)
        clip = clip_named(clip_id, self._clips)
        if clip is None:
            raise InterpError(f"the clip {clip_id!r} is not among the clips as they are now.")
        if self._then and self._then.get(clip.recording_id) != clip.file_digest[-DIGITS:]:
            raise InterpError(f"the recording of {clip_id!r} is another one than that of the run.")
        return Sound(clip_id, read_clip(clip, RATE, self._limits), RATE)
