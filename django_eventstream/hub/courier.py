"""Sending through what others put around a server: one task for each connection, all its life."""

from __future__ import annotations

import asyncio

from django_eventstream.hub.connection import Connection
from django_eventstream.hub.pump import END, Send


class Courier:
    """The outlet of one connection into an ASGI `send()` that is not a server's own.

    Its task calls `send()`, and nobody else does, so that whatever one call leaves in its context
    the next one finds. Made in the connection's own task, whose context it begins with.
    """

    __slots__ = ("_chunk", "_loop", "_send", "_task", "connection", "ended")

    def __init__(self, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        self.connection: Connection | None = None
        self.ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        """See `Pump.ended`."""
        self._send = send
        self._chunk: asyncio.Future[bytes] = self._loop.create_future()
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._has_run)

    def send(self, chunk: bytes) -> bool:
        """See `Outlet.send()`."""
        self._chunk.set_result(chunk)
        return False

    def end(self, error: BaseException | None = None) -> None:
        """See `Outlet.end()`."""
        if not self.ended.done():
            self.ended.set_result(error)

    def stop(self) -> asyncio.Task[None] | None:
        """See `Pump.stop()`."""
        self.connection = None
        is_whole = self.ended.done() and not self.ended.cancelled() and self.ended.result() is None
        if is_whole:
            return None
        self._task.cancel()
        return self._task

    async def finish(self) -> None:
        """See `Pump.finish()`."""
        self._chunk.set_result(b"")
        await self._task

    async def _run(self) -> None:
        while chunk := await self._chunk:
            self._chunk = self._loop.create_future()
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            if self.connection is not None:
                self.connection.ready()
        await self._send(END.copy())

    def _has_run(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.end(asyncio.CancelledError())
        else:
            self.end(task.exception())
