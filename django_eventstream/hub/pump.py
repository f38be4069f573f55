"""Sending to very many clients: no task and no queue for each, only its ASGI `send()`.

Each `send()` is stepped by hand, which may be done to a server's own only: see `servers`. It mostly
ends without having to wait; only for a client that does not read fast enough does a task finish it.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any

from django_eventstream.hub.connection import Connection
from django_eventstream.hub.listener import Message

Send = Callable[[Message], Awaitable[None]]

END: dict[str, Any] = {"type": "http.response.body", "body": b"", "more_body": False}
"""Ends a response. Each client gets a copy: middleware may write into it."""


class Pump:
    """The outlet of one connection into its ASGI `send()`. Made in the connection's own task."""

    __slots__ = ("_finishing", "_loop", "_owner", "_send", "connection", "ended")

    def __init__(self, send: Send) -> None:
        owner = asyncio.current_task()
        assert owner is not None, "ASGI servers run applications in tasks"
        self.connection: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        """Done when nothing more will be sent; its result is what went wrong."""
        self._send = send
        self._owner = owner
        self._finishing: asyncio.Task[None] | None = None

    def send(self, chunk: bytes) -> bool:
        """See `Outlet.send()`."""
        # A server's own task would be the current one; whatever it looks up there is found.
        _enter_task(self._loop, self._owner)
        try:
            message = {"type": "http.response.body", "body": chunk, "more_body": True}
            steps = self._send(message).__await__()
            awaited = next(steps)
        except StopIteration:
            return True
        except (Exception, asyncio.CancelledError) as error:
            self.end(error)
            return False
        finally:
            _leave_task(self._loop, self._owner)
        self._finishing = self._loop.create_task(_finish(steps, awaited))
        self._finishing.add_done_callback(self._sent)
        return False

    def end(self, error: BaseException | None = None) -> None:
        """See `Outlet.end()`."""
        if not self.ended.done():
            self.ended.set_result(error)

    def stop(self) -> asyncio.Task[None] | None:
        """Send nothing more but the end; return a task that is being cancelled, if there is one."""
        self.connection = None
        finishing = self._finishing
        if finishing is not None:
            finishing.cancel()
        return finishing

    async def finish(self) -> None:
        """Send the end of the response, once `ended` says that nothing went wrong."""
        await self._send(END.copy())

    def _sent(self, finishing: asyncio.Task[None]) -> None:
        self._finishing = None
        if finishing.cancelled():
            return
        if (error := finishing.exception()) is not None:
            self.end(error)
        elif self.connection is not None:
            self.connection.ready()


async def _finish(steps: Iterator[Any], awaited: Any) -> None:
    await _Rest(steps, awaited)


class _Rest:
    """What is left of an awaitable after its first step, which awaits `awaited`."""

    def __init__(self, steps: Iterator[Any], awaited: Any) -> None:
        self._steps = steps
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        while True:
            try:
                yield awaited
                break
            except BaseException as error:
                # Not every server's awaitable is a generator.
                throw = getattr(self._steps, "throw", None)
                if throw is None:
                    raise
                try:
                    awaited = throw(error)
                except StopIteration:
                    return
        yield from self._steps
