"""An event and its row in the table."""

from __future__ import annotations

import json
from datetime import datetime

from django_eventstream import models
from django_eventstream.events import Event


def to_row(event: Event, now: datetime) -> models.Event:
    """Make the row, unsaved. All but the names is written in ASCII, which any table takes."""
    return models.Event(
        channel=event.channel,
        type=event.type,
        data=json.dumps(event.data),
        eid=event.id,
        skip_user_ids=json.dumps(sorted(event.skip_user_ids)) if event.skip_user_ids else None,
        created=now,
    )


def to_event(row: models.Event) -> Event:
    """Read a row, of the predecessor's too."""
    data = json.loads(row.data)
    skip_user_ids = frozenset(json.loads(row.skip_user_ids)) if row.skip_user_ids else frozenset()
    # A storage of the predecessor could be handed any JSON; ours is always text.
    text = data if isinstance(data, str) else row.data
    return Event(row.channel, row.type, text, row.eid, skip_user_ids)
