"""Permission changes that a hub heard of."""

from __future__ import annotations

import time
from collections import deque

from django_eventstream.control import Disconnect
from django_eventstream.hold import Hold

REMEMBERED = 1_000
"""Changes kept for connections that were authorised just before them."""


class PermissionChanges:
    """Finds the streams that a change ends, and those that it may have overtaken."""

    def __init__(self) -> None:
        self._forgotten_until = 0.0
        self._changes: deque[tuple[float, Disconnect]] = deque(maxlen=REMEMBERED)

    def add(self, change: Disconnect) -> None:
        """Remember a change."""
        if len(self._changes) == REMEMBERED:
            self._forgotten_until, _ = self._changes[0]
        self._changes.append((time.monotonic(), change))

    def may_concern(self, hold: Hold, heard_since: float) -> bool:
        """Say whether the user may have lost a channel after the view asked the manager.

        `heard_since` is when the hub began to hear of changes.
        """
        return hold.authorized_at <= max(heard_since, self._forgotten_until) or any(
            at >= hold.authorized_at and concerns(change, hold) for at, change in self._changes
        )


def concerns(change: Disconnect, hold: Hold) -> bool:
    """Say whether the change takes a channel away from this stream."""
    return change.user_id == hold.user_id and hold.has_channel(change.channel)
