"""One look a condition: the same colour, dash and marker in a folder's figure and on the page, and B's colour for B."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from components.charts.answers import label_logits
from components.compare import charts as compare_charts
from components.heads import charts as heads_charts
from components.neurons import charts as neurons_charts
from components.patching import charts as patching_charts
from components.probes import charts as probes_charts
from components.signflip import charts as signflip_charts
from components.steering import charts as steering_charts
from interp_core import looks
from interp_core.experiments.heads import files as heads_files
from interp_core.experiments.neurons.figures import SHOWN, dose_figure
from interp_core.experiments.patching.figures import flip_rate_figure
from interp_core.experiments.probes import files as probes_files
from interp_core.experiments.probes.figures import curves_figure as curves_of_probes
from interp_core.experiments.signflip.figures import proxy_figure
from interp_core.experiments.steering import files as steering_files
from interp_core.experiments.steering.figures import dose_figure as dose_of_steering
from interp_core.experiments.steering.tables import best_layer
from interp_core.storage import read_csv, read_json
from tests.components.metrics_frames import knockout_frame, lens_frame, metrics_frame

ROOT = Path(__file__).resolve().parents[1]
B = "#D55E00"
FIGURES = {  # every look by the figure that it stands in
    "patching": {**looks.PATCHING, **{f"lens of {run}": of for run, of in looks.LENS.items()}},
    "knockout": looks.KNOCKOUT,
    "runs": looks.RUNS,
    "compared": looks.COMPARED,
    "neurons": looks.NEURONS,
    "signflip": looks.FLIPPED,
    "steering": looks.STEERING,
    "probes": looks.PROBES,
    "heads": looks.HEADS,
    "side by side": looks.SIDE_BY_SIDE,
}
SIGNS = {  # what matplotlib calls plotly's markers
    "o": "circle", "s": "square", "x": "x", "^": "triangle-up", "P": "cross", "D": "diamond", "v": "triangle-down",
}  # fmt: skip
STROKES = {  # lengths of strokes and gaps, in widths of the line
    (): "solid", (3.7, 1.6): "dash", (1.0, 1.65): "dot", (6.4, 1.6, 1.0, 1.6): "dashdot", (8, 3): "longdash",
    (8, 3, 1, 3): "longdashdot",
}  # fmt: skip


def in_file(axes, name):
    """(colour, dash, marker) of matplotlib's line whose label begins so."""
    (line, *_) = [line for line in axes.lines if re.match(rf"{re.escape(name)}($| \(|, )", str(line.get_label()))]
    strokes = line._unscaled_dash_pattern[1]  # it has no public reader for strokes of one's own
    return line.get_color(), STROKES[tuple(strokes or ())], SIGNS[line.get_marker()]


def on_page(figure, name):
    """The same of plotly's trace; a hollow marker counts as the filled one."""
    (trace,) = [t for t in figure.data if t.mode == "lines+markers" and re.match(rf"{re.escape(name)}($| \()", t.name)]
    symbol = trace.marker.symbol if isinstance(trace.marker.symbol, str) else trace.marker.symbol[0]
    assert trace.marker.color == trace.line.color
    return trace.line.color, trace.line.dash or "solid", symbol.removesuffix("-open")


def look(of):
    return of.colour, of.dash, of.marker


@pytest.fixture(scope="module")
def neurons():
    folder = ROOT / "assets/demo-emotion-wavlm/run-ablate"
    report = read_json(folder / "neuron_ablation.json")["report"]
    return read_json(folder / "ablation_config.json"), read_csv(folder / "ablation_curve.csv"), report


@pytest.fixture(scope="module")
def heads():
    folder = ROOT / "assets/demo-events/run-heads"
    return heads_files.read(folder, json.loads((folder / "heads_config.json").read_text()))


@pytest.fixture(scope="module")
def steered():
    folder = ROOT / "assets/demo-emotion/run-steer"
    return steering_files.read(folder, json.loads((folder / "steering_config.json").read_text()))


def patching_frame():
    frame = metrics_frame()
    return pd.concat([frame, frame[frame["condition"] == "noise"].assign(condition="prefix")])


def test_every_condition_of_patching_looks_the_same_in_the_folder_and_on_the_page():
    frame = patching_frame()
    (axes,) = flip_rate_figure(frame, "t").axes
    page = patching_charts.flip_curve(frame, controls=("random", "noise", "no-conflict", "prefix"))
    for condition, of in looks.PATCHING.items():
        name = looks.ANY_CHANGE.name if condition == "no-conflict" else of.name
        assert in_file(axes, name) == on_page(page, name) == look(of), condition


def test_every_set_of_neurons_looks_the_same_in_the_folder_and_on_the_page(neurons):
    config, curve, report = neurons
    axes = dose_figure(config, curve, report).axes[0]
    page = neurons_charts.dose_response(curve, report, "head_ood", None)
    for name in SHOWN:
        of = looks.NEURONS[name]
        assert in_file(axes, of.name) == on_page(page, of.name) == look(of), name
    of = looks.NEURONS["matched"]  # on the page alone
    assert on_page(page, of.name) == look(of)


def test_every_condition_of_steering_looks_the_same_in_the_folder_and_on_the_page(steered):
    panel = next(
        axes for axes in dose_of_steering(steered.config, steered.dose).axes if axes.get_title()[:5] == "angry"
    )
    page = steering_charts.dose(steered.dose, "angry", best_layer(steered.dose, "angry"), 4.0)
    for name, of in looks.STEERING.items():
        assert in_file(panel, of.name) == on_page(page, of.name) == look(of), name


def test_probes_and_their_control_look_the_same_in_the_folder_and_on_the_page():
    folder = ROOT / "assets/demo-emotion/run-probes"
    made = probes_files.read(folder, json.loads((folder / "probes_config.json").read_text()))
    parts = [made.table.assign(site=site) for site in ("resid_post", "attn_out", "mlp_out")]
    table = pd.concat(parts, ignore_index=True)
    panel = next(axes for axes in curves_of_probes(made.config, table).axes if axes.get_title()[:7] == "prosody")
    page = probes_charts.curve(table, "prosody_label", "resid_post, last", 3)
    for name, of in looks.PROBES.items():
        assert in_file(panel, of.name) == on_page(page, of.name) == look(of), name


def test_blocks_and_stages_look_the_same_in_the_folder_and_on_the_page(heads):
    axes = heads.figure().axes[1]
    page = heads_charts.depth_curve(heads.points("block"), heads.points("stage"), 0)
    for name, of in looks.HEADS.items():
        assert in_file(axes, of.name) == on_page(page, of.name) == look(of), name


def test_random_neurons_of_a_sign_flip_look_the_same_in_the_folder_and_on_the_page():
    folder = ROOT / "assets/demo-emotion-wavlm/run-signflip"
    config, report = read_json(folder / "signflip_config.json"), read_json(folder / "signflip_report.json")
    changes = read_csv(folder / "proxy_changes.csv")
    of = looks.FLIPPED["random"]
    dotted = [line for line in proxy_figure(config, changes, report).axes[0].lines if line.get_linestyle() == ":"]
    assert dotted and {(line.get_color(), SIGNS[line.get_marker()]) for line in dotted} == {(of.colour, of.marker)}
    page = signflip_charts.curve(changes, report, "rms", report["layers"][0], report["layers"][0])
    assert on_page(page, of.name) == look(of)


def colours(figure):
    """name -> colour of every trace and shape, wherever plotly lets one be set."""
    found = set()
    for drawn in [*figure.data, *figure.layout.shapes, *figure.layout.annotations]:
        text = json.dumps(drawn.to_plotly_json(), default=str).upper()
        if B in text:
            found.add(str(drawn.name or drawn.type))
    return found


def test_nothing_but_b_wears_the_colour_of_b(neurons, heads):
    """On the page; in the folder's figures no B is drawn, so the colour is nowhere."""
    _, curve, report = neurons
    frame, points = patching_frame(), heads.points("head")
    bare = [
        patching_charts.flip_curve(frame, selected_layer=3),
        patching_charts.knockout_curve(knockout_frame(), selected_layer=3),
        patching_charts.dose_response(frame[frame["alpha"] == 1], 3),
        neurons_charts.dose_response(curve, report, "head_ood", 8),
        neurons_charts.trade_off(curve, report, 8),
        heads_charts.head_map(points, points["fisher_f"], "Fisher F", (0, 0)),
        heads_charts.depth_curve(heads.points("block"), heads.points("stage"), 1),
    ]
    assert [colours(figure) for figure in bare] == [set()] * len(bare)
    with_lens = patching_charts.flip_curve(frame[frame["alpha"] == 1], lens=lens_frame())
    assert colours(with_lens) == {"logit lens, B (n = 80)", "logit lens, B"}  # the curve, and its name at its end
    bars = label_logits(["a", "b"], [1, 0], [0, 1], [0, 2], "b")
    assert colours(bars) == {"B: <b>b</b>"}
    assert {name for name in ("base", "donor", "donor@L3") if compare_charts.look_of(name).colour == B} == {"donor"}
    worn = {(figure, name) for figure, all_of in FIGURES.items() for name, of in all_of.items() if of.colour == B}
    assert worn == {("patching", "lens of donor"), ("runs", "donor"), ("compared", "donor")}
    assert B not in looks.CATEGORIES


def test_a_is_blue_as_it_is_and_after_the_patch_and_no_module_has_colours_of_its_own():
    assert {looks.RUNS[run].colour for run in ("base", "patched")} == {looks.PATCHING["matched"].colour} == {looks.BLUE}
    palette = {*looks.STRENGTHS, looks.VERMILLION, looks.GREEN, looks.PURPLE, looks.OCHRE, looks.GREY}
    spelled = {
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("interp_core/**/*.py"), *ROOT.glob("components/**/*.py"), *ROOT.glob("pages/*.py")]
        if any(colour.upper() in path.read_text("utf-8").upper() for colour in palette)
    }
    assert spelled == {"interp_core/looks.py"}


@pytest.mark.parametrize("figure", FIGURES)
def test_within_a_figure_no_two_looks_share_a_marker_or_both_colour_and_dash(figure):
    for one, other in itertools.combinations(FIGURES[figure].values(), 2):
        assert one.marker != other.marker, (one, other)
        assert (one.colour, one.dash) != (other.colour, other.dash), (one, other)


def test_the_table_needs_neither_torch_nor_a_figure_library():
    code = "import sys, interp_core.looks; print({'torch', 'plotly', 'matplotlib', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == "set()"
