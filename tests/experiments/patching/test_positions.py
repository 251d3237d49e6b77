"""Spans and alignment against lists of positions worked out by hand."""

import numpy as np
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.experiments.patching.positions import align_positions, check_positions, replaced_by, time_window
from interp_core.models.prompted import Prompted


def prompted(audio, clip_id="a", before=3, after=5, step=0.04):
    """A clip of `audio` positions behind `before` and in front of `after` text positions; the last is the readout."""
    n_pos = before + audio + after
    zeros = torch.zeros(n_pos)
    return Prompted(clip_id, clip_id, {}, zeros[:, None], zeros.long(), (before, before + audio), step)


SHORT, LONG = prompted(5, "short"), prompted(7, "long")  # 13 and 15 positions; audio 3-7 and 3-9


@pytest.mark.parametrize(
    "a, b, positions, align, expected, source, covered",
    [
        (SHORT, LONG, "audio", "truncate", [3, 4, 5, 6, 7], [3, 4, 5, 6, 7], 1),
        (LONG, SHORT, "audio", "truncate", [3, 4, 5, 6, 7], [3, 4, 5, 6, 7], 5 / 7),
        (SHORT, LONG, "audio", "resample", [3, 4, 5, 6, 7], [3, 4.5, 6, 7.5, 9], 1),
        (LONG, SHORT, "audio", "resample", [3, 4, 5, 6, 7, 8, 9], [3 + i * 4 / 6 for i in range(7)], 1),
        (SHORT, LONG, "prefix", "truncate", [0, 1, 2], [0, 1, 2], 1),
        (SHORT, LONG, "question", "truncate", [8, 9, 10, 11], [10, 11, 12, 13], 1),
        (LONG, SHORT, "question", "resample", [10, 11, 12, 13], [8, 9, 10, 11], 1),
        (SHORT, LONG, "last", "truncate", [12], [14], 1),
        (SHORT, LONG, "all", "truncate", list(range(13)), [*range(8), 10, 11, 12, 13, 14], 1),
        (LONG, SHORT, "all", "truncate", [*range(8), *range(10, 15)], list(range(13)), 13 / 15),
        # Seconds of 40 ms a position: 0.04-0.12 s are the second and third audio position of either clip.
        (SHORT, LONG, "0.04-0.12", "truncate", [4, 5], [4, 5], 1),
        (LONG, SHORT, "0.04-0.12", "truncate", [4, 5], [4, 5], 1),
        (LONG, SHORT, "0.12-0.28", "truncate", [6, 7], [6, 7], 2 / 4),  # B ends at 0.20 s
        (SHORT, LONG, "0.12-0.28", "truncate", [6, 7], [6, 7], 2 / 4),  # A does
        (SHORT, LONG, "0-9", "truncate", [3, 4, 5, 6, 7], [3, 4, 5, 6, 7], 5 / 225),
        # The same fraction: where in B those positions of A lie once B is stretched over all of A.
        (SHORT, LONG, "0.04-0.12", "resample", [4, 5], [4.5, 6], 1),
        (LONG, SHORT, "0.16-0.28", "resample", [7, 8, 9], [3 + i * 4 / 6 for i in (4, 5, 6)], 1),
        (LONG, SHORT, "0.09-0.1", "truncate", [5], [5], 1),  # shorter than a position: the one nearest to its start
    ],
)
def test_a_span_takes_these_positions_from_those(a, b, positions, align, expected, source, covered):
    found = align_positions(a, b, positions, align)
    assert found.positions.tolist() == expected
    np.testing.assert_allclose(found.source.tolist(), source, atol=1e-12)
    assert found.source.dtype == torch.float64
    assert found.covered == pytest.approx(covered)


def test_a_resampled_window_is_the_same_part_of_the_resampled_whole():
    whole = align_positions(LONG, SHORT, "audio", "resample")
    part = align_positions(LONG, SHORT, "0.08-0.2", "resample")
    assert part.positions.tolist() == whole.positions[2:5].tolist()
    torch.testing.assert_close(part.source, whole.source[2:5])
    assert (part.source[0] - part.positions[0]).abs() > 0.1  # control: truncation would take it from the same place


@pytest.mark.parametrize("positions", ["audio", "question", "last", "prefix", "all", "0-0.2", "0.01-0.3"])
@pytest.mark.parametrize("align", ["truncate", "resample"])
@pytest.mark.parametrize("lengths", [(1, 9), (9, 1), (4, 4), (6, 11), (11, 6)])
def test_positions_rise_and_come_from_the_same_part_of_the_donor(positions, align, lengths):
    a, b = (prompted(n) for n in lengths)
    found = align_positions(a, b, positions, align)
    assert (found.positions.diff() > 0).all() and (found.source.diff() >= 0).all()
    inside_a = (found.positions >= a.audio[0]) & (found.positions < a.audio[1])
    inside_b = (found.source >= b.audio[0]) & (found.source <= b.audio[1] - 1)
    assert torch.equal(inside_a, inside_b)
    assert 0 < found.covered <= 1
    alike = align_positions(a, a, positions, align)
    torch.testing.assert_close(alike.source, alike.positions.double())


@pytest.mark.parametrize(
    "positions, align, said",
    [
        ("middle", "truncate", "positions 'middle' is none of audio, question, last, prefix, all"),
        ("0.5-0.2", "truncate", "positions '0.5-0.2' is none of"),
        ("0.2-0.2", "truncate", "time window like 0.5-1.2"),
        ("-1-0.2", "truncate", "positions '-1-0.2'"),
        ("", "truncate", "positions ''"),
        ("audio", "stretch", "align 'stretch' is neither truncate nor resample"),
    ],
)
def test_a_span_or_an_alignment_without_meaning_is_refused(positions, align, said):
    with pytest.raises(InterpError, match=said):
        check_positions(positions, align)
    with pytest.raises(InterpError, match=said):
        align_positions(SHORT, LONG, positions, align)


def test_a_window_behind_the_end_names_the_clips_and_their_length():
    for align in ("truncate", "resample"):
        with pytest.raises(InterpError, match=r"0\.2-0\.3 s lies behind the end of clip 'short'.*\(0\.20 s\)"):
            align_positions(SHORT, LONG, "0.2-0.3", align)
        with pytest.raises(InterpError, match="7-8.5 s lies behind the end"):
            align_positions(SHORT, LONG, "7-8.5", align)
    with pytest.raises(InterpError, match="behind the end"):
        align_positions(LONG, SHORT, "0.2-0.28", "truncate")
    assert align_positions(LONG, SHORT, "0.2-0.28", "resample").positions.tolist() == [8, 9]  # by fraction it is there


def test_texts_of_different_length_are_refused():
    longer_question = prompted(5, "other", after=6)
    with pytest.raises(InterpError, match="'short' and 'other' have 4 and 5 text positions"):
        align_positions(SHORT, longer_question, "question")
    with pytest.raises(InterpError, match="3 and 4 text positions there; give both the same prompt"):
        align_positions(SHORT, prompted(5, "other", before=4), "all")


def test_a_window_reads_as_seconds():
    assert time_window(" 0.5 - 1.25 ") == (0.5, 1.25)
    assert time_window("audio") is None and time_window("2-1") is None


@pytest.mark.parametrize("a, b", [(SHORT, LONG), (LONG, SHORT)])
@pytest.mark.parametrize("align", ["truncate", "resample"])
@pytest.mark.parametrize("window", ["0-0.04", "0.04-0.12", "0.09-0.1", "0.11-9"])
def test_what_a_window_is_said_to_replace_is_what_is_replaced(a, b, align, window):
    said, found = replaced_by(a, b, time_window(window), align), align_positions(a, b, window, align)
    assert list(range(said.first, said.stop)) == (found.positions - a.audio[0]).tolist()
    assert said.of == a.audio[1] - a.audio[0]
    assert said.seconds == (pytest.approx(said.first * 0.04), pytest.approx(said.stop * 0.04))


def test_a_window_without_an_end_is_none():
    assert time_window("0-" + "9" * 400) is None
    assert time_window("0-" + "9" * 4) == (0, 9999)
    with pytest.raises(InterpError, match="nor a time window"):
        check_positions("0-" + "9" * 400, "truncate")
