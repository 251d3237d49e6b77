"""The notebook of the docs runs from top to bottom, on the bundled demo, and shows what it says."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The outputs of each code cell after a run from top to bottom."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[output for output in cell.outputs if output.output_type != "stream"] for cell in cells]


@pytest.mark.slow
def test_the_notebook_runs_and_its_objects_show_themselves(shown):
    run, curve, figure, saved, command = shown
    line = run[0].data["text/plain"]
    assert line.startswith("<PatchingResult demo-emotion: metrics ") and "\n" not in line
    assert "<table" in run[0].data["text/html"], "the first rows of the metrics"
    assert "flip_to_target_rate" in curve[0].data["text/plain"]
    assert figure[0].data["image/png"], "a figure is drawn, not named"
    assert saved[0].data["text/plain"].startswith("<PatchingResult demo-emotion")
    assert "--model=demo-emotion --pilot=4 --kinds=prosody" in command[0].data["text/plain"]


def test_the_notebook_is_kept_without_outputs():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
