"""A whole bundled demo in miniature: a random model, made-up recordings, a saved run. For tests of the dashboard."""

import json
from pathlib import Path

from interp_core.engine import Engine
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models import bundled
from tests.corpus import write_corpus
from tests.tiny import LABELS, save_qwen2_audio

NAME = "demo-tiny"
PROMPTS = {
    "default": "What is the emotion of this audio?",
    "words": "Answer with exactly one word: neutral, happy, sad, angry, or surprised.",
}
MAX_PAIRS = 8
N_LAYERS = 4


def write_demo(assets: Path) -> Path:
    """Write the folder `assets`, as bundled.ASSETS would name it, with one demo and its saved run in it."""
    folder = assets / NAME
    save_qwen2_audio(folder / "model", n_layers=N_LAYERS)
    write_corpus(folder).rename(folder / "manifest.csv")
    about = {
        "title": "Tiny",
        "description": "A random model that nobody <b>trained</b>.",
        "labels": list(LABELS),
        "prompts": [{"name": name, "text": text} for name, text in PROMPTS.items()],
    }
    (folder / "demo.json").write_text(json.dumps(about))
    before, bundled.ASSETS = bundled.ASSETS, assets
    bundled.demos.cache_clear()
    try:
        run(PATCHING, Engine(), PatchRequest(NAME, max_pairs=MAX_PAIRS, alphas=(1.0, 0.5)), out=folder / "run")
    finally:
        bundled.ASSETS = before
        bundled.demos.cache_clear()
    return assets
