"""The report of a run: one file that needs nothing else, in which text from elsewhere stays text."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.figure import Figure

import interp_core
from interp_core.__main__ import main
from interp_core.api import open_run
from interp_core.data.clips import ClipLimits, read_audio
from interp_core.data.manifest import read_manifest
from interp_core.engine import Engine
from interp_core.experiments import EXPERIMENTS
from interp_core.experiments.basis import TITLE, line
from interp_core.experiments.example import Example, Sound
from interp_core.experiments.report import parts
from interp_core.experiments.report.notebook import notebook
from interp_core.experiments.report.page import MOST_BYTES, PAIRS, RATE, report
from interp_core.experiments.result import Result
from interp_core.models.bundled import ASSETS, demos

RUNS = [folder for demo in demos().values() for folder in demo.saved_runs]
PATCHED = ASSETS / "demo-emotion" / "run"
HOSTILE = '</td><script>alert(1)</script><img src="http://else.where/x">&amp;\u202e\0'


class Read(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its texts by the tag around them."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(page.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "tags that do not close in order"

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def leaves_the_house(read: Read) -> list[str]:
    """Everything in a page that would be fetched, run or followed."""
    found = [f"<{tag}>" for tag, _ in read.tags if tag in ("script", "link", "iframe", "object", "form", "base", "a")]
    for tag, attrs in read.tags:
        for name, value in attrs.items():
            if name.startswith("on") or name in ("style", "srcset", "background", "href", "action"):
                found.append(f"{tag} {name}")
            if name == "src" and not re.fullmatch(r"data:(image/png|audio/wav);base64,[A-Za-z0-9+/=]+", value):
                found.append(f"{tag} {value[:60]}")
    return found + re.findall(r"url\(|@import", "".join(read.text("style")))


@pytest.fixture(scope="module")
def pages():
    """By run folder; each is made once."""
    made: dict[Path, bytes] = {}
    engine = Engine()

    def page(folder: Path) -> bytes:
        return made.setdefault(folder, b"") or made.update({folder: report(open_run(folder), engine)}) or made[folder]

    return page


@pytest.mark.slow
@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: f"{folder.parent.name} {folder.name}")
def test_the_report_of_every_shipped_run_is_one_small_file_with_all_that_a_reader_needs(folder, pages):
    page, result = pages(folder), open_run(folder)
    read = Read(page)
    assert len(page) < MOST_BYTES and read.open == []
    assert leaves_the_house(read) == []
    [policy] = [tag["content"] for tag in read.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "http" not in policy and "unsafe" not in policy
    images = [base64.b64decode(image["src"].partition(",")[2]) for image in read.all("img")]
    assert len(images) >= len(result.figures()) and all(image.startswith(b"\x89PNG") for image in images)
    assert all(image["alt"] for image in read.all("img"))
    captions = " | ".join(read.text("caption"))
    for name, table in result.tables().items():
        assert not len(table) or f"{name}: " in captions
        if len(table) > parts.ROWS:
            assert (
                f"{name}: the first {parts.ROWS} of {len(table):,} rows; {len(table) - parts.ROWS:,} are left"
                in captions
            )
    headings = read.text("h2")
    wanted = {"What came out", TITLE, "Figures", "Tables", "Checks before the run", "What it does not show"}
    assert wanted | {"Settings and facts", "How to repeat it"} <= set(headings)
    assert line(result.config) in read.text("p")
    request = EXPERIMENTS[result.config["command"]].request.from_config(result.config)
    assert read.text("code") == [request.command_line(), request.snippet()]
    assert "**" not in "".join(read.text("li")) and len(read.text("strong") + read.text("em")) > 0


@pytest.mark.slow
def test_the_pairs_of_a_patching_report_sound_as_their_clips_do_and_flip_as_they_say(pages):
    read, result = Read(pages(PATCHED)), open_run(PATCHED)
    sounds = [base64.b64decode(audio["src"].partition(",")[2]) for audio in read.all("audio")]
    assert len(sounds) == 2 * PAIRS and "kept no digests" not in " ".join(read.text("p"))
    clips = {clip.clip_id: clip for clip in read_manifest(ASSETS / "demo-emotion" / "manifest.csv").clips}
    for example, at in zip(result.examples(PAIRS), range(0, 2 * PAIRS, 2), strict=True):
        for clip_id, wav in zip((example.a, example.b), sounds[at : at + 2], strict=True):
            samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
            assert rate == RATE and samples.ndim == 1 and soundfile.info(io.BytesIO(wav)).subtype == "PCM_16"
            np.testing.assert_allclose(samples, read_audio(clips[clip_id].path, RATE, ClipLimits()), atol=1e-4)
        assert example.said in read.text("p")
    kinds = {example.name.partition("-")[0] for example in result.examples(PAIRS)}
    assert kinds == {"prosody", "semantic"}
    for example in result.examples(PAIRS):
        rows = result.records[(result.records["pair_id"] == example.name) & (result.records["condition"] == "matched")]
        flips = rows[(rows["prompt"] == 0) & (rows["patched_prediction"] == rows["target"])]
        assert (flips["base_prediction"] != flips["target"]).any(), "those that flip come first"


@pytest.fixture
def hostile():
    """A result in which every text that comes from elsewhere is hostile."""

    class Heard(Result):
        limits = "- **bold** and *slanted*\n- <b>ours"

        def tables(self):
            return {HOSTILE: pd.DataFrame({HOSTILE: [HOSTILE] * 30, "x": np.arange(30.0)}), "empty": pd.DataFrame()}

        def figure(self):
            return Figure()

        def checks(self):
            return [{"check": HOSTILE, "passed": True}]

        def remarks(self):
            return [HOSTILE]

        def examples(self, most):
            return [Example(HOSTILE, HOSTILE, HOSTILE, HOSTILE, lambda a, b: Figure())]

    config = json.loads((PATCHED / "patching_config.json").read_text("utf-8"))
    config["settings"]["labels"] = [HOSTILE, "b"]
    config["rests_on"] = [HOSTILE]
    config["versions"][HOSTILE] = HOSTILE
    config["model"]["id"] = HOSTILE
    return Heard(config)


def test_text_from_elsewhere_stays_text(hostile, monkeypatch):
    class Told:
        def summary(self, result):
            yield HOSTILE

    monkeypatch.setattr("interp_core.experiments.report.page.experiment_of", lambda command: Told())
    read = Read(report(hostile, Engine()))
    assert leaves_the_house(read) == [] and read.open == []
    shown = HOSTILE.replace("\0", "\\0")
    for tag in ("td", "th", "li", "h3", "p"):
        assert any(shown in text for text in read.text(tag)), tag
    assert any("alert(1)" in text for text in read.text("code"))
    assert read.text("strong") == ["bold"] and read.text("em") == ["slanted"] and "<b>ours" in read.text("li")
    careless = Read(f"<p><td>{HOSTILE}</p>".encode())
    assert len(leaves_the_house(careless)) == 2, "the control: without escaping, a script and an image are seen"


def audible(at_once: int, digests: dict[str, str] | None = None) -> Result:
    """The bundled run with its first examples, their figures empty: quick to write."""
    plain = open_run(PATCHED)

    class Quick(type(plain)):
        def figures(self):
            return {"one": Figure((1, 1))}

        def examples(self, most):
            return [replace(one, draw=lambda a, b: Figure((1, 1))) for one in plain.examples(at_once)]

    config = {**plain.config, "manifest": {**plain.config["manifest"], "clips_sha256": digests}}
    return Quick(**{**vars(plain), "config": config})


def test_what_does_not_fit_is_left_out_and_said():
    result, engine = audible(4), Engine()
    most = len(report(result, engine)) - 20_000  # with the reserve for sentences, more than one pair is too many
    small = report(result, engine, most_bytes=most)
    read = Read(small)
    assert len(small) < most and len(read.all("img")) > 1
    heard = len(read.all("audio")) // 2
    assert 0 < heard < 4
    assert f"{4 - heard} of 4 pairs are left out: the file would be larger than" in " ".join(read.text("p"))


def test_recordings_that_are_not_those_of_the_run_are_not_played_and_the_rest_is_there():
    first, second = open_run(PATCHED).examples(2)
    clips = {clip.clip_id: clip for clip in read_manifest(ASSETS / "demo-emotion" / "manifest.csv").clips}
    digests = {clip_id: clips[clip_id].digest[-16:] for one in (first, second) for clip_id in (one.a, one.b)}
    unknown = Read(report(audible(1), Engine()))
    assert len(unknown.all("audio")) == 2 and "The run kept no digests of its recordings" in " ".join(unknown.text("p"))
    whole = Read(report(audible(2, digests), Engine()))
    assert len(whole.all("audio")) == 4 and "kept no digests" not in " ".join(whole.text("p"))
    read = Read(report(audible(2, digests | {first.b: "0" * 16}), Engine()))
    assert len(read.all("audio")) == 2 and first.said in read.text("p")
    [said] = [text for text in read.text("p") if "is another one than that of the run" in text]
    assert first.b in said


def test_clips_that_are_gone_are_a_sentence_in_the_report(tmp_path):
    result = audible(1)
    request = EXPERIMENTS["patch"].request.from_config(result.config)
    read = Read(report(result, Engine(), replace(request, manifest=str(tmp_path / "no.csv"))))
    assert read.all("audio") == [] and any("no.csv" in text for text in read.text("p"))


def test_half_a_character_of_a_broken_name_is_written_as_its_number():
    assert parts.esc("a\udce9<") == "a\\udce9&lt;"


def test_a_sound_beyond_full_scale_is_turned_down_and_not_cut():
    wave = 2 * np.sin(np.arange(RATE) / 20).astype(np.float32)
    [tag] = Read(parts.audio("A", Sound("loud", wave, RATE)).encode()).all("audio")
    heard, _ = soundfile.read(io.BytesIO(base64.b64decode(tag["src"].partition(",")[2])))
    np.testing.assert_allclose(heard, wave / np.abs(wave).max(), atol=1e-4)


def test_the_command_writes_a_report_and_refuses_in_a_sentence(tmp_path, capsys):
    out = tmp_path / "report.html"
    folder = ASSETS / "demo-emotion-wavlm" / "run-ablate"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    assert Read(out.read_bytes()).open == [] and capsys.readouterr().out.strip() == str(out)
    for arguments, said in [
        ([str(folder), "--out", str(out)], "must name a new file"),
        ([str(folder), "--out", str(tmp_path / "no" / "r.html")], "must name a new file"),
        ([str(tmp_path), "--out", str(tmp_path / "r.html")], str(tmp_path)),
    ]:
        assert main(["report", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: f"{folder.parent.name} {folder.name}")
def test_the_notebook_of_every_shipped_run_is_valid_and_asks_for_the_same_run(folder, monkeypatch):
    result = open_run(folder)
    made = nbformat.reads(notebook(result).decode(), as_version=4)
    nbformat.validate(made)
    asked = []
    monkeypatch.setattr(interp_core, "run", lambda request: asked.append(request) or result)
    shown: list[object] = []
    known = {"display": shown.append}
    for cell in made.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            exec(compile(cell.source, "cell", "exec"), known)
    assert asked == [EXPERIMENTS[result.config["command"]].request.from_config(result.config)]
    assert len(shown) == len(result.tables())
