"""Keeping the log within its limits, without anybody scheduling it.

A send pays for at most one small batch per process and minute. Only when more is waiting, the next
may follow after half as many events as it can remove. A batch begins with the oldest events of
all channels, so that those that nobody sends to any more, and those of a hundred thousand users,
go as well; what room is left is for a channel that was sent to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django_eventstream.backends import get_retention, get_storage
from django_eventstream.channelmanager import Retention
from django_eventstream.conf import settings
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.processes import after_fork
from django_eventstream.storage.base import Storage

logger = logging.getLogger(__name__)

BATCH_SIZE = 1_000
"""Most events that one statement removes: some milliseconds, or half a second on a MariaDB whose
tables do not fit into its memory. Senders do not wait for it, but on SQLite."""

PAUSE_SECONDS = 60
"""Shortest time between two batches of a process that keeps up."""

CHANNELS_REMEMBERED = 1_000
"""Channels that wait for their turn; those beyond are met when they are sent to again."""

Kept = tuple[datetime | None, int | None]
"""What is kept of a channel: events since then, and so many."""


class Housekeeper:
    """Decides after each send whether a batch is due, and of which channel."""

    def __init__(self) -> None:
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        # A signal handler may send as well, in the middle of whatever its thread does.
        self._lock = threading.RLock()
        self._sent: Counter[str] = Counter()
        self._due = time.monotonic() + PAUSE_SECONDS
        self._events_until_due: int | None = None
        self.position = 0
        """Where the next look at all channels begins."""

    def note(self, events: Sequence[Event], now: float) -> str | None:
        """Count the events; return the channel to trim, if it is time."""
        with self._lock:
            for event in events:
                if event.channel in self._sent or len(self._sent) < CHANNELS_REMEMBERED:
                    self._sent[event.channel] += 1
            if self._events_until_due is not None:
                self._events_until_due -= len(events)
            is_behind = self._events_until_due is not None and self._events_until_due <= 0
            if not is_behind and now < self._due:
                return None
            self._due = now + PAUSE_SECONDS
            self._events_until_due = None
            [(channel, _)] = self._sent.most_common(1)
            del self._sent[channel]
            return channel

    def more_is_waiting(self, channel: str | None = None) -> None:
        """Let the next batch come soon, and be of this channel if one is named."""
        with self._lock:
            if channel is not None:
                self._sent[channel] += BATCH_SIZE
            self._events_until_due = BATCH_SIZE // 2


class _Limits:
    """What each channel keeps, asked once for a batch."""

    def __init__(self, storage: Storage) -> None:
        # A process whose clock is ahead must not remove what is still to be kept.
        self._now = storage.now()
        self._kept: dict[str, Kept] = {}
        usual = self._since(Retention(settings.RETENTION_SECONDS, settings.RETENTION_COUNT))
        self._any = {usual}

    def __call__(self, channel: str) -> Kept:
        """Answer for one of many channels: who cannot say what it keeps holds up no other."""
        if channel not in self._kept:
            try:
                self._kept[channel] = kept = self.of(channel)
            except Exception:
                logger.warning(
                    "All events of %r are kept: get_retention() of the channel manager failed",
                    channel,
                    exc_info=True,
                )
                self._kept[channel] = kept = (None, None)
            if channel != CONTROL_CHANNEL:
                self._any.add(kept)
        return self._kept[channel]

    def of(self, channel: str) -> Kept:
        """Answer for this channel, or raise what the project's channel manager raises."""
        return self._since(get_retention(channel))

    def may_expire(self, created: datetime | None) -> bool:
        """Say whether events that are younger than this may have expired, as far as is known."""
        return any(
            count is not None or (since is not None and created is not None and created < since)
            for since, count in self._any
        )

    def _since(self, retention: Retention) -> Kept:
        seconds = retention.seconds
        since = None if seconds is None else self._now - timedelta(seconds=seconds)
        return since, retention.count


_housekeeper = Housekeeper()


def after_send(events: Sequence[Event]) -> None:
    """Remove one batch if it is time. A failure is logged: the events sent are safe."""
    channel = _housekeeper.note(events, time.monotonic())
    storage = get_storage()
    if channel is None or storage is None:
        return
    try:
        limits = _Limits(storage)
        room = BATCH_SIZE - _sweep_batch(storage, limits)
        if room and _trim_batch(storage, channel, limits, room) == room:
            _housekeeper.more_is_waiting(channel)
    except Exception:
        # The project's own channel manager is asked, too, and this may be its commit.
        logger.warning("Old events of %r could not be removed now", channel, exc_info=True)


def sweep_batch(storage: Storage) -> int:
    """Remove what has expired of the next thousand events of all channels; return how many."""
    return _sweep_batch(storage, _Limits(storage))


def _sweep_batch(storage: Storage, limits: _Limits) -> int:
    found = storage.sweep(_housekeeper.position, BATCH_SIZE, limits)
    goes_on = found.position is not None and limits.may_expire(found.created)
    _housekeeper.position = found.position or 0 if goes_on else 0
    if goes_on:
        _housekeeper.more_is_waiting()
    return found.removed


def trim_batch(storage: Storage, channel: str, limit: int = BATCH_SIZE) -> int:
    """Remove one batch of the channel's expired events; return how many."""
    return _trim_batch(storage, channel, _Limits(storage), limit)


def _trim_batch(storage: Storage, channel: str, limits: _Limits, limit: int) -> int:
    since, count = limits.of(channel)
    return storage.trim(channel, since, count, limit)


def trim(storage: Storage, channel: str) -> Iterator[int]:
    """Remove all of the channel's expired events; yield the size of each batch."""
    while removed := trim_batch(storage, channel):
        yield removed
        if removed < BATCH_SIZE:
            return
