"""Decode images in several threads, and run the network once for all that wait.

A request takes a place in a bounded queue, a batch one for each file, or is turned away at once.
The last quarter of the places is for clients that hold none, so that nobody can fill the queue
alone. Its images are decoded by a
few threads, since Pillow and GDCM let go of Python's lock. One thread runs the network: it takes
every image that waits the moment it is idle, so that who is alone waits for nobody, and batches
grow with the load by themselves. The files of one request are decoded first and then go through
the network together.

Memory is bounded by the number of decoders, not by the number of those who wait: `concurrency`
images are being decoded, one more than that of the largest size may wait for the network (or many
times more of a usual size), and one request at a time gathers a batch.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from web.config import WebConfig
from web.errors import ApiError

if TYPE_CHECKING:
    from resformer.predict import Prediction

LARGEST_BATCH = 32

T = TypeVar("T")
Pixels = NDArray[np.uint8]
Predict = Callable[[Sequence[Pixels]], Sequence["Prediction"]]
# Reads an image: its pixels, and what else the request keeps of it.
Decode = Callable[[], tuple[Pixels, T]]


class Batcher:
    """One thread that runs the network on everything that waits.

    Args:
        predict: from images to as many predictions in their order.
        max_pixels: how many may wait or be in the network; who brings more waits for room.
        observe: told the size of every batch.
    """

    def __init__(self, predict: Predict, max_pixels: int, observe: Callable[[int], None]) -> None:
        self._predict = predict
        self._max_pixels = max_pixels
        self._observe = observe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Pixels, Future[Prediction]]] = deque()
        self._pixels = 0

    def submit(self, images: Sequence[Pixels], seconds: float) -> list[Future[Prediction]]:
        """Let images run together, with all others that wait.

        Raises:
            ApiError: `timeout`, if there was no room for so many seconds.
        """
        size = sum(image.size for image in images)
        futures: list[Future[Prediction]] = [Future() for _ in images]
        with self._changed:
            if not self._changed.wait_for(lambda: self._pixels + size <= self._max_pixels, seconds):
                raise ApiError("timeout")
            self._pixels += size
            self._waiting.extend(zip(images, futures, strict=True))
        self._thread.submit(self._run)
        return futures

    def _run(self) -> None:
        with self._changed:
            count = min(LARGEST_BATCH, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            if self._waiting:
                self._thread.submit(self._run)
        self._answer([item for item in batch if item[1].set_running_or_notify_cancel()])
        with self._changed:
            self._pixels -= sum(image.size for image, _ in batch)
            self._changed.notify_all()

    def _answer(self, batch: Sequence[tuple[Pixels, Future[Prediction]]]) -> None:
        """Answer all; if that fails, each alone, so that none spoils the others."""
        if not batch:
            return
        try:
            predictions = self._predict([image for image, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for item in batch:
                    self._answer([item])
            return
        self._observe(len(batch))
        for (_, future), prediction in zip(batch, predictions, strict=True):
            future.set_result(prediction)


class Places:
    """The bounded places of the queue, and which client holds how many."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._reserve = total // 4
        self._most = total - self._reserve
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, client: str, wanted: int) -> int:
        """Take places, and return how many: what wants too many gets what one client can have.

        Raises:
            ApiError: `busy`, if there are not so many for this client.
        """
        count = min(wanted, self._most)
        with self._lock:
            is_modest = count == 1 and not self._held[client]
            if self._free - count < (0 if is_modest else self._reserve):
                raise ApiError("busy")
            self._free -= count
            self._held[client] += count
        return count

    def give_back(self, client: str, count: int) -> None:
        """Let others have them."""
        with self._lock:
            self._free += count
            self._held[client] -= count
            if not self._held[client]:
                del self._held[client]


class Pipeline:
    """The bounded way of every request through decoders and network.

    Args:
        predict: as for `Batcher`.
        config: how many may decode and wait, for how long, and how large images are.
        observe: as for `Batcher`.
    """

    def __init__(self, predict: Predict, config: WebConfig, observe: Callable[[int], None]) -> None:
        self.config = config
        self.decoders = ThreadPoolExecutor(config.concurrency, thread_name_prefix="decode")
        self.batcher = Batcher(predict, (config.concurrency + 1) * config.max_pixels, observe)
        self.gathering = threading.Lock()
        self._places = Places(config.concurrency + config.queue_size)

    @contextmanager
    def enter(self, client: str, files: int = 1) -> Iterator[Turn]:
        """Take a place in the queue for each file until the block ends.

        Work that exceeds the time limit cannot be interrupted: it keeps the place until it ends,
        so that the load stays bounded, but nobody waits for it any longer.

        Raises:
            ApiError: `busy`, at once, if there is no place for this client.
        """
        count = self._places.take(client, files)
        turn = Turn(self)
        try:
            yield turn
        finally:
            unfinished = [future for future in list(turn.unfinished) if not future.cancel()]
            _call_after(unfinished, partial(self._places.give_back, client, count))


class Turn:
    """What a request does with its place and its time.

    Whatever takes time raises `ApiError` with the code `timeout` when the time is over; work that
    has not begun by then never does.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.unfinished: set[Future[Any]] = set()
        self._pipeline = pipeline
        self._end = time.monotonic() + pipeline.config.time_limit

    def run(self, work: Callable[[], T]) -> T:
        """Let a decoder's thread do some work."""
        return self._wait(self._begin(work))

    def classify(self, decode: Decode[T]) -> tuple[T, Prediction]:
        """Decode one image and let it run with all others that wait."""

        def work() -> tuple[T, Future[Prediction]]:
            pixels, rest = decode()
            # In this thread: a decoder that waits for room decodes nothing meanwhile.
            (future,) = self._submit([pixels])
            return rest, future

        rest, future = self.run(work)
        return rest, self._wait(future)

    def classify_all(
        self, decodes: Iterable[Decode[T]]
    ) -> Iterator[tuple[T, Prediction] | Exception]:
        """Decode images and let them run in batches; yield the result or the error of each."""
        remaining = deque(decodes)
        while remaining:
            count = len(remaining)
            try:
                batch = self._begin_batch(remaining)
            except ApiError as error:  # it was not its turn in time
                yield from [error] * count
                return
            for outcome in batch:
                if isinstance(outcome, Exception):
                    yield outcome
                    continue
                rest, future = outcome
                result = _attempt(partial(self._wait, future))
                yield result if isinstance(result, Exception) else (rest, result)

    def _begin_batch(
        self, remaining: deque[Decode[T]]
    ) -> list[tuple[T, Future[Prediction]] | Exception]:
        """Decode as many of the images as make a batch; one request at a time does."""
        lock = self._pipeline.gathering
        if not lock.acquire(timeout=self._seconds_left()):
            raise ApiError("timeout")
        try:
            decoded = self._decode_batch(remaining)
            images = [outcome[0] for outcome in decoded if not isinstance(outcome, Exception)]
            futures = iter(self._submit(images) if images else [])
            return [
                outcome if isinstance(outcome, Exception) else (outcome[1], next(futures))
                for outcome in decoded
            ]
        finally:
            lock.release()

    def _decode_batch(self, remaining: deque[Decode[T]]) -> list[tuple[Pixels, T] | Exception]:
        config, room = self._pipeline.config, self._pipeline.config.max_pixels
        outcomes: list[tuple[Pixels, T] | Exception] = []
        decoding: deque[Future[tuple[Pixels, T]]] = deque()
        while True:
            while (
                remaining
                and room > 0
                and len(decoding) < config.concurrency
                and len(outcomes) + len(decoding) < LARGEST_BATCH
            ):
                decoding.append(self._begin(remaining.popleft()))
            if not decoding:
                return outcomes
            outcome = _attempt(partial(self._wait, decoding.popleft()))
            outcomes.append(outcome)
            room -= 0 if isinstance(outcome, Exception) else outcome[0].size

    def _begin(self, work: Callable[[], T]) -> Future[T]:
        def begin() -> T:
            self._check_time()
            return work()

        return self._watch(self._pipeline.decoders.submit(begin))

    def _submit(self, images: Sequence[Pixels]) -> list[Future[Prediction]]:
        self._check_time()
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

    def _check_time(self) -> None:
        if not self._seconds_left():
            raise ApiError("timeout")

    def _seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())


def _call_after(futures: Sequence[Future[Any]], work: Callable[[], None]) -> None:
    if futures:
        futures[0].add_done_callback(lambda _: _call_after(futures[1:], work))
    else:
        work()


def _attempt(work: Callable[[], T]) -> T | Exception:
    try:
        return work()
    except Exception as error:
        return error
