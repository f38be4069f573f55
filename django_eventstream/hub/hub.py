"""The hub: holds all connections of one event loop, and tells them what their channels have.

Subscribe first, then find out where to start, then go live; ids decide what is new. It knows
no settings and no request.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from django_eventstream import control
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import (
    EventPermissionError,
    EventStreamError,
    HistoryGoneError,
    StorageUnavailableError,
)
from django_eventstream.feeds.base import Feed
from django_eventstream.hold import Hold
from django_eventstream.hub.channel import HeldChannel
from django_eventstream.hub.connection import Connection
from django_eventstream.hub.keepalive import KeepAliveWheel
from django_eventstream.hub.log import LogReader
from django_eventstream.hub.tasks import NamedTasks
from django_eventstream.storage.base import LogPosition

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

LOG_RETRY_SECONDS = 1.0
"""Pause after the log could not be read; hints meanwhile are kept as targets."""

START_PATIENCE_SECONDS = 5.0
"""How long a new connection waits for a log that cannot be reached, before it is sent away."""

RETRY_MILLISECONDS = (1_000, 5_000)
"""Spread over which clients come back when a process drains, so that they do not stampede."""

DISCONNECTS_REMEMBERED = 1_000
"""Permission changes kept for connections that were authorised just before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """Plain values of the settings that the hub needs."""

    poll_seconds: float
    keep_alive_seconds: float
    window_bytes: int
    backlog_bytes: int


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """What a hub holds now."""

    connections: int
    channels: int


class Hub:
    """All methods but `call_threadsafe()` are for the thread of the event loop."""

    def __init__(
        self, log: LogReader | None, options: HubOptions, feeds: Sequence[Feed] = ()
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._options = options
        self._feeds = feeds
        self._channels: dict[str, HeldChannel] = {}
        self._connections: dict[Connection, None] = {}
        self._joining: dict[Connection, None] = {}
        self._keep_alives = KeepAliveWheel(options.keep_alive_seconds)
        self._tasks = NamedTasks()
        self._news = asyncio.Event()
        self._epoch = 0
        self._listens_since = 0.0
        self._disconnects: deque[tuple[float, control.Disconnect]] = deque(
            maxlen=DISCONNECTS_REMEMBERED
        )
        self._is_draining = False

    # For those who hold connections

    def join(self, hold: Hold, wake: Callable[[], None]) -> Connection:
        """Hold a new connection; `wake` is called whenever `Connection.take()` may have more."""
        if not self._connections:
            self._rise()
        channels = {name: self._hold_channel(name, is_reliable=True) for name in hold.reliable}
        channels |= {name: self._hold_channel(name, is_reliable=False) for name in hold.unreliable}
        connection = Connection(
            hold, channels, wake=wake, backlog_bytes=self._options.backlog_bytes
        )
        for channel in channels.values():
            channel.readers[connection] = None
        self._connections[connection] = None
        self._keep_alives.add(connection)
        if self._is_draining:
            connection.drain(_retry())
        else:
            self._joining[connection] = None
            self._tasks.ensure("start", self._start_joining)
        return connection

    def leave(self, connection: Connection) -> None:
        """Forget a connection, and what was held for it alone."""
        self._connections.pop(connection, None)
        self._joining.pop(connection, None)
        self._keep_alives.remove(connection)
        for name in (*connection.hold.reliable, *connection.hold.unreliable):
            if (channel := self._channels.get(name)) is not None:
                channel.forget(connection)
                if not channel.readers:
                    del self._channels[name]
        if not self._connections:
            self._rest()

    # For those who have news

    def call_threadsafe(self, function: Callable[[Hub], None]) -> None:
        """Call `function(hub)` in the hub's own thread, from any thread; nothing if it is gone."""
        try:
            self._loop.call_soon_threadsafe(function, self)
        except RuntimeError:
            logger.debug("An event loop ended before its hub was told")

    def offer(self, events: Iterable[Event]) -> None:
        """Take events that somebody passed on; they may be old, doubled or out of order."""
        for event in events:
            if (channel := self._channels.get(event.channel)) is not None:
                channel.offer(event)

    def hint(self, channel: str, last_id: int) -> None:
        """Learn that the log of a channel has reached an id."""
        if (held := self._channels.get(channel)) is not None:
            held.hint(last_id)

    def look(self) -> None:
        """Ask the log now: news may have been missed."""
        self._news.set()

    def drain(self) -> None:
        """End every stream at an event boundary; new ones are sent away at once."""
        self._is_draining = True
        for connection in list(self._connections):
            connection.drain(_retry())

    def statistics(self) -> HubStatistics:
        """Say how much is held."""
        held = len(self._channels) - (CONTROL_CHANNEL in self._channels)
        return HubStatistics(len(self._connections), held)

    # Life

    def _rise(self) -> None:
        self._listens_since = time.monotonic()
        self._channels[CONTROL_CHANNEL] = self._make_channel(
            CONTROL_CHANNEL, is_reliable=self._log is not None, listener=self._hear
        )
        self._tasks.ensure("keep-alive", self._keep_alives.run)
        if self._log is not None:
            self._tasks.ensure("follow", partial(self._follow, self._log))
        for feed in self._feeds:
            self._tasks.ensure(feed, partial(feed.follow, self))

    def _rest(self) -> None:
        self._channels.clear()
        self._disconnects.clear()
        self._tasks.cancel()
        if self._log is not None:
            self._log.rest()

    def _hold_channel(self, name: str, *, is_reliable: bool) -> HeldChannel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = self._make_channel(name, is_reliable=is_reliable)
        return channel

    def _make_channel(
        self, name: str, *, is_reliable: bool, listener: Callable[[Event], None] | None = None
    ) -> HeldChannel:
        return HeldChannel(
            name,
            is_reliable=is_reliable,
            window_bytes=self._options.window_bytes,
            schedule=self._schedule_read,
            listener=listener,
        )

    # Starting connections

    async def _start_joining(self) -> None:
        while self._joining:
            joining = list(self._joining)
            try:
                current_ids = await self._ask_where_unsure(joining)
                for connection in joining:
                    if await self._is_still_allowed(connection):
                        self._start(connection, current_ids)
            except StorageUnavailableError:
                self._send_away(joining)
                await asyncio.sleep(LOG_RETRY_SECONDS)

    async def _ask_where_unsure(self, joining: list[Connection]) -> Mapping[str, int]:
        unsure = {
            name
            for connection in joining
            for name in connection.hold.reliable
            if not self._knows_start(connection, name)
        }
        if self._log is None or not unsure:
            return {}
        return await self._ask(self._log, [*unsure, CONTROL_CHANNEL])

    def _knows_start(self, connection: Connection, name: str) -> bool:
        """Whether the log need not be asked: the client brings a place that we have passed."""
        cursor, channel = connection.hold.cursor, self._channels[name]
        position = None if cursor is None else cursor.positions.get(name)
        return channel.is_positioned and position is not None and position <= channel.window.last_id

    async def _is_still_allowed(self, connection: Connection) -> bool:
        """Ask again where permission may have changed between the view and now."""
        if connection in self._joining and self._permission_may_have_changed(connection.hold):
            try:
                await self._run_in_thread(connection.hold.authorize)
            except StorageUnavailableError:
                raise
            except EventStreamError as error:
                self._joining.pop(connection, None)
                connection.fail(error)
        return connection in self._joining

    def _start(self, connection: Connection, asked: Mapping[str, int]) -> None:
        del self._joining[connection]
        current_ids = {
            name: max(self._channels[name].window.last_id, asked.get(name, 0))
            for name in connection.hold.reliable
        }
        connection.start(current_ids, self._epoch)

    def _send_away(self, connections: Iterable[Connection]) -> None:
        patience = time.monotonic() - START_PATIENCE_SECONDS
        for connection in connections:
            if connection.joined_at < patience:
                self._joining.pop(connection, None)
                connection.drain(_retry())

    async def _run_in_thread(self, function: Callable[[], Result]) -> Result:
        if self._log is not None:
            return await self._log.run(function)
        return await self._loop.run_in_executor(None, function)

    # Following the log

    async def _follow(self, log: LogReader) -> None:
        is_reachable = True
        while True:
            try:
                await asyncio.wait_for(self._news.wait(), self._options.poll_seconds)
            except asyncio.TimeoutError:
                pass
            self._news.clear()
            names = [name for name, held in self._channels.items() if held.is_reliable]
            try:
                await self._ask(log, names)
                is_reachable = True
            except StorageUnavailableError as error:
                if is_reachable:
                    logger.warning("Streams wait for the event log: %s", error)
                is_reachable = False
                await asyncio.sleep(LOG_RETRY_SECONDS)

    async def _ask(self, log: LogReader, names: list[str]) -> Mapping[str, int]:
        """Ask where the log stands, and tell the channels."""
        known = {
            name: self._channels[name].window.last_id for name in names if name in self._channels
        }
        position = await log.get_position(names)
        if position.epoch != self._epoch:
            held = {name for name, channel in self._channels.items() if channel.is_reliable}
            position = await log.get_position([*held.union(names)])
            self._begin_epoch(position)
        for name, last_id in position.ids.items():
            channel = self._channels.get(name)
            if channel is None:
                continue
            if not channel.is_positioned:
                channel.position(last_id, position.epoch)
            elif last_id < known.get(name, 0):
                channel.restart("ahead", last_id, position.epoch)
            else:
                channel.hint(last_id)
        if position.unnumbered:
            await log.relay(sorted(position.unnumbered))
        return position.ids

    def _begin_epoch(self, position: LogPosition) -> None:
        self._epoch = position.epoch
        for name, channel in self._channels.items():
            if channel.is_reliable and channel.is_positioned and name in position.ids:
                channel.restart("epoch", position.ids[name], position.epoch)

    def _schedule_read(self, channel: HeldChannel) -> None:
        if self._log is not None:
            self._tasks.ensure(("read", channel), partial(self._read, self._log, channel))

    async def _read(self, log: LogReader, channel: HeldChannel) -> None:
        while (after := channel.next_read()) is not None:
            life = channel.life
            try:
                events = await log.read(channel.name, after)
                if life == channel.life:
                    channel.take_read(after, events)
            except HistoryGoneError as gone:
                channel.take_gone(gone)
            except StorageUnavailableError:
                await asyncio.sleep(LOG_RETRY_SECONDS)

    # Permissions

    def _hear(self, event: Event) -> None:
        disconnect = control.parse_disconnect(event)
        if disconnect is None:
            return
        self._disconnects.append((time.monotonic(), disconnect))
        for connection in list(self._connections):
            hold = connection.hold
            if disconnect.user_id == hold.user_id and hold.has_channel(disconnect.channel):
                connection.fail(EventPermissionError.for_channels([disconnect.channel]))

    def _permission_may_have_changed(self, hold: Hold) -> bool:
        return hold.authorized_at < self._listens_since or any(
            at >= hold.authorized_at
            and disconnect.user_id == hold.user_id
            and hold.has_channel(disconnect.channel)
            for at, disconnect in self._disconnects
        )


def _retry() -> int:
    return random.randint(*RETRY_MILLISECONDS)  # noqa: S311
