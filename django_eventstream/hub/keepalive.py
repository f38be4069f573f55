"""Keep-alives for all connections by one timer."""

from __future__ import annotations

import asyncio
from typing import Protocol

from django_eventstream.hub.turn import Breakable, do_for_each

SLOTS = 20
"""Connections are spread over as many moments of the period, so that they do not all write at
once."""


class Alive(Breakable, Protocol):
    """Whatever can send a sign of life."""

    def keep_alive(self) -> None:
        """Send it."""


class KeepAliveWheel:
    """Each connection gets its sign of life once in a period."""

    def __init__(self, period_seconds: float) -> None:
        self._pause = period_seconds / SLOTS
        self._slots: list[dict[Alive, None]] = [{} for _ in range(SLOTS)]
        self._slot_of: dict[Alive, int] = {}
        self._now = 0
        self._next = 0

    def add(self, connection: Alive) -> None:
        """Give the connection the slot after the last one's."""
        self._next = (self._next + 1) % SLOTS
        self._slots[self._next][connection] = None
        self._slot_of[connection] = self._next

    def remove(self, connection: Alive) -> None:
        """Forget the connection."""
        slot = self._slot_of.pop(connection, None)
        if slot is not None:
            del self._slots[slot][connection]

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            await asyncio.sleep(self._pause)
            self._now = (self._now + 1) % SLOTS
            do_for_each(self._slots[self._now], lambda each: each.keep_alive())
