"""One GRIP proxy's queue: a thread that posts in order, tries again, and says what it lost."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from django_eventstream import processes
from django_eventstream.exceptions import PublishError
from django_eventstream.proxies import Proxy
from django_eventstream.publishers import items
from django_eventstream.publishers.items import BATCH_ITEMS, Item, ItemQueue, Outcome
from django_eventstream.publishers.posting import RefusedError, post
from django_eventstream.publishers.probes import Probes

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60
"""How long an item is tried: so long a proxy remembers ids, and drops the second of a kind."""

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries at a proxy that fails."""

LATER_SECONDS = 2.0
"""Until a hint is repeated: an answer that was under way at the first one is held by then."""

IDLE_SECONDS = 10.0
"""A thread with nothing left to do ends after this time."""


@dataclass(slots=True)
class OutletStatistics:
    """What an outlet did so far."""

    posted: int = 0
    failures: int = 0
    """Requests that failed; most are tried again."""
    lost: int = 0
    """Items given up. Connections find their events in the log."""


class Outlet:
    """Posts items to one proxy. `put()` never blocks and never raises, from any thread.

    Every item leaves the queue through `_settle()`, which tells whoever waits for it: posted,
    refused, too old, no room, or closed. A try that fails is told at once.
    """

    def __init__(self, proxy: Proxy, timeout: float, encode_probe: Callable[[str, int], bytes]):
        self.proxy = proxy
        self._timeout = timeout
        self._encode_probe = encode_probe
        self._begin()
        processes.after_fork(self._begin)
        processes.before_exit(self.flush)

    def _begin(self) -> None:
        # In a child: the thread and what it still had to do belong to the parent process.
        self.statistics = OutletStatistics()
        self._condition = threading.Condition()
        self._queue = ItemQueue()
        self._later: deque[Item] = deque()
        self._probes = Probes()
        self._thread: threading.Thread | None = None
        self._ends_at: float | None = None

    def put(
        self, bodies: Sequence[bytes], ids: Mapping[str, int], outcome: Outcome | None = None
    ) -> None:
        """Post encoded items in this order; `ids` has the last id of each of their channels.

        The outcome is told how long it may take: a timeout for each request that is in the queue
        by then, and for one that may be under way, but not longer than an item is tried.
        """
        now = time.monotonic()
        with self._condition:
            refused = self._queue.put([Item(body, now, outcome) for body in bodies])
            if outcome is not None:
                requests = 1 + self._queue.count_requests()
                outcome.seconds = min(requests * self._timeout, PATIENCE_SECONDS + self._timeout)
            self._watch(ids, now)
            failure = self._wake(now)
        self._warn(failure)
        self._settle(refused, "the queue is full")

    def put_later(self, bodies: Sequence[bytes]) -> None:
        """Post again after `LATER_SECONDS`, if the process lives so long."""
        at = time.monotonic() + LATER_SECONDS
        with self._condition:
            if len(self._later) < items.QUEUE_ITEMS:
                self._later.extend(Item(body, at) for body in bodies)

    def watch(self, ids: Mapping[str, int]) -> None:
        """Probe these channels when nothing more comes for a while."""
        now = time.monotonic()
        with self._condition:
            self._watch(ids, now)
            failure = self._wake(now)
        self._warn(failure)

    def flush(self, deadline: float) -> None:
        """Post what is queued, with one try, until `time.monotonic()` reaches the deadline."""
        with self._condition:
            self._ends_at = deadline
            self._condition.notify_all()
            thread = self._thread if self._has_thread() else None
            if thread is None:
                # None could be started: this one does its work.
                self._thread = threading.current_thread()
        if thread is None:
            self._run()
        else:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._settle(self._queued(), "the process ended first")

    def close(self) -> None:
        """Forget what is queued, and end the thread."""
        with self._condition:
            self._later.clear()
            self._probes = Probes()
            self._ends_at = time.monotonic()
            self._condition.notify_all()
        self._settle(self._queued(), "publishing was closed")

    def _queued(self) -> list[Item]:
        with self._condition:
            return list(self._queue)

    def _watch(self, ids: Mapping[str, int], now: float) -> None:
        for channel, last_id in ids.items():
            self._probes.note(channel, last_id, now)

    def _wake(self, now: float) -> RuntimeError | None:
        has_thread = self._has_thread()
        if self._ends_at is not None and (not has_thread or now >= self._ends_at):
            self._ends_at = None  # It was flushed, and goes on.
        if not has_thread:
            return self._start_thread()
        self._condition.notify_all()
        return None

    def _has_thread(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start_thread(self) -> RuntimeError | None:
        self._thread = threading.Thread(target=self._run, name="eventstream-publisher", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # The process is ending, or the system has no more threads.
            self._thread = None
            self._tell_waiting(error)
            return error
        processes.expect_exit()
        return None

    def _warn(self, failure: RuntimeError | None) -> None:
        # Without the lock, as all logging here: a handler of the project may send events as well.
        if failure is not None:
            waits = "What is queued waits for the next event, or for the end of the process"
            logger.warning("Publishing to %s: %s. %s.", self.proxy.control_uri, failure, waits)

    # In the thread

    def _run(self) -> None:
        tries = 0
        while True:
            batch: list[Item] = []
            try:
                batch = self._next_batch()
                if not batch:
                    return
                self._post(batch)
                tries = 0
            except Exception as error:  # whatever it is, the thread must live on
                self._report(error, batch, tries)
                if self._may_end():
                    return
                self._pause(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1

    def _next_batch(self) -> list[Item]:
        """Wait for something to do; nothing when the thread may end."""
        idle_until = time.monotonic() + IDLE_SECONDS
        while True:
            now = time.monotonic()
            self._drop_stale(now)
            with self._condition:
                if self._thread is not threading.current_thread():
                    # In a child of gevent: unlike a thread, a greenlet is copied by a fork.
                    return []
                self._take_later(now)
                if self._queue and (self._ends_at is None or now < self._ends_at):
                    return self._queue.first_batch()
                if self._ends_at is not None:
                    self._thread = None
                    return []
                if due := self._probes.take_due(now, BATCH_ITEMS):
                    return [Item(self._encode_probe(*at), now, probe=at) for at in due]
                wait = self._seconds_until_due(now)
                if wait is None and now >= idle_until:
                    self._thread = None
                    return []
                self._condition.wait(IDLE_SECONDS if wait is None else wait)

    def _may_end(self) -> bool:
        # Nobody who starts a command is to wait longer for a proxy that is down.
        with self._condition:
            if self._ends_at is not None:
                self._thread = None
            return self._ends_at is not None

    def _take_later(self, now: float) -> None:
        while self._later and self._later[0].at <= now:
            self._queue.put([self._later.popleft()])

    def _seconds_until_due(self, now: float) -> float | None:
        waits = [max(0.0, item.at - now) for item in islice(self._later, 1)]
        probe = self._probes.seconds_until_due(now)
        return min([*waits, *([] if probe is None else [probe])], default=None)

    def _drop_stale(self, now: float) -> None:
        with self._condition:
            stale = self._queue.older_than(now - PATIENCE_SECONDS)
        self._settle(stale, f"it did not take them for {PATIENCE_SECONDS} s")

    def _post(self, batch: list[Item]) -> None:
        try:
            post(self.proxy, [item.body for item in batch], self._timeout)
            self._settle(batch)
        except RefusedError as refused:
            if len(batch) == 1:
                self._settle(batch, str(refused))
            else:
                # One bad item makes the proxy refuse all of a request.
                for item in batch:
                    self._post([item])

    def _report(self, error: Exception, batch: list[Item], tries: int) -> None:
        if tries == 0:
            logger.warning("Publishing to %s failed: %s", self.proxy.control_uri, error)
        with self._condition:
            self.statistics.failures += 1
            for item in batch:
                if item.probe is not None:
                    self._probes.failed(*item.probe, time.monotonic())
            self._tell_waiting(error)

    def _tell_waiting(self, error: Exception) -> None:
        for item in self._queue:
            if item.outcome is not None:
                item.outcome.failed(error)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._condition:
            while self._ends_at is None and (left := deadline - time.monotonic()) > 0:
                self._condition.wait(left)
                if self._queue.is_awaited():
                    return

    def _settle(self, batch: Sequence[Item], why: str | None = None) -> None:
        """Let items leave the queue: posted, or given up for this reason."""
        error = None if why is None else PublishError(why)
        with self._condition:
            settled = [item for item in batch if not item.is_settled]
            self._queue.remove(settled)
            for item in settled:
                item.settle(error)
            if why is None:
                self.statistics.posted += len(settled)
            else:
                self.statistics.lost += len(settled)
        # A probe is no news: whoever sent its event has told of that.
        news = sum(item.probe is None for item in settled)
        if news and why is not None:
            logger.error(
                "%s not published to %s: %s. Streams get %s from the log.",
                *("1 event was" if news == 1 else f"{news} events were", self.proxy.control_uri),
                *(why, "it" if news == 1 else "them"),
            )
