"""The engine: one model and one job for all who ask, clips run once, every fault told before anything is written."""

import json
import shutil
import threading
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile

from interp_core import engine as engine_module
from interp_core.data.clips import ClipLimits
from interp_core.data.manifest import BadRows
from interp_core.engine import Engine, default_cache_bytes, device_memory
from interp_core.errors import InterpError
from interp_core.experiments.experiment import run, start
from interp_core.experiments.patching.experiment import PATCHING, base_table, patch_by_hand
from interp_core.experiments.patching.request import PatchRequest
from tests.corpus import assert_same_records, quick_request, write_corpus
from tests.tiny import RATE, tone


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def engine():
    return Engine()


@pytest.fixture(scope="module")
def quick(tiny_folder, corpus):
    return quick_request(tiny_folder, corpus)


# ---- one of everything -----------------------------------------------------------------------------------------------


def test_the_same_request_asked_twice_is_one_job(quick):
    engine = Engine()
    first, second = start(PATCHING, engine, quick), start(PATCHING, engine, replace(quick))
    assert second is first
    other = start(PATCHING, engine, replace(quick, seed=7))
    assert other is not first and first.wait(60) and other.wait(60)
    assert start(PATCHING, engine, quick) is first, "a finished job keeps its result"
    assert first.status == "done" and len(first.result.records) == 36
    assert engine.jobs.get(engine.key_of(quick)) is first
    assert len(engine.jobs.jobs()) == 2


def test_a_model_is_opened_once_however_many_ask(quick, monkeypatch):
    opened, right = [], engine_module.open_model

    def slow(name, **options):
        opened.append((name, options["dtype"]))
        return right(name, **options)

    monkeypatch.setattr(engine_module, "open_model", slow)
    engine, found = Engine(), []
    threads = [threading.Thread(target=lambda: found.append(engine.open(quick.model, "cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1 and len({id(subject) for subject in found}) == 1 and len(found) == 4
    assert engine.open(quick.model, "cpu", "bfloat16") is not found[0]
    assert len(opened) == 2


def test_a_clip_that_sits_in_many_pairs_is_run_once(quick):
    engine, calls = Engine(), Counter()
    subject = engine.subject(quick)
    parts = {"audio tower": subject.hf.model.audio_tower, "decoder": subject.decoder}
    handles = [
        module.register_forward_hook(lambda *_, name=name: calls.update([name]), always_call=False)
        for name, module in parts.items()
    ]
    ready = PATCHING.prepare(engine, quick)
    uses = Counter(c.clip_id for p in ready.plan.pairs.pairs for c in (p.recipient, p.donor))
    assert max(uses.values()) > 1, "otherwise there is nothing to save"
    try:
        run(PATCHING, engine, quick)
        # The stem of a clip ends where the decoder begins, so the decoder is run through by clean runs alone.
        assert calls == {"audio tower": len(uses), "decoder": len(uses)}
        run(PATCHING, engine, replace(quick, alphas=(0.5,)))
        patch_by_hand(engine, quick, ready.plan.pairs.pairs[0])
        assert calls == {"audio tower": len(uses), "decoder": len(uses)}, "nor by another run over the same clips"
        run(PATCHING, engine, replace(quick, prompts=("Judge the voice.",)))
        assert calls["decoder"] == 2 * len(uses), "another prompt is another run"
    finally:
        for handle in handles:
            handle.remove()
    assert engine.cache.stats().hits > 0


def test_a_small_cache_stays_small_and_gives_the_same_numbers(quick, engine):
    expected = run(PATCHING, engine, quick).records
    bound = 400_000
    small = Engine(cache_bytes=bound)
    most = 0

    def look(*_):
        nonlocal most
        most = max(most, small.cache.stats().nbytes)

    assert_same_records(run(PATCHING, small, quick, progress=look).records, expected)
    stats = small.cache.stats()
    assert 0 < most <= bound and stats.evictions + stats.oversized > 0
    assert engine.cache.stats().nbytes > bound, "the same run takes more where it may"
    none = Engine(cache_bytes=0)
    assert_same_records(run(PATCHING, none, quick).records, expected)
    assert none.cache.stats().nbytes == 0


def test_a_sweep_and_a_patch_by_hand_at_once_get_the_numbers_that_they_get_alone(quick, engine):
    ready = PATCHING.prepare(engine, quick)
    pair = ready.plan.pairs.pairs[-1]
    run_alone = run(PATCHING, engine, quick).records
    asked = replace(quick, site="mlp_out")
    hand_alone = patch_by_hand(engine, asked, pair, alphas=(0.5, 1.0))
    for _ in range(3):
        together, by_hand, rounds = Engine(), [], []
        together.open(quick.model, "cpu")

        def sweep_by_hand(together=together, by_hand=by_hand, rounds=rounds):
            while not rounds or len(by_hand) < 3:
                by_hand.append(patch_by_hand(together, asked, pair, alphas=(0.5, 1.0)))

        job, thread = start(PATCHING, together, quick), threading.Thread(target=sweep_by_hand)
        thread.start()
        assert job.wait(120)
        rounds.append("over")
        thread.join()
        assert_same_records(job.result.records, run_alone)
        for found in by_hand:
            assert_same_records(found, hand_alone)


def test_the_cache_bound_is_a_setting(monkeypatch):
    monkeypatch.delenv("PATCHBAY_CACHE_GB", raising=False)
    assert default_cache_bytes() is None
    monkeypatch.setenv("PATCHBAY_CACHE_GB", "0.5")
    assert default_cache_bytes() == 1 << 29
    monkeypatch.setenv("PATCHBAY_CACHE_GB", "lots")
    with pytest.raises(InterpError, match="PATCHBAY_CACHE_GB='lots' is no number of gigabytes"):
        default_cache_bytes()
    assert device_memory()["process"] > 1 << 20


# ---- what is checked before anything is written ----------------------------------------------------------------------


@pytest.fixture
def with_long_clips(tmp_path, corpus):
    """The corpus, with two clips longer than the model takes, and one longer than anything takes."""
    folder = tmp_path / "long"
    shutil.copytree(corpus.parent, folder)
    manifest = folder / "clips.csv"
    for name, seconds in (("five", 5), ("six", 6)):
        soundfile.write(folder / f"{name}.wav", tone(seconds, 200), RATE)
        with manifest.open("a") as file:
            file.write(f"{name},{name}.wav,t0,{'happy' if seconds == 5 else 'sad'},neutral,s0\n")
    return manifest


def test_clips_longer_than_the_model_takes_are_all_named_before_anything_is_written(quick, with_long_clips, tmp_path):
    asked = replace(quick, manifest=str(with_long_clips))
    out = tmp_path / "run"
    for attempt in (PATCHING.prepare, partial(run, PATCHING, out=out), partial(start, PATCHING), base_table):
        with pytest.raises(BadRows) as caught:
            attempt(Engine(), asked)
        message = str(caught.value)
        assert "row 14: five.wav lasts 5.0 s, longer than the 4 s limit; cut it, because" in message
        assert "row 15: six.wav lasts 6.0 s" in message and "hears no more" in message
        assert "--max-seconds" not in message and "--skip-bad to leave out 2 bad rows" in message
    assert not out.exists()


def test_skip_bad_leaves_out_what_the_model_cannot_take_and_lists_it(quick, with_long_clips, tmp_path, engine):
    asked = replace(quick, manifest=str(with_long_clips), skip_bad=True, max_pairs=50)
    out = tmp_path / "run"
    found = run(PATCHING, Engine(), asked, out=out)
    used = set(found.records.recipient) | set(found.records.donor)
    assert not used & {"five", "six"} and len(used) == 12
    listed = json.loads((out / "patching_config.json").read_text())["skipped_rows"]
    assert [(row["row"], row["file"]) for row in listed] == [(14, "five.wav"), (15, "six.wav")]
    assert set(base_table(Engine(), asked).clip_id) == used


def test_the_engines_own_limit_is_kept_in_the_config(quick, engine):
    short = Engine(limits=ClipLimits(max_seconds=0.6))
    with pytest.raises(BadRows, match="longer than the 0.6 s limit; cut it or raise --max-seconds"):
        PATCHING.prepare(short, quick)
    ready = PATCHING.prepare(short, replace(quick, skip_bad=True))
    assert 0 < len(ready.manifest.clips) < 12
    again = PatchRequest.from_config(json.loads(json.dumps(ready.config)))
    assert again.max_seconds == 0.6
    assert PATCHING.prepare(engine, again).plan.pairs.pairs == ready.plan.pairs.pairs
    assert PATCHING.prepare(engine, replace(again, max_seconds=30)).plan.pairs.pairs != ready.plan.pairs.pairs


@pytest.mark.parametrize(
    "change, said",
    [
        ({"kinds": "prosody,melody"}, "unknown kind of pair 'melody'"),
        ({"kinds": "same=text_id,differ=colour"}, "need the column 'colour', in which no clip has a value"),
        ({"pilot": 0}, "--pilot 0 is too small; give 1 or more"),
        ({"max_pairs": 0}, "max_pairs=0 for kind 'prosody' leaves no pair"),
        ({"max_clips": 0}, "--max-clips 0 is too small; give 1 or more"),
        ({"max_clips": 1}, "no pair of kind 'prosody'"),
        ({"manifest": None}, "has no clips of its own; give a manifest"),
        ({"manifest": "nowhere.csv"}, "the manifest nowhere.csv does not exist"),
        ({"model": "nothing"}, "'nothing' is no bundled model"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"dtype": "int3"}, "dtype 'int3' is none of auto"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_served_says_why(quick, engine, change, said):
    with pytest.raises(InterpError, match=said):
        PATCHING.prepare(engine, replace(quick, **change))


def test_a_window_behind_the_end_of_clips_names_them_all(quick, engine, tmp_path):
    late = replace(quick, positions="0.6-0.8")
    with pytest.raises(InterpError) as caught:
        run(PATCHING, engine, late, out=tmp_path / "run")
    short = [c.clip_id for c in engine.manifest(quick).clips if soundfile.info(c.path).duration < 0.55]
    assert len(short) == 6 and all(name in str(caught.value) for name in short)
    assert "choose an earlier one" in str(caught.value) and not (tmp_path / "run").exists()
    by_fraction = replace(late, positions="0.3-0.8", align="resample")
    assert PATCHING.prepare(engine, by_fraction).plan.chunks


def test_manifests_outside_the_roots_are_not_read(quick, corpus, tmp_path):
    assert Engine(roots=[corpus.parent]).manifest(quick).clips
    with pytest.raises(InterpError, match="outside the folders that may be read"):
        PATCHING.prepare(Engine(roots=[tmp_path]), quick)


def test_a_manifest_is_read_again_when_it_has_changed(quick, tmp_path, corpus):
    shutil.copytree(corpus.parent, tmp_path / "copy")
    path, engine = tmp_path / "copy" / "clips.csv", Engine()
    asked = replace(quick, manifest=str(path))
    first = engine.manifest(asked)
    assert engine.manifest(asked) is first
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-3]) + "\n")
    assert len(engine.manifest(asked).clips) == len(first.clips) - 3


def test_base_predictions_are_told_as_they_come(quick, engine):
    seen = []
    table = base_table(engine, quick, lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(i + 1, 12) for i in range(12)]
    records = run(PATCHING, engine, quick).records
    answers = table.set_index("clip_id").prediction
    assert (records.base_prediction == records.recipient.map(answers)).all()
    assert (records.donor_prediction == records.donor.map(answers)).all()
    assert np.isfinite(np.stack(table.logits)).all() and table.label_mass.between(0, 1).all()


def test_clips_are_measured_once(engine, quick, monkeypatch):
    clips = engine.manifest(quick).clips[:2]
    engine.acoustics(clips)
    monkeypatch.setattr(engine_module, "acoustics", lambda *_: pytest.fail("measured again"))
    found = engine.acoustics(clips)
    assert found[clips[0].clip_id].duration_s == pytest.approx(soundfile.info(clips[0].path).duration)


def test_an_engine_shows_itself_in_a_line(tiny_folder):
    engine = Engine()
    assert repr(engine) == "<Engine: no model open>"
    engine.open(str(tiny_folder), "cpu")
    assert repr(engine) == f"<Engine: {tiny_folder.name} open>"
