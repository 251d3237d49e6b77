"""A bundled demo in miniature for the pages Neurons and Sign flip: a random encoder, made-up clips, both saved runs."""

import json
from pathlib import Path

from interp_core.engine import Engine
from interp_core.experiments.experiment import run
from interp_core.experiments.neurons.experiment import NEURONS
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.signflip.experiment import SIGNFLIP
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.models import bundled
from tests.experiments.neuron_clips import write_clips, write_model
from tests.families.encoders import EMOTIONS

NAME = "demo-emotion-wavlm"


def write_demo(assets: Path) -> Path:
    """Write the folder `assets`, as bundled.ASSETS would name it."""
    folder = assets / NAME
    write_clips(folder, texts=12).rename(folder / "manifest.csv")
    write_model(folder / "model")
    about = {
        "title": "Tiny",
        "description": "A random encoder.",
        "labels": list(EMOTIONS),
        "task": "prosody_label",
        "domain": "speaker",
        "train": "split=train",
        "id": "split=id_val",
        "ood": "split=ood",
        "planted": "a hum under every angry voice",
    }
    (folder / "demo.json").write_text(json.dumps(about))
    before, bundled.ASSETS = bundled.ASSETS, assets
    bundled.demos.cache_clear()
    try:
        engine = Engine()
        run(NEURONS, engine, AblateRequest(NAME, units="text_id", draws=10, refits=1), out=folder / "run-ablate")
        run(
            SIGNFLIP, engine, SignflipRequest(NAME, units="text_id", frames="all", draws=4), out=folder / "run-signflip"
        )
    finally:
        bundled.ASSETS = before
        bundled.demos.cache_clear()
    return assets
