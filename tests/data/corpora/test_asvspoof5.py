"""ASVspoof 5: two protocol forms and the thesis code's manifests give one table; uncoded is NONE however written."""

import time
from pathlib import Path

import pandas as pd
import pytest

from interp_core.data.corpora import read_corpus
from tests.data.corpora.trees import refusal, row, sound, through_a_csv, told, touch, write

TRAIN = (
    "T_4850 T_0000000000 F - - - AC3 A05 spoof -",
    "T_3734 T_0000000011 F - - - - bonafide bonafide -",
)
EVAL = (
    "E_0001 E_0000000001 M - 0 - - bonafide bonafide -",
    "E_0001 E_0000000002 M C05 3 E_0000000001 - bonafide bonafide -",
    "E_0001 E_0000000003 M C11 7 E_0000000001 - bonafide bonafide -",
    "E_0002 E_0000000004 F C04 2 E_0000000009 AC2 A17 spoof -",
)
PROTOCOLS = {"train": "ASVspoof5.train.tsv", "dev": "ASVspoof5.dev.track_1.tsv", "eval": "ASVspoof5.eval.track_1.tsv"}
FOLDERS = {"train": "flac_T", "dev": "flac_D", "eval": "flac_E_eval"}


def lay(
    root: Path, lines: tuple[str, ...], split: str, protocols: str = "ASVspoof5_protocols/", audio: str = ""
) -> Path:
    """A protocol and its recordings."""
    write(root / f"{protocols}{PROTOCOLS[split]}", *lines)
    return touch(root, [f"{audio}{FOLDERS[split]}/{line.split()[1]}.flac" for line in lines])


def test_ten_fields_are_read_and_both_spellings_of_uncoded_are_one(tmp_path: Path) -> None:
    lay(lay(tmp_path, TRAIN, "train"), EVAL, "eval")
    corpus = read_corpus("auto", tmp_path)
    assert corpus.name == "asvspoof5" and corpus.classes == ("bonafide", "spoof")
    assert corpus.units == ("utterance", "speaker") and corpus.notes == ()
    assert row(corpus, "T_0000000000") == {
        "clip_id": "T_0000000000",
        "path": str(tmp_path / "flac_T/T_0000000000.flac"),
        "label": "spoof",
        "speaker": "T_4850",
        "split": "train",
        "domain": "NONE",
        "sex": "female",
        "codec": "NONE",
        "codec_name": "uncoded",
        "codec_q": "NONE",
        "codec_seed": "",
        "utterance": "T_0000000000",
        "attack_tag": "AC3",
        "attack_label": "A05",
    }
    dash, zero = row(corpus, "T_0000000011"), row(corpus, "E_0000000001")
    assert (
        [dash[one] for one in ("codec", "codec_q")] == [zero[one] for one in ("codec", "codec_q")] == ["NONE", "NONE"]
    )
    coded = row(corpus, "E_0000000002")
    assert (coded["codec"], coded["codec_name"], coded["codec_q"], coded["domain"]) == ("C05", "mp3_wb", "3", "C05")


def test_all_versions_of_an_utterance_share_a_unit_with_the_utterance_itself(tmp_path: Path) -> None:
    corpus = read_corpus("asvspoof5", lay(tmp_path, EVAL, "eval"))
    by_utterance = corpus.clips.groupby("utterance")["clip_id"].apply(list).to_dict()
    assert by_utterance == {
        "E_0000000001": ["E_0000000001", "E_0000000002", "E_0000000003"],
        "E_0000000009": ["E_0000000004"],
    }


def test_six_fields_of_the_first_phase_have_their_key_last(tmp_path: Path) -> None:
    lines = ("T_4850 T_0000000000 F - A05 spoof", "T_3734 T_0000000011 M - bonafide bonafide", "T_1 T_2 M - - bonafide")
    write(tmp_path / "ASVspoof5.train.metadata.txt", *lines)
    touch(tmp_path, [f"flac_T/{line.split()[1]}.flac" for line in lines])
    corpus = read_corpus("auto", tmp_path)
    assert corpus.clips["label"].tolist() == ["spoof", "bonafide", "bonafide"]
    assert corpus.clips["attack_label"].tolist() == ["A05", "bonafide", ""]
    assert set(corpus.clips["codec"]) == {"NONE"} and corpus.clips["sex"].tolist() == ["female", "male", "male"]


@pytest.mark.parametrize(
    "protocols, audio", [("", ""), ("protocols/", ""), ("cm_protocols/", "eval_full/"), ("", "flac_E_eval/")]
)
def test_protocols_and_recordings_are_found_where_people_unpack_them(
    tmp_path: Path, protocols: str, audio: str
) -> None:
    corpus = read_corpus("auto", lay(tmp_path, EVAL, "eval", protocols, audio))
    assert row(corpus, "E_0000000004")["path"] == str(tmp_path / f"{audio}flac_E_eval/E_0000000004.flac")


def test_a_split_without_recordings_is_left_out_and_said_but_refused_when_asked_for(tmp_path: Path) -> None:
    lay(tmp_path, EVAL, "eval")
    write(tmp_path / "ASVspoof5_protocols/ASVspoof5.train.tsv", *TRAIN)
    corpus = read_corpus("asvspoof5", tmp_path)
    assert set(corpus.clips["split"]) == {"eval"}
    shown = "ASVspoof5_protocols/ASVspoof5.train.tsv is there, but no folder flac_T"
    assert corpus.notes == (f"{shown}: train was left out.",)
    said = refusal("asvspoof5", tmp_path, splits=("train",))
    assert said == f"{shown} in {tmp_path}; unpack it, or give its folder as audio_root."
    assert "has no protocol for dev; it has train, eval" in refusal("asvspoof5", tmp_path, splits=("dev",))
    assert "'test' is no split of asvspoof5; give of train, dev, eval" in refusal(
        "asvspoof5", tmp_path, splits=("test",)
    )
    touch(tmp_path / "elsewhere", [f"flac_T/{line.split()[1]}.flac" for line in TRAIN])
    apart = read_corpus("asvspoof5", tmp_path, splits=("train",), audio_root=tmp_path / "elsewhere")
    assert row(apart, "T_0000000011")["path"] == str(tmp_path / "elsewhere/flac_T/T_0000000011.flac")


def test_bad_lines_are_told_at_once_with_their_numbers(tmp_path: Path) -> None:
    lay(tmp_path, TRAIN, "train", "")
    wrong = (
        "",
        "T_1 T_0000000099 F - - - AC3 A05 spoof -",
        "T_1 T_0000000000 F C12 1 - AC3 A05 spoof -",
        "T_1 T_0000000000 F - - - AC3 A05 fake -",
        "T_1 T_0000000000 F - - - AC3 bonafide spoof -",
        "T_1 T_0000000000 F - - - - A05 bonafide -",
        "T_1 T_0000000000 spoof",
        "T_1 ../../x F - - - AC3 A05 spoof -",
        TRAIN[0],
    )
    write(tmp_path / "ASVspoof5.train.tsv", *TRAIN, *wrong)
    table = "ASVspoof5.train.tsv row"
    assert told("asvspoof5", tmp_path) == [
        f"{table} 4: T_0000000099 does not exist; restore it or leave it out (looked in flac_T)",
        f"{table} 5: T_0000000000 has the codec 'C12' (known: C01 to C11, and - for none); restore the table",
        f"{table} 6: T_0000000000 has 10 fields and no bonafide or spoof; a line has 10 with it as field 9, "
        "or 6 with it as field 6",
        f"{table} 7: T_0000000000 is spoof, but has the attack label 'bonafide'; restore the table",
        f"{table} 8: T_0000000000 is bonafide, but has the attack label 'A05'; restore the table",
        f"{table} 9: T_0000000000 has 3 fields and spoof as field 3; a line has 10 with it as field 9, or 6 with it as "
        "field 6",
        f"{table} 10: ../../x leads out of the corpus's folder; write a path below it",
        f"{table} 11: T_0000000000 has the clip_id 'T_0000000000' of T_0000000000; keep one of the two",
    ]
    assert len(read_corpus("asvspoof5", tmp_path, skip_bad=True).clips) == 2


def thesis_manifest(lines: tuple[str, ...], audio: Path | str, split: str, ending: str = ".flac") -> pd.DataFrame:
    names = ("speaker_id", "flac_file", "gender", "codec", "codec_q", "codec_seed", "attack_tag", "attack_label", "key")
    table = pd.DataFrame([line.split()[:9] for line in lines], columns=names)
    table["codec"] = table["codec"].replace("-", "NONE")
    table["codec_q"] = table["codec_q"].replace("-", "NONE")  # "0" stays, as an older state of that code left it
    table["y_task"] = table["key"].map({"bonafide": 0, "spoof": 1})
    table["audio_path"] = [f"{audio}/{FOLDERS[split]}/{name}{ending}" for name in table["flac_file"]]
    return table.assign(split=split)


@pytest.mark.parametrize("ending", [".flac", ""])
def test_the_thesis_manifest_gives_what_the_protocol_gives(tmp_path: Path, ending: str) -> None:
    lay(tmp_path / "data", EVAL, "eval")
    (tmp_path / "manifests").mkdir()
    thesis_manifest(EVAL, tmp_path / "data", "eval", ending).to_parquet(tmp_path / "manifests/eval.parquet")
    expected = read_corpus("asvspoof5", tmp_path / "data").clips
    for root in (tmp_path / "manifests", tmp_path / "manifests/eval.parquet"):
        pd.testing.assert_frame_equal(read_corpus("auto", root).clips, expected)


def test_a_thesis_manifest_of_another_machine_needs_the_folder_of_its_recordings(tmp_path: Path) -> None:
    lay(tmp_path / "data", EVAL, "eval")
    table = thesis_manifest(EVAL, "/scratch-shared/asv", "eval")
    table.loc[0, "codec_seed"] = None
    table.to_parquet(tmp_path / "eval.parquet")
    said = told("asvspoof5", tmp_path / "eval.parquet")
    assert len(said) == 4 and said[0] == (
        "eval.parquet row 1: E_0000000001 is not at /scratch-shared/asv/flac_E_eval/E_0000000001.flac; give the folder "
        "of the FLAC folders as audio_root, or leave it out"
    )
    found = read_corpus("asvspoof5", tmp_path / "eval.parquet", audio_root=tmp_path / "data").clips
    pd.testing.assert_frame_equal(found, read_corpus("asvspoof5", tmp_path / "data").clips)


def test_a_parquet_file_of_something_else_is_not_taken_for_a_thesis_manifest(tmp_path: Path) -> None:
    pd.DataFrame({"FLAC_FILE": ["x"], "KEY": ["spoof"]}).to_parquet(tmp_path / "train.parquet")
    said = refusal("asvspoof5", tmp_path / "train.parquet")
    assert said.startswith("train.parquet has no column 'flac_file', 'key', 'audio_path'")
    assert "holds no protocol of asvspoof5" in refusal("asvspoof5", tmp_path)


def test_a_folder_of_track_two_files_alone_holds_no_protocol(tmp_path: Path) -> None:
    write(tmp_path / "ASVspoof5.eval.track_2.trial.tsv", "E_0001 E_0000000001 M - target")
    touch(tmp_path, ["flac_E_eval/E_0000000001.flac"])
    assert "holds no protocol of asvspoof5" in refusal("asvspoof5", tmp_path)


def test_twenty_thousand_lines_are_quick(tmp_path: Path) -> None:
    lines = tuple(f"E_{i % 300:04} E_{i:010} M C05 3 E_{i // 12:010} AC1 A17 spoof -" for i in range(20_000))
    lay(tmp_path, lines, "eval")
    begun = time.process_time()
    assert len(read_corpus("asvspoof5", tmp_path).clips) == 20_000
    assert time.process_time() - begun < 5  # of processor time; about 0.5 s on a quiet machine


def test_its_manifest_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "ASVspoof5.eval.track_1.tsv", *EVAL)
    sound(tmp_path, [f"flac_E_eval/{line.split()[1]}.flac" for line in EVAL])
    assert len(through_a_csv(read_corpus("asvspoof5", tmp_path), tmp_path / "clips.csv").clips) == 4
