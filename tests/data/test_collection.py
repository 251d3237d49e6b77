"""Recordings that somebody brings: what is kept of them, what is refused, and that nothing lands elsewhere."""

import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from components.clips.facts import measured
from interp_core.data import collection as made_of
from interp_core.data.archive import Caps
from interp_core.data.clips import ClipLimits, file_digest
from interp_core.data.collection import Upload
from interp_core.data.manifest import read_manifest
from interp_core.data.pairs import build_pairs, parse_kinds
from interp_core.data.room import nbytes
from interp_core.errors import InterpError
from interp_core.experiments.basis import of_clips

RATE = 16_000
LIMITS = ClipLimits(max_seconds=5)
SMALL = Caps(files=5, nbytes=1 << 20, collections=2)


def tone(seconds: float = 0.5, rate: int = RATE, channels: int = 1, level: float = 0.25) -> np.ndarray:
    wave = level * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)
    return np.stack([wave] * channels, axis=1)


def sound(name: str, samples: np.ndarray, rate: int = RATE, **how: str) -> Upload:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": Path(name).suffix[1:].upper() or "WAV", **how})
    return Upload(name, io.BytesIO(file.getvalue()))


def packed(members: dict[str, bytes], name: str = "all.zip") -> Upload:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, data in members.items():
            archive.writestr(inside, data)
    return Upload(name, io.BytesIO(file.getvalue()))


@pytest.fixture
def mine(tmp_path):
    return made_of.create(tmp_path / "data", "two voices", "me", SMALL)


def reasons(added) -> str:
    return "\n".join(f"{name}: {why}" for name, why in added.refused)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_flac_a_stereo_wav_and_an_ogg_become_a_manifest_that_the_command_line_takes(mine):
    stereo = tone(0.5, 48_000, 2)
    stereo[:, 1] = 0
    uploads = [sound("calm.flac", tone()), sound("loud.wav", stereo, 48_000), sound("soft.ogg", tone())]
    added = made_of.add(mine, uploads, SMALL, LIMITS)
    assert added.clip_ids == ("calm", "loud", "soft") and added.refused == ()
    clips = read_manifest(mine.manifest).clips
    assert [clip.clip_id for clip in clips] == ["calm", "loud", "soft"]
    info = soundfile.info(clips[1].path)
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (48_000, 1, "PCM_16", 24_000)
    samples, _ = soundfile.read(clips[1].path, dtype="int16")
    np.testing.assert_array_equal(samples, np.rint(soundfile_mean(stereo) * 32768))


def soundfile_mean(stereo: np.ndarray) -> np.ndarray:
    """What 16-bit stereo holds, mixed: the mean of its two channels, each rounded as the encoder does."""
    file = io.BytesIO()
    soundfile.write(file, stereo, 48_000, format="WAV")
    file.seek(0)
    return soundfile.read(file, dtype="float64")[0].mean(axis=1).astype(np.float32)


def test_a_16_bit_recording_comes_back_bit_for_bit(mine):
    samples = np.random.default_rng(0).integers(-32768, 32768, 8000).astype(np.int16)
    made_of.add(mine, [sound("noise.wav", samples)], SMALL, LIMITS)
    kept, _ = soundfile.read(read_manifest(mine.manifest).clips[0].path, dtype="int16")
    np.testing.assert_array_equal(kept, samples)


@pytest.mark.parametrize(
    ("upload", "says"),
    [
        (Upload("picture.wav", io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(200))), "cannot be decoded"),
        (Upload("empty.wav", io.BytesIO()), "is empty"),
        (sound("long.wav", np.zeros(8000 * 6), 8000), "longer than the 5 s limit"),
        (Upload("broken.zip", io.BytesIO(b"PK\x03\x04 not really")), "cannot be read as a zip file"),
        (packed({f"{i}.wav": b"x" for i in range(10_000)}), "holds 10000 files"),
        (packed({"bomb.wav": bytes(50 << 20)}), "unpacks to 50 MB"),
        (Upload("big.wav", io.BytesIO(bytes(2 << 20))), "more than 1 MB"),
    ],
    ids=lambda value: value.name if isinstance(value, Upload) else "",
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing_behind(mine, upload, says):
    before = everything(mine.folder.parent)
    added = made_of.add(mine, [upload], SMALL, LIMITS)
    assert says in reasons(added) and len(added.refused) == 1 and "\n" not in reasons(added)
    assert added.clip_ids == () and everything(mine.folder.parent) == before


def test_good_files_beside_bad_ones_are_kept(mine):
    bad = Upload("bad.wav", io.BytesIO(b"nothing"))
    added = made_of.add(mine, [bad, sound("good.wav", tone()), bad], SMALL, LIMITS)
    assert added.clip_ids == ("good",) and [name for name, _ in added.refused] == ["bad.wav", "bad.wav"]


def test_names_that_climb_out_of_a_zip_stay_names(mine, tmp_path):
    wav = sound("a.wav", tone()).file.read()
    hostile = {"../../evil.wav": wav, "/etc/evil.wav": wav, "a\\..\\evil.wav": wav, "__MACOSX/._evil.wav": b"x"}
    outside = everything(tmp_path)
    added = made_of.add(mine, [packed(hostile)], SMALL, LIMITS)
    assert added.clip_ids == ("evil", "evil-2", "evil-3") and added.refused == ()
    new = everything(tmp_path) - outside
    assert len(new) == 3 and all(path.startswith(f"data/{mine.folder.name}/clips/") for path in new)


@pytest.mark.parametrize(
    ("name", "clip_id"),
    [
        ("<b>bold</b>.wav", "b>"),
        ("a\u202egnp.wav", "agnp"),
        ("nul\0.wav", "nul"),
        ("line\nbreak.wav", "line break"),
        (".wav", ".wav"),
        ("x" * 300 + ".wav", "x" * 80),
    ],
)
def test_names_are_visible_text(mine, name, clip_id):
    added = made_of.add(mine, [Upload(name, sound("a.wav", tone()).file)], SMALL, LIMITS)
    assert added.clip_ids == (clip_id,)
    assert [clip.clip_id for clip in read_manifest(mine.manifest).clips] == [clip_id]


def test_the_number_of_clips_and_the_disk_are_capped(mine):
    added = made_of.add(mine, [sound(f"{i}.wav", tone(0.2)) for i in range(6)], SMALL, LIMITS)
    assert len(added.clip_ids) == 5 and "at most 5 are taken" in reasons(added)
    assert "the most here" in reasons(made_of.add(mine, [sound("more.wav", tone(0.2))], SMALL, LIMITS))
    second = made_of.create(mine.folder.parent, "second", "me", SMALL)
    long = [sound(f"{i}.wav", tone(4, RATE * 2), RATE * 2) for i in range(5)]
    added = made_of.add(second, long, SMALL, LIMITS)
    assert 0 < len(added.clip_ids) < 5 and "more than 1 MB" in reasons(added)
    assert nbytes(mine.folder.parent) <= SMALL.nbytes
    with pytest.raises(InterpError, match="2 collections are as many"):
        made_of.create(mine.folder.parent, "third", "me", SMALL)


def test_uploads_at_one_time_keep_within_the_room_of_all_and_within_a_visitors_share(tmp_path):
    caps = Caps(files=20, nbytes=200_000, collections=9, visitor=120_000)
    loud = [sound(f"{i}.wav", tone(0.5)).file.getvalue() for i in range(6)]  # 16,044 bytes each

    def bring(owner: str) -> made_of.Added:
        into = made_of.create(tmp_path, owner, owner, caps)
        return made_of.add(into, [Upload(f"{i}.wav", io.BytesIO(data)) for i, data in enumerate(loud)], caps, LIMITS)

    def of(owner: str) -> int:
        return sum(nbytes(one.folder) for one in made_of.collections(tmp_path, owner) if one.owner == owner)

    with ThreadPoolExecutor(4) as pool:
        mine = list(pool.map(bring, ["me"] * 4))
    tables = 4 * 1000  # what lies beside the recordings: the table and the name of each collection
    assert of("me") <= caps.visitor + tables and sum(len(added.clip_ids) for added in mine) == 7
    said = reasons(max(mine, key=lambda added: len(added.refused)))
    assert "one visitor's share of the room (PATCHBAY_MAX_VISITOR_MB)" in said
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(bring, ["you", "you", "she", "he"]))  # what one took up leaves room for others
    assert any(added.clip_ids for added in others) and nbytes(tmp_path) <= caps.nbytes + 2 * tables
    assert any("PATCHBAY_MAX_DATA_MB" in reasons(added) for added in others)


def test_a_visitor_who_makes_collections_at_one_time_gets_no_more_than_allowed(tmp_path):
    def make(_: int) -> bool:
        try:
            made_of.create(tmp_path, "mine", "me", SMALL)
        except InterpError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == SMALL.collections == len(made_of.collections(tmp_path, "me"))


def test_labels_beyond_any_table_are_refused_and_leave_no_recording_behind(mine, monkeypatch):
    monkeypatch.setattr(made_of, "MOST_LABELS", 300)
    labelled = Upload("a.wav", sound("a.wav", tone()).file, {"text": "x" * 400})
    with pytest.raises(InterpError, match="the labels take"):
        made_of.add(mine, [labelled], SMALL, LIMITS)
    assert not list((mine.folder / "clips").iterdir()) and mine.table().empty


def test_silent_and_clipped_recordings_are_named(mine):
    uploads = [sound("mute.wav", 0 * tone()), sound("faint.wav", tone(level=2e-4)), sound("over.wav", tone(level=3.0))]
    notes = dict(made_of.add(mine, uploads, SMALL, LIMITS).notes)
    assert notes["mute"] == "is silent" and "nearly silent" in notes["faint"] and "is clipped" in notes["over"]


def test_a_collection_is_seen_by_its_maker_until_it_is_shared(mine):
    root = mine.folder.parent
    other = made_of.create(root, "theirs", "you", SMALL)
    assert [one.name for one in made_of.collections(root, "me")] == ["two voices"]
    made_of.change(other, shared=True)
    assert [one.name for one in made_of.collections(root, "me")] == ["two voices", "theirs"]
    assert made_of.containing(root, mine.manifest) == mine and made_of.containing(root, root.parent) is None
    assert made_of.containing(root, root / "x" / ".." / mine.folder.name / "clips.csv") == mine


def test_a_folder_that_is_no_collection_is_passed_over(mine):
    (mine.folder.parent / "stray").mkdir()
    (mine.folder / made_of.ABOUT).write_text("{broken")
    assert made_of.collections(mine.folder.parent, "me") == []


def test_labels_are_kept_and_a_row_that_is_gone_takes_its_recording_along(mine):
    made_of.add(mine, [sound("a.wav", tone()), sound("b.wav", tone(0.4))], SMALL, LIMITS)
    table = mine.table().iloc[:1].assign(speaker="ana", mood="calm")
    made_of.set_clips(mine, table)
    (clip,) = read_manifest(mine.manifest).clips
    assert clip.labels == {"speaker": "ana", "mood": "calm"}
    assert len([*(mine.folder / "clips").iterdir()]) == 1


def test_labels_that_make_no_sense_are_refused_all_at_once(mine):
    made_of.add(mine, [sound("a.wav", tone())], SMALL, LIMITS)
    before = mine.manifest.read_bytes()
    bad = pd.DataFrame({"clip_id": ["a", "a", "c"], "": ["", "", ""]})
    with pytest.raises(InterpError) as refused:
        made_of.set_clips(mine, bad)
    assert all(part in str(refused.value) for part in ("'c' is no clip", "'a' stands in two rows", "'' cannot be"))
    assert mine.manifest.read_bytes() == before


def test_labels_come_from_names():
    found = made_of.labels_from_names(["ana_hello_happy", "ben_bye_sad", "odd"], "{speaker}_{}_{mood}")
    assert found.to_dict("index")["ben_bye_sad"] == {"speaker": "ben", "mood": "sad"}
    assert found.loc["odd"].isna().all()
    for pattern in ("no field", "{a}{a}", "{a", "{clip_id}"):
        with pytest.raises(InterpError):
            made_of.labels_from_names(["x"], pattern)


def test_labels_read_off_the_names_make_pairs_of_one_text(mine):
    uploads = [sound(f"{name}.wav", tone()) for name in ("ana_Hello_happy", "ana_hello_sad", "ana_bye_sad")]
    made_of.add(mine, uploads, SMALL, LIMITS)
    rows = mine.table()
    found = made_of.labels_from_names(rows["clip_id"].tolist(), "{speaker}_{text}_{prosody_label}")
    made_of.set_clips(mine, rows.assign(**{name: found[name].tolist() for name in found}))
    read = read_manifest(mine.manifest)
    pairs = build_pairs(read.clips, parse_kinds("prosody")).pairs
    made = {(pair.recipient.clip_id, pair.donor.clip_id) for pair in pairs}
    assert made == {("ana_Hello_happy", "ana_hello_sad"), ("ana_hello_sad", "ana_Hello_happy")}
    assert any("There is no text_id" in said for said in of_clips(read, read.clips))  # what numbers rest on


def test_what_is_downloaded_can_be_dropped_again_with_its_labels(mine, tmp_path):
    made_of.add(mine, [sound("a.wav", tone()), sound("b.wav", tone(0.4))], SMALL, LIMITS)
    made_of.set_clips(mine, mine.table().assign(speaker=["ana", "ben"]))
    inside = {f"voices/{p.relative_to(mine.folder).as_posix()}": p.read_bytes() for p in mine.folder.rglob("*.*")}
    again = made_of.create(tmp_path / "elsewhere", "again", "me", SMALL)
    added = made_of.add(again, [packed(inside)], SMALL, LIMITS)
    assert [why for _, why in added.refused] == []
    kept = {clip.clip_id: clip.labels["speaker"] for clip in read_manifest(again.manifest).clips}
    assert kept == {"a": "ana", "b": "ben"}


def test_a_collection_is_deleted_whole(mine):
    made_of.add(mine, [sound("a.wav", tone())], SMALL, LIMITS)
    made_of.delete(mine)
    assert not mine.folder.exists() and made_of.collections(mine.folder.parent, "me") == []


def test_the_table_and_the_note_call_a_fault_by_the_same_name(tmp_path):
    for name, samples in (
        ("mute", 0 * tone()),
        ("faint", tone(level=2e-4)),
        ("over", tone(level=3.0)),
        ("fine", tone()),
    ):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        shown, (fault, _) = measured(str(path), file_digest(path)), made_of.fault_of(soundfile.read(path)[0])
        assert shown.fault == fault and (shown.words.endswith(fault) if fault else shown.words == "0.50 s, -15 dB")


def test_what_is_shown_of_a_recording_is_that_of_the_file_as_it_is_though_its_time_is_set_back(tmp_path):
    path = tmp_path / "one.wav"
    soundfile.write(path, tone(), RATE, subtype="PCM_16")
    before, stat = measured(str(path), file_digest(path)), path.stat()
    soundfile.write(path, np.zeros(RATE), RATE, subtype="PCM_16")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = measured(str(path), file_digest(path))
    assert (before.seconds, after.seconds) == (0.5, 1.0) and np.isinf(after.level)
