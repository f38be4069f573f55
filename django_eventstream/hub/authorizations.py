"""Asking again whether clients may read, of channel managers that may take long, or for ever."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from django.db import connections

from django_eventstream.deadlines import NoThreadError, Threads
from django_eventstream.exceptions import EventStreamError, StorageUnavailableError
from django_eventstream.hub.connection import Connection
from django_eventstream.hub.tasks import NamedTasks
from django_eventstream.transactions import own_thread

logger = logging.getLogger(__name__)

AT_ONCE = 4
"""Channel managers asked at the same time, each of which may open a database connection: one that
is slow does not hold up the other clients."""

AUTHORIZE_SECONDS = 2.5
"""How long one may take."""

PAUSES = (0,) * 6 * AT_ONCE
"""So many may hang, each with what it has opened; see `Threads`."""

Answer = Callable[[EventStreamError | None], None]


class Authorizations:
    """Asks in the order in which it was asked for. Belongs to one event loop."""

    def __init__(self, tasks: NamedTasks) -> None:
        self._tasks = tasks
        self._threads = Threads(
            "eventstream-authorize", PAUSES, connections.close_all, at_start=own_thread
        )
        self._waiting: deque[tuple[Connection, Answer]] = deque()

    def ask(self, connection: Connection, answer: Answer) -> None:
        """Call `answer()` with nothing if the client may read, or with why it may not.

        `StorageUnavailableError` means that nobody knows.
        """
        self._waiting.append((connection, answer))
        for number in range(AT_ONCE):
            self._tasks.ensure(("authorize", number), self._work)

    def forget_all(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()

    @property
    def threads(self) -> int:
        """How many threads ask, those that hang included."""
        return self._threads.alive

    async def _work(self) -> None:
        while self._waiting:
            connection, answer = self._waiting.popleft()
            if not connection.is_ended:
                answer(await self._authorize(connection))

    async def _authorize(self, connection: Connection) -> EventStreamError | None:
        try:
            await self._threads.call(connection.hold.authorize, AUTHORIZE_SECONDS)
        except EventStreamError as error:
            return error
        except (TimeoutError, NoThreadError) as error:
            return StorageUnavailableError(str(error))
        except Exception as error:
            # The project's own fault, and its view's to answer for when the client comes back.
            logger.exception("The channel manager failed")
            return StorageUnavailableError(str(error))
        return None
