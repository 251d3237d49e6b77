"""Sign flips from request to run folder and back."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import soundfile

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.signflip.experiment import SIGNFLIP
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.experiments.signflip.tables import OUTPUT
from interp_core.runs import find_runs
from interp_core.storage import plain
from interp_core.trace.rows import BlockRows
from tests.corpus import sound
from tests.experiments.neuron_clips import write_clips, write_model
from tests.tiny import RATE


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signflip")
    return write_model(folder / "model"), write_clips(folder / "clips")


@pytest.fixture(scope="module")
def engine():
    return Engine()


@pytest.fixture
def asked(place):
    model, manifest = place
    return SignflipRequest(
        str(model), str(manifest), device="cpu", units="text_id", target="happy", topk=4, frames="all", draws=3
    )


def test_what_is_not_asked_for_is_found_and_the_target_is_the_first_label(place, engine):
    found = SIGNFLIP.prepare(engine, SignflipRequest(str(place[0]), str(place[1]), device="cpu")).request
    assert (found.task, found.units, found.target) == ("prosody_label", "speaker", "neutral")
    assert found.labels == ("neutral", "happy", "sad", "angry")


def test_a_run_folder_holds_specs_files_and_reads_back_as_it_was(asked, engine, tmp_path):
    made = run(SIGNFLIP, engine, asked, out=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"signflip_config.json", "attribution_top.csv", "proxy_changes.csv", "proxy_curve.png"} <= names
    again = open_result(SIGNFLIP, tmp_path / "run")
    for name in ("top", "changes", "effects", "clips", "links"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(made, name), check_dtype=False)
    assert again.report == plain(made.report) and again.config == made.config
    assert [one.command for one in find_runs(tmp_path)] == ["signflip"]
    assert set(made.changes["measured"]) == {0, 1, 2, OUTPUT}
    assert set(made.clips["label"]) <= {"neutral", "happy"}


def test_texts_that_are_attributed_on_are_not_measured(asked, engine):
    made = run(SIGNFLIP, engine, asked, out=None)
    measured = {clip.split("-")[0] for clip in made.clips["clip_id"]}
    assert len(measured) == 4 == made.report["measured_on"]["units"]
    assert made.report["attributed_on"]["of_the_target_only"]


def test_a_config_repeats_its_run_exactly(asked, engine, tmp_path):
    request = replace(asked, layers=(1,), kind="resample", reduce="abs_sum")
    made = run(SIGNFLIP, engine, request, out=tmp_path / "a")
    again = SignflipRequest.from_config(json.loads((tmp_path / "a" / "signflip_config.json").read_text()))
    found = SIGNFLIP.prepare(engine, request).request
    assert again == replace(found, dtype="float32")
    second = run(SIGNFLIP, engine, again, out=tmp_path / "b")
    for name in ("top", "changes", "effects", "clips"):
        pd.testing.assert_frame_equal(getattr(second, name), getattr(made, name))
    with pytest.raises(InterpError, match="give that of a 'signflip' run"):
        SignflipRequest.from_config({"command": "ablate"})


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"target": "joyful"}, "target 'joyful' is none of neutral, happy, sad, angry"),
        ({"layers": (3,)}, "layer=3 is outside"),
        ({"frames": "last"}, "none of max, all"),
        ({"reduce": "median"}, "none of sum_abs, abs_sum"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked_is_one_sentence(asked, engine, changes, said):
    with pytest.raises(InterpError, match=said) as caught:
        run(SIGNFLIP, engine, replace(asked, **changes))
    assert "\n" not in str(caught.value)


def test_the_batch_size_is_how_many_edited_copies_are_in_one_pass_and_changes_no_number(asked, engine, monkeypatch):
    passes, right = [], BlockRows.run

    def counting(self, layer, rows):
        passes.append(len(rows))
        return right(self, layer, rows)

    monkeypatch.setattr(BlockRows, "run", counting)
    usual = run(SIGNFLIP, engine, asked)
    assert max(passes) == 1 + asked.draws == 4, "all copies of a layer together"
    passes.clear()
    small = run(SIGNFLIP, engine, replace(asked, batch_size=3))
    assert max(passes) == 3
    numbers = usual.changes.select_dtypes("number")
    pd.testing.assert_frame_equal(small.changes.select_dtypes("number"), numbers, atol=1e-5, rtol=1e-3)


def test_a_ravdess_folder_is_read_by_its_reader(place, engine, tmp_path):
    for actor in ("01", "02", "03"):
        for code, text in (("03", 1), ("04", 2)):
            folder = tmp_path / "ravdess" / f"Actor_{actor}"
            folder.mkdir(parents=True, exist_ok=True)
            name = f"03-01-{code}-01-0{text}-01-{actor}.wav"
            soundfile.write(folder / name, sound(text, int(actor) - 1, 0.4), RATE, subtype="FLOAT")
    asked = SignflipRequest(
        str(place[0]), str(tmp_path / "ravdess"), device="cpu", corpus="ravdess", units="speaker",
        target="sad", topk=2, draws=2,
    )  # fmt: skip
    made = run(SIGNFLIP, engine, asked, out=tmp_path / "run")
    assert set(made.clips["label"]) == {"happy", "sad"} and made.report["measured_on"]["unit"] == "speaker"
    again = SignflipRequest.from_config(json.loads((tmp_path / "run" / "signflip_config.json").read_text()))
    assert again.corpus == "ravdess" and again.task == "label"
