"""Two threads on one model: nobody sees another's hooks, and the numbers are those of a thread alone."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

from interp_core.cache import ByteCache
from interp_core.data.clips import Clip, file_digest
from interp_core.jobs import JobManager, Progress
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.labels import LabelTokens
from interp_core.sites import Site
from interp_core.trace.clean import CleanRun, clean_runs, logit_lens
from interp_core.trace.hooks import captured, edited
from interp_core.trace.knockout import knockout, windows
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep
from tests.tiny import tone
from tests.trace.conftest import PROMPT, Runs
from tests.trace.naive import gap, plain_logits

LABELS = LabelTokens(tuple("abcde"), (3, 50, 97, 144, 200), {})
SITES = [Site("resid_post", 2)]


def contexts(subject: AudioLLM) -> dict[str, Callable[[], AbstractContextManager]]:
    return {
        "edited": lambda: edited(subject, {site: torch.zeros_like for site in SITES}),
        "captured": lambda: captured(subject, SITES),
    }


@pytest.mark.parametrize("name", ["edited", "captured"])
def test_a_plain_pass_under_the_lock_waits_for_an_open_context(tiny: AudioLLM, runs: Runs, name: str) -> None:
    inputs = runs["short"].prompted.inputs
    expected, order = plain_logits(tiny.hf, inputs), []
    opened = threading.Event()

    def hooked() -> Tensor:
        with contexts(tiny)[name]():
            opened.set()
            time.sleep(0.2)  # long enough for the plain pass to run, were the context not locked
            inside = plain_logits(tiny.hf, inputs)
            order.append("context")
        return inside

    def plain() -> Tensor:
        opened.wait(5)
        with tiny.lock:
            order.append("plain")
            return plain_logits(tiny.hf, inputs)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(hooked), pool.submit(plain)
        assert order == [] or order[0] == "context"
        assert torch.equal(second.result(), expected)
    assert order == ["context", "plain"]
    assert (gap(first.result(), expected) > 0.01) == (name == "edited")  # control: the edit was in force meanwhile


def test_a_context_opens_while_the_same_thread_holds_another(tiny: AudioLLM, runs: Runs) -> None:
    inputs = runs["short"].prompted.inputs
    with edited(tiny, {Site("resid_post", 1): torch.zeros_like}), captured(tiny, [Site("resid_pre", 2)]) as store:
        plain_logits(tiny.hf, inputs)
    assert not store[Site("resid_pre", 2)].any()


def test_threads_that_sweep_patch_run_and_cut_at_once_get_the_numbers_of_a_thread_alone(
    tiny: AudioLLM, runs: Runs
) -> None:
    a, b = runs["middle"], runs["long"]
    audio = torch.arange(*a.prompted.audio)
    patches = [Patch(a, b, audio, audio.double()), Patch(a, b, audio, audio.double(), alpha=0.5)]
    every, inner = SiteSpec(layers=tuple(range(-1, 5))), SiteSpec("attn_out", layers=(1, 3))

    def swept(spec: SiteSpec, method: str) -> Callable[[], Tensor]:
        return lambda: sweep(tiny, patches, LABELS, spec, method=method).label_logits

    def by_hand() -> Tensor:
        with edited(tiny, {Site("mlp_out", 2): lambda v: -v}):
            return plain_logits(tiny.hf, a.prompted.inputs)

    def plain() -> Tensor:
        with tiny.lock:
            return plain_logits(tiny.hf, b.prompted.inputs)

    work = {
        "fast": swept(every, "fast"),
        "reference": swept(inner, "reference"),
        "inner": swept(inner, "fast"),
        "full": lambda: clean_runs(tiny, [a.prompted, b.prompted])[1].resid[-1],
        "by hand": by_hand,
        "plain": plain,
        "knockout": lambda: knockout(tiny, a, LABELS, windows(5, 2))[0],
        "lens": lambda: logit_lens(tiny, a),
    }
    alone = {name: job() for name, job in work.items()}
    start = threading.Barrier(4)

    def loop(offset: int) -> list[str]:
        names, wrong = list(work), []
        start.wait(5)
        for turn in range(3):
            for i in range(len(names)):
                name = names[(i + offset + turn) % len(names)]
                if gap(work[name](), alone[name]) > 1e-6:
                    wrong.append(name)
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(loop, 2 * n) for n in range(4)]] == [[], [], [], []]


def test_a_sweep_of_a_cancelled_job_stops_between_two_layers_and_leaves_no_hook(tiny: AudioLLM, runs: Runs) -> None:
    a, b = runs["middle"], runs["long"]
    audio = torch.arange(*a.prompted.audio)
    manager, submitted, swept = JobManager(), threading.Event(), []
    before = [len(block._forward_hooks) + len(block._forward_pre_hooks) for block in tiny.blocks]

    def work(progress: Progress) -> Tensor:
        hooks = [tiny.blocks[layer].register_forward_hook(lambda *_, at=layer: reached(at)) for layer in range(5)]
        try:
            assert submitted.wait(30)
            patch = Patch(a, b, audio, audio.double())
            return sweep(tiny, [patch], LABELS, SiteSpec(layers=tuple(range(-1, 5)))).label_logits
        finally:
            for hook in hooks:
                hook.remove()

    def reached(layer: int) -> None:
        swept.append(layer)
        if layer == 2:
            job.cancel()

    job = manager.submit("sweep", "Sweep", work)
    submitted.set()
    assert job.wait(30) and job.status == "cancelled" and swept == [0, 1, 2]
    assert [len(block._forward_hooks) + len(block._forward_pre_hooks) for block in tiny.blocks] == before
    assert manager.close(30)


def test_who_holds_the_model_may_ask_for_a_run_that_another_thread_is_about_to_make(
    tiny: AudioLLM, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, 300), 16_000, subtype="FLOAT")
    clip = Clip("a", tmp_path / "a.wav", {}, file_digest(tmp_path / "a.wav"))
    store = CleanStore(tiny, ByteCache(1 << 26))
    held, asked = threading.Event(), threading.Event()

    def holds() -> CleanRun:
        with tiny.lock:
            held.set()
            asked.wait(5)
            time.sleep(0.2)  # long enough for the other thread to begin
            return store.run(clip, PROMPT)

    def asks() -> CleanRun:
        held.wait(5)
        asked.set()
        return store.run(clip, PROMPT)

    pool = ThreadPoolExecutor(2)
    first, second = pool.submit(holds), pool.submit(asks)
    pool.shutdown(wait=False)
    assert first.result(timeout=20) is second.result(timeout=20)
