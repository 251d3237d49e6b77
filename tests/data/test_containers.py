"""Files whose header does not say how long they are, or says more than is there."""

import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import fuzz_audio, fuzzing
from interp_core.data.clips import BadAudio, ClipLimits, read_audio, seconds_of

RATE = 16_000
SAMPLES = np.random.default_rng(0).uniform(-0.5, 0.5, 19_200).astype(np.float32)  # 1.2 s


def encoded(container: str, kind: str = "PCM_16") -> bytearray:
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE, format=container, subtype=kind)
    return bytearray(file.getvalue())


def kept(folder: Path, data: bytes, name: str = "a.wav") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def resized(data: bytearray, chunk: bytes, size: bytes) -> bytearray:
    """With another size written behind the name of a chunk."""
    at = data.index(chunk) + len(chunk)
    data[at : at + len(size)] = size
    return data


@pytest.mark.parametrize(
    ("container", "kind"),
    [("WAV", "PCM_16"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"),
     ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16")],
)  # fmt: skip
def test_a_recording_that_breaks_off_is_refused_in_every_container_that_states_its_size(
    tmp_path: Path, container: str, kind: str
) -> None:
    whole = encoded(container, kind)
    assert read_audio(kept(tmp_path, whole), RATE).shape[0] == pytest.approx(19_200, abs=600)  # ADPCM fills its block
    for share in (0.5, 0.99):
        path = kept(tmp_path, whole[: int(len(whole) * share)])
        if share == 0.99:  # 0.012 s: the last block of a sloppy writer, no loss
            assert len(read_audio(path, RATE)) > 18_000
            continue
        with pytest.raises(BadAudio, match=r"is cut off: its header tells of 1\.[23] s, 0\.[56] s are there; copy it"):
            read_audio(path, RATE)
    with pytest.raises(BadAudio, match="cut off|0 samples|cannot be decoded"):
        read_audio(kept(tmp_path, whole[:100]), RATE)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_wav_whose_size_was_never_written_is_read_to_its_end(tmp_path: Path, size: int, order: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE, format="WAV", subtype="PCM_16", endian="LITTLE" if order == "<" else "BIG")
    whole = bytearray(file.getvalue())
    assert whole[:4] == (b"RIFF" if order == "<" else b"RIFX")
    expected = read_audio(kept(tmp_path, whole), RATE)
    path = kept(tmp_path, resized(whole, b"data", struct.pack(f"{order}I", size)))
    assert np.array_equal(read_audio(path, RATE), expected) and len(expected) == 19_200
    assert seconds_of(path) == 1.2


def test_an_au_without_a_size_is_read_and_a_wav_that_is_really_empty_is_not(tmp_path: Path) -> None:
    au = encoded("AU")
    au[8:12] = bytes(4)
    assert len(read_audio(kept(tmp_path, au, "a.au"), RATE)) == 19_200
    empty = resized(encoded("WAV")[:44], b"data", bytes(4))
    for tail in (b"", b"LIST" + struct.pack("<I", 4000) + b"INFO" + bytes(3996)):
        with pytest.raises(BadAudio, match="holds 0 samples"):
            read_audio(kept(tmp_path, empty + tail), RATE)


def flac_without_total() -> bytearray:
    flac = encoded("FLAC")
    flac[21] &= 0xF0  # the upper 4 of the 36 bits of STREAMINFO that count the samples
    flac[22:26] = bytes(4)
    return flac


def test_a_flac_without_a_total_length_is_read_as_far_as_the_limit(tmp_path: Path) -> None:
    expected = read_audio(kept(tmp_path, encoded("FLAC"), "whole.flac"), RATE)
    path = kept(tmp_path, flac_without_total(), "a.flac")
    assert soundfile.info(path).frames > 2**62  # control: it does not say how long it is
    assert np.array_equal(read_audio(path, RATE), expected)
    assert seconds_of(path) == 1.2
    with pytest.raises(BadAudio, match=r"a\.flac lasts longer than the 1 s limit; cut it or raise --max-seconds\.$"):
        read_audio(path, RATE, ClipLimits(max_seconds=1))
    assert len(read_audio(path, RATE, ClipLimits(max_seconds=86_400))) == 19_200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", r"Git LFS pointer.*git lfs pull"),
        (b"/annex/objects/SHA256E-s12345--4d7a.wav\n", r"git-annex pointer.*git annex get"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
    ],
)  # fmt: skip
def test_what_stands_in_the_place_of_a_recording_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(BadAudio, match=said):
        read_audio(kept(tmp_path, content), RATE)


def test_mutated_recordings_are_read_in_full_or_refused(tmp_path: Path) -> None:
    tally = fuzzing.run(fuzz_audio.cases(tmp_path, 150, 0, measured=False))
    assert not tally.faults, str(tally)
    assert tally.counts["fine"] > 10 and tally.counts["refused"] > 10


def test_the_fuzzers_frame_tells_a_fault_from_a_refusal() -> None:
    tally = fuzzing.run([("good", lambda: None), ("bad", lambda: [][0]), ("deep", lambda: deep(10**6))])
    assert tally.counts == {"fine": 1} and [fault.split(":")[0] for fault in tally.faults] == ["bad", "deep"]
    changed = [fuzzing.mutated(bytes(range(100)), random.Random(seed)) for seed in range(50)]
    assert len(set(changed)) > 45 and changed == [
        fuzzing.mutated(bytes(range(100)), random.Random(seed)) for seed in range(50)
    ]


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
