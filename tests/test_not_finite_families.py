"""Every family over a model that gives NaN or overflows, each under another experiment: one sentence, and no run.

All experiments of every family take too long here: `python -m benchmarks.not_finite` runs them.
"""

from pathlib import Path

import pytest
import torch

from benchmarks.not_finite import COMMANDS, HARMS, Family, names, verdict


@pytest.mark.parametrize("name", names())
def test_a_broken_model_of_every_family_ends_in_one_sentence(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    turn = names().index(name)
    family, harm = Family(name, tmp_path), list(HARMS)[turn % 3 == 0]  # float16 is slow on a CPU
    for number in range(len(COMMANDS)):  # the next one, where this one does not go with the model
        command = list(COMMANDS)[(turn + number) % len(COMMANDS)]
        kind, said = verdict(family, command, harm, tmp_path / command)
        assert kind != "fault", (command, harm, said)
        assert not (tmp_path / command).exists()
        if kind == "said":
            return
    raise AssertionError(f"no experiment goes with {name}")
