"""Writing the log without the ORM, whose objects and compiler cost more than the database.

Within a channel ids follow each other in the order in which events become visible: whoever gives
them holds the lock of the channel's counter until its transaction ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream.events import Event
from django_eventstream.storage.numbering import EVENT_TABLE, own_transaction, take_numbers
from django_eventstream.storage.rows import to_columns

COLUMNS = "channel, type, data, eid, skip_user_ids, created"
STAGED = f"FROM {EVENT_TABLE} WHERE channel = %(name)s AND eid IS NULL"

_INSERT = f"INSERT INTO {EVENT_TABLE} ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s)"


class Writer(ABC):
    """Writes through one connection, whose errors are raised as they are."""

    def __init__(self, connection: BaseDatabaseWrapper, now: datetime) -> None:
        self._connection = connection
        self._now = connection.ops.adapt_datetimefield_value(now)

    def append(self, events: Sequence[Event]) -> list[Event]:
        """Store events with the next ids of their channels, in a transaction of its own."""
        with own_transaction(self._connection):
            numbered = with_ids(events, self._take_numbers(events))
            self._insert(numbered)
        return numbered

    def stage(self, events: Sequence[Event]) -> None:
        """Store events as they are, all or none, as part of the transaction that is open."""
        if len(events) < 2:
            self._insert(events)
            return
        # Many statements: without a savepoint those before one that fails would stay, if the caller
        # goes on.
        with transaction.atomic(self._connection.alias):
            self._insert(events)

    def _insert(self, events: Sequence[Event]) -> None:
        rows = [to_columns(event, self._now) for event in events]
        with self._connection.cursor() as cursor:
            if len(rows) == 1:
                cursor.execute(_INSERT, rows[0])
            elif rows:
                cursor.executemany(_INSERT, rows)

    @abstractmethod
    def number(self, channel: str) -> list[Event]:
        """Give ids to what was committed without and return it, in a transaction of its own."""

    def _take_numbers(self, events: Sequence[Event]) -> dict[str, int]:
        """The first of the ids for these events, by channel."""
        counts = Counter(event.channel for event in events)
        # Locks are taken in the order of names, so that two senders cannot wait for each other.
        return {
            channel: take_numbers(self._connection, channel, count, self._now) - count + 1
            for channel, count in sorted(counts.items())
        }


def with_ids(events: Sequence[Event], next_ids: Mapping[str, int]) -> list[Event]:
    """Return the events with their ids, which begin for each channel as is said here."""
    following = dict(next_ids)
    numbered = []
    for event in events:
        numbered.append(event.with_id(following[event.channel]))
        following[event.channel] += 1
    return numbered
