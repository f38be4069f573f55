"""Leases, of each one for all processes of a site, and what moved since somebody looked last.

All times are the database's: a process whose clock is ahead neither keeps the lease longer than it
says, nor takes it from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Q, QuerySet, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Greatest, Least

from django_eventstream import models
from django_eventstream.storage.base import Change, Lease, WatchPosition
from django_eventstream.storage.clock import Now
from django_eventstream.storage.numbering import own_transaction

OVERLAP = timedelta(seconds=10)
"""A transaction that wrote a time may commit so much later, behind one that wrote a later time."""


def take_lease(connection: BaseDatabaseWrapper, name: str, holder: str, seconds: float) -> Lease:
    """Take the lease if it is free. One statement, two if it is, four the first time."""
    _commit_each_statement(connection)
    rows = _rows(connection, name)
    fields = ("until", "looked_until", "control_id")
    found = rows.values_list(*fields, Now()).first()
    if found is None:
        row = models.Lease(name=name, holder="", until=Now())
        with own_transaction(connection):
            rows.bulk_create([row], ignore_conflicts=True)
        found = rows.values_list(*fields, Now()).get()
    until, looked_until, control_id, now = found
    left = (until - now).total_seconds()
    # One that lasts longer than any was taken before the clock of the database was set back.
    is_held = 0 < left <= 2 * seconds or not _write(connection, rows, holder, seconds)
    position = WatchPosition(looked_until, control_id)
    return Lease(not is_held, min(max(left, 0.0), seconds), position)


def renew_lease(
    connection: BaseDatabaseWrapper,
    name: str,
    holder: str,
    seconds: float,
    position: WatchPosition,
) -> bool:
    """Keep the lease, or with 0 seconds let go of it; say whether it was still the holder's."""
    with own_transaction(connection):
        return bool(
            _rows(connection, name)
            .filter(holder=holder)
            .update(
                until=Now(seconds),
                looked_until=position.looked_until,
                control_id=position.control_id,
            )
        )


def changed_since(
    connection: BaseDatabaseWrapper,
    position: WatchPosition,
    look_back: float,
    silence: float,
    limit: int,
) -> tuple[list[Change], WatchPosition]:
    """Return channels that moved since then, and a little before, the earliest first."""
    _commit_each_statement(connection)
    start: Combinable = Now(-look_back)
    if position.looked_until is not None:
        since = Value(position.looked_until - OVERLAP, DateTimeField())
        start = Greatest(Least(since, Now(-OVERLAP.total_seconds())), start)
    counters = models.EventCounter.objects.using(connection.alias).exclude(name="")
    # A time of the future was not written by this clock: how long ago that was, nobody knows.
    busy = Q(updated__gt=Now(-silence), updated__lte=Now(silence))
    moved = counters.filter(~busy, value__gt=0, updated__gt=start)
    rows = moved.order_by("updated").values_list("name", "value", "updated")[:limit]
    found = [Change(*row) for row in rows]
    return found, _behind(found, position, is_full=len(found) == limit)


def _behind(found: Sequence[Change], position: WatchPosition, *, is_full: bool) -> WatchPosition:
    if not found:
        return position
    # Behind a full page others follow: what was looked at is not looked at again before them.
    overlap = OVERLAP if is_full else timedelta()
    return replace(position, looked_until=found[-1].at + overlap)


def _commit_each_statement(connection: BaseDatabaseWrapper) -> None:
    """Overrule `AUTOCOMMIT = False`, where nobody would commit what the lease says.

    Only whoever watches or sweeps is here, in a thread or a process of its own.
    """
    if not connection.in_atomic_block and not connection.get_autocommit():
        connection.set_autocommit(True)


def _write(
    connection: BaseDatabaseWrapper, rows: QuerySet[models.Lease], holder: str, seconds: float
) -> bool:
    is_free = Q(until__lte=Now()) | Q(until__gt=Now(2 * seconds))
    with own_transaction(connection):
        return bool(rows.filter(is_free).update(holder=holder, until=Now(seconds)))


def _rows(connection: BaseDatabaseWrapper, name: str) -> QuerySet[models.Lease]:
    return models.Lease.objects.using(connection.alias).filter(name=name)
