"""What the figures hold: counts, intervals, gaps, axes, marks and names, against hand-made tables."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from components.charts import parts
from components.charts.answers import label_logits
from components.charts.parts import for_export
from components.charts.words import alt_text, shortened
from components.patching import charts
from interp_core import looks
from interp_core.looks import ANY_CHANGE, PATCHING
from tests.components.metrics_frames import knockout_frame, lens_frame, metrics_frame, with_holes

REACHABLE = "flip_to_target_rate_reachable"


def series(fig: go.Figure, name: str) -> go.Scatter:
    """The curve of this name; fails if there is none or more than one."""
    (found,) = [trace for trace in fig.data if trace.meta and trace.meta["name"] == name]
    return found


def matched(fig: go.Figure) -> go.Scatter:
    return series(fig, "patched from B")


def hover(trace: go.Scatter, layer: float) -> str:
    (text,) = [text for place, text in trace.customdata if place == layer]
    return text


def one_row(layer: int = 0, condition: str = "matched", **values) -> dict:
    row = {"kind": "prosody", "prompt": 0, "alpha": 1.0, "condition": condition, "layer": layer, "n": 90}
    return row | {"reachable_count": 50, REACHABLE: 0.62, f"{REACHABLE}_low": 0.48, f"{REACHABLE}_high": 0.74} | values


def annotations(fig: go.Figure, name: str) -> list[go.layout.Annotation]:
    return [note for note in fig.layout.annotations if note.name == name]


def test_the_hover_gives_k_of_n_of_the_rates_own_count_the_interval_and_the_p():
    fig = charts.flip_curve(pd.DataFrame([one_row(p_adjusted=0.0123)]))
    text = hover(matched(fig), 0)
    for part in ("31/50", "0.62", "0.48 to 0.74", "layer 0", "p = 0.012"):
        assert part in text, text
    assert "90" not in text
    everyone = pd.DataFrame([one_row(flip_from_base_rate=0.2)])
    assert "18/90" in hover(matched(charts.flip_curve(everyone, rate="flip_from_base_rate")), 0)


def test_without_an_interval_the_hover_says_so_and_no_band_is_drawn():
    fig = charts.flip_curve(pd.DataFrame([one_row(**{f"{REACHABLE}_low": math.nan, f"{REACHABLE}_high": math.nan})]))
    assert "no interval" in hover(matched(fig), 0)
    (band,) = [trace for trace in fig.data if trace.fill == "toself"]
    assert len(band.x or ()) == 0


def test_the_band_is_the_interval_and_n_stands_in_the_legend():
    frame = metrics_frame()
    fig = charts.flip_curve(frame)
    (band,) = [trace for trace in fig.data if trace.fill == "toself"]
    rows = frame[frame["condition"] == "matched"].sort_values("layer")
    assert list(band.y[: len(rows)]) == list(rows[f"{REACHABLE}_high"])
    assert list(band.y[len(rows) : -1]) == list(rows[f"{REACHABLE}_low"])[::-1]
    assert band.fillcolor == "rgba(0,114,178,0.18)" and matched(fig).line.color == "#0072B2"
    assert matched(fig).name == "patched from B (n = 64)"


def test_a_layer_that_was_not_computed_is_a_gap_and_never_a_zero():
    fig = charts.flip_curve(with_holes(metrics_frame()))
    curve = matched(fig)
    at = dict(zip(curve.x, curve.y, strict=True))
    assert at[4] is None and at[6] is None and at[5] > 0.3
    assert curve.connectgaps is False
    assert 0 not in [value for layer, value in at.items() if layer in (4, 6)]
    (band,) = [trace for trace in fig.data if trace.fill == "toself"]
    assert not {4, 6} & {x for x in band.x if x is not None}
    assert list(band.x).count(None) == 3  # three runs of layers: emb to 3, 5, and 7 to 11
    assert curve.name.endswith("(n = 0 to 64)")


@pytest.mark.parametrize(
    ("eligible", "rates", "words"),
    [
        (23, (0.0, 0.0), "Of the 23 eligible pairs none flips to the target at any layer"),
        (20, (0.1, 0.25), "At most 25 % (5 of 20) of the eligible flip to the target"),
        (0, (math.nan, math.nan), "every A answers the target already"),
    ],
)
def test_a_curve_that_no_pair_counts_for_says_so_and_what_the_eligible_pairs_do(eligible, rates, words):
    none = {"reachable_count": 0, REACHABLE: math.nan, "eligible_count": eligible}
    rows = [one_row(layer, **none, flip_to_target_rate_eligible=rate) for layer, rate in enumerate(rates)]
    (note,) = annotations(charts.flip_curve(pd.DataFrame(rows)), "nothing counted")
    assert words in note.text.replace("<br>", " ") and max(map(len, note.text.split("<br>"))) < 45, "it fits a column"
    assert annotations(charts.flip_curve(pd.DataFrame([one_row()])), "nothing counted") == []


def test_few_pairs_are_hollow_and_the_hover_says_why():
    curve = matched(charts.flip_curve(with_holes(metrics_frame())))
    symbols = dict(zip(curve.x, curve.marker.symbol, strict=True))
    assert symbols[8] == "circle-open" and symbols[9] == "circle"
    assert "fewer than 10" in hover(curve, 8) and "fewer" not in hover(curve, 9)


def test_a_rate_has_fixed_axes_from_0_to_1_that_cut_no_marker_and_a_click_cannot_zoom():
    fig = charts.flip_curve(metrics_frame())
    assert tuple(fig.layout.yaxis.range) == (-0.03, 1.12)
    assert fig.layout.xaxis.fixedrange and fig.layout.yaxis.fixedrange
    assert all(trace.cliponaxis is False for trace in fig.data if trace.meta)


@pytest.mark.parametrize(
    ("n_layers", "written"),
    [(12, ["<br>emb", *map(str, range(12))]), (28, ["<br>emb", *map(str, range(2, 28, 2))]),
     (48, ["<br>emb", *map(str, range(5, 48, 5))])],
)  # fmt: skip
def test_layers_are_whole_numbers_the_first_point_is_called_emb_and_deep_models_write_fewer(n_layers, written):
    axis = charts.flip_curve(metrics_frame(n_layers)).layout.xaxis
    assert list(axis.ticktext) == written
    assert axis.tickvals[0] == -1 and [str(value) for value in axis.tickvals[1:]] == written[1:]
    assert axis.minor.dtick == 1


def test_the_selected_layer_has_a_line_a_ring_on_the_curve_and_a_name():
    frame = metrics_frame()
    fig = charts.flip_curve(frame, selected_layer=5)
    (line,) = [shape for shape in fig.layout.shapes if shape.name == parts.SELECTED]
    assert line.x0 == line.x1 == 5
    (ring,) = [trace for trace in fig.data if trace.name == "selected"]
    value = frame.loc[(frame["condition"] == "matched") & (frame["layer"] == 5), REACHABLE].item()
    assert (list(ring.x), list(ring.y)) == ([5], [value]) and ring.marker.size > matched(fig).marker.size
    assert annotations(fig, parts.SELECTED)[0].text == "<b>layer 5</b>"
    bare = charts.flip_curve(frame)
    assert not bare.layout.shapes and not [trace for trace in bare.data if trace.name == "selected"]
    assert not [
        trace for trace in charts.flip_curve(with_holes(frame), selected_layer=4).data if trace.name == "selected"
    ]


def test_controls_are_dashed_named_at_their_end_and_differ_without_colour():
    fig = charts.flip_curve(metrics_frame())
    names = ["random donor", "matched noise", "no conflict, any change", "question positions", "last position"]
    looks = [(series(fig, name).line.dash, series(fig, name).marker.symbol[0]) for name in names]
    assert all(dash != "solid" for dash, _ in looks) and len({symbol for _, symbol in looks}) == len(looks)
    for name in names:
        (note,) = annotations(fig, name)
        assert name in note.text and note.x == 11
        assert series(fig, name).line.color in note.text
    heights = sorted(
        note.y * 302 / 1.0 + note.yshift for name in names for note in annotations(fig, name)
    )  # in pixels, roughly: names must not lie on each other
    assert min(np.diff(heights)) > 12


def test_controls_that_the_run_left_out_are_not_drawn():
    frame = metrics_frame()
    fig = charts.flip_curve(frame[frame["condition"].isin(["matched", "noise"])])
    assert [trace.meta["name"] for trace in fig.data if trace.meta] == ["matched noise", "patched from B"]
    alone = charts.flip_curve(frame, controls=(), flow=("last",))
    assert {trace.meta["name"] for trace in alone.data if trace.meta} == {"last position", "patched from B"}


def test_significant_layers_have_an_asterisk_and_the_legend_explains_it():
    frame = metrics_frame()
    fig = charts.flip_curve(frame)
    significant = frame[(frame["condition"] == "matched") & (frame["p_adjusted"] < 0.05)]["layer"]
    assert 0 < len(significant) < 13
    (signs,) = [trace for trace in fig.data if trace.name == "significant"]
    assert list(signs.x) == sorted(significant) and "✱" in signs.text
    assert list(signs.y) == [matched(fig).y[layer + 1] for layer in signs.x]
    assert [trace for trace in fig.data if trace.name and "adjusted p < .05" in trace.name]
    none = charts.flip_curve(frame.assign(p_adjusted=0.05))
    assert not [
        trace for trace in none.data if trace.name and ("adjusted p" in trace.name or trace.name == "significant")
    ]


def test_every_point_carries_its_layer_first():
    curve = matched(charts.flip_curve(metrics_frame()))
    assert [point[0] for point in curve.customdata] == list(range(-1, 12))


@pytest.mark.parametrize("column", ["delta_logprob_target_mean", "delta_logit_diff_mean", "recovered"])
def test_a_delta_curve_has_a_zero_line_and_counts_in_the_hover_but_no_k_of_n(column):
    fig = charts.delta_curve(metrics_frame(), column, selected_layer=2)
    lines = [shape for shape in fig.layout.shapes if shape.name == "reference"]
    assert [line.y0 for line in lines] == ([0, 1] if column == "recovered" else [0])
    assert all(line.line.color and line.line.width for line in lines)  # a template may hide a plain one
    assert fig.layout.yaxis.range is None
    text = hover(matched(fig), 2)
    assert f"n = {64 if column == 'recovered' else 80}" in text and "/" not in text.replace("</b>", "").replace(
        "<br>", ""
    )


def test_a_dose_response_has_alpha_on_x_and_only_its_own_layer():
    frame = pd.concat([metrics_frame(alpha=alpha) for alpha in (1.0, 0.0, 0.5)])
    curve = matched(charts.dose_response(frame, 3))
    here = frame[(frame["layer"] == 3) & (frame["condition"] == "matched")].sort_values("alpha")
    assert list(curve.x) == [0.0, 0.5, 1.0] and list(curve.y) == list(here[REACHABLE])
    assert "alpha 0.5" in hover(curve, 0.5)


def test_a_table_of_two_strengths_kinds_or_prompts_is_refused_where_one_curve_is_asked_for():
    frame = metrics_frame()
    for column, value in (("alpha", 0.5), ("kind", "semantic"), ("prompt", 1)):
        with pytest.raises(ValueError, match=f"several values of {column}"):
            charts.flip_curve(pd.concat([frame, frame.assign(**{column: value})]))


def test_label_dots_name_the_winner_of_each_run_and_mark_the_target():
    labels = ["neutral", "happy", "<b>sad"]
    fig = label_logits(labels, [3, 1, 0], [1, 2, 0], [0, 1, 4], "happy")
    dots = [trace for trace in fig.data if trace.mode == "markers"]
    assert [trace.name for trace in dots] == [
        "A as it is: <b>neutral</b>", parts.SELECTED, "A after the patch", "B: <b>&lt;b&gt;sad</b>",
    ]  # fmt: skip
    del dots[2]  # of the legend alone
    assert list(dots[1].x) == [1, 2, 0]
    assert [symbol.endswith("-open") for symbol in dots[0].marker.symbol] == [False, True, True]
    assert [name for name in dots[0].y if "target" in name] == ["<b>happy ◂ target</b>"]
    assert len({trace.marker.symbol[0].removesuffix("-open") for trace in dots}) == 3
    odds = label_logits(labels, [math.log(6), math.log(3), 0], [1, 2, 0], [0, 1, 4], "happy", scale="probability")
    np.testing.assert_allclose([trace for trace in odds.data if trace.mode == "markers"][0].x, [0.6, 0.3, 0.1])


def test_the_axis_of_the_label_dots_stays_where_it_is_from_layer_to_layer():
    every_layer = [[1, 2, 0], [9, -3, 0]]
    first, second = (
        label_logits(["a", "b", "c"], [3, 1, 0], patched, [0, 1, 4], "b", room=every_layer) for patched in every_layer
    )
    assert first.layout.xaxis.range == second.layout.xaxis.range
    assert first.layout.xaxis.range[0] < -3 and first.layout.xaxis.range[1] > 9
    alone = label_logits(["a", "b", "c"], [3, 1, 0], every_layer[0], [0, 1, 4], "b").layout.xaxis.range
    assert -1 < alone[0] < 0 and 4 < alone[1] < 5


def test_the_lens_is_drawn_for_both_runs_on_the_same_axis():
    lens = lens_frame()
    fig = charts.flip_curve(metrics_frame(), lens=lens)
    donor = lens[lens["run"] == "donor"]
    assert list(series(fig, "logit lens, B").y) == list(donor["target_rate"])
    assert list(series(fig, "logit lens, A").y) == list(lens[lens["run"] == "base"]["target_rate"])


def test_a_knockout_point_stands_in_the_middle_of_its_window_and_names_it():
    fig = charts.knockout_curve(knockout_frame(width=3))
    curve = series(fig, "no text position can read the audio")
    assert list(curve.x) == list(range(1, 11))
    assert curve.customdata[0][0] == 0 and "layers 0 to 2" in curve.customdata[0][1]
    assert "32/40" in hover(curve, 3)
    assert "window of 3 layers" in fig.layout.xaxis.title.text


def test_an_export_is_black_on_white_with_a_title_and_leaves_the_figure_alone():
    fig = charts.flip_curve(metrics_frame())
    before = json.loads(fig.to_json())
    out = for_export(fig, "demo-emotion <1>\nprosody, n = 64, seed 42")
    assert json.loads(fig.to_json()) == before
    assert out.layout.title.text == "demo-emotion &lt;1&gt;<br>prosody, n = 64, seed 42"
    assert (out.layout.paper_bgcolor, out.layout.font.color) == ("white", "black")
    assert tuple(out.layout.colorway) == looks.CATEGORIES
    assert out.layout.template.layout.plot_bgcolor == "white"
    assert len(out.data) == len(fig.data)


def luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("paper", ["#FFFFFF", "#171614"])
def test_every_colour_stands_out_3_to_1_in_light_and_in_dark(paper):
    for colour in {looks.BLUE, looks.VERMILLION, *looks.CATEGORIES}:
        low, high = sorted([luminance(colour), luminance(paper)])
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_the_alternative_text_states_the_peak_the_control_and_the_significance():
    rows = [one_row(layer, p_adjusted=0.01 if layer in (2, 3, 5) else 0.5) for layer in range(7)]
    rows[3] |= {REACHABLE: 0.9, f"{REACHABLE}_low": 0.8, f"{REACHABLE}_high": 0.96}
    rows.append(one_row(3, "random", **{REACHABLE: 0.1, f"{REACHABLE}_low": 0.03, f"{REACHABLE}_high": 0.2}))
    text = alt_text(pd.DataFrame(rows))
    assert "Highest at layer 3: 0.90 (45/50; 95 % interval 0.80 to 0.96)." in text
    assert "A random donor there: 0.10 (5/50; 95 % interval 0.03 to 0.20)." in text
    assert "layers 2 to 3, layer 5" in text
    untested = alt_text(pd.DataFrame(rows).assign(p_adjusted=math.nan))
    assert "not tested" in untested
    assert "At no layer" in alt_text(pd.DataFrame(rows).assign(p_adjusted=0.5))
    rows.append(one_row(5, "random", **{REACHABLE: 0.95}))  # the test has two sides
    assert (
        "Beyond the random donor (adjusted p < .05) at layers 2 to 3. Below the random donor (adjusted p < .05) at "
        "layer 5." in alt_text(pd.DataFrame(rows))
    )
    assert "No layer has a value" in alt_text(pd.DataFrame(rows).assign(**{REACHABLE: math.nan}))


def test_the_no_conflict_control_shows_how_often_any_answer_changes():
    table = metrics_frame()
    calm = table["condition"] == "no-conflict"
    table.loc[calm, "flip_from_base_rate"] = 0.25
    table.loc[calm, "flip_to_target_rate_reachable"] = 1.0  # of the few pairs that the model gets wrong
    assert set(series(charts.flip_curve(table), "no conflict, any change").y) == {0.25}
    assert set(series(charts.dose_response(table, 3), "no conflict, any change").y) == {0.25}
    assert series(charts.delta_curve(table, column="delta_logprob_target_mean"), "no-conflict donor").y is not None


@pytest.mark.parametrize(
    ("low", "high", "written"),
    [(0.7, 14.0, ["0.5", "1", "2", "5", "10", "20"]), (0.01, 900.0, ["0.01", "0.1", "1", "10", "100"])],
)
def test_a_logarithmic_axis_writes_every_tick_out_and_has_no_bare_digits(low, high, written):
    ticks = parts.log_ticks(low, high)
    assert set(written) <= set(ticks["ticktext"])
    assert [float(text) for text in ticks["ticktext"]] == pytest.approx(ticks["tickvals"])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (math.nan, 1.0), (-1.0, 5.0), (1.0, math.inf)])
def test_a_logarithmic_axis_without_a_range_leaves_the_ticks_to_plotly(low, high):
    assert parts.log_ticks(low, high) == {}


def test_names_side_by_side_are_thinned_until_they_fit():
    names = [f"S{stage} B{block}" for stage in range(4) for block in range(6)]
    written = parts.thinned(names, 56)
    assert sum(len(names[i]) + 2 for i in written) <= 56 and written[0] == 0
    assert parts.thinned(names[:3], 56) == [0, 1, 2]
    assert parts.thinned([], 56) == []


def test_a_long_name_is_cut_in_its_middle_and_keeps_both_ends():
    assert shortened("short", 16) == "short"
    cut = shortened("speaker-017-utterance-0042-codec-opus", 16)
    assert len(cut) == 16 and cut.startswith("speaker") and cut.endswith("opus") and "…" in cut
    with pytest.raises(ValueError, match="too few"):
        shortened("speaker", 2)


def test_for_an_audience_words_lines_and_markers_are_larger_and_the_figure_itself_stays():
    fig = charts.flip_curve(metrics_frame(), selected_layer=3)
    before = fig.to_json()
    large = parts.presented(fig)
    assert json.loads(fig.to_json()) == json.loads(before)
    for small, big in zip(fig.data, large.data, strict=True):
        if small.line.width:
            assert big.line.width == pytest.approx(parts.PRESENTED_LINES * small.line.width)
    sizes = [large.layout.xaxis.tickfont.size, large.layout.yaxis.title.font.size, large.layout.legend.font.size]
    assert sizes == pytest.approx([parts.PRESENTED_TYPE * parts.FONT_PX] * 3)
    assert all(note.font.size > parts.FONT_PX for note in large.layout.annotations)
    assert parts.presented(go.Figure()).layout.font.size > parts.FONT_PX  # nothing drawn, nothing broken


def test_the_three_controls_differ_in_dash_and_marker_and_their_names_show_both():
    fig = charts.flip_curve(metrics_frame())
    drawn = {trace.line.dash: trace.marker.symbol[0] for trace in fig.data if "n = " in (trace.name or "")}
    controls = [look for name, look in PATCHING.items() if name in ("random", "noise", "no-conflict")]
    assert len({look.dash for look in controls}) == len({look.marker for look in controls}) == 3
    assert {look.dash for look in controls} <= set(drawn)
    for look in controls:
        name = ANY_CHANGE.name if look.name == "no-conflict donor" else look.name
        note = next(note for note in fig.layout.annotations if note.name == name)
        assert parts.DASHES[look.dash].format(parts.GLYPHS[look.marker]) in note.text
