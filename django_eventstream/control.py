"""What processes tell each other, on a channel of the log that every hub follows."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from django_eventstream import sending
from django_eventstream.events import CONTROL_CHANNEL, Event

logger = logging.getLogger(__name__)

DISCONNECT = "disconnect"


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A user (None: everybody not logged in) may no longer read a channel."""

    user_id: str | None
    channel: str


def user_key(user: Any) -> str | None:
    """Return the primary key of a user as text, None for somebody who is not logged in."""
    if user is None or not getattr(user, "is_authenticated", True):
        return None
    return str(user.pk)


def announce_disconnect(user: Any, channel: str) -> None:
    """Tell every process and proxy that a user may no longer read a channel.

    They ask then, so whatever transaction says so must be committed before. Raises
    ValueError for a user without a primary key, whose streams nobody could find.
    """
    user_id = user_key(user)
    if user_id is not None and user.pk is None:
        raise ValueError("the user has no primary key: tell of a user before deleting them")
    data = json.dumps({"user": user_id, "channel": channel})
    sending.send_after_each(Event(CONTROL_CHANNEL, DISCONNECT, data))


def parse_disconnect(event: Event) -> Disconnect | None:
    """Read a message of the control channel; None if it is of another kind."""
    if event.type != DISCONNECT:
        return None
    try:
        data = json.loads(event.data)
        return Disconnect(data["user"], data["channel"])
    except (ValueError, TypeError, KeyError, RecursionError):
        # Of a newer version of this package, during a deploy.
        logger.warning("A message on the control channel cannot be read: %.200r", event.data)
        return None
