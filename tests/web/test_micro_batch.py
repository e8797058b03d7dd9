"""Micro-batching: alone at once, together under load, each with its own result or error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.phantom import draw_chest_phantom
from tests.web.posting import PATIENCE
from web.micro_batch import MicroBatcher
from web.service import ModelService


class Network:
    """Doubles numbers, refuses negative ones, and takes as long as it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        assert self.may_end.wait(PATIENCE)
        if min(items) < 0:
            raise ValueError(f"{min(items)} is negative")
        return [2 * item for item in items]


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run_behind_one(
    network: Network, pool: ThreadPoolExecutor, items: Sequence[int], largest: int = 16
) -> list[Future[int]]:
    """Let items come while the item 0 runs; their futures, all of them done."""
    batcher = MicroBatcher[int, int](network, largest=largest)
    network.may_end.clear()
    futures = [pool.submit(batcher.run, 0)]
    wait_until(lambda: network.batches == [[0]])
    for count, item in enumerate(items, 1):
        futures.append(pool.submit(batcher.run, item))
        wait_until(partial(lambda so_far: batcher.waiting == so_far, count))
    network.may_end.set()
    assert futures[0].result(PATIENCE) == 0
    for future in futures[1:]:
        future.exception(PATIENCE)
    assert batcher.waiting == 0
    assert batcher.run(21) == 42  # nothing is left behind
    assert network.batches.pop() == [21]
    return futures[1:]


def test_who_is_alone_runs_alone_and_at_once(network: Network) -> None:
    batcher = MicroBatcher[int, int](network)
    assert [batcher.run(item) for item in (1, 2, 3)] == [2, 4, 6]
    assert network.batches == [[1], [2], [3]]


def test_those_who_wait_run_together_and_get_their_own(
    network: Network, pool: ThreadPoolExecutor
) -> None:
    futures = run_behind_one(network, pool, [1, 2, 3, 4])
    assert [future.result() for future in futures] == [2, 4, 6, 8]
    assert network.batches == [[0], [1, 2, 3, 4]]


def test_a_batch_is_not_larger_than_allowed(network: Network, pool: ThreadPoolExecutor) -> None:
    futures = run_behind_one(network, pool, [1, 2, 3, 4, 5], largest=2)
    assert [future.result() for future in futures] == [2, 4, 6, 8, 10]
    assert network.batches == [[0], [1, 2], [3, 4], [5]]


def test_an_error_is_its_own_items(network: Network, pool: ThreadPoolExecutor) -> None:
    first, bad, last = run_behind_one(network, pool, [1, -7, 3])
    assert (first.result(), last.result()) == (2, 6)
    with pytest.raises(ValueError, match="-7 is negative"):
        bad.result()


def test_an_error_alone_leaves_the_way_free(network: Network) -> None:
    batcher = MicroBatcher[int, int](network)
    with pytest.raises(ValueError, match="-1 is negative"):
        batcher.run(-1)
    assert batcher.run(5) == 10


def test_many_threads_all_get_their_own(network: Network, pool: ThreadPoolExecutor) -> None:
    batcher = MicroBatcher[int, int](network, largest=4)
    assert list(pool.map(batcher.run, range(2000))) == [2 * item for item in range(2000)]
    assert sorted(item for batch in network.batches for item in batch) == list(range(2000))


def test_the_service_answers_many_at_once_as_it_answers_one(
    tiny_checkpoint: Path, pool: ThreadPoolExecutor
) -> None:
    service = ModelService(tiny_checkpoint, "cpu")
    service.load()
    films = [draw_chest_phantom(64 + 8 * (seed % 3), seed=seed) for seed in range(24)]
    alone = [service.predict(film).probabilities for film in films]
    for prediction, expected in zip(pool.map(service.predict, films), alone, strict=True):
        assert prediction.probabilities == pytest.approx(expected, abs=1e-5)
