"""What probes read: in every family the states of the model's own clean run, at the recording's positions alone."""

from pathlib import Path

import numpy as np
import pytest

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.probes.capture import read_states
from interp_core.experiments.probes.experiment import PROBES
from interp_core.experiments.probes.plan import ProbesPlan, points_of
from interp_core.experiments.probes.request import ProbesRequest
from interp_core.models.subject import Subject
from interp_core.trace.clean import clean_runs
from tests.experiments.scenes import Recordings
from tests.families.audio_llms import FAMILIES
from tests.families.subjects import Opened
from tests.models.conftest import OpenFamily, clip_for
from tests.trace.naive import PROMPT

EXTRA = ("attn_out", "mlp_out")


def check(subject: Subject, prompt: str, sounds: dict[str, np.ndarray]) -> None:
    """Every point of two clips that share a batch where clips may, against each clip's own run."""
    settings = ProbesRequest("m", quantities=(), sites=("resid_post", *(one for one in EXTRA if one in subject.kinds)))
    points = points_of(subject, settings)
    assert {point.place for point in points} == ({"mean", "last"} if "last" in subject.spans else {"mean"})
    assert {point.layer for point in points} == set(range(-1, subject.n_layers))
    clips = tuple(Clip(name, Path(name), {}, name) for name in sounds)
    reader = Recordings(subject, prompt, sounds)
    read = read_states(reader, ProbesPlan(settings, clips, (), points, {}))
    moved = 0
    for row, clip in enumerate(clips):
        prompted = reader.store.prompted(clip, prompt)
        [run] = clean_runs(subject, [prompted], settings.sites[1:])
        for point in points:
            state = run.resid[0] if point.layer < 0 else run.at(point.kind, point.layer)
            rows = state.reshape(-1, state.shape[-1])
            inside = prompted.recording.positions()
            inside = inside if len(rows) == prompted.n_pos else slice(None)  # positions were merged
            wanted = rows[-1] if point.place == "last" else rows[inside].mean(0)
            scale = max(1.0, float(rows.abs().max()))
            np.testing.assert_allclose(read.at[point][row], wanted.float(), atol=1e-4 * scale, err_msg=str(point))
            moved += bool((wanted - rows.mean(0)).abs().max() > 1e-3 * scale)
    # Control: another place is another state, but where there is one position alone, as of a prompt of one token.
    assert moved or "last" not in subject.spans or prompted.n_pos == 1


def test_an_encoders_states_are_those_of_its_own_run(one: Opened) -> None:
    if one.case.reads == "pictures":
        with pytest.raises(InterpError, match="sees pictures and hears no recording"):
            PROBES.check_kind(one.subject)
        return
    check(one.subject, one.prompt, {name: one.samples[name] for name in ("short", "long")})


@pytest.mark.parametrize("family", FAMILIES)
def test_an_audio_llms_states_are_those_of_its_own_run(opened: OpenFamily, family: str) -> None:
    subject = opened(family)
    check(subject, PROMPT, {"middle": clip_for(subject, 0.8, 350), "long": clip_for(subject, 1.3, 500)})
