"""How much work a run does: the block-positions of every block call, there and back, as hooks count them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from interp_core.experiments.cost import WAY_BACK
from interp_core.models.subject import Subject


class Counter:
    """Block-positions so far: of every block call that runs to its end its rows times its positions, with padding."""

    def __init__(self):
        self.work = 0.0

    def __call__(self, _module, args, kwargs, output):
        rows, positions, _ = (args[0] if args else kwargs["hidden_states"]).shape
        self.work += rows * positions
        left = output if torch.is_tensor(output) else output[0]
        if left.requires_grad:
            left.register_hook(lambda _: self.back(rows * positions))

    def back(self, positions):
        self.work += WAY_BACK * positions


@contextmanager
def counted(*subjects: Subject) -> Iterator[Counter]:
    """Count what the blocks of some models do."""
    counter = Counter()
    blocks = {block: None for subject in subjects for block in subject.blocks}
    handles = [block.register_forward_hook(counter, with_kwargs=True) for block in blocks]
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


def passes(subject: Subject, work: float, lengths: Sequence[int]) -> float:
    """Block-positions in passes of clips with so many positions on average."""
    return work / (subject.n_layers * sum(lengths) / len(lengths))
