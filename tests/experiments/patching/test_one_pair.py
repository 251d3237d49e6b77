"""One pair on paper: the right curve, recordings and logits, and a title that says where they come from."""

import io

import numpy as np
import pytest

from interp_core.api import open_run
from interp_core.data.mel import MEL_FLOOR_DB, MEL_STEP_DB, mel_levels
from interp_core.experiments.example import Sound
from interp_core.experiments.patching.one_pair import CurvePoint, pair_figure
from interp_core.models.bundled import ASSETS

RATE = 16_000
PLACE = CurvePoint("prosody", 0, 1.0, 7)


def sound(label: str, hz: float, seconds: float) -> Sound:
    wave = np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)
    return Sound(label, wave.astype(np.float32), RATE)


@pytest.fixture(scope="module")
def run():
    return open_run(ASSETS / "demo-emotion" / "run")


def test_one_figure_holds_both_sounds_the_curve_and_the_logits_and_says_where_they_come_from(run):
    row = PLACE.records(run.records).loc["prosody-0003"]
    a, b = sound("a $x_$", 500, 0.5), sound("b", 3000, 1.0)
    figure = pair_figure(run.config, row, run.metrics, PLACE, a, b)
    left, right, curve, logits = figure.axes
    levels = [MEL_FLOOR_DB + MEL_STEP_DB * mel_levels(one.samples, RATE)[0] for one in (a, b)]
    for axes, wanted in zip((left, right), levels, strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), wanted)
        assert axes.get_xlim() == (0, 1.0) and axes.images[0].get_clim() == right.images[0].get_clim()
    assert left.images[0].get_clim()[1] == max(level.max() for level in levels)
    assert [axes.get_title(loc="left").partition(":")[0] for axes in (left, right)] == ["A", "B"]
    matched = run.metrics.query("kind == 'prosody' and prompt == 0 and condition == 'matched'").sort_values("layer")
    drawn = next(line for line in curve.lines if line.get_label().startswith("patched from B"))
    np.testing.assert_allclose(drawn.get_ydata(), matched["flip_to_target_rate_reachable"])
    points = {line.get_label(): list(line.get_xdata()) for line in logits.lines}
    wanted = {"A as it is": row["base_logits"], "B": row["donor_logits"], "A after the patch": row["patched_logits"]}
    assert points == {name: list(values) for name, values in wanted.items()}
    marked = [text.get_text() for text in logits.get_yticklabels() if "(target)" in text.get_text()]
    assert marked == [f"{row['target']} (target)"]
    title = figure.get_suptitle()
    said = ["prosody-0003", "layer 7", "n = 30", "seed 42", "demo-emotion", f"route {row['method']}"]
    assert all(text in title for text in [*said, run.config["model"]["weights_sha256"][:12]]), title
    out = io.BytesIO()
    figure.savefig(out, format="pdf")  # a label that looks like a formula would break here
    assert out.getvalue().startswith(b"%PDF")


def test_a_place_takes_the_matched_patch_of_its_own_strength_question_and_layer(run):
    other = run.records.assign(alpha=0.5)
    assert len(CurvePoint("prosody", 1, 1.0, 7).records(run.records)) == 30
    assert len(PLACE.records(other)) == 0
    assert set(PLACE.records(run.records)["condition"]) == {"matched"}


def test_examples_flip_first_at_the_last_layer_of_the_peak_and_take_kinds_in_turn(run):
    found = run.examples(4)
    assert [one.name.partition("-")[0] for one in found] == ["prosody", "semantic"] * 2
    for one in found:
        rows = run.records[(run.records["pair_id"] == one.name) & (run.records["condition"] == "matched")]
        at = rows[(rows["prompt"] == 0) & (rows["layer"] == 5)].iloc[0]
        assert at["base_prediction"] != at["patched_prediction"] == at["target"]
        assert (one.a, one.b) == (at["recipient"], at["donor"]) and f"{at['target']!r}" in one.said
