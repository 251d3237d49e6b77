"""One folder a class: nested, hidden, stray and split folders."""

import os
from pathlib import Path

import pytest

from interp_core.data.corpora import read_corpus
from tests.data.corpora.trees import refusal, row, sound, through_a_csv, told, touch


def test_the_folder_is_the_label_however_deep_the_file_lies(tmp_path: Path) -> None:
    corpus = read_corpus("folder_per_class", touch(tmp_path, ["dog/a.wav", "dog/2020/may/b.FLAC", "Cat/c.ogg"]))
    labels = dict(zip(corpus.clips["clip_id"], corpus.clips["label"], strict=True))
    assert labels == {"dog/a": "dog", "dog/2020/may/b": "dog", "Cat/c": "Cat"}
    assert corpus.classes == ("Cat", "dog") and corpus.units == () and "split" not in corpus.clips
    assert row(corpus, "dog/2020/may/b")["path"] == str(tmp_path / "dog/2020/may/b.FLAC")


def test_folders_named_as_splits_are_splits_and_not_classes(tmp_path: Path) -> None:
    touch(tmp_path, ["train/dog/a.wav", "train/cat/b.wav", "Test/dog/a.wav"])
    corpus = read_corpus("auto", tmp_path)
    assert corpus.clips[["clip_id", "split", "label"]].to_numpy().tolist() == [
        ["Test/dog/a", "Test", "dog"],
        ["train/cat/b", "train", "cat"],
        ["train/dog/a", "train", "dog"],
    ]
    assert read_corpus("folder_per_class", tmp_path, splits=False).classes == ("Test", "train")
    touch(tmp_path, ["bird/x.wav"])  # one more folder, and they are classes again
    assert read_corpus("folder_per_class", tmp_path).classes == ("Test", "bird", "train")


def test_hidden_and_other_files_are_passed_over_and_empty_classes_told(tmp_path: Path) -> None:
    hidden = [".DS_Store", "dog/.DS_Store", "dog/._a.wav", ".git/x.wav", "__MACOSX/dog/a.wav"]
    touch(tmp_path, ["dog/a.wav", "dog/a.m4a", "cat/readme", "README.md", *hidden])
    corpus = read_corpus("folder_per_class", tmp_path)
    assert corpus.clips["clip_id"].tolist() == ["dog/a"]
    assert corpus.notes == (
        "No recordings in cat.",
        "3 files that Patchbay does not decode passed over: 1 without ending, 1 .m4a, 1 .md.",
    )


def test_strays_and_twins_are_told_at_once(tmp_path: Path) -> None:
    touch(tmp_path, ["stray.wav", "dog/a.wav", "dog/a.flac", "cat/b.wav"])
    assert told("folder_per_class", tmp_path) == [
        "dog/a.wav has the clip_id 'dog/a' of dog/a.flac; keep one of the two",
        "stray.wav lies in no folder of a class; move it to CLASS/",
    ]
    touch(tmp_path / "s", ["train/a.wav", "train/dog/b.wav"])
    assert told("folder_per_class", tmp_path / "s") == [
        "train/a.wav lies in no folder of a class; move it to SPLIT/CLASS/"
    ]


def test_linked_folders_are_followed_and_a_circle_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path, ["elsewhere/a.wav", "root/cat/b.wav"])
    os.symlink(tmp_path / "elsewhere", tmp_path / "root/dog")
    os.symlink(tmp_path / "root", tmp_path / "root/cat/again")
    os.symlink(tmp_path / "nowhere.wav", tmp_path / "root/cat/broken.wav")
    corpus = read_corpus("folder_per_class", tmp_path / "root")
    assert corpus.clips["clip_id"].tolist() == ["cat/b", "dog/a"]


def test_a_thousand_bad_files_are_counted_and_twenty_shown(tmp_path: Path) -> None:
    touch(tmp_path, [*(f"{i:03}.wav" for i in range(300)), "dog/a.wav"])
    lines = refusal("folder_per_class", tmp_path).splitlines()
    assert lines[0] == "folder_per_class: 300 of 301 clips cannot be used."
    assert len(lines) == 23 and lines[-2:] == [
        "- and 280 more",
        "Correct them or pass --skip-bad to leave out 300 bad clips.",
    ]
    (tmp_path / "dog/a.wav").unlink()
    assert refusal("folder_per_class", tmp_path, skip_bad=True).endswith("Correct them: no clip is left.")


def test_its_manifest_is_read_back(tmp_path: Path) -> None:
    sound(tmp_path, ["dog/a.wav", "dog/b.flac", "cat/c, d.wav"])
    corpus = read_corpus("auto", tmp_path)
    assert corpus.name == "folder_per_class"
    assert len(through_a_csv(corpus, tmp_path / "clips.csv").clips) == 3


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, ["dog/a.wav", "cat/b.wav"])
    scandir = os.scandir

    def denied(folder: str) -> object:
        if str(folder).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    said = refusal("folder_per_class", tmp_path)
    assert said == f"the folder {tmp_path}/cat cannot be listed (Permission denied); give read permission."
    assert refusal("auto", tmp_path).startswith(f"{tmp_path} holds no corpus that is recognised")
