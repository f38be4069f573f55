"""Sending to very many clients: no task and no queue for each, only its ASGI `send()`.

A pump that is woken is noted, and all that were noted are served in the loop's next turn: what
came close together goes out together. Each `send()` is stepped by hand. It mostly ends without
having to wait; only for a client that does not read fast enough does a task finish it.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Awaitable, Callable, Generator, Iterator, MutableMapping
from typing import Any

from django_eventstream.hub.connection import Connection

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class PumpRoom:
    """The pumps of one event loop that have something to send."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._noted: list[Pump] = []

    def note(self, pump: Pump) -> None:
        """Serve this one in the loop's next turn."""
        if not self._noted:
            self.loop.call_soon(self._serve)
        self._noted.append(pump)

    def _serve(self) -> None:
        noted, self._noted = self._noted, []
        for pump in noted:
            try:
                pump.serve()
            except (Exception, asyncio.CancelledError) as error:
                # It ends this stream, and must not silence those that come after it.
                pump.fail(error)


class Pump:
    """Carries what a connection has to one client, until either is gone."""

    __slots__ = ("_is_noted", "_owner", "_room", "_send", "_sending", "connection", "ended")

    def __init__(self, room: PumpRoom, send: Send, owner: asyncio.Task[Any]) -> None:
        self.connection: Connection | None = None
        self.ended: asyncio.Future[BaseException | None] = room.loop.create_future()
        """Done when nothing more will be sent; its result is what `send()` raised."""
        self._room = room
        self._send = send
        self._owner = owner
        self._is_noted = False
        self._sending: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There may be something to send."""
        if not self._is_noted:
            self._is_noted = True
            self._room.note(self)

    def serve(self) -> None:
        """Send what there is, as far as the client takes it at once."""
        self._is_noted = False
        connection = self.connection
        if connection is None or self._sending is not None or self.ended.done():
            return
        while chunk := connection.take():
            if not self._step(chunk):
                return
        if connection.is_ended:
            self.ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End, because of this."""
        if not self.ended.done():
            self.ended.set_result(error)

    def stop(self) -> None:
        """Send nothing more."""
        self.connection = None
        if self._sending is not None:
            self._sending.cancel()

    def _step(self, chunk: bytes) -> bool:
        """Send a chunk; False if that is not done yet."""
        message = {"type": "http.response.body", "body": chunk, "more_body": True}
        steps = self._send(message).__await__()
        # Whatever a server looks up is found: this is a part of the connection's own task.
        _enter_task(self._room.loop, self._owner)
        try:
            awaited = next(steps)
        except StopIteration:
            return True
        finally:
            _leave_task(self._room.loop, self._owner)
        self._sending = self._room.loop.create_task(_finish(steps, awaited))
        self._sending.add_done_callback(self._sent)
        return False

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._sending = None
        if sending.cancelled() or self.ended.done():
            return
        error = sending.exception()
        if error is not None:
            self.fail(error)
        else:
            self.wake()


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
