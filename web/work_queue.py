"""The one bounded queue in front of the model: more than it holds is turned away at once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class BusyError(RuntimeError):
    """The queue is full; the request may be sent again a moment later."""


class TimeLimitError(RuntimeError):
    """The work did not end within the time limit, waiting included."""


class WorkQueue:
    """Runs a few pieces of work at a time, lets a bounded number wait, and limits their time.

    Decoding belongs to the work as well as the network: both take memory and processor time.

    Args:
        concurrency: pieces of work that run at the same time.
        waiting: pieces of work that may wait for their turn.
        time_limit: seconds from the arrival of a piece of work to its end.
    """

    def __init__(self, *, concurrency: int, waiting: int, time_limit: float) -> None:
        self._places = threading.BoundedSemaphore(concurrency + waiting)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="work")
        self._time_limit = time_limit

    def run(self, work: Callable[[], Result], seconds: float = math.inf) -> Result:
        """Return what `work` returns, or raise what it raises.

        `seconds` are the time that is left for it, where that is less than the time limit.

        A thread cannot be interrupted: work that exceeds the limit keeps its place until it ends,
        so that the load stays bounded, but nobody waits for it any longer.

        Raises:
            BusyError: at once, if all places are taken.
            TimeLimitError: if the work has not ended in time; it is dropped if it has not begun.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: self._places.release())
        try:
            return future.result(min(self._time_limit, seconds))
        except TimeoutError:
            if not future.cancel() and future.done():
                return future.result()  # it ended just now, or the error is its own
            raise TimeLimitError from None
