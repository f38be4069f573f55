"""Following the log: where it stands, and what the channels of a hub are missing of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError, StorageUnavailableError
from django_eventstream.hub.channel import HeldChannel, Reader, Wish
from django_eventstream.hub.log import QUESTION_SECONDS, LogReader
from django_eventstream.hub.reads import ReadQueue
from django_eventstream.hub.tasks import NamedTasks
from django_eventstream.hub.turn import break_off
from django_eventstream.storage.base import LogPosition

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""From one question to the next while the log cannot be reached; hints meanwhile are kept."""

OTHER_LIFE_SECONDS = 0.05
"""Pause after the log turned out to have begun anew, until it was asked where it stands."""


EARLY_EVENTS = 1_000
EARLY_CHARACTERS = 1_000_000
"""Most events without an id, and their data, that wait until it is known which log the hub
follows."""


class LogFollower:
    """Reads for the channels in `channels`, which the hub adds to and removes from.

    `offer()` gets the events that `may_take()` has put off, once they can be told from others.
    """

    def __init__(
        self,
        log: LogReader,
        channels: Mapping[str, HeldChannel],
        tasks: NamedTasks,
        poll_seconds: float,
        offer: Callable[[Iterable[Event]], None],
    ) -> None:
        self.epoch = 0
        """Which life of the log the hub's channels are in."""
        self.log: str | None = None
        """Which log this is; None before it was first asked, and while nobody can say."""
        self._log = log
        self._channels = channels
        self._tasks = tasks
        self._poll_seconds = poll_seconds
        self._offer = offer
        self._early: list[Event] = []
        self._news = asyncio.Event()
        self._asked = 0
        self._answered = 0
        """Which question was the last one that was answered."""
        self._can_relay = True
        self._queue = ReadQueue()

    async def follow(self) -> None:
        """Ask for news for ever: regularly, and at once after `look()`."""
        is_reachable = True
        while True:
            await self._wait_for_news()
            asked_at = time.monotonic()
            try:
                await self.ask(self._reliable_names())
                is_reachable = True
            except StorageUnavailableError as error:
                if is_reachable:
                    logger.warning("Streams wait for the event log: %s", error)
                is_reachable = False
                await pause_since(asked_at)
                # What was asked for is still wanted, long before the next regular question.
                self.look()

    def look(self) -> None:
        """Ask for news now."""
        self._news.set()

    async def _wait_for_news(self) -> None:
        # Not wait_for(): before Python 3.12 it loses a cancellation that comes with the news.
        timer = asyncio.get_running_loop().call_later(self._poll_seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()
        self._news.clear()

    async def ask(self, names: Iterable[str]) -> Mapping[str, int]:
        """Ask where the log stands, tell the channels, and return the last ids.

        Raises `StorageUnavailableError`.
        """
        known = {name: channel.window.last_id for name, channel in self._channels.items()}
        position = await self._get_position(names)
        if position.epoch != self.epoch:
            position = await self._get_position({*names, *self._reliable_names()})
        restarts: dict[str, str] = {}
        for name, last_id in position.ids.items():
            channel = self._channels.get(name)
            if channel is None:
                continue
            if not channel.is_positioned:
                channel.position(last_id, position.epoch)
            elif position.epoch != self.epoch:
                restarts[name] = "epoch"
            elif last_id < known.get(name, 0):
                restarts[name] = "ahead"
            else:
                channel.hint(last_id)
        self.epoch = position.epoch
        self.log = self.log if position.log is None else position.log
        self._restart(restarts, position)
        early, self._early = self._early, []
        self._offer(early)
        if position.unnumbered:
            self._tasks.ensure("relay", partial(self._relay, sorted(position.unnumbered)))
        return position.ids

    async def _get_position(self, names: Iterable[str]) -> LogPosition:
        self._asked += 1
        number = self._asked
        position = await self._log.get_position(sorted(names))
        if number < self._answered:
            # Its thread had been abandoned. The answer to a later question is not undone.
            raise StorageUnavailableError("the event log answered too late")
        self._answered = number
        return position

    def may_take(self, event: Event) -> bool:
        """Say whether the event is one of our log; where nobody can say, the log is asked."""
        if event.log is None and event.id is not None and self.log:
            # Of another version of this package, during a deploy.
            self.look()
            return False
        if event.log is not None and event.log != self.log:
            if self.log is None:
                self._put_off(event)
            return False
        if not self.is_of_our_life(event):
            # Its id may follow by chance on those of the life before.
            self.look()
            return False
        return True

    def _put_off(self, event: Event) -> None:
        if event.id is not None:
            self.look()
        elif len(self._early) < EARLY_EVENTS:
            room = EARLY_CHARACTERS - sum(len(each.data) for each in self._early)
            if len(event.data) <= room:
                self._early.append(event)

    def is_of_our_life(self, event: Event) -> bool:
        """Say whether the event's id means what the hub's own ids mean."""
        return event.epoch is None or event.epoch == self.epoch

    def schedule_read(self, wish: Wish) -> None:
        """Read what is wished for when its turn has come."""
        self._queue.add(wish)
        self._tasks.ensure("reads", self._read_in_turn)

    def rest(self) -> None:
        """Let go of the log until the next question."""
        self._log.rest()
        # The next client begins with the events that are sent from then on.
        self._early.clear()
        self._queue.clear()

    async def _read_in_turn(self) -> None:
        while (wish := self._queue.take()) is not None:
            tried = asyncio.get_running_loop().create_future()
            self._tasks.ensure(("read", wish.channel), partial(self._read, wish, tried))
            # One that takes long holds up no other channel.
            await asyncio.wait({tried}, timeout=QUESTION_SECONDS)

    async def _read(self, wish: Wish, tried: asyncio.Future[None]) -> None:
        try:
            while (after := wish.channel.begin_read(wish)) is not None:
                asked_at = time.monotonic()
                try:
                    pause = await self._try_to_read(wish, after)
                except StorageUnavailableError:
                    pause = pause_since(asked_at)
                if pause is not None:
                    _settle(tried)
                    await pause
            self._queue.release(wish.channel)
            # The task that gives the turns did not wait for this one, and may have ended since.
            self._tasks.ensure("reads", self._read_in_turn)
        finally:
            _settle(tried)

    async def _try_to_read(self, wish: Wish, after: int) -> Awaitable[None] | None:
        """Return what to wait for until it can be tried again; None if it was read."""
        channel = wish.channel
        life = channel.life
        try:
            events = await self._log.read(channel.name, after, wish.limit, wish.max_bytes)
        except HistoryGoneError as gone:
            channel.take_gone(wish, gone)
            return None
        if events and not self.is_of_our_life(events[0]):
            self.look()
            return asyncio.sleep(OTHER_LIFE_SECONDS)
        if life == channel.life:
            channel.take_read(wish, after, events)
        return None

    async def _relay(self, channels: list[str]) -> None:
        asked_at = time.monotonic()
        try:
            await self._log.relay(channels)
            self._can_relay = True
        except StorageUnavailableError as error:
            if self._can_relay:
                logger.warning("Events left behind could not be numbered: %s", error)
            self._can_relay = False
            await pause_since(asked_at)

    def _restart(self, reasons: Mapping[str, str], position: LogPosition) -> None:
        """Tell each connection once of all its channels: a cursor between two news would lie."""
        affected: dict[Reader, dict[str, str]] = {}
        for name, reason in reasons.items():
            self._channels[name].restart(position.ids[name], position.epoch)
            for reader in self._channels[name].readers:
                affected.setdefault(reader, {})[name] = reason
        for reader, mine in affected.items():
            try:
                reader.restart(mine, position.epoch)
            except Exception as error:
                break_off(reader, error)

    def _reliable_names(self) -> list[str]:
        return [name for name, channel in self._channels.items() if channel.is_reliable]


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def pause_since(asked_at: float) -> None:
    """Wait until the log may be asked again: at once, if it was the answer that took so long."""
    await asyncio.sleep(max(0.0, asked_at + RETRY_SECONDS - time.monotonic()))
