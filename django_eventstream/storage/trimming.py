"""Removing the oldest events of a channel, a bounded batch in one statement."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream.storage.numbering import COUNTER_TABLE, EVENT_TABLE

# Only a run from the oldest on is removed, up to the first event that must stay: what is kept
# never has a hole. The derived tables are what lets MySQL delete from a table that it reads.
_DELETE = f"""
DELETE FROM {EVENT_TABLE} WHERE channel = %(channel)s AND eid BETWEEN 1 AND (
  SELECT last_expired FROM (
    SELECT COALESCE(MIN(CASE WHEN {{expired}} THEN NULL ELSE eid END) - 1, MAX(eid))
      AS last_expired
    FROM (
      SELECT eid, created FROM {EVENT_TABLE} WHERE channel = %(channel)s AND eid > 0
      ORDER BY eid LIMIT {{limit}}
    ) AS oldest
  ) AS batch
)"""

_TOO_OLD = "created < %(before)s"
_TOO_MANY = f"eid <= (SELECT value FROM {COUNTER_TABLE} WHERE name = %(channel)s) - %(keep)s"


def delete_oldest(
    connection: BaseDatabaseWrapper,
    channel: str,
    before: datetime | None,
    keep: int | None,
    limit: int,
) -> int:
    """Remove up to `limit` events created before `before` or beyond the last `keep`."""
    conditions: list[str] = []
    parameters: dict[str, Any] = {"channel": channel}
    if before is not None:
        conditions.append(_TOO_OLD)
        parameters["before"] = connection.ops.adapt_datetimefield_value(before)
    if keep is not None:
        conditions.append(_TOO_MANY)
        parameters["keep"] = keep
    if not conditions:
        return 0
    statement = _DELETE.format(expired=" OR ".join(conditions), limit=int(limit))
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return max(0, int(cursor.rowcount))
