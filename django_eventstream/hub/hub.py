"""The hub: holds all connections of one event loop, and tells them what their channels have.

Subscribe first, then find out where to start, then go live; ids decide what is new. It knows
no settings and no request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from django_eventstream import control
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import EventPermissionError
from django_eventstream.feeds.base import Feed
from django_eventstream.hold import Hold
from django_eventstream.hub.admission import Admission, retry_milliseconds
from django_eventstream.hub.authorizations import Authorizations
from django_eventstream.hub.budget import WindowBudget
from django_eventstream.hub.channel import HeldChannel, Wish
from django_eventstream.hub.connection import Connection, Outlet
from django_eventstream.hub.convoy import Convoy, Convoys
from django_eventstream.hub.follower import LogFollower
from django_eventstream.hub.keepalive import KeepAliveWheel
from django_eventstream.hub.log import LogReader
from django_eventstream.hub.permissions import PermissionChanges, concerns
from django_eventstream.hub.revocations import ControlMark, Revocations
from django_eventstream.hub.tasks import NamedTasks
from django_eventstream.hub.turn import NextTurn, do_for_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """Plain values of the settings that the hub needs."""

    poll_seconds: float
    keep_alive_seconds: float
    window_bytes: int
    total_window_bytes: int
    backlog_bytes: int


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """What a hub holds now, and what has gone wrong with it so far."""

    connections: int
    channels: int
    window_bytes: int = 0
    """What the windows of all channels have together."""
    threads: int = 0
    """Those that ask the log and the channel manager now; one is usual, and more of them hang."""
    task_failures: int = 0
    """How many of its tasks ended by an error that nobody thought of, and were begun again."""


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
        self._loose_channels: dict[str, HeldChannel] = {}
        """Those that are not stored: should a project change its mind, their ids mean nothing."""
        self._connections: dict[Connection, None] = {}
        self._guests = 0
        self._revocations: Revocations | None = None
        self._tasks = NamedTasks()
        self._authorizations = Authorizations(self._tasks)
        self._budget = WindowBudget(options.total_window_bytes)
        self._turn = NextTurn()
        self._convoys = Convoys(self._turn, options.backlog_bytes)
        self._keep_alives = KeepAliveWheel(options.keep_alive_seconds)
        self._follower = (
            None
            if log is None
            else LogFollower(log, self._channels, self._tasks, options.poll_seconds, self.offer)
        )
        self._is_draining = False
        self._listen()

    # For those who hold connections

    def join(self, hold: Hold, outlet: Outlet) -> Connection:
        """Hold a new connection, whose bytes go to its outlet."""
        if self._is_alone():
            self._rise()
        channels = {name: self._hold_channel(self._channels, name) for name in hold.reliable}
        channels |= {
            name: self._hold_channel(self._loose_channels, name) for name in hold.unreliable
        }
        names = (hold.reliable, hold.unreliable)
        convoy = Convoy(self._convoys, names, list(channels.values()))
        connection = Connection(hold, outlet, convoy, self._turn)
        self._connections[connection] = None
        self._keep_alives.add(connection)
        if self._is_draining:
            connection.drain(retry_milliseconds())
        else:
            self._admission.add(connection)
        return connection

    def leave(self, connection: Connection) -> None:
        """Forget a connection, and what was held for it alone."""
        self._connections.pop(connection, None)
        self._admission.remove(connection)
        self._keep_alives.remove(connection)
        connection.leave()
        self._let_go(self._channels, connection.hold.reliable)
        self._let_go(self._loose_channels, connection.hold.unreliable)
        if self._is_alone():
            self._rest()

    @contextmanager
    def staying_awake(self) -> Iterator[None]:
        """Follow the control channel meanwhile, also without connections."""
        if self._is_alone():
            self._rise()
        self._guests += 1
        try:
            yield
        finally:
            self._guests -= 1
            if self._is_alone():
                self._rest()

    async def may_return(self, hold: Hold, mark: ControlMark) -> bool:
        """Say whether permission was not withdrawn since `mark`; False in any doubt.

        For use within `staying_awake()`; who is joined before that ends misses no revocation.
        Raises `StorageUnavailableError` if the log does not answer in time.
        """
        return self._revocations is not None and await self._revocations.has_none(hold, mark)

    @property
    def control_mark(self) -> ControlMark | None:
        """Up to where revocations have been heeded; None where nobody knows."""
        return None if self._revocations is None else self._revocations.mark

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
            stored = self._channels.get(event.channel)
            loose = self._loose_channels.get(event.channel)
            if (stored is None and loose is None) or not self._may_take(event):
                continue
            if stored is not None:
                stored.offer(event)
            if loose is not None:
                loose.offer(event if event.id is None else replace(event, id=None))

    def _may_take(self, event: Event) -> bool:
        return self._follower is None or self._follower.may_take(event)

    def hint(self, channel: str, last_id: int, log: str | None = None) -> None:
        """Learn that a channel of the log (None: of ours) has reached an id."""
        held, follower = self._channels.get(channel), self._follower
        if held is None or follower is None:
            return
        if log in (None, follower.log):
            held.hint(last_id)
        elif follower.log is None:
            follower.look()

    def look(self) -> None:
        """Ask the log now: news may have been missed."""
        if self._follower is not None:
            self._follower.look()

    def drain(self) -> None:
        """End every stream at an event boundary; new ones are sent away at once."""
        self._is_draining = True
        do_for_each(self._connections, lambda each: each.drain(retry_milliseconds()))

    def statistics(self) -> HubStatistics:
        """Say how much is held."""
        held = len(self._channels) - (CONTROL_CHANNEL in self._channels)
        threads = self._authorizations.threads + (self._log.threads if self._log else 0)
        return HubStatistics(
            connections=len(self._connections),
            channels=held + len(self._loose_channels),
            window_bytes=self._budget.bytes,
            threads=threads,
            task_failures=self._tasks.failures,
        )

    # Life: a hub without connections costs nothing

    def _is_alone(self) -> bool:
        return not self._connections and not self._guests

    def _rise(self) -> None:
        self._listen()
        control = self._channels[CONTROL_CHANNEL] = self._make_channel(
            CONTROL_CHANNEL,
            is_reliable=self._follower is not None,
            listener=self._hear,
            missed=self._ask_everybody_again,
        )
        if self._log is not None and (follower := self._follower) is not None:
            self._revocations = Revocations(
                control, self._log, follower.ask, lambda: follower.epoch
            )
        self._tasks.supervise("keep-alive", self._keep_alives.run)
        if self._follower is not None:
            self._tasks.supervise("follow", self._follower.follow)
        for feed in self._feeds:
            self._tasks.supervise((type(feed).__name__, feed), partial(feed.follow, self))

    def _rest(self) -> None:
        self._revocations = None
        self._channels.clear()
        self._loose_channels.clear()
        self._budget.clear()
        self._tasks.cancel()
        self._authorizations.forget_all()
        if self._follower is not None:
            self._follower.rest()

    def _listen(self) -> None:
        self._changes = PermissionChanges()
        self._admission = Admission(
            self._channels, self._follower, self._changes, self._authorizations, self._tasks
        )

    def _hold_channel(self, held: dict[str, HeldChannel], name: str) -> HeldChannel:
        if name not in held:
            held[name] = self._make_channel(name, is_reliable=held is self._channels)
        return held[name]

    def _let_go(self, held: dict[str, HeldChannel], names: Iterable[str]) -> None:
        for name in names:
            if name in held and not held[name].readers:
                self._budget.forget(held.pop(name))

    def _make_channel(
        self,
        name: str,
        *,
        is_reliable: bool,
        listener: Callable[[Event], None] | None = None,
        missed: Callable[[], None] | None = None,
    ) -> HeldChannel:
        return HeldChannel(
            name,
            is_reliable=is_reliable,
            window_bytes=min(self._options.window_bytes, self._options.total_window_bytes),
            schedule=self._schedule_read,
            settle=self._budget.settle,
            listener=listener,
            missed=missed,
        )

    def _schedule_read(self, wish: Wish) -> None:
        if self._follower is not None:
            self._follower.schedule_read(wish)

    def _hear(self, event: Event) -> None:
        if self._revocations is not None:
            self._revocations.hear(event)
        change = control.parse_disconnect(event)
        if change is None:
            return
        self._changes.add(change)
        concerned = [each for each in self._connections if concerns(change, each.hold)]
        do_for_each(concerned, self._admission.remove)
        error = EventPermissionError.for_channels([change.channel])
        do_for_each(concerned, lambda each: each.fail(error))

    def _ask_everybody_again(self) -> None:
        """What took permissions away was missed: who comes back is judged by the view."""
        logger.warning("Streams are ended: changes of permissions may have been missed")
        do_for_each(self._connections, self._admission.remove)
        do_for_each(self._connections, lambda each: each.send_away(retry_milliseconds()))
