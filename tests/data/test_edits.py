"""Edits of a sound: written in one way, made with the dose that is asked for, and made the same in every process."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from interp_core.data.clips import Clip, ClipLimits, acoustics, file_digest, read_audio, rms
from interp_core.data.edit_measures import measured, relative_rate
from interp_core.data.edits import KNOBS, apply, clip_named, clip_seconds, edited, parse_edit, read_clip
from interp_core.errors import InterpError

RATE = 16_000


def voice(hz: float = 150.0, seconds: float = 1.5) -> np.ndarray:
    """A harmonic tone that swells four times, with pauses, float32."""
    time = np.arange(int(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 12))
    beats = np.clip(np.sin(2 * np.pi * 3 * time + time**2), 0, None)
    return (0.1 * tone * beats).astype(np.float32)


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    soundfile.write(path := tmp_path / "a.wav", voice(), RATE, subtype="FLOAT")
    return Clip("a", path, {"speaker": "s1"}, file_digest(path))


def made(text: str, samples: np.ndarray, rate: int = RATE) -> np.ndarray:
    return apply(parse_edit(text), samples, rate, seed="x")


@pytest.mark.parametrize(
    ("given", "text", "curve", "dose"),
    [
        ("pitch=4", "pitch=+4", "pitch", 4),
        (" pitch = -4.50 ", "pitch=-4.5", "pitch", -4.5),
        ("pitch=-0", "pitch=0", "pitch", 0),
        ("rate=1.20", "rate=1.2", "rate", 1.2),
        ("level=+6", "level=+6", "level", 6),
        ("flat", "flat", "flat", 1),
        ("flat=1", "flat", "flat", 1),
        ("flat=0.5", "flat=0.5", "flat", 0.5),
        ("noise=10", "noise=10", "noise", 10),
        ("pink=-5", "pink=-5", "pink", -5),
        ("band=300-3400", "band=300-3400", "band", 3100),
        ("codec=mp3", "codec=mp3:0.5", "codec mp3", 0.5),
        ("codec=vorbis:0.9", "codec=vorbis:0.9", "codec vorbis", 0.9),
    ],
)
def test_an_edit_is_written_in_one_way_however_it_was_given(given, text, curve, dose):
    edit = parse_edit(given)
    assert (edit.text, edit.curve, edit.dose) == (text, curve, dose)
    assert parse_edit(edit.text) == edit


@pytest.mark.parametrize("text", ["silence", "codec=mulaw"])
def test_an_edit_without_a_dose_is_equal_to_the_same_edit(text):
    edit = parse_edit(text)
    assert np.isnan(edit.dose) and parse_edit(text) == edit and len({edit, parse_edit(text)}) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("pitsch=4", "unknown edit 'pitsch' in 'pitsch=4'; did you mean 'pitch'?"),
        ("xyz", "give pitch=+4, rate=1.2"),
        ("pitch", "give a dose of -24 to 24 semitones, like pitch=+4."),
        ("pitch=", "semitones"),
        ("pitch=25", "-24 to 24"),
        ("pitch=nan", "semitones"),
        ("pitch=1e1", "semitones"),
        ("rate=0", "0.25 to 4 times as fast"),
        ("level=+41", "-80 to 40 dB"),
        ("flat=2", "or none for all of it"),
        ("band=300", "its two ends in Hz, the lower one first"),
        ("band=3400-300", "the lower one first"),
        ("codec=opus", "mp3, vorbis or mulaw"),
        ("codec=mp3:1", "0 to 0.99"),
        ("codec=mp3:", "mp3, vorbis"),
        ("codec=mulaw:0.5", "mp3, vorbis or mulaw"),
        ("silence=1", "it without a dose"),
    ],
)
def test_a_dose_that_cannot_be_is_refused_in_one_sentence_with_what_to_give(given, said):
    with pytest.raises(InterpError) as caught:
        parse_edit(given)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_every_knobs_example_is_one():
    assert [parse_edit(knob.example).knob for knob in KNOBS.values()] == list(KNOBS)


@pytest.mark.parametrize("text", ["pitch=0", "level=0", "rate=1"])
def test_an_edit_of_no_dose_gives_the_same_samples(text, clip):
    assert np.array_equal(read_clip(edited(clip, parse_edit(text)), RATE), read_audio(clip.path, RATE))


@pytest.mark.parametrize("semitones", [4, -5])
def test_a_shifted_pitch_is_measured_to_be_shifted_by_so_many_semitones_and_nothing_else_is_slower(semitones):
    own = voice()
    shifted = made(f"pitch={semitones}", own)
    before, after = acoustics(own, RATE), acoustics(shifted, RATE)
    assert 12 * np.log2(after.f0_median_hz / before.f0_median_hz) == pytest.approx(semitones, abs=0.1)
    assert len(shifted) == len(own) and rms(shifted) == pytest.approx(rms(own), rel=1e-5)
    found = measured(parse_edit(f"pitch={semitones}"), own, shifted, RATE, before, after)
    assert found["rate_after"] == pytest.approx(1, abs=0.011)
    assert found["also_moved"].startswith("centroid ") and "F0" not in found["also_moved"]


@pytest.mark.parametrize("rate", [0.8, 1.25])
def test_a_faster_clip_is_measured_to_be_as_much_faster_at_its_own_pitch_and_level(rate):
    own = voice()
    faster = made(f"rate={rate}", own)
    assert len(faster) == pytest.approx(len(own) / rate, abs=2)
    assert relative_rate(own, faster, RATE) == pytest.approx(rate, rel=0.03)
    found = measured(parse_edit(f"rate={rate}"), own, faster, RATE, acoustics(own, RATE), acoustics(faster, RATE))
    assert found["also_moved"] == "" and found["f0_change"] == pytest.approx(0, abs=0.01)


def test_a_level_is_moved_by_exactly_so_many_db():
    own = voice()
    assert 20 * np.log10(rms(made("level=-6", own)) / rms(own)) == pytest.approx(-6, abs=1e-5)
    assert np.abs(made("level=+30", own)).max() == pytest.approx(np.abs(own).max() * 10**1.5, rel=1e-6)  # not cut off
    found = measured(parse_edit("level=-6"), own, made("level=-6", own), RATE, *[acoustics(own, RATE)] * 2)
    assert found["also_moved"] == ""


@pytest.mark.parametrize(("text", "slope"), [("noise=10", 0.0), ("pink=-3", -1.0)])
def test_noise_is_added_at_the_ratio_that_is_asked_for_and_has_its_colour(text, slope):
    own = voice(seconds=4)
    noise = made(text, own).astype(np.float64) - own
    assert 20 * np.log10(rms(own) / rms(noise)) == pytest.approx(parse_edit(text).dose, abs=1e-3)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    low, high = (power[(hertz > f) & (hertz < 2 * f)].mean() for f in (200, 3200))
    assert np.log10(high / low) / np.log10(16) == pytest.approx(slope, abs=0.1)


def test_all_doses_add_one_noise_and_another_recording_gets_another():
    own = voice()
    quiet, loud = (made(text, own).astype(np.float64) - own for text in ("noise=20", "noise=0"))
    assert np.corrcoef(quiet, loud)[0, 1] > 0.9999
    other = apply(parse_edit("noise=0"), own, RATE, seed="y") - own
    assert abs(np.corrcoef(loud, other)[0, 1]) < 0.05


def test_a_band_leaves_what_is_inside_and_takes_what_is_outside():
    own = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32) * 0.1
    hertz = np.fft.rfftfreq(len(own), 1 / RATE)

    def gain(text: str, low: float, high: float) -> float:
        inside = (hertz > low) & (hertz < high)
        before, after = (np.abs(np.fft.rfft(x)[inside]) ** 2 for x in (own, made(text, own)))
        return float(10 * np.log10(after.mean() / before.mean()))

    assert gain("band=300-3400", 500, 3000) == pytest.approx(0, abs=0.2)
    assert max(gain("band=300-3400", 0, 150), gain("band=300-3400", 5000, 8000)) < -40
    assert gain("band=0-1000", 10, 800) == pytest.approx(0, abs=0.2) and gain("band=0-1000", 1600, 8000) < -40


@pytest.mark.parametrize("text", ["codec=mp3:0.2", "codec=vorbis:0.2", "codec=mulaw"])
def test_a_codec_gives_the_sound_back_in_place_with_an_error_that_grows_with_the_compression(text):
    own = voice()

    def error(text: str) -> float:
        return rms(made(text, own).astype(np.float64) - own) / rms(own)

    assert len(made(text, own)) == len(own) and 1e-4 < error(text) < 0.12
    if "mulaw" not in text:
        assert error(text.replace("0.2", "0.9")) > 1.5 * error(text)


def test_silence_is_silence_as_long_and_loses_what_there_was():
    own = voice()
    assert not made("silence", own).any() and len(made("silence", own)) == len(own)
    silent = measured(parse_edit("silence"), own, 0 * own, RATE, acoustics(own, RATE), acoustics(0 * own, RATE))
    assert silent["level_db_after"] == -np.inf and np.isnan(silent["rate_after"]) and silent["also_moved"] == ""


def test_f0_is_flattened_by_world_and_the_vocoder_alone_leaves_it():
    pytest.importorskip("pyworld", reason="the optional extra [world] is not installed")
    time = np.arange(2 * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(160 + 40 * np.sin(2 * np.pi * 1.5 * time)) / RATE
    own = (0.05 * sum(np.sin(k * phase) / k for k in range(1, 15))).astype(np.float32)

    def spread(text: str) -> float:
        return measured(parse_edit(text), own, made(text, own), RATE, acoustics(own, RATE), acoustics(own, RATE))[
            "f0_spread_st_after"
        ]

    assert spread("flat") < 0.2 and spread("flat=0") > 4
    assert spread("flat=0.5") == pytest.approx(spread("flat=0") / 2, rel=0.15)
    centre = acoustics(own, RATE).f0_median_hz
    assert acoustics(made("flat", own), RATE).f0_median_hz == pytest.approx(centre, rel=0.02)


def test_without_world_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(InterpError, match=r'pyworld is not there .* pip install -e "\.\[world\]"'):
        made("flat", voice())


@pytest.mark.parametrize(
    ("text", "samples", "rate", "said"),
    [
        ("noise=10", np.zeros(RATE, np.float32), RATE, "it holds silence"),
        ("band=300-9000", voice(), RATE, "it has no sound above 8000 Hz"),
        ("codec=mp3", voice(), 7000, "the codec does not take it at 7000 Hz"),
    ],
)
def test_what_cannot_be_done_to_a_recording_is_said_with_its_name(tmp_path, text, samples, rate, said):
    soundfile.write(path := tmp_path / "b.wav", samples, rate, subtype="FLOAT")
    copy = edited(Clip("b", path, {}, file_digest(path)), parse_edit(text))
    with pytest.raises(InterpError, match=f"clip 'b', edit:{parse_edit(text).text}: {said}"):
        read_clip(copy, RATE)


def test_a_copy_that_gets_too_long_is_refused(clip):
    with pytest.raises(InterpError, match="it then lasts 3.00 s, outside 0.1 to 2 s; give another dose"):
        read_clip(edited(clip, parse_edit("rate=0.5")), RATE, ClipLimits(max_seconds=2))
    assert clip_seconds(edited(clip, parse_edit("rate=0.5"))) == 3.0


def test_a_copy_has_a_name_that_leads_back_to_it_and_a_digest_of_recording_and_edit(clip):
    copy = edited(clip, parse_edit("pitch=4"))
    clips = {"a": clip, "b edit:odd": clip}
    assert clip_named("a edit:pitch=+4", clips) == copy and copy.clip_id == "a edit:pitch=+4"
    assert clip_named("b edit:odd", clips) is clip  # a name of the manifest is what it is
    assert clip_named("a edit:odd", clips) is None and clip_named("c edit:pitch=+4", clips) is None
    assert (copy.recording_id, copy.file_digest, copy.label("speaker")) == ("a", clip.digest, "s1")
    others = [edited(clip, parse_edit("pitch=5")), edited(Clip("a", clip.path, {}, "0" * 64), parse_edit("pitch=4"))]
    assert len({clip.digest, copy.digest, *(one.digest for one in others)}) == 4


def test_a_file_that_was_changed_is_not_edited(clip):
    copy = edited(clip, parse_edit("level=-6"))
    soundfile.write(clip.path, 0.5 * voice(), RATE, subtype="FLOAT")
    with pytest.raises(InterpError, match="was changed"):
        read_clip(copy, RATE)


def test_another_process_makes_the_same_samples(clip):
    texts = ["pitch=+4", "rate=1.2", "noise=3", "codec=mp3", "band=300-3400"]
    told = (
        "import sys, hashlib; from pathlib import Path; from interp_core.data.clips import Clip, file_digest; "
        "from interp_core.data.edits import *; p = Path(sys.argv[1]); c = Clip('a', p, {}, file_digest(p)); "
        "print(*(hashlib.sha256(read_clip(edited(c, parse_edit(t)), 16000).tobytes()).hexdigest() "
        "for t in sys.argv[2:]))"
    )
    here = [hashlib.sha256(read_clip(edited(clip, parse_edit(t)), RATE).tobytes()).hexdigest() for t in texts]
    there = subprocess.run([sys.executable, "-c", told, str(clip.path), *texts], capture_output=True, text=True)
    assert there.stdout.split() == here, there.stderr
