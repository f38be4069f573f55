"""How many requests for streams ask Django at once: after a restart everybody comes together.

A place is for a request that is complete, and for a bounded time. Whatever the requests inside wait
for, such as a database connection that is frozen, others come in besides them: soon the first time,
and then more and more slowly, as each may have a thread and a database connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any
from weakref import WeakKeyDictionary

from django_eventstream.hub.holder import END_SECONDS, Message, Receive
from django_eventstream.hub.servers import is_servers_own

logger = logging.getLogger(__name__)

BODY_SECONDS = 5.0
"""How long the rest of a request may take. Requests for streams have no body: it has come with the
head, unless somebody holds it back."""

BODY_BYTES = 65_536
"""Most bytes of such a body, which is kept in memory."""

WAIT_SECONDS = 50.0
"""How long a request waits for a place, before its client is told when to come back. Proxies cut
what they have heard nothing of for a minute."""

STALL_SECONDS = 20.0
"""How long it waits where nobody else gets a place either."""

OVERDUE_SECONDS = 4.0
"""After so long another request may come in besides one that is still being answered."""

STUCK_SECONDS = 60.0
"""After so long once more, where as many are overdue as there are places; and then twice as long
each time: after a day there are twelve times as many requests inside as there are places."""


MOST_INSIDE = 24
"""How many times as many threads as there are places are ever needed: the last ones in years."""


class RequestRefusedError(Exception):
    """A request is not one for a stream, or does not become one in time; has a status of HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Incoming:
    """What a client sends, listened to while it waits, and kept for whoever asks for it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()
        self._next: asyncio.Future[Message] | None = None
        self.is_gone = False
        """Whether the client was heard to leave."""
        self.on_leaving: Callable[[], None] = _nothing
        """Called when Django hears of it."""

    async def receive(self) -> Message:
        """Do what the server's own `receive()` does."""
        message = self._kept.popleft() if self._kept else await self._coming()
        if message["type"] == "http.disconnect":
            # Servers say it only once.
            self.is_gone = True
            self.on_leaving()
        return message

    async def complete(self) -> None:
        """Wait for the rest of the request, and keep it. Raises `RequestRefusedError`."""
        deadline, size = time.monotonic() + BODY_SECONDS, 0
        while not self.is_gone:
            timeout = deadline - time.monotonic()
            if not (await asyncio.wait({self.listen()}, timeout=timeout))[0]:
                raise RequestRefusedError(408)
            self.keep()
            message = self._kept[-1]
            size += len(message.get("body", b""))
            if size > BODY_BYTES:
                raise RequestRefusedError(413)
            if not message.get("more_body"):
                return

    def rest(self) -> Receive:
        """Return what a `Listener` steps by hand for the rest: where it can, the server's own."""
        is_bare = not self._kept and self._next is None and is_servers_own(self._receive)
        return self._receive if is_bare else self._listened

    async def close(self) -> None:
        """Listen no more: nothing of a request outlives it."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next}, timeout=END_SECONDS)

    async def _listened(self) -> Message:
        """Receive in a task."""
        if not self._kept:
            await self.listen()
            self.keep()
        return self._kept.popleft()

    async def _coming(self) -> Message:
        coming, self._next = self._next, None
        return await (self._receive() if coming is None else coming)

    def listen(self) -> asyncio.Future[Message]:
        """Return a future that is done when there is more to `keep()`."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        return self._next

    def keep(self) -> None:
        """Put aside what came."""
        if self._next is not None and self._next.done():
            message = self._next.result()
            self._next = None
            self._kept.append(message)
            self.is_gone = message["type"] == "http.disconnect"


def _nothing() -> None:
    pass


class Turnstile:
    """Lets `places` in at once, in the order in which they came. Waiting costs no thread.

    Each event loop has places of its own.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def enter(self, incoming: Incoming | None = None) -> Place | None:
        """Wait for a place; None if there is none in time, or the client leaves before."""
        queue = self._queue
        return Place(queue) if await queue.enter(incoming) else None

    def enter_now(self) -> Place | None:
        """Take a place if one is free."""
        queue = self._queue
        return Place(queue) if queue.enter_now() else None

    @property
    def _queue(self) -> _Queue:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue(self._places)
        return queue


class Place:
    """Somebody's place, until it is left."""

    def __init__(self, queue: _Queue) -> None:
        self._queue: _Queue | None = queue
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._is_given_away = False
        self._wait(OVERDUE_SECONDS)

    def leave(self) -> None:
        """Let the next one in, unless that has been done; once is enough."""
        queue, self._queue = self._queue, None
        self._overdue.cancel()
        if queue is not None:
            queue.leave(self._is_given_away)

    def leave_threadsafe(self) -> None:
        """Leave it from any thread, soon; nothing if its event loop is over."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.leave, context=Context())

    def _wait(self, seconds: float) -> None:
        # Not in the context of a request, which would live as long.
        self._overdue = self._loop.call_later(seconds, self._give_away, context=Context())

    def _give_away(self) -> None:
        if self._queue is None:
            return
        rest = self._since + self._queue.patience() - self._loop.time()
        if rest > 0:
            self._wait(rest)
        else:
            self._is_given_away = True
            self._queue.give_away()


class _Queue:
    def __init__(self, places: int) -> None:
        self._places = places
        self._free = places
        self._overdue = 0
        """How many are inside whose place was given to others."""
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._moved_at = 0.0
        """When somebody who had waited got a place."""

    def enter_now(self) -> bool:
        if not self._free:
            return False
        self._free -= 1
        return True

    async def enter(self, incoming: Incoming | None) -> bool:
        if self.enter_now():
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        has_place = False
        try:
            has_place = await self._comes(turn, incoming)
        finally:
            if not has_place:
                self._give_up(turn)
        return has_place

    def patience(self) -> float:
        """Return how long a request is inside before its place is given away."""
        rounds = self._overdue // self._places
        return STUCK_SECONDS * 2.0 ** (rounds - 1) if rounds else OVERDUE_SECONDS

    def give_away(self) -> None:
        if self._overdue % self._places == 0:
            logger.warning("%d requests for streams hang in Django", self._overdue + 1)
        self._overdue += 1
        self.leave()

    def leave(self, is_given_away: bool = False) -> None:
        if is_given_away:
            self._overdue -= 1
        elif self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            turn.set_result(None)
            self._moved_at = time.monotonic()
        else:
            self._free += 1

    async def _comes(self, turn: asyncio.Future[None], incoming: Incoming | None) -> bool:
        """Wait for a turn; False if it does not come in time, or the client leaves."""
        since = time.monotonic()
        while not turn.done() and (rest := self._rest(since)) > 0:
            awaited: set[asyncio.Future[Any]] = {turn}
            if incoming is not None:
                awaited.add(incoming.listen())
            await asyncio.wait(awaited, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            if incoming is not None:
                incoming.keep()
                if incoming.is_gone:
                    return False
        return turn.done()

    def _rest(self, since: float) -> float:
        """Return how much longer a request waits that has waited since then."""
        stalled = max(since, self._moved_at) + STALL_SECONDS
        return min(since + WAIT_SECONDS, stalled) - time.monotonic()

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self.leave()
        self._waiting.pop(turn, None)
