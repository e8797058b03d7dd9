"""Lets images that wait together run together.

Who comes first runs at once, so nobody waits for company. Who comes meanwhile waits for that run
to end and then goes through the network with all others that have come: the wait is bounded by one
run, a few milliseconds, and batches grow with the load by themselves. The network runs once at a
time, so that its threads do not take the cores from each other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Ticket(Generic[Item, Result]):
    """One item on its way: it is answered, or told to run the next batch."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.woken = threading.Event()
        self.results: list[Result] = []
        self.error: Exception | None = None

    @property
    def is_answered(self) -> bool:
        return bool(self.results or self.error)

    def answer(self) -> Result:
        if self.error:
            raise self.error
        return self.results[0]


class MicroBatcher(Generic[Item, Result]):
    """Runs items one by one while there is time, and together when they come faster.

    Args:
        compute: from items to as many results in their order; never called twice at a time.
        largest: most items in one batch.
    """

    def __init__(
        self, compute: Callable[[Sequence[Item]], Sequence[Result]], *, largest: int = 16
    ) -> None:
        self._compute = compute
        self._largest = largest
        self._lock = threading.Lock()
        self._waiting: deque[_Ticket[Item, Result]] = deque()
        self._is_running = False

    @property
    def waiting(self) -> int:
        """How many items wait for a run to end."""
        return len(self._waiting)

    def run(self, item: Item) -> Result:
        """Return the result of one item, from any thread.

        Raises:
            Exception: what `compute` raises for this item alone; an item that cannot be computed
                does not spoil the others of its batch.
        """
        ticket: _Ticket[Item, Result] = _Ticket(item)
        with self._lock:
            self._waiting.append(ticket)
            leads, self._is_running = not self._is_running, True
        if not leads:
            ticket.woken.wait()
        if not ticket.is_answered:
            self._run_batch()
        return ticket.answer()

    def _run_batch(self) -> None:
        """Answer the first that wait, the caller among them, and let the next one run."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(self._largest, self.waiting))]
        try:
            self._answer(batch)
        finally:
            with self._lock:
                self._is_running = bool(self._waiting)
                woken = [*batch, *list(self._waiting)[:1]]
            for ticket in woken:
                ticket.woken.set()

    def _answer(self, batch: Sequence[_Ticket[Item, Result]]) -> None:
        try:
            results = self._compute([ticket.item for ticket in batch])
            for ticket, result in zip(batch, results, strict=True):
                ticket.results.append(result)
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for ticket in batch:
                ticket.results.clear()
                self._answer([ticket])
