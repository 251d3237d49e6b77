"""The figures draw the numbers they are given, with the band, the controls, n and the layers' names."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.image import imread

from interp_core.errors import InterpError
from interp_core.experiments.figures import save_png
from interp_core.experiments.patching.figures import (
    delta_logit_figure,
    flip_rate_figure,
)
from interp_core.experiments.patching.metrics import METRIC_COLUMNS

LAYERS = [-1, 0, 1, 2]
RATE = [0.9, 0.8, 0.3, 0.1]


def metrics(layers=LAYERS, **values):
    """One condition's rows as `summarise` gives them; everything not given is NaN."""
    frame = pd.DataFrame(index=range(len(layers)), columns=METRIC_COLUMNS, dtype=float)
    frame = frame.astype({"kind": object, "condition": object, "interval_method": object})
    defaults = {"kind": "prosody", "condition": "matched", "prompt": 0, "alpha": 1.0, "layer": layers, "n": 40}
    defaults |= {"reachable_count": 25, "eligible_count": 30, "n_clusters": 12}
    for name, value in (defaults | values).items():
        frame[name] = value
    return frame


def matched(**values):
    rates = {"flip_to_target_rate_reachable": RATE}
    rates |= {
        f"flip_to_target_rate_reachable_{end}": np.array(RATE) + by for end, by in [("low", -0.1), ("high", 0.05)]
    }
    return metrics(**(rates | values))


def lines(axes):
    """label (its first line) -> what is drawn under it."""
    return {line.get_label().split("\n")[0]: line for line in axes.lines if not line.get_label().startswith("_")}


def bands(axes):
    return [collection for collection in axes.collections if isinstance(collection, PolyCollection)]


def test_flip_figure_draws_the_reachable_rate_with_its_band_controls_dashed_and_n():
    random = metrics(condition="random", flip_to_target_rate_reachable=[0.1, 0.1, 0.0, 0.1])
    figure = flip_rate_figure(pd.concat([random, matched()]), "a title")
    (axes,) = figure.axes
    drawn = lines(axes)
    assert list(drawn) == ["patched from B (n = 25)", "random donor (n = 25)"]
    main, control = drawn.values()
    assert main.get_xdata().tolist() == LAYERS and main.get_ydata().tolist() == RATE
    assert (main.get_color(), main.get_linestyle(), control.get_linestyle()) == ("#0072B2", "-", "--")
    assert main.get_marker() != control.get_marker()  # never colour alone
    (band,) = bands(axes)
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(0.0) and corners[:, 1].max() == pytest.approx(0.95)
    assert "12 clusters, 95 % interval" in main.get_label()
    assert axes.get_ylabel() == "Flips to target (% of reachable pairs)"
    assert "Layer" in axes.get_xlabel()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["emb", "0", "1", "2"]
    assert figure.get_suptitle() == "a title"


def test_layers_are_drawn_in_order_whatever_the_order_of_the_rows():
    figure = flip_rate_figure(matched()[::-1], "t")
    line = lines(figure.axes[0])["patched from B (n = 25)"]
    assert line.get_xdata().tolist() == LAYERS and line.get_ydata().tolist() == RATE


def test_filled_markers_are_the_layers_below_an_adjusted_p_of_five_percent():
    figure = flip_rate_figure(matched(p_adjusted=[0.01, 0.049, 0.05, np.nan]), "t")
    filled = lines(figure.axes[0])["filled: flips differ from"]
    assert filled.get_xdata().tolist() == [-1, 0] and filled.get_markerfacecolor() == "#0072B2"
    assert lines(figure.axes[0])["patched from B (n = 25)"].get_markerfacecolor() == "white"


def test_without_a_reachable_pair_the_axis_says_which_rate_is_drawn_instead():
    eligible = metrics(flip_to_target_rate_eligible=RATE, flip_to_target_rate=0.0)
    axes = flip_rate_figure(eligible, "t").axes[0]
    assert "eligible pairs; none is reachable" in axes.get_ylabel()
    assert lines(axes)["patched from B (n = 30)"].get_ydata().tolist() == RATE
    axes = flip_rate_figure(metrics(flip_to_target_rate=0.0), "t").axes[0]
    assert "all pairs; none is eligible" in axes.get_ylabel() and "patched from B (n = 40)" in lines(axes)


def test_no_conflict_shows_how_often_the_answer_changes_at_all():
    floor = metrics(condition="no-conflict", flip_from_base_rate=[0.1, 0.2, 0.3, 0.4], n=[7, 7, 6, 7])
    axes = flip_rate_figure(pd.concat([matched(), floor]), "t").axes[0]
    assert lines(axes)["no conflict, any change (n = 6 to 7)"].get_ydata().tolist() == [0.1, 0.2, 0.3, 0.4]


def test_few_clusters_draw_no_band_and_the_legend_says_so():
    axes = flip_rate_figure(metrics(flip_to_target_rate_reachable=RATE, n_clusters=6), "t").axes[0]
    assert "6 clusters, too few for an interval" in axes.lines[0].get_label()
    assert all(not len(band.get_paths()) for band in bands(axes))


def test_every_prompt_has_a_panel_and_every_strength_a_matched_curve_but_controls_only_the_greatest():
    parts = [
        matched(prompt=prompt, alpha=alpha, condition=condition)
        for prompt in (0, 1)
        for alpha in (1.0, 0.5)
        for condition in ("matched", "random")
    ]
    figure = flip_rate_figure(pd.concat(parts), "t")
    assert len(figure.axes) == 2
    for prompt, axes in enumerate(figure.axes):
        names = ["patched from B, alpha 1", "patched from B, alpha 0.5", "random donor, alpha 1"]
        assert [label.split(" (n")[0] for label in lines(axes)] == names
        assert axes.get_legend().get_title().get_text() == f"prompt {prompt}"
        strong, weak, _ = lines(axes).values()
        assert strong.get_color() != weak.get_color() and strong.get_linestyle() != weak.get_linestyle()


@pytest.mark.parametrize("draw", [flip_rate_figure, delta_logit_figure])
def test_a_panel_has_its_prompts_own_name_word_for_word_and_the_number_where_there_is_none(draw, tmp_path):
    rows = pd.concat([matched(prompt=prompt) for prompt in (0, 1, 2)])
    figure = draw(rows, "t", ["voice", "$\\frac{x$ <b>"])
    titles = [legend.get_title().get_text() for axes in figure.axes if (legend := axes.get_legend())]
    assert titles == ["voice", "$\\frac{x$ <b>", "prompt 2"]
    save_png(figure, tmp_path / "a.png")  # broken mathematics would be refused when it is drawn


def test_deep_models_have_at_most_fifteen_ticks_and_the_embeddings_keep_their_name():
    layers = list(range(-1, 80))
    axes = flip_rate_figure(metrics(layers, flip_to_target_rate_reachable=0.5), "t").axes[0]
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks[:3] == ["emb", "10", "20"] and len(ticks) <= 15


def test_delta_figure_has_the_logit_above_and_the_log_probability_below_in_nats():
    values = matched(delta_logit_target_mean=[3.0, 2, 1, 0], delta_logprob_target_mean=[1.5, 1, 0.5, 0])
    top, bottom = delta_logit_figure(values, "t").axes
    assert lines(top)["patched from B (n = 40)"].get_ydata().tolist() == [3, 2, 1, 0]
    assert lines(bottom)["patched from B (n = 40)"].get_ydata().tolist() == [1.5, 1, 0.5, 0]
    assert "(nats)" in top.get_ylabel() and "log-probability" in bottom.get_ylabel()


@pytest.mark.parametrize("draw", [flip_rate_figure, delta_logit_figure])
def test_png_is_written_is_not_blank_repeats_byte_for_byte_and_takes_any_title(tmp_path, draw):
    values = matched(delta_logit_target_mean=RATE, delta_logprob_target_mean=RATE)
    for name in ("a.png", "b.png"):
        save_png(draw(values, "cost $x_{$ & <b>title</b>"), tmp_path / name)  # broken mathtext must stay text
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = imread(tmp_path / "a.png")
    assert min(image.shape[:2]) > 400
    blue = (np.abs(image[..., :3] - np.array([0x00, 0x72, 0xB2]) / 255) < 0.02).all(axis=-1)
    assert blue.sum() > 200  # the matched curve is on it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_nothing_to_draw_two_kinds_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(InterpError, match="no metrics to draw"):
        flip_rate_figure(matched()[:0], "t")
    with pytest.raises(InterpError, match="one pair kind, not prosody, semantic"):
        delta_logit_figure(pd.concat([matched(), matched(kind="semantic")]), "t")
    with pytest.raises(InterpError, match="a.png cannot be written"):
        save_png(flip_rate_figure(matched(), "t"), tmp_path / "nowhere" / "a.png")


def test_a_png_is_what_matplotlib_would_save(tmp_path):
    save_png(flip_rate_figure(matched(), "t"), tmp_path / "ours.png")
    flip_rate_figure(matched(), "t").savefig(tmp_path / "theirs.png")
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()
