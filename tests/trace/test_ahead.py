"""Values made on a thread beside the work that asks for them."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from interp_core.cache import ByteCache
from interp_core.data.clips import Clip, file_digest
from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.subject import Subject
from interp_core.trace.ahead import Ahead
from interp_core.trace.clean import clip_inputs
from interp_core.trace.store import CleanStore
from tests.tiny import tone
from tests.trace.conftest import PROMPT


def test_values_are_made_in_their_order_and_handed_over_once() -> None:
    ahead, last = Ahead[str](), threading.Event()
    order: list[tuple[str, bool]] = []

    def make(name: str) -> str:
        order.append((name, threading.current_thread() is threading.main_thread()))
        if name == "c":
            last.set()
        return name.upper()

    ahead.want({name: partial(make, name) for name in "abc"})
    assert last.wait(10)
    assert [ahead.take(name) for name in "abc"] == ["A", "B", "C"]
    assert order == [("a", False), ("b", False), ("c", False)]
    assert ahead.take("a") is None


def test_who_takes_a_value_that_is_being_made_waits_for_it_and_one_that_is_not_begun_is_left_to_them() -> None:
    ahead, begun, go_on = Ahead[int](), threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        assert go_on.wait(10)
        return 1

    ahead.want({"slow": slow, "next": lambda: pytest.fail("it was taken before it was begun")})
    assert begun.wait(10)
    assert ahead.take("next") is None
    threading.Timer(0.05, go_on.set).start()
    assert ahead.take("slow") == 1


def test_what_cannot_be_made_is_left_to_who_asks_and_what_is_not_wanted_any_more_is_let_go() -> None:
    ahead, made = Ahead[int](), threading.Event()

    def broken() -> int:
        raise InterpError("no such clip")

    def fine() -> int:
        made.set()
        return 2

    ahead.want({"broken": broken, "fine": fine})
    assert made.wait(10)
    assert ahead.take("broken") is None
    ahead.want({})
    assert ahead.take("fine") is None


def test_the_thread_ends_when_nothing_is_left_to_be_made() -> None:
    ahead = Ahead[int]()
    ahead.want({number: lambda: 0 for number in range(3)})
    for thread in threading.enumerate():
        if thread.name == "reading ahead":
            thread.join(10)
            assert not thread.is_alive()
    assert [ahead.take(number) for number in range(3)] == [0, 0, 0]


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for number, path in enumerate(paths):
        soundfile.write(path, tone(0.3 + 0.1 * number, 200 + 50 * number), 16000)
    return [Clip(path.stem, path, {}, file_digest(path)) for path in paths]


def test_clips_that_are_said_to_come_are_decoded_beside_the_model_and_run_as_without(
    tiny: AudioLLM, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = CleanStore(tiny, ByteCache(1 << 28))
    expected = [plain.run(clip, PROMPT).logits for clip in clips]
    threads: dict[str, str] = {}
    made = threading.Semaphore(0)

    def noted(subject: Subject, samples: np.ndarray, prompt: str, clip_id: str) -> dict[str, Tensor]:
        threads[clip_id] = threading.current_thread().name
        try:
            return clip_inputs(subject, samples, prompt, clip_id)
        finally:
            made.release()

    monkeypatch.setattr("interp_core.trace.store.clip_inputs", noted)
    store = CleanStore(tiny, ByteCache(1 << 28))
    store.run(clips[0], PROMPT)
    made.acquire()
    store.ahead((clip, PROMPT) for clip in clips)
    assert made.acquire(timeout=10) and made.acquire(timeout=10)
    runs = [store.run(clip, PROMPT) for clip in clips]
    assert threads == {"0": threading.current_thread().name, "1": "reading ahead", "2": "reading ahead"}
    assert all(torch.equal(run.logits, logits) for run, logits in zip(runs, expected, strict=True))


def test_a_clip_that_cannot_be_read_ahead_is_refused_where_it_is_asked_for(tiny: AudioLLM, clips: list[Clip]) -> None:
    store = CleanStore(tiny, ByteCache(1 << 28))
    clips[1].path.write_bytes(b"no sound")
    store.ahead((clip, PROMPT) for clip in clips)
    store.run(clips[0], PROMPT)
    with pytest.raises(InterpError, match="1.wav"):
        store.run(clips[1], PROMPT)
    store.run(clips[2], PROMPT)
