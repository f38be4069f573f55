"""Ids out of the counter rows, however the database takes and locks them.

Taking numbers locks the channel's counter row until the transaction ends, so whoever sees id n
sees every id below it. The row is made by INSERT only when it is missing: an upsert for each
event would burn through the 32-bit key of the table on PostgreSQL and MySQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream.models import Event, EventCounter
from django_eventstream.storage.clock import sql_time_of_row

EVENT_TABLE = Event._meta.db_table
COUNTER_TABLE = EventCounter._meta.db_table

NOTIFY_CHANNEL = "django_eventstream"
"""The PostgreSQL notification channel; its payload is `table.last id:channel`, with the number that
PostgreSQL gave the table of counters, and is far below the 8,000 bytes that PostgreSQL takes."""

# Where the server binds parameters it must be told of what type one is that is used in two ways.
# A counter that is missing although the channel has events (deleted by hand) starts after them.
_LAST_EVENT = f"SELECT COALESCE(MAX(eid), 0) FROM {EVENT_TABLE} WHERE channel = %(name)s"
_FIRST_VALUE = (
    f"INSERT INTO {COUNTER_TABLE} (name, value, updated)"
    f" VALUES (CAST(%(name)s AS varchar(255)), ({_LAST_EVENT}) + %(count)s, {{now}})"
)
_NEXT_VALUE = (
    f"UPDATE {COUNTER_TABLE} SET value = value + %(count)s, updated = {{now}} WHERE name = %(name)s"
)

_UNCOMMITTED = "eventstream_uncommitted"
"""Attribute of an error."""


@contextmanager
def own_transaction(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Open a short transaction that sees, once it has a lock, what was committed meanwhile.

    Whatever isolation the project chose: REPEATABLE READ would fail on PostgreSQL, and lock gaps
    that other senders write to on MySQL.
    """
    is_outermost = not connection.in_atomic_block
    is_complete = False
    try:
        with transaction.atomic(connection.alias):
            if is_outermost and not is_read_committed(connection):
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            yield
            is_complete = True
    except Exception as error:
        if not is_complete:
            setattr(error, _UNCOMMITTED, True)
        raise


def is_uncommitted(error: Exception) -> bool:
    """Say whether an error ended a transaction of ours before it asked for the commit."""
    return getattr(error, _UNCOMMITTED, False)


def take_numbers(connection: BaseDatabaseWrapper, channel: str, count: int) -> int:
    """Take the channel's next `count` ids and return the last; 0 takes none, but locks.

    Needs an open transaction.
    """
    parameters = {"name": channel, "count": count}
    take = _take_by_last_insert_id if connection.vendor == "mysql" else _take_by_returning
    with connection.cursor() as cursor:
        return take(cursor, parameters, sql_time_of_row(connection))


def is_read_committed(connection: BaseDatabaseWrapper) -> bool:
    """Say whether a statement sees what was committed before it began."""
    if connection.vendor not in ("postgresql", "mysql"):
        return True
    connection.ensure_connection()  # before which it has no level
    level = getattr(connection, "isolation_level", None)
    return str(getattr(level, "name", level)).lower().replace("_", " ") == "read committed"


def _take_by_returning(cursor: Any, parameters: dict[str, Any], now: str) -> int:
    cursor.execute(f"{_NEXT_VALUE.format(now=now)} RETURNING value", parameters)
    row = cursor.fetchone()
    if row is None:
        cursor.execute(
            f"{_FIRST_VALUE.format(now=now)} ON CONFLICT (name) DO UPDATE"
            f" SET value = {COUNTER_TABLE}.value + %(count)s RETURNING value",
            parameters,
        )
        row = cursor.fetchone()
    return int(row[0])


def _take_by_last_insert_id(cursor: Any, parameters: dict[str, Any], now: str) -> int:
    """MySQL has no RETURNING; LAST_INSERT_ID(x) brings x back in the answer to the UPDATE."""
    statement = _NEXT_VALUE.replace("value + %(count)s", "LAST_INSERT_ID(value + %(count)s)")
    statement = statement.format(now=now)
    cursor.execute(statement, parameters)
    if not cursor.rowcount:
        # In a statement of its own: as part of the INSERT it would lock the table's auto-increment,
        # and two senders to channels that are new would wait for each other.
        cursor.execute(_LAST_EVENT, parameters)
        [[last]] = cursor.fetchall()
        cursor.execute(
            f"INSERT INTO {COUNTER_TABLE} (name, value, updated)"
            f" VALUES (%(name)s, %(last)s, {now}) ON DUPLICATE KEY UPDATE name = name",
            {**parameters, "last": last},
        )
        cursor.execute(statement, parameters)
    return int(cursor.lastrowid)
