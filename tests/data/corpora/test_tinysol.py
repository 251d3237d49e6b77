"""TinySOL: columns under any of their headers, names alone where there is no table, notes that are one recording."""

from pathlib import Path

import pytest

from interp_core.data.corpora import read_corpus
from tests.data.corpora.trees import refusal, row, sound, through_a_csv, told, touch, write

HEADER = (
    "Path,Fold,Family,Instrument (abbr.),Instrument (in full),Technique (abbr.),Technique (in full),Pitch,Pitch ID,"
    "Dynamics,Dynamics ID,Instance ID,String ID (if applicable),Needed digital retuning"
)
ROWS = (
    "Brass/Trumpet_C/ordinario/TpC-ord-F#4-pp-N-T12u.wav,3,Brass,TpC,Trumpet in C,ord,ordinario,F#4,66,pp,0,0,,TRUE",
    "Strings/Contrabass/ordinario/Cb-ord-C4-mf-1c-N.wav,1,Strings,Cb,Contrabass,ord,ordinario,C4,60,mf,2,0,1.0,FALSE",
    "Winds/Flute/ordinario/Fl-ord-C5-mf-N-R100u.wav,0,Winds,Fl,Flute,ord,ordinario,C5,72,mf,2,0,,TRUE",
    "Winds/Flute/ordinario/Fl-ord-B4-mf-N-T14d.wav,4,Winds,Fl,Flute,ord,ordinario,B4,71,mf,2,0,,TRUE",
)
FILES = tuple(one.partition(",")[0] for one in ROWS)


@pytest.mark.parametrize("audio, table", [("", ""), ("audio/", "annotation/"), ("TinySOL/", ""), ("TinySOL2020/", "")])
def test_table_and_folders_are_found_where_people_keep_them(tmp_path: Path, audio: str, table: str) -> None:
    touch(tmp_path, [audio + file for file in FILES])
    write(tmp_path / f"{table}TinySOL_metadata.csv", HEADER, *ROWS)
    corpus = read_corpus("auto", tmp_path)
    assert corpus.name == "tinysol" and corpus.notes == () and corpus.units == ("recording", "note")
    assert corpus.classes == ("Contrabass", "Flute", "Trumpet C")
    assert row(corpus, "Cb-ord-C4-mf-1c-N") == {
        "clip_id": "Cb-ord-C4-mf-1c-N",
        "path": str(tmp_path / audio / FILES[1]),
        "label": "Contrabass",
        "family": "Strings",
        "instrument": "Contrabass",
        "instrument_abbr": "Cb",
        "technique": "ord",
        "pitch": "C4",
        "pitch_id": "60",
        "dynamics": "mf",
        "instance": "1c",
        "string": "1",
        "retuned": "false",
        "fold": "1",
        "recording": "Cb-ord-C4-mf-1c",
        "note": "Cb-C4",
    }
    trumpet = row(corpus, "TpC-ord-F#4-pp-N-T12u")
    assert (trumpet["label"], trumpet["instrument"], trumpet["retuned"]) == ("Trumpet C", "Trumpet in C", "true")


def test_a_note_resampled_from_its_neighbour_is_the_same_recording(tmp_path: Path) -> None:
    names = ("Fl-ord-B4-mf-N-T14d", "Fl-ord-C5-mf-N-T14d_R100u", "Fl-ord-A#4-mf-N-R100d", "Fl-ord-B4-ff-N-N")
    touch(tmp_path, [f"Winds/Flute/ordinario/{name}.wav" for name in names])
    corpus = read_corpus("tinysol", tmp_path)
    recordings = [row(corpus, name)["recording"] for name in names]
    assert recordings == ["Fl-ord-B4-mf-N"] * 3 + ["Fl-ord-B4-ff-N"]
    assert {row(corpus, name)["note"] for name in names} == {"Fl-B4"}
    assert [row(corpus, name)["pitch_id"] for name in names] == ["71", "72", "70", "71"]
    assert [row(corpus, name)["retuned"] for name in names] == ["true", "true", "true", "false"]


def test_headers_of_the_older_release_are_understood(tmp_path: Path) -> None:
    header = "Path,Family,Instrument,Instrument Name,Technique Name,Pitch,Pitch ID,Dynamics,Resampled,String ID"
    write(
        touch(tmp_path, [FILES[1]]) / "TinySOL_metadata.csv",
        header,
        f"{FILES[1]},Strings,Cb,Double bass,ordinario,C4,60,mf,False,1",
    )
    corpus = read_corpus("tinysol", tmp_path)
    found = row(corpus, "Cb-ord-C4-mf-1c-N")
    assert (found["instrument"], found["retuned"], found["string"], found["fold"]) == ("Double bass", "false", "1", "")
    assert corpus.notes == ("TinySOL_metadata.csv has no column for fold; taken from the names where they tell.",)


def test_with_unknown_last_headers_the_names_tell_string_and_retuning(tmp_path: Path) -> None:
    header = HEADER.replace("String ID (if applicable)", "Corde").replace("Needed digital retuning", "Accord")
    write(touch(tmp_path, FILES) / "TinySOL_metadata.csv", header, *ROWS)
    corpus = read_corpus("tinysol", tmp_path)
    assert (row(corpus, "Cb-ord-C4-mf-1c-N")["string"], row(corpus, "Cb-ord-C4-mf-1c-N")["retuned"]) == ("1", "false")
    assert row(corpus, "Fl-ord-C5-mf-N-R100u")["retuned"] == "true"
    assert "string, retuned" in corpus.notes[0]


def test_without_a_table_the_folders_are_read_and_the_missing_folds_told(tmp_path: Path) -> None:
    touch(tmp_path, [*FILES, "Winds/.DS_Store", "Winds/Flute/ordinario/._Fl-ord-B4-mf-N-T14d.wav", "Winds/notes.txt"])
    corpus = read_corpus("auto", tmp_path)
    assert len(corpus.clips) == 4 and set(corpus.clips["fold"]) == {""}
    assert corpus.notes[0] == "There is no TinySOL_metadata.csv: folds are unknown."
    assert row(corpus, "TpC-ord-F#4-pp-N-T12u")["label"] == "Trumpet C"


def test_a_table_of_paths_alone_is_read_with_what_the_names_tell(tmp_path: Path) -> None:
    write(touch(tmp_path, FILES) / "TinySOL_metadata.csv", "Path", *FILES)
    corpus = read_corpus("tinysol", tmp_path)
    assert (
        row(corpus, "Cb-ord-C4-mf-1c-N")["pitch"] == "C4" and row(corpus, "Cb-ord-C4-mf-1c-N")["label"] == "Contrabass"
    )
    assert any("has no column for" in note for note in corpus.notes)


def test_bad_rows_are_told_with_their_lines(tmp_path: Path) -> None:
    wrong = (
        "Winds/Flute/ordinario/flute C5.wav,0,Winds,Fl,Flute,ord,ordinario,C5,72,mf,2,0,,FALSE",
        "Winds/Fl-ord-C5-mf-N-N.wav,0,Winds,Fl,Flute,ord,ordinario,C5,72,mf,2,0,,FALSE",
        "Winds/Flute/ordinario/Fl-ord-D5-mf-N-N.wav,0,Winds,Fl,Flute,ord,ordinario,D5,72,ff,2,0,,FALSE",
        "Winds/Flute/ordinario/Fl-ord-E#5-mf-N-N.wav,0,Winds,Fl,Flute,ord,ordinario,E#5,77,mf,2,0,,FALSE",
        "../Flute/ordinario/Fl-ord-D5-pp-N-N.wav,0,Winds,Fl,Flute,ord,ordinario,D5,74,pp,2,0,,FALSE",
    )
    touch(tmp_path, [*FILES[1:], *(one.partition(",")[0] for one in wrong[:4])])
    write(tmp_path / "TinySOL_metadata.csv", HEADER, *ROWS, *wrong)
    said = told("tinysol", tmp_path)
    lines = [one.partition(":")[0].removeprefix("TinySOL_metadata.csv row ") for one in said]
    assert lines == ["2", "6", "7", "8", "9", "10"]
    assert said[0].endswith("TpC-ord-F#4-pp-N-T12u.wav does not exist; restore it or leave it out")
    assert "name that is not instrument-technique-pitch-dynamics-instance-retuning" in said[1]
    assert "does not lie in FAMILY/INSTRUMENT/TECHNIQUE/" in said[2]
    assert "is pitch_id 74 by its name, but 72 by the table" in said[3]
    assert "is dynamics mf by its name, but ff by the table" in said[3]
    assert "has the pitch E# in its name" in said[4]
    assert "leads out of the corpus's folder" in said[5]
    assert len(read_corpus("tinysol", tmp_path, skip_bad=True).clips) == 3


def test_a_table_without_paths_is_refused(tmp_path: Path) -> None:
    write(touch(tmp_path, FILES) / "TinySOL_metadata.csv", HEADER.replace("Path", "File"), *ROWS)
    assert "has no column 'Path'; it has 'File'" in refusal("tinysol", tmp_path)


def test_its_manifest_is_read_back(tmp_path: Path) -> None:
    write(sound(tmp_path, FILES) / "TinySOL_metadata.csv", HEADER, *ROWS)
    assert len(through_a_csv(read_corpus("tinysol", tmp_path), tmp_path / "clips.csv").clips) == 4
