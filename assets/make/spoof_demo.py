"""Makes assets/demo-spoof-erm and assets/demo-spoof-dann again: recordings, four checkpoints, numbers.

    apt-get install libespeak-ng1 espeak-ng-data flite festival festvox-kdlpc16k festvox-italp16k festvox-itapc16k \\
        festvox-us-slt-hts festvox-ru                                # Debian 12: the synthesisers
    mkdir debs && cd debs && apt-get download asterisk-core-sounds-{en,fr,it,es,ru}-wav asterisk-prompt-it-menardi-wav
    PYTHONPATH=. python assets/make/spoof_demo.py --debs debs        # 2 free cores: about 20 minutes

Needs what requirements.txt installs and 8 GB of memory. Recordings come out equal with one version of the packages and
of libsndfile; weights do not on another processor. DATA_CARD.md is written by hand: put the numbers of the new
metrics.json in it.
"""

import argparse
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# Two OpenMP threads that spin while they wait for a third process can be 10 times slower; set before torch comes in.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import spoof_report as report
import torch
from spoof_clips import chosen_clips, write_clips, write_manifest
from spoof_codecs import CODECS, QUALITIES
from spoof_data import MODEL_RATE, SECONDS, Utterance, balanced, code_all, model_input, utterances
from spoof_train import BATCH, N_LAYERS, SIZES, WIDTH, Corpus, convolved, layout, pretrain, train

from interp_core.models.countermeasure.checkpoint import load_countermeasure
from interp_core.models.countermeasure.net import CountermeasureNet

ASSETS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """One checkpoint: where it goes below assets, and how it is trained."""

    folder: str
    dann: bool
    frozen: bool
    reads_pooled: bool
    steps: int
    rate: float
    strength: float = 0.0
    """Of the reversed gradient, once warmed up."""


RUNS = (
    Run("demo-spoof-erm/tuned", dann=False, frozen=False, reads_pooled=True, steps=600, rate=1e-3),
    Run("demo-spoof-dann/tuned", dann=True, frozen=False, reads_pooled=True, steps=600, rate=1e-3, strength=1.0),
    Run("demo-spoof-erm/frozen", dann=False, frozen=True, reads_pooled=True, steps=600, rate=1e-3),
    Run("demo-spoof-dann/frozen", dann=True, frozen=True, reads_pooled=False, steps=600, rate=1e-3, strength=3.0),
)
SEED = 1
JUDGED = {"bonafide": 240, "spoof": 400}  # held-out utterances that are measured, at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debs", type=Path, required=True, help="folder with the downloaded packages of prompts")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write both demos to (default: %(default)s)")
    parser.add_argument("--pretraining", type=int, default=400, help="steps (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(2)

    everything = utterances(arguments.debs)
    held_out = [u for u in everything if u.held_out]
    clips = chosen_clips(held_out)
    write_clips(clips, code_all(clips), arguments.out / "demo-spoof-erm")
    write_manifest(clips, arguments.out / "demo-spoof-erm")
    write_manifest(clips, arguments.out / "demo-spoof-dann", "../demo-spoof-erm/")

    corpus = training_corpus([u for u in everything if not u.held_out])
    backbone = pretrain(corpus, steps=arguments.pretraining, seed=SEED)
    corpus = convolved(corpus, backbone)
    judged = [u for label, n in JUDGED.items() for u in balanced([h for h in held_out if h.label == label], n, SEED)]
    versions = code_all(judged)
    for run in RUNS:
        shape = layout(dann=run.dann, frozen=run.frozen, reads_pooled=run.reads_pooled)
        net = train(corpus, backbone, shape=shape, strength=run.strength, steps=run.steps, seed=SEED, rate=run.rate)
        save(net, config_of(run), arguments.out / run.folder, epoch=run.steps * BATCH // len(corpus.utterances))
    write_metrics(arguments.out, judged, versions, clips)


def training_corpus(trained: list[Utterance]) -> Corpus:
    versions = [(model_input(rows) * 32768).round().clip(-32768, 32767).astype(np.int16) for rows in code_all(trained)]
    return Corpus(trained, torch.from_numpy(np.stack(versions)))


def config_of(run: Run) -> dict:
    """The run's config, with the thesis code's keys."""
    dann = {
        "lambda_": run.strength,
        "lambda_schedule": {"enabled": True, "type": "exponential", "start": 0.0, "end": run.strength},
        "discriminator": {"input_dim": 2 * WIDTH if run.reads_pooled else 32, "hidden_dim": 64, "dropout": 0.1},
    }
    config = {
        "backbone": {
            "name": "wavlm_tiny",
            "pretrained": None,
            "num_layers": N_LAYERS,
            "hidden_size": WIDTH,
            "freeze": run.frozen,
            "layer_selection": {"method": "weighted", "k": N_LAYERS, "init_lower_bias": True},
            "hf_config": dict(SIZES),
        },
        "pooling": {"method": "stats"},
        "projection": {"input_dim": 2 * WIDTH, "hidden_dim": 64, "output_dim": 32, "num_layers": 2, "dropout": 0.1},
        "classifier": {"input_dim": 32, "num_classes": 2, "hidden_dim": 0, "dropout": 0.1},
        "training": {"method": "dann" if run.dann else "erm", "optimizer": {"name": "adamw", "lr": run.rate}},
        "augmentation": {"enabled": True, "codecs": list(CODECS[1:]), "qualities": [1, 2]},
        "audio": {"sample_rate": MODEL_RATE, "max_duration_sec": SECONDS},
        "seed": SEED,
    }
    return config | ({"dann": dann} if run.dann else {})


def save(net: CountermeasureNet, config: dict, folder: Path, epoch: int) -> None:
    """Write a run folder as the thesis code does, weights in float16; metrics come in once they are measured."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = {
        "epoch": epoch,
        "model_state_dict": {name: tensor.half() for name, tensor in net.state_dict().items()},
        "optimizer_state_dict": {},
        "metrics": {},
        "timestamp": datetime.now().isoformat(timespec="seconds"),
        "config": config,
    }
    torch.save(checkpoint, folder / "best.pt")
    (folder / "config_resolved.yaml").write_text(as_yaml(config))
    for file, names in (("codec_vocab.json", CODECS), ("codec_q_vocab.json", QUALITIES)):
        (folder / file).write_text(json.dumps({name: i for i, name in enumerate(names)}, indent=2) + "\n")


def as_yaml(config: dict, indent: str = "") -> str:
    """Nested dicts as YAML; lists and plain values are written as JSON, which YAML contains."""
    lines = []
    for key, value in config.items():
        nested = isinstance(value, dict)
        lines.append(
            f"{indent}{key}:\n{as_yaml(value, indent + '  ')}" if nested else f"{indent}{key}: {json.dumps(value)}\n"
        )
    return "".join(lines)


def write_metrics(out: Path, judged: list[Utterance], versions: np.ndarray, clips: list[Utterance]) -> None:
    """Load the written checkpoints as anybody would, measure them, and note the error rate in each."""
    shipped = code_all(clips)
    for demo in ("demo-spoof-erm", "demo-spoof-dann"):
        metrics: dict = {"counts": report.counts(judged), "versions": report.versions_used(), "runs": {}}
        for name in (run.folder for run in RUNS if run.folder.startswith(demo)):
            net = load_countermeasure(out / name).net
            found = report.measure(net, judged, versions)
            found["shipped_clips_eer"] = report.measure(net, clips, shipped)["eer"]
            metrics["runs"][name.partition("/")[2]] = found | {"layer_mix": report.mix(net)}
            checkpoint = torch.load(out / name / "best.pt", weights_only=True)
            checkpoint["metrics"] = {"eer": found["eer"]["all"]}
            torch.save(checkpoint, out / name / "best.pt")
        (out / demo / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
