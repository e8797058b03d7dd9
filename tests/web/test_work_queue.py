"""The queue in front of the model: bounded, fair to errors, and limited in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray

from resformer.predict import Prediction
from tests.web.conftest import encode
from tests.web.posting import PATIENCE, post_file
from web import WebConfig, create_app
from web.service import ModelService
from web.work_queue import BusyError, TimeLimitError, WorkQueue


class Work:
    """Work that ends when it is told to, and remembers that it has begun."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE)
        return "done"


@pytest.fixture
def ask() -> Iterator[Callable[..., Any]]:
    """Calls something in a thread of its own; the future of its result."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit


def test_results_and_errors_come_back() -> None:
    queue = WorkQueue(concurrency=1, waiting=0, time_limit=PATIENCE)
    assert queue.run(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        queue.run(lambda: 1 // 0)
    assert queue.run(lambda: 43) == 43


def test_a_full_queue_refuses_at_once_and_takes_more_when_there_is_room(
    ask: Callable[..., Any],
) -> None:
    queue = WorkQueue(concurrency=1, waiting=1, time_limit=PATIENCE)
    first, other = Work(), Work()
    running = ask(queue.run, first)
    assert first.has_begun.wait(PATIENCE)
    rivals = [ask(queue.run, other), ask(queue.run, other)]
    finished, waiting = wait(rivals, timeout=PATIENCE, return_when=FIRST_COMPLETED)
    assert len(finished) == len(waiting) == 1
    with pytest.raises(BusyError):
        finished.pop().result()
    assert not other.has_begun.is_set()
    first.may_end.set()
    other.may_end.set()
    assert running.result(PATIENCE) == waiting.pop().result(PATIENCE) == "done"
    assert queue.run(lambda: "room again") == "room again"


def test_only_so_many_run_at_the_same_time(ask: Callable[..., Any]) -> None:
    queue = WorkQueue(concurrency=2, waiting=4, time_limit=PATIENCE)
    lock, running, most = threading.Lock(), [0], [0]
    two = threading.Barrier(2)

    def work() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        two.wait(PATIENCE)
        with lock:
            running[0] -= 1

    for future in [ask(queue.run, work) for _ in range(6)]:
        future.result(PATIENCE)
    assert most == [2]


def begin(queue: WorkQueue, work: Work) -> None:
    """Let a queue begin with work that outlasts its short limit, however busy the machine is."""
    while not work.has_begun.wait(0.1):
        with suppress(BusyError, TimeLimitError):
            queue.run(work)


def run_when_free(queue: WorkQueue) -> None:
    """Let a queue with a short limit do something, however busy the machine is."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(BusyError, TimeLimitError):
            assert queue.run(lambda: "free") == "free"
            return
        time.sleep(0.01)
    pytest.fail("the place was never given back")


def test_work_beyond_the_time_limit_is_given_up_but_keeps_its_place() -> None:
    queue = WorkQueue(concurrency=1, waiting=0, time_limit=0.05)
    work = Work()
    with pytest.raises(TimeLimitError):
        queue.run(work)
    begin(queue, work)
    with pytest.raises(BusyError):
        queue.run(lambda: "too early")
    work.may_end.set()
    run_when_free(queue)


def test_work_that_waited_too_long_never_begins() -> None:
    queue = WorkQueue(concurrency=1, waiting=1, time_limit=0.2)
    blocker, late = Work(), Work()
    begin(queue, blocker)
    with pytest.raises(TimeLimitError):
        queue.run(late)
    blocker.may_end.set()
    run_when_free(queue)  # its turn would have come before
    assert not late.has_begun.is_set()


def test_a_time_out_of_the_work_itself_stays_what_it_is() -> None:
    def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        WorkQueue(concurrency=1, waiting=0, time_limit=PATIENCE).run(work)


class SlowService(ModelService):
    """A model that thinks until it is told to answer."""

    def __init__(self, model_path: Path) -> None:
        super().__init__(model_path, "cpu")
        self.load()
        self.work = Work()

    def predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        self.work()
        return super().predict(pixels)


def slow_client(model_path: Path, **limits: float) -> tuple[FlaskClient, Work]:
    service = SlowService(model_path)
    settings: dict[str, Any] = {"concurrency": 1, "queue_size": 0, **limits}
    service.work.may_end.set()
    client = create_app(WebConfig(**settings), service).test_client()
    assert post_file(client, encode()).status_code == 200
    service.work.has_begun.clear()
    service.work.may_end.clear()
    return client, service.work


def test_a_busy_server_says_so_at_once_and_answers_again_later(
    tiny_checkpoint: Path, ask: Callable[..., Any]
) -> None:
    client, work = slow_client(tiny_checkpoint)
    running = ask(post_file, client, encode())
    assert work.has_begun.wait(PATIENCE)
    refused = post_file(client.application.test_client(), encode())
    assert not running.done()
    assert (refused.status_code, refused.get_json()["code"]) == (503, "busy")
    assert "Try again" in refused.get_json()["error"]
    assert refused.headers["Retry-After"] == "1"
    work.may_end.set()
    assert running.result(PATIENCE).status_code == 200
    assert post_file(client, encode()).status_code == 200


def test_an_image_beyond_the_time_limit_is_answered_in_time(tiny_checkpoint: Path) -> None:
    client, work = slow_client(tiny_checkpoint, time_limit=1)
    start = time.monotonic()
    refused = post_file(client, encode())  # answered, although the model still thinks
    assert time.monotonic() - start > 0.9
    assert (refused.status_code, refused.get_json()["code"]) == (503, "timeout")
    assert refused.headers["Retry-After"] == "5"
    work.may_end.set()
