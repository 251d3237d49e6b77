"""Damaged run folders beside good ones: every page still opens, and none says more than a sentence."""

import shutil

import pytest

from components import server as running
from components import shown
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models import bundled
from interp_core.storage import read_json
from tests.pages.conftest import ROOT, faults
from tests.pages.tiny_demo import MAX_PAIRS, NAME

SHIPPED = sorted((ROOT / "assets").glob("demo-*/run*"))
PAGES = sorted(path.name for path in (ROOT / "pages").glob("*.py"))
UNEXPECTED = "Something went wrong"


def empty(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")


def cut(folder):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose(folder):
    for path in folder.iterdir():
        if not path.name.endswith("_config.json"):
            path.unlink()


def swap(folder):
    for path in folder.iterdir():
        if not path.name.endswith("_config.json"):
            path.unlink()
            path.mkdir()


@pytest.mark.slow
def test_every_page_opens_beside_damaged_runs_of_all_experiments(open_app, server):
    for harm in (empty, cut, lose, swap):
        for number, run in enumerate(SHIPPED):
            made = server / "runs" / f"{harm.__name__}-{number}"
            shutil.copytree(run, made)
            harm(made)
    at = open_app()
    for page in PAGES:
        at = at.switch_page(str(ROOT / "pages" / page)).run()
        assert not at.exception and not any(UNEXPECTED in fault for fault in faults(at)), (page, faults(at))


@pytest.mark.parametrize("harm", [empty, cut, lose, swap], ids=lambda one: one.__name__)
def test_a_damaged_folder_of_the_very_run_that_is_set_does_not_take_the_page_down(open_app, server, harm):
    saved = bundled.demos()[NAME].saved_runs[0]
    asked = PatchRequest(NAME, max_pairs=MAX_PAIRS, alphas=(1.0, 0.5))
    key = running.engine().key_of(asked)
    folder = server / "runs" / asked.folder_of(key)
    shutil.copytree(saved, folder)
    assert read_json(next(folder.glob("*_config.json")))["finished"]
    harm(folder)
    at = open_app()
    assert not at.exception and not any(UNEXPECTED in fault for fault in faults(at)), faults(at)
    found = shown.current(asked, key)
    assert found is not None and found.source == "shipped", "the damaged one is passed over"
