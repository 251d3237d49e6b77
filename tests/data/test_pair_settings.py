"""The words that name kinds of pairs, and how donors sound different from their recipients."""

import json
from pathlib import Path

import numpy as np
import pytest

from interp_core.data.clips import Acoustics, Clip
from interp_core.data.pairs import PROSODY, SEMANTIC, Pair, PairKind, acoustic_differences, parse_kinds
from interp_core.errors import InterpError


def clip(clip_id: str, **labels: str) -> Clip:
    return Clip(clip_id, Path(f"{clip_id}.wav"), labels, clip_id)


def test_kinds_are_read_from_their_setting() -> None:
    assert parse_kinds("prosody, semantic") == (PROSODY, SEMANTIC)
    assert parse_kinds("same=text_id,differ=speaker") == (PairKind("text_id~speaker", "text_id", "speaker", "speaker"),)
    assert [k.name for k in parse_kinds("same=a/b,differ=c d,prosody")] == ["a_b~c_d", "prosody"]
    edits = parse_kinds("edit:pitch=4,prosody,edit:codec=mp3:0.9,edit:flat")
    assert [k.name for k in edits] == ["edit~pitch~4", "prosody", "edit~codec~mp3~0.9", "edit~flat"]
    assert [k.edit for k in edits] == ["pitch=+4", "", "codec=mp3:0.9", "flat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prosdy", "unknown kind of pair 'prosdy' in 'prosdy'; did you mean 'prosody'?"),
        ("", "give prosody, semantic, same=COLUMN,differ=COLUMN or edit:KNOB=DOSE."),
        ("differ=x", "unknown kind of pair 'differ=x'"),
        ("same=x", "same=x in 'same=x' needs differ=COLUMN right after it."),
        ("same=x,prosody", "needs differ=COLUMN right after it."),
        ("same=x,differ=", "needs differ=COLUMN right after it."),
        ("same=x,differ=x", "same and differ are both 'x'; give two columns."),
        ("prosody,prosody", "the kind of pair 'prosody' is there more than once"),
    ],
)
def test_a_kind_that_cannot_be_read_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(InterpError) as caught:
        parse_kinds(text)
    assert message in str(caught.value)


def test_acoustic_differences_are_donor_minus_recipient_by_kind() -> None:
    clips = [
        clip("a", text_id="t", prosody_label="sad", semantic_label="x"),
        clip("b", text_id="t", prosody_label="happy", semantic_label="x"),
        clip("c", text_id="u", prosody_label="happy", semantic_label="y"),
    ]
    measured = {
        "a": Acoustics(1.0, 100.0, 0.1, 0.1, 500.0),
        "b": Acoustics(1.5, 160.0, 0.2, 0.1, 500.0),
        "c": Acoustics(3.5, float("nan"), 0.2, 0.1, 500.0),
    }
    pairs = [
        Pair("prosody-0000", "prosody", clips[0], clips[1], "happy", "prosody_label"),
        Pair("prosody-0001", "prosody", clips[0], clips[2], "happy", "prosody_label"),
        Pair("semantic-0000", "semantic", clips[2], clips[1], "x", "semantic_label"),
    ]
    found = acoustic_differences(pairs, measured)
    half_range = (2.5 - 0.5) / np.sqrt(2)  # standard deviation of two values, n - 1
    assert found["prosody"]["duration_s"] == {
        "n": 2,
        "mean": 1.5,
        "sd": pytest.approx(half_range),
        "abs_mean": 1.5,
        "abs_sd": pytest.approx(half_range),
    }
    assert found["prosody"]["f0_median_hz"] == {"n": 1, "mean": 60.0, "sd": None, "abs_mean": 60.0, "abs_sd": None}
    assert found["semantic"]["duration_s"]["mean"] == -2.0 and found["semantic"]["duration_s"]["abs_mean"] == 2.0
    assert found["semantic"]["f0_median_hz"]["n"] == 0 and found["semantic"]["f0_median_hz"]["mean"] is None
    assert json.loads(json.dumps(found))["prosody"]["pairs"] == 2
    with pytest.raises(InterpError, match="no acoustics for 1 clips of the pairs, 'c' first"):
        acoustic_differences(pairs, {k: v for k, v in measured.items() if k != "c"})
