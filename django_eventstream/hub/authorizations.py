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

AT_ONCE = 8
"""Channel managers asked at the same time, each of which may open a database connection: one that
is slow does not hold up the other clients, and 200 who take 0.1 s each do not lose patience."""

AUTHORIZE_SECONDS = 2.5
"""How long one may take."""

PAUSES = (0,) * 3 * AT_ONCE
"""So many may hang, each with what it has opened; see `Threads`."""

Answer = Callable[[EventStreamError | None], None]
_Asker = str | Connection
"""A user, or somebody who is not logged in."""


class Authorizations:
    """Asks for users by turns, for one of their streams each time. Belongs to one event loop.

    So whoever has many streams, and a channel manager that is slow for them, holds up nobody else.
    """

    def __init__(self, tasks: NamedTasks) -> None:
        self._tasks = tasks
        self._threads = Threads(
            "eventstream-authorize", PAUSES, connections.close_all, at_start=own_thread
        )
        self.forget_all()

    def ask(self, connection: Connection, answer: Answer) -> None:
        """Call `answer()` with nothing if the client may read, or with why it may not.

        `StorageUnavailableError` means that nobody knows.
        """
        asker = connection if connection.user_id is None else connection.user_id
        if asker not in self._waiting:
            self._waiting[asker] = deque()
            self._turns.append(asker)
        self._waiting[asker].append((connection, answer))
        for number in range(AT_ONCE):
            self._tasks.ensure(("authorize", number), self._work)

    def forget_all(self) -> None:
        """Nobody waits any more."""
        self._waiting: dict[_Asker, deque[tuple[Connection, Answer]]] = {}
        """The streams of those who wait, or for whom it is asked now."""
        self._turns: deque[_Asker] = deque()
        """Those of them for whom it is not asked now."""

    @property
    def threads(self) -> int:
        """How many threads ask, those that hang included."""
        return self._threads.alive

    async def _work(self) -> None:
        waiting, turns = self._waiting, self._turns
        while turns:
            asker = turns.popleft()
            try:
                connection, answer = waiting[asker].popleft()
                if not connection.is_ended:
                    answer(await self._authorize(connection))
            finally:
                if waiting[asker]:
                    turns.append(asker)
                else:
                    del waiting[asker]

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
