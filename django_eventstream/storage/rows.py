"""An event and its row in the table."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from django_eventstream.events import Event, restore

logger = logging.getLogger(__name__)

MOST_REPORTED = 1_000
"""Unreadable events of which a process remembers that it reported them; of others it is silent."""

_reported: set[tuple[str, object]] = set()

# Without the search for spaces around it, which ours never has.
_scan = json.JSONDecoder().raw_decode


def to_columns(event: Event) -> tuple[str, str, str, int | None, str | None]:
    """Return channel, type, data, eid and skip_user_ids, as they are stored.

    All but the names is written in ASCII, which any table takes.
    """
    skip_user_ids = json.dumps(sorted(event.skip_user_ids)) if event.skip_user_ids else None
    return event.channel, event.type, json.dumps(event.data), event.id, skip_user_ids


def make_events(channel: str, rows: Iterable[tuple[Any, ...]]) -> list[Event]:
    """Read rows of eid, type, data and skip_user_ids; leave out those that nobody can read."""
    return readable(channel, ((row[0], row) for row in rows), lambda row: make_event(channel, *row))


def readable(
    channel: str, numbered: Iterable[tuple[object, Any]], make: Callable[[Any], Event]
) -> list[Event]:
    """Make events, and leave out those that cannot be made, which are reported once.

    One that somebody wrote by hand must not silence its channel, nor fail an innocent sender. To
    streams it is an event that is not kept.
    """
    events = []
    for number, found in numbered:
        try:
            events.append(make(found))
        except Exception as error:
            _report(channel, number, error)
    return events


def _report(channel: str, number: object, error: Exception) -> None:
    if len(_reported) >= MOST_REPORTED or (channel, number) in _reported:
        return
    _reported.add((channel, number))
    logger.error(
        "The event %s of channel %r cannot be read, and is left out: %s (%d such events so far)",
        *(number, channel, error, len(_reported)),
    )


def make_event(
    channel: str, eid: int | None, event_type: str, data: str, skip_user_ids: str | None
) -> Event:
    """Read the columns of a row, of the predecessor's too; raise whatever it takes."""
    users = json.loads(skip_user_ids) if skip_user_ids else None
    return restore(channel, event_type, _decode(data), eid, users)


def _decode(data: str) -> str:
    try:
        text, end = _scan(data)
    except ValueError:
        return data
    # A storage of the predecessor could be handed any JSON, and a row saved by hand has what it
    # has; ours is always text.
    return text if isinstance(text, str) and end == len(data) else data
