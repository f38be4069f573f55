"""Reading the log without the ORM, whose objects and compiler cost more than the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.storage.clock import sql_now
from django_eventstream.storage.numbering import COUNTER_TABLE, EVENT_TABLE
from django_eventstream.storage.rows import make_events

_COLUMNS = "eid, type, data, skip_user_ids"

# Ids have no gaps, so this range is the page; and no plan reads more. A LIMIT alone led PostgreSQL
# through the events of all channels, in the order of `eid`.
_RANGE = f"FROM {EVENT_TABLE} WHERE channel = %(channel)s AND eid > %(after)s AND eid <= %(end)s"
_PAGE = f"SELECT {_COLUMNS} {_RANGE} ORDER BY eid"

_BYTES_BEFORE = (
    "SUM(OCTET_LENGTH(data)) OVER (ORDER BY eid ROWS UNBOUNDED PRECEDING) - OCTET_LENGTH(data)"
)
_BOUNDED_PAGE = {
    # The driver fetches row by row: whoever stops has read no more.
    "sqlite": _PAGE,
    "postgresql": (
        f"SELECT {_COLUMNS} FROM (SELECT {_COLUMNS}, {_BYTES_BEFORE} AS bytes_before {_RANGE}) page"
        " WHERE bytes_before < %(max_bytes)s ORDER BY eid"
    ),
    # Apart from the data, which it would write to a temporary table on disk.
    "mysql": (
        f"SELECT {_COLUMNS} FROM {EVENT_TABLE}"
        f" JOIN (SELECT id, {_BYTES_BEFORE} AS bytes_before {_RANGE}) page USING (id)"
        " WHERE bytes_before < %(max_bytes)s ORDER BY eid"
    ),
}

_OLDEST_ID = f"SELECT MIN(eid) FROM {EVENT_TABLE} WHERE channel = %s AND eid > %s"
_LAST_ID = f"SELECT value FROM {COUNTER_TABLE} WHERE name = %s"

_LEFT_BEHIND = f"SELECT channel, eid FROM {EVENT_TABLE} WHERE eid IS NULL AND created NOT BETWEEN"

LEFT_BEHIND = 1.0
"""An event that has waited longer for its number than so many seconds is nobody's: its sender would
have numbered it right after the commit. One from the future was written by another clock than the
database's, and nobody knows how long it waits: it is numbered at once, which harms nobody."""


def read_page(
    connection: BaseDatabaseWrapper, channel: str, after: int, limit: int, max_bytes: int | None
) -> list[Event]:
    """Read the events that are there with ids from `after`+1 to `after`+`limit`, in order.

    With `max_bytes` no more than the first ones, up to the one whose data makes them that long;
    there is always room for one. Those that nobody can read are left out; raises
    `HistoryGoneError` if that is all of them.
    """
    parameters: dict[str, Any] = {"channel": channel, "after": after, "end": after + limit}
    statement = _PAGE
    if max_bytes is not None:
        statement = _BOUNDED_PAGE[connection.vendor]
        parameters["max_bytes"] = max_bytes = max(max_bytes, 1)
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = list(cursor if max_bytes is None else _up_to(cursor, max_bytes))
    found = make_events(channel, rows)
    if rows and not found:
        raise HistoryGoneError(channel, oldest=rows[-1][0] + 1)
    return found


def read_oldest_id(connection: BaseDatabaseWrapper, channel: str, after: int) -> int | None:
    """Return the first id after this one that is there; None without one."""
    return _read_number(connection, _OLDEST_ID, [channel, after])


def read_last_id(connection: BaseDatabaseWrapper, channel: str) -> int | None:
    """Return the last id that was given; None if none ever was."""
    return _read_number(connection, _LAST_ID, [channel])


def read_positions(
    connection: BaseDatabaseWrapper, names: Sequence[str]
) -> list[tuple[str, int | None]]:
    """Return the last id by counter, and None by channel with an event left behind."""
    fresh = f"{sql_now(connection, -LEFT_BEHIND)} AND {sql_now(connection, LEFT_BEHIND)}"
    # PostgreSQL takes all names as one parameter.
    is_array = connection.vendor == "postgresql"
    statement = f"{_positions_statement(None if is_array else len(names))} {fresh}"
    with connection.cursor() as cursor:
        cursor.execute(statement, [list(names)] if is_array else names)
        return list(cursor.fetchall())


def _up_to(rows: Iterable[tuple[Any, ...]], max_bytes: int) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield row
        # As it is stored, data is ASCII.
        max_bytes -= len(row[2]) if isinstance(row[2], str) else 0
        if max_bytes <= 0:
            return


def _read_number(
    connection: BaseDatabaseWrapper, statement: str, parameters: Sequence[Any]
) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        row = cursor.fetchone()
    return None if row is None else row[0]


@lru_cache(maxsize=64)
def _positions_statement(count: int | None) -> str:
    names = "= ANY(%s)" if count is None else f"IN ({', '.join(['%s'] * count)})"
    # Not UNION ALL: a transaction may have left behind any number of events of a channel.
    return f"SELECT name, value FROM {COUNTER_TABLE} WHERE name {names} UNION {_LEFT_BEHIND}"
