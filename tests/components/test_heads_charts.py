"""The map of heads: what stands in a cell is the number that its label names."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from components.heads.charts import MARK, head_map
from components.heads.words import head_sentence


def heads(values: list[float]) -> pd.DataFrame:
    """Two layers of two heads."""
    return pd.DataFrame(
        {
            "layer": [0, 0, 1, 1],
            "head": [0, 1, 0, 1],
            "name": ["L0 H0", "L0 H1", "L1 H0", "L1 H1"],
            "fisher_f": values,
            "fisher_f_low": np.nan,
            "fisher_f_high": np.nan,
            "p_adjusted": [0.01, 1.0, 1.0, np.nan],
        }
    )


def test_cells_hold_f_itself_while_their_colours_follow_its_logarithm():
    values = [108.19, 2.03, 0.5, 1.0]
    figure = head_map(heads(values), values, "Fisher F", None)
    written = next(trace for trace in figure.data if trace.name == "numbers")
    assert list(written.text) == [f"108{MARK}", "2.03", "0.5", "1"]
    colours = next(trace for trace in figure.data if trace.type == "heatmap")
    np.testing.assert_allclose(np.ravel(colours.z), np.log10(values))


def test_other_views_are_written_as_they_are():
    values = [0.25, -0.5, 0.0, 1.0]
    figure = head_map(heads([1.0] * 4), values, "Probe", None)
    written = next(trace for trace in figure.data if trace.name == "numbers")
    assert list(written.text) == [f"0.25{MARK}", "-0.50", "0.00", "1.00"]


def test_the_sentence_of_a_head_says_what_its_live_dimensions_give_and_an_older_runs_says_nothing_of_them():
    rows = heads([4.0, 0.3, 0.0, 1.0]).assign(
        width=16, live_dims=[16, 1, 0, 16], fisher_f_live=[4.0, 4.8, np.nan, 1.0], probe_accuracy=np.nan
    )
    result = SimpleNamespace(points=lambda granularity: rows)
    whole, partly, none, _ = (head_sentence(result, row) for _, row in rows.iterrows())
    assert "0.30 times as well as labels without meaning, 4.80 over the 1 of 16 dimensions that vary;" in partly
    assert "none of its 16 dimensions varies" in none and "nan" not in none
    assert "dimension" not in whole
    older = rows.drop(columns=["fisher_f_live", "live_dims"])
    assert not any("dimension" in head_sentence(result, row) for _, row in older.iterrows())
    with pytest.raises(KeyError):  # control: a column that every run has
        head_sentence(result, older.drop(columns="fisher_f").iloc[0])
