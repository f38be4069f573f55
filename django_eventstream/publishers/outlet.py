"""One GRIP proxy's queue: a thread that posts in order, tries again, and says what it lost."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from weakref import WeakSet

from django_eventstream.exceptions import PublishError
from django_eventstream.proxies import Proxy
from django_eventstream.publishers.posting import RefusedError, post
from django_eventstream.publishers.probes import Probes

logger = logging.getLogger(__name__)

BATCH_ITEMS = 100
BATCH_BYTES = 900_000
"""Of one request. A proxy cuts the connection of one beyond 1,000,000 bytes."""

QUEUE_ITEMS = 20_000
QUEUE_BYTES = 64 * 1024 * 1024
"""Of one proxy that does not answer. What does not fit is found in the log by the connections."""

PATIENCE_SECONDS = 60
"""How long an item is tried: so long a proxy remembers ids, and drops the second of a kind."""

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries at a proxy that fails."""

FLUSH_SECONDS = 5.0
"""How long a process that ends waits for its queues."""

LATER_SECONDS = 2.0
"""Until a hint is repeated: an answer that was under way at the first one is held by then."""

IDLE_SECONDS = 10.0
"""A thread with nothing left to do ends after this time."""


@dataclass(slots=True)
class Ticket:
    """Somebody waits until items are posted, or fail once."""

    waits_for: int
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def posted(self) -> None:
        self.waits_for -= 1
        if self.waits_for <= 0:
            self.done.set()

    def failed(self, error: Exception) -> None:
        self.error = self.error or error
        self.done.set()


@dataclass(frozen=True, slots=True)
class Item:
    """One encoded item, and when it was handed over."""

    body: bytes
    at: float
    ticket: Ticket | None = None
    probe: tuple[str, int] | None = None
    """The channel and id, if the item is no news but a probe."""


@dataclass(slots=True)
class OutletStatistics:
    """What an outlet did so far."""

    posted: int = 0
    failures: int = 0
    """Requests that failed; most are tried again."""
    lost: int = 0
    """Items given up. Connections find their events in the log."""


class Outlet:
    """Posts items to one proxy. `put()` never blocks and never raises, from any thread."""

    def __init__(self, proxy: Proxy, timeout: float, encode_probe: Callable[[str, int], bytes]):
        self.proxy = proxy
        self.statistics = OutletStatistics()
        self._timeout = timeout
        self._encode_probe = encode_probe
        self.after_fork()
        _outlets.add(self)

    def after_fork(self) -> None:
        """Begin anew: the thread and what it still had to do belong to the parent process."""
        self._condition = threading.Condition()
        self._queue: deque[Item] = deque()
        self._later: deque[Item] = deque()
        self._bytes = 0
        self._probes = Probes()
        self._thread: threading.Thread | None = None
        self._is_ending = False

    def put(self, bodies: Sequence[bytes], ids: Mapping[str, int], ticket: Ticket | None) -> None:
        """Post encoded items in this order; `ids` has the last id of each of their channels."""
        now = time.monotonic()
        with self._condition:
            lost = 0
            for body in bodies:
                if len(self._queue) >= QUEUE_ITEMS or self._bytes + len(body) > QUEUE_BYTES:
                    lost += 1
                    continue
                self._queue.append(Item(body, now, ticket))
                self._bytes += len(body)
            self._watch(ids, now)
            try:
                self._wake()
            except RuntimeError as error:  # no thread starts any more: the process is ending
                self._lose(len(bodies), str(error), ticket)
        if lost:
            self._lose(lost, "the queue is full", ticket)

    def put_later(self, bodies: Sequence[bytes]) -> None:
        """Post again after `LATER_SECONDS`, if the process lives so long."""
        at = time.monotonic() + LATER_SECONDS
        with self._condition:
            if len(self._later) < QUEUE_ITEMS:
                self._later.extend(Item(body, at) for body in bodies)

    def watch(self, ids: Mapping[str, int]) -> None:
        """Probe these channels when nothing more comes for a while."""
        with self._condition:
            self._watch(ids, time.monotonic())
            self._wake()

    def flush(self, deadline: float) -> None:
        """Wait until the queue is empty, or until `time.monotonic()` reaches the deadline."""
        with self._condition:
            self._is_ending = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._condition:
            if self._queue:
                logger.warning(
                    "%d events were not published to %s before the process ended",
                    len(self._queue),
                    self.proxy.control_uri,
                )

    def close(self) -> None:
        """Forget what is queued, and end the thread."""
        with self._condition:
            self._queue.clear()
            self._later.clear()
            self._bytes = 0
            self._probes = Probes()
            self._is_ending = True
            self._condition.notify_all()

    def _watch(self, ids: Mapping[str, int], now: float) -> None:
        for channel, last_id in ids.items():
            self._probes.note(channel, last_id, now)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="eventstream-publisher", daemon=True
            )
            self._thread.start()
        self._condition.notify_all()

    # In the thread

    def _run(self) -> None:
        tries = 0
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            try:
                self._post(batch)
                tries = 0
            except Exception as error:  # whatever it is, the thread must live on
                self._report(error, batch, tries)
                if self._is_ending:
                    # Nobody who starts a command is to wait longer for a proxy that is down.
                    self._thread = None
                    return
                self._pause(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1

    def _next_batch(self) -> list[Item] | None:
        """Wait for something to do; None when the thread may end."""
        idle_until = time.monotonic() + IDLE_SECONDS
        with self._condition:
            while True:
                now = time.monotonic()
                self._drop_stale(now)
                self._take_later(now)
                if self._queue:
                    return self._first_of_queue()
                if self._is_ending:
                    self._thread = None
                    return None
                if due := self._probes.take_due(now, BATCH_ITEMS):
                    return [Item(self._encode_probe(*at), now, probe=at) for at in due]
                wait = self._seconds_until_due(now)
                if wait is None and now >= idle_until:
                    self._thread = None
                    return None
                self._condition.wait(IDLE_SECONDS if wait is None else wait)

    def _take_later(self, now: float) -> None:
        while self._later and self._later[0].at <= now:
            item = self._later.popleft()
            self._queue.append(item)
            self._bytes += len(item.body)

    def _seconds_until_due(self, now: float) -> float | None:
        waits = [max(0.0, item.at - now) for item in islice(self._later, 1)]
        probe = self._probes.seconds_until_due(now)
        return min([*waits, *([] if probe is None else [probe])], default=None)

    def _first_of_queue(self) -> list[Item]:
        batch: list[Item] = []
        size = 0
        for item in self._queue:
            size += len(item.body) + 1
            if batch and (size > BATCH_BYTES or len(batch) == BATCH_ITEMS):
                break
            batch.append(item)
        return batch

    def _drop_stale(self, now: float) -> None:
        lost = 0
        while self._queue and self._queue[0].at < now - PATIENCE_SECONDS:
            self._bytes -= len(self._queue.popleft().body)
            lost += 1
        if lost:
            self._lose(lost, f"it did not answer for {PATIENCE_SECONDS} s", None)

    def _post(self, batch: list[Item]) -> None:
        try:
            post(self.proxy, [item.body for item in batch], self._timeout)
            self._settle(batch)
        except RefusedError as refused:
            if len(batch) == 1:
                self._settle(batch, refused)
            else:
                # One bad item makes the proxy refuse all of a request.
                for item in batch:
                    self._post([item])

    def _settle(self, batch: list[Item], refused: Exception | None = None) -> None:
        with self._condition:
            for item in batch:
                # It is not there if it is a probe, or if the queue was closed meanwhile.
                if self._queue and self._queue[0] is item:
                    self._queue.popleft()
                    self._bytes -= len(item.body)
                if refused is None:
                    self.statistics.posted += 1
                    if item.ticket is not None:
                        item.ticket.posted()
        if refused is not None:
            self._lose(len(batch), str(refused), batch[0].ticket)

    def _report(self, error: Exception, batch: list[Item], tries: int) -> None:
        self.statistics.failures += 1
        if tries == 0:
            logger.warning("Publishing to %s failed: %s", self.proxy.control_uri, error)
        with self._condition:
            for item in batch:
                if item.probe is not None:
                    self._probes.failed(*item.probe, time.monotonic())
            for item in self._queue:
                if item.ticket is not None:
                    item.ticket.failed(error)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._condition:
            while not self._is_ending and (left := deadline - time.monotonic()) > 0:
                self._condition.wait(left)
                if self._queue and self._queue[-1].ticket is not None:
                    return  # somebody waits for an answer

    def _lose(self, count: int, why: str, ticket: Ticket | None) -> None:
        self.statistics.lost += count
        logger.error(
            "%d events were not published to %s: %s. Streams get them from the log.",
            count,
            self.proxy.control_uri,
            why,
        )
        if ticket is not None:
            ticket.failed(PublishError(why))


_outlets: WeakSet[Outlet] = WeakSet()


@atexit.register
def flush() -> None:
    """Post what is still queued, with one try. A process that a signal kills does not come here."""
    deadline = time.monotonic() + FLUSH_SECONDS
    for outlet in list(_outlets):
        outlet.flush(deadline)


def _after_fork() -> None:
    for outlet in list(_outlets):
        outlet.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
