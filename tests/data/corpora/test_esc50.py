"""ESC-50: the table and the names must agree, and class names keep the two class numberings apart."""

from pathlib import Path

import pytest

from interp_core.data.corpora import read_corpus
from tests.data.corpora.trees import refusal, row, sound, through_a_csv, told, touch, write

HEADER = "filename,fold,target,category,esc10,src_file,take"
ROWS = (
    "1-100032-A-0.wav,1,0,dog,True,100032,A",
    "1-100210-A-36.wav,1,36,vacuum_cleaner,False,100210,A",
    "5-203128-A-0.wav,5,0,dog,True,203128,A",
    "5-203128-B-0.wav,5,0,dog,True,203128,B",
    "1-11687-A-47.wav,1,47,airplane,False,11687,A",
)
FILES = tuple(f"audio/{one.partition(',')[0]}" for one in ROWS)


def test_labels_are_names_in_alphabetical_order_and_target_keeps_the_corpus_own_numbers(tmp_path: Path) -> None:
    write(touch(tmp_path, FILES) / "meta/esc50.csv", HEADER, *ROWS)
    corpus = read_corpus("esc50", tmp_path)
    assert corpus.classes == ("airplane", "dog", "vacuum_cleaner")
    target = dict(zip(corpus.clips["label"], corpus.clips["target"], strict=True))
    assert target == {"dog": "0", "vacuum_cleaner": "36", "airplane": "47"}
    assert sorted(target, key=lambda label: int(target[label])) != list(corpus.classes)
    assert corpus.clips["clip_id"].tolist() == [Path(file).stem for file in FILES]


def test_takes_of_one_source_file_share_their_unit(tmp_path: Path) -> None:
    write(touch(tmp_path, FILES) / "meta/esc50.csv", HEADER, *ROWS)
    corpus = read_corpus("esc50", tmp_path)
    assert corpus.units == ("src_file", "fold")
    one, other = row(corpus, "5-203128-A-0"), row(corpus, "5-203128-B-0")
    assert one["src_file"] == other["src_file"] == "203128" and one["fold"] == "5" and one["take"] != other["take"]
    assert corpus.clips["src_file"].nunique() == 4


def test_columns_are_found_by_name_in_any_order_behind_a_byte_order_mark(tmp_path: Path) -> None:
    touch(tmp_path, FILES)
    write(tmp_path / "meta/esc50.csv", "\ufefftake,category,extra,target,fold,src_file,esc10,filename")
    with open(tmp_path / "meta/esc50.csv", "a") as file:
        file.write("A, dog ,x,0,1,100032,True,1-100032-A-0.wav\n\n")
    corpus = read_corpus("esc50", tmp_path)
    assert corpus.clips["label"].tolist() == ["dog"]
    assert corpus.notes == ("Left out what meta/esc50.csv does not name in audio/: 4 files.",)


def test_bad_rows_are_told_with_their_lines(tmp_path: Path) -> None:
    touch(tmp_path, FILES[1:])
    wrong = (
        "5-203128-B-0.wav,4,0,dog,True,203128,B",
        "../../etc/1-1-A-0.wav,1,0,dog,True,1,A",
        "1-11687-A-47.wav,1,47,rain,False,11687,A",
        "1-11687-A-47.wav,1,47,,False,11687,A",
    )
    write(tmp_path / "meta/esc50.csv", HEADER, ROWS[0], *ROWS[1:3], wrong[0], ROWS[4], *wrong[1:])
    assert told("esc50", tmp_path) == [
        "meta/esc50.csv row 2: audio/1-100032-A-0.wav does not exist; restore it or leave it out",
        "meta/esc50.csv row 5: audio/5-203128-B-0.wav has another name than its fold, src_file, take and target give "
        "(4-203128-B-0); restore the table",
        "meta/esc50.csv row 7: audio/../../etc/1-1-A-0.wav leads out of the corpus's folder; write a path below it; "
        "and has another name than its fold, src_file, take and target give (1-1-A-0); restore the table",
        "meta/esc50.csv row 8: audio/1-11687-A-47.wav has target 47 and category 'rain', but 47 is 'airplane' above",
        "meta/esc50.csv row 9: audio/1-11687-A-47.wav has no category; restore the table",
    ]
    assert len(read_corpus("esc50", tmp_path, skip_bad=True).clips) == 3


def test_tables_that_are_missing_broken_or_short_of_a_column_are_named(tmp_path: Path) -> None:
    touch(tmp_path, FILES)
    assert refusal("esc50", tmp_path).startswith("meta/esc50.csv does not exist")
    write(tmp_path / "meta/esc50.csv", HEADER.replace("category", "Category"), *ROWS)
    assert "meta/esc50.csv has no column 'category'; it has 'filename'" in refusal("esc50", tmp_path)
    write(tmp_path / "meta/esc50.csv", HEADER)
    assert refusal("esc50", tmp_path) == "meta/esc50.csv has a header but no rows; restore it."
    write(tmp_path / "meta/esc50.csv", HEADER, ROWS[0], ROWS[1] + ",x")
    assert refusal("esc50", tmp_path) == ("meta/esc50.csv line 3 has 8 values for 7 columns (1 such line); restore it.")
    write(tmp_path / "meta/esc50.csv", HEADER + ",fold", ROWS[0] + ",1")
    assert "more than one column 'fold'" in refusal("esc50", tmp_path)
    (tmp_path / "meta/esc50.csv").write_bytes(HEADER.encode() + b"\n\xff\n")
    assert "cannot be read as UTF-8 CSV" in refusal("esc50", tmp_path)


def test_its_manifest_is_read_back(tmp_path: Path) -> None:
    write(sound(tmp_path, FILES) / "meta/esc50.csv", HEADER, *ROWS)
    assert len(through_a_csv(read_corpus("auto", tmp_path), tmp_path / "clips.csv").clips) == 5


def test_the_archive_of_the_repository_is_read_from_above(tmp_path: Path) -> None:
    write(touch(tmp_path / "ESC-50-master", FILES) / "meta/esc50.csv", HEADER, *ROWS)
    corpus = read_corpus("auto", tmp_path)
    assert corpus.notes == ("Read from ESC-50-master/.",) and len(corpus.clips) == 5


@pytest.mark.parametrize("rate", ["", "44100/", "16000/"])
def test_kaggles_copy_has_its_table_beside_two_folders_of_audio(tmp_path: Path, rate: str) -> None:
    write(tmp_path / "esc50.csv", HEADER, *ROWS)
    touch(tmp_path, [f"audio/{file.replace('audio/', f'audio/{rate}')}" for file in FILES])
    corpus = read_corpus("auto", tmp_path)
    folder = f"audio/audio/{rate}".rstrip("/")
    assert corpus.name == "esc50" and corpus.notes == (f"Recordings from {folder}/.",)
    assert row(corpus, "1-100032-A-0")["path"] == str(tmp_path / folder / "1-100032-A-0.wav")


def test_of_two_rates_the_original_one_is_read_unless_it_is_not_all_there(tmp_path: Path) -> None:
    write(tmp_path / "esc50.csv", HEADER, *ROWS)
    touch(tmp_path, [f"audio/audio/{rate}/{Path(file).name}" for rate in (16000, 44100) for file in FILES])
    assert "/44100/" in read_corpus("esc50", tmp_path).clips["path"][0]
    for file in FILES[1:]:
        (tmp_path / "audio/audio/44100" / Path(file).name).unlink()
    assert "/16000/" in read_corpus("esc50", tmp_path).clips["path"][0]
    (tmp_path / "audio/audio/16000" / Path(FILES[0]).name).unlink()
    assert told("esc50", tmp_path) == [
        f"esc50.csv row 2: audio/audio/16000/{Path(FILES[0]).name} does not exist; restore it or leave it out"
    ]
