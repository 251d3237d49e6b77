"""The byte-bounded cache: what goes first, what is counted, and that concurrent misses compute once."""

import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from interp_core.cache import ByteCache, CacheStats, nbytes_of
from interp_core.errors import InterpError

SOON = 10.0


def in_threads(n: int, call: Callable[[int], object]) -> None:
    """Run call(0) ... call(n - 1) at once and raise what any of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(n)

    def run(i: int) -> None:
        barrier.wait(SOON)
        try:
            call(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_the_least_recently_used_value_goes_first_and_reading_is_use() -> None:
    cache = ByteCache(30)
    for key in "abc":
        assert cache.put(key, key.upper(), 10)
    assert cache.get("a") == "A"
    cache.put("d", "D", 10)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert cache.get_or_make("a", lambda: "made anew") == "A"
    cache.put("e", "E", 10)
    assert [cache.get(key) for key in "ace"] == ["A", None, "E"]
    cache.put("e", "E", 25)  # takes the place of two and more
    assert [cache.get(key) for key in "acde"] == [None, None, None, "E"]


def test_stats_count_hits_misses_bytes_and_drops() -> None:
    cache = ByteCache(100)
    assert cache.stats() == CacheStats(0, 0, 100, 0, 0, 0, 0) and cache.stats().hit_rate is None
    cache.put("a", 1, 60)
    cache.put("b", 2, 60)
    assert cache.get("a") is None and cache.get("a", "default") == "default" and cache.get("b") == 2
    assert cache.put("c", 3, 101) is False
    assert cache.stats() == CacheStats(1, 60, 100, hits=1, misses=2, evictions=1, oversized=1)
    assert cache.stats().hit_rate == pytest.approx(1 / 3)


def test_the_cache_agrees_with_a_plain_model_of_it_over_random_use() -> None:
    rng = random.Random(0)
    cache, bound = ByteCache(100), 100
    model: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def shrink() -> None:
        while sum(size for _, size in model.values()) > bound:
            model.popitem(last=False)

    for step in range(5000):
        key, size = rng.randrange(12), rng.randrange(0, 60)
        action = rng.random()
        if action < 0.5:
            cache.put(key, step, size)
            model.pop(key, None)
            if size <= bound:
                model[key] = step, size
                shrink()
        elif action < 0.98:
            expected = model[key][0] if key in model else None
            assert cache.get(key) == expected
            if key in model:
                model.move_to_end(key)
        else:
            bound = rng.randrange(0, 150)
            cache.resize(bound)
            shrink()
        stats = cache.stats()
        assert (stats.entries, stats.nbytes) == (len(model), sum(size for _, size in model.values()))
        assert stats.nbytes <= bound == stats.max_bytes
    assert cache.stats().evictions > 100


def test_replacing_a_value_frees_the_old_one_even_when_the_new_one_is_too_large() -> None:
    cache = ByteCache(100)
    cache.put("a", "small", 80)
    cache.put("a", "other", 30)
    assert cache.stats().nbytes == 30 and cache.get("a") == "other"
    cache.put("a", "huge", 101)
    assert cache.get("a") is None and cache.stats().nbytes == 0


def test_clear_empties_it_and_a_bound_of_nothing_keeps_nothing() -> None:
    cache = ByteCache(100)
    cache.put("a", 1, 10)
    cache.clear()
    assert cache.get("a") is None and cache.stats().nbytes == 0
    cache.resize(0)
    assert cache.get_or_make("a", lambda: 5) == 5 and cache.stats().entries == 0
    for wrong in (lambda: ByteCache(-1), lambda: cache.resize(-1)):
        with pytest.raises(InterpError, match="-1 bytes"):
            wrong()
    with pytest.raises(ValueError, match="nbytes=-1"):
        cache.put("a", 1, -1)


def test_get_or_make_makes_once_and_measures_what_it_keeps() -> None:
    cache = ByteCache(1000)
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.zeros(100)

    first = cache.get_or_make("a", make)
    assert cache.get_or_make("a", make) is first and len(made) == 1
    assert cache.stats() == CacheStats(1, 400, 1000, hits=1, misses=1, evictions=0, oversized=0)
    assert cache.get_or_make("none", lambda: None) is None  # None is a value like any other
    assert cache.get_or_make("none", lambda: 1 / 0) is None


@pytest.mark.parametrize("bound", [10_000, 10], ids=["kept", "too large to keep"])
def test_concurrent_misses_of_one_key_compute_once_and_all_get_the_value(bound: int) -> None:
    cache = ByteCache(bound)
    calls: list[int] = []
    waiting = threading.Event()
    got: list[torch.Tensor] = []

    def make() -> torch.Tensor:
        calls.append(1)
        waiting.wait(0.3)  # the others ask meanwhile
        return torch.zeros(100)

    in_threads(8, lambda i: got.append(cache.get_or_make("a", make)))
    assert len(calls) == 1 and len(got) == 8 and all(value is got[0] for value in got)
    stats = cache.stats()
    assert (stats.misses, stats.hits, stats.entries) == (1, 7, 1 if bound > 400 else 0)


def test_a_failure_is_its_own_callers_and_a_waiting_thread_tries_anew() -> None:
    cache = ByteCache(1000)
    begun, go = threading.Event(), threading.Event()
    outcome: list[object] = []

    def fail() -> int:
        begun.set()
        assert go.wait(SOON)
        raise KeyboardInterrupt("cancelled")

    def first() -> None:
        try:
            cache.get_or_make("a", fail)
        except KeyboardInterrupt as error:
            outcome.append(str(error))

    def second() -> None:
        assert begun.wait(SOON)
        go.set()
        outcome.append(cache.get_or_make("a", lambda: 7))

    in_threads(2, lambda i: (first, second)[i]())
    assert sorted(outcome, key=str) == [7, "cancelled"] and cache.get("a") == 7


def test_different_keys_are_made_side_by_side() -> None:
    cache = ByteCache(1000)
    meeting = threading.Barrier(2)

    def make() -> int:
        meeting.wait(SOON)  # breaks if one waits for the other to be made
        return 1

    in_threads(2, lambda i: cache.get_or_make(i, make))
    assert cache.stats().entries == 2


def test_a_value_may_be_made_from_another_but_not_from_itself() -> None:
    cache = ByteCache(1000)
    assert cache.get_or_make("outer", lambda: cache.get_or_make("inner", lambda: 2) + 1) == 3
    with pytest.raises(RuntimeError, match="making 'self' asks for itself"):
        cache.get_or_make("self", lambda: cache.get_or_make("self", lambda: 1))
    assert cache.get_or_make("self", lambda: 4) == 4


def test_the_bound_holds_under_threads() -> None:
    cache = ByteCache(1000)
    largest = [0]

    def use(i: int) -> None:
        rng = random.Random(i)
        for _ in range(400):
            key = rng.randrange(30)
            assert cache.get_or_make(key, partial(np.full, 10 + key, key))[0] == key
            largest[0] = max(largest[0], cache.stats().nbytes)

    in_threads(6, use)
    stats = cache.stats()
    assert 0 < largest[0] <= 1000 and stats.hits + stats.misses == 2400 and stats.evictions > 0
    cache.resize(0)
    assert cache.stats().nbytes == 0


def test_tensors_and_arrays_count_their_storage_and_views_of_one_storage_count_once() -> None:
    states = torch.zeros(10, 20)
    assert nbytes_of(states) == 800
    assert nbytes_of(states[:1]) == 800  # a view keeps all of it alive
    assert nbytes_of(torch.zeros(3, dtype=torch.bfloat16)) == 6
    tuple_of_2 = nbytes_of((1, 2)) - 2 * nbytes_of(1)
    assert nbytes_of((states[0], states[1:])) == 800 + tuple_of_2
    assert nbytes_of((states, torch.zeros(10, 20))) == 1600 + tuple_of_2
    array = np.zeros((10, 20))
    assert nbytes_of(array) == nbytes_of(array[3:5]) == nbytes_of(array.T[:, 1]) == 1600
    assert nbytes_of((array[0], array[1:])) == 1600 + tuple_of_2
    assert nbytes_of(states.numpy()) == 800 and nbytes_of((states, states.numpy()[2:])) == 800 + tuple_of_2
    assert nbytes_of(np.frombuffer(b"x" * 5000, dtype=np.uint8)) >= 5000
    assert nbytes_of(torch.zeros(0)) == 0


def test_gradients_sparse_tensors_and_tables_are_counted() -> None:
    weight = torch.zeros(100, requires_grad=True)
    weight.sum().backward()  # the gradient of a sum is one expanded number
    weight.grad = torch.zeros(100)
    assert nbytes_of(weight) == 800
    sparse = torch.eye(50).to_sparse()
    assert nbytes_of(sparse) == 2 * 50 * 8 + 50 * 4
    table = pd.DataFrame({"number": np.zeros(1000), "word": ["some text"] * 1000})
    assert nbytes_of(table) == table.memory_usage(deep=True).sum() > 8000
    words = np.array(["x" * 1000, "y" * 2000], dtype=object)
    assert nbytes_of(words) > 3000


@dataclass(frozen=True)
class Run:
    states: tuple[torch.Tensor, ...]
    by_name: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Slotted:
    states: torch.Tensor


class Plain:
    def __init__(self) -> None:
        self.cache = [torch.zeros(1000)]
        self.itself = self
        self.model = torch.nn.Linear(1000, 1000)


def test_dataclasses_mappings_and_plain_objects_count_what_they_hold() -> None:
    run = Run((torch.zeros(1000), torch.zeros(1000)), {"mel": np.zeros(1000)})
    assert 16_000 <= nbytes_of(run) < 17_000
    assert 4000 <= nbytes_of(Slotted(torch.zeros(1000))) < 4200
    assert 4000 <= nbytes_of(Plain()) < 6000  # its cache; not the model, which somebody else owns; no endless loop
    twice = Run(run.states, run.by_name)
    assert nbytes_of([run, twice]) - nbytes_of([run]) < 200
    from transformers.modeling_outputs import BaseModelOutput

    output = BaseModelOutput(last_hidden_state=torch.zeros(1000), hidden_states=(torch.zeros(1000),))
    assert 8000 <= nbytes_of(output) < 9500


def test_a_long_list_of_numbers_and_a_text_have_a_size_too() -> None:
    assert nbytes_of([0.5 + i for i in range(1000)]) >= 1000 * (8 + 24)
    assert nbytes_of("x" * 5000) >= 5000
