"""In bfloat16 the fast route of every encoder stays as near to its own forward as a run's checks demand."""

import pytest
import torch

from interp_core.experiments.checks import TOLERANCE
from interp_core.experiments.patching.positions import align_positions
from interp_core.trace.patch import Patch, SiteSpec, sweep_layers
from interp_core.trace.sweep import sweep
from tests.families.subjects import CASES, open_case
from tests.models.conftest import Open
from tests.trace.naive import gap


@pytest.mark.parametrize("name", CASES)
def test_fast_and_reference_agree_in_bfloat16(name: str, open_once: Open) -> None:
    single = open_once(name)
    one = open_case(single.case, single.path, dtype="bfloat16", clips=("short", "long"))
    subject, a, b = one.subject, one.runs["short"], one.runs["long"]
    assert subject.dtype == torch.bfloat16 and a.resid[0].dtype == torch.bfloat16
    assert a.logits.dtype == torch.float32
    assert "bfloat16" in subject.key and subject.key != single.subject.key
    with torch.backends.mkldnn.flags(enabled=False):  # whose bfloat16 products are rougher on some processors
        portable = open_case(single.case, single.path, dtype="bfloat16", clips=("short",))
    assert gap(portable.runs["short"].logits, single.runs["short"].logits) < 0.3  # the same model, roughly
    found = align_positions(a.prompted, b.prompted, "all" if subject.whole_only else "audio")
    patch = Patch(a, b, found.positions, found.source)
    for kind in subject.kinds:
        spec = SiteSpec(kind, layers=sweep_layers(kind, subject.n_layers))
        fast, reference = (
            sweep(subject, [patch], one.labels, spec, method=method).label_logits for method in ("fast", "reference")
        )
        assert gap(fast, reference) < TOLERANCE[torch.bfloat16], kind


@pytest.mark.parametrize("name", ["wav2vec2-large-weighted", "hubert-base-weighted"])
def test_a_mix_of_layers_is_summed_as_exactly_as_the_library_sums_it(name: str, open_once: Open) -> None:
    """One sum in float32 that is rounded once: adding layer by layer in bfloat16 loses digits at each."""
    single = open_once(name)
    one = open_case(single.case, single.path, dtype="bfloat16", clips=("short", "long"))
    a, b = one.runs["short"], one.runs["long"]
    found = align_positions(a.prompted, b.prompted, "audio")
    patch = Patch(a, b, found.positions, found.source)
    spec = SiteSpec("resid_post", layers=sweep_layers("resid_post", one.subject.n_layers))
    fast, reference = (
        sweep(one.subject, [patch], one.labels, spec, method=method).label_logits for method in ("fast", "reference")
    )
    assert gap(fast, reference) < 1e-3
