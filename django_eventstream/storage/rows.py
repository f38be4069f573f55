"""An event and its row in the table."""

from __future__ import annotations

import json

from django_eventstream.events import Event

_NOBODY: frozenset[str] = frozenset()

# Without the search for spaces around it, which ours never has.
_scan = json.JSONDecoder().raw_decode


def to_columns(event: Event) -> tuple[str, str, str, int | None, str | None]:
    """Return channel, type, data, eid and skip_user_ids, as they are stored.

    All but the names is written in ASCII, which any table takes.
    """
    skip_user_ids = json.dumps(sorted(event.skip_user_ids)) if event.skip_user_ids else None
    return event.channel, event.type, json.dumps(event.data), event.id, skip_user_ids


def make_event(
    channel: str, eid: int | None, event_type: str, data: str, skip_user_ids: str | None
) -> Event:
    """Read the columns of a row, of the predecessor's too."""
    text = _decode(data)
    users = frozenset(json.loads(skip_user_ids)) if skip_user_ids else _NOBODY
    return Event(channel, event_type, text, eid, users)


def _decode(data: str) -> str:
    try:
        text, end = _scan(data)
    except ValueError:
        return data
    # A storage of the predecessor could be handed any JSON, and a row saved by hand has what it
    # has; ours is always text.
    return text if isinstance(text, str) and end == len(data) else data
