"""What a neuron ablation costs beside making its features: 512 neurons, 8 doses, 100 random draws of each sort.

    python benchmarks/ablation.py                # 1,500 pictures of 96 x 96 through a ResNet-18: two minutes
    python benchmarks/ablation.py --samples 300  # quicker; the ratio is another one

The plain pass is the library's own forward over all samples, in batches, with nothing kept but the logits. The sweep is
`run_sweep` with everything that it does but fitting probes again: ranking, sets, the head on every set, frozen probes,
intervals, verdict. Process CPU time, one thread. Exit code 1 where the sweep takes more than 3 plain passes.
"""

import argparse
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from interp_core.experiments.clips import Collected
from interp_core.experiments.downstream import TailDownstream
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.sweep import Table, run_sweep
from interp_core.models.labels import LabelTokens

MOST = 3.0
LABELS = LabelTokens(("normal", "tumor"), (0, 1), {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], embedding_size=64, num_labels=2
    )
    model = ResNetForImageClassification(config).eval().requires_grad_(False)
    pictures = torch.randn(arguments.samples, 3, 96, 96)

    started = time.process_time()
    logits, pooled = [], []
    with torch.inference_mode():
        for part in pictures.split(50):
            features = model.resnet(part).pooler_output
            pooled.append(features.flatten(1))
            logits.append(model.classifier(features))
    plain = time.process_time() - started

    table, collected = made_up(torch.cat(pooled), torch.cat(logits))
    rest = TailDownstream(SimpleNamespace(lock=nullcontext()), collected, [model.classifier], True, LABELS)  # type: ignore[arg-type]
    impact = model.classifier[1].weight.norm(dim=0).numpy() * table.features.std(0).numpy()
    settings = AblateRequest(draws=arguments.draws, refits=0)
    started = time.process_time()
    found = run_sweep(table, rest, impact.astype(np.float64), settings, config={})
    spent = time.process_time() - started
    print(
        f"{arguments.samples} samples, {table.features.shape[1]} neurons, doses {found.report['doses']}, "
        f"{found.report['ablations']} sets: plain pass {plain:.1f} s, sweep {spent:.1f} s, ratio {spent / plain:.2f} "
        f"(allowed {MOST:g}); torch {torch.__version__}"
    )
    return int(spent > MOST * plain)


def made_up(features: torch.Tensor, logits: torch.Tensor) -> tuple[Table, Collected]:
    """A third of the samples in each split, labels at random: what they are changes no cost."""
    n, rng = len(features), np.random.default_rng(0)
    split, domain = np.arange(n) % 3, rng.integers(0, 3, n)
    rows = [np.flatnonzero(split == part) for part in range(3)]
    table = Table(
        features=features,
        answers=logits.argmax(-1).numpy(),
        labels=LABELS.labels,
        ids=np.arange(n).astype(str),
        task=np.asarray(LABELS.labels)[rng.integers(0, 2, n)],
        domain=domain.astype(str),
        units=(np.arange(n) // 30).astype(str),
        train=rows[0],
        id=rows[1],
        ood=rows[2],
    )
    return table, Collected((), features, logits)


if __name__ == "__main__":
    sys.exit(main())
