"""What time it is by the clock of the database, whatever the machines of its clients say.

A sender whose clock is an hour ahead would else write times of the future, and an event that it
left behind would be taken for a fresh one for an hour. SQLite has no clock but that of the process.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from datetime import timezone as utc
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Func
from django.utils import timezone
from django.utils.dateparse import parse_datetime

TIME_OF_ROW = "clock_timestamp()"
"""For PostgreSQL to write: the time at which it gets to the row, if need be behind its lock."""


class Now(Func):
    """The time of the database for the ORM, so many seconds from now."""

    output_field = DateTimeField()

    def __init__(self, seconds: float = 0) -> None:
        super().__init__()
        self.seconds = seconds

    def as_sql(
        self, compiler: Any, connection: BaseDatabaseWrapper, *args: Any, **extra: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        """See `Func.as_sql()`."""
        return sql_now(connection, self.seconds), ()


def sql_now(connection: BaseDatabaseWrapper, seconds: float = 0) -> str:
    """Return SQL for the time so many seconds from now, as the tables have it.

    It is for statements that have parameters, of which the driver makes one percent sign of two.
    """
    if connection.vendor == "postgresql":
        # One that is the same for all of the statement: another could not use an index.
        return f"(statement_timestamp() + interval '{seconds:f} second')"
    seconds += _offset(connection)
    if connection.vendor == "mysql":
        return f"(UTC_TIMESTAMP(6) + INTERVAL {seconds:f} SECOND)"
    return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '{seconds:+f} seconds')"


def sql_time_of_row(connection: BaseDatabaseWrapper) -> str:
    """Return SQL for the time at which a row is written."""
    return TIME_OF_ROW if connection.vendor == "postgresql" else sql_now(connection)


def read_now(connection: BaseDatabaseWrapper) -> datetime:
    """Ask for the time, as the ORM would return it."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql_now(connection)}", [])
        [[now]] = cursor.fetchall()
    if isinstance(now, str):
        now = parse_datetime(now)
    if connection.timezone is not None and timezone.is_naive(now):
        now = timezone.make_aware(now, connection.timezone)
    return now  # type: ignore[no-any-return]


def _offset(connection: BaseDatabaseWrapper) -> float:
    """Return by how many seconds the times of the tables, which name no zone, are before UTC."""
    zone = connection.timezone  # None for the zone of the process, with USE_TZ = False
    offset = datetime.now(utc.utc).astimezone(zone).utcoffset()
    return (offset or timedelta()).total_seconds()
