"""The dashboard's parts that draw nothing: the laid-out run, settings as text, the command of a run, words."""

import pandas as pd
import pytest

from components import export
from components.patching.results import Indexed
from components.shown import Shown
from components.words import answer_badge, layer_of, layer_text, md, nbytes, seconds
from interp_core.experiments.experiment import open_result
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.one_pair import flipped
from tests.pages.tiny_demo import NAME


@pytest.fixture(scope="module")
def run(assets):
    return open_result(PATCHING, assets / NAME / "run")


def test_the_laid_out_run_gives_the_rows_that_a_search_through_its_tables_finds(run):
    index, records, metrics = Indexed(run), run.records, run.metrics
    assert index.layers == tuple(sorted(records.layer.unique())) and index.alphas == (1.0, 0.5)
    for kind in index.kinds:
        for prompt in range(len(index.prompts)):
            for alpha in index.alphas:
                for layer in index.layers:
                    here = records[
                        (records.condition == "matched")
                        & (records.kind == kind)
                        & (records.prompt == prompt)
                        & (records.alpha == alpha)
                        & (records.layer == layer)
                    ]
                    found = index.at_layer(kind, prompt, alpha, layer)
                    pd.testing.assert_frame_equal(found.reset_index()[here.columns], here.reset_index(drop=True))
                    row = index.row(kind, prompt, alpha, "matched", layer)
                    wanted = metrics[
                        (metrics.condition == "matched")
                        & (metrics.kind == kind)
                        & (metrics.prompt == prompt)
                        & (metrics.alpha == alpha)
                        & (metrics.layer == layer)
                    ].iloc[0]
                    pd.testing.assert_series_equal(row, wanted, check_names=False)
    one = index.outcome("prosody-0003", "prosody", 1, 0.5, 2)
    assert one.name == "prosody-0003" and one.prompt == 1 and one.alpha == 0.5 and one.layer == 2
    assert index.outcome("nobody", "prosody", 0, 1.0, 2) is None
    assert index.outcome("prosody-0003", "prosody", 0, 0.123, 2) is None


def test_a_flip_needs_another_answer_before_and_the_target_after():
    cases = [("sad", "happy", True), ("happy", "happy", False), ("sad", "angry", False), ("sad", "sad", False)]
    rows = pd.DataFrame([{"base_prediction": b, "patched_prediction": p, "target": "happy"} for b, p, _ in cases])
    assert flipped(rows).tolist() == [flip for *_, flip in cases]


def test_controls_that_ran_at_one_strength_stand_beside_every_other(run):
    index = Indexed(run)
    assert set(run.metrics.query("condition == 'random'").alpha) == {1.0}
    weak = index.metrics("prosody", 0, 0.5)
    assert {"matched", "random", "noise"} <= set(weak.condition) and set(weak.alpha) == {0.5}
    matched = weak[weak.condition == "matched"]
    kept = run.metrics.query("kind == 'prosody' and prompt == 0 and alpha == 0.5")
    assert matched.flip_from_base_rate.tolist() == kept.flip_from_base_rate.tolist()


def test_the_page_opens_at_the_last_layer_of_the_peak_and_at_a_pair_that_flips_there(run):
    index = Indexed(run)
    rows = index.metrics("prosody", 0, 1.0).query("condition == 'matched'").set_index("layer")
    rates = rows.flip_to_target_rate_reachable.fillna(-1)
    assert rates[index.best_layer] == rates.max() and (rates[rates.index > index.best_layer] < rates.max()).all()
    for kind, pair in index.best_pair.items():
        there = index.at_layer(kind, 0, 1.0, index.best_layer)
        flips = there[(there.base_prediction != there.target) & (there.patched_prediction == there.target)]
        assert pair == (flips.index[0] if len(flips) else index.pairs(kind)[0])


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x>",
        "**bold**",
        ":red[x]",
        "$x$",
        "`code`",
        "[a](http://b)",
        "a_b_c",
        "# title",
        "1. one",
        "a|b",
        "&lt;",
    ],
)
def test_data_is_shown_word_for_word_in_markdown(text):
    escaped = md(text)
    assert escaped.replace("\\", "").replace("\u2060", "") == text  # the word joiner has no width
    for i, character in enumerate(escaped):  # nothing that markdown could take for its own stands without a backslash
        if character in "*_`[]()<>#$:|&!":
            assert i > 0 and escaped[i - 1] == "\\", escaped


def test_an_answer_has_the_colour_of_whose_it_is_and_another_one_a_third():
    assert answer_badge("sad", "sad", "happy") == ":blue-badge[sad]" == answer_badge("sad", "sad", "sad")
    assert answer_badge("happy", "sad", "happy") == ":orange-badge[happy]"
    assert answer_badge("angry", "sad", "happy") == ":violet-badge[angry]" == answer_badge("angry", "sad")
    assert answer_badge("a]b", "sad") == r":violet-badge[a\]b]"


def test_words_for_layers_sizes_and_times():
    assert [layer_of(layer_text(layer)) for layer in (-1, 0, 27)] == [-1, 0, 27]
    assert (nbytes(5 * 2**20), nbytes(3 * 2**30)) == ("5 MB", "3.0 GB")
    assert [seconds(s) for s in (4, 89, 200, 3600 * 3 + 600)] == ["4 s", "89 s", "3 min", "3 h 10 min"]


def test_exported_files_are_what_they_are_called(run):
    figure = run.figure()
    assert export.picture(figure, "png").startswith(b"\x89PNG")
    assert b"<svg" in export.picture(figure, "svg")[:2000]
    read = pd.read_csv(pd.io.common.BytesIO(export.csv(run.metrics)))
    assert read.flip_from_base_rate.tolist() == run.metrics.flip_from_base_rate.tolist()
    assert export.file_name("a/b c", "Flip rate", "") == "a_b_c-Flip_rate"
    signed = export.facts(Shown("", run, "shipped"), "a site")()
    assert f"weights {run.config['model']['weights_sha256'][:12]}" in signed and "a site" in signed
