"""All corpora: which one a folder is, and settings that go to the right reader."""

import time
from pathlib import Path

import pandas as pd
import pytest

from interp_core.data.corpora import CORPORA, read_corpus, recognise
from interp_core.data.manifest import BadRows
from tests.data.corpora.trees import refusal, touch, write

TREES = {
    "ravdess": ["Actor_01/03-01-01-01-01-01-01.wav", "Actor_02/03-01-01-01-01-01-02.wav"],
    "esc50": ["audio/1-1-A-0.wav", "meta/esc50.csv"],
    "tinysol": ["Winds/Flute/ordinario/Fl-ord-B4-mf-N-N.wav", "Brass/Horn/ordinario/Hn-ord-B4-mf-N-N.wav"],
    "vocalsound": ["audio_16k/f0003_0_cough.wav"],
    "asvspoof5": ["ASVspoof5_protocols/ASVspoof5.dev.track_1.tsv", "flac_D/D_1.flac"],
    "asvspoof_la": ["ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.dev.trl.txt", "ASVspoof2019_LA_dev/flac/D_1.flac"],
    "folder_per_class": ["dog/a.wav", "cat/b.wav"],
}


@pytest.mark.parametrize("name", TREES)
def test_each_layout_is_recognised_also_beside_hidden_files(tmp_path: Path, name: str) -> None:
    touch(tmp_path, [*TREES[name], ".DS_Store", ".git/config"])
    assert recognise(tmp_path) == name


@pytest.mark.parametrize("name", TREES)
def test_each_layout_is_recognised_one_folder_down_beside_an_archive(tmp_path: Path, name: str) -> None:
    touch(tmp_path, [*(f"unpacked-master/{file}" for file in TREES[name]), "archive.zip", "readme/license.txt"][:-1])
    assert recognise(tmp_path) == name


def test_a_folder_that_holds_a_corpus_is_read_as_that_corpus_and_says_so(tmp_path: Path) -> None:
    touch(tmp_path, [*(f"vs_release_16k/{file}" for file in TREES["vocalsound"]), "papers/one.pdf"])
    for name in ("auto", "vocalsound"):
        corpus = read_corpus(name, tmp_path)
        assert corpus.root == tmp_path / "vs_release_16k" and corpus.name == "vocalsound" and len(corpus.clips) == 1
        assert corpus.notes[0] == "Read from vs_release_16k/."
    assert "Read from" not in " ".join(read_corpus("auto", tmp_path / "vs_release_16k").notes)
    assert refusal("esc50", tmp_path).startswith("meta/esc50.csv does not exist"), "another corpus's reader stays"


def test_of_several_corpora_in_a_folder_one_has_to_be_named(tmp_path: Path) -> None:
    touch(tmp_path, [*(f"sounds/{file}" for file in TREES["esc50"]), "voices/Actor_01/03-01-01-01-01-01-01.wav"])
    said = f"{tmp_path} holds several corpora, sounds/ (ESC-50), voices/ (RAVDESS); give the folder of one of them."
    assert refusal("auto", tmp_path) == said
    assert read_corpus("ravdess", tmp_path).clips["speaker"].tolist() == ["01"]


def test_classes_whose_recordings_lie_deeper_are_not_taken_for_corpora_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, ["dog/young/a.wav", "dog/old/b.wav", "cat/c/c.wav"])
    assert recognise(tmp_path) is None
    corpus = read_corpus("folder_per_class", tmp_path)
    assert corpus.root == tmp_path and corpus.classes == ("cat", "dog")


def test_a_wilds_folder_is_recognised_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "patches").mkdir()
    write(tmp_path / "metadata.csv", "image,label", "a,b")
    assert recognise(tmp_path) is None
    write(tmp_path / "metadata.csv", ",patient,node,x_coord,y_coord,tumor,slide,center,split")
    assert recognise(tmp_path) == "camelyon17"
    (tmp_path / "patches").rename(tmp_path / "data")
    assert recognise(tmp_path) is None


def test_every_reader_is_recognised_somewhere_and_in_its_turn() -> None:
    assert {*TREES, "camelyon17"} == set(CORPORA)
    assert list(CORPORA)[-1] == "folder_per_class"  # the actors of RAVDESS are one folder a class, too


@pytest.mark.parametrize(
    "files", [[], ["a.wav", "b.wav"], ["one/a.wav"], ["dog/readme.txt", "cat/readme.txt"], ["deep/er/dog/a.wav"]]
)
def test_a_folder_that_is_nothing_known_is_not_taken_for_something(tmp_path: Path, files: list[str]) -> None:
    assert recognise(touch(tmp_path, files)) is None
    assert refusal("auto", tmp_path).startswith(
        f"{tmp_path} holds no corpus that is recognised; name one of camelyon17,"
    )


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    assert recognise(tmp_path / "no") is None
    assert refusal("auto", tmp_path / "no").startswith(f"{tmp_path}/no does not exist")
    (tmp_path / "file.wav").touch()
    assert recognise(tmp_path / "file.wav") is None
    for name in CORPORA:
        assert refusal(name, tmp_path / "file.wav").startswith(f"{tmp_path}/file.wav is a file; give the folder")
        assert refusal(name, tmp_path / "no").startswith(f"{tmp_path}/no does not exist; give the folder")


def test_unknown_names_and_choices_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    assert refusal("esc-50", tmp_path) == "unknown corpus 'esc-50'; did you mean 'esc50'?"
    assert refusal("librispeech", tmp_path).startswith("unknown corpus 'librispeech'; known: auto, camelyon17,")
    assert (
        refusal("ravdess", tmp_path, rate="16k") == "'rate' is no choice of the corpus 'ravdess'; its choices are none."
    )
    said = refusal("camelyon17", tmp_path, test=(2,))
    assert said == "'test' is no choice of the corpus 'camelyon17'; its choices are train, ood, id_val."


def test_a_path_relative_to_the_working_folder_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, TREES["ravdess"])
    monkeypatch.chdir(tmp_path.parent)
    corpus = read_corpus("auto", tmp_path.name)
    assert corpus.root == tmp_path and all(Path(path).is_file() for path in corpus.clips["path"])


def test_bad_clips_are_the_errors_of_a_manifest_with_their_table_and_survive_pickling(tmp_path: Path) -> None:
    import pickle

    write(touch(tmp_path, ["audio/x.wav"]) / "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take")
    with open(tmp_path / "meta/esc50.csv", "a") as file:
        file.write("1-1-A-0.wav,1,0,dog,True,1,A\n")
    with pytest.raises(BadRows) as caught:
        read_corpus("esc50", tmp_path)
    assert str(caught.value) == (
        "esc50: meta/esc50.csv row 2: audio/1-1-A-0.wav does not exist; restore it or leave it out. "
        "It is the only clip."
    )
    (bad,) = caught.value.rows
    assert (bad.row, bad.file, bad.reason) == (2, "audio/1-1-A-0.wav", "does not exist; restore it or leave it out")
    assert pickle.loads(pickle.dumps(caught.value)).rows == caught.value.rows


def test_all_values_are_text_and_no_value_is_empty_text(tmp_path: Path) -> None:
    clips = read_corpus("auto", touch(tmp_path, TREES["vocalsound"])).clips
    assert all(isinstance(value, str) for column in clips for value in clips[column])
    assert clips["age"].tolist() == [""] and not clips.isna().any(axis=None)
    assert list(clips)[:2] == ["clip_id", "path"] and isinstance(clips.index, pd.RangeIndex)


def test_twenty_thousand_files_in_folders_are_quick(tmp_path: Path) -> None:
    touch(tmp_path, [f"{folder}/{i}.wav" for folder in ("dog", "cat") for i in range(10_000)])
    begun = time.process_time()
    assert len(read_corpus("auto", tmp_path).clips) == 20_000
    assert time.process_time() - begun < 5  # of processor time; about 0.5 s on a quiet machine
