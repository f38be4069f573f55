"""Writing the log on PostgreSQL: each step is one statement, and so one round trip.

A statement sees what was committed before it began, though it may have waited for a lock since.
So each does nothing where that matters, and is then asked again under the lock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from django_eventstream.conf import settings
from django_eventstream.events import Event
from django_eventstream.storage.clock import TIME_OF_ROW
from django_eventstream.storage.numbering import (
    COUNTER_TABLE,
    EVENT_TABLE,
    NOTIFY_CHANNEL,
    is_read_committed,
    own_transaction,
    take_numbers,
)
from django_eventstream.storage.rows import make_events, to_columns
from django_eventstream.storage.writing import COLUMNS, STAGED, Writer, with_ids

# A counter that moves on is told to every process that listens, once the transaction commits.
# Schemas of one database share its notifications: the table says in which of them it is.
_TELL = (
    f"CASE WHEN %(tell)s THEN pg_notify('{NOTIFY_CHANNEL}',"
    " tableoid || '.' || value || ':' || name) END"
)

_APPEND_ONE = f"""
WITH counter AS (
  UPDATE {COUNTER_TABLE} SET value = value + 1, updated = {TIME_OF_ROW} WHERE name = %(name)s
  RETURNING name, value, {_TELL}
)
INSERT INTO {EVENT_TABLE} ({COLUMNS})
SELECT name, %(type)s, %(data)s, value, %(skip)s, {TIME_OF_ROW} FROM counter
RETURNING eid"""

# One parameter of JSON is read faster than thousands are, or than arrays.
_SENT = """
SELECT * FROM json_to_recordset(%(events)s)
AS sent (channel text, n bigint, type text, data text, skip text)"""

# All or nothing. Locks are taken in the order of names, so that two senders cannot wait for
# each other.
_APPEND_MANY = f"""
WITH sent AS MATERIALIZED ({_SENT}),
wanted AS (SELECT channel, MAX(n) AS count FROM sent GROUP BY channel),
locked AS MATERIALIZED (
  SELECT FROM {COUNTER_TABLE} WHERE name IN (SELECT channel FROM wanted)
  ORDER BY name COLLATE "C" FOR UPDATE
),
counter AS (
  UPDATE {COUNTER_TABLE} SET value = value + count, updated = {TIME_OF_ROW} FROM wanted
  WHERE name = channel AND (SELECT COUNT(*) FROM locked) = (SELECT COUNT(*) FROM wanted)
  RETURNING name, value - count AS before, {_TELL}
),
inserted AS (
  INSERT INTO {EVENT_TABLE} ({COLUMNS})
  SELECT name, type, data, before + n, skip, {TIME_OF_ROW} FROM sent JOIN counter ON name = channel
  ORDER BY n
)
SELECT name, before FROM counter"""

_STAGE_MANY = f"""
INSERT INTO {EVENT_TABLE} ({COLUMNS})
SELECT channel, type, data, NULL, skip, {TIME_OF_ROW} FROM ({_SENT}) AS sent"""

# No row if the counter moved on since the statement began, for what it found may have ids by now;
# a row of NULLs if it found nothing, which then takes no lock.
_NUMBER = f"""
WITH staged AS MATERIALIZED ({STAGED}),
found AS MATERIALIZED (
  SELECT value AS before, (SELECT COUNT(*) FROM staged) AS count
  FROM {COUNTER_TABLE} WHERE name = %(name)s
),
counter AS (
  UPDATE {COUNTER_TABLE} SET value = value + count, updated = {TIME_OF_ROW} FROM found
  WHERE name = %(name)s AND value = before AND count > 0
  RETURNING before, {_TELL}
),
numbered AS (
  UPDATE {EVENT_TABLE} AS event SET eid = before + n FROM staged, counter
  WHERE event.id = staged.id RETURNING eid, type, data, skip_user_ids
)
SELECT numbered.* FROM found LEFT JOIN numbered ON TRUE
WHERE eid IS NOT NULL OR count = 0 ORDER BY eid"""

_ATTEMPTS = 3
"""Where many number at once, most find that another did it for them when they look again."""


class PostgresWriter(Writer):
    """Tells every process that listens as well, where the settings say so."""

    def append(self, events: Sequence[Event]) -> list[Event]:
        """See `Writer.append()`."""
        if len(events) != 1:
            return self._append_many(events) if events else []
        [event] = events
        _, kind, data, _, skip = to_columns(event)
        parameters = {"name": event.channel, "type": kind, "data": data, "skip": skip}
        [[number]] = self._execute_alone(_APPEND_ONE, parameters, [event.channel])
        return [event.with_id(number)]

    def stage(self, events: Sequence[Event]) -> None:
        """See `Writer.stage()`."""
        if len(events) == 1:
            super().stage(events)
        else:
            sent = json.dumps([self._as_item(event) for event in events])
            with self._connection.cursor() as cursor:
                cursor.execute(_STAGE_MANY, {"events": sent})

    def number(self, channel: str) -> list[Event]:
        """See `Writer.number()`."""
        rows = self._execute_alone(_NUMBER, {"name": channel}, [channel], attempts=_ATTEMPTS)
        return make_events(channel, (row for row in rows if row[0] is not None))

    def _append_many(self, events: Sequence[Event]) -> list[Event]:
        counts: Counter[str] = Counter()
        sent = []
        for event in events:
            counts[event.channel] += 1
            sent.append(self._as_item(event, counts[event.channel]))
        rows = self._execute_alone(_APPEND_MANY, {"events": json.dumps(sent)}, sorted(counts))
        return with_ids(events, {channel: before + 1 for channel, before in rows})

    def _as_item(self, event: Event, n: int = 0) -> dict[str, Any]:
        channel, kind, data, _, skip = to_columns(event)
        return {"channel": channel, "n": n, "type": kind, "data": data, "skip": skip}

    def _execute_alone(
        self,
        statement: str,
        parameters: dict[str, Any],
        channels: Iterable[str],
        attempts: int = 1,
    ) -> list[tuple[Any, ...]]:
        """Execute it by itself; if no row comes back, with counters that are there and locked."""
        if is_read_committed(self._connection):
            for _ in range(attempts):
                if rows := self._execute(statement, parameters):
                    return rows
        with own_transaction(self._connection):
            for channel in channels:
                take_numbers(self._connection, channel, 0)
            return self._execute(statement, parameters)

    def _execute(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        tell = settings.POSTGRES_NOTIFY
        with self._connection.cursor() as cursor:
            cursor.execute(statement, {**parameters, "tell": tell})
            return list(cursor.fetchall())
