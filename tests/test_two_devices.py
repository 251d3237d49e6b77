"""A model whose blocks lie on two devices gives the numbers that it gives on one, whatever the experiment does with it.

The devices are made up (two_devices.py): every operation between the two fails as on a machine with two GPUs. What
moves tensors from one to the other are accelerate's own hooks and, in the fast routes, Patchbay.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from interp_core.__main__ import main
from tests import two_devices
from tests.corpus import write_corpus
from tests.processes import Command, finished
from tests.tiny import save_qwen2_audio

ROOT = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?e-\d+|-?\d+\.\d+")
OF_THE_LAST_DIGIT = re.compile(r', "\w*sha256": "[0-9a-f]+"')
# torch's own engine of gradients knows of no second device of a made-up kind, so there the second one is the CPU.
COMMANDS: dict[str, tuple[str, str]] = {
    "patch": ("twin:1", "--kinds prosody --max-pairs 2 --batch-size 2 --words 3 --map time,back --windows 2"),
    "patch at heads": ("twin:1", "--kinds prosody --max-pairs 2 --site head_out --controls noise --flow none"),
    "patch --map heads": ("cpu", "--kinds prosody --max-pairs 2 --controls none --flow none --map heads --top-heads 2"),
    "heads": ("twin:1", "--label prosody_label --draws 19 --probes none --ablate zero,resample --batch-size 3"),
    "steer": ("twin:1", "--targets happy --layers 1,3 --draws 3 --alpha 1,4 --no-checks"),
    "ablate": ("cpu", "--domain speaker --at resid_post:1 --ks 2 --draws 2 --refits 0"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("two")
    save_qwen2_audio(folder / "model", n_layers=4)
    manifest = write_corpus(folder / "corpus")
    return ["--model", str(folder / "model"), "--manifest", str(manifest), "--device", "cpu"]


def run_split(arguments: list[str], second: str) -> Command:
    environment = {**os.environ, "SECOND": second, "OMP_NUM_THREADS": "1"}
    return finished(arguments, env=environment, program=two_devices.main)


def assert_alike(found: Path, expected: Path) -> int:
    """Compare the tables and records of two runs: words to the letter, numbers to 1e-4; how many numbers there were."""
    names = {path.name for path in expected.iterdir() if path.suffix in (".csv", ".jsonl")}
    assert names and names == {path.name for path in found.iterdir() if path.suffix in (".csv", ".jsonl")}
    seen = 0
    for name in sorted(names):
        texts = [OF_THE_LAST_DIGIT.sub("", (folder / name).read_text()) for folder in (found, expected)]
        assert NUMBER.sub("#", texts[0]) == NUMBER.sub("#", texts[1]), name
        numbers = [[float(n) for n in NUMBER.findall(text)] for text in texts]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-4, rel=1e-4), name
        seen += len(numbers[0])
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_an_experiment_over_two_devices_ends_with_the_numbers_of_one(
    name: str, shared: list[str], tmp_path: Path
) -> None:
    second, options = COMMANDS[name]
    arguments = [name.split()[0], *shared, *options.split()]
    split = run_split([*arguments, "--out", str(tmp_path / "split")], second)
    assert split.returncode == 0, split.communicate()[1][-2000:]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    assert assert_alike(tmp_path / "split", tmp_path / "whole") > 50


def test_between_the_two_devices_nothing_is_added_up_unasked() -> None:
    """The control: without it the tests above could not fail."""
    added = "torch.ones(2).to('twin:0') + torch.ones(2).to('twin:1')"
    code = f"import torch; from tests.two_devices import set_up; set_up(); {added}"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1 and "Expected all tensors to be on the same device" in found.stderr
