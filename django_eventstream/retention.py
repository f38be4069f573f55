"""Keeping the log within its limits, a bounded batch at a time.

A sweep begins with the oldest events of all channels, so that those that nobody sends to any more,
and those of a hundred thousand users, go as well; what room is left is for a channel that was
sent to. When it is time for one, and who does it, is for `housekeeping` to say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django_eventstream.backends import get_channel_manager, get_retention
from django_eventstream.channelmanager import ChannelManagerBase, Retention
from django_eventstream.conf import settings
from django_eventstream.events import CONTROL_CHANNEL
from django_eventstream.storage.base import Storage

logger = logging.getLogger(__name__)

BATCH_SIZE = 1_000
"""Most events that one statement removes: some milliseconds, or half a second on a MariaDB whose
tables do not fit into its memory."""

MOST_BATCHES = 20
"""Of one sweep, which goes on while it finds much to remove."""

Kept = tuple[datetime | None, int | None]
"""What is kept of a channel: events since then, and so many."""


class _Limits:
    """What each channel keeps, asked once for a batch."""

    def __init__(self, storage: Storage) -> None:
        # A process whose clock is ahead must not remove what is still to be kept.
        self._now = storage.now()
        self._kept: dict[str, Kept] = {}
        asked = getattr(type(get_channel_manager()), "get_retention", None)
        self.differ = asked is not ChannelManagerBase.get_retention
        """Whether a channel may keep less than those that were met so far."""
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


@dataclass(frozen=True, slots=True)
class Swept:
    """How far a sweep has come."""

    position: int = 0
    """Where the next one begins."""

    has_more: bool = False
    """Whether events behind it may have expired as well."""

    channel_has_more: bool = False
    """Whether more of the channel that had what room was left may have expired."""


def sweep(storage: Storage, position: int, channel: str | None = None) -> Swept:
    """Remove what has expired of the oldest events after `position`, of all channels.

    What room is left of the last batch is for `channel`.
    """
    limits = _Limits(storage)
    removed, goes_on, end = _look(storage, position, limits)
    if not limits.differ:
        end = end if goes_on else 0
    else:
        # What expires sooner may be behind anything that others keep, however young: all of it is
        # looked at, and the oldest each time.
        goes_on = bool(end)
        if position:
            others, is_behind, _ = _look(storage, 0, limits)
            removed, goes_on = removed + others, goes_on or is_behind
    room = BATCH_SIZE - removed
    if room <= 0 or channel is None:
        return Swept(end, goes_on)
    since, count = limits(channel)
    return Swept(end, goes_on, storage.trim(channel, since, count, room) == room)


def _look(storage: Storage, position: int, limits: _Limits) -> tuple[int, bool, int]:
    """Go on while much is removed; return how much was at last, whether to go on, and from where.

    The position is 0 behind the newest events.
    """
    for _ in range(MOST_BATCHES):
        found = storage.sweep(position, BATCH_SIZE, limits)
        position = found.position or 0
        goes_on = bool(position) and limits.may_expire(found.created)
        if not goes_on or found.removed < BATCH_SIZE // 2:
            break
    return found.removed, goes_on, position


def trim_batch(storage: Storage, channel: str, limit: int = BATCH_SIZE) -> int:
    """Remove one batch of the channel's expired events; return how many."""
    since, count = _Limits(storage).of(channel)
    return storage.trim(channel, since, count, limit)


def trim(storage: Storage, channel: str) -> Iterator[int]:
    """Remove all of the channel's expired events; yield the size of each batch."""
    while removed := trim_batch(storage, channel):
        yield removed
        if removed < BATCH_SIZE:
            return
