"""From joined to started: where each new connection begins, and whether it still may."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from django_eventstream.deadlines import within
from django_eventstream.events import CONTROL_CHANNEL
from django_eventstream.exceptions import EventStreamError, StorageUnavailableError
from django_eventstream.hub.authorizations import Authorizations
from django_eventstream.hub.channel import HeldChannel
from django_eventstream.hub.connection import Connection
from django_eventstream.hub.follower import LogFollower, pause_since
from django_eventstream.hub.permissions import PermissionChanges
from django_eventstream.hub.tasks import NamedTasks
from django_eventstream.hub.turn import do_for_each

PATIENCE_SECONDS = 4.0
"""How long a connection waits to be started, before it is sent away: for a log that cannot be
reached, or for the channel manager. Whatever the hub waits for, its client hears within 5 s."""

ASK_SECONDS = 2.5
"""How long the log may take to say where it stands. Streams that are open wait longer for it."""

RETRY_MILLISECONDS = (1_000, 5_000)
"""Spread over which clients that are sent away come back, so that they do not stampede."""


class _Asked(NamedTuple):
    """What the log said about the channels of those who join."""

    ids: Mapping[str, int]
    lives: Mapping[str, int]
    """Of the channels, when it said so."""


class Admission:
    """Starts connections in batches: however many join at once, the log is asked once."""

    def __init__(
        self,
        channels: Mapping[str, HeldChannel],
        follower: LogFollower | None,
        changes: PermissionChanges,
        authorizations: Authorizations,
        tasks: NamedTasks,
    ) -> None:
        self._channels = channels
        self._follower = follower
        self._changes = changes
        self._authorizations = authorizations
        self._tasks = tasks
        self._joining: dict[Connection, None] = {}
        """In the order in which they joined."""
        self._ready: dict[Connection, None] = {}
        """Those of them that do not wait for the channel manager."""
        self._allowed: set[Connection] = set()
        """Those of them for which it has been asked again."""

    def add(self, connection: Connection) -> None:
        """Start this connection soon, or send it away."""
        self._joining[connection] = None
        self._tasks.ensure("patience", self._send_away_overdue)
        self._make_ready(connection)

    def remove(self, connection: Connection) -> None:
        """The connection has left."""
        self._joining.pop(connection, None)
        self._ready.pop(connection, None)
        self._allowed.discard(connection)

    def _make_ready(self, connection: Connection) -> None:
        self._ready[connection] = None
        self._tasks.ensure("admit", self._run)

    async def _run(self) -> None:
        """Start all that are ready."""
        while self._ready:
            asked_at = time.monotonic()
            try:
                await self._start_all(list(self._ready))
            except StorageUnavailableError:
                await pause_since(asked_at)

    async def _start_all(self, ready: list[Connection]) -> None:
        # A client whose position we have passed needs no log, even if there is none now.
        self._start([c for c in ready if not self._unsure_of(c)], _Asked({}, {}))
        if unsure := [c for c in ready if c in self._ready]:
            asked = await self._ask_for(unsure)
            self._start([c for c in unsure if c in self._ready], asked)

    async def _ask_for(self, connections: Iterable[Connection]) -> _Asked:
        names = {name for connection in connections for name in self._unsure_of(connection)}
        if self._follower is None or not names:
            return _Asked({}, {})
        asking = _ask(self._follower, {*names, CONTROL_CHANNEL}, self._channels)
        try:
            return await within(asking, ASK_SECONDS)
        except TimeoutError as error:
            raise StorageUnavailableError(str(error)) from error

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

    def _start(self, connections: Sequence[Connection], asked: _Asked) -> None:
        do_for_each(connections, partial(self._start_if_allowed, asked))
        for broken in [connection for connection in connections if connection.is_ended]:
            self.remove(broken)

    def _start_if_allowed(self, asked: _Asked, connection: Connection) -> None:
        """Ask again where permission may have changed between the view and now."""
        heard_since = self._control.positioned_at
        is_in_doubt = self._changes.may_concern(connection.hold, heard_since)
        if connection not in self._allowed and is_in_doubt:
            del self._ready[connection]
            self._authorizations.ask(connection, partial(self._authorized, connection, asked))
        elif not self._have_restarted(connection, asked.lives):
            self._begin(connection, asked)
        # If they have, it waits for the next round, which asks again.

    def _authorized(
        self, connection: Connection, asked: _Asked, error: EventStreamError | None
    ) -> None:
        if connection not in self._joining:
            return
        if error is None:
            self._allowed.add(connection)
            self._make_ready(connection)
            self._start([connection], asked)
        elif isinstance(error, StorageUnavailableError):
            self._send_away(connection)
        else:
            self.remove(connection)
            do_for_each([connection], lambda each: each.fail(error))

    def _begin(self, connection: Connection, asked: _Asked) -> None:
        self.remove(connection)
        current_ids = {
            name: max(self._channels[name].window.last_id, asked.ids.get(name, 0))
            for name in connection.hold.reliable
        }
        connection.start(current_ids, self._follower.epoch if self._follower else 0)

    def _have_restarted(self, connection: Connection, lives: Mapping[str, int]) -> bool:
        """Say whether the log was restored from a backup since it was asked."""
        names = lives.keys() & set(connection.hold.reliable)
        return any(self._channels[name].life != lives[name] for name in names)

    async def _send_away_overdue(self) -> None:
        while self._joining:
            eldest = next(iter(self._joining))
            waits = eldest.joined_at + PATIENCE_SECONDS - time.monotonic()
            if waits > 0:
                await asyncio.sleep(waits)
            else:
                self._send_away(eldest)

    def _send_away(self, connection: Connection) -> None:
        self.remove(connection)
        do_for_each([connection], lambda each: each.drain(retry_milliseconds()))


async def _ask(
    follower: LogFollower, names: Iterable[str], channels: Mapping[str, HeldChannel]
) -> _Asked:
    ids = await follower.ask(names)
    # At once: by the next turn of the loop the log may have been restored.
    return _Asked(ids, {name: channels[name].life for name in ids if name in channels})


def retry_milliseconds() -> int:
    """Return when a client that is sent away is to come back."""
    return random.randint(*RETRY_MILLISECONDS)
