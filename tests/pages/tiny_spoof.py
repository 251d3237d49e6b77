"""The bundled pair of countermeasures in miniature: two checkpoints of one shape, twice, and utterances in codecs."""

import json
from pathlib import Path

import torch

from interp_core.engine import Engine
from interp_core.experiments.compare.experiment import COMPARE
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.experiment import run as run_experiment
from interp_core.models import bundled
from tests.spoof_pairs import CODECS, save_pair, write_spoof_corpus

BASE, DONOR = "demo-spoof-erm", "demo-spoof-dann"
PAIRS = ("fine-tuned", "shared backbone")


def write_spoof_demo(assets: Path, *, run: bool = True, speakers: int = 6) -> Path:
    """Write the folder `assets` with both demos in it, and a saved run of the fine-tuned pair."""
    for name in (BASE, DONOR):
        write_spoof_corpus(assets / name, speakers=speakers, utterances=1, codecs=CODECS[:2])
        about = {"title": name, "description": "A random countermeasure that nobody trained.", "model": "tuned.pt"}
        if name == BASE:
            about["compare"] = [
                {"name": PAIRS[0], "base": BASE, "donor": DONOR, "about": "Both backbones were trained further."},
                {"name": PAIRS[1], "base": "frozen.pt", "donor": f"../{DONOR}/frozen.pt"},
            ]
        (assets / name / "demo.json").write_text(json.dumps(about))
    for kind, (mine, theirs) in {kind: save_pair(assets / "made", kind) for kind in ("tuned", "frozen")}.items():
        mine.rename(assets / BASE / f"{kind}.pt")
        theirs.rename(assets / DONOR / f"{kind}.pt")
    if run:
        torch.set_num_threads(1)
        before, bundled.ASSETS = bundled.ASSETS, assets
        bundled.demos.cache_clear()
        try:
            request = CompareRequest(BASE, probe_draws=0, maps=("mean",))
            run_experiment(COMPARE, Engine(), request, out=assets / BASE / "run-compare")
        finally:
            bundled.ASSETS = before
            bundled.demos.cache_clear()
    return assets
