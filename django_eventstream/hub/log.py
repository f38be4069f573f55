"""How a hub asks the log: in a thread of its own, with a database connection of its own.

A database that does not answer (a firewall that drops packets, a server or a proxy that is frozen)
is left alone: the thread of a question that takes too long goes on by itself, with its connection,
and the next question gets another thread and another connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from django.db import connections

from django_eventstream import housekeeping
from django_eventstream.deadlines import NoThreadError, Threads, Worker
from django_eventstream.events import Event
from django_eventstream.exceptions import EventStreamError, StorageUnavailableError
from django_eventstream.logs import id_of
from django_eventstream.outbox import RELAY_SECONDS, relay
from django_eventstream.storage.base import LogPosition, Storage
from django_eventstream.transactions import own_thread

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

QUESTION_SECONDS = 2.5
"""So long a question keeps others waiting, and so long it waits for its answer. One connection that
froze costs a newcomer this, of the five seconds within which it is served or sent away."""

LONGEST_QUESTION_SECONDS = 20.0
"""Each time that a question of open streams finds no answer it waits twice as long the next time,
up to this: a database that is merely slow gets its work done, and no other question waits for it.
"""

PAUSES = (0, 0, 0, 1, 2, 4, 8, 16, 30, *(60,) * 13)
"""See `Threads`: so many questions may hang, each of which may have a connection. While a database
is frozen they get more and more rare, so that there is one left for when it is back: these last for
a quarter of an hour, after which Linux gives up a connection that sends in vain."""

RELAYS = (0, 0, 0, 0)
"""Calls of `relay()` that may hang; see `Threads`."""

MOST_OVERDUE = 1_000
"""Questions of which it is remembered that they were overdue."""


class LogReader:
    """One thread and at most one database connection, however many streams there are.

    More only while some hang. The connection stays open between reads, whatever `CONN_MAX_AGE`
    says to requests, and is closed by `rest()` or when the database fails.

    All questions raise `StorageUnavailableError`, within `LONGEST_QUESTION_SECONDS` of their turn.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._turn = asyncio.Lock()
        self._readers = asyncio.Lock()
        """Held by the next read: where the log stands is asked before all others that wait."""
        self._threads = _threads("eventstream-log", PAUSES)
        self._relays = _threads("eventstream-relay", RELAYS)
        self._worker: Worker | None = None
        self._is_unidentified = False
        self._seconds: dict[Hashable, float] = {}
        """How long the questions wait that were overdue."""

    async def get_position(self, channels: list[str]) -> LogPosition:
        """See `Storage.get_position()`."""
        asking = partial(self._ask, partial(self._ask_position, channels))
        return await self._answer(("position", ""), asking)

    async def read(self, channel: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        """See `Storage.read()`."""
        function = partial(self._storage.read, channel, after, limit, max_bytes)
        return await self._answer(("read", channel), partial(self._ask_after_others, function))

    async def relay(self, channels: list[str]) -> None:
        """Number and announce events that were left behind.

        In another thread, and for longer: whoever numbers many events of a channel, or froze in
        the middle, has locked it, and reads do not wait for that.
        """
        try:
            await self._relays.call(partial(relay, channels), RELAY_SECONDS)
        except (TimeoutError, NoThreadError) as error:
            raise StorageUnavailableError(str(error), may_be_stored=True) from error

    def _ask_position(self, channels: list[str]) -> LogPosition:
        position = replace(self._storage.get_position(channels), log=self._identify())
        housekeeping.housekeeper.stir()
        return position

    def _identify(self) -> str | None:
        # It takes another connection, and other rights: streams do not wait for that.
        try:
            return id_of(self._storage)
        except StorageUnavailableError as error:
            if not self._is_unidentified:
                logger.warning("What other processes say is looked up in the log: %s", error)
            self._is_unidentified = True
            return None

    def rest(self) -> None:
        """Close the database connection until it is needed again."""
        self._seconds.clear()
        self._leave_alone()

    @property
    def threads(self) -> int:
        """How many threads there are, those that hang included."""
        return self._threads.alive + self._relays.alive

    async def _answer(
        self,
        question: Hashable,
        ask: Callable[[], Awaitable[asyncio.Future[Result]]],
    ) -> Result:
        seconds = self._seconds.get(question, QUESTION_SECONDS)
        asked = await ask()
        try:
            await asyncio.wait({asked}, timeout=seconds - QUESTION_SECONDS)
            if asked.done():
                return self._heard(question, asked)
        finally:
            asked.cancel()
        if len(self._seconds) >= MOST_OVERDUE:
            self._seconds.clear()
        self._seconds[question] = min(2 * seconds, LONGEST_QUESTION_SECONDS)
        raise StorageUnavailableError(f"the event log did not answer within {seconds:g} s")

    def _heard(self, question: Hashable, asked: asyncio.Future[Result]) -> Result:
        if not isinstance(asked.exception(), StorageUnavailableError):
            self._seconds.pop(question, None)
        return asked.result()

    async def _ask_after_others(self, function: Callable[[], Result]) -> asyncio.Future[Result]:
        async with self._readers:
            return await self._ask(function)

    async def _ask(self, function: Callable[[], Result]) -> asyncio.Future[Result]:
        """Return the answer, or what will be the answer of a thread that has been left alone."""
        async with self._turn:
            worker = self._find_worker()
            asked = worker.call(partial(_closing_on_failure, function))
            try:
                await asyncio.wait({asked}, timeout=QUESTION_SECONDS)
            except asyncio.CancelledError:
                asked.cancel()
                self._leave_alone(worker)
                raise
            if not asked.done():
                self._leave_alone(worker)
            return asked

    def _find_worker(self) -> Worker:
        if self._worker is None:
            try:
                self._worker = self._threads.start()
            except NoThreadError as error:
                raise StorageUnavailableError(f"the event log is not asked: {error}") from error
        return self._worker

    def _leave_alone(self, worker: Worker | None = None) -> None:
        """Do not use a thread any more: it ends with its connection when it has done its work."""
        if self._worker is not None and worker in (None, self._worker):
            self._worker.end()
            self._worker = None


def _threads(name: str, pauses: Sequence[float]) -> Threads:
    return Threads(name, pauses, connections.close_all, at_start=own_thread)


def _closing_on_failure(function: Callable[[], Result]) -> Result:
    try:
        return function()
    except StorageUnavailableError:
        connections.close_all()
        raise
    except EventStreamError:
        raise
    except Exception as error:
        # A fault of the storage, or a row that nobody can read: streams wait, and ask again.
        logger.exception("The event log failed")
        connections.close_all()
        raise StorageUnavailableError(f"the event log failed: {error}") from error
