"""Asking again whether clients may read, of channel managers that may take long, or for ever."""

from __future__ import annotations

import logging
from collections import Counter, deque
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

AT_ONCE_FOR_ONE = AT_ONCE // 2
"""And so many for the same user, who holds up no other one."""

AUTHORIZE_SECONDS = 2.5
"""How long one may take."""

PAUSES = (0,) * 3 * AT_ONCE
"""So many may hang, each with what it has opened; see `Threads`."""

Answer = Callable[[EventStreamError | None], None]
_Asker = str | Connection
"""A user, or somebody who is not logged in."""


class Authorizations:
    """Asks for users by turns, for some of their streams at once. Belongs to one event loop.

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
        self._waiting.setdefault(asker, deque()).append((connection, answer))
        if self._shares[asker] < AT_ONCE_FOR_ONE:
            self._shares[asker] += 1
            self._turns.append(asker)
        for number in range(AT_ONCE):
            self._tasks.ensure(("authorize", number), self._work)

    def forget_all(self) -> None:
        """Nobody waits any more."""
        self._waiting: dict[_Asker, deque[tuple[Connection, Answer]]] = {}
        self._shares: Counter[_Asker] = Counter()
        """How many turns each has, those included in which it is asked now."""
        self._turns: deque[_Asker] = deque()

    @property
    def threads(self) -> int:
        """How many threads ask, those that hang included."""
        return self._threads.alive

    async def _work(self) -> None:
        waiting, shares, turns = self._waiting, self._shares, self._turns
        while turns:
            asker = turns.popleft()
            try:
                if theirs := waiting.get(asker):
                    connection, answer = theirs.popleft()
                    if not connection.is_ended:
                        answer(await self._authorize(connection))
            finally:
                if waiting.get(asker):
                    turns.append(asker)
                else:
                    waiting.pop(asker, None)
                    shares.subtract([asker])
                    if not shares[asker]:
                        del shares[asker]

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
