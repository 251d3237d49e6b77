"""Every figure that leaves the house says what it was made from: model and weights, n, seed, method, date."""

import pytest

from interp_core.api import open_run
from interp_core.experiments import EXPERIMENTS
from interp_core.models.bundled import ASSETS
from interp_core.runs import read_config

RUNS = sorted(path.parent for path in ASSETS.glob("*/run*/*_config.json"))


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_every_figure_of_every_shipped_run_carries_model_n_seed_and_method(folder):
    result = open_run(folder)
    found = {"the run's own": result.figure(), **result.figures()}
    for name, figure in found.items():
        said = " ".join(figure.get_supxlabel().split())
        assert f"seed {result.config['settings']['seed']}" in said, name
        assert f"weights {result.config['model']['weights_sha256'][:12]}" in said and result.model_name in said, name
        assert "n = " in said and result.method and result.method in said, name
        assert result.config["finished"][:10] in said, name


def test_every_experiment_ships_a_run_that_is_looked_at_here():
    assert {read_config(folder)["command"] for folder in RUNS} == set(EXPERIMENTS)
