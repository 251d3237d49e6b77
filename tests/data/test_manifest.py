"""Manifests: every bad row is told at once, in words that say what to do; values stay the text that was written."""

import csv
import hashlib
import pickle
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from benchmarks import fuzz_manifests, fuzzing
from interp_core.data.clips import ClipLimits, read_audio
from interp_core.data.manifest import BadRow, BadRows, read_manifest
from interp_core.data.texts import SAID
from interp_core.errors import InterpError


def add_clips(folder: Path, names: Iterable[str], seconds: float = 0.5) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.full(round(seconds * 8000), 0.1), 8000)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], encoding: str = "utf-8") -> Path:
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def good(folder: Path, n: int = 3) -> Path:
    """A manifest of n clips with ids c0, c1, ... in clips/."""
    add_clips(folder, [f"clips/c{i}.wav" for i in range(n)])
    rows = [(f"c{i}", f"clips/c{i}.wav", f"t{i}") for i in range(n)]
    return write_csv(folder / "manifest.csv", ("clip_id", "path", "text_id"), rows)


def refusal(path: Path, **settings: object) -> str:
    with pytest.raises(InterpError) as caught:
        read_manifest(path, **settings)  # type: ignore[arg-type]
    return str(caught.value)


def test_clips_come_in_row_order_with_their_digests_and_every_column_as_a_label(tmp_path: Path) -> None:
    path = good(tmp_path)
    found = read_manifest(path)
    assert [clip.clip_id for clip in found.clips] == ["c0", "c1", "c2"]
    assert found.columns == ("clip_id", "path", "text_id") and found.skipped == ()
    assert found.clips[1].labels == {"text_id": "t1"}
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.clips[2].digest == hashlib.sha256((tmp_path / "clips/c2.wav").read_bytes()).hexdigest()
    assert len(read_audio(found.clips[0].path, 8000)) == 4000


def test_paths_are_relative_to_the_manifest_and_not_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = good(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    clip = read_manifest(path.relative_to(tmp_path)).clips[0]
    monkeypatch.chdir("/")
    assert clip.path.is_absolute() and len(read_audio(clip.path, 8000)) == 4000


def test_words_that_other_readers_take_for_missing_stay_labels_and_only_empty_is_absent(tmp_path: Path) -> None:
    add_clips(tmp_path, ["a.wav"])
    header = ("clip_id", "path", "label", "domain", "speaker", "text_id", "note")
    path = write_csv(tmp_path / "m.csv", header, [("007", "a.wav", "NA", "None", " nan ", "1e3", "")])
    clip = read_manifest(path).clips[0]
    assert clip.clip_id == "007"
    assert clip.labels == {"label": "NA", "domain": "None", "speaker": "nan", "text_id": "1e3"}


def test_a_byte_order_mark_spreadsheet_tails_and_a_nameless_column_do_no_harm(tmp_path: Path) -> None:
    add_clips(tmp_path, ["a.wav"])
    (tmp_path / "m.csv").write_bytes("\ufeff,clip_id,path,label\r\n0,ü,a.wav,größer\r\n\r\n,,,\r\n".encode())
    found = read_manifest(tmp_path / "m.csv")
    assert found.columns == ("clip_id", "path", "label")
    assert [(clip.clip_id, clip.labels) for clip in found.clips] == [("ü", {"label": "größer"})]


def test_parquet_gives_the_clips_of_the_csv(tmp_path: Path) -> None:
    path = good(tmp_path)
    table = pd.read_csv(path, dtype=str)
    table["take"] = pd.array([1, None, 3], dtype="Int64")
    table["score"] = [0.5, np.nan, 2.5]
    table.to_parquet(tmp_path / "m.parquet")
    found = read_manifest(tmp_path / "m.parquet")
    assert found.clips == read_manifest(path).clips
    assert found.clips[0].labels == {"text_id": "t0", "take": "1", "score": "0.5"}
    assert found.clips[1].labels == {"text_id": "t1"}


def test_parquet_rows_are_counted_from_one_and_broken_or_nested_files_are_refused(tmp_path: Path) -> None:
    add_clips(tmp_path, ["a.wav"])
    table = pd.DataFrame({"clip_id": ["a", "b"], "path": ["a.wav", "gone.wav"]})
    table.to_parquet(tmp_path / "m.parquet")
    assert refusal(tmp_path / "m.parquet").startswith("m.parquet row 2: gone.wav does not exist")
    table.assign(audio=pd.Series([{"x": 1}, {"x": 2}], dtype=object)).to_parquet(tmp_path / "nested.parquet")
    assert "column 'audio' holds struct<x: int64>, not text or numbers" in refusal(tmp_path / "nested.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really" * 10)
    assert "bad.parquet cannot be read as Parquet (" in refusal(tmp_path / "bad.parquet")


def test_a_manifest_that_is_missing_a_folder_of_another_kind_or_empty_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.csv") == f"the manifest {tmp_path}/no.csv does not exist; fix the path."
    assert refusal(tmp_path) == f"the manifest {tmp_path} is a folder; give the CSV or Parquet file."
    (tmp_path / "m.xlsx").write_bytes(b"x")
    assert refusal(tmp_path / "m.xlsx").endswith("m.xlsx ends in '.xlsx'; give a .csv or a .parquet file.")
    (tmp_path / "m.csv").touch()
    assert "m.csv is empty (0 bytes)" in refusal(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("\n,,\n\n")
    assert "m.csv is empty; give it a header line" in refusal(tmp_path / "m.csv")
    write_csv(tmp_path / "m.csv", ("clip_id", "path"), [])
    assert refusal(tmp_path / "m.csv") == "m.csv has a header but no rows; add one row a clip."


def test_missing_columns_are_told_with_those_there_and_the_nearest(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "m.csv", ("Clip-ID", "filepath", "label"), [("a", "a.wav", "x")])
    assert refusal(path) == (
        "m.csv has no column 'clip_id' (is it 'Clip-ID'?) and no column 'path' (is it 'filepath'?); "
        "it has 'Clip-ID', 'filepath', 'label'. A manifest needs clip_id and path."
    )
    path.write_text("clip_id;path\na;a.wav\n")
    assert refusal(path).endswith("Separate columns by commas.")
    write_csv(path, ("clip_id", "path", "label", "label"), [("a", "a.wav", "x", "y")])
    assert refusal(path) == "m.csv has more than one column 'label'; rename or drop one."


def test_text_that_is_not_utf8_and_broken_quotes_are_told_with_their_line(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "m.csv", ("clip_id", "path"), [("a", "a.wav"), ("é", "b.wav")], encoding="latin-1")
    assert refusal(path) == "m.csv line 3 is not UTF-8 text (byte 0xe9); save the file as UTF-8."
    path.write_text('clip_id,path\na,a.wav\nb,"b.wav\n')
    assert refusal(path).startswith("m.csv line 3 is not valid CSV (")


def test_one_bad_row_reads_as_one_sentence(tmp_path: Path) -> None:
    path = good(tmp_path)
    (tmp_path / "clips/c1.wav").unlink()
    assert refusal(path) == (
        "manifest.csv row 3: clips/c1.wav does not exist (looked in the manifest's folder); fix the path, "
        "or pass --skip-bad to leave out 1 bad row."
    )


def bad_manifest(folder: Path) -> Path:
    """One good row, then one row of each kind of badness; a value with line breaks shifts lines against rows."""
    add_clips(folder, ["a.wav", "b.wav"])
    soundfile.write(folder / "short.wav", np.zeros(80), 8000)
    soundfile.write(folder / "long.wav", np.zeros(8000 * 31), 8000)
    soundfile.write(folder / "none.wav", np.zeros(0), 8000)
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan), 8000, subtype="FLOAT")
    (folder / "text.wav").write_text("not audio")
    rows = [
        ("ok", "a.wav", "two\nlines"),  # lines 2 and 3
        ("gone", "gone.wav", ""),
        ("short", "short.wav", ""),
        ("long", "long.wav", ""),
        ("none", "none.wav", ""),
        ("nan", "nan.wav", ""),
        ("text", "text.wav", ""),
        ("ok", "b.wav", ""),
        ("", "b.wav", ""),
        ("nopath", "", ""),
        ("ok", "gone.wav", ""),
        ("folder", ".", ""),
        ("zero", "a\0.wav", ""),
    ]
    return write_csv(folder / "bad.csv", ("clip_id", "path", "text"), rows)


def test_all_bad_rows_are_listed_at_once_by_their_line_in_the_file(tmp_path: Path) -> None:
    path = bad_manifest(tmp_path)
    with open(path, "a") as file:
        file.write("few,a.wav\n")
    with pytest.raises(BadRows) as caught:
        read_manifest(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "bad.csv: 13 of 14 rows cannot be used."
    assert lines[-1] == "Correct them or pass --skip-bad to leave out 13 bad rows."
    expected = [
        "- row 4: gone.wav does not exist (looked in the manifest's folder); fix the path",
        "- row 5: short.wav lasts 0.01 s, shorter than the 0.1 s minimum; leave it out",
        "- row 6: long.wav lasts 31.0 s, longer than the 30 s limit; cut it or raise --max-seconds",
        "- row 7: none.wav holds 0 samples; replace it or leave it out",
        "- row 8: nan.wav holds 8000 NaN or infinite samples of 8000, the first at 0.000 s; export it again",
        "- row 9: text.wav cannot be decoded (Format not recognised); convert it to WAV or FLAC",
        "- row 10: b.wav has the clip_id 'ok' of row 2; make it unique",
        "- row 11: b.wav has no clip_id; fill it in",
        "- row 12 has no path; fill it in",
        "- row 13: gone.wav has the clip_id 'ok' of row 2; make it unique; and does not exist "
        "(looked in the manifest's folder); fix the path",
        "- row 14: . is a folder; give an audio file",
        "- row 15: a\0.wav cannot be opened (its name holds a zero byte); fix the path",
        "- row 16: a.wav has 2 values for 3 columns; put a value that holds a comma in double quotes",
    ]
    assert lines[1:-1] == expected
    assert [row.row for row in caught.value.rows] == list(range(4, 17))


def test_skip_bad_leaves_out_exactly_the_bad_rows_and_keeps_the_first_of_a_clip_id(tmp_path: Path) -> None:
    found = read_manifest(bad_manifest(tmp_path), skip_bad=True)
    assert [(clip.clip_id, clip.path.name) for clip in found.clips] == [("ok", "a.wav")]
    assert [row.row for row in found.skipped] == list(range(4, 16))
    assert found.skipped[6] == BadRow(10, "b.wav", "has the clip_id 'ok' of row 2; make it unique")


def test_a_manifest_of_bad_rows_alone_is_an_error_even_when_bad_rows_are_skipped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "m.csv", ("clip_id", "path"), [("a", "x.wav"), ("b", "y.wav")])
    message = refusal(path, skip_bad=True)
    assert message.startswith("m.csv: 2 of 2 rows cannot be used.") and message.endswith("no row is left to run on.")
    assert "--skip-bad" not in message


def test_hundreds_of_bad_rows_make_a_short_message_and_are_all_kept(tmp_path: Path) -> None:
    add_clips(tmp_path, ["a.wav"])
    rows = [("ok", "a.wav"), *((f"x{i}", f"x{i}.wav") for i in range(300))]
    with pytest.raises(BadRows) as caught:
        read_manifest(write_csv(tmp_path / "m.csv", ("clip_id", "path"), rows))
    lines = str(caught.value).splitlines()
    assert len(lines) == 23 and lines[21] == "- and 280 more"
    assert len(caught.value.rows) == 300
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.rows == caught.value.rows


def test_max_clips_takes_the_first_rows_and_never_looks_at_the_others(tmp_path: Path) -> None:
    path = good(tmp_path, 5)
    for i in (3, 4):
        (tmp_path / f"clips/c{i}.wav").unlink()
    assert [clip.clip_id for clip in read_manifest(path, max_clips=3).clips] == ["c0", "c1", "c2"]
    assert len(read_manifest(path, max_clips=99, skip_bad=True).clips) == 3
    assert "2 of 5 rows" in refusal(path)
    assert "max_clips=0" in refusal(path, max_clips=0)


def test_limits_are_the_callers(tmp_path: Path) -> None:
    assert "longer than the 0.3 s limit" in refusal(good(tmp_path), limits=ClipLimits(0.1, 0.3))


def test_clips_outside_the_allowed_folders_are_refused_however_they_are_reached(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "inside-not"
    add_clips(inside, ["a.wav"])
    add_clips(outside, ["b.wav"])
    (inside / "link.wav").symlink_to(outside / "b.wav")
    (inside / "linked").symlink_to(outside)
    routes = ["../inside-not/b.wav", str(outside / "b.wav"), "link.wav", "linked/b.wav", "/no/such/file", "linked/../x"]
    rows = [("a", "a.wav"), ("b", "../inside/a.wav"), *((f"x{i}", route) for i, route in enumerate(routes))]
    path = write_csv(inside / "m.csv", ("clip_id", "path"), rows)
    found = read_manifest(path, roots=[inside], skip_bad=True)
    assert [clip.clip_id for clip in found.clips] == ["a", "b"]
    assert [row.file for row in found.skipped] == routes
    reasons = {row.reason for row in found.skipped}  # one reason: whether a file exists outside is not told
    assert reasons == {f"lies outside the folders that may be read ({inside}); move it below one"}
    assert len(read_manifest(path, roots=[inside, outside], skip_bad=True).clips) == 6
    assert len(read_manifest(path, roots=[tmp_path], skip_bad=True).clips) == 6


def test_a_manifest_outside_the_allowed_folders_is_refused_and_a_linked_root_is_followed(tmp_path: Path) -> None:
    path = good(tmp_path / "corpus")
    (tmp_path / "served").mkdir()
    message = refusal(path, roots=[tmp_path / "served"])
    assert message.startswith(f"{path} lies outside the folders that may be read ({tmp_path}/served)")
    assert refusal(tmp_path / "no.csv", roots=[tmp_path / "served"]).startswith(f"{tmp_path}/no.csv lies outside")
    (tmp_path / "served" / "m.csv").symlink_to(path)
    assert "lies outside" in refusal(tmp_path / "served" / "m.csv", roots=[tmp_path / "served"])
    (tmp_path / "alias").symlink_to(tmp_path / "corpus")
    assert len(read_manifest(tmp_path / "alias" / "manifest.csv", roots=[tmp_path / "alias"]).clips) == 3
    assert "lies outside" in refusal(path, roots=[])


def test_progress_counts_every_clip_in_order_from_the_callers_thread(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str, bool]] = []
    read_manifest(
        good(tmp_path, 4),
        progress=lambda done, total, note: calls.append(
            (done, total, note, threading.current_thread() is threading.main_thread())
        ),
    )
    assert calls == [(i + 1, 4, f"clips/c{i}.wav", True) for i in range(4)]


def test_an_exception_in_progress_ends_the_reading_without_decoding_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def slow_decode(path: Path, limits: ClipLimits) -> tuple[np.ndarray, int]:
        decoded.append(path)
        time.sleep(0.01)
        return np.zeros(8), 8000

    monkeypatch.setattr("interp_core.data.manifest.decode", slow_decode)
    path = good(tmp_path, 200)

    def stop(done: int, total: int, note: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_manifest(path, progress=stop)
    assert 1 <= len(decoded) < 50


@pytest.mark.parametrize("first", ["sep=,", '"sep=,"', "sep=;", "SEP=\t"])
def test_excels_separator_line_is_followed_with_a_note_and_rows_keep_their_lines(tmp_path: Path, first: str) -> None:
    mark = first.strip('"')[-1]
    add_clips(tmp_path, ["a.wav"])
    lines = ["clip_id,path,label", "a,a.wav,x", "b,gone.wav,y"]
    (tmp_path / "m.csv").write_text("\n".join([first, *(line.replace(",", mark) for line in lines)]))
    with pytest.raises(BadRows, match="row 4: gone.wav does not exist"):
        read_manifest(tmp_path / "m.csv")
    found = read_manifest(tmp_path / "m.csv", skip_bad=True)
    assert [dict(clip.labels) for clip in found.clips] == [{"label": "x"}] and len(found.notes) == 1
    assert repr(first.strip('"')) in found.notes[0] and repr(mark) in found.notes[0]


def test_backslashes_are_read_as_folders_with_a_note_unless_such_a_file_is_there(tmp_path: Path) -> None:
    add_clips(tmp_path, ["clips/a.wav", "odd\\name.wav"])
    (tmp_path / "m.csv").write_text("clip_id,path\na,clips\\a.wav\nb,odd\\name.wav\n")
    found = read_manifest(tmp_path / "m.csv")
    assert [clip.path for clip in found.clips] == [tmp_path / "clips/a.wav", tmp_path / "odd\\name.wav"]
    assert found.notes == (
        "1 of 2 paths are written with backslashes, which are read as folders: 'clips\\a.wav' first.",
    )
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/m.csv").write_text("clip_id,path\na,..\\clips\\a.wav\n")
    with pytest.raises(InterpError, match="does not exist") as refused:  # whichever way it is read
        read_manifest(tmp_path / "inside/m.csv", roots=[tmp_path / "elsewhere", tmp_path / "inside"])
    assert "1 of" not in str(refused.value)


def test_a_path_that_ends_in_a_blank_finds_its_file_or_is_told_the_near_one(tmp_path: Path) -> None:
    add_clips(tmp_path, ["near.wav", "ends.wav"])
    (tmp_path / "ends.wav").rename(tmp_path / "ends .wav ")
    (tmp_path / "m.csv").write_text("clip_id,path\na,ends .wav \nb,NEAR-.flac \nc,nearer.wav\n")
    with pytest.raises(BadRows) as caught:
        read_manifest(tmp_path / "m.csv")
    assert [row.row for row in caught.value.rows] == [3, 4]
    assert caught.value.rows[0].reason.endswith("fix the path; did you mean 'near.wav'?")
    assert caught.value.rows[1].reason.endswith("fix the path")  # control: another name is not offered
    found = read_manifest(tmp_path / "m.csv", skip_bad=True)
    assert found.clips[0].path == tmp_path / "ends .wav " and "end in a blank" in found.notes[0]


def test_the_columns_of_hugging_face_are_taken_for_ours_and_other_names_are_offered(tmp_path: Path) -> None:
    add_clips(tmp_path, ["a.wav"])
    (tmp_path / "m.csv").write_text("id,file_name,label\na,a.wav,x\n")
    found = read_manifest(tmp_path / "m.csv")
    assert (found.clips[0].clip_id, found.clips[0].path) == ("a", tmp_path / "a.wav")
    assert found.columns == ("clip_id", "path", "label") and dict(found.clips[0].labels) == {"label": "x"}
    assert found.notes == ("Column 'id' is taken for clip_id and 'file_name' is taken for path.",)
    (tmp_path / "m.csv").write_text("clip_id,path,id,file_name\na,a.wav,other,label.wav\n")
    kept = read_manifest(tmp_path / "m.csv")  # control: where ours are there, theirs are labels
    assert dict(kept.clips[0].labels) == {"id": "other", "file_name": "label.wav"} and not kept.notes
    (tmp_path / "m.csv").write_text("utt_id,audio\na,a.wav\n")
    with pytest.raises(InterpError, match=r"'clip_id' \(is it 'utt_id'\?\) and no column 'path' \(is it 'audio'\?\)"):
        read_manifest(tmp_path / "m.csv")


def test_equal_texts_are_one_text_id_where_there_is_none_and_that_is_noted(tmp_path: Path) -> None:
    add_clips(tmp_path, ["a.wav"])
    texts = ("Good  morning", " good Morning ", "Good night", "")
    rows = "".join(f"{i},a.wav,{text}\n" for i, text in enumerate(texts))
    (tmp_path / "m.csv").write_text("clip_id,path,text\n" + rows)
    found = read_manifest(tmp_path / "m.csv")
    assert [clip.label("text_id") for clip in found.clips] == ["good morning", "good morning", "good night", None]
    assert found.clips[0].label("text") == "Good  morning" and found.columns[-1] == "text_id" and found.notes == (SAID,)
    (tmp_path / "m.csv").write_text("clip_id,path,text,text_id\na,a.wav,Hello,\nb,a.wav,Hello,7\n")
    given = read_manifest(tmp_path / "m.csv")  # control: a text_id that is there counts alone
    assert [clip.label("text_id") for clip in given.clips] == [None, "7"] and not given.notes
    (tmp_path / "m.csv").write_text("clip_id,path,text,text_id\na,a.wav,Hello,\n")
    assert read_manifest(tmp_path / "m.csv").clips[0].label("text_id") == "hello"  # an empty column is none
    (tmp_path / "m.csv").write_text("clip_id,path,text\na,a.wav,\n")
    empty = read_manifest(tmp_path / "m.csv")
    assert not empty.notes and empty.columns == ("clip_id", "path", "text")


def test_a_manifest_that_was_not_fetched_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n")
    with pytest.raises(InterpError, match=r"m\.csv is a Git LFS pointer; fetch the large files \(git lfs pull\)\.$"):
        read_manifest(tmp_path / "m.csv")


def test_twenty_thousand_columns_take_no_longer_than_their_size(tmp_path: Path) -> None:
    add_clips(tmp_path, ["a.wav"])
    names = [f"column_{i}" for i in range(20_000)]
    path = write_csv(tmp_path / "m.csv", ["clip_id", "path", *names], [["a", "a.wav", *names]])
    started = time.process_time()
    assert len(read_manifest(path).clips[0].labels) == 20_000
    assert time.process_time() - started < 4
    message = refusal(write_csv(tmp_path / "n.csv", ["clip_id", *names], [["a", *names]]))
    assert "'column_18' and 19981 more" in message and len(message) < 1000


def test_recordings_that_are_silent_once_mixed_to_mono_are_listed(tmp_path: Path) -> None:
    voice = np.sin(np.arange(8000) / 10) * 0.1
    for name, samples in (
        ("loud", np.stack([voice, voice], 1)), ("cancelled", np.stack([voice, -voice], 1)),
        ("quiet", voice / 100), ("dither", np.sign(voice) * 2.0**-15), ("zero", voice * 0),
    ):  # fmt: skip
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000, subtype="PCM_16")
    rows = "".join(f"{name},{name}.wav\n" for name in ("loud", "cancelled", "quiet", "dither", "zero"))
    (tmp_path / "m.csv").write_text(f"clip_id,path\n{rows}")
    assert read_manifest(tmp_path / "m.csv").silent == ("cancelled", "dither", "zero")


def test_mutated_manifests_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    tally = fuzzing.run(fuzz_manifests.cases(tmp_path, 250, 0))
    assert not tally.faults, str(tally)
    assert tally.counts["fine"] > 10 and tally.counts["refused"] > 10
