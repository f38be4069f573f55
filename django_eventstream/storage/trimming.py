"""Removing the oldest events, a bounded batch at a time.

A batch is looked at first and removed by its keys then: within a DELETE, MySQL would lock all that
it reads, the counters too. What has expired stays expired, and what is kept of a channel never
has a hole: only a run of ids from its oldest on is removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet

from django_eventstream.models import Event
from django_eventstream.storage.base import Limits, Sweep
from django_eventstream.storage.numbering import COUNTER_TABLE, EVENT_TABLE, own_transaction
from django_eventstream.storage.reading import read_last_id

# Whatever is asked for, MySQL reads a small table from its beginning, and waits there for the
# events of transactions that are not finished. In a join of this order it looks up each key.
_DELETE_BY_JOIN = f"""
DELETE event FROM (SELECT {{first}} AS id{{others}}) expired
STRAIGHT_JOIN {EVENT_TABLE} event ON event.id = expired.id"""
_DELETE = f"DELETE FROM {EVENT_TABLE} WHERE id IN ({{keys}})"

_OLDEST = f"(SELECT MIN(eid) FROM {EVENT_TABLE} WHERE channel = name AND eid > 0)"
_ENDS = f"SELECT name, value, {_OLDEST} FROM {COUNTER_TABLE} WHERE name IN ({{marks}})"
# PostgreSQL would read all counters for a thousand of them.
_ENDS_OF_ARRAY = f"""
SELECT name, (SELECT value FROM {COUNTER_TABLE} counter WHERE counter.name = asked.name), {_OLDEST}
FROM unnest(%s::text[]) AS asked (name)"""


class Row(NamedTuple):
    """What must be known of an event to remove it."""

    key: int
    channel: str
    number: int | None
    created: datetime


def trim_channel(
    connection: BaseDatabaseWrapper,
    channel: str,
    before: datetime | None,
    keep: int | None,
    limit: int,
) -> int:
    """Remove up to `limit` events created before `before` or beyond the last `keep`."""
    if before is None and keep is None:
        return 0
    numbered = _rows(connection).filter(channel=channel, eid__gt=0)
    oldest = [Row(*row) for row in numbered.order_by("eid")[:limit]]
    last = 0 if keep is None or not oldest else read_last_id(connection, channel) or 0
    is_expired = _question(before, keep, last)
    return _delete(connection, [row.key for row in takewhile(is_expired, oldest)])


def sweep(connection: BaseDatabaseWrapper, after: int, limit: int, limits: Limits) -> Sweep:
    """Look at `limit` events of all channels in the order in which they were stored.

    That needs no index but the key, which every table has.
    """
    found = [Row(*row) for row in _rows(connection).filter(id__gt=after).order_by("id")[:limit]]
    removed = _delete(connection, list(_expired(connection, found, limits)))
    if len(found) < limit:
        return Sweep(removed)
    return Sweep(removed, found[-1].key, found[-1].created)


def _rows(
    connection: BaseDatabaseWrapper,
) -> QuerySet[Event, tuple[int, str, int | None, datetime]]:
    events = Event.objects.using(connection.alias)
    return events.values_list("id", "channel", "eid", "created")


def _expired(connection: BaseDatabaseWrapper, rows: Iterable[Row], limits: Limits) -> Iterator[int]:
    channels: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        before, keep = limits(row.channel)
        if row.number and (keep is not None or (before is not None and row.created < before)):
            channels[row.channel].append(row)
    for channel, last, oldest in _ends(connection, list(channels)):
        is_expired = _question(*limits(channel), last or 0)
        # Keys and ids are not in the same order where transactions were long: a run that does
        # not begin here with the channel's oldest event waits until that one is met.
        candidates = sorted(channels[channel], key=lambda row: row.number or 0)
        run = [row for number, row in enumerate(candidates, oldest) if row.number == number]
        yield from (row.key for row in takewhile(is_expired, run))


def _question(before: datetime | None, keep: int | None, last: int) -> Callable[[Row], bool]:
    def is_expired(row: Row) -> bool:
        is_too_old = before is not None and row.created < before
        return is_too_old or (keep is not None and (row.number or 0) <= last - keep)

    return is_expired


def _ends(
    connection: BaseDatabaseWrapper, channels: list[str]
) -> Iterable[tuple[str, int | None, int]]:
    """Return the last id and the oldest that is kept, by channel."""
    if not channels:
        return []
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_ENDS_OF_ARRAY, [channels])
        else:
            cursor.execute(_ENDS.format(marks=", ".join(["%s"] * len(channels))), channels)
        # Without an oldest: somebody else has just removed them all.
        return [row for row in cursor.fetchall() if row[2] is not None]


def _delete(connection: BaseDatabaseWrapper, keys: list[int]) -> int:
    if not keys:
        return 0
    # In one order, so that two who remove the same cannot wait for each other.
    first, *others = sorted(keys)
    if connection.vendor == "mysql":
        more = "".join(f" UNION ALL SELECT {key}" for key in others)
        statement = _DELETE_BY_JOIN.format(first=first, others=more)
    else:
        statement = _DELETE.format(keys=", ".join(map(str, [first, *others])))
    with own_transaction(connection), connection.cursor() as cursor:
        cursor.execute(statement)
        return max(0, int(cursor.rowcount))
