"""Decode images in several threads, and run the network once for all that wait.

A request takes a place in a bounded queue or is turned away at once. Its images are decoded by a
few threads, since Pillow and GDCM let go of Python's lock. One thread runs the network: it takes
every image that waits the moment it is idle, so that who is alone waits for nobody, and batches
grow with the load by themselves. The files of one request are decoded first and then go through
the network together.

Memory is bounded by the number of decoders, not by the number of those who wait: `concurrency`
images are being decoded, as many of the largest size may wait for the network (or several times
more of a usual size), and one request at a time gathers a batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from web.errors import ApiError

LARGEST_BATCH = 32

Pixels = NDArray[np.uint8]
Result = TypeVar("Result")
Rest = TypeVar("Rest")
T = TypeVar("T")
Compute = Callable[[Sequence[Pixels]], Sequence[Result]]
# Reads an image: its pixels, and what else the request keeps of it.
Decode = Callable[[], tuple[Pixels, Rest]]


class Batcher(Generic[Result]):
    """One thread that runs the network on everything that waits.

    Args:
        compute: from images to as many results in their order.
        max_pixels: how many may wait or be computed; who brings more waits.
        observe: told the size of every batch.
    """

    def __init__(
        self, compute: Compute[Result], max_pixels: int, observe: Callable[[int], None]
    ) -> None:
        self._compute = compute
        self._max_pixels = max_pixels
        self._observe = observe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Pixels, Future[Result]]] = deque()
        self._pixels = 0

    def submit(self, images: Sequence[Pixels], seconds: float) -> list[Future[Result]]:
        """Let images run together, with all others that wait; wait for room for some time.

        Raises:
            ApiError: `timeout`, if there was no room in time.
        """
        size = sum(image.size for image in images)
        futures: list[Future[Result]] = [Future() for _ in images]
        with self._changed:
            if not self._changed.wait_for(
                lambda: not self._pixels or self._pixels + size <= self._max_pixels, seconds
            ):
                raise ApiError("timeout")
            self._pixels += size
            self._waiting.extend(zip(images, futures, strict=True))
        self._thread.submit(self._run)
        return futures

    def _run(self) -> None:
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(min(LARGEST_BATCH, len(self._waiting)))]
            if self._waiting:
                self._thread.submit(self._run)
        self._answer([item for item in taken if item[1].set_running_or_notify_cancel()])
        with self._changed:
            self._pixels -= sum(image.size for image, _ in taken)
            self._changed.notify_all()

    def _answer(self, batch: Sequence[tuple[Pixels, Future[Result]]]) -> None:
        """Answer all; if that fails, each alone, so that none spoils the others."""
        if not batch:
            return
        try:
            results = self._compute([image for image, _ in batch])
            self._observe(len(batch))
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    self._answer([item])
            else:
                batch[0][1].set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)


class Pipeline(Generic[Result]):
    """The bounded way of every request through decoders and network.

    Args:
        compute: as for `Batcher`.
        concurrency: images that are decoded at the same time.
        queue_size: requests that may wait, beside as many as there are decoders.
        time_limit: seconds from the arrival of a request to its answer.
        max_pixels: of the largest image.
        observe: as for `Batcher`.
    """

    def __init__(
        self,
        compute: Compute[Result],
        *,
        concurrency: int,
        queue_size: int,
        time_limit: float,
        max_pixels: int,
        observe: Callable[[int], None],
    ) -> None:
        self.concurrency = concurrency
        self.max_pixels = max_pixels
        self.decoders = ThreadPoolExecutor(concurrency, thread_name_prefix="decode")
        self.batcher = Batcher(compute, concurrency * max_pixels, observe)
        self.gathering = threading.Lock()
        self._places = threading.BoundedSemaphore(concurrency + queue_size)
        self._time_limit = time_limit

    @contextmanager
    def enter(self) -> Iterator[Turn[Result]]:
        """Take a place in the queue until the block ends.

        Work that exceeds the time limit cannot be interrupted: it keeps the place until it ends,
        so that the load stays bounded, but nobody waits for it any longer.

        Raises:
            ApiError: `busy`, at once, if all places are taken.
        """
        if not self._places.acquire(blocking=False):
            raise ApiError("busy")
        turn = Turn(self, time.monotonic() + self._time_limit)
        try:
            yield turn
        finally:
            self._leave_after([future for future in list(turn.unfinished) if not future.cancel()])

    def _leave_after(self, futures: Sequence[Future[Any]]) -> None:
        if futures:
            futures[0].add_done_callback(lambda _: self._leave_after(futures[1:]))
        else:
            self._places.release()


class Turn(Generic[Result]):
    """What a request does with its place and its time.

    Whatever takes time raises `ApiError` with the code `timeout` when the time is over; work that
    has not begun by then never does.
    """

    def __init__(self, pipeline: Pipeline[Result], end: float) -> None:
        self.unfinished: set[Future[Any]] = set()
        self._pipeline = pipeline
        self._end = end

    def run(self, work: Callable[[], T]) -> T:
        """Let a decoder's thread do some work."""
        return self._wait(self._begin(work))

    def classify(self, decode: Decode[Rest]) -> tuple[Rest, Result]:
        """Decode one image and let it run with all others that wait."""

        def work() -> tuple[Rest, Future[Result]]:
            pixels, rest = decode()
            # In this thread: a decoder that waits for room decodes nothing meanwhile.
            (future,) = self._submit([pixels])
            return rest, future

        rest, future = self.run(work)
        return rest, self._wait(future)

    def classify_all(
        self, decodes: Iterable[Decode[Rest]]
    ) -> Iterator[tuple[Rest, Result] | Exception]:
        """Decode images and let them run in batches; each has its result or its own error."""
        remaining = deque(decodes)
        while remaining:
            for outcome in self._classify_some(remaining):
                yield _attempt(partial(self._finish, outcome))

    def _classify_some(
        self, remaining: deque[Decode[Rest]]
    ) -> list[tuple[Rest, Future[Result]] | Exception]:
        """Take as many of the images as make a batch; only one request at a time does."""
        lock = self._pipeline.gathering
        if not lock.acquire(timeout=self._seconds_left()):
            late: list[tuple[Rest, Future[Result]] | Exception] = []
            late += [ApiError("timeout") for _ in remaining]
            remaining.clear()
            return late
        try:
            decoded = self._decode_some(remaining)
            images = [outcome[0] for outcome in decoded if not isinstance(outcome, Exception)]
            futures = iter(self._submit(images) if images else [])
            return [
                outcome if isinstance(outcome, Exception) else (outcome[1], next(futures))
                for outcome in decoded
            ]
        except ApiError as error:  # no room for the batch in time
            return [outcome if isinstance(outcome, Exception) else error for outcome in decoded]
        finally:
            lock.release()

    def _decode_some(self, remaining: deque[Decode[Rest]]) -> list[tuple[Pixels, Rest] | Exception]:
        outcomes: list[tuple[Pixels, Rest] | Exception] = []
        decoding: deque[Future[tuple[Pixels, Rest]]] = deque()
        room = self._pipeline.max_pixels
        while True:
            while (
                remaining
                and room > 0
                and len(decoding) < self._pipeline.concurrency
                and len(outcomes) + len(decoding) < LARGEST_BATCH
            ):
                decoding.append(self._begin(remaining.popleft()))
            if not decoding:
                return outcomes
            outcome = _attempt(partial(self._wait, decoding.popleft()))
            outcomes.append(outcome)
            room -= 0 if isinstance(outcome, Exception) else outcome[0].size

    def _finish(self, outcome: tuple[Rest, Future[Result]] | Exception) -> tuple[Rest, Result]:
        if isinstance(outcome, Exception):
            raise outcome
        rest, future = outcome
        return rest, self._wait(future)

    def _begin(self, work: Callable[[], T]) -> Future[T]:
        def begin() -> T:
            if not self._seconds_left():
                raise ApiError("timeout")
            return work()

        return self._watch(self._pipeline.decoders.submit(begin))

    def _submit(self, images: Sequence[Pixels]) -> list[Future[Result]]:
        futures = self._pipeline.batcher.submit(images, self._seconds_left())
        return [self._watch(future) for future in futures]

    def _watch(self, future: Future[T]) -> Future[T]:
        self.unfinished.add(future)
        future.add_done_callback(self.unfinished.discard)
        return future

    def _wait(self, future: Future[T]) -> T:
        try:
            return future.result(self._seconds_left())
        except TimeoutError:
            if future.done():
                return future.result()  # it ended just now, or the error is its own
            raise ApiError("timeout") from None

    def _seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())


def _attempt(work: Callable[[], T]) -> T | Exception:
    try:
        return work()
    except Exception as error:
        return error
