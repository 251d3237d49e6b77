"""Which positions hold a recording, in every encoder: against lists worked by hand, with times and stretches."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from interp_core.errors import InterpError
from interp_core.experiments.patching.positions import align_positions
from interp_core.models.prompted import Prompted
from interp_core.trace.clean import prompt_clip
from tests.families.detectors import FIXED, OVER_SSL
from tests.families.subjects import CASES, Opened, tone
from tests.models.conftest import Open

NEWER = ("unispeech", "data2vec", "conformer", "w2vbert")
WAVES = [name for name in CASES if name.startswith(("wavlm", "wav2vec2", "hubert", *NEWER))]
FRAMES = {  # positions of 0.5 and 0.8 s at 16 kHz
    **dict.fromkeys(WAVES, ((0, 24), (0, 39))),  # (8000 - 400) // 320 + 1 and (12800 - 400) // 320 + 1
    **dict.fromkeys([name for name in CASES if name.startswith("whisper")], ((0, 25), (0, 40))),  # 20 ms each
    "whisper-decoder": ((0, 4), (0, 4)),  # tokens of the prompt
    # two of those frames a position, three of the bare SEW: 24 // 2 and 39 // 2
    **dict.fromkeys(("sew", "sew-weighted", "sewd", "sewd-bare"), ((0, 12), (0, 19))),
    "sew-bare": ((0, 8), (0, 13)),
    # 895 samples, then one every 384: 124, 40, 19 and 199, 65, 32 behind its three convolutions
    "moonshine-encoder": ((0, 19), (0, 32)),
    # 50 and 80 frames of the spectrogram, halved three times and rounded up
    **dict.fromkeys(("parakeet", "parakeet-bare", "parakeet-tdt"), ((0, 7), (0, 10))),
    **dict.fromkeys(("canary-encoder", "cohere-encoder"), ((0, 7), (0, 10))),
    "canary-decoder": ((0, 9), (0, 9)),
    "cohere-decoder": ((0, 10), (0, 10)),
    **dict.fromkeys(("moonshine-decoder", "speech2text-decoder", "streaming-decoder"), ((0, 1), (0, 1))),
    "streaming-encoder": ((0, 25), (0, 40)),  # 100 and 160 frames of 5 ms, halved twice
    **dict.fromkeys(("seamless-encoder", "seamless2-encoder"), ((0, 24), (0, 39))),  # 48 and 78 frames, two a position
    **dict.fromkeys(("seamless-decoder", "seamless2-decoder"), ((0, 2), (0, 2))),  # start and language
    "speecht5-encoder": ((0, 24), (0, 39)),  # as wav2vec 2.0
    "speecht5-decoder": ((0, 2), (0, 2)),  # start and space
    "speech2text-encoder": ((0, 12), (0, 20)),  # 48 and 78 frames, halved twice and rounded up
    "ast": ((2, 10), (2, 15)),  # 48 and 78 whole frames, a patch every 6th: 0, 6, … 42 and 0, … 72
    # 0.15 and 0.22 s of 40 samples a position: the rest of the quarter second is filled up
    **dict.fromkeys([name for name in CASES if name.startswith("spoof")], ((0, 60), (0, 88))),
    **dict.fromkeys([name for name in CASES if name.startswith(("clap", "msclap"))], ((0, 256), (0, 256))),
    "resnet": ((0, 576), (0, 576)),
    # 23 bands by a third of a third of what 129 taps leave of 64,600 samples
    "aasist": ((0, 23 * 21490), (0, 23 * 21490)),
    # Whole frames of 0.5 and 0.8 s; where a clip is heard again behind them, those that begin in it.
    **dict.fromkeys([name for name in OVER_SSL if name not in FIXED], ((0, 24), (0, 39))),
    **dict.fromkeys(("detector-ssl-aasist", "detector-sls"), ((0, 25), (0, 40))),
}
WHOLE = {"moonshine": 32 * 0.024, "sew": 19 * 0.04, "sewd": 19 * 0.04}
"""Whole positions alone, where they are long ones."""
N_POS = {
    "whisper": 100,
    "moonshine-decoder": 1,
    "streaming-decoder": 1,
    "speech2text-decoder": 1,
    "whisper-decoder": 4,
    "canary-decoder": 9,
    "cohere-decoder": 10,
    **dict.fromkeys(("seamless-decoder", "seamless2-decoder", "speecht5-decoder"), 2),
    "ast": 2 + 5 * 15,
    "spoof": 99,
}
N_POS |= dict.fromkeys(("detector-ssl-aasist", "detector-sls"), 201)


def test_the_span_is_the_positions_that_hold_the_recording(one: Opened) -> None:
    name = one.case.name
    short, long = FRAMES[name]
    assert one.stems["short"].audio == one.stems["twin"].audio == short
    assert one.stems["long"].audio == long
    fixed = N_POS.get(name, N_POS.get(one.case.family))
    assert [one.stems[k].n_pos for k in ("short", "long")] == ([fixed] * 2 if fixed else [short[1], long[1]])
    assert one.stems["long"].bands == ((5, 15) if name == "ast" else (1, 0))


def test_the_description_says_how_much_sound_the_span_covers(one: Opened) -> None:
    told = one.subject.describe(one.stems["long"])
    (start, stop), (bands, _) = one.stems["long"].audio, one.stems["long"].bands
    assert (told["audio_start"], told["audio_stop"]) == (start, stop)
    assert told["audio_positions"] == (stop - start) * bands
    seconds = {"clap": 2.0, "msclap": 7.0, "resnet": 0.0, "aasist": 0.0, "spoof": 0.22, **WHOLE}.get(
        one.case.family, 0.8
    )
    if one.case.part == "decoder":
        seconds = 0.0
    assert told["audio_seconds"] == pytest.approx(seconds, abs=0.025)  # clap hears a clip again and again, up to 2 s


def test_whispers_padding_is_silence_behind_the_span_and_sound_in_it(open_once: Open) -> None:
    """The positions are where the spectrogram changes with the clip, and no others."""
    one = open_once("whisper-classifier")
    mel = one.stems["short"].inputs["input_features"][0]  # [n_mels, frames], two a position
    silence = mel[:, -1:]
    loud = (mel - silence).abs().amax(0) > 0.05
    stop = one.stems["short"].audio[1]
    assert loud[: 2 * stop - 2].all() and not loud[2 * stop + 2 :].any()


def test_asts_bands_are_one_time_window_in_every_band_and_no_padding(open_once: Open) -> None:
    one = open_once("ast")
    a, b = one.stems["long"], one.stems["short"]
    seconds = 0.06  # 6 frames of 10 ms
    found = align_positions(a, b, "0.12-0.3")
    assert a.seconds_per_position == pytest.approx(seconds)
    assert found.positions.tolist() == [2 + 15 * band + frame for band in range(5) for frame in (2, 3, 4)]
    assert found.source.tolist() == found.positions.tolist() and found.covered == 1.0
    late = align_positions(a, b, "0.36-0.72")  # `short` has patches up to the 8th only: 0.42 s
    assert late.positions.tolist() == [2 + 15 * band + frame for band in range(5) for frame in (6, 7)]
    assert late.covered == pytest.approx(2 / 6)
    with pytest.raises(InterpError, match="lies behind the end of clip 'long' or 'short'"):
        align_positions(a, b, "0.6-0.7")
    stretched = align_positions(a, b, "0.6-0.72", "resample")  # the same fraction: 10 / 12 and 11 / 12 of 7 steps
    assert stretched.positions[:2].tolist() == [12, 13]
    assert stretched.source[:2].tolist() == pytest.approx([2 + 70 / 12, 2 + 77 / 12])
    # The patches in the span see the clip, the one behind it the extractor's padding alone.
    frames = AutoFeatureExtractor.from_pretrained(one.path)(one.samples["short"], sampling_rate=16_000)["input_values"]
    real = len(np.unique(np.asarray(frames)[0], axis=0)) - 1  # padded frames are all alike
    assert real == 48 and (b.audio[1] - b.audio[0] - 1) * 6 < real <= (b.audio[1] - b.audio[0]) * 6


def test_answers_of_ast_do_not_hear_a_patch_behind_the_last_position(open_once: Open) -> None:
    """What the time window calls band f and frame t is the token of the patch there: moving one patch moves it."""
    one = open_once("ast")
    inputs = dict(one.stems["short"].inputs)
    changed = inputs["input_values"].clone()
    changed[0, 3 * 6 + 2 : 3 * 6 + 4, 2 * 6 + 2 : 2 * 6 + 4] += 5.0  # inside patch t = 3, f = 2 and in no other
    with torch.inference_mode():
        embed = one.subject.hf.audio_spectrogram_transformer.embeddings
        moved = (embed(changed) - embed(inputs["input_values"]))[0].abs().amax(-1) > 1e-4
    assert moved.nonzero().flatten().tolist() == [2 + 15 * 2 + 3]


@pytest.mark.parametrize("name", ["wavlm-base", "whisper-encoder", "spoof-wavlm-erm"])
def test_a_time_window_is_the_same_seconds_in_both_clips(name: str, open_once: Open) -> None:
    one = open_once(name)
    a, b = one.stems["short"], one.stems["long"]
    first, stop, window = (20, 40, "0.05-0.1") if name.startswith("spoof") else (5, 15, "0.1-0.3")
    found = align_positions(a, b, window)
    assert found.positions.tolist() == list(range(first, stop)) == found.source.tolist()
    n_a, n_b = a.audio[1], b.audio[1]
    whole = align_positions(a, b, "audio", "resample")
    assert whole.positions.tolist() == list(range(n_a)) and whole.covered == 1.0
    assert whole.source[[0, 1, -1]].tolist() == pytest.approx([0, (n_b - 1) / (n_a - 1), n_b - 1])
    cut = align_positions(b, a, "audio")
    assert cut.positions.tolist() == cut.source.tolist() == list(range(n_a)) and cut.covered == n_a / n_b


@pytest.mark.parametrize(
    "name", [*WAVES[:5], "data2vec", "w2vbert", "whisper-encoder", "whisper-decoder", "ast", "spoof-wavlm-erm", "clap"]
)
@pytest.mark.parametrize("align", ["truncate", "resample"])
def test_all_positions_of_clips_of_unequal_length_are_matched(name: str, align: str, open_once: Open) -> None:
    """Front ends that fill clips up give every clip the same positions; else all there is is the recording."""
    one = open_once(name)
    a, b = one.stems["long"], one.stems["short"]
    found = align_positions(a, b, "all", align)  # type: ignore[arg-type]
    if a.n_pos == b.n_pos:
        assert found.positions.tolist() == found.source.tolist() == list(range(a.n_pos)) and found.covered == 1.0
    else:
        audio = align_positions(a, b, "audio", align)  # type: ignore[arg-type]
        assert torch.equal(found.positions, audio.positions) and torch.equal(found.source, audio.source)
        assert found.covered == audio.covered


def shortened(one: Opened, n: int) -> Prompted:
    return prompt_clip(one.subject, one.samples["short"][:n], one.prompt, "s03_click")


@pytest.mark.parametrize("name", ["wavlm-base", "wav2vec2-large", "hubert-base-weighted", "wavlm-bare", "ast"])
def test_a_clip_shorter_than_one_frame_of_25_ms_is_refused_by_name(name: str, open_once: Open) -> None:
    one = open_once(name)
    for n in (1, 150, 399):
        with pytest.raises(InterpError, match=r"^clip 's03_click' is too short for .*/model: it does not fill one"):
            shortened(one, n)
    start, stop = shortened(one, 400).audio
    assert stop - start == 1


@pytest.mark.parametrize("name", ["whisper-encoder", "spoof-wavlm-erm", "clap"])
def test_front_ends_that_fill_a_clip_up_take_any_length(name: str, open_once: Open) -> None:
    one = open_once(name)
    assert shortened(one, 1).audio == ((0, 256) if name == "clap" else (0, 1))


def test_the_longest_clip_that_is_heard_whole_is_said(open_once: Open) -> None:
    """What is longer is cut by the library without a word; the store refuses it by this number."""
    for name, seconds in (("whisper-encoder", 2.0), ("ast", 0.975), ("clap", 2.0), ("msclap", 7.0)):
        one = open_once(name)
        assert one.subject.max_seconds == pytest.approx(seconds)
        rate = one.subject.sample_rate
        fits = tone(seconds, 300, rate)
        louder = np.concatenate([fits[: -rate // 10], 2 * fits[-rate // 10 :]])  # its last tenth is heard
        keys = [prompt_clip(one.subject, samples, one.prompt, "a").embeds for samples in (fits, louder)]
        assert (keys[0] - keys[1]).abs().max() > 1e-3
    assert open_once("wavlm-base").subject.max_seconds == float("inf")


def test_clips_of_two_lengths_become_inputs_of_one_shape_exactly_where_the_subject_says_so(one: Opened) -> None:
    shapes = [
        {name: value.shape for name, value in one.subject.model_inputs(one.samples[clip], one.prompt).items()}
        for clip in ("short", "long", "twin")
    ]
    assert shapes[0] == shapes[2]
    assert (shapes[0] == shapes[1]) == one.subject.one_shape
