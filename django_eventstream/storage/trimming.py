"""Removing the oldest events of a channel, a bounded batch at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream.storage.numbering import COUNTER_TABLE, EVENT_TABLE, own_transaction

# Only a run from the oldest on is removed, up to the first event that must stay: what is kept
# never has a hole.
_EXPIRED = f"""
SELECT MIN(eid), COALESCE(MIN(CASE WHEN {{expired}} THEN NULL ELSE eid END) - 1, MAX(eid))
FROM (
  SELECT eid, created FROM {EVENT_TABLE} WHERE channel = %(channel)s AND eid > 0
  ORDER BY eid LIMIT {{limit}}
) AS oldest"""

_DELETE = (
    f"DELETE FROM {EVENT_TABLE} WHERE channel = %(channel)s AND eid BETWEEN %(first)s AND %(last)s"
)

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
    # Asked apart from the DELETE: within it MySQL would lock all that it reads, the counter too.
    # What has expired stays expired.
    question = _EXPIRED.format(expired=" OR ".join(conditions), limit=int(limit))
    with connection.cursor() as cursor:
        cursor.execute(question, parameters)
        [[first, last]] = cursor.fetchall()
        if first is None or last < first:
            return 0
        with own_transaction(connection):
            cursor.execute(_DELETE, {"channel": channel, "first": first, "last": last})
            return max(0, int(cursor.rowcount))
