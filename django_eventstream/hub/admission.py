"""From joined to started: where each new connection begins, and whether it still may."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from django_eventstream.events import CONTROL_CHANNEL
from django_eventstream.exceptions import EventStreamError, StorageUnavailableError
from django_eventstream.hub.channel import HeldChannel
from django_eventstream.hub.connection import Connection
from django_eventstream.hub.follower import RETRY_SECONDS, LogFollower
from django_eventstream.hub.permissions import PermissionChanges

PATIENCE_SECONDS = 5.0
"""How long a connection waits for a log that cannot be reached, before it is sent away."""

RETRY_MILLISECONDS = (1_000, 5_000)
"""Spread over which clients that are sent away come back, so that they do not stampede."""


class Admission:
    """Starts connections in batches: however many join at once, the log is asked once."""

    def __init__(
        self,
        channels: Mapping[str, HeldChannel],
        follower: LogFollower | None,
        changes: PermissionChanges,
        run_in_thread: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        self._channels = channels
        self._follower = follower
        self._changes = changes
        self._run_in_thread = run_in_thread
        self._joining: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        """Start this connection when `run()` comes to it."""
        self._joining[connection] = None

    def remove(self, connection: Connection) -> None:
        """The connection has left."""
        self._joining.pop(connection, None)

    async def run(self) -> None:
        """Start all that have been added."""
        while self._joining:
            joining = list(self._joining)
            try:
                # Who brings a place that we have passed needs no log, even if there is none now.
                await self._start([c for c in joining if not self._unsure_of(c)], {})
                if unsure := [c for c in joining if c in self._joining]:
                    await self._start(unsure, await self._ask_for(unsure))
            except StorageUnavailableError:
                self._send_away_who_waited_long(joining)
                await asyncio.sleep(RETRY_SECONDS)

    async def _ask_for(self, connections: Iterable[Connection]) -> Mapping[str, int]:
        names = {name for connection in connections for name in self._unsure_of(connection)}
        if self._follower is None or not names:
            return {}
        return await self._follower.ask({*names, CONTROL_CHANNEL})

    def _unsure_of(self, connection: Connection) -> list[str]:
        names = [
            name for name in connection.hold.reliable if not self._knows_start(connection, name)
        ]
        # Nobody starts before the hub can hear who is not allowed to read any more.
        return names if self._control.is_positioned else [*names, CONTROL_CHANNEL]

    def _knows_start(self, connection: Connection, name: str) -> bool:
        """Whether the log need not be asked: the client brings a place that we have passed."""
        cursor, channel = connection.hold.cursor, self._channels[name]
        position = None if cursor is None else cursor.positions.get(name)
        is_passed = position is not None and position <= channel.window.last_id
        return channel.is_positioned and is_passed

    @property
    def _control(self) -> HeldChannel:
        return self._channels[CONTROL_CHANNEL]

    async def _is_still_allowed(self, connection: Connection) -> bool:
        """Ask again where permission may have changed between the view and now."""
        heard_since = self._control.positioned_at
        if connection in self._joining and self._changes.may_concern(connection.hold, heard_since):
            try:
                await self._run_in_thread(connection.hold.authorize)
            except StorageUnavailableError:
                raise
            except EventStreamError as error:
                self.remove(connection)
                connection.fail(error)
        return connection in self._joining

    async def _start(self, connections: Iterable[Connection], asked: Mapping[str, int]) -> None:
        lives = {name: self._channels[name].life for name in asked if name in self._channels}
        for connection in connections:
            if not await self._is_still_allowed(connection):
                continue
            if self._have_restarted(connection, lives):
                continue  # until the next round, which asks again
            self.remove(connection)
            current_ids = {
                name: max(self._channels[name].window.last_id, asked.get(name, 0))
                for name in connection.hold.reliable
            }
            connection.start(current_ids, self._follower.epoch if self._follower else 0)

    def _have_restarted(self, connection: Connection, lives: Mapping[str, int]) -> bool:
        """Say whether the log was restored from a backup since it was asked."""
        names = lives.keys() & set(connection.hold.reliable)
        return any(self._channels[name].life != lives[name] for name in names)

    def _send_away_who_waited_long(self, joining: Iterable[Connection]) -> None:
        longest = time.monotonic() - PATIENCE_SECONDS
        for connection in joining:
            if connection.joined_at < longest:
                self.remove(connection)
                connection.drain(retry_milliseconds())


def retry_milliseconds() -> int:
    """Return when a client that is sent away is to come back."""
    return random.randint(*RETRY_MILLISECONDS)
