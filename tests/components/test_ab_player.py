"""What Python sends to the A/B player, and what it takes back."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from components.player.ab_player import PlayerClip, _valid_region, ab_player
from interp_core.data.mel import MEL_BANDS, MEL_FLOOR_DB, MEL_STEP_DB, mel_levels, pitch_marks
from interp_core.errors import InterpError

RATE = 16000


def sine(hz: float, *, seconds: float = 1.0, peak: float = 1.0, rate: int = RATE) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def clip(samples: np.ndarray, digest: str = "d", label: str = "clip", rate: int = RATE) -> PlayerClip:
    return PlayerClip(digest, label, samples, rate)


def decibels(levels: np.ndarray) -> np.ndarray:
    return MEL_FLOOR_DB + MEL_STEP_DB * levels


def run_player(script) -> dict:
    """What the browser would get from the one player of an app."""
    app = AppTest.from_function(script).run(timeout=30)
    assert not app.exception, app.exception
    return json.loads(app.get("bidi_component")[0].proto.json)


@pytest.mark.parametrize("hz", [250, 1000, 3500])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_spectrogram_is_absolute_a_full_scale_sine_is_near_0_db_at_its_own_pitch(hz, rate):
    levels, frame_seconds = mel_levels(sine(hz, rate=rate), rate)
    assert levels.dtype == np.uint8 and levels.shape[0] == MEL_BANDS
    assert levels.shape[1] * frame_seconds == pytest.approx(1.0, abs=2 * frame_seconds)
    middle = decibels(levels[:, levels.shape[1] // 2].astype(float))
    assert -5 <= middle.max() <= 1
    expected = np.interp(hz, *mark_heights(rate)) * MEL_BANDS
    assert np.argmax(middle) == pytest.approx(expected, abs=1.5)


def mark_heights(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Hz and shares of the height on a fine grid, from the mel scale's definition (Slaney): linear, then log."""
    hz = np.linspace(0, min(8000, rate / 2), 2000)
    mel = np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4))
    return hz, mel / mel[-1]


def test_half_the_amplitude_is_6_db_less_so_two_clips_compare():
    loud, _ = mel_levels(sine(1000), RATE)
    quiet, _ = mel_levels(sine(1000, peak=0.5), RATE)
    difference = decibels(loud[:, 50].astype(float)).max() - decibels(quiet[:, 50].astype(float)).max()
    assert difference == pytest.approx(6.02, abs=MEL_STEP_DB)


def test_pitch_marks_stand_where_the_mel_scale_puts_them_and_end_at_half_the_rate():
    hz, heights = mark_heights(RATE)
    marks = {mark["text"]: mark["share"] for mark in pitch_marks(RATE)}
    assert marks["0 Hz"] == 0 and marks["8 kHz"] == pytest.approx(1)
    assert marks["2 kHz"] == pytest.approx(np.interp(2000, hz, heights), abs=1e-3)
    assert "8 kHz" not in {mark["text"] for mark in pitch_marks(8000)}


def test_a_long_clip_keeps_its_spectrogram_small():
    levels, frame_seconds = mel_levels(np.zeros(30 * RATE, dtype=np.float32), RATE)
    assert levels.shape[1] <= 1501 and levels.shape[1] * frame_seconds == pytest.approx(30, abs=0.1)
    assert levels.max() == 0


def app_with_loud_and_quiet() -> None:
    import numpy as np

    from components.player.ab_player import PlayerClip, ab_player

    t = np.arange(8000) / 16000
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    a = PlayerClip("quiet", "<b>quiet</b>", 0.1 * tone, 16000)
    b = PlayerClip("over", "over", np.float32(1.25) * tone, 16000)
    ab_player(a, b, key="player", window=(0.1, 0.2))


def test_the_browser_gets_every_sample_at_its_own_level():
    data = run_player(app_with_loud_and_quiet)
    tone = sine(440, seconds=0.5)
    for sent, peak in zip(data["clips"], (0.1, 1.25), strict=True):
        integers = np.frombuffer(base64.b64decode(sent["pcm"]), dtype="<i2")
        got = integers / 32767 * sent["fullScale"]
        np.testing.assert_allclose(got, peak * tone, atol=2e-5 * sent["fullScale"])
        assert sent["rms"] == pytest.approx(peak / np.sqrt(2), rel=1e-3)
        mel = sent["mel"]
        assert len(base64.b64decode(mel["levels"])) == mel["bands"] * mel["frames"]
    assert data["clips"][0]["label"] == "<b>quiet</b>"
    assert data["window"] == {"start": 0.1, "end": 0.2, "label": "patched window"}


def app_with_one_digest_and_two_lengths() -> None:
    import numpy as np

    from components.player.ab_player import PlayerClip, ab_player

    whole = np.linspace(-1, 1, 8000, dtype=np.float32)
    ab_player(
        PlayerClip("same file", "whole", whole, 16000), PlayerClip("same file", "cut", whole[:4000], 16000), key="p"
    )


def test_one_file_cut_in_two_ways_is_two_sounds():
    data = run_player(app_with_one_digest_and_two_lengths)
    assert [len(base64.b64decode(sent["pcm"])) for sent in data["clips"]] == [16000, 8000]
    assert data["clips"][0]["digest"] != data["clips"][1]["digest"]


def test_a_region_counts_only_for_the_clips_it_was_drawn_on_and_only_if_it_is_one():
    here = {"clips": "a b", "start": 0.25, "end": 9.0}
    assert _valid_region(here, "a b", 2.0) == (0.25, 2.0)
    assert _valid_region(here, "a c", 2.0) is None
    for broken in (None, 7, {}, {**here, "start": 9.5}, {**here, "start": -1}, {**here, "end": "1"}):
        assert _valid_region(broken, "a b", 2.0) is None
    assert _valid_region({**here, "start": float("nan")}, "a b", 2.0) is None


@pytest.mark.parametrize("samples", [np.zeros((2, 5)), np.zeros(0), np.array([0, np.nan]), np.array([0, np.inf])])
def test_samples_that_cannot_be_played_are_refused_with_the_clip_s_name(samples):
    with pytest.raises(InterpError, match="'s03.wav' cannot be played"):
        clip(samples.astype(np.float32), label="s03.wav")


def test_two_rates_and_an_empty_window_are_refused():
    a, b = clip(sine(440), "a", "A.wav"), clip(sine(440, rate=8000), "b", "B.wav", rate=8000)
    with pytest.raises(InterpError, match="16000 Hz and B 'B.wav' at 8000 Hz"):
        ab_player(a, b, key="p")
    with pytest.raises(InterpError, match="must start before it ends"):
        ab_player(a, None, key="p", window=(1.0, 1.0))
