"""Sign flips from request to run folder and back."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import soundfile

from interp_core.doors.signflip import SignflipRequest, prepare, read_result, request_from_config
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.signflip import OUTPUT, SignflipSettings
from interp_core.runs import find_runs
from interp_core.storage import plain
from tests.corpus import sound
from tests.doors.neuron_clips import write_clips, write_model
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
    settings = SignflipSettings(target="happy", topk=4, frames="all", draws=3)
    return SignflipRequest(str(model), str(manifest), device="cpu", units="text_id", settings=settings)


def test_what_is_not_asked_for_is_found_and_the_target_is_the_first_label(place, engine):
    found = prepare(engine, SignflipRequest(str(place[0]), str(place[1]), device="cpu")).request
    assert (found.task, found.units, found.settings.target) == ("prosody_label", "speaker", "neutral")
    assert found.labels == ("neutral", "happy", "sad", "angry")


def test_a_run_folder_holds_specs_files_and_reads_back_as_it_was(asked, engine, tmp_path):
    made = asked.run(engine, out=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"signflip_config.json", "attribution_top.csv", "proxy_changes.csv", "proxy_curve.png"} <= names
    again = read_result(tmp_path / "run")
    for name in ("top", "changes", "effects", "clips", "links"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(made, name), check_dtype=False)
    assert again.report == plain(made.report) and again.config == made.config
    assert [run.command for run in find_runs(tmp_path)] == ["signflip"]
    assert set(made.changes["measured"]) == {0, 1, 2, OUTPUT}
    assert set(made.clips["label"]) <= {"neutral", "happy"}


def test_texts_that_are_attributed_on_are_not_measured(asked, engine):
    made = asked.run(engine, out=None)
    measured = {clip.split("-")[0] for clip in made.clips["clip_id"]}
    assert len(measured) == 4 == made.report["measured_on"]["units"]
    assert made.report["attributed_on"]["of_the_target_only"]


def test_a_config_repeats_its_run_exactly(asked, engine, tmp_path):
    request = replace(asked, settings=replace(asked.settings, layers=(1,), kind="resample", reduce="abs_sum"))
    made = request.run(engine, out=tmp_path / "a")
    again = request_from_config(json.loads((tmp_path / "a" / "signflip_config.json").read_text()))
    assert again.settings == request.settings
    second = again.run(engine, out=tmp_path / "b")
    for name in ("top", "changes", "effects", "clips"):
        pd.testing.assert_frame_equal(getattr(second, name), getattr(made, name))
    with pytest.raises(InterpError, match="give that of a sign-flip run"):
        request_from_config({"command": "ablate"})


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
        replace(asked, settings=replace(asked.settings, **changes)).run(engine, out=None)
    assert "\n" not in str(caught.value)


def test_a_ravdess_folder_is_read_by_its_reader(place, engine, tmp_path):
    for actor in ("01", "02", "03"):
        for code, text in (("03", 1), ("04", 2)):
            folder = tmp_path / "ravdess" / f"Actor_{actor}"
            folder.mkdir(parents=True, exist_ok=True)
            name = f"03-01-{code}-01-0{text}-01-{actor}.wav"
            soundfile.write(folder / name, sound(text, int(actor) - 1, 0.4), RATE, subtype="FLOAT")
    settings = SignflipSettings(target="sad", topk=2, draws=2)
    asked = SignflipRequest(
        str(place[0]), str(tmp_path / "ravdess"), device="cpu", corpus="ravdess", units="speaker", settings=settings
    )
    made = asked.run(engine, out=tmp_path / "run")
    assert set(made.clips["label"]) == {"happy", "sad"} and made.report["measured_on"]["unit"] == "speaker"
    again = request_from_config(json.loads((tmp_path / "run" / "signflip_config.json").read_text()))
    assert again.corpus == "ravdess" and again.task == "label"
