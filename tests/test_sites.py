"""Site names: what they accept, what they refuse, how they read."""

import pytest

from interp_core.errors import InterpError
from interp_core.sites import KINDS, STAGES, Site, check_kind


def test_every_kind_is_its_own_name_and_a_near_miss_is_told_the_right_one() -> None:
    assert KINDS == (
        *("resid_pre", "resid_post", "attn_out", "mlp_out", "head_out", "mlp_act"),
        *("resid_mid", "cross_out", "cross_head_out"),
        *("mixed", "pooled", "projection", "logits"),
    )
    assert [check_kind(kind) for kind in KINDS] == list(KINDS)
    with pytest.raises(InterpError) as error:
        check_kind("resid_pst")
    assert str(error.value) == "unknown site kind 'resid_pst'; did you mean 'resid_post'?"
    with pytest.raises(InterpError, match="known kinds: resid_pre, .*, mlp_act, resid_mid, cross_out, .*, logits"):
        check_kind("zzz")
    with pytest.raises(InterpError, match="unknown site kind 'Head_Out'; did you mean 'head_out'"):
        Site("Head_Out", 3)


def test_only_sites_of_heads_have_heads() -> None:
    assert Site("head_out", 3, 5).head == Site("cross_head_out", 3, 5).head == 5
    for kind in KINDS:
        if kind not in ("head_out", "cross_head_out"):
            with pytest.raises(
                InterpError,
                match=f"head=0 goes with kind 'head_out' or 'cross_head_out', not with '{kind}'; leave head out",
            ):
                Site(kind, 3 if kind not in STAGES else 0, 0)


def test_sites_are_values_and_read_as_on_screen() -> None:
    assert {Site("mlp_out", 1), Site("mlp_out", 1), Site("mlp_out", 2)} == {Site("mlp_out", 1), Site("mlp_out", 2)}
    assert (str(Site("mlp_out", 1)), str(Site("head_out", 3, 5))) == ("mlp_out.L1", "head_out.L3H5")


def test_a_stage_behind_the_blocks_has_no_layer() -> None:
    assert (Site("pooled"), str(Site("pooled"))) == (Site("pooled", 0), "pooled")
    with pytest.raises(InterpError, match="'mixed' stands behind all layers, so it has no layer 3; leave it out"):
        Site("mixed", 3)
