"""Labels that match in part, and what is said about what a run's numbers rest on, for every experiment."""

import csv
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from interp_core import cli
from interp_core.data.clips import Clip
from interp_core.data.manifest import Manifest, read_manifest
from interp_core.data.relabel import as_answers, relabelled
from interp_core.digests import BY_PLACE
from interp_core.engine import Engine
from interp_core.errors import InterpError, Unanswered
from interp_core.experiments import experiment_of, sharded  # noqa: F401 (imported before Engine is replaced below)
from interp_core.experiments.basis import line, of_clips, of_labels
from interp_core.experiments.experiment import open_result
from interp_core.models.bundled import demos
from interp_core.request import Request
from tests.test_resume import REQUESTS

LABELS = ("prosody_label", "semantic_label", "label")
ANSWERS = ("neutral", "happy", "sad")


def manifest_of(*labels: str, **more: str) -> Manifest:
    clips = [Clip(f"c{i}", Path("x"), {"label": one, **more} if one else more, str(i)) for i, one in enumerate(labels)]
    return Manifest(Path("m.csv"), tuple(clips), ("clip_id", "path", "label"), "0", ())


def labels_of(manifest: Manifest) -> list[str | None]:
    return [clip.label("label") for clip in manifest.clips]


def test_case_and_blanks_alone_are_mapped_with_a_note_and_nothing_else_is() -> None:
    made = manifest_of("Happy", "happy", " SAD", "hap", "neutral", speaker="Happy", text="SAD")
    found = as_answers(made, ANSWERS)
    assert labels_of(found) == ["happy", "happy", "sad", "hap", "neutral"]
    assert {clip.label("speaker") for clip in found.clips} == {"Happy"}  # a speaker is no label
    assert found.notes == (
        "Labels read as answers:  SAD = sad (1 clip), Happy = happy (1 clip); case and blanks alone differ.",
    )
    exact = manifest_of("happy", "sad")
    assert as_answers(exact, ANSWERS) is exact
    both = manifest_of("s", "S", "T")
    assert labels_of(as_answers(both, ["s", "S", "t"])) == ["s", "S", "t"]
    assert labels_of(as_answers(manifest_of("TH"), ["th", "Th"])) == ["TH"]  # which of the two, nobody can tell


def test_a_mapping_reads_labels_as_others_and_refuses_what_no_clip_has() -> None:
    found = relabelled(manifest_of("hap", "neu", "hap", "sad", text_id="hap"), ("hap=happy", "neu = neutral"))
    assert labels_of(found) == ["happy", "neutral", "happy", "sad"] and found.clips[0].label("text_id") == "hap"
    assert "hap = happy (2 clips), neu = neutral (1 clip)" in found.notes[0]
    with pytest.raises(InterpError, match="no clip has the label ang, fea"):
        relabelled(manifest_of("hap"), ("hap=happy", "ang=angry", "fea=fearful"))
    with pytest.raises(InterpError, match=r"'hap', '=x', 'sad' is given more than once: give each label once"):
        relabelled(manifest_of("hap"), ("hap", "=x", "sad=a", "sad=b"))


def test_labels_that_cannot_be_answered_are_counted_with_both_sides_and_a_mapping() -> None:
    said = of_labels(manifest_of("hap", "neu", "hap", "sad", "", "x y").clips, "label", ANSWERS, "do not count")
    assert said == [
        "1 clips have no label",
        "4 clips have a label that the model cannot answer (hap, neu, x y; it answers neutral, happy, sad) and do not "
        "count: if they mean the same, read them so: --map-labels hap=happy,neu=neutral",
    ]
    assert of_labels(manifest_of("sad", "happy").clips, "label", ANSWERS) == []
    assert "(Happy and happy)" in of_labels(manifest_of("Happy", "happy").clips, "label")[0]


def test_repeated_silent_sung_and_skipped_recordings_are_told_of_the_clips_that_count(tmp_path: Path) -> None:
    voice = np.sin(np.arange(8000) / 10) * 0.1
    for name, samples in (("a", voice), ("b", voice), ("c", voice * 0), ("d", voice / 2)):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
    rows = "a,a.wav,speech\nb,b.wav,song\nc,c.wav,speech\nd,d.wav,speech\ne,gone.wav,song\n"
    (tmp_path / "m.csv").write_text(f"clip_id,path,vocal_channel\n{rows}")
    found = read_manifest(tmp_path / "m.csv", skip_bad=True)
    assert of_clips(found, found.clips) == [
        "4 clips",
        "1 row that cannot be used left out",
        "1 recordings are repeated under another clip_id (a = b)",
        "1 are silent once mixed to mono, below -80 dB (c)",
        "song is mixed with speech (1 and 3 clips, vocal_channel)",
    ]
    large = replace(found, clips=found.clips * 1500)
    assert sum("now and then" in said for said in of_clips(large, found.clips)) == 1
    placed = [replace(clip, digest=f"{BY_PLACE}{clip.digest}") for clip in found.clips]
    assert of_clips(found, placed)[-1] == "pictures are told apart by place, size and time, not by what they hold"
    assert of_clips(found, found.clips[3:]) == ["1 of 4 clips", "1 row that cannot be used left out"]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def rewritten(folder: Path, request: Request, spell: Callable[[int, str], str]) -> Request:
    """A request about a demo's clips under another spelling of their labels."""
    manifest = demos()[request.model].manifest
    rows = list(csv.DictReader(manifest.open()))
    for i, row in enumerate(rows):
        row["path"] = str(manifest.parent / row["path"])
        row |= {name: spell(i, row[name]) for name in LABELS if name in row}
    with open(folder / "m.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return replace(request, manifest=str(folder / "m.csv"))


# Pairs by hand need no labels, and a probe's answers are the labels as they are written.
UNANSWERED = {"patch, pairs by hand", "signflip, read by a probe", "heads, in words"}
"""Requests in which no label stands for an answer of the model."""


@pytest.mark.parametrize("command", sorted(set(REQUESTS) - UNANSWERED))
def test_every_experiment_reads_other_spellings_and_tells_what_it_cannot_read(
    tmp_path: Path, engine: Engine, command: str
) -> None:
    asked = replace(REQUESTS[command], max_clips=None)  # all of them are counted below
    experiment = experiment_of(asked.command)
    plain = experiment.prepare(engine, rewritten(tmp_path, asked, lambda i, label: label))
    mixed = experiment.prepare(engine, rewritten(tmp_path, asked, lambda i, label: label.title() if i % 2 else label))
    assert [dict(clip.labels) for clip in mixed.manifest.clips] == [dict(c.labels) for c in plain.manifest.clips]
    assert "case and blanks alone differ" in line(mixed.config) and "case" not in line(plain.config)
    assert [clip.clip_id for clip in mixed.used] == [clip.clip_id for clip in plain.used]

    short = rewritten(tmp_path, asked, lambda i, label: label[:3])
    if asked.command == "probes":  # a probe reads any label, whether the model can answer it or not
        assert "cannot answer" not in line(experiment.prepare(engine, short).config)
        return
    if command == "patch":  # its maps of right answers need labels that are answers; the rest does without
        with pytest.raises(InterpError, match="--map-labels"):
            experiment.prepare(engine, short)
        short = replace(short, maps=("time", "heads"), back_every=None, stated="")
    if asked.command in ("heads", "steer"):  # what is named, or ablated, has to be among both labels and answers
        with pytest.raises(Unanswered, match="--map-labels") as refused:
            experiment.prepare(engine, short)
        assert {"hap", "neu"} <= set(refused.value.sides["labels"])
        assert {"happy", "neutral"} <= set(refused.value.sides["answers"])
        said = str(refused.value)
    else:
        said = line(experiment.prepare(engine, short).config)
        assert re.search(r"\d+ clips have a (prosody_)?label that the model cannot answer \(", said)
    if command == "patch":
        assert "100 clips have" in said and "and with them 320 candidate pairs" in said
    mapping = re.search(r"--map-labels (\S+?)[.;]?(\s|$)", said)
    assert mapping is not None
    mapped = experiment.prepare(engine, replace(short, map_labels=tuple(mapping[1].split(","))))
    assert [dict(clip.labels) for clip in mapped.manifest.clips] == [dict(c.labels) for c in plain.manifest.clips]
    assert "read as asked" in line(mapped.config) and "cannot answer" not in line(mapped.config)


def test_a_run_rests_on_what_balancing_left_out_and_on_answers_that_the_model_does_not_want(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(REQUESTS["heads"], per_class=2, ablate=())
    said = line(experiment_of("heads").prepare(engine, asked).config)
    assert re.search(r"left out: \d+ clips so that every class has as many", said)
    patch = replace(REQUESTS["patch"], subspace="none", subspace_draws=5, stated="")
    assert "of the probability" not in line(experiment_of("patch").prepare(engine, patch).config)
    monkeypatch.setattr("interp_core.experiments.answers.LOW_MASS", 2.0)
    assert "of the probability is on the labels" in line(experiment_of("patch").prepare(engine, patch).config)


def test_the_command_ends_with_what_its_numbers_rest_on_and_the_config_keeps_it(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("interp_core.engine.Engine", lambda: engine)
    asked = replace(REQUESTS["signflip"], pilot=4, layers=(4,))
    words = rewritten(tmp_path, asked, lambda i, label: label.upper()).command_line(str(tmp_path / "run"))
    args = cli.parser().parse_args(shlex.split(words)[3:])
    assert cli.run_experiment(args) == cli.DONE
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("What these numbers rest on: 4 of 120 clips; Labels read as answers: ANGRY = angry (40")
    assert told[-1].endswith(line(open_result(experiment_of("signflip"), tmp_path / "run").config))


def test_song_among_the_speech_of_ravdess_and_the_readers_notes_are_told(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "Actor_01").mkdir()
    for number, channel in enumerate(("01", "01", "02")):
        path = tmp_path / "Actor_01" / f"03-{channel}-03-01-01-0{1 + number % 2}-01.wav"
        soundfile.write(path, np.sin(np.arange(8000) / (10 + number)) * 0.1, 16000)
    (tmp_path / "notes.txt").write_text("x")
    said = of_clips(found := engine.manifest(Request("x", str(tmp_path), corpus="ravdess")), found.clips)
    assert said[0] == "3 clips" and said[1].startswith("song is mixed with speech (1 and 2 clips")
    assert said[2] == "1 file that Patchbay does not decode passed over: 1 .txt" and len(said) == 3


def test_a_run_of_an_earlier_version_says_what_it_kept() -> None:
    said = line({"manifest": {"clips": 80}, "skipped_rows": [{}, {}]})
    assert said.startswith("80 clips; 2 rows left out; whether recordings are repeated")
