"""What waits for one GRIP proxy, and what becomes of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, inf

from django_eventstream.exceptions import PublishError

BATCH_ITEMS = 100
BATCH_BYTES = 900_000
"""Of one request. A proxy cuts the connection of one beyond 1,000,000 bytes."""

QUEUE_ITEMS = 20_000
QUEUE_BYTES = 64 * 1024 * 1024
"""Of one proxy that does not answer. What does not fit is found in the log by the connections."""


@dataclass(slots=True)
class Outcome:
    """What becomes of some items: posted, all of them, or the first failure. It never stays open.

    `posted()` and `failed()` are called by one thread at a time.
    """

    open_items: int
    seconds: float = inf
    """How long it may take, from when the items were queued."""
    error: Exception | None = None
    _is_known: threading.Event = field(default_factory=threading.Event)

    def posted(self) -> None:
        """Note that one item was taken."""
        self.open_items -= 1
        if self.open_items <= 0:
            self._is_known.set()

    def failed(self, error: Exception) -> None:
        """Note that an item was given up, or that one try at it failed."""
        if not self._is_known.is_set():
            self.error = error
            self._is_known.set()

    def wait(self, since: float, most: float = inf) -> Exception | None:
        """Return what went wrong, or None: all was posted.

        Waits `seconds` from then at most, or `most` if that is less.
        """
        seconds = min(self.seconds, most)
        if not self._is_known.wait(since + seconds - time.monotonic()):
            return PublishError(f"not within {seconds:g} s")
        return self.error


@dataclass(slots=True, eq=False)
class Item:
    """One encoded item, and when it was handed over."""

    body: bytes
    at: float
    outcome: Outcome | None = None
    probe: tuple[str, int] | None = None
    """The channel and id, if the item is no news but a probe."""
    is_settled: bool = False

    def settle(self, error: Exception | None) -> None:
        """Note what became of it, for whoever waits."""
        self.is_settled = True
        if self.outcome is not None:
            if error is None:
                self.outcome.posted()
            else:
                self.outcome.failed(error)


class ItemQueue:
    """Items in the order in which they came, a bounded amount. Not thread-safe."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def put(self, items: Iterable[Item]) -> list[Item]:
        """Append items; return those that there is no room for."""
        refused = []
        for item in items:
            if len(self._items) >= QUEUE_ITEMS or self._bytes + len(item.body) > QUEUE_BYTES:
                refused.append(item)
            else:
                self._items.append(item)
                self._bytes += len(item.body)
        return refused

    def count_requests(self) -> int:
        """Say in how many requests it can be posted, near enough."""
        return ceil(max(len(self._items) / BATCH_ITEMS, self._bytes / BATCH_BYTES))

    def first_batch(self) -> list[Item]:
        """Return what one request takes; it stays in the queue."""
        batch: list[Item] = []
        size = 0
        for item in islice(self._items, BATCH_ITEMS):
            size += len(item.body) + 1
            if batch and size > BATCH_BYTES:
                break
            batch.append(item)
        return batch

    def older_than(self, at: float) -> list[Item]:
        """Return the items that came before this time."""
        found = []
        for item in self._items:
            if item.at >= at:
                break
            found.append(item)
        return found

    def is_awaited(self) -> bool:
        """Say whether somebody waits for the last of its items."""
        return bool(self._items) and self._items[-1].outcome is not None

    def remove(self, items: Sequence[Item]) -> None:
        """Take out the first of its items; others, such as probes, are not there."""
        for item in items:
            if self._items and self._items[0] is item:
                self._items.popleft()
                self._bytes -= len(item.body)
