"""Opening a large checkpoint in half precision costs its weights, and not a float32 copy of them on the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2AudioForConditionalGeneration

from tests.tiny import save_qwen2_audio

ROOT = Path(__file__).resolve().parents[2]
MEASURE = """
import gc, json, sys
from pathlib import Path
from interp_core.models.load import open_model

def status(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024

small, large, dtype = sys.argv[1:]
open_model(small, device="cpu", dtype=dtype)  # what the first opening imports is no weight
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # from here on the high-water mark counts anew
before = status("VmRSS")
subject = open_model(large, device="cpu", dtype=dtype)
weights = list(subject.hf.parameters())
for weight in weights:
    weight.view(-1)[::1024].sum()  # a mapped file takes memory only once it is read
print(json.dumps({"peak": status("VmHWM") - before, "weights": sum(w.nbytes for w in weights)}))
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 folder of about 150 MB in shards of 30, as large models are published."""
    whole, folder = tmp_path_factory.mktemp("large") / "whole", tmp_path_factory.mktemp("large") / "model"
    save_qwen2_audio(whole, n_layers=6, d_model=1024, n_heads=8, n_kv_heads=8, dtype=torch.bfloat16)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(whole, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="30MB")
    for file in whole.iterdir():
        if file.suffix in (".json", ".jinja") and not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


def measured(small: Path, large: Path, dtype: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(large), dtype],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures by Linux' own high-water mark")
def test_half_precision_weights_are_opened_within_their_own_size_and_a_fifth(tiny_folder: Path, sharded: Path) -> None:
    half, whole = (measured(tiny_folder, sharded, dtype) for dtype in ("bfloat16", "float32"))
    assert half["weights"] > 100e6
    assert 0.9 * half["weights"] < half["peak"] <= 1.2 * half["weights"], half
    # Control: the measure would see a copy, here the float32 weights that are made beside the file's halves.
    assert whole["weights"] == 2 * half["weights"] and whole["peak"] > 2.2 * half["weights"], whole
