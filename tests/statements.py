"""Counting what a server process asks of its databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

LOG_TABLES = ("django_eventstream_event", "django_eventstream_eventcounter")

counts: Counter[str] = Counter()
"""Statements on the tables of the log, by their first word."""

connections: Counter[str] = Counter()
"""Connections made, by alias."""

open_now: set[BaseDatabaseWrapper] = set()
most_open = 0
"""How many there were at once."""


def count_log_statements(*, connection: Any, **kwargs: object) -> None:
    """Makes a new connection count its statements on the log, and counts it."""
    global most_open
    connections[connection.alias] += 1
    open_now.add(connection)
    most_open = max(most_open, len(open_now))
    if _count not in connection.execute_wrappers:  # it outlives what it connected to
        connection.execute_wrappers.append(_count)


def _count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    if any(table in sql for table in LOG_TABLES):
        counts[sql.split(None, 1)[0].upper()] += 1
    return execute(sql, params, many, context)


def start_counting() -> None:
    connection_created.connect(count_log_statements)
    BaseDatabaseWrapper.close = _noting_the_end(BaseDatabaseWrapper.close)


def _noting_the_end(close: Callable[[BaseDatabaseWrapper], None]) -> Any:
    def noting(connection: BaseDatabaseWrapper) -> None:
        close(connection)
        if connection.connection is None:
            open_now.discard(connection)

    return noting
