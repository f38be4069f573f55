"""Writing the log on each of the databases; PostgreSQL fills a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream.events import Event
from django_eventstream.storage.numbering import (
    COUNTER_TABLE,
    EVENT_TABLE,
    own_transaction,
    take_numbers,
)
from django_eventstream.storage.postgres import PostgresWriter
from django_eventstream.storage.rows import make_events
from django_eventstream.storage.writing import STAGED, STAGED_SQLITE, Writer


def make_writer(connection: BaseDatabaseWrapper) -> Writer:
    """Return what writes to this database."""
    return _WRITERS.get(connection.vendor, SQLiteWriter)(connection)


class SQLiteWriter(Writer):
    """All that write wait for each other anyway: the first statement that writes locks."""

    _NUMBER_STAGED = (
        f"UPDATE {EVENT_TABLE} SET eid = counter.value + staged.n"
        f" FROM ({STAGED_SQLITE}) AS staged,"
        f" {COUNTER_TABLE} AS counter"
        f" WHERE {EVENT_TABLE}.id = staged.id AND counter.name = %(name)s"
        " RETURNING eid, type, data, skip_user_ids"
    )

    def stage(self, events: Sequence[Event]) -> None:
        """See `Writer.stage()`."""
        by_hand = not self._connection.get_autocommit()
        if by_hand and not self._connection.connection.in_transaction:
            # The caller commits by hand, and has done nothing yet. A savepoint that begins a
            # transaction would commit it at its end: https://www.sqlite.org/lang_savepoint.html
            with self._connection.cursor() as cursor:
                cursor.execute("BEGIN")
        super().stage(events)

    def number(self, channel: str) -> list[Event]:
        with own_transaction(self._connection):
            rows = self._number_staged(channel)
            if not rows:
                # Nothing is staged, or there is no counter yet.
                take_numbers(self._connection, channel, 0)
                rows = self._number_staged(channel)
            if rows:
                take_numbers(self._connection, channel, len(rows))
        return make_events(channel, sorted(rows, key=itemgetter(0)))

    def _number_staged(self, channel: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(self._NUMBER_STAGED, {"name": channel})
            return list(cursor.fetchall())


class MySQLWriter(Writer):
    """For MariaDB, too. Rows of others are never touched, nor looked at under a lock."""

    _FIND_STAGED = (
        f"SELECT id, type, data, skip_user_ids FROM {EVENT_TABLE} JOIN ({STAGED}) next USING (id)"
        " ORDER BY id"
    )
    _WRITE_IDS = "UPDATE {table} SET eid = %s + FIELD(id, {ids}) WHERE id IN ({ids})"

    _BATCH_SIZE = 500
    """`FIELD()` goes through its list for each row."""

    def number(self, channel: str) -> list[Event]:
        with own_transaction(self._connection):
            last = take_numbers(self._connection, channel, 0)
            with self._connection.cursor() as cursor:
                cursor.execute(self._FIND_STAGED, {"name": channel})
                rows = list(cursor.fetchall())
                for start in range(0, len(rows), self._BATCH_SIZE):
                    keys = [row[0] for row in rows[start : start + self._BATCH_SIZE]]
                    ids = ", ".join(map(str, keys))
                    statement = self._WRITE_IDS.format(table=EVENT_TABLE, ids=ids)
                    cursor.execute(statement, [last + start])
            if rows:
                take_numbers(self._connection, channel, len(rows))
        return make_events(channel, ((last + n, *row[1:]) for n, row in enumerate(rows, 1)))


_WRITERS: dict[str, type[Writer]] = {"postgresql": PostgresWriter, "mysql": MySQLWriter}
