"""ASVspoof 2019 and 2021 LA: protocols of two forms, keys that lie apart from the recordings."""

from pathlib import Path

import pytest

from interp_core.data.corpora import read_corpus
from tests.data.corpora.trees import refusal, row, sound, through_a_csv, told, touch, write

TRAIN = ("LA_0079 LA_T_1138215 - - bonafide", "LA_0087 LA_T_5849185 - A01 spoof")
DEV = ("LA_0069 LA_D_1047731 - - bonafide", "LA_0070 LA_D_2985000 - A05 spoof")
KEYS = (
    "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval",
    "LA_0020 LA_E_6866159 none none bonafide bonafide notrim progress",
    "LA_0015 LA_E_5464494 pstn mad_tx A19 spoof trim hidden",
)
PROTOCOLS = "ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm"
TRIALS = "keys/LA/CM/trial_metadata.txt"


def lay_2019(root: Path) -> Path:
    for split, kind, lines in (("train", "trn", TRAIN), ("dev", "trl", DEV)):
        write(root / f"{PROTOCOLS}.{split}.{kind}.txt", *lines)
        touch(root, [f"ASVspoof2019_LA_{split}/flac/{line.split()[1]}.flac" for line in lines])
    return root


def lay_2021(root: Path, keys: str = TRIALS, audio: str = "ASVspoof2021_LA_eval/flac") -> Path:
    write(root / keys, *KEYS)
    return touch(root, [f"{audio}/{line.split()[1]}.flac" for line in KEYS])


def test_2019_gives_key_attack_speaker_and_split(tmp_path: Path) -> None:
    corpus = read_corpus("auto", lay_2019(tmp_path))
    assert corpus.name == "asvspoof_la" and corpus.classes == ("bonafide", "spoof") and corpus.units == ("speaker",)
    assert row(corpus, "LA_T_5849185") == {
        "clip_id": "LA_T_5849185",
        "path": str(tmp_path / "ASVspoof2019_LA_train/flac/LA_T_5849185.flac"),
        "label": "spoof",
        "speaker": "LA_0087",
        "split": "train",
        "domain": "NONE",
        "codec": "NONE",
        "transmission": "",
        "attack_label": "A01",
        "trim": "",
        "edition": "2019",
    }
    real = row(corpus, "LA_D_1047731")
    assert (real["label"], real["attack_label"], real["split"]) == ("bonafide", "", "dev")
    assert corpus.notes == ()


def test_2021_gives_the_telephone_line_and_the_subset(tmp_path: Path) -> None:
    corpus = read_corpus("auto", lay_2021(tmp_path))
    coded, plain = row(corpus, "LA_E_9332881"), row(corpus, "LA_E_6866159")
    assert [coded[name] for name in ("label", "domain", "codec", "transmission", "attack_label", "split", "trim")] == [
        "spoof", "alaw", "alaw", "ita_tx", "A07", "eval", "notrim",
    ]  # fmt: skip
    assert [plain[name] for name in ("label", "domain", "transmission", "attack_label", "split")] == [
        "bonafide", "NONE", "", "", "progress",
    ]  # fmt: skip


@pytest.mark.parametrize("above", ["LA", "LA/LA", "data"])
def test_2019_is_found_in_the_folders_that_its_archives_make(tmp_path: Path, above: str) -> None:
    lay_2019(tmp_path / above)
    assert len(read_corpus("auto", tmp_path).clips) == 4


@pytest.mark.parametrize(
    "keys, audio",
    [
        ("LA-keys-full/keys/LA/CM/trial_metadata.txt", "ASVspoof2021_LA_eval/flac"),
        ("keys/CM/trial_metadata.txt", "ASVspoof2021_LA_eval/flac"),
        ("ASVspoof2021_LA_eval/keys/LA/CM/trial_metadata.txt", "ASVspoof2021_LA_eval/flac"),
        (TRIALS, "flac"),
        ("ASVspoof2021_LA_eval/trial_metadata.txt", "ASVspoof2021_LA_eval"),
    ],
)
def test_the_keys_of_2021_are_found_where_people_unpack_them(tmp_path: Path, keys: str, audio: str) -> None:
    assert len(read_corpus("auto", lay_2021(tmp_path, keys, audio)).clips) == 3


def test_recordings_of_2021_without_keys_say_what_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, ["ASVspoof2021_LA_eval/flac/LA_E_1.flac"])
    write(tmp_path / "ASVspoof2021_LA_eval/ASVspoof2021.LA.cm.eval.trl.txt", "LA_E_1")
    assert "or the keys of 2021 (LA-keys-full.tar.gz)" in refusal("auto", tmp_path)


def test_keys_of_the_deepfake_task_are_not_taken_for_these(tmp_path: Path) -> None:
    write(
        tmp_path / "CM/trial_metadata.txt", "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress x - - - -"
    )
    assert refusal("auto", tmp_path).startswith(f"{tmp_path} holds no corpus that is recognised")


def test_of_two_editions_one_is_read_and_the_other_is_named(tmp_path: Path) -> None:
    lay_2021(lay_2019(tmp_path))
    corpus = read_corpus("auto", tmp_path)
    assert set(corpus.clips["edition"]) == {"2019"}
    assert corpus.notes == ("The recordings of 2019; those of 2021 were left out, give their own folder.",)
    assert len(read_corpus("asvspoof_la", tmp_path, edition="2021").clips) == 3
    assert refusal("asvspoof_la", tmp_path, edition="2020").startswith("edition='2020' is no edition of asvspoof_la")


def test_a_split_without_recordings_is_left_out_and_said(tmp_path: Path) -> None:
    lay_2019(tmp_path)
    write(tmp_path / f"{PROTOCOLS}.eval.trl.txt", "LA_0039 LA_E_2834763 - A11 spoof")
    corpus = read_corpus("asvspoof_la", tmp_path)
    assert set(corpus.clips["split"]) == {"train", "dev"}
    (said,) = corpus.notes
    assert said.endswith("is there, but no folder ASVspoof2019_LA_eval/flac: eval was left out.")


def test_every_line_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    lay_2019(tmp_path)
    table = f"{PROTOCOLS}.train.trn.txt"
    wrong = (
        "LA_1 LA_T_1 - A01",
        "LA_1 ../../x - A01 spoof",
        "LA_1 LA_T_2 - - spoof",
        "LA_1 LA_T_3 - A01 spoof",
        "lone",
    )
    write(tmp_path / table, *TRAIN, *wrong)
    form = "a line has 5, bonafide or spoof as field 5; restore the table"
    assert told("asvspoof_la", tmp_path) == [
        f"{table} row 3: LA_T_1 has 4 fields; {form}",
        f"{table} row 4: ../../x leads out of the corpus's folder; write a path below it",
        f"{table} row 5: LA_T_2 is spoof, but has the attack label '-'; restore the table",
        f"{table} row 6: LA_T_3 does not exist; restore it or leave it out (looked in flac, ASVspoof2019_LA_train)",
        f"{table} row 7: lone has 1 fields; {form}",
    ]
    assert len(read_corpus("asvspoof_la", tmp_path, skip_bad=True).clips) == 4


def test_its_manifest_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / TRIALS, *KEYS)
    sound(tmp_path, [f"ASVspoof2021_LA_eval/flac/{line.split()[1]}.flac" for line in KEYS])
    assert len(through_a_csv(read_corpus("asvspoof_la", tmp_path), tmp_path / "clips.csv").clips) == 3
