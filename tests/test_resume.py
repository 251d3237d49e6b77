"""A run that is killed goes on with --resume: what is done is not computed again, and the files end up the same."""

import json
import os
import shlex
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from torch import nn

from interp_core.engine import Engine
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.experiment import finished, open_result, run
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.run import ANY_CHANGE, REACHABLE
from interp_core.jobs import Cancelled
from interp_core.prepared import once, preparing
from interp_core.runs import RunWriter
from interp_core.sinks import PREPARED, FolderSink, Watched, holds_chunks, prepared_in
from interp_core.trace.store import CleanStore
from tests.experiments.heads_cases import CLASSES, write_clips, write_manifest
from tests.families.encoders import save_clap_audio
from tests.once import made_once
from tests.processes import Command

QUICK = {"device": "cpu", "dtype": "float32"}
REQUESTS = {
    "patch": PatchRequest("demo-emotion", kinds="prosody", max_pairs=4, max_clips=40, batch_size=2, checks=False,
                          prompts=("Judge the voice.",), controls=("random",), words=3, word_pairs=3, windows=2,
                          layers=(-1, 2, 5, 8, 11), maps=("time", "heads", "back"), top_heads=2, back_every=2,
                          stated="prosody_label", subspace="mean-difference", subspace_draws=2, **QUICK),
    "patch, class means": PatchRequest("demo-emotion", kinds="prosody", max_pairs=2, max_clips=40, batch_size=1,
                                       checks=False, controls=("random", "no-conflict"), donor_state="mean",
                                       prompts=("Judge the voice.", "Judge the words."),
                                       maps=("time",), windows=2, layers=(-1, 1, 3), words=3, word_pairs=2, seed=3,
                                       **QUICK),
    "heads": EXPERIMENTS["heads"].request("demo-emotion-wavlm", label="prosody_label", pilot=2, draws=19, probes="none",
                                          ablate=("zero",), batch_size=3, **QUICK),
    "heads, in words": EXPERIMENTS["heads"].request("demo-emotion", label="prosody_label", pilot=2, draws=19, words=3,
                                                    probes="none", word_heads=2, word_clips=4, **QUICK),
    "ablate": AblateRequest("demo-emotion-wavlm", at="resid_post:4", pilot=6, draws=2, refits=0, ks=(2,), erase=True,
                            **QUICK),
    "signflip": EXPERIMENTS["signflip"].request("demo-emotion-wavlm", pilot=10, draws=2, layers=(2, 4), **QUICK),
    "signflip, read by a probe": EXPERIMENTS["signflip"].request("demo-emotion-wavlm", probe="prosody_label", pilot=6,
                                                                 draws=1, layers=(2,), **QUICK),
    "steer": EXPERIMENTS["steer"].request("demo-emotion-wavlm", pilot=8, targets=("angry",), layers=(2, 4), draws=3,
                                          alphas=(1.0, 4.0), checks=False, **QUICK),
    "ablate, in words": AblateRequest("demo-emotion", at="resid_post:4", pilot=6, draws=2, refits=0, ks=(2,), words=3,
                                      word_clips=4, task="prosody_label", domain="speaker", **QUICK),
    "steer, in words": EXPERIMENTS["steer"].request("demo-emotion", pilot=6, targets=("angry",), layers=(2, 4), words=3,
                                                    word_clips=4, controls=(), alphas=(4.0,), checks=False,
                                                    during="all", **QUICK),
    "probes": EXPERIMENTS["probes"].request("demo-emotion-wavlm", pilot=24, columns=("prosody_label",), draws=19,
                                            quantities=("level",), layers=(-1, 2), controls=1, batch_size=2, **QUICK),
    "patch, pairs by hand": PatchRequest("demo-emotion", pairs=("s01-f3-neutral <- s01-f3-happy",
                                                                "s02-f3-neutral <- s02-f3-happy"),
                                         controls=(), flow=(), checks=False, batch_size=1, **QUICK),
    "compare": EXPERIMENTS["compare"].request("demo-spoof-erm", pilot=16, patch=("0,3",), maps=("mean",), batch_size=2,
                                              erase=("pooled",), probe_draws=0, checks=False, **QUICK),
}  # fmt: skip


def made_by(name):
    """The experiment of a request."""
    return experiment_of(REQUESTS[name].command)


FIRST = Engine()


def fresh_engine(*, probes: bool = True) -> Engine:
    """An engine without a clean run in its cache; models are opened and clips checked once for all.

    Args:
        probes: whether it has those that were fitted before; else it is as one of a new process.
    """
    engine = Engine()
    engine.models, engine._current = FIRST.models, FIRST._current
    if probes:
        engine._read = FIRST._read
    return engine


@pytest.fixture
def wholes(tmp_path_factory):
    """Uninterrupted runs: see `whole_run`."""
    return lambda command: whole_run(tmp_path_factory, command)


def whole_run(factory, command):
    """An uninterrupted run, made once a session: folder, (how often blocks ran, steps), what it showed at its end."""

    def make(place):
        watched = Watched()
        passes, steps = blocks_run(command, place / "run", watched=watched)
        pd.to_pickle((asdict(passes), steps, watched()), place / "seen.pickle")

    # The last digits of a sum depend on how many threads share it.
    place = made_once(factory, f"whole run of {command}, {torch.get_num_threads()} threads", make)
    passes, steps, curves = pd.read_pickle(place / "seen.pickle")
    return place / "run", (Passes(**passes), steps), curves


@dataclass
class Passes:
    """How often models ran: in all, for the clean runs of clips among them, and else since a chunk was last kept."""

    all: int = 0
    clean: int = 0
    begun: int = 0

    @property
    def kept(self) -> int:
        """Those whose chunk is kept."""
        return self.all - self.clean - self.begun


@contextmanager
def counted(engine, request):
    """How often the first block of each model of a request is called."""
    calls, within = Passes(), []
    run_clean, keep_arrays, keep_records = CleanStore._run, FolderSink.keep_arrays, FolderSink.keep_records

    def count(*_):
        calls.all += 1
        calls.clean += bool(within)
        calls.begun += not within

    def clean(*given):
        within.append(given)
        try:
            return run_clean(*given)
        finally:
            within.pop()

    def then_kept(keep):
        def kept(*given):
            calls.begun = 0
            return keep(*given)

        return kept

    names = [request.model, *filter(None, [getattr(request, "donor", "")])]
    if request.command == "compare":
        names = ["demo-spoof-erm", "demo-spoof-dann"]
    handles = [engine.open(name, "cpu", "float32").blocks[0].register_forward_hook(count) for name in names]
    try:
        with (
            patch.object(CleanStore, "_run", clean),
            patch.object(FolderSink, "keep_arrays", then_kept(keep_arrays)),
            patch.object(FolderSink, "keep_records", then_kept(keep_records)),
        ):
            yield calls
    finally:
        for handle in handles:
            handle.remove()


def blocks_run(command, out, *, stop_after=None, resume=False, watched=None):
    """Run a request into a folder; its passes and its steps. `stop_after` cancels at that many steps."""
    engine, request, steps = fresh_engine(probes=False), REQUESTS[command], [0]

    def progress(done, total, note=""):
        if note.startswith("fitting a probe"):
            return
        steps[0] += 1
        if stop_after is not None and steps[0] > stop_after:
            raise Cancelled

    with counted(engine, request) as calls:
        try:
            run(made_by(command), engine, request, out=out, resume=resume, progress=progress, watched=watched)
        except Cancelled:
            assert stop_after is not None
    return calls, steps[0]


def same_files(whole: Path, other: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in other.iterdir()} == names, "nothing is missing, and no chunk is left behind"
    for name in sorted(names):
        if not name.endswith("_config.json") and name != "neuron_ablation.json":  # times; the folder's own name
            assert (whole / name).read_bytes() == (other / name).read_bytes(), name


def told(command, result):
    """What the curves of a run that has gone on to its end have to be, by (series, x)."""
    if command == "compare":
        rows = result.summary[result.summary["mode"] != ""]
        return {("answers that change", row.model): row.answers_changed for row in rows.itertuples()}
    if command.startswith("patch"):
        rows = result.metrics[(result.metrics["condition"] == "matched") & (result.metrics["prompt"] == 0)]
        rates = {REACHABLE: "flip_to_target_rate_reachable", ANY_CHANGE: "flip_from_base_rate"}
        return {
            (f"{row['kind']}: {said}", row["layer"]): row[rate]
            for row in rows.to_dict("records")
            for said, rate in rates.items()
        }
    profile = result.profile()
    return dict(zip(zip(profile["series"], profile["x"], strict=True), profile["value"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(REQUESTS))
def test_what_a_run_shows_while_it_goes_on_ends_at_its_result(command, wholes):
    folder, _, curves = wholes(command)
    result = open_result(made_by(command), folder)
    assert len(curves) > 0 and (curves["n"] > 0).all()
    right = told(command, result)
    for row in curves.itertuples():
        assert row.value == pytest.approx(right[row.series, row.x], abs=1e-6), (row.series, row.x)


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(REQUESTS))
def test_a_run_that_was_stopped_goes_on_without_repeating_a_forward_pass(command, wholes, tmp_path):
    whole, (passes, steps), _ = wholes(command)
    out = tmp_path / "run"
    before, _ = blocks_run(command, out, stop_after=steps // 3)
    assert 0 < before.all < passes.all, "it was stopped on the way"
    after, _ = blocks_run(command, out, resume=True)
    # Clean runs are no chunk: a process makes those that its own chunks start from, each once.
    assert before.kept + (after.all - after.clean) == passes.all - passes.clean, (before, after, passes)
    assert after.clean <= passes.clean and after.all < passes.all
    same_files(whole, out)
    again, _ = blocks_run(command, out, resume=True)
    assert again == Passes(), "a finished folder is read back"


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(REQUESTS))
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_files(command, wholes, tmp_path):
    whole, (passes, _), _ = wholes(command)
    out = tmp_path / "run"
    # Sums over several threads differ in their last digits from sums over one.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = Command(words_of(REQUESTS[command], out), env=environment)
    wait_for_a_chunk(process, out)
    process.send_signal(signal.SIGKILL)
    assert process.wait() in (-signal.SIGKILL, 0), process.communicate()[1]
    after, _ = blocks_run(command, out, resume=True)
    assert after.all < passes.all, "the chunks of the killed run are not computed again"
    same_files(whole, out)


def words_of(request, out: Path) -> list[str]:
    """What stands behind `python -m interp_core` in the line that repeats a request."""
    program, *words = shlex.split(request.command_line(str(out)))
    assert program.startswith("python") and words[:2] == ["-m", "interp_core"]
    return words[2:]


def chunks_begun(records: Path) -> set[int]:
    """The chunks of a file of records as it is now; the last of them may be in part."""
    return {json.loads(line)["chunk"] for line in records.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"}


def wait_for_a_chunk(process: Command, out: Path, seconds: float = 120) -> None:
    """Until two chunks are there, or one for five seconds: the kill may come while the last one is written."""
    until, seen = time.monotonic() + seconds, 0.0
    while time.monotonic() < until and process.poll() is None:
        kept = len([path for path in out.glob("chunk_*.npz") if not path.name.startswith(f"chunk_{PREPARED}_")])
        kept += sum(max(0, len(chunks_begun(path)) - 1) for path in out.glob("*_records*"))
        if kept and not seen:
            seen = time.monotonic()
        if kept > 1 or (seen and time.monotonic() > seen + 5):
            return
        time.sleep(0.02)


@pytest.mark.slow
def test_a_probe_is_fitted_once_and_a_finished_folder_opens_no_model(tmp_path, monkeypatch):
    """As in another process each time: every engine is new, and passes are counted from its first."""
    model, clips = save_clap_audio(tmp_path / "clap", depths=(1, 1, 1, 1), heads=(1, 2, 4, 8)), tmp_path / "noises"
    manifest = write_manifest(clips, write_clips(clips, CLASSES * 6, seconds=(0.5,)), train=6)
    asked = EXPERIMENTS["heads"].request(str(model), str(manifest), probe="label", ablate=("zero",), draws=19,
                                         probes="none", batch_size=4, clips="all", **QUICK)  # fmt: skip
    heads = experiment_of("heads")

    def passes(request, out, stop_after=None, engine=None):
        engine, steps = engine or Engine(), [0]

        def progress(done, total, note=""):
            steps[0] += not note.startswith("fitting a probe")
            fits.append(out) if note.startswith("fitting a probe") else None
            if stop_after is not None and steps[0] > stop_after:
                raise Cancelled

        with counted(engine, request) as calls, suppress(Cancelled):
            run(heads, engine, request, out=out, resume=True, progress=progress)
        return calls.all, steps[0]

    fits: list[Path] = []
    whole, steps = passes(asked, tmp_path / "whole")
    fitted = len([line for line in manifest.read_text().splitlines() if ",train" in line])
    before, _ = passes(asked, tmp_path / "run", stop_after=steps * 2 // 3)
    done = len(fits)
    after, _ = passes(asked, tmp_path / "run")
    assert fitted <= done == len(fits), "the probe was fitted again"
    chunk = 4 * 16  # a batch under every head and without any
    assert fitted < before and before + after <= whole + chunk and after <= whole - fitted
    same_files(tmp_path / "whole", tmp_path / "run")
    assert passes(asked, tmp_path / "run") == (0, 0)
    monkeypatch.setattr(heads, "prepare", lambda *_: pytest.fail("a finished folder needs no preparation"))
    again = heads.request.from_config(json.loads((tmp_path / "run" / heads.request.config_file).read_text("utf-8")))
    for request in (asked, again):
        assert len(run(heads, Engine(), request, out=tmp_path / "run", resume=True).metrics)
    for other in (replace(asked, draws=20), replace(asked, seed=1)):
        assert finished(heads, Engine(), other, tmp_path / "run") is None
    manifest.write_text(manifest.read_text().replace("train", "other", 1))
    assert finished(heads, Engine(), asked, tmp_path / "run") is None, "the clips are described otherwise now"


def test_what_was_prepared_is_used_for_the_same_alone_and_lies_sealed_in_the_folder(tmp_path):
    with preparing() as first:
        assert once(("mass", "a", 1), lambda: 1 / 3) == once(("mass", "a", 1), lambda: 5.0) == 1 / 3
    with RunWriter.create(tmp_path, {"command": "heads"}, "heads_config.json") as writer:
        FolderSink(writer).keep_prepared(first.values)
    assert prepared_in(tmp_path) == first.values and not holds_chunks(tmp_path)
    for folder in (tmp_path, tmp_path.parent):  # the second is shared, by shards for one
        assert prepared_in(folder).items() >= first.values.items()
    with preparing(prepared_in(tmp_path)):
        assert once(("mass", "a", 1), lambda: 5.0) == 1 / 3
        assert once(("mass", "b", 1), lambda: 5.0) == 5.0
    (path,) = tmp_path.glob("chunk_*")
    path.write_bytes(path.read_bytes()[:-1])
    assert prepared_in(tmp_path) == {} == prepared_in(tmp_path / "nowhere")


def test_the_counter_counts():
    engine, request = fresh_engine(), REQUESTS["signflip"]
    with counted(engine, request) as calls:
        subject = engine.open(request.model, "cpu", "float32")
        assert isinstance(subject.blocks[0], nn.Module) and calls == Passes()
        clip = engine.manifest(request).clips[0]
        engine.store(request).run(clip, "")
        assert calls == Passes(all=1, clean=1)
        with suppress(TypeError):  # a block needs more than that; that it was called counts
            subject.blocks[0](torch.zeros(1, 3, subject.d_model))
        assert calls.begun == 1 and calls.kept == 0
