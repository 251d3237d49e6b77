"""Features in which it is known which neurons carry the domain, which the task, and which only follow one of them."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from interp_core.data.clips import Clip
from interp_core.experiments.clips import Collected
from interp_core.experiments.downstream import TailDownstream
from interp_core.experiments.neurons.sweep import Table
from interp_core.models.labels import LabelTokens

WIDTH, N_PLANTED = 128, 8
SHORTCUT, TASK = np.arange(8), np.arange(8, 16)
LABELS = LabelTokens(("no", "yes"), (0, 1), {})


def planted(seed=0, *, shortcut=True, per_split=400, units=40):
    """(table, head): four domains in train and id, a fifth out of domain that shifts the shortcut neurons.

    The head, a linear map, reads the task neurons and, where there is a shortcut, leans on its neurons too. Sixteen
    distractors follow shortcut neurons and sixteen follow task neurons, with noise of their own.
    """
    rng = np.random.default_rng(seed)
    n = 3 * per_split
    split = np.repeat([0, 1, 2], per_split)
    task = rng.integers(0, 2, n)
    domain = np.where(split == 2, 4, rng.integers(0, 4, n))
    x = rng.normal(size=(n, WIDTH))
    # Every shortcut neuron has a level of its own for each domain, so that all of them are worth as much.
    places = np.stack([rng.permutation([-1.5, -0.5, 0.5, 1.5]) for _ in range(N_PLANTED)], axis=1)
    places = np.vstack(
        [places, np.full(N_PLANTED, 2.5)]
    )  # out of domain: far off, in the direction that the head leans
    x[:, TASK] += 1.1 * np.where(task[:, None] == 1, 1, -1)
    if shortcut:
        x[:, SHORTCUT] = places[domain] + rng.normal(size=(n, N_PLANTED))
    for i in range(16):
        x[:, 16 + i] = 0.6 * x[:, SHORTCUT[i % 8]] + rng.normal(size=n)
        x[:, 32 + i] = 0.6 * x[:, TASK[i % 8]] + rng.normal(size=n)
    head = nn.Linear(WIDTH, 2).requires_grad_(False)
    head.weight.zero_(), head.bias.zero_()
    head.weight[1, TASK] = 1.0
    head.weight[1, SHORTCUT] = 0.5
    head.weight[1, 48:] = 0.1 * torch.randn(WIDTH - 48, generator=torch.Generator().manual_seed(seed))
    features = torch.from_numpy(x).float()
    rows = [np.flatnonzero(split == part) for part in range(3)]
    table = Table(
        features=features,
        answers=head(features).argmax(-1).numpy(),
        labels=LABELS.labels,
        ids=np.array([f"c{i}" for i in range(n)]),
        task=np.where(task == 1, "yes", "no"),
        domain=np.array([f"d{d}" for d in domain]),
        units=np.array([f"u{split[i]}-{i % units}" for i in range(n)]),
        train=rows[0],
        id=rows[1],
        ood=rows[2],
    )
    return table, head


def rest_of(table, *modules, image=False):
    """What follows the features: these modules alone."""
    clips = tuple(Clip(name, Path(name), {}, name) for name in table.ids)
    collected = Collected(clips, table.features, torch.zeros(len(clips), 2))
    return TailDownstream(SimpleNamespace(lock=nullcontext()), collected, modules, image, LABELS)


def impact_of(table, head):
    return head.weight.norm(dim=0).numpy() * table.features[table.train].std(0).numpy()
