"""Own recordings on the pages: brought, labelled, patched by hand, and seen by nobody else."""

import base64
import io
import json
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest
import soundfile

from components import export, state
from components import server as running
from components.clips import labels
from interp_core.data import collection as made_of
from interp_core.data.clips import ClipLimits
from interp_core.data.manifest import read_manifest
from interp_core.errors import InterpError
from interp_core.experiments.patching.experiment import pair_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.run import patch_pair
from tests.pages.conftest import ROOT, by_key, click_point, faults, words
from tests.pages.tiny_demo import NAME, PROMPTS

PAGE, PAIRS = (str(ROOT / "pages" / name) for name in ("recordings.py", "pairs.py"))


def sound(hertz: float, seconds: float = 1.0, rate: int = 16_000, channels: int = 1, kind: str = "WAV") -> bytes:
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    file = io.BytesIO()
    soundfile.write(file, np.stack([wave] * channels, axis=1), rate, format=kind)
    return file.getvalue()


@pytest.fixture
def open_recordings(open_app):
    return lambda **parameters: open_app(**parameters).switch_page(PAGE).run()


@pytest.fixture
def two(server):
    """A manifest of two recordings without a label, of a visitor with another browser."""
    made = made_of.create(running.data_folder(), "two tones", "another browser", running.caps())
    uploads = [made_of.Upload(f"{name}.wav", io.BytesIO(sound(hz))) for name, hz in (("low", 110), ("high", 900))]
    made_of.add(made, uploads, running.caps(), ClipLimits())
    return made


def test_what_is_dropped_becomes_a_collection_and_a_link_leads_to_its_curve(open_recordings, open_app):
    at = open_recordings()
    assert faults(at) == []
    at.file_uploader[0].upload("low.flac", sound(110, kind="FLAC"), "audio/flac").run()
    at.file_uploader[0].upload("high.wav", sound(900, rate=48_000, channels=2), "audio/wav").run()
    assert "1 recording was added" in str([element.value for element in at.success])
    at.file_uploader[0].upload("picture.wav", b"\x89PNG and no sound", "audio/wav").run()
    assert any("picture" in fault and "cannot be decoded" in fault for fault in faults(at))
    (made,) = running.data_folder().glob("*/clips.csv")
    assert [clip.clip_id for clip in read_manifest(made).clips] == ["low", "high"]
    link = next(link.proto for link in at.get("page_link") if "Patch B into A" in link.proto.label)
    said = {name: values[0] for name, values in parse_qs(link.query_string).items()}
    assert link.page == "pairs" and said == {"clips": str(made), "pairs": state.BY_HAND, "a": "low", "b": "high"}
    at = open_app(**said).switch_page(PAIRS).run()
    assert faults(at) == [] and by_key(at, "plotly_chart", "hand_curve")


def test_two_clips_by_hand_are_swept_toward_the_donors_own_answer(open_app, server, two, monkeypatch):
    made_of.change(two, shared=True)
    exported = []
    monkeypatch.setattr(export, "paper", lambda name, draw: exported.append((name, draw)))
    at = open_app(clips=str(two.manifest), pairs=state.BY_HAND).switch_page(PAIRS).run()
    assert faults(at) == []
    request = PatchRequest(NAME, manifest=str(two.manifest), prompts=tuple(PROMPTS.values()), labels=demo_labels())
    low, high = read_manifest(two.manifest).clips
    engine = running.engine()
    pair = pair_by_hand(engine, request, low, high)
    records = patch_pair(engine.store(request), pair, request.filled())
    assert set(records["target"]) == set(records["donor_prediction"]), "the target is what the model says of B"
    logits = np.array(records["patched_logits"].tolist())
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = shares[:, list(request.labels).index(pair.target)]
    chart = by_key(at, "plotly_chart", "hand_curve")
    at = click_point(at, "hand_curve", "patched from B", 2)
    assert at.session_state[state.HAND_LAYER] == "1"
    drawn = next(t for t in figure(chart)["data"] if t["name"] == "patched from B")
    np.testing.assert_allclose(decoded(drawn["y"]), expected, atol=1e-6)
    name, draw = exported[-1]  # the same curve, both spectrograms and the logits, on paper
    on_paper = draw()
    curve = next(line for line in on_paper.axes[2].lines if line.get_label() == "patched from B")
    np.testing.assert_allclose(curve.get_ydata(), expected, atol=1e-6)
    assert name.endswith("low-high") and on_paper.axes[0].images and on_paper.axes[1].images and on_paper.axes[3].lines
    signed = " ".join(on_paper.get_supxlabel().split())
    assert "n = 1 pair" in signed and "seed 42" in signed and "weights " in signed and "route " in signed


def test_two_clips_by_hand_stand_on_patching_where_there_is_no_run_and_need_no_labels(open_app, two):
    made_of.change(two, shared=True)
    at = open_app(clips=str(two.manifest))
    assert "Nothing has been computed" in words(at) and "Two clips by hand" in [fold.label for fold in at.expander]
    assert state.HAND_A not in at.session_state  # nothing is computed before it is asked for
    at.session_state[state.FOLD_HAND] = True
    at = at.run()
    assert faults(at) == [] and by_key(at, "plotly_chart", "hand_curve")
    assert {at.selectbox(key=key).value for key in (state.HAND_A, state.HAND_B)} == {"low", "high"}


def test_a_page_that_needs_labels_leads_back_from_recordings_without_any_to_the_models_own_clips(open_app, two):
    made_of.change(two, shared=True)
    at = open_app(clips=str(two.manifest))
    back = next(one for one in at.button if one.label == "Back to the model's own clips")
    assert back.click().run().text_input(key=state.CLIPS).value == ""
    assert faults(at) == [] and "Back to the model's own clips" not in [one.label for one in at.button]


def demo_labels():
    return running.engine().demo(NAME).labels


def figure(chart):
    return json.loads(chart.proto.spec)


def decoded(values):
    """Plotly writes long columns as base64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    return np.array(values)


def test_recordings_of_another_browser_are_neither_listed_nor_opened(open_recordings, open_app, two):
    at = open_recordings()
    assert "two tones" not in str([box.options for box in at.selectbox])
    at = open_app(clips=str(two.manifest)).switch_page(PAIRS).run()
    assert any("another visitor" in fault for fault in faults(at))
    made_of.change(two, shared=True)
    assert "two tones (shared)" in str([box.options for box in open_recordings().selectbox])


def test_labels_typed_in_the_table_are_kept(open_recordings, two, monkeypatch):
    monkeypatch.setattr("components.clips.owner.visitor", lambda: "another browser")
    at = open_recordings()
    editor = by_key(at, "dataframe", "recordings-1")
    edits = {"edited_rows": {"0": {"speaker": "ana"}}, "added_rows": [], "deleted_rows": []}
    states = at._tree.get_widget_states()
    widget = states.widgets.add()
    widget.id, widget.string_value = editor.proto.id, json.dumps(edits)
    at._run(widget_state=states)
    assert two.table()["speaker"].tolist() == ["ana", ""]


def test_labels_are_filled_down_and_read_off_names(two):
    rows = pd.DataFrame({"clip_id": ["a", "b", "c"], "path": "x", "speaker": ["ana", "", "ben"]})
    assert labels.fill_down(rows)["speaker"].tolist() == ["ana", "ana", "ben"]


def test_a_pair_by_hand_needs_no_label_and_a_clip_of_its_own(server, two):
    request = PatchRequest(NAME, manifest=str(two.manifest), labels=demo_labels())
    low, high = read_manifest(two.manifest).clips
    pair = pair_by_hand(running.engine(), request, low, high)
    assert (pair.recipient, pair.donor, pair.column) == (low, high, "") and pair.target in demo_labels()


def test_one_clip_is_no_pair(open_app, server, two, monkeypatch):
    made_of.set_clips(two, two.table().iloc[:1])
    made_of.change(two, shared=True)
    at = open_app(clips=str(two.manifest), pairs=state.BY_HAND).switch_page(PAIRS).run()
    assert any("two clips" in fault for fault in faults(at))


@pytest.mark.parametrize("name", ["", "  "])
def test_a_collection_needs_a_name(server, name):
    with pytest.raises(InterpError, match="needs a name"):
        made_of.create(running.data_folder(), name, "me", running.caps())
