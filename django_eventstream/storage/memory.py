"""The log in the memory of this process: for tests, and for a site that is one process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
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
                self._kept(event.channel)[last] = now, stored
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
            kept = self._stored.get(channel, {})
            for number in range(after + 1, min(after + limit, last) + 1):
                if number not in kept or size >= room:
                    break
                # In whatever life it was sent, it belongs to the one of now.
                found.append(kept[number][1].with_id(number, self._epoch))
                size += len(found[-1].data)
            if after < last and after + 1 not in kept:
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
        """See `Storage.sweep()`. The position says how many channels had their turn.

        It goes through the channels, each of which has its oldest events in front, and goes on
        where it ended: events that are kept for ever cost one look for each channel.
        """
        looked_at = removed = 0
        created: datetime | None = None
        while looked_at < limit and (channel := self._next_turn(position)) is not None:
            gone = self.trim(channel, *limits(channel), limit - looked_at)
            created = self._oldest_time(channel) or created
            # A channel that has more to remove than there is room has its turn again.
            position += looked_at + gone < limit
            removed += gone
            looked_at += gone + 1
        with self._lock:
            is_round = position >= len(self._turns)
        return Sweep(removed, None if is_round else position, created)

    def begin_epoch(self) -> int:
        """See `Storage.begin_epoch()`."""
        with self._lock:
            self._epoch = _after(self._epoch)
            return self._epoch

    def get_channels(self) -> list[str]:
        """See `Storage.get_channels()`."""
        with self._lock:
            names = list(self._last)
        return sorted(names)

    def _begin(self) -> None:
        # In a child: what was there is the parent's, and goes on there.
        self._lock = threading.Lock()
        self._epoch = _after(self._epoch)
        self._last: dict[str, int] = {}
        self._oldest: dict[str, int] = {}
        self._stored: dict[str, dict[int, tuple[datetime, Event]]] = {}
        self._turns: deque[str] = deque()
        """The channels that have events, in the order in which they are swept."""

    def _kept(self, channel: str) -> dict[int, tuple[datetime, Event]]:
        if channel not in self._stored:
            self._stored[channel] = {}
            self._turns.append(channel)
        return self._stored[channel]

    def _next_turn(self, done: int) -> str | None:
        with self._lock:
            while done < len(self._turns):
                channel = self._turns.popleft()
                if self._stored.get(channel):
                    self._turns.append(channel)
                    return channel
                self._stored.pop(channel, None)
            return None

    def _oldest_time(self, channel: str) -> datetime | None:
        with self._lock:
            found = self._stored.get(channel, {}).get(self._oldest.get(channel, 1))
        return found and found[0]

    def _next(self, channel: str, number: int) -> int:
        # Nothing is missing behind the oldest, unless somebody deleted it by hand.
        last, stored = self._last[channel], self._stored.get(channel, {})
        return next((n for n in range(number, last + 1) if n in stored), last + 1)

    def _trim(self, channel: str, before: datetime | None, keep: int | None, limit: int) -> int:
        last = self._last.get(channel, 0)
        if not last:
            return 0
        oldest = self._next(channel, self._oldest.get(channel, 1))
        kept = self._stored.get(channel, {})
        removed = 0
        while removed < limit and oldest in kept:
            created = kept[oldest][0]
            is_old = before is not None and created < before
            if not is_old and (keep is None or last - oldest < keep):
                break
            del kept[oldest]
            removed += 1
            oldest += 1
        self._oldest[channel] = oldest
        return removed


def _after(epoch: int) -> int:
    return max(int(time.time() * 1000), epoch + 1)
