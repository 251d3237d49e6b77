"""What a run is said to cost against the block-positions that its forward passes really work through."""

from dataclasses import replace

import pytest

from interp_core.engine import Engine
from interp_core.experiments.cost import Cost
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.chunks import patches_of, run_chunk
from interp_core.experiments.patching.cost import estimate
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.trace.sweep import cost
from tests.experiments.work import counted


def passes(ready, work, patch):
    return work / (ready.store.subject.n_layers * patch.recipient.prompted.n_pos)


SETTINGS = [
    {},
    {"alphas": (0.5,)},
    {"align": "resample"},
    {"site": "mlp_out"},
    {"site": "head_out:1", "layers": (1, 3)},
    {"layers": (-1, 2)},
    {"positions": "last"},
    {"positions": "question"},
    {"method": "reference"},
    {"method": "wavefront"},
]


@pytest.mark.parametrize("change", SETTINGS, ids=str)
def test_the_cost_of_a_patch_is_the_work_of_its_blocks(engine, plain, change):
    ready = PATCHING.prepare(engine, replace(plain, batch_size=1, **change))
    for chunk in ready.plan.chunks[:2]:
        [patch], _, _ = patches_of(ready.plan, ready.store, chunk)  # its clean runs are made and kept here
        with counted(ready.store.subject) as counter:
            run_chunk(ready.plan, ready.store, chunk)
        said = cost(ready.store.subject, patch, ready.plan.spec, ready.plan.settings.method)
        if ready.plan.settings.method == "reference":  # the donor's pass is as long as the donor
            extra = patch.donor.prompted.n_pos / patch.recipient.prompted.n_pos
            said += extra - 1
        assert passes(ready, counter.work, patch) == pytest.approx(said, rel=1e-6)


def test_the_shortcut_is_said_to_be_cheaper_than_the_other_routes(engine, plain):
    ready = PATCHING.prepare(engine, plain)
    [patch, *_], _, _ = patches_of(ready.plan, ready.store, ready.plan.chunks[0])
    said = [cost(ready.store.subject, patch, ready.plan.spec, method) for method in ("fast", "wavefront", "reference")]
    assert said[0] < said[1] < said[2] == 7


CONTROLS, FLOW = ("random", "noise", "no-conflict", "prefix"), ("question", "last", "lens", "knockout")


@pytest.mark.parametrize(
    "flow, controls, checks, maps",
    [
        ((), (), False, ()),
        ((), (), True, ()),
        (("knockout",), (), False, ()),
        ((), ("random",), False, ("time",)),
        (FLOW, CONTROLS, True, ("time",)),
    ],
    ids=["pairs alone", "with checks", "with knockout", "with a time map", "everything"],
)
def test_the_estimate_of_a_run_is_what_the_run_then_takes(plain, flow, controls, checks, maps):
    engine = Engine()  # with nothing kept from other tests
    settings = replace(plain, flow=flow, controls=controls, checks=checks, maps=maps)
    ready = PATCHING.prepare(engine, settings)
    said = estimate(ready.plan, ready.store)
    fresh = PATCHING.prepare(Engine(), settings)
    with counted(fresh.store.subject) as counter:
        run(PATCHING, engine, fresh.request, ready=fresh)
    clips = {c.clip_id: c for p in fresh.plan.pairs.pairs for c in (p.recipient, p.donor)}
    n_pos = [fresh.store.prompted(c, settings.prompts[0]).n_pos for c in clips.values()]
    taken = counter.work / (fresh.store.subject.n_layers * sum(n_pos) / len(n_pos))
    # Windows have tails of unequal length, and are padded to the longest of a batch.
    assert said.forwards == pytest.approx(taken, rel=0.15 if maps else 0.08), (said.forwards, taken)
    assert said.of == f"12 pairs over {len(clips)} clips"
    assert said.seconds > 0


def test_an_estimate_reads_as_a_sentence():
    assert str(Cost(82.4, 61.0, "50 pairs over 20 clips")) == "50 pairs over 20 clips: about 82 forward passes, 61 s"
    assert str(Cost(8200, 610.0, "50 pairs over 20 clips")).endswith("about 8200 forward passes, 10 min")
