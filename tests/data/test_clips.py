"""Decoding and measuring: bad files are named with what to do, and the numbers agree with closed forms."""

import os
import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from interp_core.data.clips import BadAudio, Clip, ClipLimits, acoustics, file_digest, read_audio
from interp_core.errors import InterpError

RATE = 16000


def sine(hz: float, seconds: float = 2.0, amplitude: float = 0.5, rate: int = RATE) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def refusal(path: Path, limits: ClipLimits | None = None) -> str:
    with pytest.raises(InterpError) as caught:
        read_audio(path, RATE, limits)
    assert str(path) in str(caught.value)
    return str(caught.value)


def band_limited_stereo(rng: np.random.Generator) -> np.ndarray:
    """[96000, 2] at 48 kHz, unlike channels, all energy below 6 kHz so that both resamplers can keep it."""
    noise = rng.standard_normal((32000, 2)) * 0.1
    return resample_poly(resample_poly(noise, 1, 4), 12, 1)[:96000]


def test_stereo_48_khz_becomes_the_mono_16_khz_signal_of_an_independent_resampler(tmp_path: Path) -> None:
    stereo = band_limited_stereo(np.random.default_rng(0))
    heard = read_audio(write(tmp_path / "a.wav", stereo, 48000), RATE)
    expected = resample_poly(stereo.mean(axis=1), 1, 3)
    assert heard.dtype == np.float32 and heard.shape == expected.shape
    assert np.corrcoef(heard, expected)[0, 1] > 0.999
    assert np.abs(heard[500:-500] - expected[500:-500]).max() < 0.02 * np.abs(expected).max()
    left_only = resample_poly(stereo[:, 0], 1, 3)  # control: taking one channel for the mean must be seen
    assert np.corrcoef(heard, left_only)[0, 1] < 0.9


def test_a_clip_at_the_models_rate_is_passed_through_bit_by_bit(tmp_path: Path) -> None:
    samples = (np.random.default_rng(0).standard_normal(RATE) * 0.1).astype(np.float32)
    assert np.array_equal(read_audio(write(tmp_path / "a.wav", samples), RATE), samples)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_compressed_and_other_formats_hold_the_same_sound(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    soundfile.write(path, sine(440.0), RATE)
    heard = read_audio(path, RATE)
    assert len(heard) == pytest.approx(2 * RATE, abs=2000)  # MP3 pads its ends
    assert acoustics(heard, RATE).f0_median_hz == pytest.approx(440, rel=0.01)


def test_a_missing_file_a_folder_and_an_empty_file_are_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.wav").endswith("no.wav does not exist; fix the path.")
    assert refusal(tmp_path) == f"{tmp_path} is a folder; give an audio file."
    (tmp_path / "empty.wav").touch()
    assert refusal(tmp_path / "empty.wav").endswith("empty.wav is empty (0 bytes); replace it or leave it out.")
    assert "does not exist" in refusal(write(tmp_path / "a.wav", sine(200)) / "b.wav")


def test_a_named_pipe_and_a_loop_of_links_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert refusal(tmp_path / "pipe.wav").endswith("pipe.wav is not a regular file; give an audio file.")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    assert "cannot be opened (Too many levels of symbolic links)" in refusal(tmp_path / "loop.wav")
    assert "cannot be opened (File name too long)" in refusal(tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.raw", "notes.txt"])
def test_text_under_an_audio_name_is_refused_with_the_decoders_reason(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("this is no audio " * 100)
    message = refusal(path)
    assert "cannot be decoded (" in message and message.endswith("; convert it to WAV or FLAC.")
    assert "does not exist" not in message


def test_a_compressed_file_that_was_cut_off_is_not_taken_for_a_short_clip(tmp_path: Path) -> None:
    for name in ("a.mp3", "a.flac"):
        path = tmp_path / name
        soundfile.write(path, np.random.default_rng(0).standard_normal(4 * RATE) * 0.1, RATE)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        message = refusal(path)
        assert "is cut off: its header tells of 4.0 s" in message or "lost sync" in message


def test_clips_too_short_and_too_long_are_refused_with_their_seconds(tmp_path: Path) -> None:
    assert "holds 0 samples" in refusal(write(tmp_path / "none.wav", np.zeros(0)))
    short = refusal(write(tmp_path / "short.wav", np.zeros(160)))
    assert short.endswith("short.wav lasts 0.01 s, shorter than the 0.1 s minimum; leave it out.")
    long = refusal(write(tmp_path / "long.wav", np.zeros(round(41.2 * 8000)), 8000))
    assert long.endswith("lasts 41.2 s, longer than the 30 s limit; cut it or raise --max-seconds.")
    assert "lasts 30.0005 s, longer than the 30 s" in refusal(write(tmp_path / "hair.wav", np.zeros(60001), 2000))


def test_limits_include_both_ends_and_can_be_moved(tmp_path: Path) -> None:
    assert len(read_audio(write(tmp_path / "a.wav", np.zeros(1600)), RATE)) == 1600
    assert len(read_audio(write(tmp_path / "b.wav", np.zeros(30 * 8000), 8000), 8000)) == 240000
    longer = write(tmp_path / "c.wav", np.zeros(31 * 8000), 8000)
    assert len(read_audio(longer, 8000, ClipLimits(max_seconds=31))) == 31 * 8000
    with pytest.raises(InterpError, match="0 < min_seconds <= max_seconds"):
        ClipLimits(min_seconds=2, max_seconds=1)


def test_an_hour_long_header_is_refused_without_decoding_the_hour(tmp_path: Path) -> None:
    path = write(tmp_path / "hour.wav", np.zeros(3600 * 8000, dtype=np.int16), 8000, "PCM_16")
    start = time.perf_counter()
    assert "lasts 3600.0 s" in refusal(path)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_counted_and_located(tmp_path: Path, value: float) -> None:
    samples = np.stack([sine(200), sine(300)], axis=1)
    samples[[8000, 9000, 9001], [0, 1, 1]] = value
    message = refusal(write(tmp_path / "a.wav", samples))
    assert message.endswith("holds 3 NaN or infinite samples of 32000, the first at 0.500 s; export it again.")


def test_samples_that_resampling_would_turn_into_nan_are_refused_and_integers_in_floats_are_read(
    tmp_path: Path,
) -> None:
    samples = np.zeros((RATE, 2), dtype=np.float32)
    samples[10] = 3e38, 3e38
    message = refusal(write(tmp_path / "loud.wav", samples, 44100))
    assert message.endswith("holds samples up to 3.0e+38, where full scale is 1; export it again.")
    whole = write(tmp_path / "int32.wav", np.full((RATE, 2), -(2.0**31), dtype=np.float32), 44100)
    assert np.isfinite(read_audio(whole, RATE)).all()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_file_without_permission_is_refused_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "secret.wav", sine(200))
    path.chmod(0)
    if os.geteuid() != 0:
        assert "permission denied; give this user read permission" in refusal(path)
        return
    # Root may read everything, so the check runs in a process that has become nobody. It enters the folder first:
    # the folders above it are root's own.
    tmp_path.chmod(0o755)
    code = (
        "import os, sys; from interp_core.data.clips import read_audio\n"
        "os.chdir(sys.argv[1]); os.setgid(65534); os.setuid(65534)\n"
        "try: read_audio('secret.wav', 16000)\n"
        "except ValueError as error: sys.stdout.write(type(error).__name__ + ': ' + str(error))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if "Operation not permitted" in done.stderr:
        pytest.skip("this root may not become another user")
    assert done.stdout == "BadAudio: secret.wav cannot be read: permission denied; give this user read permission."


def test_digest_is_sha256_of_the_bytes_and_clips_equal_by_id_and_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    digest = file_digest(tmp_path / "abc")
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    here, there = (Clip("a", Path(p), {"x": p}, digest) for p in ("/here", "/there"))
    assert here == there and hash(here) == hash(there)
    assert here != Clip("b", Path("/here"), {}, digest) and here != Clip("a", Path("/here"), {}, "0")
    assert here.label("x") == "/here" and here.label("y") is None


def test_a_refusal_survives_the_way_home_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(BadAudio("a.wav", "is odd")))
    assert (str(error), error.reason) == ("a.wav is odd.", "is odd")


@pytest.mark.parametrize("hz", [80.0, 123.0, 220.0, 440.0])
def test_acoustics_of_a_sine_are_its_closed_forms(hz: float) -> None:
    found = acoustics(sine(hz, 1.5, 0.4), RATE)
    assert found.duration_s == 1.5
    assert found.f0_median_hz == pytest.approx(hz, rel=0.01)
    assert found.rms == pytest.approx(0.4 / np.sqrt(2), rel=1e-3)
    assert found.zero_crossing_rate == pytest.approx(2 * hz / RATE, rel=0.02)
    assert found.spectral_centroid_hz == pytest.approx(hz, rel=0.01)


def test_acoustics_of_white_noise_are_unvoiced_and_centred_at_a_quarter_of_the_rate() -> None:
    found = acoustics(np.random.default_rng(0).standard_normal(2 * RATE) * 0.1, RATE)
    assert np.isnan(found.f0_median_hz)
    assert found.rms == pytest.approx(0.1, rel=0.02)
    assert found.zero_crossing_rate == pytest.approx(0.5, abs=0.01)
    assert found.spectral_centroid_hz == pytest.approx(RATE / 4, rel=0.02)


def test_f0_is_the_voices_even_when_the_fundamental_is_missing_or_noise_and_pauses_surround_it() -> None:
    time_s = np.arange(RATE) / RATE
    rng = np.random.default_rng(0)
    buzz = sum(np.sin(2 * np.pi * 150 * k * time_s) / k for k in range(3, 20)) * 0.2
    hiss, pause = rng.standard_normal(RATE) * 0.05, np.zeros(2 * RATE)
    assert acoustics(np.concatenate([pause, hiss, buzz, pause]), RATE).f0_median_hz == pytest.approx(150, rel=0.01)


def test_a_quiet_hum_and_a_constant_offset_are_not_taken_for_the_voice() -> None:
    voice, hum = sine(150, 1.0), sine(300, 3.0, 0.01)
    assert acoustics(np.concatenate([voice, hum]), RATE).f0_median_hz == pytest.approx(150, rel=0.01)
    hiss = np.random.default_rng(0).standard_normal(RATE) * 0.05
    assert np.isnan(acoustics(hiss + 0.5, RATE).f0_median_hz)


def test_pauses_and_level_leave_the_spectral_centroid_alone() -> None:
    tone = sine(1000, 1.0)
    alone = acoustics(tone, RATE).spectral_centroid_hz
    padded = acoustics(np.concatenate([np.zeros(4 * RATE), tone * 0.01]), RATE).spectral_centroid_hz
    assert padded == pytest.approx(alone, rel=0.05)  # the onset is a click, the pauses are not to count


def test_silence_and_a_constant_have_no_pitch_and_cause_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silence = acoustics(np.zeros(RATE), RATE)
        constant = acoustics(np.full(RATE, 0.3), RATE)
        blip = acoustics(np.zeros(2), RATE)
    assert silence.rms == silence.zero_crossing_rate == 0 and silence.duration_s == 1
    assert all(np.isnan(found.f0_median_hz) for found in (silence, constant, blip))
    assert np.isnan(silence.spectral_centroid_hz) and constant.rms == pytest.approx(0.3)


def test_acoustics_refuse_what_is_not_one_finite_signal() -> None:
    for samples in (np.zeros((2, 100)), np.zeros(1), np.array([0.0, np.nan, 0.0])):
        with pytest.raises(InterpError, match="mono and finite"):
            acoustics(samples, RATE)


def test_acoustics_of_two_seconds_take_less_than_60_ms() -> None:
    samples = sine(150)
    acoustics(samples, RATE)  # the first call compiles
    times = []
    for _ in range(5):
        start = time.perf_counter()
        acoustics(samples, RATE)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.06
