"""Camelyon17: centres as numbered in the file, the official split made as WILDS makes it, or the user's own."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp_core.data.corpora import Corpus, read_corpus
from tests.data.corpora.trees import refusal, row, told, touch, write

HEADER = ",patient,node,x_coord,y_coord,tumor,slide,center,split"
PATIENTS = {0: ("004", 3), 1: ("021", 15), 2: ("046", 24), 3: ("060", 30), 4: ("099", 48)}  # and a slide of each
# Two patches a centre: the first trained on, the second held out at random.
ROWS = tuple(
    f"{2 * center + held},{patient},1,{96 * held},{32 * center},{held},{slide},{center},{held}"
    for center, (patient, slide) in PATIENTS.items()
    for held in (0, 1)
)


def file_of(line: str) -> str:
    _, patient, node, x, y, *_ = line.split(",")
    name = f"patient_{patient}_node_{node}"
    return f"patches/{name}/patch_{name}_x_{x}_y_{y}.png"


def lay(root: Path, lines: Sequence[str] = ROWS, header: str = HEADER) -> Path:
    write(touch(root, map(file_of, lines)) / "metadata.csv", header, *lines)
    return root


def splits(corpus: Corpus) -> dict[tuple[str, str], str]:
    """(centre, "train" or "held" by the file) -> split; every patch must be there."""
    assert len(corpus.clips) == 10
    held = corpus.clips["x_coord"].map({"0": "train", "96": "held"})
    return dict(zip(zip(corpus.clips["center"], held, strict=True), corpus.clips["split"], strict=True))


def test_the_official_split_moves_whole_centres_whatever_the_file_says(tmp_path: Path) -> None:
    corpus = read_corpus("auto", lay(tmp_path / "camelyon17_v1.0").parent)
    assert splits(corpus) == {
        **{(center, "train"): "train" for center in "034"},
        **{(center, "held"): "id_val" for center in "034"},
        **{("1", part): "val" for part in ("train", "held")},
        **{("2", part): "test" for part in ("train", "held")},
    }
    assert corpus.notes == (
        "Official split: trained on centres 0, 3, 4; out of domain are centre 1 (val) and centre 2 (test).",
    )


def test_the_official_split_is_the_one_of_the_loader(tmp_path: Path) -> None:
    corpus = read_corpus("camelyon17", lay(tmp_path))
    table = pd.read_csv(tmp_path / "metadata.csv", index_col=0, dtype={"patient": "str"})
    table.loc[table["center"] == 1, "split"] = 3  # as wilds/datasets/camelyon17_dataset.py does, with its names
    table.loc[table["center"] == 2, "split"] = 2
    names = {0: "train", 1: "id_val", 2: "test", 3: "val"}
    assert corpus.clips["split"].tolist() == [names[code] for code in table["split"]]
    table.to_csv(tmp_path / "metadata.csv")  # and a file that was saved after that is read the same
    assert read_corpus("camelyon17", tmp_path).clips["split"].equals(corpus.clips["split"])


def test_the_user_chooses_centres_for_training_and_testing(tmp_path: Path) -> None:
    corpus = read_corpus("camelyon17", lay(tmp_path), train=(0, 1, 2), ood=(4,))
    assert splits(corpus) == {
        **{(center, "train"): "train" for center in "012"},
        **{(center, "held"): "id_val" for center in "012"},
        **{("3", part): "" for part in ("train", "held")},
        **{("4", part): "ood" for part in ("train", "held")},
    }
    assert corpus.notes == (
        "Chosen split: trained on centre 0, 1, 2; id_val from centre 0, 1, 2; out of domain centre 4.",
    )
    other = splits(read_corpus("camelyon17", tmp_path, train=[0], ood=[2], id_val=[0, 3]))
    assert {key for key, split in other.items() if split == "id_val"} == {("0", "held"), ("3", "train"), ("3", "held")}
    assert {key for key, split in other.items() if split == "train"} == {("0", "train")}


@pytest.mark.parametrize(
    "choice, said",
    [
        ({"train": (0, 2), "ood": (2,)}, "centre 2 is both in and out of domain"),
        ({"train": (0,), "ood": (2,), "id_val": (2,)}, "centre 2 is both in and out of domain"),
        ({"train": (0, 1, 2), "ood": (5,)}, "centre 5 is not in camelyon17 (0 to 4, as in metadata.csv)"),
        ({"train": (0,)}, "give the centres to train on and those to test on (train and ood), or neither"),
        ({"id_val": (0,)}, "or neither"),
        ({"train": (), "ood": (2,)}, "or neither"),
    ],
)
def test_choices_that_leak_or_do_not_exist_are_refused(tmp_path: Path, choice: dict[str, object], said: str) -> None:
    assert said in refusal("camelyon17", lay(tmp_path), **choice)


def test_patches_carry_patient_slide_and_centre_and_are_images(tmp_path: Path) -> None:
    corpus = read_corpus("camelyon17", lay(tmp_path))
    assert row(corpus, "patient_004_node_1_x_96_y_0") == {
        "clip_id": "patient_004_node_1_x_96_y_0",
        "path": str(tmp_path / "patches/patient_004_node_1/patch_patient_004_node_1_x_96_y_0.png"),
        "label": "tumor",
        "split": "id_val",
        "domain": "0",
        "center": "0",
        "slide": "3",
        "patient": "004",
        "node": "1",
        "x_coord": "96",
        "y_coord": "0",
    }
    assert corpus.media == "image" and corpus.units == ("slide", "patient") and corpus.classes == ("normal", "tumor")
    assert row(corpus, "patient_004_node_1_x_0_y_0")["label"] == "normal"


def test_a_spreadsheet_that_took_the_zeros_off_the_patients_does_no_harm(tmp_path: Path) -> None:
    lay(tmp_path)
    write(tmp_path / "metadata.csv", HEADER, *(line.replace(",004,", ",4,") for line in ROWS))
    assert set(read_corpus("camelyon17", tmp_path).clips["patient"]) == {"004", "021", "046", "060", "099"}


def test_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    lay(tmp_path)
    expected = read_corpus("camelyon17", tmp_path).clips
    table = pd.read_csv(tmp_path / "metadata.csv", dtype=str)
    table[table.columns[::-1]].to_csv(tmp_path / "metadata.csv", index=False)
    pd.testing.assert_frame_equal(read_corpus("camelyon17", tmp_path).clips, expected)


def test_bad_rows_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    lay(tmp_path)
    renumbered = "10,004,1,7,7,0,3,1,0"  # somebody's hospital 1 is centre 0 here
    wrong = (
        renumbered,
        "11,004,1,8,8,2,3,0,0",
        "12,004,1,9,9,0,3,0,2",
        "13,004,1,a,9,0,3,0,0",
        "14,004,1,10,9,0,3,0,0",
    )
    touch(tmp_path, map(file_of, wrong[:4]))
    write(tmp_path / "metadata.csv", HEADER, *ROWS, *wrong)
    said = [one.removeprefix("metadata.csv row ") for one in told("camelyon17", tmp_path)]
    stem = "patches/patient_004_node_1/patch_patient_004_node_1_x_"
    assert said == [
        f"12: {stem}7_y_7.png has another center than its patient // 20 and slide // 10 give; restore the table, "
        "centres are 0 to 4",
        f"13: {stem}8_y_8.png has a tumor that is neither 0 nor 1; restore the table",
        f"14: {stem}9_y_9.png has a split that is neither 0 nor 1; restore the table",
        f"15: {stem}a_y_9.png has a x_coord that is no whole number; restore the table",
        f"16: {stem}10_y_9.png does not exist; restore it or leave it out",
    ]
    assert len(read_corpus("camelyon17", tmp_path, skip_bad=True).clips) == 10


def test_a_table_without_centres_is_refused(tmp_path: Path) -> None:
    lay(tmp_path, header=HEADER.replace("center", "hospital"))
    assert "metadata.csv has no column 'center'; it has 'patient'" in refusal("camelyon17", tmp_path)


def test_twenty_thousand_patches_are_quick(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for i in range(20_000):
        patient, slide = PATIENTS[int(rng.integers(5))]
        lines.append(f"{i},{patient},0,{i},{i},{i % 2},{slide},{slide // 10},{int(i % 10 == 0)}")
    lay(tmp_path, lines)
    begun = time.process_time()
    assert len(read_corpus("camelyon17", tmp_path).clips) == 20_000
    assert time.process_time() - begun < 5  # of processor time; about 0.5 s on a quiet machine
