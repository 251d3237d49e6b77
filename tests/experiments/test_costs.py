"""What every command says that it will cost against the work that its blocks then do, and what the seconds rest on."""

from dataclasses import replace

import pytest

from interp_core.engine import Engine
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments import cost as costs
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.experiment import run
from tests.experiments.work import counted, passes
from tests.test_resume import QUICK, REQUESTS, fresh_engine

RUNS = {
    "patch": EXPERIMENTS["patch"].request(
        "demo-emotion",
        kinds="prosody",
        max_pairs=2,
        prompts=("Judge the voice.",),
        controls=("random",),
        maps=("heads",),
        top_heads=2,
        **QUICK,
    ),
    "heads": replace(REQUESTS["heads"], ablate=("resample",), classes=("angry", "happy")),
    "ablate": REQUESTS["ablate"],
    "ablate, behind the blocks": replace(REQUESTS["ablate"], at="", draws=1),
    "signflip": REQUESTS["signflip"],
    "signflip, another label": replace(REQUESTS["signflip"], target="sad"),
    "steer": replace(REQUESTS["steer"], checks=True),
    "steer, one by one": replace(REQUESTS["steer"], checks=True, method="reference", layers=(4,), alphas=(4.0,)),
    "steer, in a decoder": replace(REQUESTS["steer, in words"], words=0, word_clips=0, during="prefill", pilot=4),
    "probes": replace(REQUESTS["probes"], quantities=(), controls=0),
    "compare": replace(REQUESTS["compare"], checks=True),
    "compare, the other way too": replace(REQUESTS["compare"], checks=True, reverse=True, patch=("1",), maps=()),
}
SLACK = {"patch": 0.1}
"""Of runs that are counted from the first pairs of each condition, whose lengths are not those of all."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_takes_the_passes_that_it_is_said_to(name):
    request = RUNS[name]
    made = experiment_of(request.command)
    said = made.cost(made.prepare(fresh_engine(), request)).forwards
    ready = made.prepare(fresh_engine(), request)  # of an engine that has kept nothing
    subject, clips = ready.store.subject, ready.used or ready.manifest.clips
    asked = getattr(ready.request, "prompt", "") or next(iter(getattr(ready.request, "prompts", ())), "")
    reader = ClipReader(ready.store, asked)
    lengths = [reader.stem(reader.ready(clip)).n_pos for clip in clips]
    donor = [ready.plan.donor.subject] if request.command == "compare" else []
    with counted(subject, *donor) as counter:
        run(made, ready.engine, ready.request, ready=ready)
    assert said == pytest.approx(passes(subject, counter.work, lengths), rel=SLACK.get(name, 0.01))


def test_every_experiment_has_a_run_whose_passes_are_counted():
    assert {request.command for request in RUNS.values()} == set(EXPERIMENTS)


def test_seconds_are_those_of_the_middle_of_several_times_and_of_one_where_it_takes_long(monkeypatch):
    clock = iter([0.0, 0.1, 1.0, 1.05, 2.0, 2.2, 3.0, 3.0, 4.0, 4.4])
    monkeypatch.setattr(costs, "CLOCK", lambda: next(clock))
    calls = []
    assert costs.timed(lambda: calls.append(1)) == pytest.approx(0.1)  # 0.1, 0.05, 0.2: then 0.35 s are long enough
    assert len(calls) == 4, "the first warms up"
    clock = iter([0.0, 2.0])
    assert costs.timed(lambda: calls.append(1)) == 2.0


def test_clips_that_are_made_ready_for_the_estimate_are_not_made_ready_again():
    made = experiment_of("probes")
    engine = Engine()
    ready = made.prepare(engine, RUNS["probes"])
    reader, asked = ClipReader(ready.store, ready.request.prompt), []
    seconds = costs.ready_seconds(lambda clip: asked.append(reader.ready(clip)), ready.plan.clips)
    assert [one.clip for one in asked] == list(ready.plan.clips[-5:]) and seconds > 0
