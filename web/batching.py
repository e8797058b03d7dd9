"""Decode images in several threads, and run the network once for all that wait.

A request takes a place in a bounded queue, a batch one for each file, or is turned away at once.
The last quarter of the places is for clients that hold none, so that nobody can fill the queue
alone. Its images are decoded by a few threads, since Pillow and GDCM let go of Python's lock. One
thread runs the network: it takes every image that waits the moment it is idle, so that who is
alone waits for nobody, and batches grow with the load by themselves. The files of one request are
decoded first and then go through the network together. Decoders and network serve one client after
the other (round robin), so that who asks for little waits for one image of each, not for all.

Memory is bounded by the number of decoders, not by the number of those who wait: ``concurrency``
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
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from web.config import WebConfig
from web.errors import ApiError

if TYPE_CHECKING:
    from resformer.predict import Prediction

LARGEST_BATCH = 32
# While several clients are served: who comes next waits for no more than these.
_SHARED_BATCH = 8

T = TypeVar("T")
Pixels = NDArray[np.uint8]
# A model: from images to as many predictions in their order.
Predict = Callable[[Sequence[Pixels]], Sequence["Prediction"]]
# Reads an image: its pixels, and what makes whatever else the request keeps of it.
Decode = Callable[[], tuple[Pixels, Callable[[], T]]]


class FairQueue(Generic[T]):
    """What waits: of each client the first that came, and one of each client in turn."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        self._lock = threading.Lock()

    def put(self, client: str, items: Iterable[T]) -> None:
        """Let items of a client wait."""
        with self._lock:
            self._waiting.setdefault(client, deque()).extend(items)

    def take(self, most: int = 1) -> list[T]:
        """Return those whose turn it is."""
        taken: list[T] = []
        with self._lock:
            while self._waiting and len(taken) < most:
                client, items = next(iter(self._waiting.items()))
                taken.append(items.popleft())
                del self._waiting[client]
                if items:
                    self._waiting[client] = items  # behind the others
            return taken


class FairThreads:
    """A few threads that work for one client after the other.

    Args:
        count: of the threads.
        name: of what they do.
    """

    def __init__(self, count: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._waiting: FairQueue[tuple[Callable[[], Any], Future[Any]]] = FairQueue()

    def submit(self, client: str, work: Callable[[], T]) -> Future[T]:
        """Let a thread do some work when it is the client's turn."""
        future: Future[T] = Future()
        self._waiting.put(client, [(work, future)])
        self._threads.submit(self._run)
        return future

    def _run(self) -> None:
        ((work, future),) = self._waiting.take()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)


class _Waiting(NamedTuple):
    pixels: Pixels
    predict: Predict
    future: Future[Prediction]


class Batcher:
    """One thread that runs the network on what waits, as many at once as make a batch.

    Args:
        max_pixels: how many may wait or be in the network; who brings more waits for room.
        observe: told the size of every batch.
        is_shared: whether several clients are served, so that none may wait for long.
    """

    def __init__(
        self,
        max_pixels: int,
        observe: Callable[[int], None],
        is_shared: Callable[[], bool],
    ) -> None:
        self._max_pixels = max_pixels
        self._observe = observe
        self._is_shared = is_shared
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._changed = threading.Condition()
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._pixels = 0

    def submit(
        self, client: str, predict: Predict, images: Sequence[Pixels], seconds: float
    ) -> list[Future[Prediction]]:
        """Let images of a client run together, with those of others in turn.

        Raises:
            ApiError: ``timeout``, if there was no room for so many seconds.
        """
        size = sum(image.size for image in images)
        futures: list[Future[Prediction]] = [Future() for _ in images]
        with self._changed:
            if not self._changed.wait_for(lambda: self._pixels + size <= self._max_pixels, seconds):
                raise ApiError("timeout")
            self._pixels += size
        pairs = zip(images, futures, strict=True)
        self._waiting.put(client, [_Waiting(image, predict, future) for image, future in pairs])
        self._thread.submit(self._run)
        return futures

    def _run(self) -> None:
        batch = self._waiting.take(_SHARED_BATCH if self._is_shared() else LARGEST_BATCH)
        if not batch:
            return
        self._thread.submit(self._run)  # for those that are left
        begun = [item for item in batch if item.future.set_running_or_notify_cancel()]
        # More than one only in the moment after another model came to be served.
        for predict in dict.fromkeys(item.predict for item in begun):
            self._answer([item for item in begun if item.predict == predict])
        with self._changed:
            self._pixels -= sum(item.pixels.size for item in batch)
            self._changed.notify_all()

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Answer all; if that fails, each alone, so that none spoils the others."""
        try:
            predictions = batch[0].predict([item.pixels for item in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for item in batch:
                    self._answer([item])
            return
        self._observe(len(batch))
        for item, prediction in zip(batch, predictions, strict=True):
            item.future.set_result(prediction)


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
            ApiError: ``busy``, if there are not so many for this client.
        """
        count = min(wanted, self._most)
        with self._lock:
            is_modest = count == 1 and client not in self._held
            if self._free - count < (0 if is_modest else self._reserve):
                raise ApiError("busy")
            self._free -= count
            self._held[client] += count
        return count

    def are_shared(self) -> bool:
        """Return whether several clients hold some."""
        return len(self._held) > 1

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
        config: how many may decode and wait, for how long, and how large images are.
        observe: as for ``Batcher``.
    """

    def __init__(self, config: WebConfig, observe: Callable[[int], None]) -> None:
        self.config = config
        self._places = Places(config.concurrency + config.queue_size)
        self.decoders = FairThreads(config.concurrency, "decode")
        self.gatherer = FairThreads(1, "gather")
        max_pixels = (config.concurrency + 1) * config.max_pixels
        self.batcher = Batcher(max_pixels, observe, self._places.are_shared)

    @contextmanager
    def enter(self, client: str, predict: Predict, files: int = 1) -> Iterator[Turn]:
        """Take a place in the queue for each file until the block ends.

        Work that exceeds the time limit cannot be interrupted: it keeps the place until it ends,
        so that the load stays bounded, but nobody waits for it any longer.

        Args:
            client: who asks.
            predict: the model that answers all of the request.
            files: how many.

        Raises:
            ApiError: ``busy``, at once, if there is no place for this client.
        """
        count = self._places.take(client, files)
        turn = Turn(self, client, predict)
        try:
            yield turn
        finally:
            unfinished = [future for future in list(turn.unfinished) if not future.cancel()]
            _call_after(unfinished, partial(self._places.give_back, client, count))


class Turn:
    """What a request does with its place and its time.

    Whatever takes time raises ``ApiError`` with the code ``timeout`` when the time is over; work
    that has not begun by then never does.
    """

    def __init__(self, pipeline: Pipeline, client: str, predict: Predict) -> None:
        self.unfinished: set[Future[Any]] = set()
        self._pipeline = pipeline
        self._client = client
        self._predict = predict
        self._end = time.monotonic() + pipeline.config.time_limit

    def run(self, work: Callable[[], T]) -> T:
        """Let a decoder's thread do some work."""
        return self._wait(self._begin(work, self._pipeline.decoders))

    def classify(self, decode: Decode[T]) -> tuple[T, Prediction]:
        """Decode one image and let it run with all others that wait.

        The rest of the decoder's work is done while the network runs.
        """

        def work() -> tuple[T, Future[Prediction]]:
            pixels, finish = decode()
            # In this thread: a decoder that waits for room decodes nothing meanwhile.
            (future,) = self._submit([pixels])
            return finish(), future

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
                gather = partial(self._begin_batch, remaining)
                batch = self._wait(self._begin(gather, self._pipeline.gatherer))
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
        """Decode as many of the images as make a batch; for one request at a time."""
        decoded = self._decode_batch(remaining)
        images = [outcome[0] for outcome in decoded if not isinstance(outcome, Exception)]
        futures = iter(self._submit(images) if images else [])
        return [
            outcome if isinstance(outcome, Exception) else (outcome[1], next(futures))
            for outcome in decoded
        ]

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
                work = partial(_decode_whole, remaining.popleft())
                decoding.append(self._begin(work, self._pipeline.decoders))
            if not decoding:
                return outcomes
            outcome = _attempt(partial(self._wait, decoding.popleft()))
            outcomes.append(outcome)
            room -= 0 if isinstance(outcome, Exception) else outcome[0].size

    def _begin(self, work: Callable[[], T], threads: FairThreads) -> Future[T]:
        def begin() -> T:
            self._check_time()
            return work()

        return self._watch(threads.submit(self._client, begin))

    def _submit(self, images: Sequence[Pixels]) -> list[Future[Prediction]]:
        self._check_time()
        futures = self._pipeline.batcher.submit(
            self._client, self._predict, images, self._seconds_left()
        )
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


def _decode_whole(decode: Decode[T]) -> tuple[Pixels, T]:
    pixels, finish = decode()
    return pixels, finish()


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
