"""Makes assets/demo-events again: recordings, model, clips, numbers. Run from anywhere:

    apt-get download tuxpaint-stamps-default gcompris-qt-data sonic-pi-samples hydrogen-drumkits fluid-soundfont-gm \\
        bucklespring-data sound-icons sound-theme-freedesktop          # Debian 12; nothing has to be installed
    for f in *.deb; do dpkg -x "$f" root; done
    python assets/make/events_make.py root                             # a few minutes on one free core

Needs what requirements.txt installs. Which clips ship, and where the sound stands in them, follows from names alone.
DATA_CARD.md is written by hand: put the numbers of a new metrics.json in it.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
from typing import Any

import numpy as np
import soundfile
import torch
from events_sounds import RATE, LogMel, fixed_clip
from events_sources import CLASSES, Recording, recordings
from events_train import answers, build_extractor, build_model, train
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "assets" / "demo-events"
HELD_OUT, TRAINING = 12, 8  # clips of a class that ship
SHIPPED = ("GPL-2", "GPL-2+", "CC-BY", "CC0", "MIT")  # licences, by their beginnings; of AGPL sounds none ships
DEMO = {
    "title": "Sounds: animals, drums, things, strings, speech, wind",
    "description": "A small HTS-AT (1.7 million parameters; the published 184 heads, a quarter as wide) trained on "
    "some 800 recordings of six kinds of sound. It has no classifier: a probe of its clips' labels is its readout.",
    "labels": list(CLASSES),
    "prompts": [],
    "probe": "label",
    "kinds": "same=split,differ=label",
    "site": "attn_out",
    "positions": "all",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the folder that the packages were unpacked into")
    parser.add_argument("--minutes", type=float, default=7, help="of processor time for the training")
    parser.add_argument("--weights", type=Path, help="weights that a training has left, instead of a new one")
    parser.add_argument("--keep", type=Path, help="leave the weights of the training here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = recordings(args.root)
    say(f"{len(found)} recordings")
    if args.weights is not None:
        model, head = build_model(), nn.Linear(build_model().config.hidden_size, len(CLASSES))
        for module, state in zip((model, head), torch.load(args.weights, weights_only=True), strict=True):
            module.load_state_dict(state)
    else:
        model, head = train(found, minutes=args.minutes, say=say)
    if args.keep is not None:
        torch.save((model.state_dict(), head.state_dict()), args.keep)
    for old in ("model", "clips"):
        shutil.rmtree(FOLDER / old, ignore_errors=True)
    model.half().save_pretrained(FOLDER / "model")
    build_extractor().save_pretrained(FOLDER / "model")
    write_clips(found)
    (FOLDER / "demo.json").write_text(json.dumps(DEMO, indent=2) + "\n")
    metrics = measure(found, model.float().eval(), head.eval())
    (FOLDER / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    say(json.dumps(metrics, indent=2))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spread(found: Sequence[Recording], most: int) -> list[Recording]:
    """At most so many recordings, one of each group in turn."""
    groups = defaultdict(list)
    for one in found:
        groups[one.group].append(one)
    chosen: list[Recording] = []
    for turn in range(most):
        # From the middle of each group on: its first names are often its quietest takes.
        chosen += [takes[(len(takes) // 2 + turn) % len(takes)] for takes in groups.values() if turn < len(takes)]
    return chosen[:most]


def write_clips(found: Sequence[Recording]) -> None:
    """Write the clips that ship and their manifest."""
    (FOLDER / "clips").mkdir(parents=True)
    rows = ["clip_id,path,label,group,split,source,licence"]
    for label in CLASSES:
        for training, most in ((False, HELD_OUT), (True, TRAINING)):
            free = [r for r in found if (r.label, r.training) == (label, training) and r.licence.startswith(SHIPPED)]
            for one in spread(free, most):
                name = re.sub(r"[^a-z0-9]+", "-", f"{label} {one.group} {one.name}".lower()).strip("-")
                soundfile.write(FOLDER / "clips" / f"{name}.ogg", fixed_clip(one), RATE, format="OGG", subtype="VORBIS")
                split = "train" if training else "held-out"
                rows.append(f"{name},clips/{name}.ogg,{label},{one.group},{split},{one.package},{one.licence}")
    (FOLDER / "manifest.csv").write_text("\n".join(rows) + "\n")


def measure(found: Sequence[Recording], model: Any, head: nn.Linear) -> dict:
    """How often the training's own linear layer is right, and the probe that the demo is read by."""
    mel = LogMel(build_extractor())
    metrics: dict = {"chance": round(1 / len(CLASSES), 4), "trained_head": {}}
    for name, training in (("held_out_recordings", False), ("training_recordings", True)):
        some = [one for one in found if one.training == training]
        right = answers(model, head, mel, some) == np.array([CLASSES.index(one.label) for one in some])
        by_class = {c: [bool(r) for r, one in zip(right, some, strict=True) if one.label == c] for c in CLASSES}
        metrics["trained_head"][name] = {
            "n": len(some),
            "balanced_accuracy": round(float(np.mean([np.mean(rights) for rights in by_class.values()])), 4),
            "by_class": {c: [sum(rights), len(rights)] for c, rights in by_class.items()},
        }
    sys.path.insert(0, str(ROOT))
    from interp_core.engine import Engine
    from interp_core.experiments.heads.ablate import Task, ablate
    from interp_core.experiments.heads.request import HeadsRequest
    from interp_core.experiments.heads.run import draw
    from interp_core.models import bundled

    bundled.demos.cache_clear()
    engine, asked = Engine(), HeadsRequest("demo-events", device="cpu")
    store = engine.store(asked)
    drawn = draw(engine.manifest(asked).clips, asked)
    task = Task.of(store, "", drawn.labels, drawn.groups)
    rows = ablate(store, drawn.clips, task, [(0, 0)], ["zero"])
    probe = store.subject.probe
    assert probe is not None, "the demo is a probe on a frozen tower"
    metrics["shipped_clips"] = {
        "probe": dict(probe.report),
        "held_out": len(drawn.clips),
        "groups": int(rows["n_groups"][0]),
        "accuracy": round(float(rows["base_accuracy"][0]), 4),
    }
    metrics["parameters"] = sum(p.numel() for p in model.parameters())
    metrics["versions"] = {name: version(name) for name in ("torch", "transformers", "numpy", "scipy", "soundfile")}
    return metrics


if __name__ == "__main__":
    main()
