"""In every audio LLM hooks leave nothing behind, capturing changes nothing, and a head's edit is its weights' edit."""

import pytest
import torch

from interp_core.errors import InterpError
from interp_core.sites import Site
from interp_core.trace.hooks import captured, edited
from tests.conftest import our_hooks
from tests.families.audio_llms import FAMILIES
from tests.models.conftest import OpenFamily
from tests.trace.naive import gap

every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
@torch.inference_mode()
def test_capturing_at_every_site_changes_no_logit(opened: OpenFamily, runs_of_family, family: str) -> None:
    subject, runs = opened(family), runs_of_family(family)
    inputs = runs["middle"].prompted.inputs
    plain = subject.forward(inputs)
    sites = [Site(kind, layer) for kind in subject.kinds for layer in range(subject.n_layers)]
    with captured(subject, sites) as store:
        assert torch.equal(subject.forward(inputs), plain)
    assert all(store[site].isfinite().all() for site in sites) and our_hooks(subject) == []


@every_family
def test_an_error_inside_leaves_no_hook(opened: OpenFamily, runs_of_family, family: str) -> None:
    subject, inputs = opened(family), runs_of_family(family)["middle"].prompted.inputs

    def fail(value: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    for kind in subject.kinds:
        with pytest.raises(ZeroDivisionError), torch.inference_mode(), edited(subject, {Site(kind, 0): fail}):
            subject.forward(inputs)
        assert our_hooks(subject) == []
    with (
        pytest.raises(InterpError, match="was applied 0 times, expected 1"),
        edited(subject, {Site("attn_out", 0): fail}),
    ):
        pass
    assert our_hooks(subject) == []


@every_family
@torch.inference_mode()
def test_zeroing_a_head_equals_zeroing_its_columns_of_the_output_projection(
    opened: OpenFamily, runs_of_family, family: str
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    inputs = runs["long"].prompted.inputs
    plain = subject.forward(inputs)
    for layer in range(subject.n_layers):
        projection = subject.locate(Site("head_out", layer)).module
        assert isinstance(projection, torch.nn.Linear)
        width = projection.in_features // subject.n_heads
        for head in (0, subject.n_heads - 1):
            columns = slice(head * width, (head + 1) * width)

            def silenced(value: torch.Tensor, columns: slice = columns) -> torch.Tensor:
                value = value.clone()
                value[..., columns] = 0
                return value

            with edited(subject, {Site("head_out", layer, head): silenced}):
                ours = subject.forward(inputs)
            kept = projection.weight[:, columns].clone()
            projection.weight[:, columns] = 0
            theirs = subject.forward(inputs)
            projection.weight[:, columns] = kept
            assert gap(ours, theirs) < 1e-5, (layer, head)
            assert gap(ours, plain) > 1e-4, (layer, head)  # control: the head does something
    assert torch.equal(subject.forward(inputs), plain)
