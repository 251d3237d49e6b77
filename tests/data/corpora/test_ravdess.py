"""RAVDESS: everything stands in seven fields of the name, and a name that has lost one is refused."""

from pathlib import Path

from interp_core.data.corpora import read_corpus
from interp_core.data.pairs import PROSODY, build_pairs
from tests.data.corpora.trees import refusal, row, sound, through_a_csv, told, touch

GOOD = ("Actor_12/03-01-06-01-02-01-12.wav", "Actor_01/03-01-01-01-01-01-01.wav", "Actor_01/03-02-05-02-01-02-01.wav")


def test_a_name_gives_emotion_text_actor_and_sex(tmp_path: Path) -> None:
    corpus = read_corpus("ravdess", touch(tmp_path, GOOD))
    assert row(corpus, "03-01-06-01-02-01-12") == {
        "clip_id": "03-01-06-01-02-01-12",
        "path": str(tmp_path / "Actor_12/03-01-06-01-02-01-12.wav"),
        "label": "fearful",
        "prosody_label": "fearful",
        "semantic_label": "neutral",
        "speaker": "12",
        "text_id": "02",
        "text": "Dogs are sitting by the door",
        "sex": "female",
        "modality": "audio",
        "vocal_channel": "speech",
        "intensity": "normal",
        "repetition": "1",
        "emotion_code": "06",
    }
    song = row(corpus, "03-02-05-02-01-02-01")
    assert (song["vocal_channel"], song["intensity"], song["label"], song["sex"]) == ("song", "strong", "angry", "male")
    assert corpus.units == ("speaker",) and corpus.media == "audio" and corpus.notes == ()


def test_class_numbers_are_the_emotion_codes_less_one_whatever_the_alphabet(tmp_path: Path) -> None:
    touch(tmp_path, [f"Actor_02/03-01-{code:02}-01-01-01-02.wav" for code in range(1, 9)])
    corpus = read_corpus("ravdess", tmp_path)
    assert corpus.classes == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    numbers = [corpus.classes.index(label) for label in corpus.clips["label"]]
    assert numbers == [int(code) - 1 for code in corpus.clips["emotion_code"]]


def test_every_name_that_does_not_parse_is_told_at_once_with_its_reason(tmp_path: Path) -> None:
    touch(
        tmp_path,
        [
            *GOOD,
            "Actor_01/03-01-06.wav",  # three fields were enough for the loader in the notebook
            "Actor_01/03-01-09-01-01-01-01.wav",
            "Actor_01/03-01-01-02-01-01-01.wav",
            "Actor_01/02-01-03-01-01-01-01.wav",
            "Actor_01/03-01-03-01-01-01-25.wav",
            "Actor_02/03-01-03-01-01-01-04.wav",
        ],
    )
    fields = "modality-vocal channel-emotion-intensity-statement-repetition-actor"
    assert told("ravdess", tmp_path) == [
        "Actor_01/02-01-03-01-01-01-01.wav is video without sound by its name (modality 02); leave it out",
        "Actor_01/03-01-01-02-01-01-01.wav is strong neutral by its name, which was never recorded; correct it",
        "Actor_01/03-01-03-01-01-01-25.wav has the actor code '25' in its name (known: 01 to 24); correct it",
        f"Actor_01/03-01-06.wav has 3 of the 7 fields {fields} in its name "
        "(an example is 03-01-06-01-02-01-12); give it its full name back",
        "Actor_01/03-01-09-01-01-01-01.wav has the emotion code '09' in its name (known: 01 to 08); correct it",
        "Actor_02/03-01-03-01-01-01-04.wav lies in Actor_02, but is of actor 04 by its name; correct one of them",
    ]
    corpus = read_corpus("ravdess", tmp_path, skip_bad=True)
    assert len(corpus.clips) == 3 and len(corpus.skipped) == 6


def test_hidden_files_are_passed_over_and_videos_are_counted(tmp_path: Path) -> None:
    junk = [".DS_Store", "Actor_01/.DS_Store", "Actor_01/._03-01-01-01-01-01-01.wav", "__MACOSX/Actor_01/x.wav"]
    touch(tmp_path, [*GOOD, *junk, "Actor_01/01-01-01-01-01-01-01.mp4", "Actor_01/01-01-02-01-01-01-01.MP4"])
    corpus = read_corpus("ravdess", tmp_path)
    assert len(corpus.clips) == 3
    assert corpus.notes == ("2 files that Patchbay does not decode passed over: 2 .mp4.",)


def test_a_corpus_that_was_unpacked_twice_is_told_and_its_first_copy_kept(tmp_path: Path) -> None:
    sound(touch(tmp_path, GOOD), [f"audio_speech_actors_01-24/{file}" for file in GOOD])  # of another size
    first = told("ravdess", tmp_path)[0]
    assert first == (
        "audio_speech_actors_01-24/Actor_01/03-01-01-01-01-01-01.wav has the clip_id '03-01-01-01-01-01-01' of "
        "Actor_01/03-01-01-01-01-01-01.wav; keep one of the two"
    )
    corpus = read_corpus("ravdess", tmp_path, skip_bad=True)
    assert sorted(corpus.clips["path"]) == sorted(str(tmp_path / file) for file in GOOD)


def test_its_manifest_is_read_back_and_gives_prosody_pairs(tmp_path: Path) -> None:
    sound(tmp_path / "corpus", [f"Actor_01/03-01-{code}-01-01-01-01.wav" for code in ("01", "03", "05")])
    manifest = through_a_csv(read_corpus("auto", tmp_path / "corpus"), tmp_path / "clips.csv")
    pairs = build_pairs(manifest.clips, [PROSODY]).pairs
    assert sorted(pair.target for pair in pairs) == ["angry", "angry", "happy", "happy", "neutral", "neutral"]


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, ["Actor_01/readme.txt"])
    said = refusal("ravdess", tmp_path)
    assert said.startswith(f"{tmp_path} holds no clip of the corpus 'ravdess'") and "1 .txt" in said


def test_without_the_folders_of_the_actors_the_names_are_enough(tmp_path: Path) -> None:
    flat = [Path(file).name for file in GOOD]
    for place in ("", "speech/", "deep/speech/"):
        here = touch(tmp_path / f"tree-{len(place)}", [place + file for file in flat])
        corpus = read_corpus("auto", here)
        assert corpus.name == "ravdess" and sorted(corpus.clips["speaker"]) == ["01", "01", "12"]


def test_folders_of_emotions_with_such_names_are_ravdess_and_one_stray_name_among_others_is_not(tmp_path: Path) -> None:
    by_emotion = touch(tmp_path / "emotions", ["fearful/03-01-06-01-02-01-12.wav", "neutral/03-01-01-01-01-01-01.wav"])
    assert read_corpus("auto", by_emotion).name == "ravdess"
    stray = ["dog/03-01-06-01-02-01-12.wav", "dog/bark.wav", "cat/purr.wav"]
    assert read_corpus("auto", touch(tmp_path / "stray", stray)).name == "folder_per_class"


def test_kaggles_second_copy_of_everything_is_passed_over_with_a_note_and_another_recording_is_not(
    tmp_path: Path,
) -> None:
    again = "audio_speech_actors_01-24"
    sound(tmp_path, GOOD)
    for file in GOOD:
        (tmp_path / again / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / again / file).write_bytes((tmp_path / file).read_bytes())
    corpus = read_corpus("auto", tmp_path)
    assert len(corpus.clips) == 3 and corpus.notes == (f"3 second copies in {again}/ passed over.",)
    assert not any(again in path for path in corpus.clips["path"])
    (tmp_path / again / GOOD[0]).write_bytes(b"another recording")
    (said,) = told("ravdess", tmp_path)
    assert "has the clip_id '03-01-06-01-02-01-12'" in said
