"""The log in the memory of this process: for tests, and for a site that is one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from math import inf

from django.utils import timezone

from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.processes import after_fork
from django_eventstream.storage.base import Limits, LogPosition, Storage, Sweep


class MemoryStorage(Storage):
    """Needs nothing, and forgets everything when the process ends: clients then start over.

    No other process has it, so one that sends from a shell or a second worker is not heard.
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._begin()
        after_fork(self._begin)

    def append(self, events: Sequence[Event]) -> list[Event]:
        """See `Storage.append()`."""
        now = timezone.now()
        numbered = []
        with self._lock:
            for event in events:
                last = self._last[event.channel] = self._last.get(event.channel, 0) + 1
                stored = event.with_id(last, self._epoch)
                self._stored[event.channel, last] = now, stored
                numbered.append(stored)
        return numbered

    def read(
        self, channel: str, after: int, limit: int, max_bytes: int | None = None
    ) -> list[Event]:
        """See `Storage.read()`."""
        after = max(after, 0)
        room = inf if max_bytes is None else max(1, max_bytes)
        found: list[Event] = []
        size = 0
        with self._lock:
            last = self._last.get(channel, 0)
            for number in range(after + 1, min(after + limit, last) + 1):
                if (channel, number) not in self._stored or size >= room:
                    break
                # In whatever life it was sent, it belongs to the one of now.
                found.append(self._stored[channel, number][1].with_id(number, self._epoch))
                size += len(found[-1].data)
            if after < last and (channel, after + 1) not in self._stored:
                # A channel may have had a million events before the first one that is kept.
                start = max(after + 1, self._oldest.get(channel, 1))
                raise HistoryGoneError(channel, oldest=self._next(channel, start))
        return found

    def get_position(self, channels: Iterable[str]) -> LogPosition:
        """See `Storage.get_position()`."""
        with self._lock:
            return LogPosition({name: self._last.get(name, 0) for name in channels}, self._epoch)

    def trim(self, channel: str, before: datetime | None, keep: int | None, limit: int) -> int:
        """See `Storage.trim()`."""
        with self._lock:
            return self._trim(channel, before, keep, limit)

    def sweep(self, position: int, limit: int, limits: Limits) -> Sweep:
        """See `Storage.sweep()`. Begins at the oldest each time."""
        with self._lock:
            looked_at = list(islice(self._stored.items(), limit))
        removed = 0
        for channel in dict.fromkeys(channel for (channel, _), _ in looked_at):
            removed += self.trim(channel, *limits(channel), limit - removed)
        return Sweep(removed, None, looked_at[-1][1][0] if looked_at else None)

    def begin_epoch(self) -> int:
        """See `Storage.begin_epoch()`."""
        with self._lock:
            self._epoch = _after(self._epoch)
            return self._epoch

    def get_channels(self) -> list[str]:
        """See `Storage.get_channels()`."""
        with self._lock:
            return sorted(self._last)

    def _begin(self) -> None:
        # In a child: what was there is the parent's, and goes on there.
        self._lock = threading.Lock()
        self._epoch = _after(self._epoch)
        self._last: dict[str, int] = {}
        self._oldest: dict[str, int] = {}
        self._stored: dict[tuple[str, int], tuple[datetime, Event]] = {}

    def _next(self, channel: str, number: int) -> int:
        last = self._last[channel]
        kept = (n for n in range(number, last + 1) if (channel, n) in self._stored)
        return next(kept, last + 1)

    def _trim(self, channel: str, before: datetime | None, keep: int | None, limit: int) -> int:
        last = self._last.get(channel, 0)
        if not last:
            return 0
        oldest = self._next(channel, self._oldest.get(channel, 1))
        removed = 0
        while removed < limit and (channel, oldest) in self._stored:
            created = self._stored[channel, oldest][0]
            is_old = before is not None and created < before
            if not is_old and (keep is None or last - oldest < keep):
                break
            del self._stored[channel, oldest]
            removed += 1
            oldest += 1
        self._oldest[channel] = oldest
        return removed


def _after(epoch: int) -> int:
    return max(int(time.time() * 1000), epoch + 1)
