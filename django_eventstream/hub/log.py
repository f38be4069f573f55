"""How a hub asks the log: in a thread of its own, with a database connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from django.db import connections

from django_eventstream.events import Event
from django_eventstream.exceptions import EventStreamError, StorageUnavailableError
from django_eventstream.logs import id_of
from django_eventstream.outbox import relay
from django_eventstream.storage.base import LogPosition, Storage

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class LogReader:
    """One thread and at most one database connection, however many streams there are.

    The connection stays open between reads, whatever `CONN_MAX_AGE` says to requests, and is
    closed by `rest()` or when the database fails.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="eventstream-log")

    async def get_position(self, channels: list[str]) -> LogPosition:
        """See `Storage.get_position()`."""
        return await self._run(partial(self._ask_position, channels))

    async def read(self, channel: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        """See `Storage.read()`."""
        return await self._run(partial(self._storage.read, channel, after, limit, max_bytes))

    async def relay(self, channels: list[str]) -> None:
        """Number and announce events that were left behind.

        In another thread, for as long as it takes: whoever numbers many events of a channel, or
        froze in the middle, has locked it, and reads do not wait for that.
        """
        await run_apart(partial(relay, channels))

    def _ask_position(self, channels: list[str]) -> LogPosition:
        return replace(self._storage.get_position(channels), log=id_of(self._storage))

    async def _run(self, function: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _closing_on_failure, function)

    def rest(self) -> None:
        """Close the database connection until it is needed again."""
        self._executor.submit(connections.close_all)


async def run_apart(function: Callable[[], Result]) -> Result:
    """Call a function that may block for long, in a thread and connections for it alone."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="eventstream-apart")
    running = executor.submit(_closing_always, function)
    executor.shutdown(wait=False)
    return await asyncio.wrap_future(running)


def _closing_always(function: Callable[[], Result]) -> Result:
    try:
        return function()
    finally:
        connections.close_all()


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
