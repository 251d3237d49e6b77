"""VocalSound: class and speaker from the name, split from lists whose paths are of another machine."""

import json
from pathlib import Path

from interp_core.data.corpora import read_corpus
from tests.data.corpora.trees import refusal, row, sound, through_a_csv, told, touch, write

NAMES = (
    "f0003_0_cough",
    "f0003_0_laughter",
    "m0010_1_sniff",
    "f0500_0_throatclearing",
    "m0600_0_sigh",
    "m0600_0_sneeze",
)
IDS = {"laughter": "/m/01j3sz", "cough": "/m/01b_21", "sniff": "/m/07ppn3j", "throatclearing": "/m/0dl9sf8"}
FAR = "/data/author/vocalsound/audio_16k"


def tree(root: Path, names: tuple[str, ...] = NAMES, folder: str = "audio_16k") -> Path:
    return touch(root, [f"{folder}/{name}.wav" for name in names])


def listed(root: Path, split: str, *names: str, far: str = FAR) -> None:
    entries = [{"wav": f"{far}/{name}.wav", "labels": IDS.get(name.split("_")[-1], "")} for name in names]
    write(root / f"datafiles/{split}.json", json.dumps({"data": entries}))


def test_lists_with_absolute_paths_of_another_machine_give_the_splits(tmp_path: Path) -> None:
    tree(tmp_path)
    listed(tmp_path, "tr", *NAMES[:2])
    listed(tmp_path, "val", NAMES[2], far="C:\\vocal\\audio_16k")
    listed(tmp_path, "te", NAMES[3])
    write(tmp_path / "meta/te_meta.csv", "m0600,male,33,USA,English,no", "f0500,female,21,India,Hindi,asthma")
    corpus = read_corpus("auto", tmp_path)
    assert {one: row(corpus, one)["split"] for one in NAMES} == {
        **dict.fromkeys(NAMES[:2], "train"),
        NAMES[2]: "val",
        **dict.fromkeys(NAMES[3:], "test"),  # the last two by their speaker
    }
    assert row(corpus, "f0500_0_throatclearing") == {
        "clip_id": "f0500_0_throatclearing",
        "path": str(tmp_path / "audio_16k/f0500_0_throatclearing.wav"),
        "label": "throatclearing",
        "speaker": "f0500",
        "split": "test",
        "sex": "female",
        "collection": "0",
        "age": "21",
        "country": "India",
        "native_language": "Hindi",
        "health": "asthma",
    }
    assert corpus.units == ("speaker",) and corpus.notes == ("Recordings from audio_16k/.",)
    assert corpus.classes == ("laughter", "sigh", "cough", "throatclearing", "sneeze", "sniff")


def test_recordings_alone_are_enough_and_clips_without_a_split_are_told(tmp_path: Path) -> None:
    corpus = read_corpus("auto", tree(tmp_path))
    assert corpus.name == "vocalsound" and set(corpus.clips["split"]) == {""}
    assert corpus.notes[1] == "6 of 6 clips without a split."


def test_the_rate_is_a_choice_and_the_other_names_of_its_folder_are_known(tmp_path: Path) -> None:
    tree(tmp_path)
    tree(tmp_path, NAMES[:1], "data_44k")
    assert len(read_corpus("vocalsound", tmp_path).clips) == 6
    high = read_corpus("vocalsound", tmp_path, rate="44k")
    assert high.clips["path"].tolist() == [str(tmp_path / "data_44k/f0003_0_cough.wav")]
    assert refusal("vocalsound", tmp_path, rate="48k") == "rate='48k' is no rate of vocalsound; give '16k' or '44k'."
    (tmp_path / "data_44k").rename(tmp_path / "other")
    assert "has no folder audio_44k or data_44k" in refusal("vocalsound", tmp_path, rate="44k")


def test_bad_names_and_listed_files_that_are_missing_are_told_at_once(tmp_path: Path) -> None:
    tree(tmp_path, (*NAMES[:1], "x0003_0_cough", "f0003_0_hiccup", "f0003_cough", "._f0003_0_cough"))
    listed(tmp_path, "tr", NAMES[0], NAMES[1])
    listed(tmp_path, "te", NAMES[0])
    example = "has a name that is not SPEAKER_COLLECTION_CLASS (an example is f0003_0_cough); correct it"
    known = "laughter, sigh, cough, throatclearing, sneeze, sniff"
    assert told("vocalsound", tmp_path) == [
        "audio_16k/f0003_0_cough.wav is listed in test and in train; restore datafiles/",
        f"audio_16k/f0003_0_hiccup.wav has the class 'hiccup' in its name (known: {known}); correct it",
        "audio_16k/f0003_0_laughter.wav is in datafiles/tr.json, but does not exist; restore it or leave it out",
        f"audio_16k/f0003_cough.wav {example}",
        f"audio_16k/x0003_0_cough.wav {example}",
    ]


def test_the_name_decides_the_class_and_a_list_that_says_otherwise_is_noted(tmp_path: Path) -> None:
    tree(tmp_path)
    entries = [{"wav": f"{FAR}/f0003_0_cough.wav", "labels": IDS["sniff"]}]
    write(tmp_path / "datafiles/tr.json", json.dumps({"data": entries}))
    corpus = read_corpus("vocalsound", tmp_path)
    assert row(corpus, "f0003_0_cough")["label"] == "cough"
    said = "1 of 6 clips has another class in datafiles/ than in its name; names were taken."
    assert said in corpus.notes


def test_a_list_that_is_none_is_named(tmp_path: Path) -> None:
    tree(tmp_path)
    for broken in ("{", "[]", '{"data": [{"file": "x"}]}', '{"data": 3}'):
        write(tmp_path / "datafiles/val.json", broken)
        assert f"{tmp_path}/datafiles/val.json does not hold" in refusal("vocalsound", tmp_path)


def test_its_manifest_is_read_back(tmp_path: Path) -> None:
    sound(tmp_path, [f"audio_16k/{name}.wav" for name in NAMES])
    listed(tmp_path, "tr", *NAMES)
    assert len(through_a_csv(read_corpus("vocalsound", tmp_path), tmp_path / "clips.csv").clips) == 6
