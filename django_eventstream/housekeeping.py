"""When old events are removed, and by whom: by a thread, so that no sender waits for it.

A process that sends or holds streams would sweep once a minute, and sooner while more is waiting;
of all that share the log one does, by a lease. A process that ends before its first minute sweeps
then, in a thread that began with its first send: when Python ends, none can begin.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence

from django.db import connections

from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.processes import after_fork, before_exit, expect_exit, is_under_test
from django_eventstream.retention import BATCH_SIZE, Swept, sweep
from django_eventstream.storage.base import SWEEP, Storage, WatchPosition
from django_eventstream.transactions import own_thread

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 60.0
"""Between two sweeps, unless there is more to remove."""

CHANNELS_REMEMBERED = 1_000
"""Channels that wait for their turn; those beyond are met when they are sent to again."""

EXIT_SECONDS = 2.0
"""How long a process that ends waits for its sweep; the database undoes what is cut off."""


class Housekeeper:
    """Sees to it that old events go. One for each process, for any thread and signal handler."""

    def __init__(self) -> None:
        self._begin()
        after_fork(self._begin)
        before_exit(self.finish)

    def _begin(self) -> None:
        # A signal handler may send as well, in the middle of whatever its thread does.
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_begun = False
        self._holder = secrets.token_hex(8)
        self._sent: Counter[str] = Counter()
        self._due = time.monotonic() + PAUSE_SECONDS
        self._events_until_due: int | None = None
        self._position = 0
        """Where the next sweep begins in a log that keeps no lease."""

    def after_send(self, events: Sequence[Event]) -> None:
        """Count the events, and have old ones removed if it is time. Never waits, nor raises."""
        with self._lock:
            self._count(events)
            if not self._has_begun or self._is_due():
                self._start()

    def stir(self) -> None:
        """Have old events removed if it is time, in a process that may never send."""
        if self._is_due():
            with self._lock:
                self._start()

    def finish(self, deadline: float) -> None:
        """Sweep now if that was to wait, in a process that ends."""
        self._wake.set()
        if (thread := self._thread) is not None:
            thread.join(min(EXIT_SECONDS, max(0.0, deadline - time.monotonic())))

    def _count(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.channel in self._sent or len(self._sent) < CHANNELS_REMEMBERED:
                self._sent[event.channel] += 1
        if self._events_until_due is not None:
            self._events_until_due -= len(events)

    def _is_due(self) -> bool:
        left = self._events_until_due
        return (left is not None and left <= 0) or time.monotonic() >= self._due

    def _start(self) -> None:
        # A test's own transaction is none of ours, and neither is the database that it removes.
        if self._thread is not None or is_under_test():
            return
        self._has_begun = True
        thread = threading.Thread(target=self._run, name="eventstream-sweep", daemon=True)
        try:
            expect_exit()
            thread.start()
        except RuntimeError as error:
            self._due = time.monotonic() + PAUSE_SECONDS
            logger.debug("This process does not remove old events now: %s", error)
        else:
            self._thread = thread

    # In the thread

    def _run(self) -> None:
        if not self._is_due():
            self._wake.wait(self._due - time.monotonic())
        channel = self._next_channel()
        swept = Swept()
        try:
            own_thread()
            if (storage := get_storage()) is not None:
                swept = self._sweep(storage, channel)
        except StorageUnavailableError as error:
            # Of a process that ends, the next one does it.
            level = logging.INFO if self._wake.is_set() else logging.WARNING
            logger.log(level, "Old events could not be removed now: %s", error)
        except Exception:
            # The project's own channel manager is asked, too.
            logger.warning("Old events could not be removed now", exc_info=True)
        finally:
            connections.close_all()
            self._end(channel, swept)

    def _next_channel(self) -> str | None:
        with self._lock:
            found = self._sent.most_common(1)
            for channel, _ in found:
                del self._sent[channel]
            return found[0][0] if found else None

    def _sweep(self, storage: Storage, channel: str | None) -> Swept:
        if not storage.supports_watch:
            swept = sweep(storage, self._position, channel)
            self._position = swept.position
            return swept
        lease = storage.take_lease(self._holder, PAUSE_SECONDS, SWEEP)
        if not lease.is_held:
            return Swept()
        swept = sweep(storage, lease.position.control_id or 0, channel)
        seconds = 0 if swept.has_more else PAUSE_SECONDS
        storage.renew_lease(self._holder, seconds, WatchPosition(None, swept.position), SWEEP)
        return swept

    def _end(self, channel: str | None, swept: Swept) -> None:
        with self._lock:
            if swept.channel_has_more and channel is not None:
                self._sent[channel] += BATCH_SIZE
            has_more = swept.has_more or swept.channel_has_more
            self._events_until_due = BATCH_SIZE // 2 if has_more else None
            self._due = time.monotonic() + PAUSE_SECONDS
            self._thread = None


housekeeper = Housekeeper()
