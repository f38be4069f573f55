"""Keeping the log within its limits, without anybody scheduling it.

A send pays for at most one small batch per process and minute. Only when a batch comes out
full, so that more is waiting, the next may follow after as many events as it can remove.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

from django.utils import timezone

from django_eventstream.backends import get_channel_manager, get_storage
from django_eventstream.channelmanager import Retention
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.storage.base import Storage

logger = logging.getLogger(__name__)

BATCH_SIZE = 1_000
"""Most events that one statement removes: some milliseconds, or half a second on a MariaDB whose
tables do not fit into its memory. Senders do not wait for it, but on SQLite."""

PAUSE_SECONDS = 60
"""Shortest time between two batches of a process that keeps up."""

CHANNELS_REMEMBERED = 1_000
"""Channels that wait for their turn; those beyond are met when they are sent to again."""

CONTROL_RETENTION = Retention(seconds=3_600, count=None)
"""What processes tell each other is of no use once every hub has read it."""


class Housekeeper:
    """Decides after each send whether a batch is due, and of which channel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: Counter[str] = Counter()
        self._due = time.monotonic() + PAUSE_SECONDS
        self._events_until_due: int | None = None

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

    def more_is_waiting(self, channel: str) -> None:
        """Let the next batch of this channel come after half as many events as one removes."""
        with self._lock:
            self._sent[channel] += BATCH_SIZE
            self._events_until_due = BATCH_SIZE // 2


_housekeeper = Housekeeper()


def after_send(events: Sequence[Event]) -> None:
    """Trim one batch if it is time. A failure is logged: the events sent are safe."""
    channel = _housekeeper.note(events, time.monotonic())
    storage = get_storage()
    if channel is None or storage is None:
        return
    try:
        if trim_batch(storage, channel) == BATCH_SIZE:
            _housekeeper.more_is_waiting(channel)
    except Exception:
        # The project's own channel manager is asked, too, and this may be its commit.
        logger.warning("Old events of %r could not be removed now", channel, exc_info=True)


def trim_batch(storage: Storage, channel: str) -> int:
    """Remove one batch of the channel's expired events; return how many."""
    is_control = channel == CONTROL_CHANNEL
    kept = CONTROL_RETENTION if is_control else get_channel_manager().get_retention(channel)
    seconds = kept.seconds
    before = None if seconds is None else timezone.now() - timedelta(seconds=seconds)
    return storage.trim(channel, before, kept.count, BATCH_SIZE)


def trim(storage: Storage, channel: str) -> Iterator[int]:
    """Remove all of the channel's expired events; yield the size of each batch."""
    while removed := trim_batch(storage, channel):
        yield removed
        if removed < BATCH_SIZE:
            return
