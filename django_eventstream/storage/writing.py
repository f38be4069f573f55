"""Writing the log without the ORM, whose objects and compiler cost more than the database.

Within a channel ids follow each other in the order in which events become visible: whoever gives
them holds the lock of the channel's counter until its transaction ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream.events import Event
from django_eventstream.storage.base import NUMBERED_BYTES, NUMBERED_EVENTS
from django_eventstream.storage.clock import sql_time_of_row
from django_eventstream.storage.numbering import EVENT_TABLE, own_transaction, take_numbers
from django_eventstream.storage.rows import to_columns

COLUMNS = "channel, type, data, eid, skip_user_ids, created"
# Ordered by an expression: PostgreSQL would go through the keys of all events to find the first.
_OLDEST_STAGED = (
    f"SELECT id, {{length}}(data) AS bytes FROM {EVENT_TABLE}"
    f" WHERE channel = %(name)s AND eid IS NULL ORDER BY id + 0 LIMIT {NUMBERED_EVENTS}"
)
_STAGED = (
    "SELECT id, n FROM ("
    "SELECT id, ROW_NUMBER() OVER (ORDER BY id) AS n,"
    " SUM(bytes) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before"
    f" FROM ({_OLDEST_STAGED}) oldest) staged WHERE bytes_before < {NUMBERED_BYTES}"
)
STAGED = _STAGED.format(length="OCTET_LENGTH")
"""Keys of the events to number next, and how many come before each of them, and it itself."""

STAGED_SQLITE = _STAGED.format(length="LENGTH")
"""SQLite has the other function since 3.43; data that we have written is ASCII."""

_BATCH_ROWS = 500
_BATCH_CHARACTERS = 64 * 1024
"""Of one INSERT. A server takes 16 MB at most, unless it is told otherwise."""


class Writer(ABC):
    """Writes through one connection, whose errors are raised as they are."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection

    def append(self, events: Sequence[Event]) -> list[Event]:
        """Store events with the next ids of their channels, in a transaction of its own."""
        with own_transaction(self._connection):
            numbered = with_ids(events, self._take_numbers(events))
            self._insert(_batches(numbered))
        return numbered

    def stage(self, events: Sequence[Event]) -> None:
        """Store events as they are, all or none, as part of the transaction that is open."""
        batches = list(_batches(events))
        if len(batches) < 2:
            self._insert(batches)
            return
        # Without a savepoint those before one that fails would stay, if the caller goes on.
        with transaction.atomic(self._connection.alias):
            self._insert(batches)

    def _insert(self, batches: Iterable[list[tuple[Any, ...]]]) -> None:
        row = f"(%s, %s, %s, %s, %s, {sql_time_of_row(self._connection)})"
        with self._connection.cursor() as cursor:
            for rows in batches:
                values = ", ".join([row] * len(rows))
                statement = f"INSERT INTO {EVENT_TABLE} ({COLUMNS}) VALUES {values}"
                cursor.execute(statement, [column for each in rows for column in each])

    @abstractmethod
    def number(self, channel: str) -> list[Event]:
        """Give ids to what was committed without, in a transaction of its own.

        See `Storage.number()`.
        """

    def _take_numbers(self, events: Sequence[Event]) -> dict[str, int]:
        """The first of the ids for these events, by channel."""
        counts = Counter(event.channel for event in events)
        # Locks are taken in the order of names, so that two senders cannot wait for each other.
        return {
            channel: take_numbers(self._connection, channel, count) - count + 1
            for channel, count in sorted(counts.items())
        }


def _batches(events: Sequence[Event]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the columns of the events in batches, however long one event is."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    for event in events:
        columns = to_columns(event)
        size += len(columns[2])
        if rows and (size > _BATCH_CHARACTERS or len(rows) == _BATCH_ROWS):
            yield rows
            rows, size = [], len(columns[2])
        rows.append(columns)
    if rows:
        yield rows


def with_ids(events: Sequence[Event], next_ids: Mapping[str, int]) -> list[Event]:
    """Return the events with their ids, which begin for each channel as is said here."""
    following = dict(next_ids)
    numbered = []
    for event in events:
        numbered.append(event.with_id(following[event.channel]))
        following[event.channel] += 1
    return numbered
