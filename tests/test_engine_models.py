"""Opened models: a lock each, a bound for all, folders that they must lie in; and what is kept of many jobs."""

import gc
import threading
import weakref
from dataclasses import replace

import pytest

from interp_core import engine as engine_module
from interp_core.cache import nbytes_of
from interp_core.engine import Engine, default_model_bytes
from interp_core.errors import InterpError
from interp_core.experiments.experiment import start
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.jobs import Cancelled
from interp_core.models import hub, load
from interp_core.models.shelf import weight_bytes
from interp_core.request import Request
from tests.corpus import quick_request, write_corpus

SOON = 30.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_a_model_that_takes_long_to_fetch_holds_up_no_other_and_can_be_cancelled(tiny_folder, monkeypatch):
    fetching, right = threading.Event(), engine_module.open_model

    def slow(name, *, progress, **options):
        if name != "owner/large":
            return right(name, progress=progress, **options)
        fetching.set()
        while True:
            progress(1, 9, "megabytes fetched")

    monkeypatch.setattr(engine_module, "open_model", slow)
    engine = Engine()
    job = engine.opening(Request("owner/large"))
    assert fetching.wait(SOON) and engine.opening(Request("owner/large")) is job
    other = engine.opening(Request(str(tiny_folder)))
    assert other.wait(SOON) and other.status == "done" and other.result is None
    assert engine.ready(Request(str(tiny_folder))) is engine.open(str(tiny_folder))
    assert job.active and engine.ready(Request("owner/large")) is None
    assert (job.done, job.total, job.note) == (1, 9, "megabytes fetched")
    job.cancel()
    assert job.wait(SOON) and job.status == "cancelled"
    assert [one.name for one in engine.models.opened()] == [str(tiny_folder)]


def test_the_least_recently_used_model_goes_when_the_bound_is_reached_and_its_memory_with_it(tiny_folder):
    size = weight_bytes(Engine().open(str(tiny_folder), "cpu"))
    engine = Engine(model_bytes=int(2.2 * size))
    name = str(tiny_folder)
    first = weakref.ref(engine.open(name, "cpu", "float32").hf)
    engine.open(name, "cpu", "bfloat16")
    assert {one.dtype for one in engine.models.opened()} == {"float32", "bfloat16"}
    engine.open(name, "cpu", "float32")  # used again, so that the other is the one to go
    engine.open(name, "cpu", "float16")
    listed = engine.models.opened()
    assert [(one.dtype, one.device) for one in listed] == [("float16", "cpu"), ("float32", "cpu")]
    assert sum(one.nbytes for one in listed) <= engine.models.max_bytes
    engine.open(name, "cpu", "bfloat16")
    engine.open(name, "cpu", "float16")
    gc.collect()
    assert first() is None, "nobody keeps what was let go"
    small = Engine(model_bytes=1)
    assert small.open(name, "cpu") is small.open(name, "cpu"), "the one opened last is kept whatever its size"


def test_room_is_made_before_a_model_is_read(tiny_folder, monkeypatch):
    name, held, right = str(tiny_folder), [], engine_module.open_model

    def looking(asked, **options):
        held.append([one.dtype for one in engine.models.opened()])
        return right(asked, **options)

    monkeypatch.setattr(engine_module, "open_model", looking)
    engine = Engine(model_bytes=int(1.2 * load.bytes_on_disk(name)))
    engine.open(name, "cpu", "float32")
    engine.open(name, "cpu", "bfloat16")
    assert held == [[], []] and load.bytes_on_disk("no/such") == 0


def test_a_path_outside_the_folders_of_models_is_refused_and_bundled_names_and_hub_ids_are_not(tiny_folder, tmp_path):
    inside, outside = Engine(model_roots=[tiny_folder.parent]), Engine(model_roots=[tmp_path])
    assert inside.open(str(tiny_folder), "cpu").n_layers > 0
    (tmp_path / "link").symlink_to(tiny_folder)
    for name in (str(tiny_folder), "/no/such/folder", str(tmp_path / "link"), "../x", "~/x"):
        with pytest.raises(InterpError, match="outside the folders that may be read"):
            outside.open(name)
    for name in ("demo-emotion", "owner/model"):
        outside.check_model(name)


def test_models_are_read_one_after_the_other_because_the_library_changes_the_process_meanwhile(tiny_folder):
    told = []

    def impatient(done, total, note=""):
        told.append(note)
        raise Cancelled

    with load._TURN, pytest.raises(Cancelled):
        load.open_model(str(tiny_folder), device="cpu", progress=impatient)
    assert told == ["waiting until another model has been read"]
    told.clear()
    load.open_model(str(tiny_folder), device="cpu", progress=lambda done, total, note="": told.append(note))
    assert any("weights" in note for note in told) and any("hashing" in note for note in told)


def test_what_is_fetched_from_the_hub_is_told_in_megabytes_and_cancelling_ends_it(monkeypatch):
    def library(name, *, tqdm_class, **_):  # as huggingface_hub draws its bars: two of bytes, one of files
        received = tqdm_class(desc="Downloading bytes", total=0, initial=0, unit="B", unit_scale=True)
        written = tqdm_class(desc="Reconstructing", total=0, initial=0, unit="B", unit_scale=True)
        for bar in (received, written):
            bar.total += 10 << 20
        files = tqdm_class([1, 2], desc="Fetching 2 files", total=2)
        for _ in files:
            written.update(5 << 20)
        return "folder"

    told = []
    monkeypatch.setattr(hub, "_reachable", lambda: True)
    monkeypatch.setattr(hub.HfApi, "list_repo_files", lambda *_: ["a.safetensors"])
    monkeypatch.setattr(hub, "snapshot_download", library)
    hub.fetched("owner/model", lambda done, total, note="": told.append((done, total, note)))
    assert (5, 10, "megabytes of owner/model fetched") in told and told[-1][:2] == (10, 10)

    def cancel(done, total, note=""):
        raise Cancelled

    with pytest.raises(Cancelled):
        hub.fetched("owner/model", cancel)


def test_many_jobs_and_cancels_leave_no_more_than_the_bounds(tiny_folder, corpus, monkeypatch):
    monkeypatch.setattr(engine_module, "RESULT_BYTES", 100_000)
    engine = Engine(cache_bytes=2_000_000)
    quick = quick_request(tiny_folder, corpus)
    held, objects = [], []
    for seed in range(16):
        job = start(PATCHING, engine, replace(quick, seed=seed))
        if seed % 2:
            job.cancel()
        assert job.wait(SOON) and job.status in ("done", "cancelled"), job.error
        results = sum(nbytes_of(one.result) for one in engine.jobs.jobs())
        held.append((results, engine.cache.stats().nbytes))
        if seed in (7, 15):
            gc.collect()
            objects.append(len(gc.get_objects()))
    one = nbytes_of(job.result if job.result is not None else next(j.result for j in engine.jobs.jobs() if j.result))
    assert max(results for results, _ in held) <= 100_000 + one and max(size for _, size in held) <= 2_000_000
    assert sum(j.result is not None for j in engine.jobs.jobs()) < 8, "the oldest results have gone"
    assert objects[1] - objects[0] < 0.02 * objects[0], "and nothing else piles up"


def test_bounds_from_the_environment_are_numbers(monkeypatch):
    monkeypatch.setenv("PATCHBAY_MODELS_GB", "2.5")
    assert default_model_bytes() == int(2.5 * 2**30)
    monkeypatch.setenv("PATCHBAY_MODELS_GB", "much")
    with pytest.raises(InterpError, match="PATCHBAY_MODELS_GB='much' is no number"):
        default_model_bytes()
