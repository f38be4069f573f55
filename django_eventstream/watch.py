"""The watch that one process keeps for all: what a lost announcement left out is found by it.

A sender that does not live on cannot probe the channel when it falls silent, nor try again. So
every few seconds whoever has the lease asks the log which channels moved, and has proxies let their
connections find out what they miss. Whoever takes the lease over goes on where the last one was.

The same goes for users who lost a channel: their streams behind a proxy are to ask, and the process
that said so may have been unable to tell it.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from collections.abc import Collection
from dataclasses import replace

from django_eventstream.backends import get_publishers
from django_eventstream.conf import settings
from django_eventstream.control import parse_disconnect
from django_eventstream.events import CONTROL_CHANNEL
from django_eventstream.exceptions import HistoryGoneError, PublishError
from django_eventstream.outbox import relay_left_behind
from django_eventstream.publishers.probes import SILENCE_SECONDS
from django_eventstream.storage.base import Storage, WatchPosition

LOOK_SECONDS = 3.0
"""Between two looks of the holder."""

LEASE_SECONDS = 10.0
"""How long nobody watches when the holder is killed, and a little more."""

RENEW_SECONDS = LEASE_SECONDS / 2
"""With less left the holder renews, so that it need not write at every look."""

CHANNELS_PER_LOOK = 5_000
"""More that moved are met by the next look, which then follows at once."""

MESSAGES_PER_READ = 500
READS_PER_LOOK = 20
"""Of the control channel."""

ABSTAIN_SECONDS = 60.0
"""Pause of a process from which no proxy can be reached, so that another takes the lease."""

LOOK_BACK = 1.2
"""Times `EVENTSTREAM_RECOVERY_SECONDS`: by then every connection has asked by itself."""


def look_back_seconds() -> float:
    """Return how far back a look goes at most."""
    return settings.RECOVERY_SECONDS * LOOK_BACK


class Watch:
    """What one process does for the watch. Blocks, and belongs to one thread at a time.

    Every method raises `StorageUnavailableError` where the log cannot be reached; the next call
    goes on from there.
    """

    def __init__(self, storage: Storage, interval: float = LOOK_SECONDS) -> None:
        self._storage = storage
        self._interval = interval
        name = f"{socket.gethostname()[:60]}:{os.getpid()}"
        self._holder = f"{name}:{secrets.token_hex(8)}"
        self._held_until = 0.0
        self._position = WatchPosition()
        self._told: dict[str, int] = {}
        """Channels of the last look whose streams were told, and their ids: looks overlap."""
        self.relayed = 0
        """How many events that were left behind it has sent on their way."""

    @property
    def is_holder(self) -> bool:
        """Say whether the lease is ours, for all that we know."""
        return time.monotonic() < self._held_until

    def turn(self) -> float:
        """Look, if the lease is ours or free; return the seconds until the next turn.

        Raises `PublishError` if no proxy can be reached from here; then another process is to
        look, and this one does best to wait for `ABSTAIN_SECONDS`.
        """
        if not self.is_holder and (seconds := self.take_lease()):
            # Not all who wait at once.
            return seconds + random.uniform(0, LEASE_SECONDS / 2)
        try:
            has_more = self.look()
        except PublishError:
            self.release()
            raise
        if self._held_until - time.monotonic() < RENEW_SECONDS:
            self._renew(LEASE_SECONDS)
        return 0 if has_more else self._interval

    def look(self, silence: float = SILENCE_SECONDS) -> bool:
        """Let streams find what they miss of channels that fell silent so many seconds ago.

        Whoever has the lease. Returns whether the next look finds more at once.
        """
        found, position = self._storage.changed_since(
            self._position, look_back_seconds(), silence, CHANNELS_PER_LOOK
        )
        self.relayed += relay_left_behind()
        quiet = {change.channel: change.last_id for change in found}
        news = {name: last_id for name, last_id in quiet.items() if self._told.get(name) != last_id}
        users: Collection[str | None] = ()
        if last_id := news.pop(CONTROL_CHANNEL, 0):
            users, control_id = self._read_revocations(last_id)
            position = replace(position, control_id=control_id)
        if news or users:
            for publisher in get_publishers():
                publisher.probe(news, users)
        self._position = position
        self._told = quiet
        return bool(news) and len(found) == CHANNELS_PER_LOOK

    def take_lease(self) -> float:
        """Return 0 if the lease is ours now, else the seconds until it may be free.

        The next look goes on where the last holder was.
        """
        asked_at = time.monotonic()
        lease = self._storage.take_lease(self._holder, LEASE_SECONDS)
        self._position = lease.position
        if not lease.is_held:
            return max(lease.seconds, 0.1)
        self._held_until = asked_at + LEASE_SECONDS
        self._told = {}
        return 0

    def release(self) -> None:
        """Let the next process that asks take the lease, from where this one has come."""
        if self.is_holder:
            self._renew(0)

    def _renew(self, seconds: float) -> None:
        asked_at = time.monotonic()
        is_ours = self._storage.renew_lease(self._holder, seconds, self._position)
        self._held_until = asked_at + seconds if is_ours else 0

    def _read_revocations(self, last_id: int) -> tuple[set[str | None], int]:
        """Return users who lost a channel, and the last message that was read of it."""
        after = self._position.control_id
        if after is None or after > last_id:
            after = max(0, last_id - MESSAGES_PER_READ)
        users: set[str | None] = set()
        for _ in range(READS_PER_LOOK):
            try:
                page = self._storage.read(CONTROL_CHANNEL, after, MESSAGES_PER_READ)
            except HistoryGoneError as gone:
                after = gone.oldest - 1
                continue
            users |= {change.user_id for event in page if (change := parse_disconnect(event))}
            after += len(page)
            if not page or after >= last_id:
                break
        return users, after
