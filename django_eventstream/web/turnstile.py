"""How many requests for streams ask Django at once: after a restart everybody comes together."""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary

from django_eventstream.hub.holder import Message, Receive
from django_eventstream.hub.servers import is_servers_own

OVERDUE_SECONDS = 4.0
"""After so long another request may come in besides one that is still being answered: what it waits
for may never come, such as a database connection that is frozen."""

MOST_INSIDE = 2
"""How many times as many requests as there are places may be inside for that; each may have a
database connection."""


class Incoming:
    """What a client sends, listened to while it waits, and kept for whoever asks for it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()
        self._next: asyncio.Future[Message] | None = None
        self.is_gone = False
        """Whether the client was heard to leave."""

    async def receive(self) -> Message:
        """Do what the server's own `receive()` does."""
        message = self._kept.popleft() if self._kept else await self._coming()
        # Servers say it only once.
        self.is_gone = self.is_gone or message["type"] == "http.disconnect"
        return message

    def rest(self) -> Receive:
        """Return what a `Listener` steps by hand for the rest: where it can, the server's own."""
        is_bare = not self._kept and self._next is None and is_servers_own(self._receive)
        return self._receive if is_bare else self._listened

    async def _listened(self) -> Message:
        """Receive in a task."""
        if not self._kept and (coming := self.listen()) is not None:
            await coming
            self.keep()
        return self._kept.popleft()

    async def _coming(self) -> Message:
        coming, self._next = self._next, None
        return await (self._receive() if coming is None else coming)

    def listen(self) -> asyncio.Future[Message] | None:
        """Return a future that is done when there is more to `keep()`; None for a long body."""
        if self._kept and self._kept[-1].get("more_body"):
            return None
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


class Turnstile:
    """Lets `places` in at once, in the order in which they came. Waiting costs no thread.

    Each event loop has places of its own.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    async def enter(self, incoming: Incoming) -> Place | None:
        """Wait for a place; None if the client leaves before it has one."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue(self._places)
        return Place(queue) if await queue.enter(incoming) else None


class Place:
    """Somebody's place, until it is left."""

    def __init__(self, queue: _Queue) -> None:
        self._queue: _Queue | None = queue
        self._is_shared = False
        self._overdue = asyncio.get_running_loop().call_later(OVERDUE_SECONDS, self._share)

    def leave(self) -> None:
        """Let the next one in, unless that has been done; once is enough."""
        queue, self._queue = self._queue, None
        self._overdue.cancel()
        if queue is not None:
            queue.leave(self._is_shared)

    def _share(self) -> None:
        if self._queue is not None:
            self._is_shared = self._queue.share()
            if not self._is_shared:
                self._overdue = asyncio.get_running_loop().call_later(OVERDUE_SECONDS, self._share)


class _Queue:
    def __init__(self, places: int) -> None:
        self._free = places
        self._may_share = (MOST_INSIDE - 1) * places
        self._waiting: dict[asyncio.Future[None], None] = {}

    async def enter(self, incoming: Incoming) -> bool:
        if self._free:
            self._free -= 1
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            while not turn.done() and not incoming.is_gone:
                coming = incoming.listen()
                both = {turn} if coming is None else {turn, coming}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                incoming.keep()
        except BaseException:
            self._give_up(turn)
            raise
        if incoming.is_gone:
            self._give_up(turn)
        return not incoming.is_gone

    def share(self) -> bool:
        """Let the next one in besides one that is inside; False where too many are."""
        if not self._may_share:
            return False
        self._may_share -= 1
        self.leave()
        return True

    def leave(self, is_shared: bool = False) -> None:
        if is_shared:
            self._may_share += 1
        elif self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            turn.set_result(None)
        else:
            self._free += 1

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self.leave()
        self._waiting.pop(turn, None)
