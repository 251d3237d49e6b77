"""Published countermeasures in a comparison: a mix of two halves, gates, and parts that are told apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_core.experiments.compare.run import Comparison
from tests.experiments.compare_cases import QUICK, asked, compared
from tests.families.detectors import state, write
from tests.spoof_pairs import write_spoof_corpus


def logits_of(made: Comparison, model: str) -> np.ndarray:
    rows = made.scores[made.scores["model"] == model]
    return rows[[f"logit_{label}" for label in made.labels]].to_numpy()


@pytest.mark.parametrize("name", ["detector-sls", "detector-mhfa-wavlm", "detector-ssl-aasist", "detector-hubert"])
def test_behind_the_changed_layer_every_transplant_gives_the_donors_answer(name: str, tmp_path: Path) -> None:
    """Two models that differ in their trunk's last layer alone: what stands behind it is the donor's to the last bit of
    the answer, and what stands before it is the base's."""
    base, donor = write(name, tmp_path / "base"), write(name, tmp_path / "donor")
    weights = state(name)
    made = torch.Generator().manual_seed(1)
    for key, value in weights.items():
        if ".layers.2." in key:
            weights[key] = value + 0.1 * torch.randn(value.shape, generator=made)
    torch.save(weights, donor)
    manifest = write_spoof_corpus(tmp_path / "clips", speakers=2, utterances=1, codecs=("NONE",))
    found = compared(asked(base, donor, manifest, replace(QUICK, patch=("each",))))
    mine, theirs = logits_of(found, "base"), logits_of(found, "donor")
    assert np.abs(mine - theirs).max() > 1e-3
    stages = {"detector-sls": ("mixed", "pooled", "projection"), "detector-mhfa-wavlm": ("mixed", "pooled")}
    for stage in (*stages.get(name, ("pooled",)), *(() if name in stages else ("layer 2",))):
        assert logits_of(found, stage) == pytest.approx(theirs, abs=2e-5), stage
    for layer in ("layer 0", "layer 1"):
        assert (logits_of(found, layer) == mine).all() and found.parts["null_by_construction"][layer]
    assert found.parts["identical_in_words"][:2] == ["stem", "layers 0 to 1"]
